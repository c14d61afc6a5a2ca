"""The command on this machine, without any configuration: real processes in real sandboxes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]
Starter = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def no_configuration(here: Path) -> None:
    """Only what is built in."""
    (here / "intercede.toml").unlink()


@pytest.fixture
def script(here: Path) -> Path:
    """A real script of the user's."""
    path = here / "job.sh"
    path.write_text('#!/bin/sh\nprintf "[%s]" "$@"\necho err >&2\ncat in.txt > out.csv\nexit 3\n')
    path.chmod(0o755)
    (here / "in.txt").write_text("content")
    return path


def _sandboxes(here: Path) -> list[str]:
    root = here.parent / "home/.intercede/local"
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    return [name for name in names if not name.startswith(".")]


def test_a_script_runs_here_with_arguments_inputs_and_outputs(
    intercede: Run, here: Path, script: Path
) -> None:
    ended = intercede(
        "run", "--input", "in.txt", "--output", "*.csv", "--", "./job.sh", "a b", "", "*"
    )

    assert ended.returncode == 3
    assert ended.stdout == "[a b][][*]"
    assert "err\n" in ended.stderr
    assert [p.read_text() for p in (here / "results").rglob("out.csv")] == ["content"]
    assert _sandboxes(here) == []


def test_a_program_on_the_path_runs_as_it_is(intercede: Run) -> None:
    ended = intercede("run", "--env", "A=b c", "--", "sh", "-c", 'echo "$A"; kill -9 $$')

    assert (ended.returncode, ended.stdout) == (137, "b c\n")


def test_another_process_goes_on_with_what_submit_printed(start: Starter, here: Path) -> None:
    def done(*words: str, given: bytes = b"") -> tuple[int, bytes]:
        process = start(list(words), stdin=subprocess.PIPE)
        out, err = process.communicate(given, timeout=60)
        assert b"Traceback" not in err
        return process.returncode, out

    _, handles = done("submit", "--json", "--copies", "2", "--tag", "t", "--", "sleep", "300")
    ids = [json.loads(line)["id"] for line in handles.splitlines()]

    assert done("find", "t")[1].decode().split() == ids
    assert b"unknown" not in done("status", "-", given=handles)[1]
    assert done("kill", "-", given=handles)[0] == 0
    assert done("status", *ids)[1].count(b"cancelled") == 2
    assert done("fetch", "--tag", "t")[0] == 0
    assert done("purge", "--tag", "t")[0] == 0
    assert _sandboxes(here) == []


def test_ctrl_c_ends_the_processes_and_leaves_no_sandbox(start: Starter, here: Path) -> None:
    process = start(
        ["run", "--output", "pid", "--", "sh", "-c", f"echo $$ > {here}/pid; exec sleep 300"]
    )
    pid = _appears(here / "pid")

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.splitlines()[-1].startswith(b"intercede: interrupted: killing 1 copies")
    assert not _alive(pid)
    assert _sandboxes(here) == []


def test_what_a_second_ctrl_c_left_can_be_found_and_killed(start: Starter, here: Path) -> None:
    process = start(
        ["run", "--tag", "t", "--", "sh", "-c", f"echo $$ > {here}/pid; exec sleep 300"]
    )
    pid = _appears(here / "pid")

    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err

    for command in ("kill", "purge"):
        start([command, "--tag", "t"]).communicate(timeout=60)
    assert not _alive(pid)
    assert _sandboxes(here) == []


def _appears(path: Path) -> int:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def test_a_root_that_is_a_link_is_one_clear_error(intercede: Run, here: Path) -> None:
    home = here.parent / "home"
    (home / ".intercede").mkdir(parents=True)
    (here / "elsewhere").mkdir()
    (home / ".intercede/local").symlink_to(here / "elsewhere")

    ended = intercede("run", "--", "true")

    assert ended.returncode == 3
    assert "is a symbolic link" in ended.stderr
    assert list((here / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input", "missing", "--", "true"], "missing"),
        (["--gpus", "1", "--", "true"], "gpus"),
    ],
)
def test_what_this_machine_cannot_honour_is_refused_and_leaves_nothing(
    intercede: Run, here: Path, words: list[str], said: str
) -> None:
    ended = intercede("run", *words)

    assert ended.returncode == 2
    assert said in ended.stderr
    assert _sandboxes(here) == []


def test_a_purged_id_and_an_id_that_leaves_the_root_are_no_such_job(intercede: Run) -> None:
    job = intercede("submit", "--", "true").stdout.strip()
    assert intercede("kill", job).returncode == 0
    assert intercede("purge", job).returncode == 0

    for gone in (job, "local/../../x/0", "local/..%2f/0"):
        ended = intercede("status", gone)
        assert ended.returncode == 1
        assert "no-such-job" in ended.stdout
