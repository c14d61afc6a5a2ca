"""One call: made by the caller's thread, done in the loop's, and known to both until it has ended.

anyio's portal does not do here. It gives a future only when the loop has taken the call, so that a Ctrl-C before that leaves a call
behind which nobody can cancel; and cancelling its future hides when the call has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

import anyio
import anyio.abc

__all__ = ["Call"]

T = TypeVar("T")


class Call(Generic[T]):
    """A call on its way.

    Args:
        work: What to do in the loop.
        breakable: False: it is left to end by itself.

    Attributes:
        ended: How it ended; cancelled if it was broken off.
    """

    def __init__(self, work: Callable[[], Awaitable[T]], *, breakable: bool) -> None:
        self.ended: Future[T] = Future()
        self._work = work
        self._breakable = breakable
        self._begun = False
        self._unwanted = False
        self._scope: anyio.CancelScope | None = None

    def begin(self, tasks: anyio.abc.TaskGroup) -> None:
        """Make it a task of the loop; to be called in its thread, as is `cancel`."""
        try:
            tasks.start_soon(self._run)
        except RuntimeError:  # the loop is being wound up
            self.ended.cancel()
        else:
            self._begun = True

    def cancel(self) -> None:
        """Break it off. One that was never begun has ended with that."""
        if not self._begun:
            self.ended.cancel()
        elif self._breakable:
            self._unwanted = True
            if self._scope is not None:
                self._scope.cancel()

    async def _run(self) -> None:
        """Whatever comes of it goes to the caller, and nothing to the loop, which a stray cancellation would end."""
        with suppress(anyio.get_cancelled_exc_class()):
            with anyio.CancelScope(shield=not self._breakable) as self._scope:
                if self._unwanted:
                    self._scope.cancel()
                await self._finish()
        self.ended.cancel()  # if it was broken off; what has ended stays as it is

    async def _finish(self) -> None:
        try:
            result = await self._work()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(result)
