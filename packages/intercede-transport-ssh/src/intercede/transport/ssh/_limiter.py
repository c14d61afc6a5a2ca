"""How many sessions a connection carries at once: what the host grants, found out by asking.

sshd allows so many sessions for each connection (MaxSessions, by default 10), does not tell, and frees one a little later than the client
believes. So the limit begins low and grows while all goes well. A refusal brings it back to what was once granted at the same time, since
so many the host does allow; from there it grows only rarely. A refused session has run nothing: whoever wanted it waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

__all__ = ["Limiter"]

_BEGIN: Final = 2
#: After a refusal: how many sessions must be granted, per session of the limit, before one more is tried.
_PATIENCE: Final = 20


class Limiter:
    """Slots for sessions, given out in the order in which they are asked for.

    Args:
        most: Never more than so many.
        begin: What an earlier connection had found out.
    """

    def __init__(self, most: int, begin: int = _BEGIN) -> None:
        self._most = most
        self._limit = min(begin, most)
        self._taken = 0
        #: Of those that are taken, how many the host has granted, and how many it ever had granted at once.
        self._open = 0
        self._proven = 1
        self._granted = 0
        self._refused = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many it allows now."""
        return self._limit

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return self._taken

    @property
    def free(self) -> bool:
        """There is a slot that nobody has."""
        return self._taken < self._limit

    async def acquire(self, *, first: bool = False) -> None:
        """Wait for a slot and take it.

        Args:
            first: Before all others that wait.
        """
        if self.free and (first or not self._waiting):
            self._taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given to us in the same moment
            with suppress(ValueError):
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Give a slot back for which the host was not asked, or did not answer."""
        self._taken -= 1
        self._wake()

    def granted(self) -> None:
        """The host granted the session for which a slot was taken."""
        self._open += 1
        self._proven = max(self._proven, self._open)
        self._granted += 1
        pause = _PATIENCE * self._limit if self._refused else 1
        if self._taken >= self._limit < self._most and self._granted >= pause:
            self._limit += 1
            self._granted = 0
            self._wake()

    def refused(self) -> None:
        """The host refused it; the slot is given back."""
        self._refused = True
        self._granted = 0
        self._limit = min(self._limit, self._proven)
        self.release()

    def closed(self) -> None:
        """A session that was granted is over; its slot is given back."""
        self._open -= 1
        self.release()

    def _wake(self) -> None:
        while self._waiting and self.free:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
