"""What a cluster can never run is refused at once, in words that name the field, the value and the limit, and leaves nothing behind.

Slurm itself accepts much of it and lets it wait for ever. What depends on accounts it refuses only where it keeps them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pytest
from attrs import Factory, frozen

from intercede.core import FailureCode, InterCEdeError, Resources, SpecRefused, Submission
from stacks.tests.slurm._scene import ACCOUNTING, MAX_ARRAY, MAX_JOBS, Scene, opened, outcome_of

#: A cluster that would wait for room for so long would be noticed.
_SOON_S: Final = 30.0
with_accounting = pytest.mark.skipif(
    not ACCOUNTING, reason="without slurmdbd, Slurm takes any account and any QOS"
)


@frozen
class Refusal:
    """What is asked for, and what the refusal must say.

    Attributes:
        field: What is refused.
        words: The value, the limit and what else people need.
        resources: Of the specification.
        scheduler: Of the configuration.
    """

    field: str
    words: tuple[str, ...]
    resources: Mapping[str, Any] = Factory(dict)
    scheduler: Mapping[str, Any] = Factory(dict)


#: The cluster is the recipe's: nodes of 64 CPUs and 64000 MiB, two GPUs on n1, `short` for two minutes, `closed` down.
REFUSALS: Final[Mapping[str, Refusal]] = {
    "unknown partition": Refusal(
        "resources.queue", ("'nosuch'", "main", "short"), {"queue": "nosuch"}
    ),
    "unknown partition in the configuration": Refusal(
        "resources.queue", ("'nosuch'", "main", "short"), scheduler={"queue": "nosuch"}
    ),
    "closed partition": Refusal("resources.queue", ("'closed'", "DOWN"), {"queue": "closed"}),
    "too much memory": Refusal(
        "resources.memory_mb", ("1000000", "64000", "'main'"), {"memory_mb": 1_000_000}
    ),
    "too many cpus": Refusal("resources.cpus", ("999", "64", "'main'"), {"cpus": 999}),
    "too many cpus for its partition": Refusal(
        "resources.cpus", ("2", "1", "'single'"), {"cpus": 2, "queue": "single"}
    ),
    "too many nodes": Refusal("resources.nodes", ("9", "3", "'main'"), {"nodes": 9}),
    "too many gpus": Refusal("resources.gpus", ("3", "2", "'main'"), {"gpus": 3}),
    "no gpus": Refusal("resources.gpus", ("1", "0", "'low'"), {"gpus": 1, "queue": "low"}),
    "too long": Refusal(
        "resources.wall_time_s", ("7200", "120", "'short'"), {"wall_time_s": 7200, "queue": "short"}
    ),
    "a second too long": Refusal(
        "resources.wall_time_s", ("121", "120", "'short'"), {"wall_time_s": 121, "queue": "short"}
    ),
    "unknown feature": Refusal("constraint", ("nosuch",), scheduler={"constraint": "nosuch"}),
    "unknown reservation": Refusal("reservation", ("nosuch",), scheduler={"reservation": "nosuch"}),
    "unknown resource": Refusal("gres", ("nosuch:1",), scheduler={"gres": "nosuch:1"}),
    "unknown kind of gpu": Refusal(
        "resources.gpus", ("1", "a100"), {"gpus": 1}, {"gpu_type": "a100"}
    ),
    "unknown option": Refusal("options", ("--nosuch",), scheduler={"options": ["--nosuch=1"]}),
    "container": Refusal("container", ("container_launcher",)),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_can_never_run_is_refused_by_name_and_limit(name: str) -> None:
    wanted = REFUSALS[name]
    async with opened(wanted.scheduler) as scene:
        keys = {"container": "image"} if name == "container" else {}
        spec = scene.spec(resources=Resources(**wanted.resources), **keys)
        async with asyncio.timeout(_SOON_S):
            outcome = await outcome_of(scene.ce.submit(spec, 2))
        said = _refusal(outcome, copies=2)
        assert f"{wanted.field}" in said
        for word in wanted.words:
            assert word in said
        await check_nothing_left(scene)


@pytest.mark.parametrize(
    "resources",
    [
        {"cpus": 64},
        {"memory_mb": 64_000},
        {"nodes": 3},
        {"gpus": 2},
        {"wall_time_s": 120, "queue": "short"},
        {"whole_node": True},
    ],
    ids=lambda resources: next(iter(resources)),
)
async def test_what_is_just_within_a_limit_runs(resources: Mapping[str, Any], scene: Scene) -> None:
    ids = await scene.submitted("exit 0", resources=Resources(**resources))
    details = await scene.finished(ids)
    assert [one.exit_code for one in details.values()] == [0]


async def test_more_copies_than_the_cluster_can_ever_hold_are_refused(scene: Scene) -> None:
    outcome = await outcome_of(scene.ce.submit(scene.spec(), MAX_JOBS + 1))
    assert isinstance(outcome, SpecRefused), repr(outcome)
    assert outcome.field == "copies"
    assert str(MAX_JOBS) in str(outcome)
    assert str(MAX_JOBS + 1) in str(outcome)
    await check_nothing_left(scene)


@with_accounting
async def test_an_unknown_account_is_refused_and_those_that_there_are_named() -> None:
    async with opened({"account": "nosuch"}) as scene:
        said = _refusal(await outcome_of(scene.ce.submit(scene.spec(), 2)), copies=2)
        assert "account=nosuch" in said
        assert "project" in said
        await check_nothing_left(scene)


@with_accounting
async def test_an_unknown_qos_is_refused_and_those_that_there_are_named() -> None:
    async with opened({"qos": "nosuch"}) as scene:
        said = _refusal(await outcome_of(scene.ce.submit(scene.spec(), 2)), copies=2)
        assert "qos=nosuch" in said
        assert "tiny" in said
        await check_nothing_left(scene)


@with_accounting
async def test_a_user_without_an_account_is_refused_as_such(scene: Scene) -> None:
    place = f"/home/plain/{scene.name}"
    ce = await scene.another(account="plain", root=place)
    try:
        said = _refusal(await outcome_of(ce.submit(scene.spec(), 2)), copies=2)
        assert "account" in said
        assert await scene.cluster.run('ls -A "$1"', place, user="plain") == ""
        assert not [job for job in await scene.cluster.jobs() if job.account == "plain"]
    finally:
        await scene.cluster.run('rm -rf "$1"', place, user="plain")


@with_accounting
async def test_more_copies_than_a_qos_lets_in_are_refused_with_its_limit() -> None:
    async with opened({"qos": "tiny"}) as scene:
        said = _refusal(await outcome_of(scene.ce.submit(scene.spec(), 4)), copies=4)
        for word in ("copies=4", "MaxSubmitJobsPerUser=3", "tiny"):
            assert word in said
        await check_nothing_left(scene)


@with_accounting
async def test_as_many_copies_as_a_qos_lets_in_run() -> None:
    async with opened({"qos": "tiny"}) as scene:
        await scene.finished(await scene.submitted("exit 0", 3))
        assert list((await scene.ran()).values()) == [1, 1, 1]


@with_accounting
async def test_a_qos_that_is_full_says_so_and_takes_jobs_again() -> None:
    async with opened({"qos": "tiny"}) as scene:
        running = await scene.running(3)
        said = _refusal(await outcome_of(scene.ce.submit(scene.spec(), 1)), copies=1)
        assert "MaxSubmitJobsPerUser=3" in said
        (await scene.ce.kill(running)).raise_for_failures()
        await scene.finished(running)
        await scene.finished(await scene.submitted("exit 0", 3))


@pytest.mark.skipif(ACCOUNTING, reason="with slurmdbd, unknown accounts are refused")
async def test_without_accounts_any_account_will_do() -> None:
    async with opened({"account": "nosuch", "qos": "nosuch"}) as scene:
        await scene.finished(await scene.submitted("exit 0"))


async def test_what_does_not_fit_into_the_cluster_now_is_left_out_with_the_limit(
    scene: Scene,
) -> None:
    """As many as there is room for are submitted, and `sbatch` never waits for more."""
    if MAX_JOBS > 1000:
        pytest.skip("the cluster holds too many jobs to be filled in a test")
    first = MAX_JOBS - 2 * MAX_ARRAY
    await scene.held(first)
    ce = await scene.backend(options=["--hold"])
    async with asyncio.timeout(_SOON_S):
        submission = await ce.submit(scene.spec(), 3 * MAX_ARRAY)
    assert isinstance(submission, Submission)
    assert 0 < len(submission.handles) <= 2 * MAX_ARRAY
    assert len(submission.handles) + len(submission.failures) == 3 * MAX_ARRAY
    for failure in submission.failures.values():
        assert failure.code is FailureCode.LIMIT
        assert f"MaxJobCount={MAX_JOBS}" in failure.message
    await scene.check_nothing_lost(submission.handles, len(submission.handles))


def _refusal(outcome: object, copies: int) -> str:
    """What was said, whether it was the probe that knew or sbatch."""
    if isinstance(outcome, Submission):
        assert not outcome.handles
        assert list(outcome.failures) == list(range(copies))
        first = outcome.failures[0]
        assert first.code in (FailureCode.REFUSED, FailureCode.LIMIT), first
        assert len({failure.code for failure in outcome.failures.values()}) == 1
        return first.message
    assert isinstance(outcome, InterCEdeError), repr(outcome)
    assert isinstance(outcome, SpecRefused), repr(outcome)
    return f"{outcome.field}: {outcome}"


async def check_nothing_left(scene: Scene) -> None:
    """Neither on the host nor in Slurm."""
    assert await scene.debris() == set()
    names = [job.name for job in await scene.cluster.jobs() if job.name.startswith("intercede-")]
    assert not set(names) & {f"intercede-{name}" for name in await scene.submissions()}
