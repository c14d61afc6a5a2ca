"""What it makes lacks what its groups ask for."""

from typing import Any

from attrs import frozen

from intercede.core.registry import BackendPlugin, SchedulerPlugin, TransportPlugin


@frozen
class OwnConfig:
    """Nothing to say."""


class Hollow:
    """Can submit, open and close, and thinks that this is enough."""

    status = None

    async def submit(self) -> None: ...
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def aclose(self) -> None: ...


def _hollow(*_: object) -> Any:
    return Hollow()


NOTHING = object()
plugin = BackendPlugin(OwnConfig, _hollow)
plain = BackendPlugin(dict, _hollow)
transport = TransportPlugin(OwnConfig, _hollow)
scheduler = SchedulerPlugin(OwnConfig, _hollow)
