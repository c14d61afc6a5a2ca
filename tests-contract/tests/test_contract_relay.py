"""The relay, between a client and a server that know nothing of it."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from intercede.contract import Direction, Ending, Relay

MIB = 2**20


class Server:
    """Sends back what it gets; remembers what it got, and how its connections ended."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.endings: list[str] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(MIB):
                self.got += chunk
                writer.write(chunk)
                await writer.drain()
            self.endings.append("end")
        except ConnectionError:
            self.endings.append("reset")
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def echo(*, delay_s: float = 0.0) -> AsyncIterator[tuple[Relay, Server]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with (
        asyncio.timeout(20),
        listening,
        Relay(listening.sockets[0].getsockname()[1], delay_s=delay_s) as relay,
    ):
        yield relay, server


class Client:
    """A connection through the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def exchange(self, data: bytes) -> bytes:
        self.writer.write(data)
        await self.writer.drain()
        return await self.reader.readexactly(len(data))

    async def rest(self) -> tuple[bytes, str]:
        """All that still comes, and how it ended."""
        got = bytearray()
        try:
            while chunk := await self.reader.read(MIB):
                got += chunk
        except ConnectionError:
            return bytes(got), "reset"
        return bytes(got), "end"


@asynccontextmanager
async def client_of(relay: Relay) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(relay.host, relay.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_what_passes_is_the_same_and_counted() -> None:
    data = bytes(range(256)) * 20_000
    async with echo() as (relay, server):
        async with client_of(relay) as one, client_of(relay) as other:
            answer, _ = await asyncio.gather(one.reader.readexactly(len(data)), _send(one, data))
            assert answer == data
            assert await other.exchange(b"more") == b"more"
            assert relay.open_connections == 2
        assert relay.connections == 2
        assert relay.passed == {
            Direction.TO_SERVER: len(data) + 4,
            Direction.TO_CLIENT: len(data) + 4,
        }
        assert len(server.got) == len(data) + 4


async def test_the_end_of_the_input_reaches_the_server_and_its_answer_the_client() -> None:
    async with echo() as (relay, server), client_of(relay) as client:
        client.writer.write(b"last words")
        client.writer.write_eof()
        assert await client.rest() == (b"last words", "end")
        assert server.endings == ["end"]


async def test_a_reset_of_the_client_is_one_for_the_server() -> None:
    async with echo() as (relay, server), client_of(relay) as client:
        assert await client.exchange(b"x") == b"x"
        plug: socket.socket = client.writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await server.ended.wait()
        assert server.endings == ["reset"]


async def test_turns_are_the_round_trips_of_a_conversation() -> None:
    async with echo(delay_s=0.02) as (relay, _), client_of(relay) as client:
        for count in range(1, 4):
            client.writer.write(b"two")
            await client.writer.drain()
            await client.exchange(b"words")
            await client.reader.readexactly(3)
            assert relay.turns == count


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("after", [0, 1, 999, 100_000])
async def test_a_cut_towards_the_server_lets_exactly_so_many_bytes_arrive(
    after: int, ending: Ending
) -> None:
    async with echo() as (relay, server), client_of(relay) as client:
        await client.exchange(b"before")
        server.got.clear()
        relay.cut(Direction.TO_SERVER, after, ending=ending)
        client.writer.write(bytes(200_000))
        _, seen = await client.rest()
        await server.ended.wait()
        assert len(server.got) == after
        assert (seen, server.endings) == (ending, [ending])


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("after", [0, 1, 999, 100_000])
async def test_a_cut_towards_the_client_lets_exactly_so_many_bytes_arrive(
    after: int, ending: Ending
) -> None:
    async with echo() as (relay, server), client_of(relay) as client:
        await client.exchange(b"before")
        relay.cut(Direction.TO_CLIENT, after, ending=ending)
        client.writer.write(bytes(200_000))
        got, seen = await client.rest()
        assert (len(got), seen) == (after, ending)
        await server.ended.wait()


async def test_a_cut_happens_once_and_the_next_connection_is_well() -> None:
    async with echo() as (relay, _):
        cut = relay.cut(Direction.TO_SERVER, 2)
        async with client_of(relay) as client:
            client.writer.write(b"abc")
            assert (await client.rest())[1] == "reset"
        assert cut.done.is_set()
        async with client_of(relay) as client:
            assert await client.exchange(b"well again") == b"well again"


async def test_a_cut_that_is_taken_back_does_not_happen() -> None:
    async with echo() as (relay, _), client_of(relay) as client:
        cut = relay.cut(Direction.TO_SERVER, 2)
        relay.let_through()
        assert await client.exchange(b"abc") == b"abc"
        assert not cut.done.is_set()


async def test_two_cuts_in_one_direction_each_count_from_their_order() -> None:
    async with echo() as (relay, server):
        relay.cut(Direction.TO_SERVER, 5)
        relay.cut(Direction.TO_SERVER, 2)
        for _ in range(2):
            async with client_of(relay) as client:
                client.writer.write(b"abcdef")
                await client.rest()
        async with client_of(relay) as client:
            assert await client.exchange(b"!") == b"!"
        assert server.got == b"ababc!"


async def test_nothing_passes_while_it_is_stalled_and_nothing_is_lost() -> None:
    async with echo() as (relay, server), client_of(relay) as client:
        await client.exchange(b"before")
        relay.stall()
        client.writer.write(b"held")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.reader.readexactly(1)
        assert server.got == b"before"
        relay.let_through()
        assert await client.reader.readexactly(4) == b"held"


async def test_a_stall_of_one_direction_leaves_the_other_alone() -> None:
    async with echo() as (relay, server), client_of(relay) as client:
        relay.stall(Direction.TO_CLIENT)
        client.writer.write(b"arrives")
        while server.got != b"arrives":
            await asyncio.sleep(0.01)
        assert relay.passed[Direction.TO_CLIENT] == 0
        relay.let_through()
        assert await client.reader.readexactly(7) == b"arrives"


async def test_connections_made_while_it_is_stalled_are_accepted_and_silent() -> None:
    async with echo() as (relay, _):
        relay.stall()
        async with client_of(relay) as client:
            client.writer.write(b"hello")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.reader.readexactly(1)
            relay.let_through()
            assert await client.reader.readexactly(5) == b"hello"


async def test_refusing_leaves_open_connections_alone_and_keeps_the_port() -> None:
    async with echo() as (relay, _), client_of(relay) as client:
        await client.exchange(b"before")
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(relay.host, relay.port)
        assert await client.exchange(b"still") == b"still"
        relay.let_through()
        async with client_of(relay) as other:
            assert await other.exchange(b"again") == b"again"


@pytest.mark.parametrize("ending", list(Ending))
async def test_dropping_ends_all_that_is_open(ending: Ending) -> None:
    async with echo() as (relay, server), client_of(relay) as one, client_of(relay) as other:
        await one.exchange(b"1")
        await other.exchange(b"2")
        dropping = asyncio.create_task(relay.drop(ending=ending))
        assert await one.rest() == (b"", ending)
        one.writer.close()
        assert await other.rest() == (b"", ending)
        other.writer.close()
        await dropping
        assert relay.open_connections == 0
        async with client_of(relay) as client:
            await client.exchange(b"3")
        assert server.got == b"123"


async def test_a_server_that_is_not_there_is_a_broken_connection() -> None:
    async with asyncio.timeout(20):
        async with Relay(9) as nobody:  # to learn of a port where nobody listens
            nobody.refuse()
            async with Relay(nobody.port) as relay, client_of(relay) as client:
                assert await client.rest() == (b"", "reset")


async def test_a_delay_is_added_to_each_round_trip() -> None:
    async with echo(delay_s=0.06) as (relay, _), client_of(relay) as client:
        await client.exchange(b"the handshake is over")
        began = time.monotonic()
        for _ in range(5):
            await client.exchange(b"ping")
        assert 0.3 <= time.monotonic() - began < 0.6


async def test_a_delay_takes_nothing_of_the_bandwidth() -> None:
    data = bytes(32 * MIB)
    async with echo(delay_s=0.06) as (relay, _), client_of(relay) as client:
        await client.exchange(b"the handshake is over")
        began = time.monotonic()
        sending = asyncio.create_task(_send(client, data))
        received = 0
        while received < len(data):
            received += len(await client.reader.read(MIB))
        took = time.monotonic() - began
        await sending
    # With one buffer of 256 KiB per round trip it would take 7.7 s.
    assert took < 3.5


async def test_a_slow_receiver_holds_up_the_sender() -> None:
    over = asyncio.Event()

    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    listening = await asyncio.start_server(never_reads, "127.0.0.1", 0, limit=1)
    port = listening.sockets[0].getsockname()[1]
    async with asyncio.timeout(20), Relay(port) as relay, client_of(relay) as client:
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                while True:
                    client.writer.write(bytes(MIB))
                    await client.writer.drain()
                    sent += MIB
        over.set()
        client.writer.transport.abort()
    listening.close()
    await listening.wait_closed()
    assert sent < 256 * MIB


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org", "0.0.0.0", "::", ""])
def test_a_server_beyond_this_machine_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Relay(22, host)


async def test_it_can_be_closed_twice_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with echo() as (relay, server):
        async with client_of(relay) as client:
            await client.exchange(b"x")
            await relay.aclose()
            await relay.aclose()
            assert await client.rest() == (b"", "reset")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(relay.host, relay.port)
        await server.ended.wait()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def _send(client: Client, data: bytes) -> None:
    client.writer.write(data)
    await client.writer.drain()
