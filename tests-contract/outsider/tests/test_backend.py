"""The backend, held to the contract."""

import tempfile

from intercede.contract import BackendContract, LocalProbe, Resource

ROOT = tempfile.mkdtemp(prefix="outsider-")


class TestPlain(BackendContract):
    resource = Resource(
        config={"type": "plain", "directory": ROOT},
        seconds=0.2,
        other_process=True,
        probe=LocalProbe(f"{ROOT}/plain"),
    )
