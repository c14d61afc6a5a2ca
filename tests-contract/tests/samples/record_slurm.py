"""Records what Slurm says: `python record_slurm.py slurm-trixie [...]` asks the Slurm of running stacks, and writes slurm-<version>.json.

Each program that the scheduler sends is run there by an account of the stack, in its home directory, without a backend. The jobs of the
samples end in every way that takes no administrator, and some are held. What an answer means (`expected`) is what the parser makes of it
today: read it before it is committed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from intercede.contract import Sample
from intercede.contract._scheduler_resource import CALLS
from intercede.core import (
    Command,
    CommandResult,
    NativeJob,
    ResourceError,
    Results,
    Scheduler,
    StagedBatch,
    SubmissionSpec,
    registry,
)
from intercede.toolkit import new_submission

PLACE: Final = Path(__file__).parent
_SPEC: Final = SubmissionSpec("/bin/true", resident=True)
_MARK: Final = "intercede:samples:"
#: What the copies of the first batch do.
_RUNNER: Final = """\
#!/bin/sh
case $1 in
  1) exit 3;;
  2) kill -9 $$;;
  3) sleep 60;;
esac
"""
#: Which of Slurm's commands each call runs.
_ASKS: Final = {
    "probe": "scontrol -a -o (show config, show partitions); sinfo -a -e -o FORMAT",
    "submit": "sbatch --parsable ...",
    "status": "squeue --me -t all -o FORMAT",
    "history": "sacct -X -p -D -S TIME -j IDS --format=...",
    "list": "squeue --me -r -t all -o FORMAT",
}
#: A controller that is not there.
_NOBODY: Final = "sed 's/^SlurmctldPort=.*/SlurmctldPort=9/' \"${SLURM_CONF:-/etc/slurm/slurm.conf}\" > nobody.conf"


class Recorder:
    """The samples of one stack in the making.

    Args:
        stack: Its id.
        account: Whose jobs.
    """

    def __init__(self, stack: str, account: str = "bash") -> None:
        self._container = f"intercede-{stack}"
        self._account = account
        self.version = self._text("sbatch --version").split()[-1]
        self.samples: list[dict[str, Any]] = []

    def run(self, command: Command, **environment: str) -> CommandResult:
        """Run a command there."""
        given = [f"--env={name}={value}" for name, value in environment.items()]
        prefix = ["podman", "exec", "-i", "--user", self._account, *given]
        home = f"/home/{self._account}"
        done = subprocess.run(
            [*prefix, "--workdir", home, "--env", f"HOME={home}", self._container, *command.argv],
            input=command.stdin,
            capture_output=True,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def _text(self, line: str) -> str:
        return self.run(Command(("sh", "-c", line))).stdout.decode()

    def ask(
        self,
        scheduler: Scheduler,
        call: str,
        commands: Sequence[Command],
        note: str = "",
        environment: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Results:
        """Ask, and add the sample."""
        results = [self.run(command, **(environment or {})) for command in commands]
        table = {
            "call": call,
            "daemon": f"Slurm {self.version}",
            "command": f"sh -c PROGRAM slurm, which runs {_ASKS[call]}{note}",
            "results": [_result(result) for result in results],
            "expected": None,
            **more,
        }
        self.samples.append(table)
        place = PLACE / ".one.json"
        place.write_text(json.dumps([table]))
        try:
            (sample,) = Sample.read(place)
            table["expected"] = CALLS[call](scheduler, sample, results)
        except ResourceError:
            pass
        finally:
            place.unlink()
        if call == "probe" and table["expected"]:
            kept = ("version", "max_array_size", "max_job_count", "accounting", "default_partition")
            told = table["expected"]
            table["expected"] = {
                key: value
                for key, value in told.items()
                if key in kept or key.startswith("partition:short:")
            }
        return results

    def batch(self, copies: int) -> StagedBatch:
        """A sandbox there, with a runner and nothing else."""
        submission = new_submission()
        directory = f"/home/{self._account}/samples/{submission}"
        runner = f"mkdir -p {directory} && cat > {directory}/runner"
        self.run(Command(("sh", "-c", runner), stdin=_RUNNER.encode()))
        return StagedBatch(
            submission,
            f"{_MARK}{submission}",
            directory,
            f"{directory}/runner",
            tuple(range(copies)),
            _SPEC,
        )

    def submit(self, scheduler: Scheduler, batch: StagedBatch, facts: Any, note: str = "") -> Any:
        """Submit it; the jobs."""
        keys = ("submission", "mark", "directory", "runner", "copies")
        shown = {key: getattr(batch, key) for key in keys}
        commands = scheduler.submit_commands(batch, facts)
        natives = scheduler.parse_submit(
            batch, self.ask(scheduler, "submit", commands, note, batch=shown)
        )
        now = datetime.now(UTC)
        return [
            NativeJob(native, copy, batch.submission, now)
            for copy, native in natives.items()
            if isinstance(native, str)
        ]


def _result(result: CommandResult) -> dict[str, Any]:
    return {
        "returncode": result.returncode,
        "stdout": result.stdout.decode("utf-8", "surrogateescape"),
        "stderr": result.stderr.decode("utf-8", "surrogateescape"),
    }


def _tables(jobs: Sequence[NativeJob]) -> list[dict[str, Any]]:
    return [
        {
            "id": job.id,
            "copy": job.copy,
            "submission": job.submission,
            "submitted_at": job.submitted_at.isoformat(),
        }
        for job in jobs
    ]


def record(stack: str) -> None:
    """Write the samples of a stack."""
    recorder = Recorder(stack)
    plain = registry.scheduler("slurm")
    held = registry.scheduler({"type": "slurm", "options": ["--hold"]})
    refused = registry.scheduler({"type": "slurm", "constraint": "nosuch"})
    facts = plain.parse_probe(recorder.ask(plain, "probe", plain.probe_commands(None)))
    jobs = recorder.submit(plain, recorder.batch(4), facts)
    single = recorder.submit(plain, recorder.batch(1), facts)
    waiting = recorder.submit(held, recorder.batch(5), facts, " --hold")
    recorder.submit(refused, recorder.batch(2), facts, " --constraint=nosuch")
    time.sleep(8)
    for command in held.kill_commands(waiting[1:2]):
        recorder.run(command)
    every = [*jobs, *single, *waiting]
    stranger = NativeJob("99999999", 0, jobs[0].submission, jobs[0].submitted_at)
    asked = _tables([*every, stranger])
    recorder.ask(plain, "status", plain.status_commands([*every, stranger]), jobs=asked)
    recorder.ask(plain, "list", plain.list_commands(_MARK))
    time.sleep(2)
    history = plain.history_commands([*every, stranger])
    recorder.ask(plain, "history", history, jobs=asked)
    recorder.run(Command(("sh", "-c", _NOBODY)))
    nobody = {"SLURM_CONF": f"/home/{recorder._account}/nobody.conf"}
    note = ", with nobody at the controller's port"
    recorder.ask(plain, "probe", plain.probe_commands(None), note, nobody)
    recorder.ask(plain, "status", plain.status_commands(every), note, nobody, jobs=_tables(every))
    recorder.ask(plain, "list", plain.list_commands(_MARK), note, nobody)
    for command in plain.kill_commands(every):
        recorder.run(command)
    recorder.run(Command(("rm", "-rf", "samples", "nobody.conf")))
    name = ".".join(recorder.version.split(".")[:2])
    (PLACE / f"slurm-{name}.json").write_text(json.dumps(recorder.samples, indent=1) + "\n")


if __name__ == "__main__":
    for stack in sys.argv[1:]:
        record(stack)
