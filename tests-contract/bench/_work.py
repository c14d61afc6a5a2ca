"""What both sides of a benchmark need: a connection that OpenSSH's clients share, and jobs that have come to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio

from intercede.core import JobBackend, JobID, JobStatus

__all__ = ["all_successful", "shared_connection"]

_PATIENCE_S: Final = 600.0


@contextmanager
def shared_connection(options: Sequence[str], host: str, place: Path) -> Iterator[list[str]]:
    """Options with which OpenSSH's clients share a connection to the host that is open already.

    Args:
        options: How they come there.
        host: Where.
        place: A folder of our own.
    """
    shared = [*options, f"-oControlPath={place}/master"]
    master = ["ssh", *shared, "-oControlMaster=yes", "-N", "-f", host]
    subprocess.run(master, check=True, stdin=subprocess.DEVNULL)
    try:
        yield shared
    finally:
        subprocess.run(["ssh", *shared, "-O", "exit", host], check=True)


async def all_successful(ce: JobBackend, ids: Sequence[JobID]) -> None:
    """Wait for the end of jobs, each of which must be a good one."""
    with anyio.fail_after(_PATIENCE_S):
        while True:
            statuses = set((await ce.status(ids)).values())
            if all(status.is_finished for status in statuses):
                break
            await anyio.sleep(0.1)
    assert statuses == {JobStatus.SUCCESSFUL}
