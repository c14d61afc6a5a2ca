"""An interrupted run that pytest-xdist spreads over processes clears up, however little time pytest-xdist would give it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from intercede.contract._workers import undisturbed

#: As with a slow resource: pytest-xdist's ten seconds are over before a test has cleared up.
CONFTEST = """
import xdist.workermanage

xdist.workermanage.NodeManager.EXIT_TIMEOUT = 0.2
"""

MODULE = """
import asyncio
from pathlib import Path

from intercede.contract import BackendContract, Bench, Resource

clear = Bench._clear


async def slowly(self, backend):
    Path("clearing").touch()
    await asyncio.sleep(1.5)
    await clear(self, backend)
    Path("cleared").touch()


Bench._clear = slowly


class TestMine(BackendContract):
    resource = Resource(config={"type": "fake", "speed": 100.0}, seconds=0.05, clock=100.0)
"""

# Whoever runs these tests in the background may have told them to ignore it.
PROGRAM = (
    "import pytest, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "sys.exit(pytest.main(sys.argv[1:]))"
)


@pytest.mark.parametrize("end", [os.kill, os.killpg], ids=["alone", "as a terminal does"])
def test_an_interrupted_worker_is_not_ended_before_it_has_cleared_up(
    tmp_path: Path, end: Callable[[int, int], None]
) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_mine.py").write_text(MODULE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ("-q", "-p", "no:cacheprovider", "-n", "1", "-k", "exit_0")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *options],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "clearing").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        end(process.pid, signal.SIGINT)
        assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert (tmp_path / "clearing").exists()
    assert (tmp_path / "cleared").exists()


def test_whoever_sits_before_it_may_interrupt_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        assert signal.getsignal(signal.SIGINT) is before


def test_a_worker_is_disturbed_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before
