"""Interrupted runs that pytest-xdist spreads over processes: the workers get the time to kill and purge what their tests submitted.

pytest-xdist would tell a worker after five seconds and kill it after five more, which is too soon for a busy machine or a slow resource.
So the first process tells them itself, and waits, before pytest-xdist sees to them. At a terminal Ctrl-C has told them as well: once
interrupted, a worker listens to no second time. Whoever does not want to wait presses Ctrl-C again, in the first process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest

__all__ = ["WORKER_PROPERTY", "Workers", "undisturbed"]

#: How a report tells of the worker that it comes from: by the id of its process.
WORKER_PROPERTY: Final = "contract_worker"
#: How long to wait for them, in seconds; a test's own time to clear up is shorter.
_PATIENCE_S: Final = 300.0
#: pytest-xdist's, in its workers.
_IN_A_WORKER: Final = "PYTEST_XDIST_WORKER"


class Workers:
    """The workers that run tests of the suite, as the first process knows them."""

    def __init__(self) -> None:
        self._pids: dict[Any, int] = {}

    def note(self, report: pytest.TestReport) -> None:
        """A worker begins a test of the suite; those on other machines are left to pytest-xdist."""
        pid = dict(report.user_properties).get(WORKER_PROPERTY)
        node = getattr(report, "node", None)
        if pid is not None and node is not None and node.gateway.spec.popen:
            self._pids[node] = int(str(pid))

    def clear_up(self) -> None:
        """Interrupt them, and wait until they have cleared up; no longer after another Ctrl-C."""
        until = time.monotonic() + _PATIENCE_S
        with suppress(KeyboardInterrupt):
            for pid in self._pids.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            for node in self._pids:
                # What went wrong there is told by pytest-xdist.
                with suppress(OSError, EOFError, node.channel.RemoteError):
                    node.channel.waitclose(max(0.0, until - time.monotonic()))


@contextmanager
def undisturbed(interrupted: bool = True) -> Iterator[None]:
    """In a worker that is interrupted, let nobody interrupt once more. Elsewhere somebody may sit who does not want to wait."""
    if not (interrupted and _IN_A_WORKER in os.environ):
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
