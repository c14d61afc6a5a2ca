"""Faults of the way to a host, made with a relay, for any transport that reaches a POSIX host by TCP.

Each fault meets a transport that is open and was well a moment ago, and its first command. Whether that command has run is not guessed: a
second transport, past the relay, looks at the host.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from attrs import evolve

from intercede.core import (
    Command,
    CommandResult,
    CredentialProvider,
    Process,
    Transport,
    registry,
)

from ._relay import Direction, Relay

__all__ = ["RelayFaults"]

_Fault = Callable[[Command], AbstractAsyncContextManager[Command]]

#: Runs a command, says by a file that it has, and holds its answer back until the file is gone.
_HELD_BACK: Final = 'mark=$1; shift; "$@"; code=$?; : > "$mark"; while [ -e "$mark" ]; do sleep 1; done; exit "$code"'
_POLL_S: Final = 0.02


def _through(config: Mapping[str, Any], relay: Relay) -> Mapping[str, Any]:
    return {**config, "host": relay.host, "port": relay.port}


def _server(config: Mapping[str, Any]) -> tuple[str, int]:
    return config.get("host", Relay.host), config["port"]


class RelayFaults:
    """What `TransportResource.faults` may be.

    Args:
        credentials: Makes a provider for `registry.transport`.
        through: From the configuration, the one that goes by the relay; without it its `host` and `port` are replaced.
        server: From the configuration, the host and port that the relay stands before; without it its `host` and `port`.
    """

    def __init__(
        self,
        credentials: Callable[[], CredentialProvider] | None = None,
        through: Callable[[Mapping[str, Any], Relay], Mapping[str, Any]] = _through,
        server: Callable[[Mapping[str, Any]], tuple[str, int]] = _server,
    ) -> None:
        self._credentials = credentials
        self._through = through
        self._server = server

    @asynccontextmanager
    async def unreachable(self, config: str | Mapping[str, Any]) -> AsyncIterator[Transport]:
        """The connection is gone, and a new one is refused."""

        @asynccontextmanager
        async def fault(command: Command) -> AsyncIterator[Command]:
            relay.refuse()
            await relay.drop()
            try:
                yield command
            finally:
                relay.let_through()

        async with self._relayed(config) as (relay, transport):
            yield _FailingOnce(transport, fault)

    @asynccontextmanager
    async def lost_before(self, config: str | Mapping[str, Any]) -> AsyncIterator[Transport]:
        """The connection breaks under the first bytes of the command, and none of them arrives."""

        @asynccontextmanager
        async def fault(command: Command) -> AsyncIterator[Command]:
            relay.cut(Direction.TO_SERVER)
            yield command

        async with self._relayed(config) as (relay, transport):
            yield _FailingOnce(transport, fault)

    @asynccontextmanager
    async def lost_after(self, config: str | Mapping[str, Any]) -> AsyncIterator[Transport]:
        """The connection breaks when the command is seen to have run and has not answered."""

        @asynccontextmanager
        async def fault(command: Command) -> AsyncIterator[Command]:
            mark = f"/tmp/intercede-contract-{uuid.uuid4().hex}"  # noqa: S108 - a name of our own, on the host
            async with self._opened(config) as past:
                dropping = asyncio.create_task(_drop_once(past, mark, relay))
                try:
                    yield evolve(
                        command, argv=("sh", "-c", _HELD_BACK, "held", mark, *command.argv)
                    )
                finally:
                    dropping.cancel()
                    await asyncio.gather(dropping, return_exceptions=True)
                    await past.run(Command(("rm", "-f", mark)))

        async with self._relayed(config) as (relay, transport):
            yield _FailingOnce(transport, fault)

    @asynccontextmanager
    async def _relayed(
        self, config: str | Mapping[str, Any]
    ) -> AsyncIterator[tuple[Relay, Transport]]:
        """A transport that goes by a relay, and has been used."""
        if isinstance(config, str) or "port" not in config:
            raise LookupError("a configuration that names the port")
        host, port = self._server(config)
        async with (
            Relay(port, host) as relay,
            self._opened(self._through(config, relay)) as transport,
        ):
            await transport.run(Command(("true",)))
            yield relay, transport

    @asynccontextmanager
    async def _opened(self, config: str | Mapping[str, Any]) -> AsyncIterator[Transport]:
        async with AsyncExitStack() as stack:
            credentials = None
            if self._credentials is not None:
                credentials = await stack.enter_async_context(self._credentials())
            yield await stack.enter_async_context(registry.transport(config, credentials))


async def _drop_once(past: Transport, mark: str, relay: Relay) -> None:
    """Drop the relay's connections when the mark is on the host."""
    while True:
        result = await past.run(Command(("test", "-e", mark)))
        if result.returncode == 0:
            break
        await asyncio.sleep(_POLL_S)
    await relay.drop()


class _FailingOnce:
    """A transport whose first command meets a fault."""

    def __init__(self, transport: Transport, fault: _Fault) -> None:
        self._transport = transport
        self._fault: _Fault | None = fault

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def run(self, command: Command) -> CommandResult:
        fault, self._fault = self._fault, None
        if fault is None:
            return await self._transport.run(command)
        async with fault(command) as changed:
            return await self._transport.run(changed)

    def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AbstractAsyncContextManager[Process]:
        return self._transport.stream(command, stdin)

    async def put(self, local: Path, remote: str) -> None:
        await self._transport.put(local, remote)

    async def get(self, remote: str, local: Path) -> None:
        await self._transport.get(remote, local)
