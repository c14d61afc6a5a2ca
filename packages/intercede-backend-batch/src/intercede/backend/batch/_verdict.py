"""How a job ended, from what was seen of it. Pure; the whole of "finished or not" lives here.

A job that left the queue is what the record of its end says. With none, our kill's mark counts; with none, the scheduler's word, from the
queue or the history; else it is `not-now` until the grace is over, and FINISHED_UNKNOWN then. A record that does not parse tells that
it is over, and no more.

A record tells what the payload did, the scheduler what was done to it: a payload may end with exit code 0 because its time was over. So a
record of exit code 0 gives way to the scheduler's word that the job failed or was cancelled, and a record that the job was told to end to
any; without a word such a job has failed. Schedulers forget: a word that decided is written down in the sandbox, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import evolve, frozen

from intercede.core import (
    ConfigurationError,
    Failure,
    FailureCode,
    JobDetails,
    JobStatus,
    from_json,
    to_json,
)
from intercede.toolkit import ExitRecord, parse_exit

__all__ = ["End", "parse_ends", "verdict", "write_word"]

_LINE: Final = re.compile(r"(exit|ended|none|absent) ([0-9a-z]+)/([0-9]+)(?: (.*))?")
_NONE: Final = re.compile(r"(yes|no) (?:([0-9]{1,12})|(over)|(lost))")
#: How much of a scheduler's words is written down, in characters.
_REASON_KEPT: Final = 500
_NAME_KEPT: Final = 100


@frozen
class End:
    """What the sandbox tells of a job that left the queue.

    Attributes:
        present: Its directory is there.
        written: Something is written down of its end.
        record: What its runner wrote, if that parses.
        word: What the scheduler said and was written down, if that parses.
        cancelled: Our kill's mark is there.
        age_s: How long ago it was first seen to have left without a record.
        over: The grace is over, and the history might still tell.
        lost: The grace was over and nothing told.
    """

    present: bool
    written: bool = False
    record: ExitRecord | None = None
    word: JobDetails | None = None
    cancelled: bool = False
    age_s: int = 0
    over: bool = False
    lost: bool = False

    @property
    def decided(self) -> bool:
        """Nobody else needs to be asked how it ended."""
        return not self.present or self.written or self.cancelled or self.lost


def parse_ends(lines: Iterable[str]) -> dict[tuple[str, int], End]:
    """Read what `read_ends` printed. A line that does not parse is left out."""
    ends: dict[tuple[str, int], End] = {}
    words: dict[tuple[str, int], JobDetails | None] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        kind, job, rest = match[1], (match[2], int(match[3])), match[4] or ""
        if kind == "absent":
            ends[job] = End(present=False)
        elif kind == "exit":
            ends[job] = End(present=True, written=True, record=parse_exit(rest))
        elif kind == "ended":
            words[job] = _read_word(rest)
        elif (told := _NONE.fullmatch(rest)) is not None:
            ends[job] = End(
                present=True,
                cancelled=told[1] == "yes",
                age_s=int(told[2] or 0),
                over=told[3] is not None,
                lost=told[4] is not None,
            )
    for job, word in words.items():
        if job in ends:
            ends[job] = evolve(ends[job], written=True, word=word)
    return ends


def write_word(word: JobDetails) -> str:
    """What the scheduler says of the end of a job, in one line."""
    if word.status is JobStatus.SUCCESSFUL:
        # The record, which is there or about to come, knows the rest; and thousands of jobs have this line in common.
        word = evolve(word, exit_code=None, started_at=None, ended_at=None, node=None)
    return to_json(
        evolve(
            word,
            reason=_cut(word.reason, _REASON_KEPT),
            native_state=_cut(word.native_state, _NAME_KEPT),
            node=_cut(word.node, _NAME_KEPT),
        )
    )


def _cut(text: str | None, most: int) -> str | None:
    return None if text is None else text[:most]


def _read_word(line: str) -> JobDetails | None:
    """None if it is none: a payload may have written it."""
    try:
        word = from_json(JobDetails, line)
    except ConfigurationError:
        return None
    return word if word.status.is_finished else None


def verdict(end: End | None, word: JobDetails | None, grace_s: float) -> JobDetails | Failure:
    """Where a job is that has left the queue.

    Args:
        end: What the sandbox tells; None: nothing that parses.
        word: What the scheduler tells of its end now; None: nothing.
        grace_s: The configured grace.
    """
    if end is None:
        return Failure(FailureCode.NOT_NOW, "the host's answer says nothing about it; ask again")
    if not end.present:
        return Failure(FailureCode.NO_SUCH_JOB, "its sandbox is gone")
    if end.word is None and word is not None and _decides(word, end):
        # It could not be written down, as on a full disk.
        end = evolve(end, word=word)
    if end.word is not None:
        return end.word if end.record is None else _with_record(end.word, end.record)
    state = None if word is None else word.native_state
    if end.record is not None:
        return evolve(_from_record(end.record), native_state=state)
    if end.written:
        return JobDetails(JobStatus.FINISHED_UNKNOWN, reason="the record of its end cannot be read")
    if end.cancelled:
        return JobDetails(JobStatus.CANCELLED, native_state=state, reason="killed by us")
    if end.lost:
        return JobDetails(
            JobStatus.FINISHED_UNKNOWN,
            reason=f"it left the queue and left no record of its end within {grace_s:g} s",
        )
    return Failure(
        FailureCode.NOT_NOW,
        f"it left the queue {end.age_s} s ago and has no record of its end yet;"
        f" ask again (it counts as lost after {grace_s:g} s)",
    )


def _decides(word: JobDetails, end: End) -> bool:
    """Whether it is the scheduler's word that tells how the job ended."""
    if not word.status.is_finished:
        return False
    record = end.record
    if record is None:
        # A job that found our mark before it started leaves no record, and the scheduler thinks that all went well.
        return not end.cancelled and not end.lost
    if record.cancelled or record.limit is not None:
        return False
    if word.status is JobStatus.SUCCESSFUL:
        return record.told and record.code == 0
    return word.status is not JobStatus.FINISHED_UNKNOWN and (record.told or record.code == 0)


def _with_record(word: JobDetails, record: ExitRecord) -> JobDetails:
    """What the scheduler says of the end, with what the record knows better."""
    return evolve(
        _from_record(record),
        status=word.status,
        native_state=word.native_state,
        reason=word.reason or _in_words(word),
    )


def _in_words(word: JobDetails) -> str | None:
    if word.status is JobStatus.SUCCESSFUL:
        return None
    return f"the scheduler says {word.native_state or word.status}"


def _from_record(record: ExitRecord) -> JobDetails:
    if record.cancelled:
        status, reason = JobStatus.CANCELLED, "killed by us"
    elif record.limit is not None:
        status, reason = JobStatus.FAILED, f"ended at its limit of {record.limit}"
    elif record.told:
        status, reason = JobStatus.FAILED, "told to end (TERM), not by us"
    elif record.code == 0:
        status, reason = JobStatus.SUCCESSFUL, None
    elif record.signal is not None:
        status, reason = JobStatus.FAILED, f"ended by signal {record.signal}"
    else:
        status, reason = JobStatus.FAILED, f"exit code {record.code}"
    return JobDetails(
        status,
        exit_code=None if record.signal is not None else record.code,
        signal=record.signal,
        reason=reason,
        started_at=record.began,
        ended_at=record.ended,
        node=record.node,
    )
