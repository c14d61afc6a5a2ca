"""Ctrl-C: one clear line, exit code 130, no traceback, in every command.

The configuration comes through a FIFO: once the command has read it, it is known to have begun, and it is held up by a slow resource.
"""

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

FAKE = ("--resource", "fake")
SLOW = """
[resources.fake]
type = "fake"
speed = 1.0
faults = [{{operation = "{operation}", kind = "slow", seconds = 100, times = 0}}]
"""


@pytest.fixture
def begin(start: Starter, here: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command on a resource that is slow in one operation; returns once the command has begun."""
    begun: list[subprocess.Popen[bytes]] = []
    fifo = here / "slow.toml"
    os.mkfifo(fifo)

    def run(operation: str, *words: str) -> subprocess.Popen[bytes]:
        process = start([words[0], "--config", str(fifo), *words[1:]])
        begun.append(process)
        fifo.write_text(SLOW.format(operation=operation))
        return process

    yield run
    for process in begun:
        process.kill()
        process.communicate()


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
    time.sleep(0.3)  # into the slow operation; correct at any moment, though
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    return out, err


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("details", ["status", "fake/a/0"]),
        ("fetch_output", ["fetch", "fake/a/0"]),
        ("kill", ["kill", "fake/a/0"]),
        ("purge", ["purge", "fake/a/0"]),
        ("find", ["find", *FAKE, "t"]),
        ("find", ["status", *FAKE, "--tag", "t"]),
    ],
)
def test_ctrl_c_ends_a_command_with_one_line(
    begin: Callable[..., subprocess.Popen[bytes]], operation: str, words: list[str]
) -> None:
    out, err = _interrupted(begin(operation, *words))

    assert (out, err) == (b"", b"intercede: interrupted\n")


def test_ctrl_c_as_json_is_a_document(begin: Callable[..., subprocess.Popen[bytes]]) -> None:
    out, err = _interrupted(begin("details", "status", "--json", "fake/a/0"))

    assert json.loads(out)["error"]["exit_code"] == 130
    assert err == b""


def test_ctrl_c_while_stdin_is_read_is_one_line(start: Starter) -> None:
    process = start(["status", "-"], stdin=subprocess.PIPE)
    time.sleep(1.5)  # there is nothing to see of a process that reads its stdin

    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)

    assert process.returncode == 130
    assert process.communicate() == (b"", b"intercede: interrupted\n")


def test_ctrl_c_during_run_kills_and_purges(
    begin: Callable[..., subprocess.Popen[bytes]], here: Path
) -> None:
    process = begin("counts", "run", *FAKE, "--copies", "2", "--", "payload.sh", "sleep", "1000")
    _read_until(process, b"2 running\n")

    out, err = _interrupted(process)

    assert out == b""
    assert err == b"intercede: interrupted: killing 2 copies; Ctrl-C again leaves them\n"
    assert not (here / "results").exists()


def test_a_second_ctrl_c_during_run_leaves_at_once_and_names_what_is_left(
    begin: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = begin("kill", "run", *FAKE, "--copies", "2", "--", "payload.sh", "sleep", "1000")
    _read_until(process, b"2 running\n")
    process.send_signal(signal.SIGINT)
    _read_until(process, b"Ctrl-C again leaves them\n")

    _, err = _interrupted(process)

    assert err.startswith(b"intercede: left: 2 copies; end them with intercede kill")
    assert err.count(b"fake/") == 2
    assert err.count(b"\n") == 1


def test_ctrl_c_gives_the_terminal_its_cursor_back(start: Starter) -> None:
    ours, theirs = pty.openpty()
    words = ["run", *FAKE, "--copies", "2", "--", "payload.sh", "sleep", "100000000"]
    process = start(words, stdout=theirs, stderr=theirs, TERM="xterm-256color")
    os.close(theirs)
    shown = b""
    while b"2 running" not in shown:
        shown += os.read(ours, 4096)

    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)

    assert process.wait(timeout=30) == 130
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0
    assert b"interrupted: killing 2 copies" in shown
    assert b"Traceback" not in shown


@pytest.mark.parametrize("operation", ["kill", "purge"])
def test_what_ctrl_c_could_not_end_is_named(start: Starter, here: Path, operation: str) -> None:
    (here / "intercede.toml").write_text(
        '[resources.fake]\ntype = "fake"\n'
        f'faults = [{{operation = "{operation}", kind = "item", copies = [1], code = "refused"}}]\n'
    )
    words = ["run", *FAKE, "--copies", "2", "--", "payload.sh", "sleep", "100000000"]
    process = start(words)
    _read_until(process, b"2 running\n")

    _, err = _interrupted(process)

    (left,) = re.findall(rb"left: 1 copies; .*: (\S+)\n", err)
    assert left.split(b"/")[2] == b"1"


@pytest.mark.parametrize("command", ["run", "submit"])
def test_ctrl_c_during_the_submit_waits_for_it_and_a_second_one_does_not(
    begin: Callable[..., subprocess.Popen[bytes]], command: str
) -> None:
    process = begin("submit", command, *FAKE, "--tag", "t", "--", "payload.sh")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _read_until(process, b"ending what is being submitted; Ctrl-C again leaves it\n")
    assert process.poll() is None

    _, err = _interrupted(process)

    assert err == (
        b"intercede: left: what was sent may have arrived; see intercede find --resource fake t\n"
    )


def test_ctrl_c_during_a_submit_that_ends_leaves_nothing(start: Starter, here: Path) -> None:
    (here / "intercede.toml").write_text(
        SLOW.format(operation="submit").replace("seconds = 100", "seconds = 3")
    )
    process = start(["submit", *FAKE, "--", "payload.sh", "sleep", "1000"])
    time.sleep(2)

    out, err = _interrupted(process)

    assert out == b""
    assert err.endswith(b"ending what is being submitted; Ctrl-C again leaves it\n")
