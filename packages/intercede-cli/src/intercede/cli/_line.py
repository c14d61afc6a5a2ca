"""A line to one resource through the facade: every answer has its time, and any thread may stop it.

The facade gets an event loop of its own for each line. Closing that breaks off what is under way, as any cancelled call is broken off: the
resource stays usable and nothing of the call is left. The next call opens a new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from intercede import sync
from intercede.core import (
    BulkResult,
    ClosedError,
    Diagnostics,
    DryRun,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    OpOutcome,
    Submission,
    SubmissionSpec,
)

from ._configuration import Configuration

__all__ = ["Late", "Line", "Stopped"]

T = TypeVar("T")
_Open: TypeAlias = tuple[sync.Loop, sync.CredentialProvider, sync.JobBackend]

#: However late it is, an answer may take so long.
_ANSWER_S: Final = 5.0


class Late(Exception):
    """The answer did not come in its time, and the call was broken off."""


class Stopped(Exception):
    """`stop` was called."""


class Line:
    """Used by one thread; `stop` is for any.

    Args:
        configuration: Where the resource is described.
        resource: Its name.
    """

    def __init__(self, configuration: Configuration, resource: str) -> None:
        self._configuration = configuration
        self._resource = resource
        self._deadline = 0.0
        self._stopped = threading.Event()
        #: For what follows.
        self._lock = threading.Lock()
        self._shielded = False
        self._clearing = False
        self._abandoned = False
        self._open: _Open | None = None

    # ------------------------------------------------------------ time

    def allow(self, seconds: float) -> None:
        """From now on answers and waiting may take so long, all together; an answer always has 5 s."""
        self._deadline = time.monotonic() + seconds

    @property
    def late(self) -> bool:
        """The time is over."""
        return time.monotonic() >= self._deadline

    def pause(self, seconds: float) -> None:
        """Wait, not longer than there is time.

        Raises:
            Stopped: Meanwhile, or before.
        """
        if self._stopped.wait(max(min(seconds, self._deadline - time.monotonic()), 0)):
            raise Stopped

    # ------------------------------------------------------------ life

    def open(self) -> sync.JobBackend:
        """The backend, for what is known of it without asking.

        Raises:
            ConfigurationError, PluginError: The table makes none.
        """
        return self._opened()[-1]

    def stop(self) -> None:
        """Let nothing more begin, and break off what is under way, unless it is shielded. Returns when that has ended."""
        with self._lock:
            if self._clearing:
                return
            self._stopped.set()
            opened = None if self._shielded else self._taken()
        _close(opened)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """What is under way in the block is not broken off by `stop`, only by time."""
        with self._lock:
            self._shielded = True
        try:
            yield
        finally:
            with self._lock:
                self._shielded = False

    def clear_up(self) -> None:
        """From now on no stop counts, neither an earlier one nor one that comes."""
        with self._lock:
            if not self._abandoned:
                self._clearing = True
                self._stopped.clear()

    def abandon(self) -> None:
        """Nobody waits any more: let nothing more begin, not even what clears up."""
        with self._lock:
            self._abandoned = True
            self._stopped.set()

    def check(self) -> None:
        """Return if there is leave to go on.

        Raises:
            Stopped: There is none.
        """
        if self._stopped.is_set():
            raise Stopped

    def close(self) -> None:
        """Break off what is under way, and let go of the connection."""
        with self._lock:
            opened = self._taken()
        _close(opened)

    # ------------------------------------------------------------ calls

    def submit(self, spec: SubmissionSpec) -> Submission:
        """One copy. As `Submitter.submit`."""
        return self._call(lambda ce: ce.submit(spec))

    def dry_run(self, spec: SubmissionSpec) -> DryRun:
        """As `SupportsDryRun.dry_run`."""

        def ask(ce: sync.JobBackend) -> DryRun:
            assert isinstance(ce, sync.SupportsDryRun)
            return ce.dry_run(spec)

        return self._call(ask)

    def find(self, tag: str) -> tuple[JobHandle, ...]:
        """As `Discoverable.find`."""

        def ask(ce: sync.JobBackend) -> tuple[JobHandle, ...]:
            assert isinstance(ce, sync.Discoverable)
            return ce.find(tag)

        return self._call(ask)

    def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        """All that the resource can tell; where it has no details, the statuses."""

        def ask(ce: sync.JobBackend) -> BulkResult[JobDetails]:
            if isinstance(ce, sync.SupportsDetails):
                return ce.details(ids)
            statuses = ce.status(ids)
            return BulkResult(
                {job: JobDetails(status) for job, status in statuses.items()}, statuses.failures
            )

        return self._call(ask)

    def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        """As `SupportsLiveDiagnostics.diagnostics`."""

        def ask(ce: sync.JobBackend) -> BulkResult[Diagnostics]:
            assert isinstance(ce, sync.SupportsLiveDiagnostics)
            return ce.diagnostics(ids)

        return self._call(ask)

    def counts(self) -> JobCounts:
        """As `LoadReporter.counts`."""

        def ask(ce: sync.JobBackend) -> JobCounts:
            assert isinstance(ce, sync.LoadReporter)
            return ce.counts()

        return self._call(ask)

    def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        """As `OutputRetriever.fetch_output`."""

        def ask(ce: sync.JobBackend) -> BulkResult[JobOutput]:
            assert isinstance(ce, sync.OutputRetriever)
            return ce.fetch_output(ids, dest)

        return self._call(ask)

    def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """As `Cancellable.kill`."""

        def ask(ce: sync.JobBackend) -> BulkResult[OpOutcome]:
            assert isinstance(ce, sync.Cancellable)
            return ce.kill(ids)

        return self._call(ask)

    def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """As `Purgeable.purge`."""

        def ask(ce: sync.JobBackend) -> BulkResult[OpOutcome]:
            assert isinstance(ce, sync.Purgeable)
            return ce.purge(ids)

        return self._call(ask)

    def _call(self, ask: Callable[[sync.JobBackend], T]) -> T:
        """Ask, within the time that is left.

        Raises:
            Late: It took longer.
            Stopped: Meanwhile, or before.
        """
        self.check()
        loop, _, ce = self._opened()
        timer = threading.Timer(max(self._deadline - time.monotonic(), _ANSWER_S), self.close)
        timer.daemon = True
        timer.start()
        try:
            return ask(ce)
        except ClosedError:
            if self._is_open(loop):
                raise
            raise (Stopped if self._stopped.is_set() else Late) from None
        finally:
            timer.cancel()

    def _opened(self) -> _Open:
        with self._lock:
            if self._open is None:
                loop = sync.Loop()
                files = self._configuration.credentials(self._resource)
                backend = self._configuration.backend(self._resource, files)
                # Opened here, closed with the loop; nothing has to be undone if the table makes no backend.
                credentials = sync.synchronous(files, loop=loop).__enter__()
                self._open = loop, credentials, sync.synchronous(backend, loop=loop)
            return self._open

    def _taken(self) -> _Open | None:
        opened, self._open = self._open, None
        return opened

    def _is_open(self, loop: sync.Loop) -> bool:
        with self._lock:
            return self._open is not None and self._open[0] is loop


def _close(opened: _Open | None) -> None:
    if opened is not None:
        opened[0].close()
