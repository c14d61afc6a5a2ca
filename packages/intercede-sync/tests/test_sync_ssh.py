"""Over a real connection: what the end of a program, a child and Ctrl-C do to it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stacks.sshd import Sshd

Start = Callable[[str], Any]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


@pytest.fixture
def connected(sshd: Sshd, start: Start) -> Callable[[str], Any]:
    """Start a program with a backend `ce` that has a connection, and what it takes to make another one."""
    config = {"transport": sshd.config, "scheduler": "direct", "name": "sync"}
    head = f"""\
from intercede.toolkit import FileCredentials
made = {config!r}, FileCredentials({{core.SSHKey: {str(sshd.folder / "user_key")!r}}})
ce = sync.backend(*made)
assert ce.find("nothing") == ()
say("connected")
"""

    def run(text: str) -> Any:
        program = start(head + textwrap.dedent(text))
        program.until("connected")
        return program

    return run


def _connections(sshd: Sshd) -> int:
    """How many processes serve connections, or 0 within 10 s."""
    deadline = time.monotonic() + 10
    while sshd.connections and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(sshd.connections)


def test_the_connection_of_an_open_backend_ends_with_the_program(
    sshd: Sshd, connected: Callable[[str], Any]
) -> None:
    program = connected("""
        try:
            say("waiting")
            time.sleep(60)
        except KeyboardInterrupt:
            pass
    """)
    program.until("waiting")
    assert sshd.connections

    program.interrupt()
    assert program.end() == (0, "")
    assert _connections(sshd) == 0


def test_a_child_leaves_the_connection_alone_and_makes_its_own(
    sshd: Sshd, connected: Callable[[str], Any]
) -> None:
    accepted = sshd.accepted()
    program = connected("""
        if (child := os.fork()) == 0:
            with sync.backend(*made) as own:
                say("child", own.find("nothing"))
            sys.exit(0)
        os.waitpid(child, 0)
        say("parent", ce.find("nothing"))
    """)

    assert program.end() == (0, "")
    assert program.said[1:] == ["child ()", "parent ()"]
    assert sshd.accepted() == accepted + 2  # the parent goes on with the one it had
    assert _connections(sshd) == 0


def test_ctrl_c_ends_calls_and_keeps_the_connection(
    sshd: Sshd, connected: Callable[[str], Any]
) -> None:
    accepted = sshd.accepted()
    program = connected("""
        for _ in range(5):
            try:
                say("asking")
                while True:
                    ce.find("nothing")
            except KeyboardInterrupt:
                say("interrupted")
        say("after", ce.find("nothing"))
    """)
    for _ in range(5):
        program.until("asking")
        time.sleep(0.1)
        program.interrupt()
        program.until("interrupted")

    assert program.end() == (0, "")
    assert program.said[-1] == "after ()"
    assert sshd.accepted() == accepted + 1
    assert _connections(sshd) == 0
