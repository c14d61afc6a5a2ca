"""Copies of files, with SFTP and without, over connections that break."""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from stacks.sshd import Sshd

from intercede.contract import Direction, Relay
from intercede.core import Command, ConnectionLost, ResourceError, Unreachable
from intercede.transport.ssh import SSHTransport

Opened = Callable[..., SSHTransport]
MIB = 2**20


@pytest.fixture(scope="module", params=["sftp", "shell", "broken sftp", "one session"])
def host(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    lines = {
        "broken sftp": ["Subsystem sftp /no/such/program"],
        "one session": ["MaxSessions 1"],
    }.get(request.param, [])
    with Sshd(lines, sftp=request.param in ("sftp", "one session")) as sshd:
        yield sshd


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, 100_000, 9 * MIB + 17])
async def test_a_file_comes_there_and_back(
    size: int, host: Sshd, opened: Opened, tmp_path: Path
) -> None:
    transport = opened(host)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    source, remote, back = (tmp_path / name for name in ("here/a", "there/b c\n'é", "here/d"))
    source.write_bytes(os.urandom(size))
    remote.write_bytes(b"what was there before")
    await transport.put(source, str(remote))
    assert remote.read_bytes() == source.read_bytes()
    assert remote.stat().st_mode & 0o777 == 0o600
    await transport.get(str(remote), back)
    assert back.read_bytes() == source.read_bytes()
    assert names(tmp_path / "there") == [remote.name]
    assert names(tmp_path / "here") == ["a", "d"]


async def test_a_path_that_is_not_absolute_begins_in_the_home_directory(
    host: Sshd, opened: Opened, tmp_path: Path
) -> None:
    transport = opened(host)
    (tmp_path / "a").write_bytes(b"text")
    name = "-rf \udcff" + os.urandom(4).hex()
    await transport.put(tmp_path / "a", name)
    assert (Path(os.fsdecode(host.home)) / name).read_bytes() == b"text"
    await transport.get(name, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"text"


async def test_what_the_host_refuses_is_told_and_leaves_nothing(
    host: Sshd, opened: Opened, tmp_path: Path
) -> None:
    transport = opened(host)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    source = tmp_path / "here/a"
    source.write_bytes(b"x" * 100_000)
    (tmp_path / "there/folder").mkdir()
    with pytest.raises(ResourceError, match="no such file"):
        await transport.get(str(tmp_path / "there/absent"), tmp_path / "here/b")
    with pytest.raises(ResourceError, match="no regular file"):
        await transport.get(str(tmp_path / "there/folder"), tmp_path / "here/b")
    with pytest.raises(ResourceError):
        await transport.put(source, str(tmp_path / "no/such/place"))
    with pytest.raises(ResourceError):
        await transport.put(source, str(tmp_path / "there/folder"))
    with pytest.raises(FileNotFoundError):
        await transport.put(tmp_path / "here/absent", str(tmp_path / "there/b"))
    assert names(tmp_path / "here") == ["a"]
    assert names(tmp_path / "there") == ["folder"]
    assert names(tmp_path / "there/folder") == []


async def test_a_full_file_system_is_told(host: Sshd, opened: Opened, tmp_path: Path) -> None:
    """/dev/full says so of every byte; a copy to a name beside it needs a place of its own."""
    place = tmp_path / "small"
    place.mkdir()
    transport = opened(host)
    mounted = await transport.run(
        Command(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)])
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a file system that is soon full")
    try:
        source = tmp_path / "a"
        source.write_bytes(bytes(8 * MIB))
        with pytest.raises(ResourceError) as caught:
            await transport.put(source, str(place / "b"))
        assert "full" in str(caught.value) or "No space left" in caught.value.said
        assert names(place) == []
    finally:
        await transport.run(Command(["umount", str(place)]))


