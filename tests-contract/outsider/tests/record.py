"""Record what `spool` answers on this machine: `python record.py >spool.json`."""

import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from outsider.scheduler import PROGRAM, SpoolConfig, SpoolScheduler

from intercede.core import Command, NativeJob, StagedBatch, SubmissionSpec

FLOCK = subprocess.run(
    ["flock", "--version"], capture_output=True, text=True, check=True
).stdout.strip()
DAEMON = f"spool 1.0 on {platform.system()} {platform.release()}, {FLOCK}"


def main() -> None:
    scheduler = SpoolScheduler(SpoolConfig(slots=1))
    now = datetime.now(UTC)
    jobs = [NativeJob(f"s1.{copy}", copy, "s1", now) for copy in range(3)]
    asked = [
        {"id": j.id, "copy": j.copy, "submission": "s1", "submitted_at": now.isoformat()}
        for j in jobs
    ]
    samples: list[Mapping[str, object]] = []
    with tempfile.TemporaryDirectory() as root:
        runner = Path(root, "runner")
        runner.write_text('[ "$1" = 0 ] || exec sleep 60\n')

        def record(
            call: str, commands: Sequence[Command], expected: object, **more: object
        ) -> None:
            results = []
            for command in commands:
                done = subprocess.run(
                    command.argv, input=command.stdin, cwd=root, capture_output=True, check=False
                )
                out, err = done.stdout.decode(), done.stderr.decode()
                results.append({"returncode": done.returncode, "stdout": out, "stderr": err})
            words = " ".join(commands[0].argv).replace(PROGRAM, "PROGRAM")
            sample = {"call": call, "daemon": DAEMON, "command": words.replace(root, "/root")}
            samples.append({**sample, "results": results, "expected": expected, **more})

        record("probe", scheduler.probe_commands(None), {})
        copies = [0, 1, 2]
        batch = StagedBatch("s1", "mark1", root, str(runner), copies, SubmissionSpec("x"))
        table = {"submission": "s1", "mark": "mark1", "directory": "/root"}
        table |= {"runner": "/root/runner"}
        record(
            "submit",
            scheduler.submit_commands(batch, {"cores": 1}),
            {str(copy): f"s1.{copy}" for copy in copies},
            batch={**table, "copies": copies},
        )
        time.sleep(2)
        states = {"s1.1": "running", "s1.2": "pending"}
        record("status", scheduler.status_commands(jobs), states, jobs=asked)
        marks = {native: ["mark1", state] for native, state in states.items()}
        record("list", scheduler.list_commands("mark"), marks)
        (kill,) = scheduler.kill_commands(jobs)
        subprocess.run(kill.argv, input=kill.stdin, cwd=root, capture_output=True, check=True)
        record("status", scheduler.status_commands(jobs), {}, jobs=asked)
        record("list", scheduler.list_commands("mark"), {})
        nowhere = [Command(("sh", "-c", "exit 127"))]
        record("list", nowhere, None)
        record("status", nowhere, None, jobs=asked)
    print(json.dumps(samples, indent=1))


if __name__ == "__main__":
    main()
