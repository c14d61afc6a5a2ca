"""The fake backend keeps the contract, on a clock that the tests advance."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from intercede.core import (
    Cancellable,
    ClosedError,
    ConfigurationError,
    CopyVars,
    Discoverable,
    FailureCode,
    FileRef,
    JobBackend,
    JobCounts,
    JobHandle,
    JobID,
    JobStatus,
    LoadReporter,
    OutputMember,
    OutputRetriever,
    OutputSpec,
    Purgeable,
    Resources,
    SpecRefused,
    Submission,
    SubmissionSpec,
    SupportsDetails,
    SupportsDryRun,
    SupportsLiveDiagnostics,
    from_json,
    registry,
    to_json,
)
from intercede.fake import (
    CAPABILITIES,
    FakeBackend,
    FakeClock,
    FakeConfig,
    FakeSite,
    make_backend,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def payload(tmp_path: Path) -> str:
    path = tmp_path / "payload.sh"
    path.write_bytes(b"#!/bin/sh\n")
    return str(path)


@pytest.fixture
def ce(clock: FakeClock) -> FakeBackend:
    return FakeBackend(site=FakeSite(clock))


def ids(submission: Submission) -> list[JobID]:
    return [handle.id for handle in submission.handles]


async def statuses(ce: JobBackend, submission: Submission) -> list[JobStatus]:
    return list((await ce.status(ids(submission))).values())


# ---------------------------------------------------------------- life


def test_making_one_needs_no_event_loop() -> None:
    FakeBackend()
    registry.backend({"type": "fake"})


async def test_closing_twice_is_harmless_and_use_afterwards_raises(ce: FakeBackend) -> None:
    async with ce:
        assert await ce.counts() == JobCounts(0, 0)
    await ce.aclose()
    with pytest.raises(ClosedError, match="it is closed"):
        await ce.status([])
    with pytest.raises(ClosedError):
        await ce.__aenter__()


def test_another_event_loop_is_a_clear_error(ce: FakeBackend) -> None:
    asyncio.run(_count(ce))
    with pytest.raises(ClosedError, match="another event loop"):
        asyncio.run(_count(ce))


async def _count(ce: FakeBackend) -> None:
    await ce.counts()


async def test_no_task_is_left_after_any_call(
    ce: FakeBackend, payload: str, tmp_path: Path
) -> None:
    submission = await ce.submit(SubmissionSpec(payload, ["spawn", "9"]))
    await ce.fetch_output(ids(submission), tmp_path / "out")
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ---------------------------------------------------------------- the course of a job


async def test_a_job_waits_runs_and_ends_by_the_clock(clock: FakeClock, payload: str) -> None:
    ce = FakeBackend(site=FakeSite(clock, queue_delay_s=5))
    submission = await ce.submit(SubmissionSpec(payload, ["sleep", "10"]))
    seen = []
    for _ in range(4):
        seen += await statuses(ce, submission)
        clock.advance(5)
    assert seen == [
        JobStatus.PENDING,
        JobStatus.RUNNING,
        JobStatus.RUNNING,
        JobStatus.SUCCESSFUL,
    ]


async def test_slots_limit_how_many_run_first_come_first_served(
    clock: FakeClock, payload: str
) -> None:
    ce = FakeBackend(site=FakeSite(clock, slots=2))
    submission = await ce.submit(SubmissionSpec(payload, ["sleep", "10"]), 3)
    assert await ce.counts() == JobCounts(running=2, waiting=1)
    clock.advance(15)
    assert await statuses(ce, submission) == [JobStatus.SUCCESSFUL] * 2 + [JobStatus.RUNNING]
    started = [entry.started_at for entry in (await ce.details(ids(submission))).values()]
    assert started == [clock.moment(0), clock.moment(0), clock.moment(10)]


async def test_a_killed_job_frees_its_slot(clock: FakeClock, payload: str) -> None:
    ce = FakeBackend(site=FakeSite(clock, slots=1))
    submission = await ce.submit(SubmissionSpec(payload, ["sleep", "10"]), 3)
    first, second, third = ids(submission)
    clock.advance(4)
    (await ce.kill([first, second])).raise_for_failures()
    assert await statuses(ce, submission) == [
        JobStatus.CANCELLED,
        JobStatus.CANCELLED,
        JobStatus.RUNNING,
    ]
    details = (await ce.details([third]))[third]
    assert details.started_at == clock.moment(4)


@pytest.mark.parametrize(
    ("verbs", "status", "exit_code", "signal"),
    [
        ([], JobStatus.SUCCESSFUL, 0, None),
        (["exit", "7"], JobStatus.FAILED, 7, None),
        (["signal", "9"], JobStatus.FAILED, None, 9),
        (["dance"], JobStatus.FAILED, 64, None),
    ],
)
async def test_details_tell_how_a_job_ended(
    ce: FakeBackend,
    payload: str,
    verbs: list[str],
    status: JobStatus,
    exit_code: int | None,
    signal: int | None,
) -> None:
    submission = await ce.submit(SubmissionSpec(payload, verbs))
    details = (await ce.details(ids(submission)))[submission.handles[0].id]
    assert (details.status, details.exit_code, details.signal) == (status, exit_code, signal)
    assert details.node == "fake-node"


async def test_a_job_beyond_its_wall_time_fails_and_says_so(
    ce: FakeBackend, clock: FakeClock, payload: str
) -> None:
    spec = SubmissionSpec(payload, ["sleep", "60"], resources=Resources(wall_time_s=10))
    submission = await ce.submit(spec)
    clock.advance(10)
    (details,) = (await ce.details(ids(submission))).values()
    assert details.status is JobStatus.FAILED
    assert "wall time of 10 s" in str(details.reason)


async def test_a_held_job_is_reported_and_starts_when_it_is_released(
    clock: FakeClock, payload: str
) -> None:
    ce = FakeBackend(site=FakeSite(clock, queue_delay_s=1))
    submission = await ce.submit(SubmissionSpec(payload))
    (job,) = ids(submission)
    ce.site.hold(job)
    clock.advance(100)
    assert (await ce.status([job]))[job] is JobStatus.HELD
    assert await ce.counts() == JobCounts(0, 1)
    ce.site.release(job)
    assert (await ce.status([job]))[job] is JobStatus.SUCCESSFUL
    with pytest.raises(ValueError, match="has started"):
        ce.site.hold(job)


async def test_a_job_that_vanishes_is_finished_unknown(ce: FakeBackend, payload: str) -> None:
    submission = await ce.submit(SubmissionSpec(payload, ["sleep", "60"]))
    (job,) = ids(submission)
    ce.site.lose(job)
    (details,) = (await ce.details([job])).values()
    assert (details.status, details.exit_code) == (JobStatus.FINISHED_UNKNOWN, None)


# ---------------------------------------------------------------- submit


async def test_handles_survive_json_and_another_backend_of_the_same_site(payload: str) -> None:
    config = {"type": "fake", "name": "here", "site": "shared-by-two", "speed": 1e6}
    try:
        first = registry.backend(config)
        submission = await first.submit(SubmissionSpec(payload, tag="t"), 2)
        await first.aclose()
        handles = from_json(tuple[JobHandle, ...], to_json(submission.handles))
        second = registry.backend(config)
        assert isinstance(second, Discoverable)
        assert handles[0].id in (FakeSite.known("shared-by-two") or ())
        assert await second.find("t") == handles
        other = registry.backend({**config, "name": "there"})
        assert isinstance(other, LoadReporter)
        answers = await other.status([handle.id for handle in handles])
        assert {failure.code for failure in answers.failures.values()} == {FailureCode.NO_SUCH_JOB}
        with pytest.raises(ConfigurationError, match="exists already"):
            registry.backend({**config, "slots": 3})
    finally:
        FakeSite.forget("shared-by-two")
    assert FakeSite.known("shared-by-two") is None


async def test_backends_without_a_site_share_nothing(payload: str) -> None:
    first, second = (registry.backend({"type": "fake"}) for _ in range(2))
    submission = await first.submit(SubmissionSpec(payload))
    assert not (await first.status(ids(submission))).failures
    assert (await second.status(ids(submission))).failures


async def test_inputs_may_be_deleted_when_submit_returns(
    ce: FakeBackend, clock: FakeClock, payload: str, tmp_path: Path
) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/b").write_bytes(b"\xff\0")
    spec = SubmissionSpec(
        payload,
        ["sleep", "1", "cat", "data/sub/b", "cat", "c", "ls"],
        inputs=[FileRef("data", source=str(tmp_path / "in")), FileRef("c", content=b"C")],
    )
    submission = await ce.submit(spec)
    shutil.rmtree(tmp_path)
    clock.advance(1)
    (output,) = (await ce.fetch_output(ids(submission), tmp_path / "out")).values()
    assert output.stdout is not None
    assert output.stdout.read_bytes() == b"\xff\0Cc\ndata\ndata/sub\ndata/sub/b\npayload.sh\n"


async def test_each_copy_has_its_own_environment_and_private_secrets(
    ce: FakeBackend, payload: str, tmp_path: Path
) -> None:
    spec = SubmissionSpec(
        payload,
        ["env", "A", "env", "B", "cat", "token", "mode", "token", "mode", "payload.sh"],
        environment={"A": "all", "B": "all"},
    )
    variants = [CopyVars({"B": str(copy)}, {"token": b"s%d" % copy}) for copy in range(2)]
    submission = await ce.submit(spec, variants)
    outputs = (await ce.fetch_output(ids(submission), tmp_path / "out")).values()
    texts = [output.stdout and output.stdout.read_bytes() for output in outputs]
    assert texts == [b"=all\0=0\0s0600\n700\n", b"=all\0=1\0s1600\n700\n"]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("executable", {"executable": "absent.sh"}),
        ("executable", {"executable": "/dev/null"}),
        ("inputs[0].source", {"inputs": [FileRef("x", source="absent")]}),
        ("inputs[0].url", {"inputs": [FileRef("x", url="https://example.org/x")]}),
        ("outputs.members[0].destination", {"outputs": OutputSpec([OutputMember("x", "s3://y")])}),
        ("container", {"container": "alma9"}),
        ("resources.queue", {"resources": Resources(queue="long")}),
        ("resources.cpus", {"resources": Resources(cpus=65)}),
        ("resources.memory_mb", {"resources": Resources(memory_mb=10**9)}),
        ("resources.wall_time_s", {"resources": Resources(wall_time_s=10**9)}),
        ("resources.gpus", {"resources": Resources(gpus=1)}),
        ("resources.nodes", {"resources": Resources(nodes=2)}),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_submit_and_dry_run(
    ce: FakeBackend, payload: str, field: str, changes: dict[str, object]
) -> None:
    arguments: dict[str, object] = {"executable": payload, "tag": "t", **changes}
    spec = SubmissionSpec(**arguments)  # type: ignore[arg-type]  # each case has its own field
    for operation in (ce.submit, ce.dry_run):
        with pytest.raises(SpecRefused) as refused:
            await operation(spec)
        assert refused.value.field == field
        assert (refused.value.resource, bool(refused.value.remedy)) == ("fake", True)
    assert await ce.find("t") == ()


async def test_no_copies_are_refused_and_the_refusal_says_where(
    ce: FakeBackend, payload: str
) -> None:
    with pytest.raises(SpecRefused, match="fake: submit: copies: 0 asks for no job"):
        await ce.submit(SubmissionSpec(payload), 0)


async def test_names_that_collide_are_refused(
    ce: FakeBackend, payload: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecRefused, match=r"copies\[1\].secrets"):
        await ce.submit(
            SubmissionSpec(payload), [CopyVars(), CopyVars(secrets={"payload.sh": b""})]
        )
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/loop").symlink_to(tmp_path / "linked")
    with pytest.raises(SpecRefused, match="link to a directory"):
        await ce.submit(
            SubmissionSpec(payload, inputs=[FileRef("d", source=str(tmp_path / "linked"))])
        )


async def test_a_dry_run_blanks_secrets_and_changes_nothing(ce: FakeBackend, payload: str) -> None:
    variants = [CopyVars(secrets={"token": b"hush"})]
    shown = await ce.dry_run(SubmissionSpec(payload, ["a b"], tag="t"), variants)
    assert "'a b'" in shown.command
    assert shown.files == {"work/payload.sh": b"#!/bin/sh\n", "0/work/token": b""}
    assert await ce.find("t") == ()


# ---------------------------------------------------------------- per job


HOSTILE = ["", "fake", "fake/../0", "fake/x/0; rm -rf /", "other/x/0", "a" * 1000, "fake/\0/0"]


async def test_unknown_and_hostile_ids_are_no_such_job_everywhere(
    ce: FakeBackend, tmp_path: Path
) -> None:
    hostile = [JobID(text) for text in HOSTILE]
    for result in (
        await ce.status(hostile),
        await ce.details(hostile),
        await ce.diagnostics(hostile),
        await ce.kill(hostile),
        await ce.purge(hostile),
        await ce.fetch_output(hostile, tmp_path / "out"),
    ):
        assert list(result) == hostile
        codes = [failure.code for failure in result.failures.values()]
        assert codes == [FailureCode.NO_SUCH_JOB] * len(hostile)
    assert list((tmp_path / "out").iterdir()) == []


async def test_one_string_instead_of_a_list_is_a_type_error(ce: FakeBackend) -> None:
    with pytest.raises(TypeError, match="not one string"):
        await ce.status("fake/x/0")  # type: ignore[arg-type]  # the mistake under test


async def test_kill_ends_all_processes_and_leaves_finished_jobs_alone(
    ce: FakeBackend, clock: FakeClock, payload: str
) -> None:
    running = await ce.submit(SubmissionSpec(payload, ["trap", "spawn", "500", "sleep", "100"]))
    ended = await ce.submit(SubmissionSpec(payload, ["spawn", "5"]))
    assert len(ce.site.processes()) == 4
    outcomes = await ce.kill([*ids(running), *ids(ended)])
    assert [outcome.ok for outcome in outcomes.values()] == [True, True]
    assert "already finished" in str(outcomes[ids(ended)[0]].note)
    assert ce.site.processes() == [f"{ids(ended)[0]}: sleep 5"]
    clock.advance(5)
    assert ce.site.processes() == []
    assert await statuses(ce, running) == [JobStatus.CANCELLED]
    assert await statuses(ce, ended) == [JobStatus.SUCCESSFUL]


async def test_a_process_is_found_by_what_its_arguments_and_environment_show(
    ce: FakeBackend, payload: str
) -> None:
    spec = SubmissionSpec(payload, ["sleep", "9"], environment={"MARK": "x-42"})
    submission = await ce.submit(spec, [CopyVars(secrets={"token": b"hush"})])
    (job,) = ids(submission)
    assert ce.site.processes("x-42") == [f"{job}: payload.sh sleep 9", f"{job}: sleep 9"]
    assert ce.site.processes("hush") == []
    assert job in ce.site
    await ce.kill([job])
    await ce.purge([job])
    assert job not in ce.site


async def test_a_job_killed_before_it_started_has_a_log_and_nothing_else(
    clock: FakeClock, payload: str, tmp_path: Path
) -> None:
    ce = FakeBackend(site=FakeSite(clock, queue_delay_s=9))
    submission = await ce.submit(SubmissionSpec(payload, outputs=OutputSpec(["x"])))
    await ce.kill(ids(submission))
    (output,) = (await ce.fetch_output(ids(submission), tmp_path)).values()
    assert (output.stdout, output.stderr, output.missing) == (None, None, ("x",))
    assert output.log is not None
    assert "it was killed" in output.log.read_text()


async def test_purge_refuses_unfinished_jobs_and_removes_just_the_others(
    ce: FakeBackend, payload: str
) -> None:
    running = await ce.submit(SubmissionSpec(payload, ["sleep", "9"]))
    ended = await ce.submit(SubmissionSpec(payload), 2)
    first, second = ids(ended)
    outcomes = await ce.purge([*ids(running), first])
    assert {job: failure.code for job, failure in outcomes.failures.items()} == {
        ids(running)[0]: FailureCode.NOT_FINISHED
    }
    after = await ce.status([first, second])
    assert (after[first], after[second]) == (JobStatus.UNKNOWN, JobStatus.SUCCESSFUL)
    assert after.failures[first].code is FailureCode.NO_SUCH_JOB


async def test_diagnostics_show_bounded_tails_and_why_a_job_waits(
    clock: FakeClock, payload: str
) -> None:
    ce = FakeBackend(FakeConfig(tail_bytes=20), site=FakeSite(clock, slots=1))
    spec = SubmissionSpec(payload, ["fill", "z", "90", "cat", "z", "echo", "end", "sleep", "9"])
    submission = await ce.submit(spec, 2)
    running, waiting = ids(submission)
    for _ in range(2):
        shown = await ce.diagnostics([running, waiting])
        assert shown[running].stdout_tail == bytes(16) + b"end\n"
        assert shown[running].truncated
    wide = FakeBackend(site=ce.site)
    (diagnostics,) = (await wide.diagnostics([waiting])).values()
    assert b"no slot is free: 1 of 1 are busy" in diagnostics.log_tail


# ---------------------------------------------------------------- output


async def test_output_goes_to_its_own_place_under_the_names_asked_for(
    ce: FakeBackend, payload: str, tmp_path: Path
) -> None:
    spec = SubmissionSpec(
        payload,
        ["echo", "o", "err", "e", "write", "d/x", "X"],
        outputs=OutputSpec(["d/", "absent"]),
        stdout="out.txt",
    )
    submission = await ce.submit(spec, 2)
    result = await ce.fetch_output(ids(submission), tmp_path / "dest")
    assert not result.failures
    for copy, output in enumerate(result.values()):
        place = tmp_path / "dest" / submission.id / str(copy)
        assert (output.stdout, output.stderr) == (place / "out.txt", place / "stderr")
        assert output.files == {"d/x": place / "work/d/x"}
        assert (place / "work/d/x").read_bytes() == b"X"
        assert output.missing == ("absent",)


async def test_an_unfinished_job_has_a_reason_instead_of_output(
    ce: FakeBackend, payload: str, tmp_path: Path
) -> None:
    submission = await ce.submit(SubmissionSpec(payload, ["sleep", "9"]))
    result = await ce.fetch_output(ids(submission), tmp_path / "dest")
    assert [failure.code for failure in result.failures.values()] == [FailureCode.NOT_FINISHED]
    assert list((tmp_path / "dest").iterdir()) == []


@pytest.mark.parametrize(
    "config", [FakeConfig(output_max_bytes=999), FakeConfig(output_max_files=1)]
)
async def test_too_much_output_fails_that_job_and_leaves_no_debris(
    clock: FakeClock, payload: str, tmp_path: Path, config: FakeConfig
) -> None:
    ce = FakeBackend(config, site=FakeSite(clock))
    large = SubmissionSpec(
        payload, ["fill", "a", "600", "fill", "b", "600"], outputs=OutputSpec(everything=True)
    )
    both = [*ids(await ce.submit(large)), *ids(await ce.submit(SubmissionSpec(payload)))]
    result = await ce.fetch_output(both, tmp_path / "dest")
    assert {job: failure.code for job, failure in result.failures.items()} == {
        both[0]: FailureCode.LIMIT
    }
    assert len(list((tmp_path / "dest").iterdir())) == 1


async def test_a_destructive_fetch_succeeds_once_and_says_that_it_is_one(
    clock: FakeClock, payload: str, tmp_path: Path
) -> None:
    ce = FakeBackend(FakeConfig(destructive=True), site=FakeSite(clock))
    submission = await ce.submit(SubmissionSpec(payload))
    assert ce.destructive
    assert not (await ce.fetch_output(ids(submission), tmp_path)).failures
    assert (await ce.fetch_output(ids(submission), tmp_path)).failures
    assert not FakeBackend().destructive


async def test_a_dest_that_cannot_be_made_raises(
    ce: FakeBackend, payload: str, tmp_path: Path
) -> None:
    submission = await ce.submit(SubmissionSpec(payload))
    with pytest.raises(OSError, match="payload"):
        await ce.fetch_output(ids(submission), Path(payload) / "below")


# ---------------------------------------------------------------- abilities and configuration

ABILITIES: dict[str, type] = {
    "fetch_output": OutputRetriever,
    "kill": Cancellable,
    "purge": Purgeable,
    "counts": LoadReporter,
    "diagnostics": SupportsLiveDiagnostics,
    "details": SupportsDetails,
    "find": Discoverable,
    "dry_run": SupportsDryRun,
}


@pytest.mark.parametrize("taken", CAPABILITIES)
def test_an_ability_that_is_taken_away_is_not_there(taken: str) -> None:
    ce = registry.backend({"type": "fake", "without": [taken]})
    assert isinstance(ce, JobBackend)
    assert not hasattr(ce, taken)
    offered = {name for name, protocol in ABILITIES.items() if isinstance(ce, protocol)}
    assert offered == set(CAPABILITIES) - {taken}
    assert hasattr(ce, "destructive") == (taken != "fetch_output")


async def test_a_backend_without_any_ability_still_submits_and_monitors(payload: str) -> None:
    async with make_backend(FakeConfig(without=CAPABILITIES)) as ce:
        submission = await ce.submit(SubmissionSpec(payload), 2)
        assert await statuses(ce, submission) == [JobStatus.SUCCESSFUL] * 2


def test_the_class_that_has_every_ability_refuses_to_pretend_otherwise() -> None:
    with pytest.raises(ConfigurationError, match="make_backend"):
        FakeBackend(FakeConfig(without=["kill"]))


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("without", {"without": ["kil"]}),
        ("slots", {"slots": 0}),
        ("fetch_bytes_per_s", {"fetch_bytes_per_s": 0}),
        ("speed", {"speed": 0}),
        ("tail_bytes", {"tail_bytes": 0}),
        ("slot", {"slot": 1}),
        ("faults[0].kind", {"faults": [{"operation": "kill", "kind": "unreachabel"}]}),
        ("faults[0]", {"faults": [{"operation": "counts", "kind": "item"}]}),
    ],
)
def test_a_configuration_that_makes_no_sense_names_its_key(
    key: str, table: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        registry.backend({"type": "fake", **json.loads(json.dumps(table))})
    assert str(refused.value).startswith(key)


def test_every_key_is_explained() -> None:
    assert all(option.help for option in registry.options(FakeConfig))
