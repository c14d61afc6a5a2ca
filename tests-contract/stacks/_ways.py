"""How a client comes into a stack: one module per way.

A way knows what the containers of a stack need before they start (keys, settings), how the daemon is greeted from outside, and what a
client must be told. A stack that people reach by SSH, whatever runs behind it, needs none of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from intercede.contract import Relay
from intercede.core import CredentialProvider

from . import _ssh
from ._container import Container
from ._manifest import Stack

__all__ = ["WAYS", "Way"]


class Way(Protocol):
    """What each way's module has."""

    def containers(self, stack: Stack, folder: Path) -> Sequence[Container]:
        """What to start, in this order, the first of them published; secrets are made afresh, the client's half in the folder."""
        ...

    def announced(self, port: int) -> str:
        """What the daemon at this port says it is; OSError while there is none."""
        ...

    def describe(self, stack: Stack, folder: Path, port: int) -> None:
        """Write into the folder what people need to come in."""
        ...

    def config(self, stack: Stack, folder: Path, port: int, account: str) -> Mapping[str, Any]:
        """What the registry is given: of the transport where the stack names a scheduler, else of the backend."""
        ...

    def credentials(self, folder: Path) -> Callable[[], CredentialProvider]:
        """Makes a provider of what the daemon takes."""
        ...

    def server(self, told: Mapping[str, Any]) -> tuple[str, int]:
        """The host and the port that a client with this configuration turns to first."""
        ...

    def through(self, told: Mapping[str, Any], relay: Relay) -> Mapping[str, Any]:
        """The configuration of a client that gets there by a relay."""
        ...


WAYS: Final[Mapping[str, Way]] = {"ssh": _ssh}
