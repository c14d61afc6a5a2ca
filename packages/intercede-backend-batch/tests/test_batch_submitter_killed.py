"""The submitter may die at any moment: another process finds what it made, and nothing runs twice."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import cast

import anyio
import pytest

from intercede.backend.batch import BatchBackend
from intercede.core import FailureCode, JobStatus, registry

SUBMITTER = """\
import sys
import anyio
from intercede.core import FileRef, OutputSpec, SubmissionSpec, registry

root, ledger, tag = sys.argv[1:]

async def main():
    spec = SubmissionSpec(
        "/bin/sh",
        resident=True,
        arguments=["-c", 'echo "$INTERCEDE_JOB" >> "$0"; cat data > copy', ledger],
        inputs=[FileRef("data", content=b"x" * 300_000)],
        tag=tag,
    )
    config = {"transport": "local", "scheduler": "direct", "root": root, "slots": 2}
    async with registry.backend(config) as ce:
        print("begin", flush=True)
        await ce.submit(spec, copies=3)
        print("submitted", flush=True)
        await anyio.sleep(60)

anyio.run(main)
"""

MOMENTS = 50
SHARDS = 5


def backend(root: Path) -> BatchBackend:
    config = {
        "transport": "local",
        "scheduler": "direct",
        "root": str(root),
        "slots": 2,
        "grace_s": 1,
    }
    return cast("BatchBackend", registry.backend(config))


def submit_and_die(root: Path, ledger: Path, tag: str, delay_s: float) -> bool:
    """Start a submitter and kill it a while after it began. Returns whether `submit` had returned."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMITTER, str(root), str(ledger), tag],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = process.stdout.read()
    process.stdout.close()
    return "submitted" in said


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_a_submitter_killed_at_a_random_moment_loses_and_doubles_nothing(
    tmp_path: Path, shard: int
) -> None:
    root = tmp_path / "root"
    chance = random.Random(20261122 + shard)
    async with backend(root) as ce:
        for moment in range(MOMENTS // SHARDS):
            ledger, tag = tmp_path / f"ledger-{moment}", f"tag {shard} {moment}"
            delay_s = chance.uniform(0.0, 0.25)
            returned = submit_and_die(root, ledger, tag, delay_s)

            handles = await ce.find(tag)
            ids = [handle.id for handle in handles]
            assert [handle.copy for handle in handles] in ([], [0, 1, 2])
            assert handles or not returned

            # What was submitted ends; what was only staged stays as it is until it is killed.
            with anyio.fail_after(30):
                while True:
                    details = await ce.details(ids)
                    codes = {failure.code for failure in details.failures.values()}
                    assert codes <= {FailureCode.NOT_NOW}
                    open_ = [
                        d
                        for d in details.values()
                        if not d.status.is_finished and "staged" not in (d.reason or "")
                    ]
                    if not open_:
                        break
                    await anyio.sleep(0.05)
            staged = [d for d in details.values() if not d.status.is_finished]
            assert len(staged) in (0, len(ids))
            (await ce.kill(ids)).raise_for_failures()
            statuses = set((await ce.status(ids)).values())
            runs = Counter(ledger.read_text().split() if ledger.exists() else [])
            if staged or not ids:
                assert statuses <= {JobStatus.CANCELLED}
                assert not runs
            else:
                assert statuses == {JobStatus.SUCCESSFUL}
                assert sorted(runs) == [f"{handles[0].submission}.{copy};" for copy in range(3)]
                assert set(runs.values()) == {1}
            (await ce.purge(ids)).raise_for_failures()
            assert await ce.find(tag) == ()
        counts = await ce.counts()
        assert (counts.running, counts.waiting) == (0, 0)
