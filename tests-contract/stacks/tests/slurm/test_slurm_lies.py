"""Slurm's commands do not do what they say, or do not say what they did: no job is finished, lost or doubled by that.

What lies stands before the real commands on the account's PATH. Later answers are right again, and so must be what is made of them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from intercede.backend.batch import BatchBackend
from intercede.core import (
    FailureCode,
    InterCEdeError,
    JobID,
    JobStatus,
    Submission,
    SubmitUncertain,
)
from stacks.tests.slurm._scene import (
    ACCOUNTING,
    MAX_JOBS,
    Scene,
    native_of,
    opened,
    outcome_of,
    passing,
)
from stacks.tests.slurm._trials import asking, check_answer, failures_of, killing

#: Short, so that what is wrongly taken for having left the queue is soon lost.
GRACE_S: Final = 1.0
COPIES: Final = 3
#: What a command does instead; REAL is the real one, with the caller's arguments.
LIES: Final[Mapping[str, str]] = {
    "nothing": "cat > /dev/null",
    "garbage": "cat > /dev/null; head -c 3000 /dev/urandom",
    "another's rows": "cat > /dev/null; echo 'JOBID|NAME'; echo '700001|intercede'",
    "half a line": "REAL | head -c 40",
    "half of it": 'told=$(REAL; echo .); printf %s "$told" | head -c $((${#told} / 2))',
    "exit code 1": "cat > /dev/null; exit 1",
    "half of it, and exit code 1": 'told=$(REAL); printf %s "$told" | head -c $((${#told} / 2)); exit 1',
    "all of it, and exit code 1": "REAL; exit 1",
}
lies = pytest.mark.parametrize("lie", LIES)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with opened(grace_s=GRACE_S) as scene:
        await scene.ce.counts()
        await (await scene.backend(options=["--hold"])).counts()
        yield scene


def lying(scene: Scene, command: str, lie: str) -> AbstractAsyncContextManager[None]:
    """The command does this instead."""
    script = LIES[lie].replace("REAL", f'/usr/bin/{command} "$@"')
    return scene.cluster.replaced(command, f"#!/bin/sh\n{script}")


# ---------------------------------------------------------------- what asks


@lies
async def test_nothing_is_finished_because_squeue_lies(scene: Scene, lie: str) -> None:
    trial, truth = await asking(scene)
    async with lying(scene, "squeue", lie):
        for _ in range(3):
            check_answer(await scene.ce.status(trial.ids), truth)
            await asyncio.sleep(GRACE_S)
    await trial.check(await scene.ce.status(trial.ids))


@lies
async def test_nothing_is_counted_or_killed_because_squeue_lies(scene: Scene, lie: str) -> None:
    trial = await killing(scene)
    async with lying(scene, "squeue", lie):
        outcome = await scene.ce.kill(trial.ids)
        assert {why.code for why in failures_of(outcome)} <= {FailureCode.NOT_NOW}
        alive = {job.id for job in await scene.all_in_slurm() if job.state == "PENDING"}
        assert not [job for job in trial.ids if outcome[job].ok and native_of(job) in alive]
        counts = await outcome_of(scene.ce.counts())
        assert isinstance(counts, InterCEdeError), counts
    await trial.check(await scene.ce.kill(trial.ids))


@pytest.mark.parametrize("lie", [lie for lie, script in LIES.items() if "REAL" not in script])
async def test_a_kill_is_not_believed_because_scancel_says_so(scene: Scene, lie: str) -> None:
    trial = await killing(scene)
    async with lying(scene, "scancel", lie):
        outcome = await scene.ce.kill(trial.ids)
        assert {why.code for why in failures_of(outcome)} == {FailureCode.NOT_NOW}
        assert len(list(failures_of(outcome))) == len(trial.ids)
    await trial.check(await scene.ce.kill(trial.ids))


@lies
async def test_what_is_certain_stays_so_while_sacct_lies(scene: Scene, lie: str) -> None:
    trial, _ = await asking(scene)
    async with lying(scene, "sacct", lie):
        await trial.check(await scene.ce.status(trial.ids))


@pytest.mark.skipif(not ACCOUNTING, reason="sacct is not believed where there are no accounts")
@lies
async def test_a_job_that_only_sacct_knows_is_not_finished_because_it_lies(lie: str) -> None:
    async with opened(grace_s=60.0) as scene:
        # One element alone that is cancelled while it waits is in no queue and leaves no record.
        _, job = await scene.held(2)
        await scene.scancel(native_of(job))
        async with lying(scene, "sacct", lie):
            for _ in range(2):
                result = await scene.ce.status([job])
                assert result[job] is JobStatus.UNKNOWN
                assert result.failures[job].code is FailureCode.NOT_NOW


@pytest.mark.parametrize("command", ["scontrol", "sinfo"])
@lies
async def test_a_probe_that_lies_is_an_error_or_does_no_harm(
    scene: Scene, command: str, lie: str
) -> None:
    async with lying(scene, command, lie):
        ce = await scene.another({"options": ["--hold"]})
        outcome = await outcome_of(ce.submit(scene.spec(), COPIES))
        if isinstance(outcome, Submission):
            outcome.raise_for_failures()
            await scene.check_nothing_lost(outcome.handles, COPIES)
        else:
            assert isinstance(outcome, InterCEdeError)
            assert await scene.all_in_slurm() == []
            assert await scene.debris() == set()
    submission = await ce.submit(scene.spec(), COPIES)
    submission.raise_for_failures()
    await scene.check_nothing_lost(submission.handles, COPIES)


async def test_rows_that_the_names_of_other_jobs_make_up_are_not_believed(scene: Scene) -> None:
    trial, truth = await asking(scene)
    job = next(job for job, at in truth.items() if at is JobStatus.RUNNING)
    native, name = native_of(job), f"intercede-{job.split('/')[1]}"
    row = f"{native}|{name}|COMPLETED|None|1700000000|1700000000|1700000000|n1"
    names = [
        "a|b||c",
        "x" * 500,
        f"\n{row}\n",
        f"|\n|{row}|\n|",
        name,
        f"JOBID|NAME\n{row}",
        "'\"$(id)`id`",
    ]
    for strange in names:
        script = 'exec /usr/bin/sbatch --hold --parsable --job-name="$1" --comment="$1" --wrap=true'
        other = (await scene.as_account(script, strange)).strip()
        try:
            await trial.check(await scene.ce.status(trial.ids))
            counts = await scene.ce.counts()
            assert (counts.running, counts.waiting) == (1, 2)
        finally:
            await scene.scancel(other)


# ---------------------------------------------------------------- what submits

_TIMED_OUT: Final = (
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
)
#: What sbatch says, in shell; `$told` is what the real one would have said, or said.
SAYINGS: Final[Mapping[str, str]] = {
    "nothing": ":",
    "garbage": "head -c 3000 /dev/urandom",
    "half a number": 'printf %s "$told" | head -c 3',
    "a timeout": f"echo '{_TIMED_OUT}' >&2; exit 1",
    "a timeout, after its number": f"echo \"$told\"; echo '{_TIMED_OUT}' >&2; exit 1",
    "exit code 1": "exit 1",
    "death": "kill -9 $$",
}


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
async def test_a_job_is_not_lost_or_doubled_whatever_sbatch_says(scene: Scene, taken: bool) -> None:
    """All at once: it is looked for a minute for a job that is not there."""
    backends = {
        saying: await scene.backend(options=["--hold", f"--nice={number}00"])
        for number, saying in enumerate(SAYINGS, start=1)
    }
    for ce in backends.values():
        await ce.counts()
    doing = 'told=$(/usr/bin/sbatch "$@")' if taken else "cat > /dev/null; told=7000001"
    cases = "\n".join(
        f"*--nice={number}00*) {saying};;"
        for number, saying in enumerate(SAYINGS.values(), start=1)
    )
    script = f'#!/bin/sh\n{doing}\ncase "$*" in\n{cases}\nesac'
    async with scene.cluster.replaced("sbatch", script), asyncio.TaskGroup() as tasks:
        submits = {
            saying: tasks.create_task(
                outcome_of(ce.submit(scene.spec(tag=saying.replace(" ", "-")), COPIES))
            )
            for saying, ce in backends.items()
        }
    check = _check_taken if taken else _check_not_taken
    wrong = {}
    for saying, submit in submits.items():
        try:
            await check(scene, saying.replace(" ", "-"), submit.result())
        except AssertionError as error:
            wrong[saying] = f"{submit.result()!r}: {error}"
    assert wrong == {}


async def _check_taken(scene: Scene, tag: str, outcome: object) -> None:
    """It is there to be found, so it is found."""
    assert isinstance(outcome, Submission), repr(outcome)
    outcome.raise_for_failures()
    await scene.check_nothing_lost(outcome.handles, COPIES)
    assert await scene.ce.find(tag) == outcome.handles
    status = await scene.ce.status([handle.id for handle in outcome.handles])
    assert set(status.values()) == {JobStatus.HELD}


async def _check_not_taken(scene: Scene, tag: str, outcome: object) -> None:
    """Nobody can know, so nobody says that it was refused; nor does anything wait for ever."""
    assert isinstance(outcome, SubmitUncertain), repr(outcome)
    ids = [handle.id for handle in outcome.handles]
    assert await scene.in_slurm(outcome.handles[0].submission) == []
    assert [handle.id for handle in await scene.ce.find(tag)] == ids
    await scene.until(ids, JobStatus.FINISHED_UNKNOWN)
    (await scene.ce.purge(ids)).raise_for_failures()


# ---------------------------------------------------------------- sbatch waits

small = pytest.mark.skipif(
    MAX_JOBS > 1000, reason="the cluster holds too many jobs to be filled in a test"
)


@small
async def test_a_submit_that_is_cut_while_sbatch_waits_for_room_is_found_when_there_is_some(
    scene: Scene,
) -> None:
    """At MaxJobCount sbatch waits for two minutes, whether or not its client is there."""
    filling, outcome = await _cut_while_sbatch_waits(scene)
    second = await scene.another()
    ids = [handle.id for handle in outcome.handles]
    assert [handle.id for handle in await second.find("waits")] == ids
    status = await second.status(ids)
    assert {why.code for why in status.failures.values()} == {FailureCode.NOT_NOW}
    await scene.scancel(*{native_of(job).partition("_")[0] for job in filling})
    await scene.until(ids, JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SUCCESSFUL)
    await scene.until(ids, JobStatus.SUCCESSFUL)
    ran = await scene.ran()
    assert ran == {f"{handle.submission}.{handle.copy}": 1 for handle in outcome.handles}
    found = await second.find("waits")
    assert [handle.id.count("/") for handle in found] == [3] * len(ids)
    (await second.purge([handle.id for handle in found])).raise_for_failures()


@small
async def test_a_submit_that_is_cut_while_sbatch_waits_in_vain_is_refused_with_the_limit(
    scene: Scene,
) -> None:
    _, outcome = await _cut_while_sbatch_waits(scene)
    second = await scene.another()
    ids = [handle.id for handle in outcome.handles]
    await scene.until(ids, JobStatus.FAILED)
    for details in (await second.details(ids)).values():
        assert "not submitted" in (details.reason or "")
        assert f"copies={len(ids)}" in (details.reason or "")
    assert await scene.in_slurm(outcome.handles[0].submission) == []
    (await second.purge(ids)).raise_for_failures()


async def _cut_while_sbatch_waits(scene: Scene) -> tuple[Sequence[JobID], SubmitUncertain]:
    """The cluster is full but for a place, and a submit of a few jobs loses its connection for good."""
    filling = await _filled(scene)
    ce = await scene.another(submit_deadline_s=5.0)
    await ce.counts()
    few = MAX_JOBS // 20
    task = asyncio.ensure_future(outcome_of(ce.submit(scene.spec(tag="waits"), few)))

    async def waits() -> bool:
        return bool(await scene.cluster.run("pgrep -x sbatch || :"))

    await passing(waits, "an sbatch that waits")
    await asyncio.sleep(3)
    assert await waits()
    scene.relay.refuse()
    await scene.relay.drop()
    outcome = await task
    scene.relay.let_through()
    assert isinstance(outcome, SubmitUncertain), repr(outcome)
    assert len(outcome.handles) == few
    return filling, outcome


async def _filled(scene: Scene) -> Sequence[JobID]:
    """Held jobs, as many as the cluster still takes but one."""

    async def forgotten() -> bool:
        """What has ended takes a place for a while yet, and then there would be room."""
        return {job.state for job in await scene.cluster.jobs()} <= {"PENDING", "RUNNING"}

    await passing(forgotten, "a cluster that has forgotten the jobs that ended")
    there = len(await scene.cluster.jobs())
    ce: BatchBackend = await scene.backend(options=["--hold"])
    submission = await ce.submit(scene.spec(tag=secrets.token_hex(4)), MAX_JOBS - there - 2)
    assert submission.handles
    return [handle.id for handle in submission.handles]
