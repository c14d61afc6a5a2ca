"""Ctrl-C during a check: it ends soon, with exit code 130, and clears up behind itself; a second one leaves at once."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Starter = Callable[..., "subprocess.Popen[bytes]"]
Begun = Callable[..., "subprocess.Popen[bytes]"]

CLEARING = b"intercede: interrupted: clearing up; Ctrl-C again leaves what is there\n"


@pytest.fixture
def begin(start: Starter, here: Path) -> Iterator[Begun]:
    """Start a check of a fake with these faults."""
    begun: list[subprocess.Popen[bytes]] = []

    def run(faults: str, *words: str) -> subprocess.Popen[bytes]:
        (here / "intercede.toml").write_text(
            f'[resources.fake]\ntype = "fake"\nspeed = 1.0\nsite = "one"\nfaults = [{faults}]\n'
        )
        begun.append(start(["check", *words]))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def slow(operation: str, seconds: float) -> str:
    return f'{{operation = "{operation}", kind = "slow", seconds = {seconds}, times = 0}}'


def _read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """What it says on stderr up to this text."""
    assert process.stderr is not None
    read = b""
    deadline = time.monotonic() + 30
    while text not in read:
        left = deadline - time.monotonic()
        assert left > 0, read
        if select.select([process.stderr], [], [], left)[0]:
            chunk = os.read(process.stderr.fileno(), 4096)
            assert chunk, read
            read += chunk
    return read


def _interrupted(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    time.sleep(0.3)  # into what is slow; correct at any moment, though
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err
    return out, err


def test_while_it_connects_there_is_nothing_to_clear_up(begin: Begun) -> None:
    process = begin(slow("find", 100))
    _read_until(process, b"fake: connect\n")

    assert _interrupted(process) == (b"", CLEARING)


def test_what_was_submitted_is_ended_and_removed(start: Starter, here: Path) -> None:
    """On this machine, whose only slot somebody else has: the jobs of the check wait."""
    (here / "intercede.toml").write_text(
        '[resources.desk]\ntransport = "local"\nscheduler = "direct"\nslots = 1\n'
    )
    words = ["--resource", "desk", "--tag", "other", "--", "sh", "-c", "exec sleep 600"]
    other = start(["submit", *words])
    job = other.communicate(timeout=30)[0].decode().strip()
    root = here.parent / "home/.intercede/desk"
    try:
        process = start(["check"])
        _read_until(process, b"desk: status: pending")
        assert len(_submissions(root)) == 3

        out, err = _interrupted(process)

        assert out == b""
        assert CLEARING in err
        assert b"left" not in err.replace(CLEARING, b"")
        assert _submissions(root) == [job.split("/")[1]]
    finally:
        start(["kill", job]).communicate(timeout=30)


def _submissions(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if re.fullmatch("[0-9a-z]{26}", path.name)]


def test_a_submit_is_waited_for_and_then_cleared_up(begin: Begun) -> None:
    process = begin(slow("submit", 2))
    _read_until(process, b"fake: submit\n")
    began = time.monotonic()

    out, err = _interrupted(process)

    assert time.monotonic() - began > 1.5
    assert out == b""
    assert err.startswith(CLEARING)
    assert b"intercede: fake: clean\n" in err
    assert b"left" not in err.replace(CLEARING, b"")


def test_a_second_one_leaves_at_once_and_says_how_to_find_what_is_left(begin: Begun) -> None:
    process = begin(slow("kill", 100))
    _read_until(process, b"fake: kill\n")
    process.send_signal(signal.SIGINT)
    _read_until(process, b"fake: clean\n")
    began = time.monotonic()

    _, err = _interrupted(process)

    assert re.fullmatch(
        rb"intercede: fake: left: 2 jobs; end them with intercede kill, then intercede purge:"
        rb"( fake/\w+/0){2}\n",
        err,
    )
    assert time.monotonic() - began < 10


def test_a_second_one_during_the_submit_says_how_to_find_it(begin: Begun) -> None:
    process = begin(slow("submit", 100))
    _read_until(process, b"fake: submit\n")
    process.send_signal(signal.SIGINT)
    _read_until(process, CLEARING)

    _, err = _interrupted(process)

    assert re.fullmatch(
        rb"intercede: fake: left: what was submitted may be there; see intercede find --resource fake"
        rb" intercede-check-[0-9a-f]{16}\n",
        err,
    )


def test_the_terminal_has_its_cursor_back(start: Starter, here: Path) -> None:
    (here / "intercede.toml").write_text(
        '[resources.fake]\ntype = "fake"\nspeed = 1.0\nqueue_delay_s = 1000.0\n'
    )
    ours, theirs = pty.openpty()
    process = start(["check"], stdout=theirs, stderr=theirs, TERM="xterm-256color")
    os.close(theirs)
    shown = b""
    while b"status: pending" not in shown:
        shown += os.read(ours, 4096)

    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)

    assert process.wait(timeout=30) == 130
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0
    assert b"6/14" in shown
    assert b"interrupted: clearing up" in shown


def test_as_json_it_is_a_document(start: Starter, here: Path) -> None:
    """It says nothing meanwhile; once it has read its configuration, from a FIFO, it is known to have begun."""
    fifo = here / "slow.toml"
    os.mkfifo(fifo)
    process = start(["check", "--json", "--config", str(fifo)])
    fifo.write_text(f'[resources.fake]\ntype = "fake"\nfaults = [{slow("find", 1e6)}]\n')

    out, _ = _interrupted(process)

    assert json.loads(out)["error"]["exit_code"] == 130
