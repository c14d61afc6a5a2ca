"""The fake transport carries commands and files without a host."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from intercede.core import (
    ClosedError,
    Command,
    CommandResult,
    ConnectionLost,
    InterCEdeError,
    OperationTimeout,
    ResourceError,
    Transport,
    Unreachable,
    registry,
)
from intercede.fake import FakeClock, FakeTransport, Fault

ALL_BYTES = bytes(range(1, 256)).decode("utf-8", "surrogateescape")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def host(clock: FakeClock) -> FakeTransport:
    return FakeTransport({"whoami": lambda command: CommandResult(0, b"me\n")}, clock=clock)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["true"], CommandResult(0)),
        (["false"], CommandResult(1)),
        (["cat"], CommandResult(0, b"in\xff")),
        (["echo", "a", "b"], CommandResult(0, b"a b\n")),
        (["args", ALL_BYTES, ""], CommandResult(0, bytes(range(1, 256)) + b"\0\0")),
        (["exit", "259"], CommandResult(3)),
        (["kill", "9"], CommandResult(-9)),
        (["yes", "5"], CommandResult(0, b"y\ny\ny")),
        (["whoami"], CommandResult(0, b"me\n")),
        (["nonsense"], CommandResult(127, b"", b"nonsense: not found\n")),
        (["exit"], CommandResult(2, b"", b"exit: not understood: \n")),
    ],
)
async def test_commands_do_the_same_run_or_streamed(
    host: FakeTransport, argv: list[str], expected: CommandResult
) -> None:
    command = Command(argv, stdin=b"in\xff")
    assert await host.run(command) == expected
    async with host.stream(command) as process:
        streamed = b"".join([chunk async for chunk in process.stdout])
        ended = await process.wait()
    assert (ended.returncode, streamed, ended.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


async def test_a_stream_passes_its_input_on_as_it_comes(host: FakeTransport) -> None:
    asked: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        for number in range(3):
            asked.append(number)
            yield b"%d" % number

    async with host.stream(Command(["cat"], stdin=b"first"), source()) as process:
        output = process.stdout
        assert await anext(output) == b"first"
        assert asked == []
        assert await anext(output) == b"0"
        assert asked == [0]
        assert (await process.wait()).returncode == 0
    assert asked == [0, 1, 2]


async def test_a_handler_sees_all_of_the_input_and_its_end() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"b"
        yield b"c"

    host = FakeTransport({"count": lambda command: CommandResult(len(command.stdin))})
    async with host.stream(Command(["count"], stdin=b"a"), source()) as process:
        assert (await process.wait()).returncode == 3


async def test_a_gigabyte_streams_in_small_chunks_and_may_be_left_early(
    host: FakeTransport,
) -> None:
    async with host.stream(Command(["yes", str(2**30)])) as process:
        async for chunk in process.stdout:
            assert len(chunk) <= 2**20
            break
    assert (await host.run(Command(["true"]))).returncode == 0


async def test_a_command_beyond_its_time_is_a_timeout_that_may_have_run(
    host: FakeTransport, clock: FakeClock
) -> None:
    command = Command(["sleep", "100"], timeout_s=5)
    running = asyncio.create_task(host.run(command))
    streaming = asyncio.create_task(_streamed(host, command))
    await asyncio.sleep(0.01)
    clock.advance(5)
    for task in (running, streaming):
        with pytest.raises(OperationTimeout) as late:
            await task
        assert late.value.may_have_run


async def _streamed(
    host: FakeTransport, command: Command, stdin: AsyncIterator[bytes] | None = None
) -> bytes:
    async with host.stream(command, stdin) as process:
        return b"".join([chunk async for chunk in process.stdout])


async def test_input_that_stalls_is_a_timeout_too(host: FakeTransport, clock: FakeClock) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    streaming = asyncio.create_task(_streamed(host, Command(["cat"], timeout_s=5), source()))
    await asyncio.sleep(0.01)
    clock.advance(5)
    with pytest.raises(OperationTimeout):
        await streaming
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_command_leaves_the_transport_usable(host: FakeTransport) -> None:
    for call in (host.run(Command(["sleep", "9"])), _streamed(host, Command(["sleep", "9"]))):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await call
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (await host.run(Command(["true"]))).returncode == 0


async def test_more_output_than_allowed_is_an_error_and_a_stream_bounds_stderr_only() -> None:
    host = FakeTransport({"moan": lambda command: CommandResult(0, b"", b"12345678")})
    for argv in (["yes", "8"], ["moan"]):
        with pytest.raises(ResourceError, match="more than 7 bytes"):
            await host.run(Command(argv, max_output=7))
    assert await _streamed(host, Command(["yes", "8"], max_output=7)) == b"y\ny\ny\ny\n"
    with pytest.raises(ResourceError):
        async with host.stream(Command(["moan"], max_output=7)) as process:
            await process.wait()


async def test_files_go_there_and_come_back_relative_to_the_home_directory(
    host: FakeTransport, tmp_path: Path
) -> None:
    (tmp_path / "here").write_bytes(b"\0x")
    await host.put(tmp_path / "here", "d/../there")
    assert host.files == {"/home/fake/there": b"\0x"}
    await host.get("/home/fake/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"\0x"
    with pytest.raises(ResourceError, match="is not there"):
        await host.get("absent", tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        await host.put(tmp_path / "absent", "x")
    assert _names(tmp_path) == {"here", "back"}


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("kind", "error", "ran"),
    [
        ("unreachable", Unreachable, False),
        ("lost-before-effect", ConnectionLost, False),
        ("lost-after-effect", ConnectionLost, True),
        ("timeout-after-effect", OperationTimeout, True),
    ],
)
async def test_faults_tell_the_truth_about_what_may_have_run(
    kind: str, error: type[InterCEdeError], ran: bool
) -> None:
    calls: list[Command] = []

    def handle(command: Command) -> CommandResult:
        calls.append(command)
        return CommandResult(0, b"abcd")

    host = FakeTransport({"do": handle})
    host.faults.add(Fault("run", kind))
    host.faults.add(Fault("stream", kind))
    for call in (host.run(Command(["do"])), _streamed(host, Command(["do"]))):
        calls.clear()
        with pytest.raises(error) as raised:
            await call
        assert getattr(raised.value, "may_have_run", None) == ran
        assert bool(calls) == ran
    assert (await host.run(Command(["do"]))).stdout == b"abcd"


async def test_a_stream_that_is_cut_gives_half_a_chunk_and_then_the_error() -> None:
    host = FakeTransport(faults=[Fault("stream", "lost-after-effect")])
    async with host.stream(Command(["echo", "abc"])) as process:
        output = process.stdout
        assert await anext(output) == b"ab"
        with pytest.raises(ConnectionLost):
            await anext(output)
        with pytest.raises(ConnectionLost):
            await process.wait()


async def test_waiting_for_a_stream_whose_reading_was_given_up_says_so(host: FakeTransport) -> None:
    async with host.stream(Command(["sleep", "9"])) as process:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(process.stdout)
        with pytest.raises(ConnectionLost, match="given up"):
            await process.wait()


async def test_it_is_closed_for_good(host: FakeTransport) -> None:
    async with host:
        pass
    await host.aclose()
    with pytest.raises(ClosedError):
        await host.run(Command(["true"]))


async def test_the_registry_gives_a_host_with_a_pretend_batch_system() -> None:
    async with registry.transport({"type": "fake", "speed": 1e6}) as host:
        assert isinstance(host, Transport)
        assert (await host.run(Command(["sleep", "1000"], timeout_s=2000))).returncode == 0
        assert (await host.run(Command(["fake-info"]))).returncode == 0
