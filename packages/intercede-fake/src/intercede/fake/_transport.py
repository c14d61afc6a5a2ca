"""A host that is not there.

Commands are answered from a table (`_commands`), or by handlers that a test registers; files live in a mapping. Nothing is started, so
nothing has to be ended: a time-out or a cancellation only stops waiting.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import tempfile
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, Self, TypeAlias, TypeVar

from attrs import evolve, field, frozen

from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    InterCEdeError,
    OperationTimeout,
    Process,
    ResourceError,
)
from intercede.core.registry import describe

from ._clock import Clock, FastClock
from ._commands import Ending, ending_of
from ._content import Content
from ._faults import Fault, Faults, Operation, Trouble, faults_of
from ._lifetime import Lifetime, in_thread
from ._queue import FakeQueue
from ._site import FakeSite

__all__ = ["FakeTransport", "FakeTransportConfig", "Handler", "make_transport"]

T = TypeVar("T")

Handler: TypeAlias = Callable[[Command], CommandResult]
"""What a test says a program does."""

_NAME: Final = "fake"
_HOME: Final = "/home/fake"


@frozen
class FakeTransportConfig:
    """The keys of a fake transport."""

    speed: float = field(
        default=1.0, metadata=describe("How fast time passes", unit="fake s per s")
    )
    faults: tuple[Fault, ...] = field(
        default=(), converter=faults_of, metadata=describe("What goes wrong; a list of tables")
    )


class FakeTransport:
    """Commands on a pretend host.

    Args:
        handlers: By program name, what it does; they come before the built-in commands.
        clock: For time-outs, `sleep` and slow faults; None: real time.
        faults: What goes wrong.

    Attributes:
        files: The host's files, by absolute path. A test may change it.
        faults: What goes wrong; may be changed at any time.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler] | None = None,
        *,
        clock: Clock | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.files: dict[str, bytes] = {}
        self.faults = Faults(faults)
        self._handlers = dict(handlers or {})
        self._clock = FastClock(1.0) if clock is None else clock
        self._lifetime = Lifetime(_NAME, self._clock, self.faults)

    async def __aenter__(self) -> Self:
        self._lifetime.check("open")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Files stay. Idempotent."""
        self._lifetime.close()

    async def run(self, command: Command) -> CommandResult:
        """As `Transport`."""
        trouble = await self._lifetime.begin(Operation.RUN)
        ending = self._ending(command)
        await self._clock.sleep(min(ending.seconds, command.timeout_s))
        self._lifetime.check(Operation.RUN)
        if ending.seconds > command.timeout_s:
            raise _timed_out(command, Operation.RUN)
        if ending.stdout.size > command.max_output or len(ending.stderr) > command.max_output:
            raise _too_much(command, Operation.RUN)
        self._lifetime.end(trouble, Operation.RUN)
        return CommandResult(ending.returncode, bytes(ending.stdout), ending.stderr)

    def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AbstractAsyncContextManager[Process]:
        """As `Transport`. `cat` passes its input on as it comes; handlers get all of it at once."""
        return self._stream(command, stdin)

    @asynccontextmanager
    async def _stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None
    ) -> AsyncIterator[Process]:
        trouble = await self._lifetime.begin(Operation.STREAM)
        process = _FakeProcess(command)
        async with (
            aclosing(self._output(process, stdin)) as output,
            aclosing(self._cut(process, output, trouble)) as process.stdout,
        ):
            yield process

    async def _cut(
        self, process: _FakeProcess, output: AsyncIterator[bytes], trouble: Trouble
    ) -> AsyncGenerator[bytes, None]:
        """The output, up to where a fault cuts it: in the middle of the first chunk, or at its end if there is none."""
        try:
            async for chunk in output:
                if trouble.done is None:
                    yield chunk
                else:
                    yield chunk[: -(-len(chunk) // 2)]
                    break
            self._lifetime.end(trouble, Operation.STREAM)
        except InterCEdeError as error:
            process.error = error
            raise

    async def _output(
        self, process: _FakeProcess, stdin: AsyncIterable[bytes] | None
    ) -> AsyncGenerator[bytes, None]:
        """What the command prints, at the pace of who reads; its ending is known afterwards."""
        command = process.command
        deadline = self._clock.now() + command.timeout_s
        sent = _all_of(command.stdin, stdin)
        is_pipe = command.argv[0] == "cat" and "cat" not in self._handlers
        if is_pipe:
            while chunk := await self._by(deadline, command, anext(sent, b"")):
                yield chunk
            process.ending = Ending()
        else:
            reads_input = command.argv[0] in self._handlers
            everything = await self._by(deadline, command, _joined(sent)) if reads_input else b""
            ending = self._ending(evolve(command, stdin=everything))
            await self._by(deadline, command, self._clock.sleep(ending.seconds))
            for chunk in ending.stdout.chunks():
                self._lifetime.check(Operation.STREAM)
                if self._clock.now() > deadline:
                    raise _timed_out(command, Operation.STREAM)
                yield chunk
            process.ending = ending

    async def put(self, local: Path, remote: str) -> None:
        """As `Transport`.

        Raises:
            OSError: `local` cannot be read.
        """
        trouble = await self._lifetime.begin(Operation.PUT)
        content = await in_thread(Path(local).read_bytes)
        self.files[_absolute(remote)] = content
        self._lifetime.end(trouble, Operation.PUT)

    async def get(self, remote: str, local: Path) -> None:
        """As `Transport`.

        Raises:
            OSError: `local` cannot be written.
        """
        trouble = await self._lifetime.begin(Operation.GET)
        content = self.files.get(_absolute(remote))
        if content is None:
            raise ResourceError(f"{remote!r} is not there", resource=_NAME, operation=Operation.GET)
        await in_thread(lambda: _write_whole(Path(local), content))
        self._lifetime.end(trouble, Operation.GET)

    def _ending(self, command: Command) -> Ending:
        handler = self._handlers.get(command.argv[0])
        if handler is None:
            return ending_of(command)
        result = handler(command)
        return Ending(result.returncode, Content.of(result.stdout), result.stderr)

    async def _by(self, deadline: float, command: Command, work: Awaitable[T]) -> T:
        """The result of `work`, if it comes before the deadline on the clock."""
        working = asyncio.ensure_future(work)
        waking = asyncio.ensure_future(self._clock.sleep(max(deadline - self._clock.now(), 0)))
        try:
            await asyncio.wait([working, waking], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _timed_out(command, Operation.STREAM)
            self._lifetime.check(Operation.STREAM)
            return await working
        finally:
            for task in (working, waking):
                task.cancel()
            await asyncio.wait([working, waking])
            if not working.cancelled():
                working.exception()


def make_transport(config: FakeTransportConfig) -> FakeTransport:
    """A pretend host with a `FakeQueue`, on one clock."""
    clock = FastClock(config.speed)
    return FakeTransport(FakeQueue(FakeSite(clock)).handlers, clock=clock, faults=config.faults)


class _FakeProcess:
    """As `Process`."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.ending: Ending | None = None
        self.error: InterCEdeError | None = None
        self.stdout: AsyncIterator[bytes] = _all_of(b"", None)

    async def wait(self) -> CommandResult:
        async for _ in self.stdout:
            pass  # what nobody reads would keep the command from ending
        if self.ending is None:
            raise self.error or _given_up(self.command)
        if len(self.ending.stderr) > self.command.max_output:
            raise _too_much(self.command, Operation.STREAM)
        return CommandResult(self.ending.returncode, b"", self.ending.stderr)


