"""Submitting what is staged, exactly once: one claims the attempt and runs the scheduler's commands behind it; whoever comes second, after a
lost connection or in another process, reads what the first one got (S9).
"""

from __future__ import annotations

import math
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
from intercede.toolkit import Script

from . import _sandbox as sandbox
from ._attempts import Attempts, make_handle, read_frames, read_natives
from ._host import Host

__all__ = ["Attempt", "clear_up"]

#: How long one script waits for an attempt that somebody else began, in seconds.
_WAIT_S: Final = 30.0
#: Between two tries to learn what became of an attempt, in seconds.
_PAUSE_S: Final = 1.0
#: How long a session is kept for what will be staged soon, in seconds: the host grants few, and may end one that is silent.
_NEAR_S: Final = 5.0
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


class Attempt:
    """The one attempt to submit what is staged.

    Its session is opened while the host still unpacks, and its script sent when that is done: opening takes two of the three times that
    a command goes over the wire and back.

    Args:
        host: Where.
        batch: What is, or will be, staged.
        commands: Those that submit it.
    """

    def __init__(self, host: Host, batch: StagedBatch, commands: Sequence[Command]) -> None:
        self._host = host
        self._batch = batch
        self._commands = commands
        self._near = anyio.Event()
        self._staged = anyio.Event()
        self._deadline = math.inf
        self._first: Attempts | InterCEdeError | None = None

    async def begin(self) -> None:
        """Make the first try, as soon as it may be made. How it ended, `settle` learns."""
        await self._near.wait()
        script, wait_s = self._script(self._host.config.submit_deadline_s)
        try:
            frames = await self._host.run_when(script, self._staged_soon, _NEAR_S + wait_s * 2)
        except InterCEdeError as error:
            self._first = error
        else:
            self._first = read_frames(frames) if frames else None

    def near(self) -> None:
        """All has been sent that is to be staged."""
        self._near.set()

    def staged(self) -> None:
        """All is staged; from now on it may be submitted, and the time for that runs."""
        self._deadline = anyio.current_time() + self._host.config.submit_deadline_s
        self._near.set()
        self._staged.set()

    @property
    def is_staged(self) -> bool:
        """It may be submitted, and may have been."""
        return self._staged.is_set()

    async def _staged_soon(self) -> bool:
        with anyio.move_on_after(_NEAR_S):
            await self._staged.wait()
        return self.is_staged

    async def settle(self) -> Submission:
        """Learn how the first try ended, and try until that is known.

        Raises:
            SubmitUncertain: It could not be learnt in time.
            InterCEdeError: Nothing was submitted, and nothing is left of it.
        """
        may_have_run = False
        while True:
            try:
                attempts = await self._try(self._deadline - anyio.current_time())
            except InterCEdeError as error:
                may_have_run = may_have_run or _may_have_run(error)
                is_passing = isinstance(error, (ConnectionLost, OperationTimeout, ResourceError))
                if not may_have_run and (not is_passing or anyio.current_time() > self._deadline):
                    await clear_up(self._host, self._batch.submission)
                    raise
                trouble = str(error)
            else:
                state = attempts.states.get(self._batch.submission)
                if state == sandbox.ATTEMPT_DONE:
                    return await _submitted(self._host, self._batch, attempts)
                may_have_run = True
                trouble = f"the attempt is {state or 'gone'}"
                if state != sandbox.ATTEMPT_OPEN:
                    break
            if anyio.current_time() > self._deadline:
                break
            await anyio.sleep(_PAUSE_S)
        raise SubmitUncertain(
            f"whether the scheduler has the jobs could not be learnt: {trouble}",
            mark=self._batch.mark,
            handles=[
                make_handle(self._host, self._batch, copy, None) for copy in self._batch.copies
            ],
            remedy="do not submit again; ask for the status of the handles, or find them by their tag",
        )

    async def _try(self, left_s: float) -> Attempts:
        first, self._first = self._first, None
        if isinstance(first, InterCEdeError):
            raise first
        if first is not None:
            return first
        script, wait_s = self._script(left_s)
        return read_frames(await self._host.run(script, wait_s * 2))

    def _script(self, left_s: float) -> tuple[Script, float]:
        """The script that makes a try, and how long it waits for an attempt that somebody else began."""
        wait_s = min(_WAIT_S, max(left_s / 2, _PAUSE_S))
        script = self._host.script()
        script.add(sandbox.attempt(self._batch.submission, self._commands, wait_s))
        return script, wait_s


def _may_have_run(error: InterCEdeError) -> bool:
    """Whether the scheduler's commands may have run although there is no answer."""
    if isinstance(error, TransportError):
        return error.may_have_run
    return isinstance(error, ResourceError)


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
