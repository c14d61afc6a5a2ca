"""The rules for transports, held against a host that is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from intercede.contract import TransportContract, TransportResource
from intercede.core import Transport, registry

CONFIG = {"type": "fake", "speed": 100.0}


@asynccontextmanager
async def failing_once(kind: str) -> AsyncIterator[Transport]:
    fault = {"operation": "run", "kind": kind, "times": 1}
    async with registry.transport({**CONFIG, "faults": [fault]}) as transport:
        yield transport


class FakeTransportFaults:
    def unreachable(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        return failing_once("unreachable")

    def lost_before(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        return failing_once("lost-before-effect")

    def lost_after(self, config: str | Mapping[str, Any]) -> AbstractAsyncContextManager[Transport]:
        return failing_once("lost-after-effect")


class TestFakeTransport(TransportContract):
    resource = TransportResource(
        config=CONFIG,
        seconds=0.02,
        clock=100.0,
        logins={},
        commands={
            "args": ("args",),
            "exit": ("exit",),
            "kill": ("kill",),
            "sleep": ("sleep",),
            "stay": ("sleep",),
            "yes": ("yes",),
            "complain": None,
        },
        faults=FakeTransportFaults(),
    )
