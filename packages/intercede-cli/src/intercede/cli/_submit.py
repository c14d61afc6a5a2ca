"""From the command line to a submission.

A submit is never broken off: only when it has ended is it known what there is to end. Ctrl-C during a submit is noted, and what came of
the submit is killed and purged; a second Ctrl-C leaves at once. Every submission has a tag, the user's or one of its own, so that also
then `find` tells what was sent.
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from intercede.core import (
    BulkResult,
    Cancellable,
    Failure,
    FailureCode,
    FileRef,
    JobBackend,
    JobID,
    OpOutcome,
    OutputSpec,
    Purgeable,
    Resources,
    SpecRefused,
    Submission,
    SubmissionSpec,
)

from ._interrupts import Interrupts
from ._screen import Screen

__all__ = ["end", "specification", "submit"]

#: How long a killed job may take to let itself be purged.
_PURGE_PATIENCE_S: Final = 30.0
_PURGE_PAUSE_S: Final = 0.5


def specification(options: argparse.Namespace) -> SubmissionSpec:
    """What the options of `run` and `submit` describe.

    Raises:
        SpecRefused: It makes no sense; names the field.
    """
    executable, *arguments = options.command
    return SubmissionSpec(
        executable=executable,
        arguments=arguments,
        inputs=[FileRef(name, source=source) for name, source in options.input],
        outputs=OutputSpec(options.output, everything=options.everything),
        resources=Resources(
            cpus=options.cpus,
            memory_mb=options.memory,
            wall_time_s=options.time,
            gpus=options.gpus,
            nodes=options.nodes,
            queue=options.queue,
        ),
        environment=dict(options.env),
        resident=options.resident or _is_resident(executable),
        tag=options.tag or f"intercede-{secrets.token_hex(8)}",
    )


def _is_resident(executable: str) -> bool:
    """A file of this place is staged; a bare name of a program on our PATH is taken to be on the resource's too."""
    if Path(executable).is_file():
        return False
    if "/" not in executable and shutil.which(executable):
        return True
    raise SpecRefused(
        "executable",
        f"{executable!r} is no file here"
        + ("" if "/" in executable else ", nor a program on the PATH"),
        remedy="check the name, or add --resident if the resource has it",
    )


async def submit(
    ce: JobBackend,
    spec: SubmissionSpec,
    options: argparse.Namespace,
    interrupts: Interrupts,
    screen: Screen,
) -> Submission | None:
    """Submit the copies.

    Returns:
        The submission; None if Ctrl-C ended it, in which case nothing of it is left (or the user was told what is).
    """

    def tell() -> None:
        interrupts.announced = True
        screen.note("interrupted: ending what is being submitted; Ctrl-C again leaves it")

    try:
        with interrupts.noted(tell) as interrupted:
            submission = await ce.submit(spec, options.copies)
    except anyio.get_cancelled_exc_class():
        command = f"intercede find --resource {options.resource} {shlex.quote(spec.tag or '')}"
        screen.note(f"left: what was sent may have arrived; see {command}")
        raise
    if not interrupted.is_set():
        return submission
    await end(ce, [handle.id for handle in submission.handles], screen)
    return None


async def end(ce: JobBackend, ids: Sequence[JobID], screen: Screen) -> None:
    """Kill and purge jobs of ours; the user is told what could not be."""
    left = list(ids)
    try:
        left = await _ended(ce, ids)
    finally:
        if left:
            shown = " ".join(map(shlex.quote, left))
            screen.note(
                f"left: {len(left)} copies; end them with intercede kill, then intercede purge: {shown}"
            )


async def _ended(ce: JobBackend, ids: Sequence[JobID]) -> list[JobID]:
    """What is left of the jobs."""
    if not isinstance(ce, Cancellable):
        return list(ids)
    killed = await ce.kill(ids)
    left = _still_there(killed)
    if not isinstance(ce, Purgeable):
        return left
    waiting = [job for job in killed if job not in killed.failures]
    with anyio.move_on_after(_PURGE_PATIENCE_S):
        while waiting:
            purged = await ce.purge(waiting)
            waiting = [job for job in waiting if _may_go(purged.failures.get(job))]
            left += [job for job in _still_there(purged) if job not in waiting]
            if waiting:
                await anyio.sleep(_PURGE_PAUSE_S)
    return left + waiting


def _still_there(outcomes: BulkResult[OpOutcome]) -> list[JobID]:
    return [
        job
        for job, failure in outcomes.failures.items()
        if failure.code is not FailureCode.NO_SUCH_JOB
    ]


def _may_go(failure: Failure | None) -> bool:
    """A purge that failed so may succeed in a moment: the scheduler is still ending the job."""
    return failure is not None and failure.code in (FailureCode.NOT_FINISHED, FailureCode.NOT_NOW)