async def _all_of(first: bytes, then: AsyncIterable[bytes] | None) -> AsyncIterator[bytes]:
    if first:
        yield first
    if then is not None:
        async for chunk in then:
            if chunk:
                yield chunk


async def _joined(chunks: AsyncIterable[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def _absolute(remote: str) -> str:
    return posixpath.normpath(posixpath.join(_HOME, remote))


def _write_whole(local: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=local.parent, prefix=".getting-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(local)
    except BaseException:
        Path(name).unlink()
        raise


def _timed_out(command: Command, operation: Operation) -> InterCEdeError:
    return OperationTimeout(
        f"{command.argv[0]!r} did not end within {command.timeout_s:g} s",
        may_have_run=True,
        resource=_NAME,
        operation=operation,
        remedy="give it more time",
    )


def _given_up(command: Command) -> InterCEdeError:
    return ConnectionLost(
        f"reading {command.argv[0]!r} was given up",
        may_have_run=True,
        resource=_NAME,
        operation=Operation.STREAM,
    )


def _too_much(command: Command, operation: Operation) -> InterCEdeError:
    return ResourceError(
        f"{command.argv[0]!r} printed more than {command.max_output} bytes",
        resource=_NAME,
        operation=operation,
        remedy="raise max_output, or stream it",
    )
