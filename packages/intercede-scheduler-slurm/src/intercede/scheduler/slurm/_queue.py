"""The rows of squeue.

They are the same on 20.11, 22.05, 24.11 and 26.05: one for each job that has begun or differs from the others of its array, and one for all
of an array that waits, `3_[0-4,7%2]` (with `-r` one for each of those too). With `-t all` they tell also of jobs that ended within MinJobAge
(300 s by default).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from intercede.core import JobDetails, JobStatus, NativeJob, ResourceError, Results

from ._answer import Answer, read_answer
from ._programs import NAME, NATIVE
from ._states import State, pending_reason, read_state

__all__ = ["asked", "asked_in_queue", "job_details", "read_list", "read_moment", "read_status"]

_UNREADABLE: Final = JobDetails(JobStatus.UNKNOWN, reason="its row of the queue cannot be read")
#: Of a job that a signal ended: `RaisedSignal:9(Killed)` (24.11, 26.05).
_SIGNAL: Final = re.compile(r"RaisedSignal:([0-9]{1,2})\b.*")
#: The signal under which slurmd tells that it could not even begin (22.05 and later; 20.11 says exit code 1).
_NOT_BEGUN: Final = 53
#: The elements of an array that have one row, and how many of them may run at once: `3_[0-4,7%2]`, `3_[0-20:4]`.
_WAITING: Final = re.compile(r"[1-9][0-9]{0,9}_\[([0-9,:-]+)(?:%[0-9]+)?\]")
_TASKS: Final = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([1-9][0-9]{0,6}))?)?")
#: Of an array of which more are asked for, all rows are taken: thousands of ids take longer to look up there than to read here.
_FEW: Final = 100
_MARKED: Final = re.compile(r"(.+):([0-9]{1,9})")


def asked(jobs: Sequence[NativeJob]) -> bytes:
    """What our programs read: `:SUBMISSION`, and below it the ids of its jobs."""
    lines: list[str] = []
    submission = None
    for job in jobs:
        if job.submission != submission:
            submission = job.submission
            lines.append(f":{submission}")
        lines.append(job.id)
    return "".join(f"{line}\n" for line in lines).encode()


def asked_in_queue(jobs: Sequence[NativeJob]) -> bytes:
    """What `STATUS` reads: ids, one per line; of an array of which many are asked for, its own."""
    arrays: dict[str, list[str]] = {}
    for job in jobs:
        native = job.id
        array = native.partition("_")[0]
        if array in arrays:
            arrays[array].append(native)
        else:
            arrays[array] = [native]
    lines: list[str] = []
    for array, ids in arrays.items():
        lines += ids if len(ids) <= _FEW else [array]
    return "".join(f"{line}\n" for line in lines).encode()


def _queue(results: Results) -> Answer:
    answer = read_answer(results)
    answer.check("squeue")
    if not answer.rows or answer.rows[0][0] != "JOBID":
        raise ResourceError("squeue printed no header: it is not Slurm's", said=answer.said)
    return answer


def read_status(jobs: Sequence[NativeJob], results: Results) -> dict[NativeJob, JobDetails]:
    """The jobs that wait or run, and those that ended lately.

    A row is ours by its id and its name: the id may have been given to another job since (T6).

    Raises:
        ResourceError: It is not the answer of a squeue that came to its end.
    """
    answer = _queue(results)
    rows: dict[str, list[str]] = {}
    waiting: dict[str, list[list[str]]] = {}
    for row in (*answer.torn, *answer.rows[1:]):
        if row and "[" in row[0]:
            waiting.setdefault(row[0].partition("_")[0], []).append(row)
        elif row:
            rows[row[0]] = row
    found: dict[NativeJob, JobDetails] = {}
    others: dict[str, dict[int, NativeJob]] = {}
    last, by_task = "", None
    for job in jobs:
        native = job.id
        if native in rows:
            _take(found, rows[native], (job,))
        elif waiting:
            array, _, task = native.partition("_")
            if array != last:  # most follow one of the same
                last, by_task = array, others.setdefault(array, {}) if array in waiting else None
            if by_task is not None and task:
                by_task[int(task)] = job
    for array, by_task in others.items():
        for row in waiting[array]:
            spans = _spans(row[0])
            if spans is None:
                # Which of them it tells of is not known: none is absent.
                _take(found, row[:2], by_task.values())
            for span in spans or ():
                _take(found, row, _within(span, by_task))
    return found


def _take(
    found: dict[NativeJob, JobDetails], row: Sequence[str], jobs: Iterable[NativeJob]
) -> None:
    """What a row tells of these jobs, unless it is another's of the same id."""
    details = _row_details(*row[2:])
    if len(row) == 1:  # torn: whose it is is not known
        found |= dict.fromkeys(jobs, details)
        return
    name = row[1]
    if name.startswith(NAME):
        submission = name.removeprefix(NAME)
        found |= dict.fromkeys([job for job in jobs if job.submission == submission], details)


