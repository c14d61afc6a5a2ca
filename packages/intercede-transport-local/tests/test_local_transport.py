"""Commands on this machine: what goes in and comes out, and what is left when they are stopped."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from intercede.core import (
    ClosedError,
    Command,
    OperationTimeout,
    ResourceError,
    Transport,
    Unreachable,
    registry,
)
from intercede.transport.local import LocalTransport

EVERY_BYTE = bytes(range(1, 256))


@pytest.fixture
def transport() -> LocalTransport:
    return LocalTransport()


def children() -> int:
    pid = os.getpid()
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def alive(marker: str) -> bool:
    """Whether a process has the marker in its command line, a moment later."""
    await anyio.sleep(0.1)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False


def test_it_is_a_transport_and_found_by_its_name() -> None:
    assert isinstance(LocalTransport(), Transport)
    assert isinstance(registry.transport("local"), LocalTransport)


async def test_arguments_and_input_arrive_byte_for_byte(transport: LocalTransport) -> None:
    every = EVERY_BYTE.decode("utf-8", "surrogateescape")
    data = bytes(range(256)) * 4000
    said = await transport.run(Command(["printf", "%s", every]))
    assert said.stdout == EVERY_BYTE
    assert (await transport.run(Command(["cat"], stdin=data))).stdout == data


async def test_the_end_of_the_input_reaches_the_command(transport: LocalTransport) -> None:
    assert (await transport.run(Command(["wc", "-c"]))).stdout.strip() == b"0"


async def test_exit_code_signal_and_stderr_are_results(transport: LocalTransport) -> None:
    result = await transport.run(Command(["sh", "-c", "echo problem >&2; exit 4"]))
    assert (result.returncode, result.stderr) == (4, b"problem\n")
    assert (await transport.run(Command(["sh", "-c", "kill -9 $$"]))).returncode == -9


async def test_a_program_that_is_not_there_is_exit_code_127(transport: LocalTransport) -> None:
    result = await transport.run(Command(["no-such-program"], stdin=b"x" * 10**6))
    assert result.returncode == 127
    assert b"no-such-program: No such file" in result.stderr


async def test_commands_start_in_the_home_directory(
    transport: LocalTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await transport.run(Command(["pwd"]))).stdout.decode().strip() == str(tmp_path)


async def test_a_home_directory_that_is_not_there_is_told(
    transport: LocalTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/no/such/home")
    with pytest.raises(Unreachable, match="'/no/such/home' is not there; set HOME"):
        await transport.run(Command(["true"]))


async def test_a_command_that_takes_too_long_is_ended_with_its_children(
    transport: LocalTransport,
) -> None:
    command = Command(["sh", "-c", "sleep 86.4001 & sleep 86.4001"], timeout_s=0.3)
    with pytest.raises(OperationTimeout, match=r"sh did not end within 0\.3 s") as caught:
        await transport.run(command)
    assert caught.value.may_have_run
    assert not await alive("86.4001")


async def test_a_child_that_keeps_the_output_open_does_not_outlive_the_time_out(
    transport: LocalTransport,
) -> None:
    command = Command(["sh", "-c", "sleep 86.4002 & exit 0"], timeout_s=0.3)
    with pytest.raises(OperationTimeout):
        await transport.run(command)
    assert not await alive("86.4002")


async def test_a_cancelled_command_is_ended_also_if_it_ignores_term(
    transport: LocalTransport,
) -> None:
    with anyio.move_on_after(0.3) as scope:
        await transport.run(Command(["sh", "-c", "trap '' TERM; sleep 86.4003; sleep 86.4003"]))
    assert scope.cancelled_caught
    assert not await alive("86.4003")


async def test_a_command_that_prints_too_much_is_ended(transport: LocalTransport) -> None:
    with pytest.raises(ResourceError, match="more than 100000 bytes"):
        await transport.run(Command(["yes", "86.4004"], max_output=100_000))
    assert not await alive("86.4004")


async def test_stderr_is_bounded(transport: LocalTransport) -> None:
    text = "head -c 3000000 /dev/zero >&2; exit 5"
    result = await transport.run(Command(["sh", "-c", text]))
    assert result.returncode == 5
    assert 0 < len(result.stderr) <= 64 * 1024


async def test_a_command_that_stops_reading_is_no_error(transport: LocalTransport) -> None:
    result = await transport.run(Command(["head", "-c", "1"], stdin=b"x" * 10**7))
    assert result.stdout == b"x"


async def test_a_command_waits_while_nobody_reads_its_output(transport: LocalTransport) -> None:
    text = "head -c 50000000 /dev/zero; echo done >&2"
    async with transport.stream(Command(["sh", "-c", text])) as process:
        await anyio.sleep(0.5)
        size = 0
        async for chunk in process.stdout:
            size += len(chunk)
        result = await process.wait()
    assert size == 50_000_000
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"done\n")


async def test_input_is_taken_only_as_fast_as_the_command_reads(
    transport: LocalTransport,
) -> None:
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield bytes(2**20)

    async with transport.stream(Command(["sh", "-c", "sleep 0.5; wc -c"]), chunks()) as process:
        await anyio.sleep(0.3)
        assert taken < 10
        said = b"".join([chunk async for chunk in process.stdout])
        await process.wait()
    assert int(said) == 200 * 2**20


async def test_a_source_of_input_that_fails_ends_the_command_with_its_error(
    transport: LocalTransport,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("the source is broken")

    with pytest.raises(ValueError, match="the source is broken"):
        async with transport.stream(
            Command(["sh", "-c", "cat; sleep 86.4005"]), chunks()
        ) as process:
            async for _ in process.stdout:
                pass
    assert not await alive("86.4005")


async def test_leaving_a_stream_early_ends_the_command(transport: LocalTransport) -> None:
    async with transport.stream(Command(["yes", "86.4006"])) as process:
        async for _ in process.stdout:
            break
    assert not await alive("86.4006")


async def test_a_task_that_asyncio_itself_cancels_at_any_moment_leaves_nothing(
    transport: LocalTransport,
) -> None:
    """`asyncio.timeout` and `wait_for` cancel without anyio's scopes knowing."""
    await transport.run(Command(["true"]))
    descriptors = len(os.listdir("/proc/self/fd"))
    command = Command(["sh", "-c", "sleep 86.4008 & cat; wait"], stdin=b"x" * 200_000)
    for steps in range(40):
        task = asyncio.ensure_future(transport.run(command))
        for _ in range(steps):
            await asyncio.sleep(0.0003)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 10)
    assert not await alive("86.4008")
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert children() == 0


