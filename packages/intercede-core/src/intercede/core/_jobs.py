"""What comes back, per job.

Every bulk call answers with a `BulkResult`: one entry per distinct id, also for those that failed. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import NewType, TypeVar

from attrs import field, frozen

from ._errors import PartialFailure
from ._fields import text

__all__ = [
    "BulkResult",
    "Failure",
    "FailureCode",
    "JobID",
    "JobStatus",
    "StatusMap",
    "distinct_ids",
]

V_co = TypeVar("V_co", covariant=True)

JobID = NewType("JobID", str)
"""Names one job and carries its routing: `<resource>/<submission>/<copy>[/<native>]`.

Each part consists of `[A-Za-z0-9._:@+-]`; all of it has at most 255 characters. Opaque to callers: keep it, hand it back. A backend
trusts nothing in it, since it has been in somebody's database.
"""


class JobStatus(StrEnum):
    """Where a job is. Never guessed: what a backend cannot tell is UNKNOWN, with a failure that says why."""

    PENDING = "pending"
    """Accepted, or staged, and not started."""
    HELD = "held"
    """Will not start or go on until somebody acts. Reported, not acted on."""
    RUNNING = "running"
    SUCCESSFUL = "successful"
    """The payload ended with exit code 0."""
    FAILED = "failed"
    """The payload ended otherwise: another exit code, a signal, a limit."""
    CANCELLED = "cancelled"
    """Ended because we killed it."""
    FINISHED_UNKNOWN = "finished-unknown"
    """It is over, and how it ended can no longer be learnt."""
    UNKNOWN = "unknown"
    """Could not be told: never finished. The failure's code is NO_SUCH_JOB or NOT_NOW."""

    @property
    def is_finished(self) -> bool:
        """True if this status is final: it never changes until the job is purged."""
        return self in _FINISHED


#: No set: an enum's hash is a Python function, and thousands of jobs are asked.
_FINISHED = (
    JobStatus.SUCCESSFUL,
    JobStatus.FAILED,
    JobStatus.CANCELLED,
    JobStatus.FINISHED_UNKNOWN,
)


class FailureCode(StrEnum):
    """Why one job's part of a call failed, for programs to decide on."""

    NO_SUCH_JOB = "no-such-job"
    """Unknown, purged, another resource's, or not an id at all."""
    NOT_NOW = "not-now"
    """The resource could not tell; ask again."""
    NOT_FINISHED = "not-finished"
    """The job must have ended first."""
    REFUSED = "refused"
    """The resource said no."""
    LIMIT = "limit"
    """A limit on bytes, files or seconds was reached."""
    UNSAFE = "unsafe"
    """What came back would have left its place: a name, a link, a device."""
    FAILED = "failed"
    """Anything else; the message has the words."""


@frozen
class Failure:
    """What went wrong for one job.

    Attributes:
        code: For programs.
        message: For people: what was found, and what to do.
    """

    code: FailureCode = field(converter=FailureCode)
    message: str = field(validator=text)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def distinct_ids(ids: Iterable[JobID]) -> tuple[JobID, ...]:
    """The distinct ids in the order in which they were given, as every bulk call needs them.

    Raises:
        TypeError: A bare string was given (it would be taken letter by letter), or something that is not a string is among them.
    """
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"ids must be a sequence of job ids, not one string: write [{ids!r}]")
    distinct = tuple(dict.fromkeys(ids))
    for job in distinct:
        if not isinstance(job, str):
            raise TypeError(f"a job id is a string, not {type(job).__name__}: {job!r}")
    return distinct


class BulkResult(Mapping[JobID, V_co]):
    """The answer of a bulk call: exactly one entry per distinct id asked for, in that order.

    An id that failed has an entry too (for a status, UNKNOWN) and its reason stands in `failures`.

    Args:
        entries: By id.
        failures: By id; each id also has an entry.

    Raises:
        ValueError: A failure has no entry.
    """

    __slots__ = ("_entries", "_failures")

    def __init__(
        self,
        entries: Mapping[JobID, V_co],
        failures: Mapping[JobID, Failure] | None = None,
    ) -> None:
        self._entries = dict(entries)
        self._failures = dict(failures or {})
        orphans = [job for job in self._failures if job not in self._entries]
        if orphans:
            raise ValueError(f"failures without an entry: {orphans[:3]}")

    def __getitem__(self, job: JobID) -> V_co:
        return self._entries[job]

    def __iter__(self) -> Iterator[JobID]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"BulkResult({self._entries!r}, failures={self._failures!r})"

    @property
    def failures(self) -> Mapping[JobID, Failure]:
        """What failed, by id. Empty when everything went well."""
        return dict(self._failures)

    def raise_for_failures(self) -> None:
        """Do nothing if nothing failed.

        Raises:
            PartialFailure: At least one id failed.
        """
        if self._failures:
            raise PartialFailure(self._failures)


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        TypeError: Not a datetime.
        ValueError: It has no time zone, so that it names no moment.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"expected a datetime, not {type(moment).__name__}")
    if moment.tzinfo is None:
        raise ValueError("a datetime without a time zone names no moment; give it UTC")
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} has no equivalent in UTC") from None


def as_optional_utc(moment: datetime | None) -> datetime | None:
    """`as_utc`, where there may be none."""
    return None if moment is None else as_utc(moment)


StatusMap = BulkResult[JobStatus]
"""What `Monitor.status` returns."""
