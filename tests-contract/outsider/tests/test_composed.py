"""The transport `socket` with the scheduler `spool` at its other end, held to the contract through `batch`."""

import os

from intercede.contract import BackendContract, LocalProbe, Resource

PLACE = os.environ["OUTSIDER_TESTS"]
ROOT = f"{PLACE}/socket-spool"
TRANSPORT = {"type": "socket", "socket": f"{PLACE}/socket"}
CONFIG = {"transport": TRANSPORT, "scheduler": {"type": "spool", "slots": 100}, "root": ROOT}


class TestComposed(BackendContract):
    resource = Resource(config=CONFIG, seconds=0.4, other_process=True, probe=LocalProbe(ROOT))
