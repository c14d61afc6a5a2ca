"""The language of the batch system that is not there (`FakeQueue`), as a scheduler has to speak it.

Pure: values in, commands out; text in, values out. An answer without its first line is nobody's and raises; a row that does not parse,
or that nobody asked for, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import frozen

from intercede.core import (
    Command,
    CommandResult,
    Facts,
    Failure,
    FailureCode,
    JobDetails,
    JobStatus,
    NativeJob,
    ResourceError,
    Results,
    SpecRefused,
    StagedBatch,
    SubmissionSpec,
)

from ._queue import ENDING, HEADER

__all__ = ["FakeScheduler", "FakeSchedulerConfig"]

T = TypeVar("T")

_NONE: Final = "-"
#: How many ids or copies one command names (N4).
_AT_ONCE: Final = 500
#: The client's clock and the scheduler's may differ by this; an id given out at another time is not ours (T6).
_SAME_SUBMIT_S: Final = 300.0
_HOW: Final = re.compile(r"(exit|signal):([0-9]{1,3})")
_EXIT_MAX: Final = 255
_SIGNAL_MAX: Final = 64
_NATIVE: Final = r"[1-9][0-9]{0,8}\.[0-9]{1,9}"

_STATES: Final[Mapping[str, JobStatus]] = {
    "waiting": JobStatus.PENDING,
    "held": JobStatus.HELD,
    "running": JobStatus.RUNNING,
    ENDING: JobStatus.RUNNING,
}


@frozen
class FakeSchedulerConfig:
    """The fake scheduler has nothing to configure."""


class FakeScheduler:
    """As `Scheduler`, for the commands of `FakeQueue`."""

    @property
    def stages_own_files(self) -> bool:
        """It shares the host's file system."""
        return False

    @property
    def native_id(self) -> str:
        """Submit number and copy."""
        return _NATIVE

    def probe_commands(self, queue: str | None) -> Sequence[Command]:
        """As `Scheduler`."""
        return [Command(["fake-info"])]

    def parse_probe(self, results: Results) -> Facts:
        """The queues, separated by commas, and the greatest values, by `max_<resource>`."""
        facts: dict[str, int | str] = {}
        for row in _rows(results, "fake-info"):
            if len(row) == 2:
                key, value = row
                facts[key] = int(value) if value.isascii() and value.isdigit() else value
        return facts

    def check(self, spec: SubmissionSpec, facts: Facts) -> None:
        """As `Scheduler`."""
        asked = spec.resources
        queues = str(facts.get("queues", "")).split(",")
        if asked.queue is not None and asked.queue not in queues:
            raise SpecRefused(
                "resources.queue",
                f"{asked.queue!r} is not a queue",
                remedy=f"there are: {', '.join(queues)}",
            )
        for name, value in (("cpus", asked.cpus), ("wall_time_s", asked.wall_time_s)):
            limit = facts.get(f"max_{name}")
            if isinstance(limit, int) and value is not None and value > limit:
                raise SpecRefused(
                    f"resources.{name}",
                    f"{value} exceeds the limit of {limit}",
                    remedy="ask for less",
                )

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        """As `Scheduler`."""
        queue = batch.spec.resources.queue or _NONE
        return [
            Command(["fake-submit", batch.mark, batch.runner, queue, *map(str, copies)])
            for copies in _chunks(batch.copies)
        ]

    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        """As `Scheduler`."""
        answers: dict[int, str | Failure] = {
            copy: Failure(FailureCode.FAILED, "fake-submit did not say what became of this copy")
            for copy in batch.copies
        }
        for copies, result in zip(_chunks(batch.copies), results, strict=False):
            try:
                rows = list(_rows([result], "fake-submit"))
            except ResourceError as error:
                refusal = Failure(FailureCode.REFUSED, f"{error.message}: {error.said}")
                answers.update(dict.fromkeys(copies, refusal))
                continue
            natives = {
                str(copy): native
                for copy, native in (row for row in rows if len(row) == 2)
                if re.fullmatch(_NATIVE, native)
            }
            answers.update({copy: natives[str(copy)] for copy in copies if str(copy) in natives})
        return answers

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """As `Scheduler`."""
        return _naming("fake-queue", jobs)

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """As `Scheduler`."""
        found = {}
        for job, (state, _submitted, started, last) in _of_jobs(jobs, results, "fake-queue"):
            if state == ENDING:
                found[job] = JobDetails(
                    _STATES[state],
                    native_state=state,
                    started_at=_moment(started),
                    ended_at=_moment(last),
                )
            elif state in _STATES:
                found[job] = JobDetails(
                    _STATES[state],
                    native_state=state,
                    reason=None if last == _NONE else last,
                    started_at=_moment(started),
                )
            elif (ended := _ended(state, started, last)) is not None:
                found[job] = ended
        return found

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """As `Scheduler`."""
        return _naming("fake-history", jobs)

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """As `Scheduler`."""
        found = {}
        for job, (how, _submitted, started, ended) in _of_jobs(jobs, results, "fake-history"):
            details = _ended(how, started, ended)
            if details is not None:
                found[job] = details
        return found

    def kill_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """As `Scheduler`."""
        return _naming("fake-kill", jobs)

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        """As `Scheduler`."""
        return [Command(["fake-list", mark_prefix])]

    def parse_list(self, results: Results) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        """As `Scheduler`."""
        return {
            native: (mark, int(native.partition(".")[2]), _STATES[state])
            for native, state, mark in (row for row in _rows(results, "fake-list") if len(row) == 3)
            if re.fullmatch(_NATIVE, native) and state in _STATES
        }


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _naming(program: str, jobs: Sequence[NativeJob]) -> list[Command]:
    return [Command([program, *(job.id for job in part)]) for part in _chunks(jobs)]


