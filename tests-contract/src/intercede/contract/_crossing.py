"""What last crossed the transport, for whoever has to understand a failure.

A composed backend holds its transport somewhere among its attributes. It is found there, and its `run` and `stream` are listened to on
that one object, so that neither the backend nor the registry has to know of the suite. Where none is found nothing is recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from intercede.core import Command, CommandResult, JobBackend, Process, Transport

__all__ = ["Crossed", "listen"]

#: The last commands, each as text for people; the newest last.
Crossed = deque[str]

#: How deep beneath the backend its transport is looked for.
_DEPTH: Final = 3
#: How much of a text is shown, in characters.
_SHOWN: Final = 300


def listen(backend: JobBackend, crossed: Crossed) -> None:
    """From now on note what crosses the transport of this backend, if it has one."""
    transport = next(_transports(backend, _DEPTH), None)
    if transport is None:
        return
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
