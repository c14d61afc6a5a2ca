"""isinstance tells the type checker what a backend can do besides, and what it still is."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

from intercede.core import (
    BulkResult,
    Cancellable,
    Diagnostics,
    Discoverable,
    DryRun,
    JobBackend,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    LoadReporter,
    OpOutcome,
    OutputRetriever,
    Purgeable,
    StatusMap,
    SubmissionSpec,
    SupportsDetails,
    SupportsDryRun,
    SupportsLiveDiagnostics,
    registry,
)


async def use(ce: JobBackend, ids: Sequence[JobID], spec: SubmissionSpec) -> None:
    if isinstance(ce, Cancellable):
        assert_type(await ce.kill(ids), BulkResult[OpOutcome])
        assert_type(await ce.status(ids), StatusMap)
    if isinstance(ce, Purgeable):
        assert_type(await ce.purge(ids), BulkResult[OpOutcome])
    if isinstance(ce, OutputRetriever):
        assert_type(ce.destructive, bool)
        assert_type(await ce.fetch_output(ids, Path()), BulkResult[JobOutput])
    if isinstance(ce, LoadReporter):
        assert_type(await ce.counts(), JobCounts)
    if isinstance(ce, SupportsDetails):
        assert_type(await ce.details(ids), BulkResult[JobDetails])
    if isinstance(ce, SupportsLiveDiagnostics):
        assert_type(await ce.diagnostics(ids), BulkResult[Diagnostics])
    if isinstance(ce, Discoverable):
        assert_type(await ce.find("tag"), tuple[JobHandle, ...])
    if isinstance(ce, SupportsDryRun):
        assert_type(await ce.dry_run(spec, 2), DryRun)
    status = (await ce.status(ids))[ids[0]]
    assert_type(status, JobStatus)


async def main() -> None:
    async with registry.backend({"type": "x"}) as ce:
        assert_type(ce, JobBackend)
        submission = await ce.submit(SubmissionSpec(Path("x")))
        await use(ce, [handle.id for handle in submission.handles], SubmissionSpec("x"))
