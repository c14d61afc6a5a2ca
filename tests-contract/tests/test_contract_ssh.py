"""The rules for transports, held against commands over SSH to this machine's own sshd."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from intercede.contract import LocalProbe, RelayFaults, TransportContract, TransportResource
from stacks.sshd import Sshd


@pytest.fixture(scope="class", autouse=True)
def host(request: pytest.FixtureRequest) -> Iterator[None]:
    """An sshd for all tests of a class, and one for each other login shell."""
    with ExitStack() as stack:
        sshd = stack.enter_context(Sshd(request.cls.lines, sftp=request.cls.sftp))
        request.cls.resource = TransportResource(
            # The key is pinned since the relay of the faults listens on another port.
            config={**sshd.config, "host_keys": [sshd.host_key], "connect_timeout_s": 3.0},
            credentials=sshd.credentials,
            seconds=1.0,
            logins={shell: _login(stack, sshd, shell) for shell in request.cls.shells},
            probe=LocalProbe(tempfile.gettempdir()),
            faults=RelayFaults(sshd.credentials),
        )
        yield


def _login(stack: ExitStack, sshd: Sshd, shell: str) -> dict[str, Any]:
    """The configuration for an account with the same key and another login shell."""
    assert shutil.which(shell), f"{shell} is needed for this test: apt-get install csh tcsh"
    forced = f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"'
    other = Sshd([forced])
    stack.callback(other.close)
    shutil.copy(sshd.folder / "authorized_keys", other.folder / "authorized_keys")
    (other.home / ".cshrc").write_text("echo Welcome\nalias sh 'echo no'\nalias dd 'echo no'\n")
    other.start()
    return other.config


class TestSSHTransport(TransportContract):
    lines: tuple[str, ...] = ()
    shells = ("dash", "csh", "tcsh")
    sftp = True


class TestSSHTransportWithOneSession(TransportContract):
    lines = ("MaxSessions 1",)
    shells = ("csh",)
    sftp = False
