"""What the contract suite is told of a running stack. The modules that `stacks test` generates take it from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from intercede.contract import RelayFaults, Resource, TransportResource

from ._engine import find_engine
from ._faults import StackFaults
from ._life import Running, running
from ._manifest import stacks
from ._probe import ShellProbe
from ._resource import ROOT, composed

__all__ = ["backend", "transport"]


def transport(name: str) -> TransportResource:
    """The stack's way in, with every account that the manifest lists."""
    there = _there(name)
    stack, way = there.stack, there.way
    credentials = way.credentials(there.folder)
    return TransportResource(
        config=_config(there, stack.account),
        seconds=stack.seconds,
        logins={account: _config(there, account) for account in stack.logins} or None,
        probe=_probe(there),
        faults=RelayFaults(credentials, way.through, way.server),
        credentials=credentials,
    )


def backend(name: str) -> Resource:
    """The stack's way in composed with its scheduler; without a scheduler the way in is a backend."""
    there = _there(name)
    stack = there.stack
    credentials = there.way.credentials(there.folder)
    own = _config(there, stack.account)
    if not stack.scheduler:
        return Resource(
            config=own, seconds=stack.seconds, other_process=True, credentials=credentials
        )
    probe = _probe(there)
    faults = StackFaults(credentials, probe, there.way)
    return composed(stack, own, _root(there), probe, faults, credentials)


def _there(name: str) -> Running:
    return running(stacks()[name])


def _config(there: Running, account: str) -> Mapping[str, Any]:
    return there.way.config(there.stack, there.folder, there.port, account)


def _root(there: Running) -> str:
    return f"{there.home}/{ROOT}"


def _probe(there: Running) -> ShellProbe:
    user = ("--user", there.stack.account)
    return ShellProbe(
        (*find_engine().command, "exec", "--interactive", *user, there.container), _root(there)
    )
