"""flepimop2's own command line drives interCEde: on this machine, and on a real Slurm over SSH.

Each call is a process of its own, which knows what the one before left in its cache and nothing else. On this machine the job is flepimop2
itself. The cluster has no Python: there the program is a script that does as it is told by the configuration that travelled with it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from intercede.core import JobHandle, from_json
from stacks._engine import Engine, find_engine
from stacks._life import running
from stacks._manifest import stacks

ACCOUNT: Final = "dash"
PATIENCE_S: Final = 120.0
PROGRAM: Final = Path(sys.executable).with_name("flepimop2")
_STAND_IN: Final = """\
#!/bin/sh
# $1 process, $2 the configuration, in the work directory
[ "$1" = process ] && [ -s "$2" ] || exit 64
echo "$@"
eval "$(sed -n 's/^ *command: //p' "$2")"
"""
_REPLACE: Final = """
mkdir -p ~/.front && printf '%s\\n' "$2" > ~/.front/"$1" && chmod 755 ~/.front/"$1"
"""


class Place:
    """A directory from which flepimop2 is called, and the resource that its configuration names.

    Args:
        folder: The directory.
        job: The configuration of the job module.
    """

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.folder = folder
        self.job = job

    def configure(self, command: str) -> None:
        """What the job will do."""
        config = {
            "name": "trial",
            "job": {"there": {"module": "intercede", **self.job}},
            "process": {"work": {"module": "shell", "command": command}},
        }
        text = yaml.safe_dump(config, width=10_000, sort_keys=False)
        (self.folder / "config.yaml").write_text(text)

    def call(self, *words: str, code: int = 0) -> str:
        """What flepimop2 says."""
        done = subprocess.run(
            [PROGRAM, *words],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def submit(self, command: str) -> str:
        """Submit a job; return the key by which flepimop2 knows it."""
        before = self.keys()
        self.configure(command)
        self.call("job", "process", "config.yaml")
        (key,) = self.keys() - before
        return key

    def keys(self) -> set[str]:
        """Of the jobs in the cache."""
        handles = self.folder / ".flepimop2_cache/job/handles"
        return {path.stem for path in handles.glob("*.json")}

    def cached(self, key: str) -> dict[str, Any]:
        """What flepimop2 has stored of a job."""
        path = self.folder / f".flepimop2_cache/job/handles/{key}.json"
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored

    def until_finished(self, key: str) -> str:
        """What flepimop2 says of a job that has ended."""
        until = time.monotonic() + PATIENCE_S
        while True:
            said = self.call("job", "status", key)
            if not re.search("status=(pending|running)", said):
                return said
            assert time.monotonic() < until, said
            time.sleep(0.3)


@pytest.fixture
def here(tmp_path: Path) -> Place:
    resource = {
        "transport": "local",
        "scheduler": "direct",
        "name": "here",
        "root": str(tmp_path / "sandboxes"),
        "grace_s": 1.0,
    }
    return Place(tmp_path, {"resource": resource, "program": [str(PROGRAM)]})


class Cluster:
    """The far side."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container

    def run(self, script: str, *words: str) -> str:
        command = ("sh", "-c", f"cd\n{script}", "host", *words)
        return self._engine.run("exec", "--user", ACCOUNT, self._container, *command, timeout_s=60)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(find_engine(), running(stacks()["slurm-forky"]).container)


