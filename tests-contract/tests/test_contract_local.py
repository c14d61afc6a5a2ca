"""The suite, held against real processes in real sandboxes on this machine."""

import os
from pathlib import Path

from intercede.contract import BackendContract, LocalProbe, Resource

ROOT = Path(os.environ["INTERCEDE_CONTRACT_ROOT"])
CONFIG = {
    "transport": "local",
    "scheduler": {"type": "direct", "slots": 100},
    "root": str(ROOT / "shared"),
}
ALONE = {**CONFIG, "root": str(ROOT / "{unique}")}


class TestLocalDirect(BackendContract):
    resource = Resource(
        config=CONFIG,
        seconds=0.3,
        other_process=True,
        narrow={**ALONE, "scheduler": {"type": "direct", "slots": 1}},
        limited={
            "bytes": {**ALONE, "output_max_bytes": 100_000},
            "files": {**ALONE, "output_max_files": 20},
            "seconds": {**ALONE, "output_max_s": 0.5},
        },
        probe=LocalProbe(ROOT / "shared"),
    )
