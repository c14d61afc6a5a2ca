"""A synchronous object made of an asynchronous one, with exactly its abilities.

The class is made for the combination of abilities that the object has, once for each, so that `isinstance` and `hasattr` tell of the
synchronous object what they tell of the asynchronous one.
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache, partial, wraps
from types import FunctionType
from typing import Any, Final, Self, cast, overload

from intercede import core
from intercede.core import ClosedError, InterCEdeError

from ._loop import SHARED, Loop, refuse_inside_a_loop
from ._protocols import PROTOCOLS, RENAMED, CredentialProvider, JobBackend

__all__ = ["Facade", "synchronous", "within"]

#: What a synchronous name is called on the asynchronous side.
_ASYNC: Final = {synchronous: name for name, synchronous in RENAMED.items()}


class Facade:
    """Sends every call to an asynchronous object in its loop. Safe from many threads.

    Args:
        it: The asynchronous object.
        loop: Where it lives.
    """

    def __init__(self, it: Any, loop: Loop) -> None:
        self._it = it
        self._loop = loop
        self._process: int | None = None
        self._closed = False
        self._key = object()
        weakref.finalize(self, loop.abandon, self._key, repr(it)).atexit = False
        for name in _further_methods(it):
            setattr(self, name, wraps(getattr(it, name))(partial(self._call, name)))

    def __repr__(self) -> str:
        return f"<synchronous {self._it!r}>"

    def _call(self, name: str, /, *args: object, **kwargs: object) -> Any:
        refuse_inside_a_loop(f"{self._it!r}: {name}")
        try:
            self._use()
            return self._loop.call(getattr(self._it, _ASYNC.get(name, name)), *args, **kwargs)
        except InterCEdeError as error:
            error.at(repr(self._it), name)
            raise

    def _use(self) -> None:
        """Claim it for this process.

        Raises:
            ClosedError: It is closed, or another process's.
        """
        if self._closed:
            raise ClosedError("it is closed", remedy="make a new one")
        if self._process not in (None, os.getpid()):
            raise ClosedError(
                f"its connections are those of process {self._process}, of which this is a fork",
                remedy="make a new one in this process",
            )
        self._process = os.getpid()
        if hasattr(self._it, "aclose"):
            self._loop.keep(self._key, self._it.aclose)

    def _enter(self) -> Self:
        self._call("__enter__")
        if not hasattr(self._it, "aclose"):
            self._loop.keep(self._key, partial(self._it.__aexit__, None, None, None))
        return self

    def _exit(self, *exc: object) -> None:
        self._end(partial(self._it.__aexit__, *exc))

    def _close(self) -> None:
        self._end(self._it.aclose)

    def _end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close it, once; nothing of it if it was never used, is another process's, or was closed with its loop."""
        refuse_inside_a_loop(f"{self._it!r}: close")
        first, self._closed = not self._closed, True
        if first and self._process == os.getpid():
            self._loop.release(self._key)
            with suppress(ClosedError):
                self._loop.finish(close)


def within(facade: Facade, loop: Loop) -> Any:
    """The asynchronous object, if it may be used in this loop here and now; else None."""
    if facade._closed or loop is not facade._loop or facade._process not in (None, os.getpid()):
        return None
    return facade._it


_OWN: Final[dict[str, Any]] = {
    "__enter__": Facade._enter,
    "__exit__": Facade._exit,
    "close": Facade._close,
}


@overload
def synchronous(it: core.JobBackend, *, loop: Loop | None = None) -> JobBackend: ...
@overload
def synchronous(it: core.CredentialProvider, *, loop: Loop | None = None) -> CredentialProvider: ...
def synchronous(
    it: core.JobBackend | core.CredentialProvider, *, loop: Loop | None = None
) -> JobBackend | CredentialProvider:
    """A backend or a provider of credentials for callers without an event loop. From now on it is used through this alone.

    Args:
        it: What `intercede.core.registry.backend` made, or any other that has not been used yet.
        loop: Where it shall live; None: in the loop that all share.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(it, Facade) or not isinstance(it, (core.JobBackend, core.CredentialProvider)):
        raise TypeError(f"neither an asynchronous backend nor a provider of credentials: {it!r}")
    names = frozenset(name for name, _ in _members() if _has(it, _ASYNC.get(name, name)))
    return cast("JobBackend | CredentialProvider", _class(names)(it, loop or SHARED))


def _has(it: object, name: str) -> bool:
    return getattr(it, name, None) is not None


@cache
def _members() -> tuple[tuple[str, Any], ...]:
    """Everything that the protocols ask for."""
    return tuple(
        (name, member)
        for protocol in PROTOCOLS
        for name, member in vars(protocol).items()
        if isinstance(member, (FunctionType, property))
        and (name in _ASYNC or not name.startswith("_"))
    )


@cache
def _class(names: frozenset[str]) -> type[Facade]:
    """The class of what has these members."""
    members = {name: _sent(name, member) for name, member in _members() if name in names}
    return type("Synchronous", (Facade,), {**members, "__module__": __name__})


def _sent(name: str, declared: Any) -> Any:
    """What does in a facade what the protocol declares."""
    if isinstance(declared, property):
        return property(lambda self: getattr(self._it, name), doc=declared.__doc__)
    if name in _OWN:
        own: Any = _OWN[name]

        @wraps(declared)
        def method(self: Facade, *args: object) -> object:
            return own(self, *args)
    else:

        @wraps(declared)
        def method(self: Facade, *args: object, **kwargs: object) -> object:
            return self._call(name, *args, **kwargs)

    return method


def _further_methods(it: object) -> Iterator[str]:
    """The public coroutine methods that are no protocol's of ours: a plugin may have abilities of its own."""
    known = {_ASYNC.get(name, name) for name, _ in _members()}
    for name in dir(type(it)):
        if name.startswith("_") or name in known:
            continue
        if inspect.iscoroutinefunction(getattr(type(it), name)):
            yield name
