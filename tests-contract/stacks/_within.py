"""What the suite is told of the stack in whose container it runs. The module that is generated for there takes it from here."""

from __future__ import annotations

from pathlib import Path

from intercede.contract import LocalProbe, Resource
from intercede.toolkit import StaticCredentials

from ._faults import StackFaults
from ._manifest import stacks
from ._resource import ROOT, composed

__all__ = ["backend"]


def backend(name: str) -> Resource:
    """The local transport with the scheduler of the stack that we are in."""
    root = str(Path.home() / ROOT)
    probe = LocalProbe(root)
    return composed(
        stacks()[name], {"type": "local"}, root, probe, StackFaults(StaticCredentials, probe)
    )
