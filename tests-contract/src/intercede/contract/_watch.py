"""Seeing I/O where there must be none (L1, T1).

CPython tells an audit hook of every file that is opened, every socket and every process. A hook cannot be taken away again, so there is
one for the life of the process, and it listens only inside `io_watched`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import PurePath
from typing import Any, Final

__all__ = ["io_watched"]

_EVENTS: Final = frozenset(
    {
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

_listeners: list[list[str]] = []


@contextmanager
def io_watched() -> Iterator[list[str]]:
    """The I/O of this process inside the block, described for people; importing does not count."""
    _hooked()
    seen: list[str] = []
    _listeners.append(seen)
    try:
        yield seen
    finally:
        _listeners.remove(seen)


@cache
def _hooked() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listeners:
        return
    if event in _EVENTS or (event == "open" and not _is_import(arguments[0])):
        for seen in _listeners:
            seen.append(f"{event}{arguments!r}"[:300])


def _is_import(path: object) -> bool:
    if not isinstance(path, str):
        return False
    return any(part.endswith(_IMPORTED) for part in PurePath(path).parts)
