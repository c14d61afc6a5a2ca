"""How a job ended, from what was seen of it."""

import pytest

from intercede.backend.batch._attempts import read_frames
from intercede.backend.batch._verdict import End, parse_ends, verdict
from intercede.core import Failure, FailureCode, JobDetails, JobStatus
from intercede.toolkit import Frames

SUBMISSION = "01m80sfvx6e5zqwcjwb4ryhe0d"
RECORD = "code=0 signal=- cancelled=- limit=- began=1795321975 ended=1795321976 node=n1 end"


def test_a_line_that_does_not_parse_spoils_only_its_own_job() -> None:
    lines = [
        "none s/0 yes",
        "none s/1 no x",
        "none s/2 no 7",
        "exit s/3 rubbish",
        "absent s/4",
        "?",
    ]
    assert parse_ends(lines) == {
        ("s", 2): End(present=True, age_s=7),
        ("s", 3): End(present=True, written=True),
        ("s", 4): End(present=False),
    }


def test_a_job_of_which_nothing_is_said_is_not_now() -> None:
    outcome = verdict(None, None, 90)
    assert isinstance(outcome, Failure)
    assert outcome.code is FailureCode.NOT_NOW


def test_a_record_counts_before_the_history_which_adds_its_own_word() -> None:
    (end,) = parse_ends([f"exit s/0 {RECORD}"]).values()
    history = JobDetails(JobStatus.FAILED, native_state="NODE_FAIL")
    outcome = verdict(end, history, 90)
    assert isinstance(outcome, JobDetails)
    assert (outcome.status, outcome.native_state) == (JobStatus.SUCCESSFUL, "NODE_FAIL")
    assert outcome.node == "n1"


@pytest.mark.parametrize("cancelled", [True, False])
def test_history_counts_before_our_mark_and_the_grace(cancelled: bool) -> None:
    history = JobDetails(JobStatus.FAILED, reason="time limit")
    assert verdict(End(present=True, cancelled=cancelled), history, 90) is history


def test_a_history_that_has_not_ended_is_not_believed() -> None:
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
