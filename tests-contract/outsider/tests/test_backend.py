"""The backend `plain`, held to the contract."""

import os

from intercede.contract import BackendContract, LocalProbe, Resource

ROOT = os.environ["OUTSIDER_TESTS"]
CONFIG = {"type": "plain", "directory": ROOT}
TIGHT = {**CONFIG, "name": "{unique}", "output_max_bytes": 100_000, "output_max_files": 20}
LIMITED = {"bytes": TIGHT, "files": TIGHT, "seconds": {**CONFIG, "output_max_s": 0.1}}


class TestPlain(BackendContract):
    resource = Resource(
        config=CONFIG, seconds=0.2, limited=LIMITED, probe=LocalProbe(f"{ROOT}/plain")
    )
