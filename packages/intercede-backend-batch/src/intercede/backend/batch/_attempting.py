"""Submitting what is staged, exactly once: one claims the attempt and runs the scheduler's commands behind it; whoever comes second, after a
lost connection or in another process, reads what the first one got (S9).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import anyio

from intercede.core import (
    Command,
    ConnectionLost,
    Failure,
    FailureCode,
    InterCEdeError,
    OperationTimeout,
    ResourceError,
    StagedBatch,
    Submission,
    SubmitUncertain,
    TransportError,
)

from . import _sandbox as sandbox
from ._attempts import Attempts, make_handle, read_frames, read_natives
from ._host import Host

__all__ = ["attempt", "clear_up"]

#: How long one script waits for an attempt that somebody else began, in seconds.
_ATTEMPT_WAIT_S: Final = 30.0
#: Between two tries to learn what became of an attempt, in seconds.
_ATTEMPT_PAUSE_S: Final = 1.0
#: For clearing up after a failure, in seconds.
_CLEAR_UP_S: Final = 10.0


async def clear_up(host: Host, submission: str, copies: Iterable[int] | None = None) -> None:
    """Remove what a failed submit left, or some copies of it, as far as the host can be reached."""
    script = host.script()
    if copies is None:
        script.add(f"rm -rf .part.{submission} {submission}")
    else:
        script.add(f"rm -rf {' '.join(f'{submission}/{copy}' for copy in copies)}")
    with anyio.move_on_after(_CLEAR_UP_S, shield=True):
        try:
            await host.run(script, _CLEAR_UP_S)
        except InterCEdeError:
            return  # a part is swept by a later submit; what is whole is found by its tag


async def attempt(host: Host, batch: StagedBatch, commands: Sequence[Command]) -> Submission:
    """Submit exactly once: whoever comes second reads what the first one got (S9)."""
    deadline = anyio.current_time() + host.config.submit_deadline_s
    may_have_run = False
    while True:
        try:
            attempts = await _try_attempt(host, batch, commands, deadline - anyio.current_time())
        except InterCEdeError as error:
            may_have_run = may_have_run or _may_have_run(error)
            is_passing = isinstance(error, (ConnectionLost, OperationTimeout, ResourceError))
            if not may_have_run and (not is_passing or anyio.current_time() > deadline):
                await clear_up(host, batch.submission)
                raise
            trouble = str(error)
        else:
            state = attempts.states.get(batch.submission)
            if state == sandbox.ATTEMPT_DONE:
                return await _submitted(host, batch, attempts)
            may_have_run = True
            trouble = f"the attempt is {state or 'gone'}"
            if state != sandbox.ATTEMPT_OPEN:
                break
        if anyio.current_time() > deadline:
            break
        await anyio.sleep(_ATTEMPT_PAUSE_S)
    raise SubmitUncertain(
        f"whether the scheduler has the jobs could not be learnt: {trouble}",
        mark=batch.mark,
        handles=[make_handle(host, batch, copy, None) for copy in batch.copies],
        remedy="do not submit again; ask for the status of the handles, or find them by their tag",
    )


def _may_have_run(error: InterCEdeError) -> bool:
    """Whether the scheduler's commands may have run although there is no answer."""
    if isinstance(error, TransportError):
        return error.may_have_run
    return isinstance(error, ResourceError)


async def _try_attempt(
    host: Host, batch: StagedBatch, commands: Sequence[Command], left_s: float
) -> Attempts:
    script = host.script()
    wait_s = min(_ATTEMPT_WAIT_S, max(left_s / 2, _ATTEMPT_PAUSE_S))
    script.add(sandbox.attempt(batch.submission, commands, wait_s))
    return read_frames(await host.run(script, wait_s * 2))


async def _submitted(host: Host, batch: StagedBatch, attempts: Attempts) -> Submission:
    try:
        natives = read_natives(host, batch, attempts)
    except ResourceError as error:
        raise SubmitUncertain(
            f"the scheduler's answer cannot be read: {error.message}",
            mark=batch.mark,
            handles=[make_handle(host, batch, copy, None) for copy in batch.copies],
            said=error.said,
            remedy="do not submit again; ask for the status of the handles",
        ) from error
    handles = []
    failures = {}
    for copy in batch.copies:
        native = natives.get(copy)
        if isinstance(native, str):
            handles.append(make_handle(host, batch, copy, native))
        else:
            failures[copy] = native or Failure(
                FailureCode.FAILED, "the scheduler's answer says nothing about this copy"
            )
    if failures:
        await clear_up(host, batch.submission, failures if handles else None)
    return Submission(batch.submission, tuple(handles), failures)
