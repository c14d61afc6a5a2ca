"""A transport: commands through a Unix socket, to `outsider.server`.

A transport knows nothing of jobs. It has five methods; what it owes its callers is in the docstring of `intercede.core.Transport`. Each
command has a connection of its own here, so there is nothing to keep, and nothing to reconnect (X8).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

from intercede.core import (
    ClosedError,
    Command,
    CommandResult,
    ConnectionLost,
    CredentialProvider,
    OperationTimeout,
    Process,
    ResourceError,
    Unreachable,
)
from intercede.core.registry import TransportPlugin, describe

from .server import MAX_FRAME, frame, read_frame

__all__ = ["SocketConfig", "SocketTransport", "plugin"]

#: A file is written beside its place and renamed, so that it appears whole or not at all.
_PUT = 'cat >"$1.$$" && mv -f "$1.$$" "$1" || { rm -f "$1.$$"; exit 1; }'
_LOST = "the server closed the connection"


@frozen
class SocketConfig:
    """The keys of the configuration."""

    socket: str = field(metadata=describe("Path of the server's socket on this machine"))


class SocketTransport:
    """Commands through a Unix socket."""

    def __init__(self, config: SocketConfig, credentials: CredentialProvider | None = None) -> None:
        self._path = config.socket
        self._closed = False

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Later use raises `ClosedError`."""
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the socket transport is closed", remedy="make a new one")

    async def run(self, command: Command) -> CommandResult:
        """Run one command to its end."""
        stdout = bytearray()
        async with self.stream(command) as process:
            async for chunk in process.stdout:
                stdout += chunk
                if len(stdout) > command.max_output:
                    raise ResourceError(
                        f"{command.argv[0]} printed more than {command.max_output} bytes",
                        remedy="ask for less at once",
                    )
            result = await process.wait()
        return CommandResult(result.returncode, bytes(stdout), result.stderr)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        """Run one command; its output is read as it comes."""
        self._check()
        name = uuid.uuid4().hex
        reader, writer = await self._connected()
        process = _Remote(reader, command.max_output)
        feeding: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(command.timeout_s) as limit:
                words = [base64.b64encode(os.fsencode(word)).decode() for word in command.argv]
                wanted = json.dumps({"name": name, "argv": " ".join(words)})
                writer.write(frame(b"r", wanted.encode()))
                feeding = asyncio.create_task(_feed(writer, command.stdin, stdin))
                yield process
        except ConnectionLost:
            # We hung up because there was no more input to be had: then that is what went wrong.
            if feeding is not None and feeding.done() and (error := feeding.exception()):
                raise error from None
            raise
        except TimeoutError:
            if not limit.expired():
                raise
            raise OperationTimeout(
                f"{command.argv[0]} did not end within {command.timeout_s:g} s",
                may_have_run=True,
                remedy="try again, or give it more time",
            ) from None
        finally:
            await _whole(self._leave(name, process, feeding, writer))

    async def put(self, local: Path, remote: str) -> None:
        """Copy one file to the host."""
        await self._copied(("sh", "-c", _PUT, "sh", remote), _chunks(local), None)

    async def get(self, remote: str, local: Path) -> None:
        """Copy one file from the host."""
        beside = local.with_name(f".{local.name}.{uuid.uuid4().hex}")
        try:
            await self._copied(("cat", "--", remote), None, beside)
            await asyncio.to_thread(beside.replace, local)
        finally:
            await asyncio.to_thread(beside.unlink, missing_ok=True)

    async def _copied(
        self, argv: tuple[str, ...], source: AsyncIterable[bytes] | None, target: Path | None
    ) -> None:
        async with self.stream(Command(argv, timeout_s=3600), source) as process:
            if target is not None:
                with await asyncio.to_thread(target.open, "wb") as file:
                    async for chunk in process.stdout:
                        await asyncio.to_thread(file.write, chunk)
            result = await process.wait()
        if result.returncode:
            raise ResourceError(
                "the file could not be copied", said=result.stderr.decode(errors="replace")
            )

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise Unreachable(
                f"nothing answers at {self._path}: {error.strerror}", remedy="start the server"
            ) from None

    async def _leave(
        self,
        name: str,
        process: _Remote,
        feeding: asyncio.Task[None] | None,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Let go of a command; one that has not ended is ended, and it is waited for that (X6)."""
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait([feeding])
        if not process.complete:
            with suppress(OSError, EOFError, Unreachable):
                reader, other = await self._connected()
                other.write(frame(b"e", name.encode()))
                await read_frame(reader)
                other.close()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class _Remote:
    """A command that runs at the other end."""

    def __init__(self, reader: asyncio.StreamReader, max_stderr: int) -> None:
        self._reader = reader
        self._stderr = bytearray()
        self._max_stderr = max_stderr
        self._code = 0
        self.complete = False

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        return self._frames()

    async def _frames(self) -> AsyncIterator[bytes]:
        while not self.complete:
            try:
                kind, content = await read_frame(self._reader)
            except (EOFError, OSError):
                # It was sent, so it may have run. False here would invite somebody to do it twice (X7).
                raise ConnectionLost(_LOST, may_have_run=True, remedy="try again") from None
            if kind == b"o":
                yield content
            elif kind == b"e":
                self._stderr += content[: self._max_stderr - len(self._stderr)]
            elif kind == b"x":
                self._code = int(content)
                self.complete = True

    async def wait(self) -> CommandResult:
        """Wait for the end; what nobody read of stdout is lost."""
        async for _ in self._frames():
            pass
        return CommandResult(self._code, b"", bytes(self._stderr))


async def _feed(
    writer: asyncio.StreamWriter, first: bytes, rest: AsyncIterable[bytes] | None
) -> None:
    """Send all of the input and its end, no faster than it is taken. A command that stops reading is no error."""
    try:
        with suppress(OSError):
            await _send(writer, first)
        async for chunk in rest or _nothing():
            with suppress(OSError):
                await _send(writer, chunk)
        with suppress(OSError):
            writer.write(frame(b"i"))
            await writer.drain()
    except Exception:
        writer.transport.abort()
        raise


async def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    for start in range(0, len(content), MAX_FRAME):
        writer.write(frame(b"i", content[start : start + MAX_FRAME]))
        await writer.drain()


async def _nothing() -> AsyncIterator[bytes]:
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, MAX_FRAME):
            yield chunk


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what must not be left half-done, whoever cancels us meanwhile."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


plugin = TransportPlugin(SocketConfig, SocketTransport, summary="Commands through a Unix socket")
