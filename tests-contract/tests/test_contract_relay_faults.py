"""The relay's faults, against the smallest transport there can be over TCP: a line asks, a line answers."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from intercede.contract import RelayFaults, TransportFaults
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    Process,
    Unreachable,
    registry,
)


class LineTransport:
    """Asks whether it may, before it says what to run: what is lost before the answer has not run."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._address = config["host"], config["port"]
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def run(self, command: Command) -> CommandResult:
        ran = False
        try:
            if self._streams is None or self._streams[0].at_eof():
                await self.aclose()
                self._streams = await asyncio.open_connection(*self._address)
            assert await self._ask("may I?") == "yes"
            ran = True
            code = int(await self._ask(list(command.argv)))
        except (ConnectionRefusedError, ConnectionResetError, asyncio.IncompleteReadError) as error:
            await self.aclose()
            if isinstance(error, ConnectionRefusedError):
                raise Unreachable("nobody listens") from None
            raise ConnectionLost("it broke", may_have_run=ran) from None
        return CommandResult(code, b"")

    async def _ask(self, what: object) -> str:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(json.dumps(what).encode() + b"\n")
        await writer.drain()
        line = await reader.readuntil(b"\n")
        return line.decode().strip()

    def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AbstractAsyncContextManager[Process]:
        raise LookupError

    async def put(self, local: Path, remote: str) -> None:
        raise LookupError

    async def get(self, remote: str, local: Path) -> None:
        raise LookupError


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            argv = json.loads(line)
            if isinstance(argv, str):
                answer = b"yes"
            else:
                process = await asyncio.create_subprocess_exec(*argv)
                answer = str(await process.wait()).encode()
            writer.write(answer + b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def config(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mapping[str, Any]]:
    def made(config: Mapping[str, Any], credentials: object) -> LineTransport:
        assert credentials is None
        return LineTransport(config)

    monkeypatch.setattr(registry, "transport", made)
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(_serve(reader, writer)))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(20), listening:
        yield {"type": "line", "host": "127.0.0.1", "port": listening.sockets[0].getsockname()[1]}
        await asyncio.gather(*serving)


def command(place: Path, status: int) -> Command:
    """Leaves a line for every time that it ran."""
    return Command(("sh", "-c", f"echo ran >> {place}; exit {status}"))


def times(place: Path) -> int:
    return len(place.read_text().splitlines()) if place.exists() else 0


def test_they_are_the_faults_of_a_transport() -> None:
    assert isinstance(RelayFaults(), TransportFaults)


async def test_what_is_unreachable_has_not_run_and_is_well_afterwards(
    config: Mapping[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "ran"
    async with RelayFaults().unreachable(config) as transport:
        # It may learn first that its connection is gone.
        with pytest.raises((Unreachable, ConnectionLost)) as caught:
            await transport.run(command(place, 0))
        assert caught.value.may_have_run is False
        assert times(place) == 0
        assert (await transport.run(command(place, 3))).returncode == 3


async def test_what_was_lost_before_has_not_run(config: Mapping[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "ran"
    async with RelayFaults().lost_before(config) as transport:
        with pytest.raises(ConnectionLost) as caught:
            await transport.run(command(place, 0))
        assert caught.value.may_have_run is False
        assert times(place) == 0
        assert (await transport.run(command(place, 3))).returncode == 3
    assert times(place) == 1


async def test_what_was_lost_after_has_run_once(config: Mapping[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "ran"
    async with RelayFaults().lost_after(config) as transport:
        with pytest.raises(ConnectionLost) as caught:
            await transport.run(command(place, 0))
        assert caught.value.may_have_run is True
        assert times(place) == 1
        assert (await transport.run(command(place, 3))).returncode == 3
    assert times(place) == 2


async def test_the_way_past_the_relay_is_told_by_who_knows_it(config: Mapping[str, Any]) -> None:
    told: list[Mapping[str, Any]] = []

    @asynccontextmanager
    async def used(faults: RelayFaults) -> AsyncIterator[None]:
        async with faults.lost_before(config):
            yield

    def through(config: Mapping[str, Any], relay: Any) -> Mapping[str, Any]:
        told.append(config)
        return {**config, "port": relay.port}

    async with used(RelayFaults(through=through)):
        assert told == [config]


@pytest.mark.parametrize("config", ["line", {"type": "line"}])
async def test_without_a_port_it_cannot_be_brought_about(config: Any) -> None:
    with pytest.raises(LookupError):
        async with RelayFaults().unreachable(config):
            pass
