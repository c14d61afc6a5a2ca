"""How a job ended, from what was seen of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.backend.batch._attempts import read_frames
from intercede.backend.batch._verdict import End, parse_ends, verdict, write_word
from intercede.core import Failure, FailureCode, JobDetails, JobStatus
from intercede.toolkit import Frames

SUBMISSION = "01m80sfvx6e5zqwcjwb4ryhe0d"
RECORD = "code=0 signal=- cancelled=- limit=- began=1795321975 ended=1795321976 node=n1 end"


def test_a_line_that_does_not_parse_spoils_only_its_own_job() -> None:
    word = JobDetails(JobStatus.FAILED, reason="time limit", node="n7")
    lines = [
        "none s/0 yes",
        "none s/1 no x",
        "none s/2 no 7",
        "exit s/3 rubbish",
        "absent s/4",
        "?",
        "none s/5 yes lost",
        "none s/6 no over",
        f"ended s/7 {write_word(word)}",
        "none s/7 no 0",
        "ended s/8 rubbish",
        "none s/8 no 0",
        f"ended s/9 {write_word(JobDetails(JobStatus.RUNNING))}",
        "none s/9 no 0",
        f"ended s/10 {write_word(word)}",
    ]
    assert parse_ends(lines) == {
        ("s", 2): End(present=True, age_s=7),
        ("s", 3): End(present=True, written=True),
        ("s", 4): End(present=False),
        ("s", 5): End(present=True, cancelled=True, lost=True),
        ("s", 6): End(present=True, over=True),
        ("s", 7): End(present=True, written=True, word=word),
        ("s", 8): End(present=True, written=True),
        ("s", 9): End(present=True, written=True),
    }


@given(st.text(), st.sampled_from(["ended s/0 ", "exit s/0 ", "none s/0 ", ""]))
def test_whatever_a_payload_writes_there_is_a_verdict(text: str, word: str) -> None:
    ends = parse_ends([word + text, "none s/0 no 3"])
    assert set(ends) == {("s", 0)}
    verdict(ends["s", 0], None, 90)


def test_a_job_of_which_nothing_is_said_is_not_now() -> None:
    outcome = verdict(None, None, 90)
    assert isinstance(outcome, Failure)
    assert outcome.code is FailureCode.NOT_NOW


def decided(record: str, word: JobDetails | None) -> JobDetails:
    """The verdict about a job with this record, of which the scheduler says so."""
    (end,) = parse_ends([f"exit s/0 {record}"]).values()
    outcome = verdict(end, word, 90)
    assert isinstance(outcome, JobDetails)
    return outcome


@pytest.mark.parametrize(
    "word",
    [
        JobDetails(JobStatus.SUCCESSFUL, native_state="COMPLETED"),
        JobDetails(JobStatus.FINISHED_UNKNOWN, native_state="?"),
        JobDetails(JobStatus.RUNNING, native_state="R"),
    ],
)
def test_a_record_counts_and_the_scheduler_adds_its_own_word_for_it(word: JobDetails) -> None:
    details = decided(RECORD, word)
    assert (details.status, details.native_state) == (JobStatus.SUCCESSFUL, word.native_state)
    assert details.node == "n1"
    details = decided(RECORD.replace("code=0", "code=3"), word)
    assert (details.status, details.exit_code) == (JobStatus.FAILED, 3)


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_good_record_gives_way_to_the_scheduler_and_keeps_what_it_knows(
    status: JobStatus,
) -> None:
    details = decided(RECORD, JobDetails(status, native_state="TIMEOUT", reason="time limit"))
    assert (details.status, details.native_state) == (status, "TIMEOUT")
    assert (details.exit_code, details.reason, details.node) == (0, "time limit", "n1")
    assert details.ended_at is not None
    unsaid = decided(RECORD, JobDetails(status, native_state="TIMEOUT"))
    assert unsaid.reason == "the scheduler says TIMEOUT"


def test_what_our_kill_or_a_limit_ended_is_not_for_the_scheduler_to_say() -> None:
    word = JobDetails(JobStatus.FAILED, native_state="NODE_FAIL", reason="node failed")
    killed = decided(RECORD.replace("cancelled=-", "cancelled=yes"), word)
    assert (killed.status, killed.reason) == (JobStatus.CANCELLED, "killed by us")
    limited = decided(RECORD.replace("limit=-", "limit=wall-time"), word)
    assert limited.reason == "ended at its limit of wall-time"


TOLD = RECORD.replace("limit=-", "limit=- told=TERM")


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_was_told_to_end_is_what_the_scheduler_says(code: int) -> None:
    record = TOLD.replace("code=0", f"code={code}")
    for status in (JobStatus.FAILED, JobStatus.CANCELLED):
        details = decided(record, JobDetails(status, reason="their words"))
        assert (details.status, details.reason) == (status, "their words")
        assert details.exit_code == code
    went_well = decided(record, JobDetails(JobStatus.SUCCESSFUL))
    assert went_well.status is (JobStatus.FAILED if code else JobStatus.SUCCESSFUL)


@pytest.mark.parametrize("word", [None, JobDetails(JobStatus.FINISHED_UNKNOWN)])
def test_a_job_that_was_told_to_end_and_of_which_nobody_says_why_has_failed(
    word: JobDetails | None,
) -> None:
    details = decided(TOLD, word)
    assert (details.status, details.exit_code) == (JobStatus.FAILED, 0)
    assert details.reason == "told to end (TERM), not by us"


@pytest.mark.parametrize(
    ("ours", "status"), [("cancelled=yes", JobStatus.CANCELLED), ("limit=x", JobStatus.FAILED)]
)
def test_a_job_that_we_told_to_end_is_ours_to_explain(ours: str, status: JobStatus) -> None:
    record = TOLD.replace(f"{ours.partition('=')[0]}=-", ours)
    details = decided(record, JobDetails(JobStatus.FAILED, reason="their words"))
    assert details.status is status
    assert details.reason in ("killed by us", "ended at its limit of x")


def test_without_a_record_our_mark_counts_before_the_scheduler_and_that_before_the_grace() -> None:
    word = JobDetails(JobStatus.SUCCESSFUL, native_state="COMPLETED")
    assert verdict(End(present=True), word, 90) is word
    assert verdict(End(present=True, written=True), word, 90) is word
    killed = verdict(End(present=True, cancelled=True), word, 90)
    assert isinstance(killed, JobDetails)
    assert (killed.status, killed.native_state) == (JobStatus.CANCELLED, "COMPLETED")
    lost = verdict(End(present=True, lost=True), word, 90)
    assert isinstance(lost, JobDetails)
    assert lost.status is JobStatus.FINISHED_UNKNOWN


def test_a_word_that_was_written_down_stays_and_takes_from_a_record_what_that_knows() -> None:
    word = JobDetails(JobStatus.CANCELLED, native_state="CANCELLED by 0")
    lines = [f"ended s/0 {write_word(word)}", f"exit s/0 {RECORD}"]
    (end,) = parse_ends(lines).values()
    details = verdict(end, JobDetails(JobStatus.FAILED), 90)
    assert isinstance(details, JobDetails)
    assert (details.status, details.exit_code) == (JobStatus.CANCELLED, 0)
    assert details.reason == "the scheduler says CANCELLED by 0"


def test_of_a_scheduler_that_talks_without_end_only_so_much_is_written_down() -> None:
    text = "\U0001f600" * 10_000
    line = write_word(JobDetails(JobStatus.FAILED, reason=text, native_state=text, node=text))
    assert len(line) < 10_000


def test_a_word_that_the_job_has_not_ended_is_not_believed() -> None:
    history = JobDetails(JobStatus.RUNNING)
    outcome = verdict(End(present=True, age_s=3), history, 90)
    assert isinstance(outcome, Failure)
    assert outcome.code is FailureCode.NOT_NOW


def test_what_somebody_wrote_into_a_sandbox_does_not_keep_its_copies_from_being_found() -> None:
    lines = [
        f"found {SUBMISSION} {{not json",
        f"copy {SUBMISSION} 0",
        f"copy {SUBMISSION} x",
        "copy elsewhere 1",
        f"attempt {SUBMISSION} done many",
        "attempt",
    ]
    attempts = read_frames(Frames(lines=lines, ended=True))
    assert attempts.copies == {SUBMISSION: [0]}
    assert attempts.states == {SUBMISSION: "done"}
    assert attempts.totals == {SUBMISSION: 0}
    assert attempts.specs == {}
