"""The rules for transports, held against commands over SSH to this machine's own sshd."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

from intercede.contract import LocalProbe, RelayFaults, TransportContract, TransportResource
from stacks.sshd import Sshd


@pytest.fixture(scope="class", autouse=True)
def host(request: pytest.FixtureRequest) -> Iterator[None]:
    """An sshd for all tests of a class."""
    with Sshd(request.cls.lines, sftp=request.cls.sftp) as sshd:
        request.cls.resource = TransportResource(
            # The key is pinned since the relay of the faults listens on another port.
            config={**sshd.config, "host_keys": [sshd.host_key], "connect_timeout_s": 3.0},
            credentials=sshd.credentials,
            seconds=1.0,
            probe=LocalProbe(tempfile.gettempdir()),
            faults=RelayFaults(sshd.credentials),
        )
        yield


class TestSSHTransport(TransportContract):
    lines: tuple[str, ...] = ()
    sftp = True


class TestSSHTransportWithOneSession(TransportContract):
    lines = ("MaxSessions 1",)
    sftp = False
