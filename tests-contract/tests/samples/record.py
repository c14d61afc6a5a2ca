"""Records the samples beside this file: `python record.py` asks the schedulers themselves, and writes down what they say.

Direct is asked on this machine, with one slot: of three copies one runs, one waits and one is over. The fake is asked in this process.
The host's name and the sandbox's place are replaced by fixed ones. What an answer means (`expected`) is what the parser makes of it today:
read it before it is committed.
"""

from __future__ import annotations

import asyncio
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from intercede.core import (
    Command,
    CommandResult,
    NativeJob,
    Scheduler,
    StagedBatch,
    SubmissionSpec,
    registry,
)

PLACE = Path(__file__).parent
SPEC = SubmissionSpec("/bin/true", resident=True)
RUNNER = """#!/bin/sh
cd "$(dirname "$0")/$1"
[ "$1" = 0 ] || sleep 5
echo 0 > exit
"""


def record(
    scheduler: Scheduler,
    daemon: str,
    run: Callable[[Command], CommandResult],
    run_amiss: Callable[[Command], CommandResult],
    root: str,
    settle: Callable[[], None],
    *,
    jobs_of: Callable[[StagedBatch, dict[int, str]], Sequence[NativeJob]],
) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []

    def ask(call: str, commands: Sequence[Command], **more: Any) -> list[CommandResult]:
        results = [run(command) for command in commands]
        words = " && ".join(_shown(command) for command in commands)
        samples.append(
            {
                "call": call,
                "daemon": daemon,
                "command": words,
                "results": [_result(result) for result in results],
                "expected": {},
                **more,
            }
        )
        return results

    facts = dict(scheduler.parse_probe(ask("probe", scheduler.probe_commands(None))))
    samples[-1]["expected"] = {key: value for key, value in facts.items() if key != "host"}
    batch = StagedBatch("s1", "mark1", f"{root}/s1", f"{root}/s1/runner", (0, 1, 2), SPEC)
    shown = {
        key: getattr(batch, key) for key in ("submission", "mark", "directory", "runner", "copies")
    }
    answer = scheduler.parse_submit(
        batch, ask("submit", scheduler.submit_commands(batch, facts), batch=shown)
    )
    natives = {copy: native for copy, native in answer.items() if isinstance(native, str)}
    samples[-1]["expected"] = {str(copy): native for copy, native in natives.items()}
    settle()
    jobs = jobs_of(batch, natives)
    tables = [
        {
            "id": job.id,
            "copy": job.copy,
            "submission": job.submission,
            "submitted_at": job.submitted_at.isoformat(),
        }
        for job in jobs
    ]
    told = scheduler.parse_status(jobs, ask("status", scheduler.status_commands(jobs), jobs=tables))
    samples[-1]["expected"] = {job.id: str(details.status) for job, details in told.items()}
    history = scheduler.history_commands(jobs)
    if history:
        ended = scheduler.parse_history(jobs, ask("history", history, jobs=tables))
        samples[-1]["expected"] = {job.id: str(details.status) for job, details in ended.items()}
    listed = scheduler.parse_list(ask("list", scheduler.list_commands("mark")))
    samples[-1]["expected"] = {
        native: [mark, copy, str(status)] for native, (mark, copy, status) in listed.items()
    }
    (command,) = scheduler.probe_commands(None)
    samples.append(
        {
            "call": "probe",
            "daemon": daemon,
            "command": f"{_shown(command)}, with nothing on the PATH",
            "results": [_result(run_amiss(command))],
            "expected": None,
        }
    )
    return samples


def _shown(command: Command) -> str:
    words = [word if len(word) < 100 and "\n" not in word else "PROGRAM" for word in command.argv]
    return " ".join(words)


def _result(result: CommandResult) -> dict[str, Any]:
    host = platform.node()
    return {
        "returncode": result.returncode,
        "stdout": result.stdout.decode("utf-8", "surrogateescape").replace(host, "node1"),
        "stderr": result.stderr.decode("utf-8", "surrogateescape").replace(host, "node1"),
    }


def _jobs(batch: StagedBatch, natives: dict[int, str]) -> list[NativeJob]:
    now = datetime.now(UTC)
    return [NativeJob(native, copy, batch.submission, now) for copy, native in natives.items()]


def direct() -> list[dict[str, Any]]:
    flock = subprocess.run(["flock", "--version"], capture_output=True, text=True, check=True)
    daemon = f"direct on Linux {platform.release()}, {flock.stdout.strip()}"
    with tempfile.TemporaryDirectory(
        prefix="intercede-samples-", ignore_cleanup_errors=True
    ) as root:
        for copy in range(3):
            Path(root, "s1", str(copy), "work").mkdir(parents=True)
        Path(root, "s1", "runner").write_text(RUNNER)

        def run(command: Command) -> CommandResult:
            done = subprocess.run(
                command.argv, input=command.stdin, cwd=root, capture_output=True, check=False
            )
            return CommandResult(done.returncode, done.stdout, done.stderr)

        def run_amiss(command: Command) -> CommandResult:
            done = subprocess.run(
                command.argv,
                executable="/bin/sh",
                env={"PATH": "/nowhere"},
                cwd=root,
                capture_output=True,
                check=False,
            )
            return CommandResult(done.returncode, done.stdout, done.stderr)

        scheduler = registry.scheduler({"type": "direct", "slots": 1})
        samples = record(
            scheduler, daemon, run, run_amiss, root, lambda: time.sleep(2), jobs_of=_jobs
        )
        deadline = time.monotonic() + 30
        while len(list(Path(root).glob("s1/*/exit"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
    text = json.dumps(samples).replace(root, "/tmp/samples")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def fake() -> list[dict[str, Any]]:
    from intercede.fake import FakeQueue, FakeSite, FakeTransport, FastClock

    queue = FakeQueue(FakeSite(FastClock(1.0), slots=1), ("sleep", "1"))

    def run(command: Command) -> CommandResult:
        return queue.handlers[command.argv[0]](command)

    def run_amiss(command: Command) -> CommandResult:
        return asyncio.run(FakeTransport().run(command))

    return record(
        registry.scheduler("fake"),
        "fake-queue 1",
        run,
        run_amiss,
        "/tmp/samples",
        lambda: time.sleep(1.5),
        jobs_of=_jobs,
    )


if __name__ == "__main__":
    for name, recorded in (("direct", direct), ("fake", fake)):
        (PLACE / f"{name}.json").write_text(json.dumps(recorded(), indent=1) + "\n")
