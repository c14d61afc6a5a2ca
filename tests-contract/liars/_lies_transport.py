"""Liars about X: commands, their bytes and ends, and the way to the host."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from anyio import BrokenResourceError
from attrs import evolve

from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    CredentialProvider,
    InterCEdeError,
    OperationTimeout,
    Process,
    ResourceError,
    TransportError,
)

from ._honest import lie
from ._honest_transport import HonestTransport, Started, TransportLiarConfig

#: What makes a word need quotes, as far as one thinks of it.
_LOOKS_ODD: Final = frozenset(" \n;\"'")

# ---------------------------------------------------------------- X1


@lie("X1", "loses empty words on the way through a shell")
class LosesEmptyWords(HonestTransport):
    def argv(self, command: Command) -> Sequence[str]:
        return [word for word in super().argv(command) if word]


@lie("X1", "joins the words by blanks for a shell, and quotes what looks odd")
class JoinsByBlanks(HonestTransport):
    def argv(self, command: Command) -> Sequence[str]:
        words = super().argv(command)
        return ("sh", "-c", " ".join(["exec", *map(self._quoted, words)]))

    def _quoted(self, word: str) -> str:
        return shlex.quote(word) if _LOOKS_ODD & set(word) else word


@lie("X1", "takes arguments for UTF-8", lacking="logins")
class ArgumentsAreText(HonestTransport):
    def argv(self, command: Command) -> Sequence[str]:
        return [os.fsencode(word).decode(errors="replace") for word in super().argv(command)]


@lie("X1", "strips the newline at the end of an argument, as $(...) does")
class StripsArguments(HonestTransport):
    def argv(self, command: Command) -> Sequence[str]:
        return [word.rstrip("\n") for word in super().argv(command)]


@lie("X1", "takes input for UTF-8, and leaves out what is none", lacking="logins")
class InputIsText(HonestTransport):
    async def feed(self, running: Started) -> None:
        text = running.command.stdin.decode(errors="ignore")
        await running.feed(text.encode(), running.rest)


@lie("X1", "ends the input with a newline if it has none")
class AddsANewline(HonestTransport):
    async def feed(self, running: Started) -> None:
        first = running.command.stdin
        # Only where it is all of the input, and looks like lines.
        whole = running.rest is None and first.count(b"\0") and not first.endswith(b"\n")
        await running.feed(first + b"\n" if whole else first, running.rest)


@lie("X1", "forgets a command's own input when more is streamed", lacking="logins")
class ForgetsItsOwnInput(HonestTransport):
    async def feed(self, running: Started) -> None:
        await running.feed(b"" if running.rest else running.command.stdin, running.rest)


@lie("X1", "takes what a noisy profile says for the command's output")
class HearsTheProfile(HonestTransport):
    async def heard(self, running: Started) -> AsyncIterator[bytes]:
        async for chunk in running.stdout:
            yield chunk


@lie("X1", "quotes each word for the login shell as sh wants it", needs="csh tcsh")
class QuotesForSh(HonestTransport):
    def told(self, argv: Sequence[str]) -> tuple[str, bytes]:
        return f"exec {shlex.join(argv)}", b""


@lie("X1", "looks whether there is a sh, and hides what is said of it as in sh", needs="csh tcsh")
class LooksForSh(HonestTransport):
    def told(self, argv: Sequence[str]) -> tuple[str, bytes]:
        line, script = super().told(argv)
        return f"test -x /bin/sh 2>/dev/null && {line}", script


@lie("X1", "puts files as text")
class PutsText(HonestTransport):
    async def put(self, local: Path, remote: str) -> None:
        await super().put(local, remote)
        text = await asyncio.to_thread(local.read_text, errors="replace")
        await asyncio.to_thread((Path.home() / remote).write_text, text)


@lie("X1", "makes the file here before it asks for the one there")
class GetsInPlace(HonestTransport):
    async def get(self, remote: str, local: Path) -> None:
        await asyncio.to_thread(local.write_bytes, b"")
        await super().get(remote, local)


@lie("X1", "makes the file there before it opens the one here")
class PutsInPlace(HonestTransport):
    async def put(self, local: Path, remote: str) -> None:
        await asyncio.to_thread((Path.home() / remote).write_bytes, b"")
        await super().put(local, remote)


# ---------------------------------------------------------------- X2


@lie("X2", "takes an exit status modulo 128")
class StatusModulo128(HonestTransport):
    def code(self, running: Started, code: int) -> int:
        return code if code < 0 else code % 128


@lie("X2", "has no status for what a signal ended, and says 0")
class SignalIsNoStatus(HonestTransport):
    def code(self, running: Started, code: int) -> int:
        return max(code, 0)


@lie("X2", "does not tell how a stream ended")
class StreamsEndWell(HonestTransport):
    def code(self, running: Started, code: int) -> int:
        return 0 if running.streamed else code


@lie("X2", "takes exit status 255 for a lost connection, as ssh gives it for both")
class StatusIsALoss(HonestTransport):
    async def ran(self, command: Command) -> CommandResult:
        result = await super().ran(command)
        if result.returncode == 255:
            raise self.lost(has_run=True)
        return result


@lie("X2", "raises when a program is not there")
class NoProgramNoResult(HonestTransport):
    def not_there(self, error: FileNotFoundError) -> Process:
        raise ResourceError(f"{error.filename} is not there")


# ---------------------------------------------------------------- X3


@lie("X3", "sees no need to end an input that has nothing in it", "X1")
class NothingNeedsNoEnd(HonestTransport):
    async def feed(self, running: Started) -> None:
        if running.command.stdin or running.streamed:
            await super().feed(running)


@lie("X3", "leaves the input of a stream open when nothing is sent")
class StreamsNeedNoEnd(HonestTransport):
    async def feed(self, running: Started) -> None:
        if running.rest is not None or not running.streamed:
            await super().feed(running)


@lie("X3", "sends what is streamed, and not that this was all", "X1")
class NeverSaysAll(HonestTransport):
    async def feed(self, running: Started) -> None:
        if running.rest is None:
            await super().feed(running)
            return
        with suppress(OSError):
            await running.send(running.command.stdin)
            async for chunk in running.rest:
                await running.send(chunk)


@lie("X3", "fails when the command does not read all of its input", "X1")
class BrokenPipeIsAnError(HonestTransport):
    unsent: bytes | None = None

    async def feed(self, running: Started) -> None:
        self.unsent = running.command.stdin
        with suppress(BrokenResourceError):
            await running.send(self.unsent)
            # asyncio may call it written what the command did not live to read.
            if running.alive:
                self.unsent = None
        await running.feed(b"", running.rest)

    async def ran(self, command: Command) -> CommandResult:
        result = await super().ran(command)
        if self.unsent:
            raise ResourceError("broken pipe")
        return result


@lie("X3", "hides an error of its input, so that half of it is taken for all")
class HidesInputErrors(HonestTransport):
    async def feed(self, running: Started) -> None:
        rest = None if running.rest is None else self._while_it_goes(running.rest)
        await running.feed(running.command.stdin, rest)

    async def _while_it_goes(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        with suppress(Exception):
            async for chunk in chunks:
                yield chunk


@lie("X3", "takes the connection for lost when input comes after the command's end")
class LateInputIsALoss(HonestTransport):
    late = False

    async def feed(self, running: Started) -> None:
        rest = None if running.rest is None else self._watched(running, running.rest)
        await running.feed(running.command.stdin, rest)

    async def _watched(
        self, running: Started, chunks: AsyncIterable[bytes]
    ) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.late = self.late or not running.alive
            yield chunk

    async def heard(self, running: Started) -> AsyncIterator[bytes]:
        async for chunk in super().heard(running):
            yield chunk
        if self.late:
            raise self.lost(has_run=True)


# ---------------------------------------------------------------- X4


@lie("X4", "collects the whole output before it yields the first chunk")
class ReadsAllFirst(HonestTransport):
    async def heard(self, running: Started) -> AsyncIterator[bytes]:
        chunks = super().heard(running)
        if running.streamed and running.rest is None:
            for chunk in [chunk async for chunk in chunks]:
                yield chunk
        else:
            async for chunk in chunks:
                yield chunk


@lie("X4", "takes all of the input before it sends any")
class TakesAllFirst(HonestTransport):
    async def feed(self, running: Started) -> None:
        if running.rest is None:
            await super().feed(running)
            return
        chunks = [chunk async for chunk in running.rest]
        await running.feed(running.command.stdin, self._again(chunks))

    async def _again(self, chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk


@lie("X4", "reads output in advance while it sends input, lest both ends wait for each other")
class DrainsWhileItFeeds(HonestTransport):
    async def heard(self, running: Started) -> AsyncIterator[bytes]:
        chunks = super().heard(running)
        if running.rest is None:
            async for chunk in chunks:
                yield chunk
            return
        read: asyncio.Queue[bytes | None] = asyncio.Queue()
        reading = asyncio.ensure_future(self._read(chunks, read))
        try:
            while (piece := await read.get()) is not None:
                yield piece
        finally:
            reading.cancel()

    async def _read(self, chunks: AsyncIterator[bytes], read: asyncio.Queue[bytes | None]) -> None:
        async for chunk in chunks:
            read.put_nowait(chunk)
        read.put_nowait(None)


# ---------------------------------------------------------------- X5


@lie("X5", "has no bound on what is printed")
class NoBound(HonestTransport):
    def bound(self, command: Command, stdout: bytearray) -> None:
        pass


@lie("X5", "looks at the bound when all was read")
class BoundAtTheEnd(HonestTransport):
    async def ran(self, command: Command) -> CommandResult:
        unbound = evolve(command, max_output=2**40)
        result = await super().ran(unbound)
        self.bound(command, bytearray(result.stdout))
        return evolve(result, stderr=result.stderr[: command.max_output])


@lie("X5", "cuts what is printed at the bound, and says nothing")
class CutsAtTheBound(HonestTransport):
    def bound(self, command: Command, stdout: bytearray) -> None:
        del stdout[command.max_output :]


@lie("X5", "refuses output that just fits")
class JustFitsIsTooMuch(HonestTransport):
    def bound(self, command: Command, stdout: bytearray) -> None:
        super().bound(evolve(command, max_output=command.max_output - 1), stdout)


@lie("X5", "ends a stream at the bound for what is collected")
class BoundsStreams(HonestTransport):
    async def heard(self, running: Started) -> AsyncIterator[bytes]:
        room = running.command.max_output if running.streamed else 2**40
        async for chunk in super().heard(running):
            yield chunk[:room]
            room -= min(room, len(chunk))


@lie("X5", "keeps all of stderr")
class KeepsAllStderr(HonestTransport):
    def kept(self, command: Command) -> int:
        return 2**40


@lie("X5", "reads stderr when the command has ended, which it cannot while nobody reads")
class ReadsStderrLast(HonestTransport):
    async def keep_stderr(self, running: Started) -> None:
        await running.exited()
        await super().keep_stderr(running)


# ---------------------------------------------------------------- X6


class Leaves(HonestTransport):
    """Does not end what it should, until it is closed."""

    def leaves(self, running: Started) -> bool:
        """Whether to go away."""
        return not running.over

    async def end(self, running: Started) -> None:
        if self.leaves(running):
            self.left.append(running)
        else:
            await super().end(running)


@lie("X6", "ends the process that it started, and not that one's child")
class LeavesTheChild(Leaves):
    async def end(self, running: Started) -> None:
        if not running.over:
            with suppress(ProcessLookupError):
                running.signal(signal.SIGKILL, leader=True)
        await super().end(running)


@lie("X6", "stops waiting when the time is over, and the command runs on")
class LateCommandsRunOn(Leaves):
    def leaves(self, running: Started) -> bool:
        return running.late and not running.streamed


@lie("X6", "stops waiting for a stream when the time is over, and the command runs on")
class LateStreamsRunOn(Leaves):
    def leaves(self, running: Started) -> bool:
        return running.late and running.streamed


@lie("X6", "forgets a command whose caller is cancelled")
class CancelledCommandsRunOn(Leaves):
    def leaves(self, running: Started) -> bool:
        return not (running.over or running.late or running.streamed)


@lie("X6", "hangs up on a stream that is left early, and the command does not mind")
class LeftStreamsRunOn(Leaves):
    def leaves(self, running: Started) -> bool:
        return running.streamed and not (running.over or running.late)


@lie("X6", "sends TERM, and believes that the command obeys")
class TermIsEnough(Leaves):
    async def end(self, running: Started) -> None:
        if not running.over:
            running.signal(signal.SIGTERM)
        await super().end(running)


@lie("X6", "tries once more, in the background, what took too long")
class TriesAgain(HonestTransport):
    again: asyncio.Task[None] | None = None

    async def run(self, command: Command) -> CommandResult:
        try:
            return await super().run(command)
        except OperationTimeout:
            self.again = asyncio.create_task(self._once_more(command))
            raise

    async def _once_more(self, command: Command) -> None:
        await asyncio.sleep(0.1)
        await super().run(evolve(command, timeout_s=60.0))

    async def aclose(self) -> None:
        if self.again is not None:
            self.again.cancel()
            await asyncio.wait([self.again])
        await super().aclose()


@lie("X6", "waits for a command for ever, whatever its time-out", "X7 X8")
class WaitsForEver(HonestTransport):
    def time(self, running: Started) -> float:
        return super().time(running) if running.streamed else 3600.0


@lie("X6", "gives streams all the time in the world")
class StreamsForEver(HonestTransport):
    def time(self, running: Started) -> float:
        return 3600.0 if running.streamed else super().time(running)


# ---------------------------------------------------------------- X7


@lie("X7", "says of a command that took too long that it has not run")
class LateHasNotRun(HonestTransport):
    def out_of_time(self, command: Command) -> InterCEdeError:
        return OperationTimeout("too late", may_have_run=False)


@lie("X7", "says that nothing has run when the answer was lost")
class LostHasNotRun(HonestTransport):
    def lost(self, *, has_run: bool) -> InterCEdeError:
        return super().lost(has_run=False)


@lie("X7", "says of everything that is lost that it may have run")
class LostMayHaveRun(HonestTransport):
    def lost(self, *, has_run: bool) -> InterCEdeError:
        return super().lost(has_run=True)


@lie("X7", "tells a host that does not answer as a connection that broke")
class SilenceIsALoss(HonestTransport):
    def unreachable(self) -> InterCEdeError:
        return super().lost(has_run=True)


@lie("X7", "runs a command again when its answer was lost", "X8")
class RunsItAgain(HonestTransport):
    async def run(self, command: Command) -> CommandResult:
        try:
            return await super().run(command)
        except ConnectionLost:
            return await super().run(command)


# ---------------------------------------------------------------- X8


class StaysBroken(HonestTransport):
    """Fails for ever once it has failed in one way."""

    fatal: type[TransportError] = TransportError
    broken = False

    async def run(self, command: Command) -> CommandResult:
        if self.broken:
            raise self.lost(has_run=False)
        try:
            return await super().run(command)
        except self.fatal:
            self.broken = True
            raise


@lie("X8", "stays lost")
class StaysLost(StaysBroken):
    fatal = ConnectionLost


@lie("X8", "remembers for ever that a host did not answer")
class StaysUnreachable(HonestTransport):
    silent = False

    async def reach(self) -> None:
        if self.silent:
            raise self.unreachable()
        self.silent = self.fault == "unreachable"
        await super().reach()


@lie(
    "X8",
    "does not give back the place of a command that was lost, so that the next one waits for ever",
)
class KeepsThePlace(HonestTransport):
    def __init__(
        self, config: TransportLiarConfig, credentials: CredentialProvider | None = None
    ) -> None:
        super().__init__(config, credentials)
        self._places = asyncio.Semaphore(1)

    async def run(self, command: Command) -> CommandResult:
        await self._places.acquire()
        lost = False
        try:
            return await super().run(command)
        except ConnectionLost:
            lost = True
            raise
        finally:
            if not lost:
                self._places.release()


@lie("X8", "closes the connection under a command that took too long, and does not open another")
class StaysLate(StaysBroken):
    fatal = OperationTimeout