def _spans(waiting: str) -> list[range] | None:
    """The tasks that an array's row tells of; None: it cannot be read."""
    match = _WAITING.fullmatch(waiting)
    parts = [_TASKS.fullmatch(part) for part in match[1].split(",")] if match else [None]
    spans = [range(int(p[1]), int(p[2] or p[1]) + 1, int(p[3] or 1)) for p in parts if p]
    return spans if len(spans) == len(parts) else None


def _within(span: range, by_task: Mapping[int, NativeJob]) -> Iterable[NativeJob]:
    if len(span) > len(by_task):
        return [job for task, job in by_task.items() if task in span]
    return [by_task[task] for task in span if task in by_task]


@lru_cache(maxsize=1024)  # most elements of an array have these in common
def _row_details(*told: str) -> JobDetails:
    if len(told) != 6:
        return _UNREADABLE
    name, reason, submitted, started, ended, nodes = told
    state = read_state(name)
    # A row whose times are no times is not squeue's.
    if state is None or read_moment(submitted) is None:
        return _UNREADABLE
    return job_details(state, name, reason, read_moment(started), read_moment(ended), nodes)


def job_details(
    state: State,
    shown: str,
    reason: str,
    started: datetime | None,
    ended: datetime | None,
    nodes: str,
) -> JobDetails:
    """What a state and what is told with it come to.

    Args:
        state: The state.
        shown: What Slurm wrote of it.
        reason: Slurm's reason.
        started: When it started, or is expected to.
        ended: When it ended, or is expected to.
        nodes: Where.
    """
    status, words, signal = state.status, state.words, None
    if state.name == "PENDING":
        status, words = pending_reason(reason)
    elif status.is_finished:
        words, signal = _how_ended(state, shown, reason)
    is_over = status.is_finished or state.is_ending
    has_begun = is_over or status is JobStatus.RUNNING
    return JobDetails(
        status,
        exit_code=0 if state.name == "COMPLETED" else None,
        signal=signal,
        native_state=state.name,
        reason=words,
        started_at=started if has_begun else None,
        ended_at=ended if is_over else None,
        node=nodes or None if has_begun else None,
    )


def _how_ended(state: State, shown: str, reason: str) -> tuple[str | None, int | None]:
    """In words, and by which signal."""
    if state.name == "CANCELLED" and " by " in shown:
        return f"cancelled by uid {shown.rpartition(' ')[2][:20]}", None
    if state.name != "FAILED":
        return state.words, None
    match = _SIGNAL.fullmatch(reason)
    if match is None:
        return f"Slurm says FAILED ({reason})" if reason else "Slurm says FAILED", None
    if int(match[1]) == _NOT_BEGUN:
        return (
            f"Slurm could not begin it on its node: is the sandbox's file system there? ({reason})"
        ), None
    return f"ended by signal {match[1]}", int(match[1])


def read_list(results: Results) -> Mapping[str, tuple[str, int | None, JobStatus]]:
    """By native id the mark, the copy and the status, of all jobs with a mark.

    Raises:
        ResourceError: As `read_status`.
    """
    found: dict[str, tuple[str, int | None, JobStatus]] = {}
    for row in _queue(results).rows[1:]:
        if len(row) != 5:
            continue
        native, comment, name, shown, reason = row
        match = _MARKED.fullmatch(comment)
        if match is None or name != NAME + match[1].rpartition(":")[2]:
            continue
        if not re.fullmatch(NATIVE, native):
            continue
        task = native.partition("_")[2]
        state = read_state(shown)
        status = JobStatus.UNKNOWN if state is None else state.status
        if state is not None and state.name == "PENDING":
            status, _ = pending_reason(reason)
        found[native] = match[1], int(match[2]) + int(task or 0), status
    return found


def read_moment(text: str) -> datetime | None:
    """A time as seconds since 1970; None for `N/A` and what is none."""
    if not re.fullmatch("[0-9]{1,12}", text):
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        return None
