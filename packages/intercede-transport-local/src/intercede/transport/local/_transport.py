"""Commands on this machine, as if it were another: every command in a session of its own, in the home directory.

A session of its own keeps the terminal's Ctrl-C from ending a scheduler's command half-way, and lets a time-out or a cancelled call end
the command with all it started, unless it left the session on purpose.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio
import anyio.abc
from attrs import frozen

from intercede.core import (
    Command,
    CommandResult,
    CredentialProvider,
    OperationTimeout,
    Process,
    ResourceError,
    Unreachable,
)
from intercede.toolkit import Lifetime, sole, to_its_end

__all__ = ["LocalConfig", "LocalTransport"]

T = TypeVar("T")

#: How long a command may take to clean up after SIGTERM, in seconds.
_TERM_GRACE_S = 1.0
#: How much of a streamed command's stderr is kept, in bytes.
_STDERR_KEPT = 64 * 1024
_CHUNK = 256 * 1024


@frozen
class LocalConfig:
    """This machine needs no configuration."""


class LocalTransport:
    """Runs commands on this machine. Holds no connection: nothing to open, nothing to lose.

    Commands inherit this process's environment. A program that is not there is a result with exit code 127, as from a shell.
    """

    def __init__(
        self, config: LocalConfig | None = None, credentials: CredentialProvider | None = None
    ) -> None:
        self._lifetime = Lifetime("the local transport")

    async def __aenter__(self) -> Self:
        self._lifetime.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Later use raises `ClosedError`. Idempotent."""
        self._lifetime.close()

    async def run(self, command: Command) -> CommandResult:
        """Run one command to its end.

        Raises:
            OperationTimeout: It took longer than `command.timeout_s`; it was ended.
            ResourceError: It printed more than `command.max_output`; it was ended.
        """
        stdout = bytearray()
        async with self.stream(command) as process:
            async for chunk in process.stdout:
                stdout += chunk
                if len(stdout) > command.max_output:
                    raise ResourceError(
                        f"{command.argv[0]} printed more than {command.max_output} bytes"
                    )
            result = await process.wait()
        return CommandResult(result.returncode, bytes(stdout), result.stderr)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        """Run one command, its output read as it comes.

        Raises:
            OperationTimeout: The block took longer than `command.timeout_s`; the command was ended.
        """
        self._lifetime.check()
        try:
            child = await _start(command)
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            if not Path.home().is_dir():
                raise Unreachable(
                    f"the home directory {str(Path.home())!r} is not there", remedy="set HOME"
                ) from None
            yield _NeverStarted(f"{command.argv[0]}: {error.strerror}\n".encode())
            return
        process = _Running(child, min(command.max_output, _STDERR_KEPT))
        scope = anyio.CancelScope()
        try:
            with scope:
                scope.deadline = anyio.current_time() + command.timeout_s
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(process.feed, command.stdin, stdin)
                    tasks.start_soon(process.keep_stderr)
                    yield process
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            await to_its_end(process.end())
        if scope.cancelled_caught:
            raise OperationTimeout(
                f"{command.argv[0]} did not end within {command.timeout_s:g} s", may_have_run=True
            )

    async def put(self, local: Path, remote: str) -> None:
        """Copy a file. It appears whole or not at all."""
        self._lifetime.check()
        await anyio.to_thread.run_sync(_copy, local, Path.home() / remote)

    async def get(self, remote: str, local: Path) -> None:
        """Copy a file. It appears whole or not at all."""
        self._lifetime.check()
        await anyio.to_thread.run_sync(_copy, Path.home() / remote, local)


async def _start(command: Command) -> anyio.abc.Process:
    """Start the command, in a session of its own; all of it or not at all, since a start that is cancelled half-way leaks its pipes."""
    starting = asyncio.ensure_future(
        anyio.open_process(command.argv, cwd=Path.home(), start_new_session=True)
    )
    try:
        return await to_its_end(starting)
    except asyncio.CancelledError:
        if starting.done() and not starting.cancelled() and starting.exception() is None:
            await to_its_end(_Running(starting.result(), 0).end())
        raise


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


class _NeverStarted:
    """What a program that is not there leaves."""

    def __init__(self, stderr: bytes) -> None:
        self._stderr = stderr

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        return self._nothing()

    async def _nothing(self) -> AsyncIterator[bytes]:
        nothing: tuple[bytes, ...] = ()
        for chunk in nothing:
            yield chunk

    async def wait(self) -> CommandResult:
        return CommandResult(127, b"", self._stderr)


class _Running:
    """A command that was started.

    Args:
        child: The process.
        stderr_kept: How many bytes of its stderr to keep.
    """

    def __init__(self, child: anyio.abc.Process, stderr_kept: int) -> None:
        self._child = child
        self._stderr = bytearray()
        self._stderr_kept = stderr_kept
        self._stderr_ended = anyio.Event()
        self._complete = False

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        assert self._child.stdout is not None
        while True:
            try:
                yield await self._child.stdout.receive(_CHUNK)
            except anyio.EndOfStream:
                return

    async def wait(self) -> CommandResult:
        """Wait for the end of the command and of its stderr."""
        code = await self._child.wait()
        # A child of the command may keep stderr open for longer than the command lives.
        with anyio.move_on_after(_TERM_GRACE_S):
            await self._stderr_ended.wait()
        self._complete = True
        return CommandResult(code, b"", bytes(self._stderr))

    async def feed(self, first: bytes, rest: AsyncIterable[bytes] | None) -> None:
        """Write all of the input and its end; a command that stops reading is no error."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError, ConnectionError, anyio.BrokenResourceError):
            if first:
                await self._child.stdin.send(first)
            if rest is not None:
                async for chunk in rest:
                    await self._child.stdin.send(chunk)
        with suppress(BrokenPipeError, ConnectionError):
            await self._child.stdin.aclose()

    async def keep_stderr(self) -> None:
        """Read stderr to its end; keep what fits."""
        assert self._child.stderr is not None
        try:
            async for chunk in self._child.stderr:
                room = self._stderr_kept - len(self._stderr)
                self._stderr += chunk[: max(room, 0)]
        finally:
            self._stderr_ended.set()

    async def end(self) -> None:
        """End what was left early, with all of its process group, and let go of the pipes."""
        if not self._complete:
            self._signal(signal.SIGTERM)
            with anyio.move_on_after(_TERM_GRACE_S):
                await self._child.wait()
            # The leader may be gone and others of its group not.
            self._signal(signal.SIGKILL)
        self._drop_input()
        await self._child.aclose()

    def _drop_input(self) -> None:
        """Give up input that was not taken: closing the pipe waits until it is, or until nobody holds the other end any more."""
        child: Any = self._child
        pipe = child._process.stdin.transport  # which anyio does not show
        if pipe.get_write_buffer_size():
            pipe.abort()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)
