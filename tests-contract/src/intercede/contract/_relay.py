"""A way to a host that can be made to fail: a TCP relay between a client and a server, both on this machine.

It knows nothing of what it carries. What passes is counted in bytes and can be cut after any of them, held up, delayed or refused, so that
a test can try a failure at every point of a conversation without either end knowing of it. Everything happens on 127.0.0.1: a relay that
others could reach would be a hole in the machine that runs the tests.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import socket
import struct
import termios
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Final, Self

from attrs import define, field

__all__ = ["Cut", "Direction", "Ending", "Relay"]

_CHUNK: Final = 2**18
#: How much may be on its way in one direction: what fits in 100 ms at 5 Gbit/s, so that a delay takes nothing of the bandwidth.
_ON_ITS_WAY: Final = 64 * 2**20
#: How long to wait for bytes to leave this machine's buffers before a reset takes the rest, in seconds.
_LEAVING_S: Final = 1.0
#: How long a connection that was ended politely may go on sending before it is closed, in seconds.
_LINGERING_S: Final = 1.0
#: With it, close() sends a reset (socket(7), SO_LINGER).
_RESET: Final = struct.pack("ii", 1, 0)


class Direction(StrEnum):
    """Which way bytes go."""

    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"


class Ending(StrEnum):
    """What both ends see of a cut."""

    RESET = "reset"
    """RST: the connection is gone."""
    END = "end"
    """FIN: as if the other end had closed it."""


@define(eq=False)
class Cut:
    """A cut that was ordered.

    Attributes:
        direction: Whose bytes are counted.
        left: How many bytes may still pass.
        ending: What both ends will see.
        done: Set when it has happened.
    """

    direction: Direction
    left: int
    ending: Ending
    done: asyncio.Event = field(factory=asyncio.Event)


class Relay:
    """Listens on a port of 127.0.0.1 of its own and carries every connection to the server.

        async with Relay(22) as relay:
            transport = registry.transport({"type": "ssh", "host": relay.host, "port": relay.port, ...})
            relay.cut(Direction.TO_CLIENT, after=1000)

    What is ordered holds for all connections, present and future, until `let_through`. All of it belongs to one event loop.

    Args:
        port: The server's.
        host: The server's; an address of this machine's loopback, or "localhost".
        delay_s: Round-trip time that is added, half of it in each direction; may be changed at any time.

    Attributes:
        host: Where it listens.
        delay_s: As above.
        connections: How many were accepted.
        turns: How often the client has spoken after the server had: with a delay, how many round trips a conversation takes.

    Raises:
        ValueError: The server is not on this machine.
    """

    host: Final = "127.0.0.1"

    def __init__(self, port: int, host: str = "127.0.0.1", *, delay_s: float = 0.0) -> None:
        if not _is_loopback(host):
            raise ValueError(f"{host!r} is not an address of this machine's loopback")
        self._server = (host, port)
        self.delay_s = delay_s
        self.connections = 0
        self.turns = 0
        self._port = 0
        self._last = Direction.TO_CLIENT
        self._passed: Counter[Direction] = Counter()
        self._cuts: list[Cut] = []
        self._flowing = {direction: asyncio.Event() for direction in Direction}
        self._reserved: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._dropping: dict[asyncio.Task[None] | None, Ending] = {}
        for event in self._flowing.values():
            event.set()

    async def __aenter__(self) -> Self:
        # Holds the port while nobody listens on it: connecting is refused then, and no other process gets the port.
        self._reserved = _bound(0)
        self._port = self._reserved.getsockname()[1]
        self._listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drop everything and listen no more. Idempotent."""
        self.refuse()
        await self.drop()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return len(self._carrying)

    @property
    def passed(self) -> Mapping[Direction, int]:
        """How many bytes have gone each way, over all connections."""
        return {direction: self._passed[direction] for direction in Direction}

    def cut(self, direction: Direction, after: int = 0, *, ending: Ending = Ending.RESET) -> Cut:
        """Let so many more bytes pass this way, over all connections together, then end the connection that carries the last of them.

        Exactly these bytes arrive. With 0 the next bytes that come end their connection and do not arrive. It happens once.

        Args:
            direction: Whose bytes count.
            after: How many still pass.
            ending: What both ends see.
        """
        cut = Cut(direction, after, ending)
        self._cuts.append(cut)
        return cut

    async def drop(self, *, ending: Ending = Ending.RESET) -> None:
        """End all connections that are open now."""
        carrying = list(self._carrying)
        for task in carrying:
            self._dropping[task] = ending
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    def stall(self, *directions: Direction) -> None:
        """Let nothing pass, and end nothing: the other end looks frozen. Without directions, both."""
        for direction in directions or tuple(Direction):
            self._flowing[direction].clear()

    def refuse(self) -> None:
        """Refuse new connections, as if nobody listened. Those that are open are left alone."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def let_through(self) -> None:
        """Undo all that is ordered: no cut, no stall, no refusal. The delay stays."""
        self._cuts.clear()
        for event in self._flowing.values():
            event.set()
        if self._listener is None and self._reserved is not None:
            self._listen()

    # ------------------------------------------------------------ connections

    def _listen(self) -> None:
        self._listener = _bound(self._port)
        self._listener.listen(128)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.connections += 1
        task = asyncio.create_task(self._carry(client))
        self._carrying.add(task)
        task.add_done_callback(lambda _: self._carried(task, client))

    def _carried(self, task: asyncio.Task[None], client: socket.socket) -> None:
        self._carrying.discard(task)
        self._dropping.pop(task, None)
        client.close()  # it is open still if the task was cancelled before its first step

    async def _carry(self, client: socket.socket) -> None:
        """One connection, from its beginning to its end."""
        cut: Cut | None = None
        ending = Ending.RESET
        server = socket.socket(_family(self._server[0]))
        try:
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)  # as long as the handshake would take
            await asyncio.get_running_loop().sock_connect(server, self._server)
            cut = await self._exchange(client, server)
            ending = Ending.END if cut is None else cut.ending
        except OSError:
            pass  # one end broke it, or there is no server: so shall the other see it
        except asyncio.CancelledError:
            ending = self._dropping.get(asyncio.current_task(), Ending.RESET)
        await _end(ending, client, server)
        if cut is not None:
            cut.done.set()

    async def _exchange(self, client: socket.socket, server: socket.socket) -> Cut | None:
        """Carry both ways until both have ended. Returns the cut that ended it before, if one did."""
        ways = [
            asyncio.create_task(self._pass_on(direction, source, target))
            for direction, source, target in (
                (Direction.TO_SERVER, client, server),
                (Direction.TO_CLIENT, server, client),
            )
        ]
        try:
            for way in asyncio.as_completed(ways):
                cut = await way
                if cut is not None:
                    await _leave(client, server)
                    return cut
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        return None

    async def _pass_on(
        self, direction: Direction, source: socket.socket, target: socket.socket
    ) -> Cut | None:
        """Carry one way to its end. Returns the cut that ended it.

        Raises:
            OSError: The source broke it; all that it had sent has arrived.
        """
        way = _Way()
        reading = asyncio.create_task(self._read(source, way))
        try:
            while (chunk := await way.next()) is not None:
                await self._flowing[direction].wait()
                passing, cut = self._counted(direction, chunk)
                try:
                    await asyncio.get_running_loop().sock_sendall(target, passing)
                except OSError:
                    return cut  # the target takes no more, and may still have something to say
                if cut is not None:
                    return cut
            await self._flowing[direction].wait()
            await reading
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
            return None
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, source: socket.socket, way: _Way) -> None:
        loop = asyncio.get_running_loop()
        try:
            while chunk := await loop.sock_recv(source, _CHUNK):
                await way.put(chunk, loop.time() + self.delay_s / 2)
        finally:
            way.end(loop.time() + self.delay_s / 2)

    def _counted(self, direction: Direction, chunk: bytes) -> tuple[bytes, Cut | None]:
        """What of the chunk may pass, and the cut that follows it."""
        cuts = [cut for cut in self._cuts if cut.direction is direction]
        first = min(cuts, key=lambda cut: cut.left, default=None)
        if first is not None:
            chunk = chunk[: first.left]
        self._passed[direction] += len(chunk)
        self.turns += self._last is Direction.TO_CLIENT and direction is Direction.TO_SERVER
        self._last = direction
        for cut in cuts:
            cut.left -= len(chunk)
        if first is None or first.left:
            return chunk, None
        self._cuts.remove(first)
        return chunk, first


class _Way:
    """What is on its way in one direction, each piece with the time when it arrives; bounded."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes | None]] = deque()
        self._size = 0
        self._woken = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, chunk: bytes, due: float) -> None:
        """Send on its way, once there is room."""
        await self._room.wait()
        self._pieces.append((due, chunk))
        self._size += len(chunk)
        if self._size >= _ON_ITS_WAY:
            self._room.clear()
        self._woken.set()

    def end(self, due: float) -> None:
        """Nothing follows."""
        self._pieces.append((due, None))
        self._woken.set()

    async def next(self) -> bytes | None:
        """The next piece, when it is due; None: nothing follows."""
        while not self._pieces:
            self._woken.clear()
            await self._woken.wait()
        due, chunk = self._pieces[0]
        left = due - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)
        self._pieces.popleft()
        self._size -= len(chunk or b"")
        self._room.set()
        return chunk


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bound(port: int) -> socket.socket:
    """A socket of this relay's port. Two may be bound to it as long as one of them listens at most."""
    bound = socket.socket()
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((Relay.host, port))
    except BaseException:
        bound.close()
        raise
    return bound


async def _leave(*ends: socket.socket) -> None:
    """Wait until what was sent has left this machine's buffers: a reset would take it."""
    with suppress(OSError):
        for _ in range(round(_LEAVING_S * 1000)):
            if not any(_unsent(end) for end in ends):
                return
            await asyncio.sleep(0.001)


def _unsent(end: socket.socket) -> int:
    size = fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4))  # tcp(7), SIOCOUTQ
    return int.from_bytes(size, "little")


async def _end(ending: Ending, *ends: socket.socket) -> None:
    """Close both ends of a connection."""
    try:
        if ending is Ending.END:
            await asyncio.gather(*(_linger(end) for end in ends))
    finally:
        for end in ends:
            with suppress(OSError):
                if ending is Ending.RESET:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


async def _linger(end: socket.socket) -> None:
    """Say that it is over, and let the other end say so too: closing a socket that has unread bytes would reset it."""
    loop = asyncio.get_running_loop()
    with suppress(OSError, TimeoutError):
        end.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LINGERING_S):
            while await loop.sock_recv(end, _CHUNK):
                pass
