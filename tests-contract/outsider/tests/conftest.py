"""The server that the transport speaks to, for the time of the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

_PLACE = "OUTSIDER_TESTS"
_SERVER = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # once, not in every process of pytest-xdist
        os.environ[_PLACE] = tempfile.mkdtemp(prefix="outsider-")
        _start_server(config, Path(os.environ[_PLACE], "socket"))


def _start_server(config: pytest.Config, socket: Path) -> None:
    server = subprocess.Popen([sys.executable, "-m", "outsider.server", str(socket)])
    config.stash[_SERVER] = server
    until = time.monotonic() + 20
    while not socket.exists():
        assert server.poll() is None and time.monotonic() < until, "the server does not start"
        time.sleep(0.02)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SERVER in config.stash:
        config.stash[_SERVER].terminate()
        config.stash[_SERVER].wait()
        shutil.rmtree(os.environ.pop(_PLACE), ignore_errors=True)
