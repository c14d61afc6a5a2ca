"""The values of the answers, one class per question: what was fetched, what became of a kill, what is known.

Consumers are handed these and plugins make them; a program that only submits and polls never imports them, nor pathlib.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from attrs import field, frozen

from ._fields import flag, instance, many, optional, table, text, whole_number
from ._jobs import Failure, JobStatus, as_optional_utc

__all__ = ["Diagnostics", "DryRun", "JobCounts", "JobDetails", "JobOutput", "OpOutcome"]


@frozen
class OpOutcome:
    """What became of a kill or a purge, for one job.

    Attributes:
        ok: The effect was seen, or there was nothing to do.
        note: What else is worth knowing, such as "already finished".
        failure: Why not; exactly when `ok` is False.

    Raises:
        ValueError: `ok` and `failure` contradict each other.
    """

    ok: bool = field(validator=flag)
    note: str | None = field(default=None, validator=optional(text))
    failure: Failure | None = field(default=None, validator=optional(instance(Failure)))

    def __attrs_post_init__(self) -> None:
        if self.ok == (self.failure is not None):
            raise ValueError("an outcome has a failure exactly when it is not ok")


def _files(values: Mapping[str, Path]) -> Mapping[str, Path]:
    return table(Path, values, "files")


def _patterns(values: Iterable[str]) -> tuple[str, ...]:
    return many(str, values, "missing")


@frozen
class JobOutput:
    """What was fetched for one job. Every path lies beneath the `dest` of the call.

    Attributes:
        stdout: The payload's standard output; None if there was none to fetch.
        stderr: Likewise its standard error.
        log: The scheduler's own words about the job.
        files: The payload's files, by their name in the work directory.
        missing: Patterns that were declared and matched nothing.
        failure: Why the output is not, or not all, here.
    """

    stdout: Path | None = field(default=None, validator=optional(instance(Path)))
    stderr: Path | None = field(default=None, validator=optional(instance(Path)))
    log: Path | None = field(default=None, validator=optional(instance(Path)))
    files: Mapping[str, Path] = field(factory=dict, converter=_files, hash=False)
    missing: tuple[str, ...] = field(default=(), converter=_patterns)
    failure: Failure | None = field(default=None, validator=optional(instance(Failure)))


@frozen
class Diagnostics:
    """The last bytes of a job's output, now.

    Attributes:
        stdout_tail: The end of the payload's standard output, bounded by the backend's limit.
        stderr_tail: The end of its standard error.
        log_tail: The end of what the scheduler says of the job; for a job that has not started, why.
        truncated: At least one of them is longer than what is here.
    """

    stdout_tail: bytes = field(default=b"", validator=instance(bytes))
    stderr_tail: bytes = field(default=b"", validator=instance(bytes))
    log_tail: bytes = field(default=b"", validator=instance(bytes))
    truncated: bool = field(default=False, validator=flag)


@frozen
class JobCounts:
    """How many unfinished jobs a resource has from us.

    Attributes:
        running: Started and not ended.
        waiting: Every other unfinished job of this resource name, held and staging included.
    """

    running: int = field(validator=whole_number(0))
    waiting: int = field(validator=whole_number(0))


@frozen
class JobDetails:
    """All that is known of one job now. What is absent stays None.

    Attributes:
        status: As `status` would tell.
        exit_code: 0 to 255, once the payload has ended by itself.
        signal: The number of the signal that ended the payload, 1 or more.
        native_state: The scheduler's own word for the state.
        reason: Why it waits, is held or has failed, in the scheduler's words or ours.
        started_at: When the payload started, UTC.
        ended_at: When it ended, UTC.
        node: Where it runs or ran.

    Raises:
        ValueError: A number is out of its range, or a moment has no time zone.
    """

    status: JobStatus = field(converter=JobStatus)
    exit_code: int | None = field(default=None, validator=optional(whole_number(0, 255)))
    signal: int | None = field(default=None, validator=optional(whole_number(1)))
    native_state: str | None = field(default=None, validator=optional(text))
    reason: str | None = field(default=None, validator=optional(text))
    started_at: datetime | None = field(default=None, converter=as_optional_utc)
    ended_at: datetime | None = field(default=None, converter=as_optional_utc)
    node: str | None = field(default=None, validator=optional(text))


def _details(values: Mapping[str, str]) -> Mapping[str, str]:
    return table(str, values, "details")


def _generated(values: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return table(bytes, values, "files")


@frozen
class DryRun:
    """What `submit` would have sent.

    Attributes:
        command: The scheduler's command, for people.
        files: The generated files, by their name in the sandbox, the commands' inputs among them; secrets are blanked.
        details: Whatever else is worth showing.
    """

    command: str = field(validator=text)
    files: Mapping[str, bytes] = field(factory=dict, converter=_generated, hash=False)
    details: Mapping[str, str] = field(factory=dict, converter=_details, hash=False)
