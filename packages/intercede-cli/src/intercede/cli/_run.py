"""`run`: submit, wait, fetch, purge, as if the job ran here.

For one copy stdout and stderr are the job's own; the rest is said on stderr. The first Ctrl-C kills the copies and purges them, the
second leaves at once. Nothing is purged that was not fetched.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
from attrs import frozen

from intercede.core import (
    BulkResult,
    Cancellable,
    FailureCode,
    InterCEdeError,
    JobBackend,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OutputRetriever,
    Purgeable,
    StatusMap,
    Submission,
    TransportError,
    unstructure,
)

from ._configuration import Configuration
from ._exits import ExitCode
from ._interrupts import Interrupts
from ._report import details_of, directory_of, ending_text, exit_text
from ._screen import Progress, Screen
from ._submit import end, specification, submit

__all__ = ["run"]

#: The next question comes after a tenth of the time waited so far: quick jobs end quickly, long ones cost a site little.
_PAUSE_SHARE: Final = 0.1
_PAUSE_LEAST_S: Final = 0.1
_PAUSE_MOST_S: Final = 30.0
#: How many questions in a row the connection may fail to carry.
_LOST_MOST: Final = 5


@frozen
class _Results:
    """How the copies ended, and what came back."""

    details: BulkResult[JobDetails]
    outputs: BulkResult[JobOutput]
    in_time: bool


async def run(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Run the command's copies to their end.

    Returns:
        The exit code.
    """
    spec = specification(options)
    async with configuration.opened(options.resource) as ce:
        submission = await submit(ce, spec, options, interrupts, screen)
        if submission is None:
            return ExitCode.INTERRUPTED
        for copy, failure in submission.failures.items():
            screen.note(f"copy {copy} was not submitted: {failure}")
        ids = [handle.id for handle in submission.handles]
        with anyio.CancelScope() as scope, interrupts.ending(scope):
            try:
                results = await _completed(ce, ids, options, screen)
            except (InterCEdeError, OSError):
                screen.note(
                    f"the copies are still there; go on with: intercede status {_shown(ids)}"
                )
                raise
        if scope.cancelled_caught:
            interrupts.announced = True
            screen.note(f"interrupted: killing {len(ids)} copies; Ctrl-C again leaves them")
            await end(ce, ids, screen)
            return ExitCode.INTERRUPTED
    code = _exit_code(results, submission)
    _report(submission, results, code, screen)
    return code


async def _completed(
    ce: JobBackend, ids: Sequence[JobID], options: argparse.Namespace, screen: Screen
) -> _Results:
    """Wait, fetch, purge."""
    in_time = await _waited(ce, ids, options.timeout, screen)
    details = await details_of(ce, ids)
    outputs: BulkResult[JobOutput] = BulkResult({})
    if isinstance(ce, OutputRetriever) and ids:
        outputs = await ce.fetch_output(ids, Path(options.dest))
    results = _Results(details, outputs, in_time)
    kept = list(ids) if options.keep else await _purged(ce, results, screen)
    if kept:
        screen.note(f"kept at the resource: {_shown(kept)}")
    return results


def _shown(ids: Sequence[JobID]) -> str:
    return " ".join(map(shlex.quote, ids))


async def _waited(
    ce: JobBackend, ids: Sequence[JobID], timeout_s: int | None, screen: Screen
) -> bool:
    """Wait for the copies to finish, and help them with a kill when the time is over. True if they did by themselves."""
    with screen.progress(len(ids)) as progress, anyio.move_on_after(timeout_s) as limit:
        await _finished(ce, ids, progress)
    if not limit.cancelled_caught:
        return True
    screen.note(f"not finished after {timeout_s} s: killing what still runs")
    if isinstance(ce, Cancellable):
        (await ce.kill(ids)).raise_for_failures()
        with screen.progress(len(ids)) as progress:
            await _finished(ce, ids, progress)
    return False


