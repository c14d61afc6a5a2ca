"""How much a call costs: round trips, scheduler invocations, memory."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from intercede.core import Command, JobStatus, OutputSpec


def invocations(command: Command) -> int:
    """How many scheduler commands a script runs."""
    text = command.stdin.decode("utf-8", "replace")
    run = re.findall(r"^(?:.* \| )?framed [a-z]+[0-9]+ ", text, re.MULTILINE)
    return len(run) + text.count('"$a/0.out"')


async def test_a_thousand_copies_stay_within_the_budget(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    wire = tools.Wire()
    spent: dict[str, tuple[int, int]] = {}
    async with make_backend(wire) as ce:

        async def measure(name: str, call: Any) -> Any:
            before, sent = wire.execs, len(wire.commands)
            result = await call
            invoked = sum(invocations(command) for command in wire.commands[sent:])
            spent[name] = (wire.execs - before, invoked)
            return result

        await measure("first use", ce.counts())
        spec = tools.script("exit 0", tag="budget", outputs=OutputSpec(["*"]))
        submission = await measure("submit", ce.submit(spec, 1000))
        ids = tools.ids_of(submission)
        await measure("status", ce.status(ids[-1:]))
        await measure("counts", ce.counts())
        await measure("find", ce.find("budget"))
        assert set(await tools.finish(ce, ids, 120)) == {JobStatus.SUCCESSFUL}
        await measure("status, all ended", ce.status(ids))
        await measure("details, all ended", ce.details(ids))
        await measure("diagnostics", ce.diagnostics(ids[:100]))
        await measure("fetch", ce.fetch_output(ids, tmp_path / "out"))
        await measure("kill", ce.kill(ids))
        await measure("purge", ce.purge(ids))
    budget = {
        "first use": (1 + 1, 1 + 1),
        "submit": (2, 1),
        "status": (1, 1),
        "counts": (1, 1),
        "find": (1, 0),
        "status, all ended": (2, 1),
        "details, all ended": (2, 1),
        "diagnostics": (1, 1),
        "fetch": (1, 0),
        "kill": (1, 2),
        "purge": (1, 0),
    }
    assert spent == budget


#: Memory is read as VmHWM: getrusage tells the largest of all that the process has been, its parent before exec included.
SUBMITTER = """\
import sys
import anyio
from intercede.core import SubmissionSpec, registry

async def main():
    config = {"transport": "local", "scheduler": "direct", "root": sys.argv[1], "slots": 4}
    async with registry.backend(config) as ce:
        submission = await ce.submit(SubmissionSpec("true", resident=True), copies=1000)
        submission.raise_for_failures()
        ids = [handle.id for handle in submission.handles]
        statuses = await ce.status(ids)
        while not all(status.is_finished for status in statuses.values()):
            await anyio.sleep(0.5)
            statuses = await ce.status(ids)
        assert {status.value for status in statuses.values()} == {"successful"}
        (await ce.purge(ids)).raise_for_failures()
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

anyio.run(main)
"""


async def test_the_submitter_of_a_thousand_copies_stays_below_150_mb(root: Path) -> None:
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", SUBMITTER, str(root)],
            check=True,
            capture_output=True,
            timeout=120,
        )
    )
    assert int(process.stdout) * 1024 < 150_000_000


FETCHER = """\
import sys
from pathlib import Path
import anyio
from intercede.core import OutputSpec, SubmissionSpec, registry

def peak():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

async def main():
    root, dest, text, size = sys.argv[1:]
    config = {"transport": "local", "scheduler": "direct", "root": root}
    async with registry.backend(config) as ce:
        spec = SubmissionSpec(
            "/bin/sh", resident=True, arguments=["-c", text], outputs=OutputSpec(everything=True)
        )
        submission = await ce.submit(spec)
        ids = [handle.id for handle in submission.handles]
        while not all(s.is_finished for s in (await ce.status(ids)).values()):
            await anyio.sleep(0.1)
        before = peak()
        result = await ce.fetch_output(ids, Path(dest))
        result.raise_for_failures()
        grown = peak() - before
        files = result[ids[0]].files
        assert sum(path.stat().st_size for path in files.values()) == int(size)
        (await ce.purge(ids)).raise_for_failures()
    print(grown, len(files))

anyio.run(main)
"""


@pytest.mark.parametrize(
    ("text", "size", "files"),
    [
        ("truncate -s 2G big", 2**31, 1),
        (
            "i=0; while [ $i -lt 5000 ]; do echo $i > file-$i; i=$((i + 1)); done",
            sum(len(str(number)) + 1 for number in range(5000)),
            5000,
        ),
    ],
    ids=["2 GiB", "5,000 files"],
)
async def test_memory_does_not_grow_with_the_output(
    root: Path, tmp_path: Path, text: str, size: int, files: int
) -> None:
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", FETCHER, str(root), str(tmp_path / "out"), text, str(size)],
            check=True,
            capture_output=True,
            timeout=200,
        )
    )
    grown, arrived = map(int, process.stdout.split())
    assert arrived == files
    assert grown < 64 * 2**20


SENDER = """\
import sys
from pathlib import Path
import anyio
from intercede.core import FileRef, SubmissionSpec, registry

def peak():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

async def main():
    root, big = sys.argv[1:]
    config = {"transport": "local", "scheduler": "direct", "root": root}
    async with registry.backend(config) as ce:
        await ce.counts()
        before = peak()
        spec = SubmissionSpec("true", resident=True, inputs=[FileRef("big", source=big)])
        submission = await ce.submit(spec)
        print(peak() - before)
        ids = [handle.id for handle in submission.handles]
        await ce.kill(ids)

anyio.run(main)
"""


async def test_memory_does_not_grow_with_the_inputs(root: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(500 * 2**20)
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", SENDER, str(root), str(big)],
            check=True,
            capture_output=True,
            timeout=120,
        )
    )
    sent = next(root.glob("*/inputs/big"))
    assert sent.stat().st_size == 500 * 2**20
    assert int(process.stdout) < 64 * 2**20
