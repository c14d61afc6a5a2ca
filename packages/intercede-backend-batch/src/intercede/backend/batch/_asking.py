"""Where jobs are: the queue is asked; for what has left it, the sandbox, and where that is silent the history.

Absence is only believed of an answer that parses (T5), and only of an id that was parsed in full (T2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from attrs import evolve

from intercede.core import (
    Command,
    Failure,
    FailureCode,
    JobDetails,
    JobID,
    JobStatus,
    NativeJob,
    ResourceError,
    SubmissionSpec,
    distinct_ids,
)
from intercede.toolkit import (
    Frames,
    JobParts,
)

from . import _sandbox as sandbox
from ._attempts import Attempts, read_frames, read_natives
from ._host import Host
from ._verdict import End, parse_ends, verdict, write_word

__all__ = [
    "ask_details",
    "only_finished",
    "parse_ids",
    "read_queue",
    "resolve",
]

#: Attempts after which the scheduler knows of no job.
_NOT_SUBMITTED: Final = (sandbox.ATTEMPT_STAGED, sandbox.ATTEMPT_CANCELLED)


def parse_ids(
    host: Host, ids: Iterable[JobID]
) -> tuple[dict[JobID, JobParts], dict[JobID, Failure]]:
    """Ids that may be ours, and why the others are not (T2). No I/O."""
    parts: dict[JobID, JobParts] = {}
    failures: dict[JobID, Failure] = {}
    for job in ids:
        read = host.read_id(job)
        if isinstance(read, str):
            failures[job] = Failure(FailureCode.NO_SUCH_JOB, read)
        else:
            parts[job] = read
    return parts, failures


async def ask_details(
    host: Host, ids: Sequence[JobID]
) -> tuple[dict[JobID, JobDetails], dict[JobID, Failure]]:
    """Ask the queue; then, for what has left it, the sandbox and the history."""
    asked = distinct_ids(ids)
    parts, failures = parse_ids(host, asked)
    found: dict[JobID, JobDetails] = {}
    if parts:
        await host.connect()
        parts = await resolve(host, parts, found, failures)
    if parts:
        left, told = await _ask_queue(host, parts, found, failures)
        if left:
            await _ask_ends(host, left, told, found, failures)
    nothing = JobDetails(JobStatus.UNKNOWN)
    return (
        {job: found.get(job, nothing) for job in asked},
        {job: failures[job] for job in asked if job in failures},
    )


async def resolve(
    host: Host,
    parts: dict[JobID, JobParts],
    found: dict[JobID, JobDetails],
    failures: dict[JobID, Failure],
) -> dict[JobID, JobParts]:
    """Learn the native ids of jobs whose handle has none: their submitter died, or was left uncertain.

    Returns:
        The jobs that have a native id; the others are in `found` or `failures`.
    """
    bare = {job: part for job, part in parts.items() if part.native is None}
    if not bare:
        return parts
    script = host.script()
    script.add(sandbox.read_attempts(dict.fromkeys(p.submission for p in bare.values())))
    listing = host.scheduler.list_commands(host.mark())
    script.run_all("list", listing)
    script.add(
        sandbox.read_ends(
            ((p.submission, p.copy) for p in bare.values()), host.config.grace_s, left=False
        )
    )
    frames = await host.run(script)
    attempts = read_frames(frames)
    listed, trouble = _read_list(host, frames, len(listing))
    unlisted: dict[JobID, JobParts] = {}
    ends = parse_ends(frames.lines)
    natives: dict[str, Mapping[int, str | Failure]] = {}
    resolved = {job: part for job, part in parts.items() if part.native is not None}
    for job, part in bare.items():
        end = ends.get((part.submission, part.copy))
        state = attempts.states.get(part.submission)
        if state is None or end is None or not end.present:
            failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such submission is here")
            continue
        if part.submission not in natives:
            natives[part.submission] = _learn(host, part.submission, attempts, listed)
        native = natives[part.submission].get(part.copy)
        if isinstance(native, str):
            resolved[job] = evolve(part, native=native)
        elif isinstance(native, Failure):
            found[job] = JobDetails(JobStatus.FAILED, reason=f"not submitted: {native.message}")
        elif trouble is not None and not (end.written or end.lost) and state not in _NOT_SUBMITTED:
            failures[job] = trouble
        elif end.decided:
            found[job] = _details_or(verdict(end, None, host.config.grace_s), failures, job)
        elif state == sandbox.ATTEMPT_STAGED:
            found[job] = JobDetails(
                JobStatus.PENDING,
                reason="staged, and not submitted: kill and purge it, or wait",
            )
        elif state == sandbox.ATTEMPT_OPEN:
            failures[job] = Failure(
                FailureCode.NOT_NOW,
                "its submission is under way, and the scheduler's answer not known",
            )
        else:
            unlisted[job] = part
    if unlisted:
        await _ask_unlisted(host, unlisted, found, failures)
    return resolved


async def _ask_unlisted(
    host: Host,
    unlisted: Mapping[JobID, JobParts],
    found: dict[JobID, JobDetails],
    failures: dict[JobID, Failure],
) -> None:
    """Jobs whose submission broke off, and which the scheduler does not list: how long has that been so?"""
    script = host.script()
    script.add(
        sandbox.read_ends(
            ((part.submission, part.copy) for part in unlisted.values()), host.config.grace_s
        )
    )
    ends = parse_ends((await host.run(script)).lines)
    for job, part in unlisted.items():
        end = ends.get((part.submission, part.copy))
        if end is not None and end.lost:
            found[job] = JobDetails(
                JobStatus.FINISHED_UNKNOWN,
                reason="its submission broke off, and the scheduler does not know it",
            )
        else:
            failures[job] = Failure(
                FailureCode.NOT_NOW,
                "its submission broke off, and the scheduler does not list it yet",
            )


def _read_list(
    host: Host, frames: Frames, count: int
) -> tuple[Mapping[str, Mapping[int, str]], Failure | None]:
    """By mark and copy the native ids that the scheduler lists; or why nothing is known of any (T5).

    Which copy a job is, only its row can tell: some may have left the queue already. A copy that two rows claim is neither's.
    """
    try:
        rows = host.scheduler.parse_list(frames.commands("list", count))
    except ResourceError as error:
        return {}, Failure(FailureCode.NOT_NOW, f"the scheduler's list could not be read: {error}")
    claims: dict[str, dict[int, list[str]]] = {}
    for native, (mark, copy, _) in rows.items():
        if copy is not None and host.native_id.fullmatch(native):
            claims.setdefault(mark, {}).setdefault(copy, []).append(native)
    return {
        mark: {copy: natives[0] for copy, natives in copies.items() if len(natives) == 1}
        for mark, copies in claims.items()
    }, None


def _learn(
    host: Host, submission: str, attempts: Attempts, listed: Mapping[str, Mapping[int, str]]
) -> Mapping[int, str | Failure]:
    """The native ids of a submission, from its attempt's answer or, if that is missing, from the scheduler's list."""
    batch = host.batch(submission, SubmissionSpec("unknown"), attempts.totals[submission])
    if attempts.states[submission] == sandbox.ATTEMPT_DONE:
        with suppress(ResourceError):
            return read_natives(host, batch, attempts)
    if attempts.states[submission] in _NOT_SUBMITTED:
        return {}
    return listed.get(batch.mark, {})


async def _ask_queue(
    host: Host,
    parts: Mapping[JobID, JobParts],
    found: dict[JobID, JobDetails],
    failures: dict[JobID, Failure],
) -> tuple[dict[JobID, JobParts], dict[JobID, JobDetails]]:
    """Look the jobs up in the queue. Returns those that have left it, and what it still tells of their end."""
    script = host.script()
    script.add(
        sandbox.unknown_submissions(
            host.name, dict.fromkeys(part.submission for part in parts.values())
        )
    )
    jobs = {job: part.native_job for job, part in parts.items()}
    commands = host.scheduler.status_commands(list(jobs.values()))
    script.run_all("status", commands)
    frames = await host.run(script)
    if "absent" in frames.lines:
        unknown = {part.submission for part in parts.values()}
    else:
        unknown = {line[8:] for line in frames.lines if line.startswith("unknown ")}
    if unknown:
        lost = [job for job, part in parts.items() if part.submission in unknown]
        failures |= dict.fromkeys(
            lost, Failure(FailureCode.NO_SUCH_JOB, "no such submission is here")
        )
        for job in lost:
            del jobs[job]
    if not jobs:
        return {}, {}
    live, trouble = read_queue(host, list(jobs.values()), frames, "status", len(commands))
    if trouble is not None:
        failures |= dict.fromkeys(jobs, trouble)
        return {}, {}
    left = {}
    told = {}
    unknown_status = JobStatus.UNKNOWN  # a look-up of its own in Python 3.11
    for job, details in zip(jobs, map(live.get, jobs.values()), strict=True):
        if details is None:
            left[job] = parts[job]
        elif details.status.is_finished:
            left[job], told[job] = parts[job], details
        elif details.status is unknown_status:
            failures[job] = Failure(FailureCode.NOT_NOW, details.reason or "ask again")
        else:
            found[job] = details
    return left, told


def read_queue(
    host: Host, jobs: Sequence[NativeJob], frames: Frames, prefix: str, count: int
) -> tuple[Mapping[NativeJob, JobDetails], Failure | None]:
    """The jobs in the queue; or why nothing is known of any: absence is only believed of an answer that parses (T5)."""
    if not jobs:
        return {}, None
    try:
        results = frames.commands(prefix, count)
        return host.scheduler.parse_status(jobs, results), None
    except ResourceError as error:
        return {}, Failure(FailureCode.NOT_NOW, f"the queue could not be read: {error}")


async def _ask_ends(
    host: Host,
    left: Mapping[JobID, JobParts],
    told: Mapping[JobID, JobDetails],
    found: dict[JobID, JobDetails],
    failures: dict[JobID, Failure],
) -> None:
    """Learn how jobs that left the queue ended; the history is only asked if nothing else tells.

    What the history tells, or that it does not, is written down in one more exec, the first time only.
    """
    untold = {job: part.native_job for job, part in left.items() if job not in told}
    commands = host.scheduler.history_commands(list(untold.values())) if untold else ()
    ends, frames = await _read_ends(host, left, told, commands)
    words = dict(told)
    trouble = ""
    if commands and "history0" in frames.results:
        undecided = {
            job: native
            for job, native in untold.items()
            if (end := ends.get(_copy_of(left[job]))) is not None and not end.decided
        }
        try:
            results = frames.commands("history", len(commands))
            history = host.scheduler.parse_history(list(untold.values()), results)
        except ResourceError as error:
            history = {}
            trouble = f"; the history could not be read: {error}"
        words |= {job: history[native] for job, native in undecided.items() if native in history}
        late = {
            job: left[job]
            for job in undecided
            if ends[_copy_of(left[job])].over or (job in words and words[job].status.is_finished)
        }
        if late:
            ends |= (await _read_ends(host, late, words))[0]
    for job, part in left.items():
        outcome = verdict(ends.get(_copy_of(part)), words.get(job), host.config.grace_s)
        if isinstance(outcome, Failure) and outcome.code is FailureCode.NOT_NOW:
            outcome = evolve(outcome, message=outcome.message + trouble)
        found[job] = _details_or(outcome, failures, job)


async def _read_ends(
    host: Host,
    jobs: Mapping[JobID, JobParts],
    words: Mapping[JobID, JobDetails],
    history: Sequence[Command] = (),
) -> tuple[dict[tuple[str, int], End], Frames]:
    """Write down the scheduler's words where they decide, and read how the jobs ended; ask the history if nothing tells."""
    script = host.script()
    script.add(
        sandbox.read_ends(
            map(_copy_of, jobs.values()),
            host.config.grace_s,
            words={
                _copy_of(part): write_word(words[job])
                for job, part in jobs.items()
                if job in words and words[job].status.is_finished
            },
            last=not history,
        )
    )
    if history:
        script.add('if [ -n "$undecided" ]; then')
        script.run_all("history", history)
        script.add("fi")
    frames = await host.run(script)
    return parse_ends(frames.lines), frames


async def only_finished(
    host: Host, parts: Mapping[JobID, JobParts], failures: dict[JobID, Failure]
) -> dict[JobID, JobParts]:
    """Those of the jobs that have ended all the same; the others fail with what they are."""
    details, trouble = await ask_details(host, list(parts))
    finished = {}
    for job, part in parts.items():
        if job in trouble:
            failures[job] = trouble[job]
        elif details[job].status.is_finished:
            finished[job] = part
        else:
            failures[job] = Failure(
                FailureCode.NOT_FINISHED, f"it is {details[job].status}; wait, or kill it first"
            )
    return finished


def _copy_of(part: JobParts) -> tuple[str, int]:
    return part.submission, part.copy


def _details_or(
    outcome: JobDetails | Failure, failures: dict[JobID, Failure], job: JobID
) -> JobDetails:
    if isinstance(outcome, JobDetails):
        return outcome
    failures[job] = outcome
    return JobDetails(JobStatus.UNKNOWN)
