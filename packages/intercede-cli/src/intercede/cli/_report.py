"""What is known of jobs, in words."""

from __future__ import annotations

from collections.abc import Sequence

from intercede.core import (
    BulkResult,
    JobBackend,
    JobDetails,
    JobID,
    JobOutput,
    SupportsDetails,
)

__all__ = ["details_of", "directory_of", "ending_text", "exit_text"]


async def details_of(ce: JobBackend, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
    """All that the resource can tell of the jobs; where it has no details, their statuses."""
    if isinstance(ce, SupportsDetails):
        return await ce.details(ids)
    statuses = await ce.status(ids)
    return BulkResult(
        {job: JobDetails(status) for job, status in statuses.items()}, statuses.failures
    )


def exit_text(details: JobDetails) -> str:
    """The exit code or the signal; "" where there is neither."""
    if details.signal is not None:
        return f"signal {details.signal}"
    return "" if details.exit_code is None else str(details.exit_code)


def ending_text(details: JobDetails) -> str:
    """How a job ended: `failed, exit code 7 (reason)`."""
    text = str(details.status)
    if details.signal is not None:
        text += f", signal {details.signal}"
    elif details.exit_code:
        text += f", exit code {details.exit_code}"
    if not details.reason or details.reason in text:
        return text
    return f"{text} ({details.reason})"


def directory_of(output: JobOutput) -> str:
    """Where a copy's output is; "" if there is none."""
    path = output.stdout or output.stderr or output.log
    return "" if path is None else str(path.parent)
