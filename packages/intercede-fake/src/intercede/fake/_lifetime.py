"""Opening, closing, and belonging to one event loop: the same for the fake backend and the fake transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from intercede.core import ClosedError, InterCEdeError, TransportError

from ._clock import Clock
from ._faults import Faults, Operation, Trouble

__all__ = ["Lifetime", "in_thread"]

T = TypeVar("T")


class Lifetime:
    """Whether calls may be made, and what goes wrong with them.

    Making one does no I/O and needs no loop (L1); the first call binds it to its loop and connects (L2).

    Args:
        owner: For messages.
        clock: For faults that are slow.
        faults: What goes wrong.
    """

    def __init__(self, owner: str, clock: Clock, faults: Faults) -> None:
        self._owner = owner
        self._clock = clock
        self._faults = faults
        self._closed = False
        self._connected = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()

    def check(self, operation: str) -> None:
        """Return if a call may be made here and now.

        Raises:
            ClosedError: After `close`, or in another event loop.
        """
        if self._closed:
            raise ClosedError(
                "it is closed",
                resource=self._owner,
                operation=operation,
                remedy="make a new one",
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ClosedError(
                "it belongs to another event loop",
                resource=self._owner,
                operation=operation,
                remedy="use one per event loop",
            )

    def close(self) -> None:
        """From now on every call raises. Idempotent."""
        self._closed = True

    async def begin(self, operation: Operation) -> Trouble:
        """What every call does first: check, connect, be slow, fail.

        Raises:
            InterCEdeError: As the faults say, before anything has happened.
        """
        self.check(operation)
        await self._connect()
        self.check(operation)
        trouble = self._faults.take(operation)
        await self._suffer(trouble, operation)
        return trouble

    def end(self, trouble: Trouble, operation: Operation) -> None:
        """What every call does last: lose its answer, if so told.

        Raises:
            InterCEdeError: As the faults say, although everything has happened.
        """
        if trouble.done is not None:
            raise self._broken(trouble.done).at(self._owner, operation)

    async def _connect(self) -> None:
        # Each waiter connects by itself if the one before it did not: a cancelled one fails nobody else (L6).
        async with self._connecting:
            if not self._connected:
                await self._suffer(self._faults.take(Operation.CONNECT), Operation.CONNECT)
                self._connected = True

    async def _suffer(self, trouble: Trouble, operation: Operation) -> None:
        if trouble.delay_s:
            await self._clock.sleep(trouble.delay_s)
            self.check(operation)
        if trouble.undone is not None:
            raise self._broken(trouble.undone).at(self._owner, operation)

    def _broken(self, error: InterCEdeError) -> InterCEdeError:
        """A connection that failed is made anew at the next use (X8)."""
        if isinstance(error, TransportError):
            self._connected = False
        return error


async def in_thread(work: Callable[[], T]) -> T:
    """Run file work beside the event loop. A cancelled caller still waits for its end, so that no thread outlives the call (L4)."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled is not None:
        running.exception()
        raise cancelled
    return running.result()
