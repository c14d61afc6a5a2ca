"""How a job ended, from what was seen of it. Pure; the whole of "finished or not" lives here.

A job that left the queue is what the record of its end says. With none, our kill's mark counts; with none, the scheduler's word, from the
queue or the history; else it is `not-now` until the grace is over, and FINISHED_UNKNOWN then. A record that does not parse tells that
it is over, and no more.

A record tells what the payload did, the scheduler what was done to it: a payload may end with exit code 0 because its time was over. So a
record of exit code 0 gives way to the scheduler's word that the job failed or was cancelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve, frozen

from intercede.core import Failure, FailureCode, JobDetails, JobStatus
from intercede.toolkit import ExitRecord, parse_exit

__all__ = ["End", "parse_ends", "verdict"]

_LINE = re.compile(r"(exit|none|absent) ([0-9a-z]+)/([0-9]+)(?: (.*))?")


@frozen
class End:
    """What the sandbox tells of a job that left the queue.

    Attributes:
        present: Its directory is there.
        written: A record of its end is there.
        record: The record, if it parses.
        cancelled: Our kill's mark is there.
        age_s: How long ago it was first seen without a record.
    """

    present: bool
    written: bool = False
    record: ExitRecord | None = None
    cancelled: bool = False
    age_s: int = 0


def parse_ends(lines: Iterable[str]) -> dict[tuple[str, int], End]:
    """Read what `read_ends` printed. A line that does not parse is left out."""
    ends = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        kind, job, rest = match[1], (match[2], int(match[3])), match[4] or ""
        if kind == "absent":
            ends[job] = End(present=False)
        elif kind == "exit":
            ends[job] = End(present=True, written=True, record=parse_exit(rest))
        else:
            words = rest.split(" ")
            if len(words) == 2 and words[1].isdigit():
                ends[job] = End(present=True, cancelled=words[0] == "yes", age_s=int(words[1]))
    return ends


def verdict(end: End | None, word: JobDetails | None, grace_s: float) -> JobDetails | Failure:
    """Where a job is that has left the queue.

    Args:
        end: What the sandbox tells; None: nothing that parses.
        word: What the scheduler tells of its end; None: nothing.
        grace_s: The configured grace.
    """
    if end is None:
        return Failure(FailureCode.NOT_NOW, "the host's answer says nothing about it; ask again")
    if not end.present:
        return Failure(FailureCode.NO_SUCH_JOB, "its sandbox is gone")
    if word is not None and _decides(word, end):
        return word if end.record is None else _with_record(word, end.record)
    state = None if word is None else word.native_state
    if end.record is not None:
        return evolve(_from_record(end.record), native_state=state)
    if end.written:
        return JobDetails(JobStatus.FINISHED_UNKNOWN, reason="the record of its end cannot be read")
    if end.cancelled:
        return JobDetails(JobStatus.CANCELLED, native_state=state, reason="killed by us")
    if end.age_s < grace_s:
        return Failure(
            FailureCode.NOT_NOW,
            f"it left the queue {end.age_s} s ago and has no record of its end yet;"
            f" ask again (it counts as lost after {grace_s:g} s)",
        )
    return JobDetails(
        JobStatus.FINISHED_UNKNOWN,
        reason=f"it left the queue and left no record of its end within {grace_s:g} s",
    )


def _decides(word: JobDetails, end: End) -> bool:
    """Whether it is the scheduler's word that tells how the job ended."""
    if not word.status.is_finished:
        return False
    record = end.record
    if record is None:
        # A job that found our mark before it started leaves no record, and the scheduler thinks that all went well.
        return not end.cancelled
    if record.cancelled or record.limit is not None:
        return False
    return record.code == 0 and word.status in (JobStatus.FAILED, JobStatus.CANCELLED)


def _with_record(word: JobDetails, record: ExitRecord) -> JobDetails:
    """What the scheduler says of the end, with what the record knows better."""
    return evolve(
        _from_record(record),
        status=word.status,
        native_state=word.native_state,
        reason=word.reason or f"the scheduler says {word.native_state or word.status}",
    )


def _from_record(record: ExitRecord) -> JobDetails:
    if record.cancelled:
        status, reason = JobStatus.CANCELLED, "killed by us"
    elif record.limit is not None:
        status, reason = JobStatus.FAILED, f"ended at its limit of {record.limit}"
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
