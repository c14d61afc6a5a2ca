"""One command over the connection, as asyncssh's callbacks tell of it.

The callbacks never raise: asyncssh would end the whole connection. What is read piles up to a bound and then stays with the host (X4).
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from typing import Final

import asyncssh

from intercede.core import CommandResult, ConnectionLost, ResourceError
from intercede.toolkit import redact

from ._framing import Opening, Remote, framed, new_word, read_remote
from ._waiting import reached

__all__ = ["Session"]

#: How much of a command's output lies here unread before its sender has to wait, and when it may go on.
_HIGH: Final = 4 * 2**20
_LOW: Final = 2 * 2**20
#: What is handed over at once.
_CHUNK: Final = 2**18
#: What is handed out at once, at most: who takes it to a thread pays for each turn.
_TAKEN: Final = 2**20
#: How much of a login profile's own output is read before it is taken for endless.
_NOISE_MAX: Final = 2**20
#: How long stderr may stay open after the command's end, since a child of it may hold it.
_STDERR_GRACE_S: Final = 1.0
#: sshd says "SIG@openssh.com" of signals that RFC 4254 has no name for; a shell would make it 128 and something.
_UNNAMED_SIGNAL: Final = 255


class Session(asyncssh.SSHClientSession[bytes]):
    """A command that was started, or is about to be.

    Args:
        argv: The program and its arguments.
        where: The host, for people.
        stderr_kept: How many bytes of its stderr to keep.
        on_granted: Called when the host has granted the session.
        on_closed: Called once after that, when the host has let go of the session.

    Attributes:
        remote: Its process; None as long as that is not known.
        begun: Its process is known, or nothing more will be heard of it.
        handed: Its script has been handed to the connection: it may run.
        exited: It has ended, or nothing more will be heard of it.
        closed: The session is over at both sides.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        where: str,
        stderr_kept: int,
        on_granted: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> None:
        word = new_word()
        self._script = framed(argv, word)
        self._where = where
        self._on_granted = on_granted
        self._on_closed = on_closed
        self._out = Opening(word)
        self._err = Opening(word)
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._stderr = bytearray()
        self._stderr_kept = stderr_kept
        self._paused = False
        self._resuming = False
        self._lost = ""
        self._returncode: int | None = None
        self._ended = asyncio.Event()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._waited = False
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.remote: Remote | None = None
        self.handed = False
        self.begun = asyncio.Event()
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Its end has been waited for: what is left of it was left on purpose."""
        return self._waited

    @property
    def lost(self) -> bool:
        """The connection was lost before its end was known."""
        return bool(self._lost)

    # -------------------------------------------------------------- what asyncssh tells

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The session was granted. asyncssh asks for the command next."""
        self.channel = chan
        self._on_granted()
        chan.set_write_buffer_limits(high=_HIGH, low=_LOW)

    def session_started(self) -> None:
        """The host runs the line that reads the script. (It takes no input before: sending it earlier would save nothing.)"""
        assert self.channel is not None
        with suppress(OSError):
            self.channel.write(self._script)
            self.handed = True

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """What came on one of its streams."""
        if datatype is not None:
            own = self._err.feed(data)
            self._stderr += own[: max(0, self._stderr_kept - len(self._stderr))]
            return
        known = self._out.line is not None
        own = self._out.feed(data)
        if not known:
            self._begin()
        if own:
            self._queue.append(own)
            self._queued += len(own)
            self._readable.set()
            self._pause_if_full()

    def _pause_if_full(self) -> None:
        if self._queued > _HIGH and not self._paused and self.channel is not None:
            self._paused = True
            if not self._resuming:
                self.channel.pause_reading()

    def _resume(self) -> None:
        """Go on, with all that asyncssh has kept meanwhile.

        Were it paused again before it has handed out everything, it would grant the host a whole window beside what it keeps, at each turn:
        40 MiB piled up of a file of 64.
        """
        assert self.channel is not None
        self._paused, self._resuming = False, True
        self.channel.resume_reading()
        self._resuming = False
        if self._paused:
            self.channel.pause_reading()

    def _begin(self) -> None:
        if self._out.line is not None:
            self.remote = read_remote(self._out.line)
            self.begun.set()
        elif self._out.dropped > _NOISE_MAX:
            self._ended.set()
            self.exited.set()
            self._readable.set()

    def eof_received(self) -> bool:
        """Its streams have ended; we go on writing as long as it lives."""
        self._ended.set()
        self._readable.set()
        return True

    def exit_status_received(self, status: int) -> None:
        """It has ended."""
        self._returncode = status
        self._over()

    def exit_signal_received(
        self, signal_name: str, core_dumped: bool, msg: str, lang: str
    ) -> None:
        """A signal has ended it."""
        number = getattr(signal, f"SIG{signal_name}", None)
        self._returncode = _UNNAMED_SIGNAL if number is None else -int(number)
        self._over()

    def connection_lost(self, exc: Exception | None) -> None:
        """The session is over, with the connection or alone."""
        # asyncssh does not tell of the end of the streams if the session's end comes right behind it: 1 in 80 with sshd 9.2.
        whole = self._ended.is_set() or exc is None
        if self._returncode is None or not whole:
            self._lost = str(exc) if exc else "the host closed the session"
        self._script = b""
        self.closed.set()
        self._ended.set()
        self._over()
        self._on_closed()

    def _over(self) -> None:
        self.begun.set()
        self.exited.set()
        self._readable.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """The host takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    # -------------------------------------------------------------- a core `Process`

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """See `Process`."""
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            while self._queue:
                yield self._taken()
            if self._ended.is_set():
                break
            self._readable.clear()
            await self._readable.wait()
        self._raise_unless_whole()

    def _taken(self) -> bytes:
        pieces = [self._queue.popleft()]
        size = len(pieces[0])
        while self._queue and size + len(self._queue[0]) <= _TAKEN:
            pieces.append(self._queue.popleft())
            size += len(pieces[-1])
        self._queued -= size
        if self._paused and self._queued <= _LOW:
            self._resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def wait(self) -> CommandResult:
        """Wait for its end, and for that of its stderr."""
        await self.exited.wait()
        await reached(self._ended, _STDERR_GRACE_S)
        self._raise_unless_whole()
        assert self._returncode is not None
        self._waited = True
        return CommandResult(self._returncode, b"", bytes(self._stderr))

    def _raise_unless_whole(self) -> None:
        if self._lost:
            raise ConnectionLost(
                f"{self._where}: the connection was lost while a command ran",
                may_have_run=self.handed,
                said=self._lost,
            )
        if self.remote is None and (self._ended.is_set() or self._returncode is not None):
            self._waited = self._returncode is not None
            raise self._not_started()

    def _not_started(self) -> ResourceError:
        if self._out.line == "home":
            return ResourceError(
                f"{self._where}: the account's home directory is not there",
                remedy="ask its administrator",
            )
        said = redact((self._out.said + self._err.said).decode("utf-8", "replace"))
        if self._out.dropped > _NOISE_MAX:
            return ResourceError(
                f"{self._where}: the account's login profile prints without end",
                remedy="see its ~/.profile, ~/.bashrc, ~/.cshrc",
                said=said,
            )
        return ResourceError(
            f"{self._where}: the account's login shell did not start the command",
            remedy="log in with ssh and see what it says; it needs a POSIX sh and dd",
            said=said,
        )

    # -------------------------------------------------------------- its input

    async def feed(self, first: bytes, rest: AsyncIterable[bytes] | None) -> None:
        """Write all of the input and its end; a command that stops reading is no error."""
        with suppress(OSError):
            if await self._write(first) and rest is not None:
                async for chunk in rest:
                    if not await self._write(chunk):
                        break
            if self.channel is not None:
                self.channel.write_eof()

    async def _write(self, data: bytes) -> bool:
        """Write it as the host takes it; False if the command has ended."""
        assert self.channel is not None
        for start in range(0, len(data), _CHUNK):
            await self._writable.wait()
            if self.exited.is_set():
                return False
            self.channel.write(data[start : start + _CHUNK])
        return True