@pytest.fixture
def there(tmp_path: Path, cluster: Cluster) -> Iterator[Place]:
    up = running(stacks()["slurm-forky"])
    root = f"flepimop2-{uuid.uuid4().hex[:10]}"
    cluster.run(
        'mkdir "$1" && printf %s "$2" > "$1/program" && chmod 755 "$1/program"', root, _STAND_IN
    )
    told = up.way.config(up.stack, up.folder, up.port, ACCOUNT)
    transport = {**told, "host_keys": list(told["host_keys"])}
    resource = {
        "transport": transport,
        "scheduler": "slurm",
        "name": "cluster",
        "root": f"{root}/jobs",
    }
    program = [f"/home/{ACCOUNT}/{root}/program"]
    yield Place(tmp_path, {"resource": resource, "program": program, "key": str(up.folder / "key")})
    cluster.run('rm -rf "$1"', root)


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def test_a_command_runs_as_a_job_and_its_status_is_told_to_another_process(place: Place) -> None:
    key = place.submit("echo hello")

    said = place.until_finished(key)

    assert "status=successful" in said
    assert "exit_code: 0" in said


def test_the_handle_in_flepimop2s_cache_is_the_contracts_own(place: Place) -> None:
    key = place.submit("echo hello")

    stored = place.cached(key)["handle"]

    handle = from_json(JobHandle, json.dumps(stored["metadata"]))
    assert stored["job_id"] == handle.id
    assert stored["backend"] == "intercede"
    assert handle.copy == 0
    place.until_finished(key)


def test_a_command_that_fails_is_a_failed_job_with_its_exit_code(place: Place) -> None:
    key = place.submit("false")

    said = place.until_finished(key)

    assert "status=failed" in said
    assert re.search("exit_code: [1-9]", said)


def test_a_dry_run_shows_what_would_be_submitted_and_submits_nothing(place: Place) -> None:
    place.configure("echo hello")

    said = place.call("job", "process", "config.yaml", "--dry-run", "-vvv")

    assert "would have submitted" in said
    assert "directory" in said
    assert place.keys() == set()
    assert place.call("job", "list") == "No jobs found.\n"


def test_a_list_asks_about_what_has_not_ended_and_remembers_the_rest(place: Place) -> None:
    done, running = place.submit("true"), place.submit("sleep 30")
    place.until_finished(done)

    lines = place.call("job", "list").splitlines()

    statuses = [line.rpartition("status=")[2] for line in lines]
    assert statuses[0] == "successful"
    assert statuses[1] in ("pending", "running")
    assert "successful" in _summary(place, done)
    assert _summary(place, running) == statuses[1]


def _summary(place: Place, key: str) -> str:
    rows = json.loads((place.folder / ".flepimop2_cache/job/summary.json").read_text())
    (row,) = (row for row in rows if row["key"] == key)
    return str(row["status"])


def test_a_job_whose_end_nobody_saw_is_finished_and_unknown(here: Place) -> None:
    # The whole group of processes dies with the runner, so that nobody writes down how.
    here.job["program"] = ["sh", "-c", "kill -9 0"]
    key = here.submit("true")

    until = time.monotonic() + PATIENCE_S
    while "status=finished_unknown" not in (said := _patiently(here, key)):
        assert time.monotonic() < until, said
        time.sleep(0.3)

    assert "left no record of its end" in said
    assert _summary(here, key) == "finished_unknown"


def _patiently(place: Place, key: str) -> str:
    """What is said of a job, which may be that nothing can be said yet."""
    done = subprocess.run(
        [PROGRAM, "job", "status", key],
        cwd=place.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_job_that_somebody_removed_is_finished_and_unknown(
    there: Place, cluster: Cluster
) -> None:
    key = there.submit("true")
    there.until_finished(key)

    cluster.run('rm -r "$1"/*', there.job["resource"]["root"])

    assert "status=finished_unknown" in there.call("job", "status", key)


def test_a_cluster_that_does_not_answer_ends_no_job(there: Place, cluster: Cluster) -> None:
    key = there.submit("sleep 20")

    cluster.run(_REPLACE, "squeue", "#!/bin/sh\nexit 1")
    try:
        said = there.call("job", "list")
    finally:
        cluster.run("rm -f ~/.front/squeue")

    assert "status=unknown" in said
    assert _summary(there, key) == "None"
    assert re.search("status=(pending|running|successful)", there.call("job", "list"))
    there.until_finished(key)
