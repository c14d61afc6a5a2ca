"""What every lying transport is made from: commands on this machine, over a connection that is only pretended.

The connection can be made to fail, and the login to be noisy; so every rule about transports is observed, with real processes. Each step
of a command is a method of its own, for a liar to take wrongly.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final

import anyio
import anyio.abc
from attrs import evolve, field, frozen

from intercede.contract import LocalProbe, TransportResource
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    CredentialProvider,
    InterCEdeError,
    OperationTimeout,
    Process,
    ResourceError,
    Transport,
    Unreachable,
    registry,
)
from intercede.core.registry import describe
from intercede.toolkit import quote, sole, to_its_end
from intercede.transport.local import LocalTransport
from intercede.transport.local._transport import (
    _NeverStarted,
    _Running,
    _start,
)

from ._honest import LIARS

__all__ = [
    "HONEST_TRANSPORT",
    "HonestTransport",
    "Started",
    "TransportLiarConfig",
    "make_transport",
    "transport_resource_of",
]

#: The name under which the honest one is run.
HONEST_TRANSPORT: Final = "honest_transport"

#: A noisy login says something, and a line after which the command's own words begin.
_LOGIN: Final = 'printf "%s\\n" "Welcome to node1" begin-5a1f; exec "$@"'
_BEGIN: Final = b"begin-5a1f\n"
#: What a login shell is told, whichever it is: to become sh, and to run so many bytes of the input.
_LINE: Final = "exec sh -c 'eval \"$(dd bs=1 count={size} 2>/dev/null)\"'"
#: Those that take quotes, `!` and `2>` otherwise than sh.
_OTHER_SHELLS: Final = ("csh", "tcsh")


@frozen
class TransportLiarConfig:
    """Which liar, and what is the matter with the way to the host."""

    lie: str = field(default=HONEST_TRANSPORT, metadata=describe("Which liar"))
    noisy: bool = field(default=False, metadata=describe("The login says something first"))
    shell: str = field(default="", metadata=describe("The login shell; none if empty"))
    fault: str = field(default="", metadata=describe("What goes wrong at the first command"))


class HonestTransport(LocalTransport):
    """Keeps every rule.

    Attributes:
        noisy: The login says something before the command does.
        shell: The login shell that is told what to start; nothing if there is none between.
        fault: What goes wrong next; nothing if empty.
        left: What was not ended; closing ends it, so that no lie outlives its test.
    """

    def __init__(
        self, config: TransportLiarConfig, credentials: CredentialProvider | None = None
    ) -> None:
        super().__init__()
        self.noisy = config.noisy
        self.shell = config.shell
        self.fault = config.fault
        self.left: list[Started] = []

    async def aclose(self) -> None:
        for running in self.left:
            await running.end()
        await super().aclose()

    # -------------------------------------------------------------- the way to the host

    def befalls(self, fault: str) -> bool:
        """Whether this is what goes wrong now. It does so once."""
        if self.fault != fault:
            return False
        self.fault = ""
        return True

    async def reach(self) -> None:
        """Come as far as the host."""
        self._lifetime.check()
        if self.befalls("unreachable"):
            raise self.unreachable()
        if self.befalls("lost-before"):
            raise self.lost(has_run=False)

    def unreachable(self) -> InterCEdeError:
        """The error when nothing answers."""
        return Unreachable("nothing answers", remedy="try again later")

    def lost(self, *, has_run: bool) -> InterCEdeError:
        """The error when the connection broke."""
        return ConnectionLost("the connection broke", may_have_run=has_run, remedy="try again")

    def out_of_time(self, command: Command) -> InterCEdeError:
        """The error when a command takes too long."""
        return OperationTimeout(
            f"{command.argv[0]} did not end within {command.timeout_s:g} s", may_have_run=True
        )

    # -------------------------------------------------------------- commands

    async def run(self, command: Command) -> CommandResult:
        await self.reach()
        result = await self.ran(command)
        if self.befalls("lost-after"):
            raise self.lost(has_run=True)
        return result

    async def ran(self, command: Command) -> CommandResult:
        """Run one command on the host that was reached."""
        stdout = bytearray()
        async with self.started(command, None) as process:
            async for chunk in process.stdout:
                stdout += chunk
                self.bound(command, stdout)
            result = await process.wait()
        return CommandResult(result.returncode, bytes(stdout), result.stderr)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        await self.reach()
        async with self.started(command, stdin, streamed=True) as process:
            yield process
        if self.befalls("lost-after"):
            raise self.lost(has_run=True)

    @asynccontextmanager
    async def started(
        self, command: Command, stdin: AsyncIterable[bytes] | None, *, streamed: bool = False
    ) -> AsyncIterator[Process]:
        """Run one command; see `LocalTransport.stream`."""
        try:
            child = await _start(evolve(command, argv=self.argv(command)))
        except FileNotFoundError as error:
            yield self.not_there(error)
            return
        running = Started(child, self.kept(command), command, stdin, streamed)
        running.script = self.told(command.argv)[1] if self.shell else b""
        scope = anyio.CancelScope()
        try:
            with scope:
                scope.deadline = anyio.current_time() + self.time(running)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.feed, running)
                    tasks.start_soon(self.keep_stderr, running)
                    yield Heard(self, running)
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            running.late = scope.cancelled_caught
            await to_its_end(self.end(running))
        if scope.cancelled_caught:
            raise self.out_of_time(command)

    # -------------------------------------------------------------- the steps of a command

    def argv(self, command: Command) -> Sequence[str]:
        """What is started."""
        if self.shell:
            return (self.shell, "-c", self.told(command.argv)[0])
        return ("sh", "-c", _LOGIN, "login", *command.argv) if self.noisy else command.argv

    def told(self, argv: Sequence[str]) -> tuple[str, bytes]:
        """What a login shell is told, and what then comes before the command's input."""
        script = os.fsencode(f"exec {' '.join(map(quote, argv))}")
        return _LINE.format(size=len(script)), script

    def not_there(self, error: FileNotFoundError) -> Process:
        """What comes of a program that is not there."""
        return _NeverStarted(f"{error.filename}: {error.strerror}\n".encode())

    def time(self, running: Started) -> float:
        """After how many seconds it is ended."""
        return running.command.timeout_s

    async def feed(self, running: Started) -> None:
        """Write all of the input and its end."""
        await running.feed(running.command.stdin, running.rest)

    def kept(self, command: Command) -> int:
        """How many bytes of stderr are kept."""
        return command.max_output

    async def keep_stderr(self, running: Started) -> None:
        """Read stderr to its end."""
        await running.keep_stderr()

    async def heard(self, running: Started) -> AsyncIterator[bytes]:
        """The command's own output, as it is read."""
        before = b"" if self.noisy else None
        async for chunk in running.stdout:
            if before is None:
                yield chunk
            else:
                before += chunk
                _, begun, words = before.partition(_BEGIN)
                if begun:
                    before = None
                    yield words

    def bound(self, command: Command, stdout: bytearray) -> None:
        """Raise if there is too much of it."""
        if len(stdout) > command.max_output:
            raise ResourceError(f"{command.argv[0]} printed more than {command.max_output} bytes")

    def code(self, running: Started, code: int) -> int:
        """What is told of how it ended."""
        return code

    async def end(self, running: Started) -> None:
        """Let go of it, and end it if it has not ended."""
        await running.end()


