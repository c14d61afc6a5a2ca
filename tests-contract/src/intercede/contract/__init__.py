"""The contract suite: tests that hold any backend to the rules of `intercede.core`.

    from intercede.contract import BackendContract, Resource

    class TestMine(BackendContract):
        resource = Resource(config={"type": "mine", "name": "test"})

or, with no code at all, `intercede-contract RESOURCE.toml`. Everything is imported when it is first asked for: merely to have the suite
installed, or to import this module, brings in neither pytest nor asyncio.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._backend import BackendContract
    from ._bench import Bench
    from ._command import main
    from ._payload import PAYLOAD
    from ._probe import LocalProbe, Probe
    from ._relay import Cut, Direction, Ending, Relay
    from ._relay_faults import RelayFaults
    from ._resource import Faults, Resource
    from ._rules import RULES, Verdict
    from ._scheduler import SchedulerContract
    from ._scheduler_resource import Sample, SchedulerResource
    from ._transport import TransportContract
    from ._transport_resource import COMMANDS, TransportFaults, TransportResource
    from ._verdict import not_observed, not_offered, rule

__all__ = [
    "COMMANDS",
    "PAYLOAD",
    "RULES",
    "BackendContract",
    "Bench",
    "Cut",
    "Direction",
    "Ending",
    "Faults",
    "LocalProbe",
    "Probe",
    "Relay",
    "RelayFaults",
    "Resource",
    "Sample",
    "SchedulerContract",
    "SchedulerResource",
    "TransportContract",
    "TransportFaults",
    "TransportResource",
    "Verdict",
    "main",
    "not_observed",
    "not_offered",
    "rule",
]

_LATER = {
    "COMMANDS": "_transport_resource",
    "PAYLOAD": "_payload",
    "RULES": "_rules",
    "BackendContract": "_backend",
    "Bench": "_bench",
    "Cut": "_relay",
    "Direction": "_relay",
    "Ending": "_relay",
    "Faults": "_resource",
    "LocalProbe": "_probe",
    "Probe": "_probe",
    "Relay": "_relay",
    "RelayFaults": "_relay_faults",
    "Resource": "_resource",
    "Sample": "_scheduler_resource",
    "SchedulerContract": "_scheduler",
    "SchedulerResource": "_scheduler_resource",
    "TransportContract": "_transport",
    "TransportFaults": "_transport_resource",
    "TransportResource": "_transport_resource",
    "Verdict": "_rules",
    "main": "_command",
    "not_observed": "_verdict",
    "not_offered": "_verdict",
    "rule": "_verdict",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
