"""A transport, a scheduler, and a backend made of the two. They carry and say nothing: only their making is of interest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from attrs import field, frozen, validators

from intercede.core import CredentialProvider, PluginError, Scheduler, SubmissionSpec, Transport
from intercede.core.registry import (
    ComposedBackendPlugin,
    SchedulerPlugin,
    TransportPlugin,
    describe,
)


class Silent:
    """Has every method that is asked for, and none of them does anything."""

    stages_own_files = False
    native_id = "[0-9]+"

    def __init__(self, *made_of: object) -> None:
        self.made_of = made_of

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...
    async def aclose(self) -> None: ...
    async def run(self, *_: object) -> None: ...
    def stream(self, *_: object) -> None: ...
    async def put(self, *_: object) -> None: ...
    async def get(self, *_: object) -> None: ...
    async def submit(self, *_: object) -> None: ...
    async def status(self, *_: object) -> None: ...
    def check(self, spec: SubmissionSpec, facts: Mapping[str, int | str]) -> None: ...
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def silent(*made_of: object) -> Any:
    """What any `make` may be."""
    return Silent(*made_of)


def _nothing(self: Silent, *_: object) -> Sequence[object]:
    return ()


for _name in (
    *("probe_commands", "parse_probe", "submit_commands", "parse_submit", "status_commands"),
    *("parse_status", "history_commands", "parse_history", "kill_commands", "list_commands"),
    "parse_list",
):
    setattr(Silent, _name, _nothing)


@frozen
class PipeConfig:
    host: str = field(metadata=describe("Where to"))
    port: int = field(
        default=22, validator=validators.ge(1), metadata=describe("TCP port", unit="port")
    )
    timeout_s: float = field(default=10.0, metadata=describe("Patience", unit="s"))
    mode: Literal["fast", "safe"] = "safe"
    key: str | None = field(
        default=None, repr=False, validator=validators.optional(validators.max_len(5))
    )
    folder: Path = Path("here")


@frozen
class ListConfig:
    queue: str | None = None
    timeout_s: float = 5.0
    options: tuple[str, ...] = field(factory=tuple, converter=tuple)
    limits: Mapping[str, int] = field(factory=dict)
    colours: frozenset[str] = frozenset()


@frozen
class PairConfig:
    root: str = "~/jobs"


def _pipe(config: PipeConfig, credentials: CredentialProvider | None) -> Any:
    if config.host == "boom":
        raise ZeroDivisionError("boom")
    if config.host == "said":
        raise PluginError("said on purpose")
    return silent(config, credentials)


def _list(config: ListConfig) -> Any:
    return silent(config)


def _pair(config: PairConfig, name: str, transport: Transport, scheduler: Scheduler) -> Any:
    return silent(config, name, transport, scheduler)


pipe = TransportPlugin(PipeConfig, _pipe, "carries nothing")
listing = SchedulerPlugin(ListConfig, _list)
pair = ComposedBackendPlugin(PairConfig, _pair)
