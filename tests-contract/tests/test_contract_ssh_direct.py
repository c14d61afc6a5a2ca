"""The suite, held against processes of this machine that are reached over its own sshd: what `batch` says to a host it says here too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from intercede.contract import BackendContract, LocalProbe, Resource
from stacks import _ssh
from stacks._faults import StackFaults
from stacks.sshd import Sshd

ROOT = Path(os.environ["INTERCEDE_CONTRACT_ROOT"]) / "ssh-direct"


@pytest.fixture(scope="class", autouse=True)
def host(request: pytest.FixtureRequest) -> Iterator[None]:
    """An sshd for all tests of the class."""
    with Sshd() as sshd:
        probe = LocalProbe(ROOT)
        transport = {**sshd.config, "host_keys": [sshd.host_key]}
        config = {
            "transport": transport,
            "scheduler": {"type": "direct", "slots": 100},
            "root": str(ROOT),
        }
        alone = {**config, "root": f"{ROOT}-{{unique}}"}
        request.cls.resource = Resource(
            config=config,
            seconds=0.5,
            other_process=True,
            narrow={**alone, "scheduler": {"type": "direct", "slots": 1}},
            limited={
                "bytes": {**alone, "output_max_bytes": 100_000},
                "files": {**alone, "output_max_files": 20},
                "seconds": {**alone, "output_max_s": 0.2},
            },
            probe=probe,
            faults=StackFaults(sshd.credentials, probe, _ssh),
            credentials=sshd.credentials,
        )
        yield


class TestSSHDirect(BackendContract):
    """See the fixture for the resource."""
