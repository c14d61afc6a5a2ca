"""What direct says and understands, without a host."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import (
    CommandResult,
    Facts,
    Failure,
    FailureCode,
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
from intercede.scheduler.direct import DirectConfig, DirectScheduler

NOW = datetime(2026, 11, 22, tzinfo=UTC)
JOBS = [NativeJob(f"s.{copy}", copy, "s", NOW) for copy in range(3)]


def answer(*lines: str, code: int = 0, stderr: bytes = b"") -> list[CommandResult]:
    text = "\n".join(["direct", *lines, "end", ""])
    return [CommandResult(code, text.encode(), stderr)]


def batch(copies: tuple[int, ...] = (0, 1, 2), wall_time_s: int | None = None) -> StagedBatch:
    spec = SubmissionSpec("true", resident=True, resources=Resources(wall_time_s=wall_time_s))
    return StagedBatch("s", "mark", "/root/s", "/root/s/runner", copies, spec)


@pytest.fixture
def direct() -> DirectScheduler:
    return DirectScheduler()


def test_it_is_a_scheduler_and_found_by_its_name() -> None:
    assert isinstance(DirectScheduler(), Scheduler)
    assert isinstance(registry.scheduler({"type": "direct", "slots": 3}), DirectScheduler)


def test_the_same_question_is_asked_in_the_same_words(direct: DirectScheduler) -> None:
    again = DirectScheduler()
    facts = {"cores": 2}
    assert direct.probe_commands(None) == again.probe_commands("q")
    assert direct.submit_commands(batch(), facts) == again.submit_commands(batch(), facts)
    assert direct.status_commands(JOBS) == again.status_commands(JOBS)
    assert direct.kill_commands(JOBS) == again.kill_commands(JOBS)
    assert direct.list_commands("m") == again.list_commands("m")
    assert direct.history_commands(JOBS) == ()
    assert direct.parse_history(JOBS, []) == {}


def test_a_probe_tells_cores_memory_and_host(direct: DirectScheduler) -> None:
    facts = direct.parse_probe(answer("cores 8", "memory_mb 16000", "host n1"))
    assert facts == {"cores": 8, "memory_mb": 16000, "host": "n1"}


def test_a_host_that_does_not_tell_its_cores_is_not_usable(direct: DirectScheduler) -> None:
    with pytest.raises(ResourceError, match="how many cores"):
        direct.parse_probe(answer("cores many", "host n1"))


@pytest.mark.parametrize(
    ("slots", "limit"),
    [(None, "8"), (3, "3"), (100, "100")],
)
def test_the_limit_is_configured_or_the_hosts_cores(slots: int | None, limit: str) -> None:
    command = DirectScheduler(DirectConfig(slots=slots)).submit_commands(batch(), {"cores": 8})[0]
    assert command.argv[-7:] == ("submit", "s", "mark", "/root/s/runner", "-", limit, "0-2")


def test_a_limit_of_no_copies_is_refused() -> None:
    with pytest.raises(ValueError, match="slots"):
        DirectConfig(slots=0)


def test_a_wall_time_and_gaps_among_copies_are_told(direct: DirectScheduler) -> None:
    command = direct.submit_commands(batch((7, 0, 1, 3), 600), {"cores": 1})[0]
    assert command.argv[-3:] == ("600", "1", "0-1 3-3 7-7")


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        (Resources(cpus=9), "resources.cpus"),
        (Resources(memory_mb=16001), "resources.memory_mb"),
        (Resources(gpus=1), "resources.gpus"),
        (Resources(nodes=2), "resources.nodes"),
        (Resources(whole_node=True), "resources.whole_node"),
        (Resources(queue="q"), "resources.queue"),
    ],
)
def test_what_the_host_can_never_run_is_refused(
    direct: DirectScheduler, resources: Resources, field: str
) -> None:
    facts: Facts = {"cores": 8, "memory_mb": 16000, "host": "n1"}
    with pytest.raises(SpecRefused) as caught:
        direct.check(SubmissionSpec("true", resident=True, resources=resources), facts)
    assert caught.value.field == field


def test_what_just_fits_is_accepted(direct: DirectScheduler) -> None:
    resources = Resources(cpus=8, memory_mb=16000, wall_time_s=1)
    facts: Facts = {"cores": 8, "memory_mb": 16000, "host": "n1"}
    direct.check(SubmissionSpec("true", resident=True, resources=resources), facts)
    direct.check(SubmissionSpec("true", resources=Resources(memory_mb=10**6)), {"cores": 8})


def test_a_submission_that_is_queued_has_an_id_per_copy(direct: DirectScheduler) -> None:
    natives = direct.parse_submit(batch(), answer("queued s"))
    assert natives == {0: "s.0", 1: "s.1", 2: "s.2"}


@pytest.mark.parametrize("said", [answer("queued t"), answer("queued"), answer(stderr=b"no room")])
def test_a_submission_that_is_not_queued_fails_every_copy(
    direct: DirectScheduler, said: list[CommandResult]
) -> None:
    natives = direct.parse_submit(batch(), said)
    assert set(natives) == {0, 1, 2}
    for failure in natives.values():
        assert isinstance(failure, Failure)
        assert failure.code is FailureCode.REFUSED


def test_a_status_names_only_what_waits_or_runs(direct: DirectScheduler) -> None:
    found = direct.parse_status(JOBS, answer("s.0 RUNNING", "s.2 PENDING"))
    assert {job.copy: details.status for job, details in found.items()} == {
        0: JobStatus.RUNNING,
        2: JobStatus.PENDING,
    }
    assert "slot" in (found[JOBS[2]].reason or "")


def test_a_row_that_does_not_parse_spoils_only_its_own_job(direct: DirectScheduler) -> None:
    rows = ["s.0 RUNNING", "s.1 DANCING", "s.1", "x.9 RUNNING", "", "s.2", "s.2 "]
    assert set(direct.parse_status(JOBS, answer(*rows))) == {JOBS[0]}


def test_a_job_of_another_host_is_unknown_with_the_hosts_name(direct: DirectScheduler) -> None:
    details = direct.parse_status(JOBS, answer("s.0 ELSEWHERE login2"))[JOBS[0]]
    assert details.status is JobStatus.UNKNOWN
    assert "login2" in (details.reason or "")


def test_an_id_that_belongs_to_another_copy_is_not_asked_for(direct: DirectScheduler) -> None:
    foreign = NativeJob("s.7", 1, "s", NOW)
    assert direct.status_commands([foreign])[0].stdin == b""
    assert direct.kill_commands([foreign, JOBS[0]])[0].stdin == b"s 0\n"
    assert direct.parse_status([foreign], answer("s.7 RUNNING")) == {}


def test_a_list_tells_mark_copy_and_status(direct: DirectScheduler) -> None:
    rows = [
        "s.0 m:s RUNNING",
        "s.12 m:s PENDING",
        "s.2 m:s",
        "x",
        "s.x m:s RUNNING",
        ". m:s RUNNING",
    ]
    assert direct.parse_list(answer(*rows)) == {
        "s.0": ("m:s", 0, JobStatus.RUNNING),
        "s.12": ("m:s", 12, JobStatus.PENDING),
    }


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"direct",
        b"direct\nend",
        b"end\n",
        b"direct\ns.0 RUNNING\n",
        b"x\ndirect\nend\n",
        b"\xff",
    ],
)
def test_an_answer_without_beginning_or_end_is_an_error_for_every_question(
    direct: DirectScheduler, printed: bytes
) -> None:
    results = [CommandResult(1, printed, b"sh: out of memory")]
    for ask in (
        lambda: direct.parse_probe(results),
        lambda: direct.parse_status(JOBS, results),
        lambda: direct.parse_list(results),
        lambda: direct.parse_submit(batch(), results),
    ):
        with pytest.raises(ResourceError, match="did not come to its end") as caught:
            ask()
        assert caught.value.said == "sh: out of memory"


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.one_of(
                st.text(max_size=30),
                st.sampled_from(
                    ["s.0 RUNNING", "s.1 PENDING x", "cores 4", "queued s", "s.2 m PENDING"]
                ),
            ),
            max_size=6,
        ).map(lambda lines: "\n".join(["direct", *lines, "end", ""]).encode(errors="replace")),
    ),
    st.integers(-30, 255),
)
def test_no_answer_makes_a_parser_raise_anything_else_or_invent_a_job(
    printed: bytes, code: int
) -> None:
    direct = DirectScheduler()
    results = [CommandResult(code, printed)]
    for ask in (
        lambda: direct.parse_probe(results),
        lambda: direct.parse_status(JOBS, results),
        lambda: direct.parse_list(results),
        lambda: direct.parse_submit(batch(), results),
    ):
        try:
            found = ask()
        except ResourceError:
            continue
        if ask() and all(isinstance(key, NativeJob) for key in found):
            assert set(found) <= set(JOBS)
