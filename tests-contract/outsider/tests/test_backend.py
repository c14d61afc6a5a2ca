"""The backend `plain`, held to the contract."""

import os

from intercede.contract import BackendContract, LocalProbe, Resource

ROOT = os.environ["OUTSIDER_TESTS"]
CONFIG = {"type": "plain", "directory": ROOT}


class TestPlain(BackendContract):
    resource = Resource(
        config=CONFIG,
        seconds=0.2,
        other_process=True,
        probe=LocalProbe(f"{ROOT}/plain"),
        limited={
            "bytes": {**CONFIG, "name": "{unique}", "output_max_bytes": 100_000},
            "files": {**CONFIG, "name": "{unique}", "output_max_files": 20},
            "seconds": {**CONFIG, "name": "{unique}", "output_max_s": 0.1},
        },
    )
