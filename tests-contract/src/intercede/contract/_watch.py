"""Seeing I/O where there must be none (L1, T1, N1).

CPython tells an audit hook of every file that is opened, every socket and every process. A hook cannot be taken away again, so there is
one for the life of the process, and it listens only inside `io_watched`.

It hears what the watching thread does, and what that one lets others do: the threads that it starts, the work that it hands to a pool of
threads (directly or by the event loop), whatever runs in a copy of its context. All other threads are somebody else's: a test runner's, a
server's that stands in for a daemon, those of a test that is just over. So is the garbage that they left, which is not collected meanwhile.

What is made must not start threads either (L1): a thread does not serve to think, only to wait for I/O, at a time of its own; so its start
is taken for the I/O. An answer to nothing (T1) may come from a thread.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from pathlib import PurePath
from threading import Thread, get_ident
from typing import Any, Final

from attrs import define, field

__all__ = ["io_watched"]

#: What is I/O.
_EVENTS: Final = frozenset(
    {
        "open",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.system",
        "socket.__new__",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
    }
)
#: What importing a plugin opens. That is allowed: the registry imports what is named.
_IMPORTED: Final = (".py", ".pyc", ".pyi", ".pth", ".so", ".zip", ".dist-info", ".egg-info")
#: Where importing it for the first time writes.
_COMPILED: Final = "__pycache__"


@define(eq=False)
class _Watch:
    """What is heard inside one block.

    Attributes:
        threads: Whether a thread's start counts.
        thread: Who watches.
        started: The threads that were started inside.
        seen: What was heard.
    """

    threads: bool
    thread: int = field(factory=get_ident)
    started: list[Thread] = field(factory=list)
    seen: list[str] = field(factory=list)

    @property
    def concerned(self) -> bool:
        """Whether what this thread does now is done by who watches, or for them."""
        if _for_whom.get() is self or get_ident() == self.thread:
            return True
        return any(thread.ident == get_ident() for thread in self.started)

    def note(self, text: str) -> None:
        """Hear something."""
        self.seen.append(text[:300])

    def note_thread(self, text: str) -> None:
        """Hear of something that another thread is to do."""
        if self.threads:
            self.note(text)


_watches: list[_Watch] = []
_for_whom: ContextVar[_Watch | None] = ContextVar("_for_whom", default=None)


@contextmanager
def io_watched(*, threads: bool = True) -> Iterator[list[str]]:
    """The I/O inside the block, described for people; importing does not count.

    Args:
        threads: A thread that is started and work that is handed to a pool count as well, whatever they do: it may come when the block
            is over, and nobody could tell.
    """
    _hooked()
    watch = _Watch(threads)
    collects = gc.isenabled()
    token = _for_whom.set(watch)
    gc.disable()
    _watches.append(watch)
    try:
        with _threads_watched():
            yield watch.seen
    finally:
        _watches.remove(watch)
        _for_whom.reset(token)
        if collects:
            gc.enable()


@cache
def _hooked() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or event not in _EVENTS or _is_import(event, arguments):
        return
    for watch in _watches:
        if watch.concerned:
            watch.note(f"{event}{arguments!r}")


@contextmanager
def _threads_watched() -> Iterator[None]:
    """Inside the block, threads that are started are noted, and work for a pool takes along for whom it is done.

    No hook tells of either: of a start only since CPython 3.12, of a pool's idle thread that is woken never.
    """
    start, submit = Thread.start, ThreadPoolExecutor.submit

    def heard_start(thread: Thread) -> None:
        for watch in _watches:
            if watch.concerned:
                watch.started.append(thread)
                watch.note_thread(f"a thread is started: {thread!r}")
        start(thread)

    def heard_submit(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        context = copy_context()
        for watch in _watches:
            if watch.concerned:
                context.run(_for_whom.set, watch)
                watch.note_thread(f"work is handed to a pool of threads: {function!r}")
        return submit(pool, context.run, function, *args, **kwargs)

    Thread.start = heard_start  # type: ignore[method-assign,assignment]  # and given back
    ThreadPoolExecutor.submit = heard_submit  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Thread.start = start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]


def _is_import(event: str, arguments: tuple[Any, ...]) -> bool:
    path = arguments[0] if arguments else None
    if event == "open" and isinstance(path, int):
        return True  # open already, and heard of when it was opened
    if not isinstance(path, str):
        return False
    parts = PurePath(path).parts
    if event != "open":
        return _COMPILED in parts and event in ("os.mkdir", "os.rename")
    # A folder of sys.path that is not there is looked for as an archive.
    return path in sys.path or _COMPILED in parts or any(p.endswith(_IMPORTED) for p in parts)
