"""How many jobs there are, and what they print so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from intercede.core import (
    Diagnostics,
    Failure,
    FailureCode,
    JobCounts,
    JobDetails,
    JobID,
    JobStatus,
)
from intercede.toolkit import (
    Frames,
    JobParts,
)

from . import _sandbox as sandbox
from ._asking import read_queue
from ._host import Host

__all__ = ["count", "diagnose"]

#: How much the tails of one call may have together, in bytes: the answer to one command is bounded.
_ALL_TAILS: Final = 32 * 2**20


async def count(host: Host) -> JobCounts:
    """All unfinished jobs of this resource; see `LoadReporter.counts`."""
    await host.connect()
    script = host.script()
    script.add(sandbox.staged_counts(host.name))
    commands = host.scheduler.list_commands(host.mark())
    script.run_all("list", commands)
    frames = await host.run(script)
    if "absent" in frames.lines:
        return JobCounts(0, 0)
    listed = host.scheduler.parse_list(frames.commands("list", len(commands)))
    marks = {mark for mark, _, _ in listed.values()}
    statuses = [status for _, _, status in listed.values() if not status.is_finished]
    running = statuses.count(JobStatus.RUNNING)
    staged = 0
    for line in sandbox.lines_after(frames.lines, "staged "):
        submission, _, number = line.partition(" ")
        # An attempt that is open may have reached the scheduler already.
        if number.isdigit() and host.mark(submission) not in marks:
            staged += int(number)
    return JobCounts(running, len(statuses) - running + staged)


async def diagnose(
    host: Host, parts: Mapping[JobID, JobParts], failures: dict[JobID, Failure]
) -> dict[JobID, Diagnostics]:
    """The tails of each stream; for a job that waits, the scheduler's reason."""
    await host.connect()
    script = host.script()
    submissions = dict.fromkeys(part.submission for part in parts.values())
    script.add(sandbox.unknown_submissions(host.name, submissions))
    size = max(1, min(host.config.tail_bytes, _ALL_TAILS // (3 * len(parts))))
    script.add(sandbox.tails([(p.submission, p.copy) for p in parts.values()], size))
    jobs = {job: p.native_job for job, p in parts.items() if p.native is not None}
    commands = host.scheduler.status_commands(list(jobs.values())) if jobs else ()
    script.run_all("status", commands)
    frames = await host.run(script)
    unknown = sandbox.lines_after(frames.lines, "unknown ")
    absent = sandbox.lines_after(frames.lines, "absent ")
    live, _ = read_queue(host, list(jobs.values()), frames, "status", len(commands))
    shown = {}
    for job, part in parts.items():
        key = f"{part.submission}/{part.copy}"
        if "absent" in frames.lines or part.submission in unknown or key in absent:
            failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
            continue
        details = live.get(jobs[job]) if job in jobs else None
        if details is None and part.native is None:
            details = JobDetails(JobStatus.PENDING, reason="staged, not submitted")
        shown[job] = _diagnostics(frames, key, details, size)
    return shown


def _diagnostics(frames: Frames, key: str, details: JobDetails | None, size: int) -> Diagnostics:
    tails = {}
    truncated = False
    for stream in ("stdout", "stderr", "log"):
        result = frames.results.get(f"{key}/{stream}")
        tail = b"" if result is None else result.stdout
        truncated = truncated or len(tail) > size
        tails[stream] = tail[-size:]
    if details is not None and details.status is not JobStatus.RUNNING and details.reason:
        tails["log"] = (tails["log"] + f"{details.reason}\n".encode())[-size:]
    return Diagnostics(tails["stdout"], tails["stderr"], tails["log"], truncated)
