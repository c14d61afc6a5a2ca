"""One connection to the host, and what happens on it: sessions within its limit, and their end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, Literal

import anyio
import asyncssh
from asyncssh.constants import OPEN_REQUEST_SESSION_FAILED
from asyncssh.sftp import start_sftp_client
from attrs import define

from intercede.toolkit import to_its_end

from ._framing import COMMAND_LINE
from ._limiter import Limiter
from ._session import Session
from ._waiting import with_grace

__all__ = ["Link", "LinkLost"]

#: Receive windows: what may be under way for one session, and as much again may lie here. At 50 ms of round-trip time 4 MiB are 80 MiB/s.
_WINDOW: Final = 4 * 2**20
_PACKET: Final = 2**18
#: How long opening a session may go on when nobody wants it any more; the host is asked anew for each, and a session that it granted
#: and nobody took would count for ever.
_OPENING_GRACE_S: Final = 1.0
#: A host that refuses a session although it has none of ours frees the last one late.
_PAUSE_S: Final = 0.004
#: How long SFTP may take to say that it is there, and to go.
_SFTP_START_S: Final = 5.0
_SFTP_CLOSE_S: Final = 2.0
_SFTP_VERSION: Final = 3
_PAUSE_MAX_S: Final = 1.0


class LinkLost(Exception):  # never seen outside
    """The connection was lost before a session was there. Nothing has run."""


@define
class _SFTP:
    """A session that many share."""

    client: asyncssh.SFTPClient
    writer: asyncssh.SSHWriter[bytes]
    users: int = 0


class Link:
    """A connection.

    Args:
        connections: asyncssh's, one for each host of the way, in their order.
        where: The host, for people.
        limiter: How many sessions at once.
        idle_s: How long it is kept with none.
    """

    def __init__(
        self,
        connections: Sequence[asyncssh.SSHClientConnection],
        where: str,
        limiter: Limiter,
        idle_s: float,
    ) -> None:
        self._connections = tuple(connections)
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._users = 0
        self._lost = False
        self._retired = False
        #: SFTP's session, while anybody uses it.
        self._sftp: _SFTP | None = None
        self._sftp_opening = anyio.Lock()
        self.where = where
        self.limiter = limiter

    @property
    def usable(self) -> bool:
        """It can carry more sessions."""
        return not self._lost and not self._retired

    @property
    def open(self) -> bool:
        """Something of it is left."""
        return not self._connections[-1].is_closed()

    @property
    def connection(self) -> asyncssh.SSHClientConnection:
        """That to the last host."""
        return self._connections[-1]

    def lost(self) -> None:
        """One of its connections is over, so all are."""
        self._lost = True
        self._unschedule()
        for connection in reversed(self._connections):
            connection.abort()

    def retire(self) -> None:
        """Take no more sessions, and close when the last is over: the host does not do as it should."""
        self._retired = True
        self._unless_used()

    # -------------------------------------------------------------- who uses it

    def enter(self) -> None:
        """Somebody begins to use it."""
        self._users += 1
        self._unschedule()

    def leave(self) -> None:
        """Somebody has ended."""
        self._users -= 1
        self._unless_used()

    def _unless_used(self) -> None:
        if self._users or self._lost:
            return
        if self._retired:
            self.close()
        elif self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self.close)

    def _unschedule(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def close(self) -> None:
        """Say goodbye, without waiting."""
        self._retired = True
        self._unschedule()
        for connection in reversed(self._connections):
            connection.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is left of it."""
        for connection in reversed(self._connections):
            await connection.wait_closed()

    # -------------------------------------------------------------- sessions

    async def start(
        self,
        argv: tuple[str, ...],
        stderr_kept: int,
        began: Callable[[Session], None],
        *,
        first: bool = False,
    ) -> None:
        """Start a command, as soon as there is a session for it.

        Args:
            argv: The program and its arguments.
            stderr_kept: How many bytes of its stderr to keep.
            began: Called with the session once it is there, whether or not we are cancelled in that moment.
            first: Before all others that wait for a session.

        Raises:
            LinkLost: It was not started.
        """
        pause = _PAUSE_S
        while True:
            await self.limiter.acquire(first=first)
            if not self.usable:
                self.limiter.release()
                raise LinkLost
            if await with_grace(self._opened(argv, stderr_kept, began), _OPENING_GRACE_S):
                return
            if not self.usable:
                raise LinkLost
            # Whoever has a session gives it back sooner or later; the host may be later still.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(2 * pause, _PAUSE_MAX_S)

    async def _opened(
        self, argv: tuple[str, ...], stderr_kept: int, began: Callable[[Session], None]
    ) -> bool:
        """Open the session for which a slot was taken. False if the host refused it, or the connection was lost."""
        session = Session(argv, self.where, stderr_kept, self.limiter.granted, self._closed)
        self.enter()
        try:
            await self.connection.create_session(
                lambda: session,
                COMMAND_LINE,
                encoding=None,
                window=_WINDOW,
                max_pktsize=_PACKET,
            )
        except (asyncssh.Error, OSError):
            if session.channel is None:
                self._not_opened(refused=True)
            else:
                # The session was granted, its command not; `_closed` is called when it is gone.
                session.channel.abort()
            return False
        except BaseException:
            # The host did not answer in time; what it answers later cannot be taken back.
            self.retire()
            if session.channel is None:
                self._not_opened(refused=False)
            else:
                session.channel.abort()
            raise
        began(session)
        return True

    def _not_opened(self, *, refused: bool) -> None:
        if refused and self.usable:
            self.limiter.refused()
        else:
            self.limiter.release()
        self.leave()

    def _closed(self) -> None:
        """A session is over."""
        self.limiter.closed()
        self.leave()

    # -------------------------------------------------------------- SFTP

    async def sftp(self) -> asyncssh.SFTPClient | None:
        """SFTP's session, which all who copy share; `leave_sftp` lets go of it. None if the host has none.

        Raises:
            LinkLost: There is no connection any more.
        """
        async with self._sftp_opening:
            if self._sftp is None:
                pause = _PAUSE_S
                while True:
                    await self.limiter.acquire()
                    if not self.usable:
                        self.limiter.release()
                        raise LinkLost
                    try:
                        answer = await with_grace(self._opened_sftp(), _OPENING_GRACE_S)
                    except BaseException:
                        # We may be cancelled when it is there and before we hear of it.
                        await self._unless_shared()
                        raise
                    if answer == "none":
                        return None
                    if answer == "open":
                        break
                    if not self.usable:
                        raise LinkLost
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
                    pause = min(2 * pause, _PAUSE_MAX_S)
            assert self._sftp is not None
            self._sftp.users += 1
            return self._sftp.client

    async def leave_sftp(self) -> None:
        """The last to leave closes it: it takes one of the few sessions."""
        sftp = self._sftp
        if sftp is None:
            return
        sftp.users -= 1
        if not sftp.users:
            self._sftp = None
            await self._let_go(sftp.writer)

    async def _unless_shared(self) -> None:
        """Close what was opened, and is nobody's."""
        if self._sftp is not None:
            sftp, self._sftp = self._sftp, None
            await to_its_end(self._let_go(sftp.writer))

    async def _let_go(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        writer.channel.abort()
        with anyio.move_on_after(_SFTP_CLOSE_S) as scope:
            await writer.channel.wait_closed()
        if scope.cancelled_caught:
            self.retire()
        self.limiter.closed()
        self.leave()

    async def _opened_sftp(self) -> Literal["open", "refused", "none"]:
        self.enter()
        granted: asyncssh.SSHWriter[bytes] | None = None
        try:
            granted, reader, _ = await self.connection.open_session(
                subsystem="sftp", encoding=None, window=_WINDOW, max_pktsize=_PACKET
            )
            self.limiter.granted()
            with anyio.fail_after(_SFTP_START_S):
                client = await start_sftp_client(
                    self.connection,
                    asyncio.get_running_loop(),
                    "replace",
                    reader,
                    granted,
                    "utf-8",
                    "surrogateescape",
                    _SFTP_VERSION,
                )
        except asyncssh.ChannelOpenError as error:
            absent = error.code == OPEN_REQUEST_SESSION_FAILED and self.usable
            self._not_opened(refused=not absent)
            return "none" if absent else "refused"
        except (asyncssh.Error, TimeoutError, OSError):
            if granted is None:
                self._not_opened(refused=True)
                return "refused"
            # There is no server behind it, or a login profile speaks first.
            await self._let_go(granted)
            return "none" if self.usable else "refused"
        except BaseException:
            self.retire()
            if granted is None:
                self._not_opened(refused=False)
            else:
                await to_its_end(self._let_go(granted))
            raise
        self._sftp = _SFTP(client, granted)
        return "open"