async def test_many_at_once_leave_nothing(transport: LocalTransport) -> None:
    await transport.run(Command(["true"]))
    descriptors = len(os.listdir("/proc/self/fd"))

    async def one(number: int) -> None:
        with anyio.move_on_after(0.02 * (number % 5)):
            await transport.run(Command(["sh", "-c", "sleep 0.03; cat"], stdin=b"x" * 100_000))

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(one, number)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert children() == 0


async def test_input_that_nobody_takes_is_given_up_though_somebody_keeps_the_pipe(
    transport: LocalTransport,
) -> None:
    await transport.run(Command(["true"]))
    descriptors = len(os.listdir("/proc/self/fd"))
    keeps = Command(["sh", "-c", "exec 3<&0; setsid sleep 10 & sleep 86.4009"], stdin=bytes(10**6))
    async with transport.stream(keeps):
        await anyio.sleep(0.3)
    await anyio.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def test_what_leaves_the_session_on_purpose_goes_on(
    transport: LocalTransport, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    text = 'setsid sh -c \'sleep 0.3; : > "$1"\' sh "$1" </dev/null >/dev/null 2>&1 & sleep 86.4007'
    with anyio.move_on_after(0.1):
        await transport.run(Command(["sh", "-c", text, "sh", str(flag)]))
    with anyio.fail_after(5):
        while not flag.exists():
            await anyio.sleep(0.02)


async def test_files_are_copied_whole_or_not_at_all(
    transport: LocalTransport, tmp_path: Path
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(10**6))
    await transport.put(source, str(target))
    assert target.read_bytes() == source.read_bytes()
    await transport.get(str(source), tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == source.read_bytes()
    with pytest.raises(FileNotFoundError):
        await transport.get(str(tmp_path / "absent"), target)
    assert target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


async def test_a_copy_of_what_is_not_there_leaves_no_descriptor(
    transport: LocalTransport, tmp_path: Path
) -> None:
    await transport.run(Command(["true"]))
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            await transport.get(str(tmp_path / "absent"), tmp_path / "b")
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def test_after_close_it_says_so(transport: LocalTransport, tmp_path: Path) -> None:
    async with transport:
        pass
    await transport.aclose()
    with pytest.raises(ClosedError, match="the local transport is closed"):
        await transport.run(Command(["true"]))
    with pytest.raises(ClosedError):
        await transport.put(tmp_path / "a", "b")


def test_another_loop_is_a_clear_error(transport: LocalTransport) -> None:
    started = time.monotonic()
    anyio.run(transport.run, Command(["true"]))
    with pytest.raises(ClosedError, match="another event loop"):
        anyio.run(transport.run, Command(["true"]))
    assert time.monotonic() - started < 10