async def test_a_copy_goes_on_after_the_connection_was_lost(
    host: Sshd, opened: Opened, tmp_path: Path
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    source, remote, back = (tmp_path / name for name in ("here/a", "there/b", "here/c"))
    source.write_bytes(os.urandom(24 * MIB))
    chance = random.Random(1)
    async with Relay(host.port) as relay:
        transport = opened(host, port=relay.port, host_keys=[host.host_key])
        await transport.run(Command(["true"]))
        for direction in Direction:
            before = relay.passed[direction]
            if direction is Direction.TO_SERVER:
                copying = asyncio.ensure_future(transport.put(source, str(remote)))
            else:
                copying = asyncio.ensure_future(transport.get(str(remote), back))
            cuts = 0
            while not copying.done() and cuts < 3:
                cut = relay.cut(direction, after=chance.randrange(MIB, 9 * MIB))
                await asyncio.wait(
                    [copying, asyncio.ensure_future(cut.done.wait())],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                cuts += 1
            relay.let_through()
            await copying
            assert cuts >= 2
            # Less than twice: it goes on, and does not begin anew each time.
            assert relay.passed[direction] - before < 24 * MIB + cuts * 10 * MIB
    assert back.read_bytes() == remote.read_bytes() == source.read_bytes()
    assert names(tmp_path / "there") == ["b"]
    assert names(tmp_path / "here") == ["a", "c"]


async def test_a_copy_that_is_cancelled_leaves_nothing(
    host: Sshd, opened: Opened, tmp_path: Path
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    source = tmp_path / "here/a"
    source.write_bytes(os.urandom(64 * MIB))
    transport = opened(host)
    await transport.put(source, str(tmp_path / "there/whole"))
    for steps in range(6):
        with anyio.move_on_after(0.02 * steps):
            await transport.put(source, str(tmp_path / "there/b"))
        with anyio.move_on_after(0.02 * steps):
            await transport.get(str(tmp_path / "there/whole"), tmp_path / "here/b")
    assert set(names(tmp_path / "there")) <= {"whole", "b"}
    assert set(names(tmp_path / "here")) <= {"a", "b"}
    assert (await transport.run(Command(["echo", "well"]))).stdout == b"well\n"
    # What a closed session leaves of its tasks ends by itself.
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


async def test_a_copy_that_is_cancelled_over_a_slow_way_leaves_nothing(
    host: Sshd, opened: Opened, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    source = tmp_path / "a"
    source.write_bytes(os.urandom(8 * MIB))
    async with Relay(host.port) as relay:
        transport = opened(host, port=relay.port, host_keys=[host.host_key])
        await transport.run(Command(["true"]))
        relay.delay_s = 0.5
        copying = asyncio.ensure_future(transport.put(source, str(tmp_path / "there/b")))
        async with asyncio.timeout(30):
            while not names(tmp_path / "there"):
                await asyncio.sleep(0.01)
        copying.cancel()
        await asyncio.wait([copying])
        relay.delay_s = 0
    assert copying.cancelled()
    assert names(tmp_path / "there") == []


async def test_a_copy_is_given_up_when_the_host_has_gone(opened: Opened, tmp_path: Path) -> None:
    with Sshd() as sshd:
        (tmp_path / "a").write_bytes(b"x")
        transport = opened(sshd, connect_timeout_s=0.5)
        await transport.run(Command(["true"]))
        sshd.stop()
        with pytest.raises((Unreachable, ConnectionLost)):
            await transport.get(str(tmp_path / "a"), tmp_path / "b")
    assert names(tmp_path) == ["a"]


async def test_many_copies_at_once(host: Sshd, opened: Opened, tmp_path: Path) -> None:
    transport = opened(host)
    before = host.accepted()

    async def copy(number: int) -> None:
        source = tmp_path / f"{number}"
        source.write_bytes(os.urandom(50_000))
        await transport.put(source, str(tmp_path / f"{number}.there"))
        await transport.get(str(tmp_path / f"{number}.there"), tmp_path / f"{number}.back")
        assert (tmp_path / f"{number}.back").read_bytes() == source.read_bytes()

    await asyncio.gather(*map(copy, range(20)))
    assert host.accepted() == before + 1


async def test_a_profile_that_speaks_where_sftp_should_is_no_obstacle(
    opened: Opened, tmp_path: Path
) -> None:
    with Sshd(["Subsystem sftp sh -c 'echo Welcome; exec cat'"], sftp=False) as sshd:
        (tmp_path / "a").write_bytes(b"text")
        transport = opened(sshd)
        await transport.put(tmp_path / "a", str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"text"
