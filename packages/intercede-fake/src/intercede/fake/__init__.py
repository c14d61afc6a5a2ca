"""interCEde without a machine: for testing what uses it, and for reading how little a backend needs.

    site = FakeSite(clock := FakeClock())
    async with FakeBackend(site=site) as ce:
        submission = await ce.submit(SubmissionSpec("payload.sh", ["sleep", "60"]))
        clock.advance(60)

Nothing here starts a process or a task. The disk is touched twice: inputs are read at submit, and output is written beneath `dest`.
"""

from typing import Final

from intercede.core.registry import BackendPlugin

from ._backend import CAPABILITIES, FakeBackend, FakeConfig, make_backend
from ._clock import Clock, FakeClock, FastClock
from ._faults import Fault, FaultKind, Faults, Operation
from ._payload import PAYLOAD
from ._site import FakeSite

__all__ = [
    "CAPABILITIES",
    "PAYLOAD",
    "Clock",
    "FakeBackend",
    "FakeClock",
    "FakeConfig",
    "FakeSite",
    "FastClock",
    "Fault",
    "FaultKind",
    "Faults",
    "Operation",
    "backend",
    "make_backend",
]

backend: Final = BackendPlugin(
    config=FakeConfig,
    make=lambda config, resource, credentials: make_backend(config, resource),
    summary="A pretend resource on a clock of its own, for tests",
)
