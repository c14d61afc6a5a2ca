"""`intercede check` over SSH: of each thing that can be wrong with a host it names the step, the cause and the remedy, and leaves nothing.

Keys come from an agent; those that come from files have tests of their own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from intercede.cli import main
from stacks.sshd import Sshd, free_port

#: In their order.
STEPS: Final = [
    "configuration",
    "connect",
    "authenticate",
    "queue",
    "submit",
    "find",
    "status",
    "diagnostics",
    "counts",
    "kill",
    "finish",
    "fetch",
    "purge",
    "clean",
]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


@pytest.fixture(scope="module")
def other() -> Iterator[Sshd]:
    """A host that does not know us, and that we do not know."""
    with Sshd() as sshd:
        yield sshd


@contextmanager
def agent(key: Path, place: Path) -> Iterator[Path]:
    """An SSH agent with one key."""
    path = place / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
        yield path
    finally:
        process.kill()
        process.wait()
        path.unlink()


@pytest.fixture
def key(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The agent that has the key to the host."""
    with agent(sshd.folder / "user_key", tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path


Checked = Callable[..., dict[str, Any]]


@pytest.fixture
def checked(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Checked:
    """Check the host, told differently; returns what was found, the step by its name."""
    monkeypatch.chdir(tmp_path)

    def run(ssh: Mapping[str, object] = {}, root: Path | None = None) -> dict[str, Any]:
        transport = {**sshd.config, "auth": "agent", **ssh}
        keys = ", ".join(f"{name} = {json.dumps(value)}" for name, value in transport.items())
        Path("intercede.toml").write_text(
            f'[resources.site]\ntransport = {{ {keys} }}\nscheduler = "direct"\n'
            f"root = {json.dumps(str(root or tmp_path / 'root'))}\n"
        )
        capfd.readouterr()
        code = main(["check", "--json", "--timeout", "20"])
        document = json.loads(capfd.readouterr().out)
        assert document["exit_code"] == code
        (check,) = document["checks"]
        assert check["resource"] == "site"
        assert [step["step"] for step in check["steps"]] == STEPS
        check["steps"] = {step.pop("step"): step for step in check["steps"]}
        return dict(check)

    return run


def outcome(check: Mapping[str, Any], failed: str, **others: str) -> Mapping[str, Any]:
    """The cause of the step that failed. Those before it went well, those behind it were not reached, but for others."""
    results = {name: step["result"] for name, step in check["steps"].items()}
    wanted = dict.fromkeys(STEPS, "not reached")
    wanted |= dict.fromkeys(STEPS[: STEPS.index(failed)], "ok")
    assert results == {**wanted, failed: "failed", **others}
    cause: Mapping[str, Any] = check["steps"][failed]["cause"]
    return cause


@pytest.mark.usefixtures("key")
def test_a_host_that_is_well_passes_every_step(checked: Checked, tmp_path: Path) -> None:
    check = checked()

    assert {step["result"] for step in check["steps"].values()} == {"ok"}
    assert check["exit_code"] == 0
    assert check["left"] == []
    assert not [path for path in (tmp_path / "root").iterdir() if path.name[0] != "."]


@pytest.mark.usefixtures("key")
def test_a_dead_host_is_not_connected_to(checked: Checked) -> None:
    check = checked({"port": free_port()})

    cause = outcome(check, "connect")
    assert "nobody listens there (connection refused)" in cause["message"]
    assert cause["remedy"] == "see whether host and port are right, and whether sshd runs"
    assert cause["error"]["type"] == "Unreachable"
    assert check["exit_code"] == 3


@pytest.mark.usefixtures("key")
def test_a_host_that_says_nothing_is_not_connected_to(checked: Checked) -> None:
    with Sshd() as silent:
        silent.freeze()
        check = checked({"port": silent.port, "connect_timeout_s": 1.0})

    cause = outcome(check, "connect")
    assert cause["error"]["type"] == "Unreachable"
    assert cause["remedy"] == "see whether host and port are right, and whether it is up"


@pytest.mark.usefixtures("key")
def test_a_changed_host_key_is_a_failed_connect(checked: Checked, other: Sshd) -> None:
    check = checked({"host_keys": [other.host_key]})

    cause = outcome(check, "connect")
    assert "its host key has changed" in cause["message"]
    assert cause["remedy"].startswith("somebody may be in between; if its administrator confirms")
    assert cause["error"]["type"] == "HostKeyError"
    assert check["exit_code"] == 3


def test_a_wrong_key_is_a_failed_login_to_a_host_that_was_reached(
    checked: Checked, other: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(other.folder / "user_key", tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        check = checked()

    cause = outcome(check, "authenticate")
    assert "the agent's keys were refused" in cause["message"]
    assert "~/.ssh/authorized_keys of that account" in cause["remedy"]
    assert cause["error"]["type"] == "AuthenticationError"
    assert check["exit_code"] == 3


def test_without_any_key_no_host_is_said_to_have_been_reached(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    check = checked()

    cause = outcome(check, "authenticate", connect="not reached")
    assert cause["remedy"] == 'start one (ssh-agent), or set auth to "key" or "password"'


@pytest.mark.usefixtures("key")
def test_a_full_disk_is_a_failed_submit(checked: Checked, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system that is soon full")
    try:
        with suppress(OSError), (place / "big").open("wb", buffering=0) as big:
            while True:
                big.write(bytes(1024))
        check = checked(root=place / "root")
        left = [path.name for path in place.rglob("*") if path.name != "big"]
    finally:
        subprocess.run(["umount", str(place)], check=True)

    cause = outcome(check, "submit", clean="ok")
    assert "its file system is full" in cause["message"]
    assert cause["remedy"] == "make room there, or configure another root"
    assert "No space left on device" in cause["said"]
    assert check["exit_code"] == 3
    assert left in ([], ["root"])


@contextmanager
def reaper(root: Path) -> Iterator[None]:
    """Kills every payload beneath this root that sleeps, as soon as it is there."""
    over = threading.Event()

    def reap() -> None:
        while not over.wait(0.005):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    with suppress(OSError):
                        if is_payload(entry):
                            os.kill(int(entry.name), signal.SIGKILL)

    def is_payload(entry: Path) -> bool:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        ours = (entry / "cwd").readlink().is_relative_to(root)
        return ours and words[1:2] != [b"-c"] and {b"echo", b"sleep"} <= set(words)

    thread = threading.Thread(target=reap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("key")
def test_a_resource_that_kills_jobs_at_once_is_told_so(checked: Checked, tmp_path: Path) -> None:
    with reaper(tmp_path / "root"):
        check = checked()

    # The first that looks at the job finds it dead.
    failed = next(name for name, step in check["steps"].items() if step["result"] == "failed")
    assert failed in ("status", "diagnostics", "counts", "kill")
    cause = check["steps"][failed]["cause"]
    assert re.search(r"has ended .* and not by us: failed, signal 9", cause["message"])
    assert cause["remedy"].startswith("look for what ends jobs there (limits on memory and time,")
    assert check["exit_code"] == 1
    assert [check["steps"][name]["result"] for name in ("purge", "clean")] == ["ok", "ok"]
