"""interCEde without a machine: for testing what uses it, and for reading how little a backend needs.

    site = FakeSite(clock := FakeClock())
    async with FakeBackend(site=site) as ce:
        submission = await ce.submit(SubmissionSpec("payload.sh", ["sleep", "60"]))
        clock.advance(60)

Nothing here starts a process or a task. The disk is touched twice: inputs are read at submit, and output is written beneath `dest`.
"""

from typing import Final

from intercede.core.registry import BackendPlugin, SchedulerPlugin, TransportPlugin

from ._backend import CAPABILITIES, FakeBackend, FakeConfig, make_backend
from ._clock import Clock, FakeClock, FastClock
from ._faults import Fault, FaultKind, Faults, Operation
from ._payload import PAYLOAD
from ._queue import FakeQueue
from ._scheduler import FakeScheduler, FakeSchedulerConfig
from ._site import FakeSite
from ._suite import FakeFaults, FakeProbe
from ._transport import FakeTransport, FakeTransportConfig, Handler, make_transport

__all__ = [
    "CAPABILITIES",
    "PAYLOAD",
    "Clock",
    "FakeBackend",
    "FakeClock",
    "FakeConfig",
    "FakeFaults",
    "FakeProbe",
    "FakeQueue",
    "FakeScheduler",
    "FakeSchedulerConfig",
    "FakeSite",
    "FakeTransport",
    "FakeTransportConfig",
    "FastClock",
    "Fault",
    "FaultKind",
    "Faults",
    "Handler",
    "Operation",
    "backend",
    "make_backend",
    "make_transport",
    "scheduler",
    "transport",
]

backend: Final = BackendPlugin(
    config=FakeConfig,
    make=lambda config, resource, credentials: make_backend(config, resource),
    summary="A pretend resource on a clock of its own, for tests",
)

transport: Final = TransportPlugin(
    config=FakeTransportConfig,
    make=lambda config, credentials: make_transport(config),
    summary="A pretend host with a pretend batch system, for tests",
)

scheduler: Final = SchedulerPlugin(
    config=FakeSchedulerConfig,
    make=lambda config: FakeScheduler(),
    summary="The language of the pretend batch system, for tests",
)
