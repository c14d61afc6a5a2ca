"""Ctrl-C, one at a time.

Each Ctrl-C goes to the innermost block that wants it: it ends that block, or is noted by a block that must not be broken off. One that
nobody is left to take raises KeyboardInterrupt out of the event loop. A plain cancellation of the main task, as asyncio does it, cannot
be held back while a submit is under way, hence this.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import anyio

__all__ = ["Interrupts"]


class Interrupts:
    """Who takes the next Ctrl-C.

    Attributes:
        announced: Somebody has told the user already.
    """

    def __init__(self) -> None:
        self.announced = False
        self._takers: list[Callable[[], None]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take this process's SIGINT while the block runs, unless the caller of the process has it ignored (`nohup`, `&`)."""
        loop = asyncio.get_running_loop()
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if ignored or threading.current_thread() is not threading.main_thread():
            yield
            return
        loop.add_signal_handler(signal.SIGINT, self._arrived)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def ending(self, scope: anyio.CancelScope) -> AbstractContextManager[None]:
        """While the block runs, the next Ctrl-C cancels the scope around it."""
        return self._taking(scope.cancel)

    @contextmanager
    def noted(self, tell: Callable[[], None]) -> Iterator[anyio.Event]:
        """The next Ctrl-C calls `tell` and is noted; the block goes on. The one after it goes to the block around this one."""
        happened = anyio.Event()

        def note() -> None:
            happened.set()
            tell()

        with self._taking(note):
            yield happened

    @contextmanager
    def _taking(self, taker: Callable[[], None]) -> Iterator[None]:
        self._takers.append(taker)
        try:
            yield
        finally:
            if taker in self._takers:
                self._takers.remove(taker)

    def _arrived(self) -> None:
        if not self._takers:
            raise KeyboardInterrupt
        self._takers.pop()()
