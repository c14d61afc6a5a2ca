"""How a client comes into a stack: one module per way.

A way knows what the containers of a stack need before they start (keys, settings), how the daemon is greeted from outside, and what a
client must be told. A stack that people reach by SSH, whatever runs behind it, needs none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

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
        """Write into the folder what clients need."""
        ...


WAYS: Final[Mapping[str, Way]] = {"ssh": _ssh}
