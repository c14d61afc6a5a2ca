"""The suite, held against the fake: milliseconds a job, and faults to switch on.

Its connections take a moment, so that rules about connecting have something to interrupt.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from intercede.contract import BackendContract, Resource
from intercede.core import JobBackend, JobHandle, registry

SLOW_CONNECT = {"operation": "connect", "kind": "slow", "times": 0, "seconds": 0.5}
CONFIG = {"type": "fake", "site": "suite", "speed": 100.0, "faults": [SLOW_CONNECT]}
ALONE = {**CONFIG, "site": "suite-{unique}"}


@asynccontextmanager
async def faulty(config: Mapping[str, object], **fault: object) -> AsyncIterator[JobBackend]:
    async with registry.backend({**config, "faults": [{"times": 0, **fault}]}) as backend:
        yield backend


class FakeFaults:
    """What the fake can be made to do wrong."""

    def status_fails(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        return faulty(config, operation="status", kind="resource-error")

    def unreachable(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        return faulty(config, operation="connect", kind="unreachable")

    def row_is_garbage(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        return faulty(config, operation="status", kind="item", ids=[handle.id], code="not-now")

    def submit_answer_lost(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        return faulty(config, operation="submit", kind="lost-after-effect", times=1)

    def lost_after_staging(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        return faulty(config, operation="submit", kind="staged-only")

    def output_cut(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        raise LookupError("a fake has no stream")

    def id_reused(
        self, config: Mapping[str, object], finished: JobHandle, running: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        raise LookupError("a fake has no scheduler")


class TestFake(BackendContract):
    resource = Resource(
        config=CONFIG,
        seconds=0.05,
        clock=100.0,
        narrow={**ALONE, "slots": 1},
        limited={
            "bytes": {**ALONE, "output_max_bytes": 100_000},
            "files": {**ALONE, "output_max_files": 20},
        },
        absurd={
            "cpus": 65,
            "memory_mb": 2**40,
            "nodes": 2,
            "gpus": 1,
            "queue": "no-such-queue",
        },
        faults=FakeFaults(),
    )
