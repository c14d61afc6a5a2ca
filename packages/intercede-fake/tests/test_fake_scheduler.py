"""The fake scheduler speaks to the pretend batch system, and believes nothing that does not parse."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import (
    Command,
    CommandResult,
    Failure,
    FailureCode,
    JobDetails,
    JobStatus,
    NativeJob,
    ResourceError,
    Resources,
    Scheduler,
    SpecRefused,
    StagedBatch,
    SubmissionSpec,
    registry,
)
from intercede.fake import FakeClock, FakeQueue, FakeScheduler, FakeSite, FakeTransport

SPEC = SubmissionSpec("run.sh", resident=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCHEDULER = FakeScheduler()
HEADER = b"fake-queue 1\n"


def batch(copies: Sequence[int], spec: SubmissionSpec = SPEC, mark: str = "m-1") -> StagedBatch:
    return StagedBatch("s", mark, "/root/s", "/root/s/runner", tuple(copies), spec)


def native(text: str, copy: int = 0) -> NativeJob:
    return NativeJob(text, copy, "s", NOW)


class Driven:
    """The scheduler, the transport and the queue together, as a batch backend drives them."""

    def __init__(self, queue: FakeQueue, clock: FakeClock) -> None:
        self.host = FakeTransport(queue.handlers, clock=clock)

    async def ask(self, commands: Sequence[Command]) -> list[CommandResult]:
        return [await self.host.run(command) for command in commands]

    async def submit(self, of: StagedBatch) -> Mapping[int, str | Failure]:
        facts = SCHEDULER.parse_probe(await self.ask(SCHEDULER.probe_commands(None)))
        SCHEDULER.check(of.spec, facts)
        results = await self.ask(SCHEDULER.submit_commands(of, facts))
        return SCHEDULER.parse_submit(of, results)

    async def status(self, jobs: Sequence[NativeJob]) -> Mapping[NativeJob, JobDetails]:
        results = await self.ask(SCHEDULER.status_commands(jobs))
        return SCHEDULER.parse_status(jobs, results)

    async def history(self, jobs: Sequence[NativeJob]) -> Mapping[NativeJob, JobDetails]:
        results = await self.ask(SCHEDULER.history_commands(jobs))
        return SCHEDULER.parse_history(jobs, results)

    async def listed(self, prefix: str) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        return SCHEDULER.parse_list(await self.ask(SCHEDULER.list_commands(prefix)))


async def test_jobs_are_submitted_seen_killed_and_remembered() -> None:
    clock = FakeClock(NOW)
    queue = FakeQueue(FakeSite(clock, slots=1), ["sleep", "60", "exit", "3"])
    driven = Driven(queue, clock)
    answers = await driven.submit(batch([0, 1, 5]))
    assert answers == {0: "1.0", 1: "1.1", 5: "1.5"}
    jobs = [native(text, copy) for copy, text in answers.items() if isinstance(text, str)]

    seen = await driven.status(jobs)
    assert [details.status for details in seen.values()] == [
        JobStatus.RUNNING,
        JobStatus.PENDING,
        JobStatus.PENDING,
    ]
    assert seen[jobs[0]].started_at == NOW
    assert "no slot is free" in str(seen[jobs[1]].reason)
    assert await driven.listed("m-") == {
        "1.0": ("m-1", 0, JobStatus.RUNNING),
        "1.1": ("m-1", 1, JobStatus.PENDING),
        "1.5": ("m-1", 5, JobStatus.PENDING),
    }
    assert await driven.listed("other") == {}

    await driven.ask(SCHEDULER.kill_commands(jobs[1:2]))
    clock.advance(60)
    assert set(await driven.status(jobs)) == {jobs[2]}
    past = await driven.history(jobs)
    assert set(past) == set(jobs[:2])
    assert (past[jobs[0]].status, past[jobs[0]].exit_code) == (JobStatus.FAILED, 3)
    assert past[jobs[0]].ended_at == NOW + timedelta(seconds=60)
    assert (past[jobs[1]].status, past[jobs[1]].exit_code) == (JobStatus.CANCELLED, None)


@pytest.mark.parametrize(
    ("verbs", "status"),
    [(["exit", "0"], JobStatus.SUCCESSFUL), (["signal", "9"], JobStatus.FAILED)],
)
async def test_history_tells_how_a_job_ended(verbs: list[str], status: JobStatus) -> None:
    clock = FakeClock(NOW)
    driven = Driven(FakeQueue(FakeSite(clock), verbs), clock)
    await driven.submit(batch([0]))
    (details,) = (await driven.history([native("1.0")])).values()
    assert details.status is status
    assert (details.signal == 9) == (status is JobStatus.FAILED)


async def test_a_lost_job_is_finished_unknown_and_a_held_one_is_held() -> None:
    clock = FakeClock(NOW)
    queue = FakeQueue(FakeSite(clock, queue_delay_s=1))
    driven = Driven(queue, clock)
    answers = await driven.submit(batch([0, 1]))
    held, lost = (native(str(answers[copy]), copy) for copy in (0, 1))
    queue.hold(held.id)
    clock.advance(2)
    queue.lose(lost.id)
    assert [details.status for details in (await driven.status([held, lost])).values()] == [
        JobStatus.HELD
    ]
    assert [details.status for details in (await driven.history([held, lost])).values()] == [
        JobStatus.FINISHED_UNKNOWN
    ]


async def test_a_queue_may_tell_of_jobs_that_are_ending_and_of_those_that_have_ended() -> None:
    clock = FakeClock(NOW)
    queue = FakeQueue(FakeSite(clock), ["sleep", "60", "exit", "3"], ending_s=10, kept_s=100)
    driven = Driven(queue, clock)
    answers = await driven.submit(batch([0, 1]))
    jobs = [native(str(text), copy) for copy, text in answers.items()]
    await driven.ask(SCHEDULER.kill_commands(jobs[1:]))
    seen = await driven.status(jobs)
    assert [details.status for details in seen.values()] == [JobStatus.RUNNING] * 2
    assert [details.ended_at for details in seen.values()] == [None, NOW]
    assert await driven.listed("m-1") == {
        text: ("m-1", copy, JobStatus.RUNNING) for copy, text in answers.items()
    }
    assert await driven.history(jobs) == {}

    clock.advance(70)
    ended = await driven.status(jobs)
    assert [details.status for details in ended.values()] == [JobStatus.FAILED, JobStatus.CANCELLED]
    assert (ended[jobs[0]].exit_code, ended[jobs[0]].native_state) == (3, "exit:3")
    assert ended[jobs[0]].ended_at == NOW + timedelta(seconds=60)
    assert await driven.history(jobs) == ended
    assert await driven.listed("m-1") == {}

    clock.advance(100)
    assert await driven.status(jobs) == {}
    assert await driven.history(jobs) == ended


async def test_an_id_given_out_at_another_time_is_not_ours() -> None:
    clock = FakeClock(NOW + timedelta(days=1))
    driven = Driven(FakeQueue(FakeSite(clock)), clock)
    await driven.submit(batch([0]))
    assert await driven.status([native("1.0")]) == {}


async def test_long_lists_are_split_and_their_answers_joined() -> None:
    clock = FakeClock(NOW)
    driven = Driven(FakeQueue(FakeSite(clock)), clock)
    answers = await driven.submit(batch(range(1234)))
    jobs = [native(str(text), copy) for copy, text in answers.items()]
    assert len(SCHEDULER.status_commands(jobs)) == 3
    assert len(await driven.status(jobs)) == 1234


async def test_a_refused_submit_fails_every_copy_with_the_schedulers_words() -> None:
    clock = FakeClock(NOW)
    driven = Driven(FakeQueue(FakeSite(clock)), clock)
    spec = SubmissionSpec("run.sh", resident=True, resources=Resources(queue="gone"))
    of = batch([0, 1], spec)
    answers = SCHEDULER.parse_submit(of, await driven.ask(SCHEDULER.submit_commands(of, {})))
    for answer in answers.values():
        assert isinstance(answer, Failure)
        assert answer.code is FailureCode.REFUSED
        assert "no queue gone" in answer.message


@pytest.mark.parametrize(
    ("field", "resources"),
    [
        ("resources.queue", Resources(queue="gone")),
        ("resources.cpus", Resources(cpus=65)),
        ("resources.wall_time_s", Resources(wall_time_s=10**7)),
    ],
)
async def test_what_the_queue_would_not_take_is_refused_before(
    field: str, resources: Resources
) -> None:
    clock = FakeClock(NOW)
    driven = Driven(FakeQueue(FakeSite(clock)), clock)
    with pytest.raises(SpecRefused) as refused:
        await driven.submit(batch([0], SubmissionSpec("x", resident=True, resources=resources)))
    assert refused.value.field == field


# ---------------------------------------------------------------- what comes back is not trusted

PARSERS: list[Callable[[Sequence[CommandResult]], object]] = [
    SCHEDULER.parse_probe,
    SCHEDULER.parse_list,
    lambda results: SCHEDULER.parse_status([native("1.0")], results),
    lambda results: SCHEDULER.parse_history([native("1.0")], results),
]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "results",
    [
        [],
        [CommandResult(0)],
        [CommandResult(0, b"Welcome to the cluster!\n")],
        [CommandResult(1, HEADER, b"daemon is down")],
        [CommandResult(0, HEADER), CommandResult(0, b"")],
    ],
)
def test_an_answer_of_nobody_raises(
    parse: Callable[[Sequence[CommandResult]], object], results: list[CommandResult]
) -> None:
    with pytest.raises(ResourceError):
        parse(results)


def test_nothing_is_asked_and_nothing_parsed_for_no_jobs() -> None:
    assert list(SCHEDULER.status_commands([])) == []
    assert SCHEDULER.parse_status([], []) == {}


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)))
def test_bad_rows_spoil_only_themselves_and_invent_nothing(lines: list[bytes]) -> None:
    stamp = b"%d" % int(NOW.timestamp())
    good = b"1.0\trunning\t" + stamp + b"\t" + stamp + b"\t-"
    answer = CommandResult(0, HEADER + b"\n".join([*lines, good, *lines]) + b"\n")
    jobs = [native("1.0"), native("1.1", 1)]
    found = SCHEDULER.parse_status(jobs, [answer])
    assert list(found) == jobs[:1]
    assert found[jobs[0]].started_at == NOW


@pytest.mark.parametrize(
    "row",
    [
        "1.0\tflying\t{now}\t-\t-",
        "1.0\trunning\tnan\t-\t-",
        "1.0\trunning\t-\t-\t-",
        "1.0\trunning\t{now}\t-",
        "9.9\trunning\t{now}\t-\t-",
        "1.0 running {now} - -",
    ],
)
def test_a_row_that_does_not_parse_is_left_out(row: str) -> None:
    text = row.format(now=NOW.timestamp())
    answer = CommandResult(0, HEADER + text.encode() + b"\n")
    assert SCHEDULER.parse_status([native("1.0")], [answer]) == {}


@pytest.mark.parametrize(
    "how", ["exit:", "exit:-1", "exit:²", "exit:256", "signal:0", "signal:x", "gone", "exit"]
)
def test_an_ending_that_is_not_understood_is_left_out(how: str) -> None:
    row = f"1.0\t{how}\t{NOW.timestamp()}\t-\t-\n"
    answer = CommandResult(0, HEADER + row.encode())
    assert SCHEDULER.parse_history([native("1.0")], [answer]) == {}


@pytest.mark.parametrize("row", ["0\t; rm -rf /", "0", "7\t1.7", "x\t1.0"])
def test_a_submit_answer_gives_no_id_that_does_not_match_nor_a_copy_nobody_asked_for(
    row: str,
) -> None:
    of = batch([0])
    answers = SCHEDULER.parse_submit(of, [CommandResult(0, HEADER + row.encode() + b"\n")])
    assert list(answers) == [0]
    assert isinstance(answers[0], Failure)


def test_the_registry_makes_it() -> None:
    made = registry.scheduler("fake")
    assert isinstance(made, Scheduler)
    assert made.native_id == SCHEDULER.native_id
    assert made.stages_own_files is False
