"""The rules for transports, held against commands on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from intercede.contract import LocalProbe, TransportContract, TransportResource
from intercede.core import Command, CommandResult, Transport, Unreachable
from intercede.transport.local import LocalTransport


class UnreachableOnce(LocalTransport):
    """Nobody is at home when the first command comes."""

    home = False

    async def run(self, command: Command) -> CommandResult:
        if not self.home:
            self.home = True
            raise Unreachable("nobody is at home")
        return await super().run(command)


class LocalTransportFaults:
    @asynccontextmanager
    async def unreachable(self, config: str | Mapping[str, Any]) -> AsyncIterator[Transport]:
        async with UnreachableOnce() as transport:
            yield transport

    def lost_before(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        raise LookupError("this machine has no connection to itself")

    lost_after = lost_before


class TestLocalTransport(TransportContract):
    resource = TransportResource(
        config="local",
        seconds=0.1,
        logins={},
        probe=LocalProbe(tempfile.gettempdir()),
        faults=LocalTransportFaults(),
    )
