"""All liars, in one table: importing this fills it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from intercede.contract import (
    BackendContract,
    Resource,
    SchedulerContract,
    SchedulerResource,
    TransportContract,
    TransportResource,
)
from intercede.contract._rules import RULES_ATTRIBUTE

from . import (
    _lies_elsewhere,
    _lies_ending,
    _lies_life,
    _lies_output,
    _lies_scheduler,
    _lies_status,
    _lies_submit,
    _lies_transport,
)
from ._honest import HONEST, LIARS, Liar, resource_of
from ._honest_scheduler import HONEST_SCHEDULERS, scheduler_resource_of
from ._honest_transport import HONEST_TRANSPORT, transport_resource_of

__all__ = ["HONESTS", "LIARS", "TESTS", "Liar", "contract_of", "told_of"]

_ = (
    _lies_elsewhere,
    _lies_ending,
    _lies_life,
    _lies_output,
    _lies_scheduler,
    _lies_status,
    _lies_submit,
    _lies_transport,
)

#: Those that keep every rule, by name.
HONESTS: Final[Mapping[str, type]] = {
    HONEST: BackendContract,
    HONEST_TRANSPORT: TransportContract,
    **dict.fromkeys(HONEST_SCHEDULERS, SchedulerContract),
}

#: What holds a liar to its rule, by the rule's letter; without one: the backends'.
_CONTRACTS: Final[Mapping[str, type]] = {"X": TransportContract, "N": SchedulerContract}

#: The rules of each test of the suite. No two contracts have a test of the same name.
TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    name: getattr(getattr(contract, name), RULES_ATTRIBUTE)
    for contract in (BackendContract, *_CONTRACTS.values())
    for name in dir(contract)
    if name.startswith("test_")
}


def contract_of(name: str) -> type:
    """The tests that it is held to."""
    if name in HONESTS:
        return HONESTS[name]
    return _CONTRACTS.get(LIARS[name].rule[0], BackendContract)


def told_of(name: str) -> Resource | TransportResource | SchedulerResource:
    """What the suite is told of it."""
    contract = contract_of(name)
    if contract is TransportContract:
        return transport_resource_of(name)
    if contract is SchedulerContract:
        return scheduler_resource_of(name)
    return resource_of(name)
