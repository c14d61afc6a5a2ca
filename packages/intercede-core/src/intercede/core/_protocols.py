"""What a backend can do.

`JobBackend` is the least; everything else is an ability of its own, and a backend object has exactly those that its combination can
honour, so that `isinstance(backend, Cancellable)` never lies.

Rules that hold for every method (the letters are those of the contract suite):

- Construction does no I/O and needs no event loop (L1); the first use connects (L2); use after `aclose` raises `ClosedError`.
- One backend serves many tasks of one event loop (L3); a cancelled call leaves it usable (L4).
- Every id gets an answer, in `BulkResult`; an empty list costs no I/O (T1); a bare string is a `TypeError`.
- Ids that are unknown, foreign, malformed or hostile fail with NO_SUCH_JOB and reach no shell (T2).
- What fails for one job fails in the result. What fails for all raises an `InterCEdeError` that names resource, operation, remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from ._jobs import BulkResult, JobID, StatusMap
from ._spec import CopyVars, JobHandle, Submission, SubmissionSpec

if TYPE_CHECKING:
    from pathlib import Path

    from ._results import Diagnostics, DryRun, JobCounts, JobDetails, JobOutput, OpOutcome

__all__ = [
    "Cancellable",
    "Discoverable",
    "JobBackend",
    "LoadReporter",
    "Managed",
    "Monitor",
    "OutputRetriever",
    "Purgeable",
    "Submitter",
    "SupportsDetails",
    "SupportsDryRun",
    "SupportsLiveDiagnostics",
]


class Managed(Protocol):
    """Opened and closed, possibly in different tasks of one event loop (L5)."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def aclose(self) -> None:
        """Let go of connections. Idempotent. Jobs are not affected."""
        ...


@runtime_checkable
class Submitter(Protocol):
    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        """Stage the sandbox and submit the copies, as one.

        When it returns, the caller may delete every input (S3). A call that is cancelled may have submitted: `find` by tag tells.

        Args:
            spec: What to run.
            copies: How many, or what differs between them.

        Returns:
            Every copy, once: with a handle, or with a failure (S1).

        Raises:
            SpecRefused: It cannot be honoured; nothing was sent (S6).
            SubmitUncertain: It may have arrived; has the handles. Do not submit again.
            TransportError, AuthenticationError, ResourceError: Nothing was submitted.
        """
        ...


@runtime_checkable
class Monitor(Protocol):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        """Where the jobs are.

        UNKNOWN comes with a failure: NO_SUCH_JOB, or NOT_NOW when the resource could not tell. Absence alone is never "finished" (T5).

        Raises:
            TransportError, AuthenticationError, ResourceError: Nothing could be learnt about any of them.
        """
        ...


@runtime_checkable
class JobBackend(Submitter, Monitor, Managed, Protocol):
    """The least that a resource can do."""


@runtime_checkable
class OutputRetriever(Protocol):
    @property
    def destructive(self) -> bool:
        """True if a fetch removes the output at the resource, so that it succeeds once only."""
        ...

    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        """Bring the output of finished jobs to `dest/<submission>/<copy>/`.

        A job's directory appears whole or not at all; an older one is replaced. An unfinished job fails with NOT_FINISHED (F6), one
        over a limit with LIMIT and leaves nothing behind (F3). Members that are not plain files inside the work directory are left
        out and the job has a failure UNSAFE beside its files (F4).

        Args:
            ids: The jobs.
            dest: A directory; made if absent.

        Raises:
            OSError: `dest` cannot be written at all.
            TransportError, AuthenticationError, ResourceError: Nothing could be fetched.
        """
        ...


@runtime_checkable
class Cancellable(Protocol):
    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """End the jobs with all their processes; they become CANCELLED (K1).

        A finished job succeeds with a note; an unknown one fails. The effect was read back (K2).
        """
        ...


@runtime_checkable
class Purgeable(Protocol):
    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """Remove all that the resource still keeps of finished jobs, and of nothing else (P1).

        Twice is harmless (P2); then the job is NO_SUCH_JOB (P3); an unfinished job is refused with NOT_FINISHED (P4).
        """
        ...


@runtime_checkable
class LoadReporter(Protocol):
    async def counts(self) -> JobCounts:
        """All unfinished jobs of this resource's name, and nobody else's (C1).

        Raises:
            TransportError, AuthenticationError, ResourceError: It could not be counted; zero is never a guess.
        """
        ...


@runtime_checkable
class SupportsLiveDiagnostics(Protocol):
    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        """The tails of the output so far; for a job that has not started, why (D1). Repeatable, bounded, changes nothing."""
        ...


@runtime_checkable
class SupportsDetails(Protocol):
    async def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        """All that is known of the jobs: exit code, signal, reason, times, node."""
        ...


@runtime_checkable
class Discoverable(Protocol):
    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        """The handles of exactly the jobs that submits with this tag made, also of what was staged and never submitted (S7)."""
        ...


@runtime_checkable
class SupportsDryRun(Protocol):
    async def dry_run(self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1) -> DryRun:
        """What `submit` would send, after the same checks. Changes nothing.

        Raises:
            SpecRefused: As `submit` would.
        """
        ...
