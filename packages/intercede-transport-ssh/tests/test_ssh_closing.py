"""How a session that is over is told from one that was lost, and what must not keep it open."""

import re
import subprocess

import pytest

from intercede.core import ConnectionLost
from intercede.transport.ssh._framing import COMMAND_LINE, framed, new_word
from intercede.transport.ssh._session import Session


def begun() -> Session:
    """A session whose command has said one word of its own."""
    session = Session(("x",), "h", 100, lambda: None, lambda: None)
    found = re.search(rb"[0-9a-f]{32}", session._script)
    assert found is not None
    session.data_received(found[0] + b" 7 \nword", None)
    return session


async def test_a_status_and_the_hosts_own_close_are_an_end_without_the_end_of_the_streams() -> None:
    session = begun()
    session.exit_status_received(3)
    session.connection_lost(None)
    assert [chunk async for chunk in session.stdout] == [b"word"]
    assert (await session.wait()).returncode == 3


@pytest.mark.parametrize("error", [None, OSError("reset")])
async def test_without_a_status_a_close_is_a_loss(error: Exception | None) -> None:
    session = begun()
    session.eof_received()
    session.connection_lost(error)
    with pytest.raises(ConnectionLost):
        await session.wait()


async def test_a_connection_that_breaks_before_the_end_of_the_streams_is_a_loss() -> None:
    session = begun()
    session.exit_status_received(0)
    session.connection_lost(OSError("reset"))
    with pytest.raises(ConnectionLost):
        await session.wait()


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "busybox sh"])
def test_a_command_inherits_its_three_streams_and_nothing_of_the_login_shells(shell: str) -> None:
    word = new_word()
    line = COMMAND_LINE.replace("exec sh", f"exec {shell}")
    done = subprocess.run(
        ["bash", "-c", f"exec 3<&0 4>&1 5>&2; {line}"],  # as csh leaves them
        input=framed(("ls", "-1", "/proc/self/fd"), word),
        capture_output=True,
        timeout=30,
        check=True,
    )
    numbers = done.stdout.rpartition(word.encode())[2].split(b"\n")[1:-1]
    assert len(numbers) == 4  # the fourth is the directory that ls reads
