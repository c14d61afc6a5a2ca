"""Any transport with any scheduler.

Each call is one script on the host (two for a submit), made of the texts in `_sandbox` and of the scheduler's own commands; what comes
back is parsed by pure functions. Nothing is remembered between calls but the answer of the probe: what there is to know lies in the
sandbox and in the scheduler, so that any process with the same configuration knows it too.
"""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from intercede.core import (
    BulkResult,
    ConfigurationError,
    CopyVars,
    Diagnostics,
    DryRun,
    Failure,
    InterCEdeError,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    OpOutcome,
    Scheduler,
    StatusMap,
    Submission,
    SubmissionSpec,
    Transport,
    distinct_ids,
    expand_copies,
)
from intercede.toolkit import (
    JobParts,
    Lifetime,
)

from ._asking import ask_details, parse_ids
from ._config import BatchConfig
from ._ending import kill_jobs, purge_jobs
from ._host import Host
from ._retrieving import fetch_jobs
from ._submitting import dry_run, find, submit
from ._watching import count, diagnose

__all__ = ["BatchBackend"]

_Act = Callable[
    [Host, dict[JobID, JobParts], dict[JobID, OpOutcome], dict[JobID, Failure]], Awaitable[None]
]


class BatchBackend:
    """Runs jobs through a scheduler's commands on a host.

    Everything a backend can do, it can with any transport and scheduler. Secrets of a copy travel in the staging stream, as files of mode
    0600, and pass nowhere else (S5).

    Args:
        config: Where and how long.
        name: The resource's name in job ids.
        transport: Opened at the first use, closed with the backend.
        scheduler: Its language.

    Raises:
        ConfigurationError: The scheduler carries its files itself, which needs another backend.
    """

    def __init__(
        self, config: BatchConfig, name: str, transport: Transport, scheduler: Scheduler
    ) -> None:
        if scheduler.stages_own_files:
            raise ConfigurationError(
                "this scheduler carries its files itself, and batch keeps them in a sandbox",
                path="scheduler",
            )
        self._name = name
        self._host = Host(config, name, transport, scheduler)
        self._lifetime = Lifetime(f"the backend {name!r}")

    def __repr__(self) -> str:
        return f"<BatchBackend {self._name!r}>"

    async def __aenter__(self) -> Self:
        self._lifetime.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the transport. Idempotent; jobs are not affected."""
        if self._lifetime.close():
            await self._host.aclose()

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        """Every error names the resource and the operation."""
        try:
            self._lifetime.check()
            yield
        except InterCEdeError as error:
            error.at(self._name, name)
            raise

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        """Stage the sandbox, then submit; see `Submitter.submit`."""
        with self._operation("submit"):
            return await submit(self._host, spec, expand_copies(copies))

    async def dry_run(self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1) -> DryRun:
        """What `submit` would send; see `SupportsDryRun.dry_run`."""
        with self._operation("dry_run"):
            return await dry_run(self._host, spec, expand_copies(copies))

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        """The jobs that submits with this tag made; see `Discoverable.find`."""
        with self._operation("find"):
            return await find(self._host, tag)

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        """Where the jobs are; see `Monitor.status`."""
        with self._operation("status"):
            details, failures = await ask_details(self._host, ids)
            return BulkResult({job: d.status for job, d in details.items()}, failures)

    async def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        """All that is known of the jobs; see `SupportsDetails.details`."""
        with self._operation("details"):
            return BulkResult(*await ask_details(self._host, ids))

    @property
    def destructive(self) -> bool:
        """False: the output stays until it is purged."""
        return False

    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        """Bring the output of finished jobs here; see `OutputRetriever.fetch_output`."""
        with self._operation("fetch_output"):
            asked = distinct_ids(ids)
            parts, failures = parse_ids(self._host, asked)
            outputs = await fetch_jobs(self._host, parts, Path(dest), failures) if parts else {}
            return BulkResult(
                {job: outputs.get(job) or JobOutput(failure=failures[job]) for job in asked},
                {job: failures[job] for job in asked if job in failures},
            )

    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """End the jobs; see `Cancellable.kill`."""
        with self._operation("kill"):
            return await self._each(ids, kill_jobs)

    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """Remove what is kept of finished jobs; see `Purgeable.purge`."""
        with self._operation("purge"):
            return await self._each(ids, purge_jobs)

    async def _each(self, ids: Sequence[JobID], act: _Act) -> BulkResult[OpOutcome]:
        """Do something to each job that may be ours."""
        asked = distinct_ids(ids)
        parts, failures = parse_ids(self._host, asked)
        outcomes: dict[JobID, OpOutcome] = {}
        if parts:
            await self._host.connect()
            await act(self._host, parts, outcomes, failures)
        outcomes |= {job: OpOutcome(ok=False, failure=why) for job, why in failures.items()}
        return BulkResult(
            {job: outcomes[job] for job in asked},
            {job: failures[job] for job in asked if job in failures},
        )

    async def counts(self) -> JobCounts:
        """All unfinished jobs of this resource; see `LoadReporter.counts`."""
        with self._operation("counts"):
            return await count(self._host)

    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        """The tails of the output so far; see `SupportsLiveDiagnostics.diagnostics`."""
        with self._operation("diagnostics"):
            asked = distinct_ids(ids)
            parts, failures = parse_ids(self._host, asked)
            shown = await diagnose(self._host, parts, failures) if parts else {}
            return BulkResult(
                {job: shown.get(job, Diagnostics()) for job in asked},
                {job: failures[job] for job in asked if job in failures},
            )
