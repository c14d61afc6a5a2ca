"""The suite, held against the fake: milliseconds a job, a look at the pretend host, and faults to switch on.

Its connections take a moment, so that rules about connecting have something to interrupt.
"""

from intercede.contract import BackendContract, Resource
from intercede.fake import FakeFaults, FakeProbe

SLOW_CONNECT = {"operation": "connect", "kind": "slow", "times": 0, "seconds": 0.5}
CONFIG = {"type": "fake", "site": "suite", "speed": 100.0, "faults": [SLOW_CONNECT]}
ALONE = {**CONFIG, "site": "suite-{unique}"}


class TestFake(BackendContract):
    resource = Resource(
        config=CONFIG,
        seconds=0.05,
        clock=100.0,
        narrow={**ALONE, "slots": 1},
        limited={
            "bytes": {**ALONE, "output_max_bytes": 100_000},
            "files": {**ALONE, "output_max_files": 20},
            "seconds": {**ALONE, "output_max_seconds": 5.0, "fetch_bytes_per_s": 1e8},
        },
        absurd={
            "cpus": 65,
            "memory_mb": 2**40,
            "nodes": 2,
            "gpus": 1,
            "queue": "no-such-queue",
        },
        probe=FakeProbe("suite"),
        faults=FakeFaults(),
    )
