"""Killing, with the effect read back; and purging exactly what was named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intercede.core import (
    Command,
    Failure,
    FailureCode,
    JobDetails,
    JobID,
    OpOutcome,
)
from intercede.toolkit import (
    JobParts,
)

from . import _sandbox as sandbox
from ._asking import only_finished, read_queue, resolve
from ._host import Host

__all__ = ["kill_jobs", "purge_jobs"]


async def kill_jobs(
    host: Host,
    parts: dict[JobID, JobParts],
    outcomes: dict[JobID, OpOutcome],
    failures: dict[JobID, Failure],
) -> None:
    script = host.script()
    submissions = dict.fromkeys(part.submission for part in parts.values())
    script.add(sandbox.unknown_submissions(host.name, submissions))
    # Nothing is killed before it is known that all of it is ours.
    script.add('[ -z "$unknown" ] || { frame ended; exit 0; }')
    script.add(sandbox.mark_killed([(p.submission, p.copy) for p in parts.values()]))
    bare = {job: part for job, part in parts.items() if part.native is None}
    jobs = {job: part.native_job for job, part in parts.items() if part.native is not None}
    commands: Sequence[Command] = ()
    if jobs:
        script.run_all("kill", host.scheduler.kill_commands(list(jobs.values())))
        commands = host.scheduler.status_commands(list(jobs.values()))
        script.run_all("status", commands)
    frames = await host.run(script)
    unknown = sandbox.lines_after(frames.lines, "unknown ")
    if unknown or "absent" in frames.lines:
        ours = {}
        for job, part in parts.items():
            if "absent" in frames.lines or part.submission in unknown:
                failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
            else:
                ours[job] = part
        if ours:
            await kill_jobs(host, ours, outcomes, failures)
        return
    said = {
        word: sandbox.lines_after(frames.lines, f"{word} ")
        for word in ("absent", "ended", "marked", "unmarked")
    }
    live, trouble = (
        read_queue(host, list(jobs.values()), frames, "status", len(commands))
        if jobs
        else ({}, None)
    )
    for job, part in parts.items():
        key = f"{part.submission}/{part.copy}"
        if key in said["absent"]:
            failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
        elif key in said["ended"]:
            outcomes[job] = OpOutcome(ok=True, note="it had ended already")
        elif key in said["unmarked"]:
            failures[job] = Failure(
                FailureCode.NOT_NOW, "its sandbox cannot be written; kill it again"
            )
        elif job in bare:
            continue
        elif trouble is not None:
            failures[job] = trouble
        elif (details := live.get(jobs[job])) is not None and not _is_ending(details):
            state = details.native_state or details.status
            failures[job] = Failure(
                FailureCode.NOT_NOW, f"it was told to end and is still {state}; kill it again"
            )
        else:
            note = "it was killed before" if key in said["marked"] else None
            if details is not None and not details.status.is_finished:
                note = "it is ending"
            outcomes[job] = OpOutcome(ok=True, note=note)
    rest = {job: part for job, part in bare.items() if job not in failures and job not in outcomes}
    if rest:
        await _kill_bare(host, rest, outcomes, failures)


def _is_ending(details: JobDetails) -> bool:
    """It has ended, or the scheduler is busy ending it: nothing is left to be killed."""
    return details.status.is_finished or details.ended_at is not None


async def _kill_bare(
    host: Host,
    parts: dict[JobID, JobParts],
    outcomes: dict[JobID, OpOutcome],
    failures: dict[JobID, Failure],
) -> None:
    """Jobs whose native id had to be learnt first."""
    found: dict[JobID, JobDetails] = {}
    trouble: dict[JobID, Failure] = {}
    resolved = await resolve(host, parts, found, trouble)
    for job in parts:
        if job in trouble:
            failures[job] = trouble[job]
        elif job in found and found[job].status.is_finished:
            outcomes[job] = OpOutcome(ok=True, note=found[job].reason)
        elif job in found:
            failures[job] = Failure(
                FailureCode.NOT_NOW, "its submission is under way; kill it again"
            )
    if resolved:
        await kill_jobs(host, resolved, outcomes, failures)


async def purge_jobs(
    host: Host,
    parts: Mapping[JobID, JobParts],
    outcomes: dict[JobID, OpOutcome],
    failures: dict[JobID, Failure],
) -> None:
    """Remove what is kept of the jobs that have ended."""
    undecided = await _purge(host, parts, outcomes, failures, ended=False)
    if undecided:
        finished = await only_finished(host, undecided, failures)
        if finished:
            await _purge(host, finished, outcomes, failures, ended=True)


async def _purge(
    host: Host,
    parts: Mapping[JobID, JobParts],
    outcomes: dict[JobID, OpOutcome],
    failures: dict[JobID, Failure],
    *,
    ended: bool,
) -> dict[JobID, JobParts]:
    """Returns the jobs that have no record of their end."""
    script = host.script()
    jobs = sorted({(part.submission, part.copy) for part in parts.values()})
    script.add(sandbox.purge(jobs, host.name, ended=ended))
    frames = await host.run(script)
    absent = sandbox.lines_after(frames.lines, "absent ")
    removed = sandbox.lines_after(frames.lines, "removed ")
    unended = sandbox.lines_after(frames.lines, "unended ")
    stays = dict(line[6:].partition(" ")[::2] for line in frames.lines if line.startswith("stays "))
    undecided = {}
    for job, part in parts.items():
        key = f"{part.submission}/{part.copy}"
        if key in removed:
            outcomes[job] = OpOutcome(ok=True)
        elif key in absent or "absent" in frames.lines:
            outcomes[job] = OpOutcome(ok=True, note="nothing of it was left")
        elif key in unended:
            undecided[job] = part
        else:
            said = stays.get(key, "the answer says nothing about it") or "rm does not say why"
            failures[job] = Failure(FailureCode.FAILED, f"not all could be removed: {said}")
    return undecided