class Started(_Running):
    """A command that was started.

    Args:
        child: The process.
        stderr_kept: How many bytes of its stderr to keep.
        command: What was wanted.
        rest: Its input after the command's own.
        streamed: Whether it is a stream.

    Attributes:
        late: It took too long.
        script: What goes before its input.
    """

    script: bytes = b""

    def __init__(
        self,
        child: anyio.abc.Process,
        stderr_kept: int,
        command: Command,
        rest: AsyncIterable[bytes] | None,
        streamed: bool,
    ) -> None:
        super().__init__(child, stderr_kept)
        self.command = command
        self.rest = rest
        self.streamed = streamed
        self.late = False

    @property
    def over(self) -> bool:
        """It has ended, and somebody has heard how."""
        return self._complete

    async def exited(self) -> int:
        """Wait for its end alone."""
        return await self._child.wait()

    @property
    def alive(self) -> bool:
        """The process that was started has not ended, whether or not anybody has heard."""
        try:
            stat = Path(f"/proc/{self._child.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] not in ("Z", "X")

    async def feed(self, first: bytes, rest: AsyncIterable[bytes] | None) -> None:
        """Write the script, all of the input, and its end."""
        await super().feed(self.script + first, rest)

    async def send(self, content: bytes) -> None:
        """Write input."""
        assert self._child.stdin is not None
        await self._child.stdin.send(content)

    def signal(self, number: int, *, leader: bool = False) -> None:
        """Send a signal to all of it, or to the process alone that was started."""
        if leader:
            self._child.send_signal(signal.Signals(number))
        else:
            self._signal(number)


class Heard:
    """A command as its transport tells of it."""

    def __init__(self, transport: HonestTransport, running: Started) -> None:
        self._transport = transport
        self._running = running
        self._stdout = transport.heard(running)

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """See `Process`."""
        return self._stdout

    async def wait(self) -> CommandResult:
        """See `Process`."""
        result = await self._running.wait()
        return evolve(result, returncode=self._transport.code(self._running, result.returncode))


def make_transport(
    config: TransportLiarConfig, credentials: CredentialProvider | None
) -> Transport:
    """The liar that the configuration names."""
    if config.lie == HONEST_TRANSPORT:
        return HonestTransport(config, credentials)
    transport: Transport = LIARS[config.lie].made(config, credentials)
    return transport


# ---------------------------------------------------------------- what the suite is told of it


def _failing(config: str | Mapping[str, Any], fault: str) -> AbstractAsyncContextManager[Transport]:
    assert isinstance(config, Mapping)
    return registry.transport({**config, "fault": fault})


class HonestTransportFaults:
    """What can be made to go wrong with the way to the host."""

    def unreachable(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        """See `TransportFaults`."""
        return _failing(config, "unreachable")

    def lost_before(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        """See `TransportFaults`."""
        return _failing(config, "lost-before")

    def lost_after(self, config: str | Mapping[str, Any]) -> AbstractAsyncContextManager[Transport]:
        """See `TransportFaults`."""
        return _failing(config, "lost-after")


class Impatient(TransportResource):
    """A lie is seen at once; who waits for one would wait for ever."""

    @property
    def patience_s(self) -> float:
        """As short as a busy machine allows."""
        return 6.0

    @property
    def glance_s(self) -> float:
        """Likewise."""
        return 0.15

    @property
    def brief_s(self) -> float:
        """Likewise."""
        return 0.15


def transport_resource_of(name: str) -> TransportResource:
    """What the suite is told of this liar, or of the honest one."""
    config = {"type": "liar", "lie": name}
    shells = [shell for shell in _OTHER_SHELLS if shutil.which(shell)]
    resource = Impatient(
        config=config,
        seconds=0.05,
        logins={
            "noisy": {**config, "noisy": True},
            **{shell: {**config, "shell": shell} for shell in shells},
        },
        probe=LocalProbe(gettempdir()),
        faults=HonestTransportFaults(),
    )
    liar = LIARS.get(name)
    lacking: dict[str, Any] = {liar.lacking: None} if liar and liar.lacking else {}
    return evolve(resource, **lacking)
