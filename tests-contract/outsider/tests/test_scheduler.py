"""The scheduler `spool`, on this machine, held to the contract through `batch`."""

import os

from intercede.contract import BackendContract, LocalProbe, Resource

ROOT = f"{os.environ['OUTSIDER_TESTS']}/spool"
CONFIG = {"transport": "local", "scheduler": {"type": "spool", "slots": 100}, "root": ROOT}
NARROW = {**CONFIG, "scheduler": {"type": "spool", "slots": 1}, "root": f"{ROOT}-{{unique}}"}


class TestSpool(BackendContract):
    resource = Resource(
        config=CONFIG, seconds=0.4, other_process=True, narrow=NARROW, probe=LocalProbe(ROOT)
    )