async def _finished(ce: JobBackend, ids: Sequence[JobID], progress: Progress) -> None:
    """Return when no copy is going to change any more; one that the resource has lost will not either."""
    known: dict[JobID, JobStatus] = dict.fromkeys(ids, JobStatus.PENDING)
    open_ids = list(ids)
    started = anyio.current_time()
    while open_ids:
        answer = await _asked(ce, open_ids)
        known.update(answer)
        progress.show(Counter(known.values()))
        gone = {
            job
            for job, failure in answer.failures.items()
            if failure.code is FailureCode.NO_SUCH_JOB
        }
        open_ids = [job for job in open_ids if not known[job].is_finished and job not in gone]
        if open_ids:
            waited = anyio.current_time() - started
            await anyio.sleep(min(max(waited * _PAUSE_SHARE, _PAUSE_LEAST_S), _PAUSE_MOST_S))


async def _asked(ce: JobBackend, ids: Sequence[JobID]) -> StatusMap:
    """The statuses. A connection that breaks is no reason to leave jobs alone that may run for days."""
    for failed in range(1, _LOST_MOST):
        try:
            return await ce.status(ids)
        except TransportError:
            await anyio.sleep(2.0**failed)
    return await ce.status(ids)


async def _purged(ce: JobBackend, results: _Results, screen: Screen) -> list[JobID]:
    """Purge what came back whole; the ids of the rest."""
    whole = {job: None for job in results.outputs if job not in results.outputs.failures}
    kept = [job for job in results.details if job not in whole]
    if not isinstance(ce, Purgeable) or not whole:
        return [*whole, *kept]
    purged = await ce.purge(list(whole))
    for job, failure in purged.failures.items():
        screen.note(f"{job}: not purged: {failure}")
    return [*purged.failures, *kept]


def _exit_code(results: _Results, submission: Submission) -> int:
    if not results.in_time:
        return ExitCode.TIMED_OUT
    codes = [_copy_code(details) for details in results.details.values()]
    failed = bool(submission.failures or results.outputs.failures)
    return max([*codes, int(failed)])


def _copy_code(details: JobDetails) -> int:
    if details.status is JobStatus.SUCCESSFUL:
        return 0
    if details.signal is not None:
        return 128 + details.signal
    return details.exit_code or ExitCode.SOME_FAILED


# ---------------------------------------------------------------- what is shown


def _report(submission: Submission, results: _Results, code: int, screen: Screen) -> None:
    if screen.as_json:
        screen.document(_as_document(submission, results, code))
        return
    for job, failure in results.outputs.failures.items():
        screen.note(f"{job}: not all of its output is here: {failure}")
    for job, output in results.outputs.items():
        if output.missing:
            screen.note(f"{job}: missing: {', '.join(output.missing)}")
    if len(submission.handles) == 1 and not submission.failures:
        _show_one(submission.handles[0], results, screen)
        return
    columns = ("copy", "status", "exit", "files", "where", "note")
    screen.table(columns, [_row(handle, results) for handle in submission.handles])


def _show_one(handle: JobHandle, results: _Results, screen: Screen) -> None:
    """Its output as if it had run here; and, unless all is well and there is no file to look at, how it ended."""
    details = results.details[handle.id]
    output = results.outputs.get(handle.id, JobOutput())
    if output.stdout is not None:
        screen.copy_to_stdout(output.stdout)
    if output.stderr is not None:
        screen.copy_to_stderr(output.stderr)
    where = directory_of(output)
    ended = ending_text(details)
    screen.note(f"{ended}; output in {where}" if where else ended)


def _row(handle: JobHandle, results: _Results) -> tuple[str, ...]:
    details = results.details[handle.id]
    output = results.outputs.get(handle.id, JobOutput())
    return (
        str(handle.copy),
        details.status,
        exit_text(details),
        str(len(output.files)),
        directory_of(output),
        details.reason or str(results.details.failures.get(handle.id, "")),
    )


def _as_document(submission: Submission, results: _Results, code: int) -> dict[str, object]:
    return {
        "submission": submission.id,
        "exit_code": int(code),
        "jobs": [
            {
                "id": handle.id,
                "copy": handle.copy,
                **unstructure(results.details[handle.id]),
                **unstructure(results.outputs.get(handle.id, JobOutput())),
            }
            for handle in submission.handles
        ],
        "failures": {
            str(copy): unstructure(failure) for copy, failure in submission.failures.items()
        },
    }