def _rows(results: Results, program: str) -> Iterator[list[str]]:
    """The rows of all answers.

    Raises:
        ResourceError: An answer is missing, or is not that program's.
    """
    if not results:
        raise ResourceError(f"{program} gave no answer")
    for result in results:
        yield from _rows_of(result, program)


def _rows_of(result: CommandResult, program: str) -> list[list[str]]:
    # What follows the last newline is a row that was cut: its last field may be another's.
    *lines, _cut = result.stdout.decode("utf-8", "replace").split("\n")
    if result.returncode != 0 or lines[:1] != [HEADER]:
        said = (result.stderr or result.stdout).decode("utf-8", "replace")
        raise ResourceError(
            f"{program} failed with exit code {result.returncode}"
            if result.returncode
            else f"this is not {program} that answered",
            said=said,
            remedy="see what it said",
        )
    return [line.split("\t") for line in lines[1:] if line]


def _of_jobs(
    jobs: Sequence[NativeJob], results: Results, program: str
) -> Iterator[tuple[NativeJob, tuple[str, str, str, str]]]:
    """The jobs that were asked for and have a row that parses, with the fields after the id."""
    if not jobs:
        return
    wanted = {job.id: job for job in jobs}
    for row in _rows(results, program):
        if len(row) != 5 or row[0] not in wanted:
            continue
        job = wanted[row[0]]
        submitted = _moment(row[2])
        if submitted is None:
            continue
        if abs((submitted - job.submitted_at).total_seconds()) <= _SAME_SUBMIT_S:
            yield job, (row[1], row[2], row[3], row[4])


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _ended(how: str, started: str, ended: str) -> JobDetails | None:
    """What a row says of a job that has ended; None if it does not parse."""
    ending = _ending(how)
    if ending is None:
        return None
    status, exit_code, signal = ending
    return JobDetails(
        status,
        exit_code=exit_code,
        signal=signal,
        native_state=how,
        started_at=_moment(started),
        ended_at=_moment(ended),
    )


def _ending(how: str) -> tuple[JobStatus, int | None, int | None] | None:
    if how == "killed":
        return JobStatus.CANCELLED, None, None
    if how == "lost":
        return JobStatus.FINISHED_UNKNOWN, None, None
    match = _HOW.fullmatch(how)
    if match is None:
        return None
    kind, number = match[1], int(match[2])
    if kind == "signal":
        return (JobStatus.FAILED, None, number) if 1 <= number <= _SIGNAL_MAX else None
    if number > _EXIT_MAX:
        return None
    return (JobStatus.FAILED if number else JobStatus.SUCCESSFUL), number, None
