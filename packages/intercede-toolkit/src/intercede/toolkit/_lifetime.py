"""When an object may be used: from its first use until `aclose`, in one event loop (L2, L5)."""

from __future__ import annotations

import asyncio

from intercede.core import ClosedError

__all__ = ["Lifetime"]


class Lifetime:
    """Remembers the event loop of the first use, and whether it is over.

    Args:
        name: Who it is, for messages.
    """

    __slots__ = ("_closed", "_loop", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def check(self) -> None:
        """Return if it may be used now, here.

        Raises:
            ClosedError: It was closed, or belongs to another event loop.
        """
        if self._closed:
            raise ClosedError(f"{self._name} is closed", remedy="make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClosedError(
                f"{self._name} was first used in another event loop",
                remedy="make one per event loop",
            )

    def close(self) -> bool:
        """End it. True the first time."""
        first = not self._closed
        self._closed = True
        return first
