"""What last crossed the transport, for whoever has to understand a failure.

A composed backend holds its transport somewhere among its attributes. It is found there, and its `run` and `stream` are listened to on
that one object, so that neither the backend nor the registry has to know of the suite. Where none is found nothing is recorded. A
transport on trial itself is listened to in the same way, and so are backends that somebody's faults have made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, cast

from intercede.core import Command, CommandResult, JobBackend, Process, Transport

from ._resource import Faults

__all__ = ["Crossed", "crossing", "heard", "listen", "listen_to"]

#: The last commands, each as text for people; the newest last.
Crossed = deque[str]

#: How many of the last commands a failure shows.
_KEPT: Final = 5
#: How deep beneath the backend its transport is looked for.
_DEPTH: Final = 3
#: How much of a text is shown, in characters.
_SHOWN: Final = 300


def crossing() -> Crossed:
    """Nothing yet."""
    return Crossed(maxlen=_KEPT)


def listen(backend: JobBackend, crossed: Crossed) -> None:
    """From now on note what crosses the transport of this backend, if it has one."""
    for transport in list(_transports(backend, _DEPTH))[:1]:
        listen_to(transport, crossed)


def heard(faults: Faults, crossed: Crossed) -> Faults:
    """The same faults, and what crosses the transports of the backends that they make is noted."""
    return cast("Faults", _Heard(faults, crossed))


class _Heard:
    def __init__(self, faults: Faults, crossed: Crossed) -> None:
        self._faults = faults
        self._crossed = crossed

    def __getattr__(self, name: str) -> Callable[..., AbstractAsyncContextManager[JobBackend]]:
        make = getattr(self._faults, name)

        @asynccontextmanager
        async def made(*arguments: object) -> AsyncIterator[JobBackend]:
            async with make(*arguments) as backend:
                listen(backend, self._crossed)
                yield backend

        return made


def listen_to(transport: Transport, crossed: Crossed) -> None:
    """From now on note what crosses this transport."""
    run, stream = transport.run, transport.stream

    async def heard_run(command: Command) -> CommandResult:
        try:
            result = await run(command)
        except BaseException as error:
            crossed.append(_told(command, f"{type(error).__name__}: {error}"))
            raise
        crossed.append(_told(command, _ended(result)))
        return result

    @asynccontextmanager
    async def heard_stream(
        command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        try:
            async with stream(command, stdin) as process:
                yield process
        except BaseException as error:
            crossed.append(_told(command, f"streamed: {type(error).__name__}: {error}"))
            raise
        crossed.append(_told(command, "streamed"))

    listening: Any = transport
    with suppress(AttributeError):  # an object with slots keeps its secrets
        listening.run, listening.stream = heard_run, heard_stream


def _transports(thing: object, depth: int) -> Iterator[Transport]:
    for value in getattr(thing, "__dict__", {}).values():
        if isinstance(value, Transport):
            yield value
        elif depth > 1 and type(value).__module__ != "builtins":
            yield from _transports(value, depth - 1)


def _told(command: Command, ending: str) -> str:
    """What was said and what came of it, in two or three lines."""
    lines = [f"$ {_short(' '.join(command.argv))}"]
    if command.stdin:
        lines.append(f"  < {_short(command.stdin)}")
    return "\n".join([*lines, f"  = {ending}"])


def _ended(result: CommandResult) -> str:
    said = [
        f"{name}: {_short(words)}"
        for name, words in (("stdout", result.stdout), ("stderr", result.stderr))
        if words
    ]
    return ", ".join([f"exit code {result.returncode}", *said])


def _short(words: str | bytes) -> str:
    if isinstance(words, bytes):
        words = words[: 4 * _SHOWN].decode("utf-8", "replace")
    text = " | ".join(words.strip().splitlines())
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in shown)
