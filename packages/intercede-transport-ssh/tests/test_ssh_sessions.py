"""Many commands over one connection, and what is left when they are stopped, the connection breaks, or the host freezes."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import asyncssh
import asyncssh.sftp
import pytest
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE
from stacks.sshd import Sshd

from intercede.core import (
    ClosedError,
    Command,
    ConnectionLost,
    OperationTimeout,
    Transport,
    TransportError,
)
from intercede.transport.ssh import SSHConfig, SSHTransport, _link, _route

Opened = Callable[..., SSHTransport]


@pytest.fixture(scope="module", params=["MaxSessions 10", "MaxSessions 3", "MaxSessions 1"])
def limited(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    with Sshd([request.param]) as sshd:
        yield sshd


def own_nap(number: int) -> str:
    """How long a `sleep` takes that can be told from those of tests that run beside this one."""
    return f"97.{number}{os.getpid():010}"


def running(marker: str) -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += marker.encode() in (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return found


async def gone(marker: str) -> bool:
    for _ in range(50):
        if not running(marker):
            return True
        await asyncio.sleep(0.1)
    return False


async def there(marker: str) -> None:
    async with asyncio.timeout(20):
        while not running(marker):
            await asyncio.sleep(0.02)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_fifty_tasks_with_twenty_commands_each_share_one_connection_without_an_error(
    limited: Sshd, opened: Opened
) -> None:
    transport = opened(limited)
    before = limited.accepted()

    async def task(number: int) -> None:
        for turn in range(20):
            said = await transport.run(Command(["echo", f"{number} {turn}"]))
            assert said.stdout == f"{number} {turn}\n".encode()

    await asyncio.gather(*map(task, range(50)))
    assert limited.accepted() == before + 1


async def test_a_hundred_cancelled_commands_leave_nothing(limited: Sshd, opened: Opened) -> None:
    transport = opened(limited)
    await transport.run(Command(["true"]))
    await asyncio.sleep(0.2)
    before = descriptors()
    nap = own_nap(101)
    text = f"trap '' TERM; sleep {nap} & sleep {nap}; sleep {nap}"
    tasks = [
        asyncio.ensure_future(transport.run(Command(["sh", "-c", text], timeout_s=60)))
        for _ in range(100)
    ]
    await there(nap)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)
    assert await gone(nap)
    assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"
    await asyncio.sleep(0.2)
    assert descriptors() <= before
    assert len(asyncio.all_tasks()) == 1


async def test_a_task_that_asyncio_cancels_at_any_moment_leaves_nothing(
    limited: Sshd, opened: Opened
) -> None:
    transport = opened(limited)
    await transport.run(Command(["true"]))
    nap = own_nap(102)
    command = Command(["sh", "-c", f"sleep {nap} & cat; wait"], stdin=b"x" * 200_000)
    for steps in range(25):
        task = asyncio.ensure_future(transport.run(command))
        await asyncio.sleep(steps * 0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 20)
    assert await gone(nap)
    assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"
    assert len(asyncio.all_tasks()) == 1


async def test_a_command_that_is_cancelled_while_its_login_profile_runs_does_not_begin_later(
    opened: Opened,
) -> None:
    with Sshd() as sshd:
        (sshd.home / ".bashrc").write_text("sleep 0.7\n")
        (sshd.home / ".cshrc").write_text("sleep 0.7\n")
        transport = opened(sshd)
        await transport.run(Command(["true"]))
        with anyio.move_on_after(0.2):
            await transport.run(Command(["sleep", own_nap(103)]))
        await asyncio.sleep(1)
        assert not running(own_nap(103))


async def test_the_cancelled_first_of_several_does_not_fail_the_others_connection(
    sshd: Sshd, opened: Opened
) -> None:
    for steps in range(6):
        transport = opened(sshd)
        before = sshd.accepted()
        first = asyncio.ensure_future(transport.run(Command(["echo", "first"])))
        await asyncio.sleep(0)
        others = [
            asyncio.ensure_future(transport.run(Command(["echo", "other"]))) for _ in range(5)
        ]
        await asyncio.sleep(steps * 0.02)
        first.cancel()
        said = await asyncio.gather(*others)
        assert [one.stdout for one in said] == [b"other\n"] * 5
        assert sshd.accepted() <= before + 2


async def test_a_connection_that_comes_in_the_moment_of_a_cancellation_is_closed(
    transport: SSHTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = asyncssh.connect, []

    async def connect(*args: Any, **options: Any) -> asyncssh.SSHClientConnection:
        made.append(await real(*args, **options))
        if len(made) == 1:
            user.cancel()
        return made[-1]

    monkeypatch.setattr(asyncssh, "connect", connect)
    user = asyncio.create_task(transport.run(Command(["true"])))
    with pytest.raises(asyncio.CancelledError):
        await user
    async with asyncio.timeout(20):
        await made[0].wait_closed()
    assert (await transport.run(Command(["true"]))).returncode == 0
    assert len(made) == 2


async def test_an_sftp_session_that_comes_in_the_moment_of_a_cancellation_is_closed(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = asyncssh.sftp.start_sftp_client, []

    async def start(*args: Any) -> asyncssh.SFTPClient:
        made.append(await real(*args))
        if len(made) == 1:
            user.cancel()
        return made[-1]

    monkeypatch.setattr(_link, "start_sftp_client", start)
    there, here = f"{tmp_path}/there", tmp_path / "here"
    (tmp_path / "there").write_bytes(b"x")
    with Sshd(["MaxSessions 1"]) as sshd:
        transport = opened(sshd)
        user = asyncio.create_task(transport.get(there, here))
        with pytest.raises(asyncio.CancelledError):
            await user
        # The only session is free again.
        async with asyncio.timeout(20):
            await transport.run(Command(["true"]))
            await transport.get(there, here)
        assert sshd.accepted() == 1
    assert here.read_bytes() == b"x"


async def test_a_connection_that_was_cut_is_made_again_at_the_next_use(
    sshd: Sshd, opened: Opened
) -> None:
    transport = opened(sshd)
    hung = asyncio.ensure_future(transport.run(Command(["sleep", own_nap(104)])))
    await there(own_nap(104))
    sshd.cut()
    with pytest.raises(ConnectionLost) as caught:
        await hung
    assert caught.value.may_have_run is True
    assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"


async def test_an_sshd_that_is_restarted_is_waited_for(opened: Opened) -> None:
    with Sshd() as sshd:
        transport = opened(sshd)
        await transport.run(Command(["true"]))
        sshd.stop()
        waiting = asyncio.ensure_future(transport.run(Command(["echo", "well"])))
        await asyncio.sleep(0.7)
        assert not waiting.done()
        await asyncio.to_thread(sshd.start)
        assert (await waiting).stdout == b"well\n"


async def test_a_host_that_freezes_is_noticed_by_its_silence(opened: Opened) -> None:
    with Sshd() as sshd:
        transport = opened(sshd, keepalive_s=1.0, connect_timeout_s=1.0)
        hung = asyncio.ensure_future(transport.run(Command(["sleep", own_nap(105)])))
        await there(own_nap(105))
        sshd.freeze()
        begun = time.monotonic()
        with pytest.raises(ConnectionLost) as caught:
            await hung
        assert caught.value.may_have_run is True
        assert time.monotonic() - begun < 4
        with pytest.raises(TransportError) as unreachable:
            await transport.run(Command(["true"]))
        assert unreachable.value.may_have_run is False
        sshd.thaw()
        assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"


async def test_a_time_out_at_a_host_that_freezes_comes_in_time_and_the_command_is_ended_later(
    opened: Opened,
) -> None:
    with Sshd() as sshd:
        transport = opened(sshd, connect_timeout_s=1.0)
        hung = asyncio.ensure_future(transport.run(Command(["sleep", own_nap(106)], timeout_s=3)))
        await there(own_nap(106))
        sshd.freeze()
        begun = time.monotonic()
        with pytest.raises(OperationTimeout):
            await hung
        assert time.monotonic() - begun < 9
        sshd.thaw()
        assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"
        assert await gone(own_nap(106))


async def test_closing_is_bounded_in_time_also_if_the_host_is_frozen(opened: Opened) -> None:
    with Sshd() as sshd:
        transport = opened(sshd)
        await transport.run(Command(["true"]))
        hung = asyncio.ensure_future(transport.run(Command(["sleep", own_nap(107)])))
        await there(own_nap(107))
        sshd.freeze()
        begun = time.monotonic()
        await transport.aclose()
        assert time.monotonic() - begun < 5
        with pytest.raises((ConnectionLost, ClosedError)):
            await hung


async def test_a_host_that_drops_idle_connections_is_connected_to_again(opened: Opened) -> None:
    with Sshd() as sshd:
        transport = opened(sshd)
        for _ in range(5):
            assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"
            sshd.cut()
        assert sshd.accepted() == 5


async def test_a_connection_that_nobody_uses_is_closed(opened: Opened) -> None:
    with Sshd() as sshd:
        transport = opened(sshd, idle_timeout_s=0.3)
        await transport.run(Command(["sleep", "0.6"]))
        assert sshd.connections
        await asyncio.sleep(1)
        assert not sshd.connections
        assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"


async def test_what_ends_by_itself_leaves_its_children_alone(
    transport: Transport, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    text = '(sleep 0.5; : >"$1") </dev/null >/dev/null 2>&1 &'
    await transport.run(Command(["sh", "-c", text, "sh", str(flag)]))
    async with asyncio.timeout(10):
        while not flag.exists():
            await asyncio.sleep(0.05)


async def test_a_source_of_input_that_fails_ends_the_command_with_its_error(
    transport: Transport,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("the source is broken")

    with pytest.raises(ValueError, match="the source is broken"):
        async with transport.stream(
            Command(["sh", "-c", f"cat; sleep {own_nap(108)}"]), chunks()
        ) as process:
            async for _ in process.stdout:
                pass
    assert await gone(own_nap(108))


async def test_after_close_it_says_so(transport: Transport, tmp_path: Path) -> None:
    async with transport:
        await transport.run(Command(["true"]))
    await transport.aclose()
    for use in (
        lambda: transport.run(Command(["true"])),
        lambda: transport.put(tmp_path / "a", "b"),
        lambda: transport.get("b", tmp_path / "a"),
    ):
        with pytest.raises(ClosedError, match="the SSH transport is closed"):
            await use()


def test_another_loop_is_a_clear_error() -> None:
    transport = SSHTransport(SSHConfig("host.invalid"))
    anyio.run(transport.__aenter__)
    with pytest.raises(ClosedError, match="another event loop"):
        anyio.run(transport.run, Command(["true"]))


async def test_no_empty_packets_are_sent_once_the_connection_is_there(
    sshd: Sshd, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = asyncssh.SSHClientConnection.send_packet

    def send_packet(
        self: asyncssh.SSHClientConnection, pkttype: int, *args: bytes, **options: Any
    ) -> None:
        sent.append(pkttype)
        send(self, pkttype, *args, **options)

    monkeypatch.setattr(asyncssh.SSHClientConnection, "send_packet", send_packet)
    async with opened(sshd) as transport:
        await transport.run(Command(["true"], timeout_s=20))
        sent.clear()
        result = await transport.run(Command(["wc", "-c"], stdin=bytes(10**6), timeout_s=20))
    assert result.stdout.split() == [b"1000000"]
    assert sent.count(MSG_CHANNEL_DATA) > 20
    assert MSG_IGNORE not in sent


def test_with_a_cipher_that_needs_them_empty_packets_are_sent() -> None:
    class Connection:
        def get_extra_info(self, name: str) -> str:
            assert name == "send_cipher"
            return "aes256-cbc"

    connection: Any = Connection()
    _route._spare_empty_packets(connection)
    assert not vars(connection)
