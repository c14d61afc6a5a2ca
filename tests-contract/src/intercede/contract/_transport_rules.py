"""Rules X1 to X8: commands on a host."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from intercede.core import (
    Command,
    CommandResult,
    OperationTimeout,
    ResourceError,
    Transport,
    TransportError,
    Unreachable,
)

from ._bench import Gathered
from ._crossing import crossing, listen_to
from ._transport_resource import TransportResource
from ._verdict import not_observed, rule

__all__ = ["TransportRules"]

#: Every byte that an argument may hold, and what shells like to change.
_WORDS: Final = (
    *(os.fsdecode(bytes([byte])) for byte in range(1, 256)),
    os.fsdecode(bytes(range(1, 256))),
    "",
    " ",
    "two words",
    "trailing newline\n",
    "~",
    "*",
    "!!",
    "$HOME",
    "$(echo no)",
    "`echo no`",
    "'",
    '"',
    "\\",
    "-n",
    "--",
)
#: What the account is called whose login is tried first.
_LOGIN: Final = "that of config"
_EVERY_BYTE: Final = bytes(range(256))
_MIB: Final = 2**20
#: What may pile up between two ends: pipes, windows and a few chunks.
_MAY_PILE_UP: Final = 48 * _MIB
_CHUNK: Final = b"x" * 65536


class TransportRules(Gathered):
    """X: commands and their bytes, their ends, and the way to the host."""

    resource: ClassVar[TransportResource]

    @pytest.fixture(autouse=True)
    def _listening(self) -> None:
        """Keep the last commands, for whoever has to understand a failure."""
        self.crossed = crossing()

    @pytest.fixture
    def transport(self) -> AbstractAsyncContextManager[Transport]:
        """A transport: open while a test of a rule runs."""
        return self._opened(self.resource.config)

    @asynccontextmanager
    async def _opened(self, config: str | Mapping[str, Any]) -> AsyncIterator[Transport]:
        async with AsyncExitStack() as stack:
            credentials = None
            if self.resource.credentials is not None:
                credentials = await stack.enter_async_context(self.resource.credentials())
            made = self.resource.made(config, credentials)
            transport = await stack.enter_async_context(made)
            listen_to(transport, self.crossed)
            yield transport

    async def _ended(self, transport: Transport, command: Command) -> CommandResult:
        """How a command ended, which it has to; an error in place of that is the failure that the test is about."""
        try:
            return await asyncio.wait_for(transport.run(command), 1.5 * self.resource.patience_s)
        except Exception as error:
            pytest.fail(_instead(command, error))

    # -------------------------------------------------------------- X1

    @rule("X1")
    async def test_arguments_arrive_byte_for_byte(self, transport: Transport) -> None:
        await self._arguments_arrive(transport)

    @rule("X1")
    async def test_input_arrives_byte_for_byte(self, transport: Transport) -> None:
        for sent in (_EVERY_BYTE, b"no newline", b"\n\n", os.urandom(3 * _MIB)):
            await self._input_arrives(transport, sent)

    @rule("X1")
    async def test_streamed_input_follows_the_commands_own(self, transport: Transport) -> None:
        await self._streamed_input_arrives(transport)

    @rule("X1")
    async def test_arguments_and_input_arrive_byte_for_byte_whatever_the_login_shell(self) -> None:
        if self.resource.logins is None:
            not_observed("accounts with other login shells (TransportResource.logins)")
        for name, config in self.resource.logins.items():
            async with self._opened(config) as transport:
                await self._arguments_arrive(transport, name)
                await self._input_arrives(transport, _EVERY_BYTE + os.urandom(_MIB), name)
                await self._streamed_input_arrives(transport, name)

    async def _arguments_arrive(self, transport: Transport, login: str = _LOGIN) -> None:
        result = await transport.run(self.resource.command("args", *_WORDS))
        expected = [os.fsencode(word) for word in _WORDS]
        assert result.stdout.split(b"\0")[:-1] == expected, f"login: {login}: {result.stderr!r}"

    async def _input_arrives(self, transport: Transport, sent: bytes, login: str = _LOGIN) -> None:
        result = await transport.run(self.resource.command("cat", stdin=sent))
        assert result.stdout == sent, f"login: {login}: {result.stderr!r}"

    async def _streamed_input_arrives(self, transport: Transport, login: str = _LOGIN) -> None:
        command = self.resource.command("cat", stdin=b"first\0")
        async with transport.stream(command, _chunks(_EVERY_BYTE, b"last")) as process:
            got = b"".join([chunk async for chunk in process.stdout])
            result = await process.wait()
        assert got == b"first\0" + _EVERY_BYTE + b"last", f"login: {login}"
        assert (result.returncode, result.stdout) == (0, b"")

    @rule("X1")
    async def test_a_file_that_is_put_comes_back_byte_for_byte(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        sent, got = tmp_path / "sent", tmp_path / "got"
        sent.write_bytes(_EVERY_BYTE + os.urandom(_MIB))
        remote = _remote_file()
        await transport.put(sent, remote)
        try:
            await transport.get(remote, got)
        finally:
            await transport.run(Command(("rm", "-f", remote)))
        assert got.read_bytes() == sent.read_bytes()

    @rule("X1")
    async def test_a_file_that_is_not_there_leaves_nothing_when_it_is_got(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        with pytest.raises(Exception):  # noqa: B017  # which one is not laid down
            await transport.get("/no/such/file", tmp_path / "got")
        assert await asyncio.to_thread(os.listdir, tmp_path) == []

    @rule("X1")
    async def test_a_file_that_cannot_be_read_leaves_nothing_when_it_is_put(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        remote = _remote_file()
        with pytest.raises(Exception):  # noqa: B017  # which one is not laid down
            await transport.put(tmp_path / "not there", remote)
        try:
            with pytest.raises(Exception):  # noqa: B017
                await transport.get(remote, tmp_path / "got")
        finally:
            await transport.run(Command(("rm", "-f", remote)))

    # -------------------------------------------------------------- X2

    @rule("X2")
    @pytest.mark.parametrize("status", [0, 1, 3, 126, 255])
    async def test_an_exit_status_comes_back(self, transport: Transport, status: int) -> None:
        result = await self._ended(transport, self.resource.command("exit", str(status)))
        assert result.returncode == status

    @rule("X2")
    async def test_an_exit_status_comes_back_from_a_stream(self, transport: Transport) -> None:
        async with transport.stream(self.resource.command("exit", "3")) as process:
            assert [chunk async for chunk in process.stdout] == []
            assert (await process.wait()).returncode == 3

    @rule("X2")
    @pytest.mark.parametrize("number", [9, 15])
    async def test_a_signal_comes_back(self, transport: Transport, number: int) -> None:
        result = await self._ended(transport, self.resource.command("kill", str(number)))
        assert result.returncode in (-number, 128 + number)

    @rule("X2")
    async def test_a_program_that_is_not_there_is_exit_status_127(
        self, transport: Transport
    ) -> None:
        result = await self._ended(transport, Command(("contract-no-such-program", "x")))
        assert result.returncode == 127

    # -------------------------------------------------------------- X3

    @rule("X3")
    async def test_a_command_sees_the_end_of_its_input(self, transport: Transport) -> None:
        for sent in (b"", b"text"):
            result = await self._ended(transport, self.resource.command("cat", stdin=sent))
            assert (result.returncode, result.stdout) == (0, sent)

    @rule("X3")
    async def test_a_streamed_command_without_input_sees_its_end(
        self, transport: Transport
    ) -> None:
        assert await _streamed(transport, self.resource.command("cat")) == b""

    @rule("X3")
    async def test_a_command_sees_the_end_of_streamed_input(self, transport: Transport) -> None:
        command = self.resource.command("cat")
        assert await _streamed(transport, command, _chunks(b"one", b"two")) == b"onetwo"

    @rule("X3")
    async def test_input_that_breaks_off_with_an_error_is_not_taken_for_all_of_it(
        self, transport: Transport
    ) -> None:
        with pytest.raises(_NoMoreInput):
            async with transport.stream(self.resource.command("cat"), _broken()) as process:
                async for _ in process.stdout:
                    pass
                await process.wait()

    @rule("X3")
    async def test_a_command_that_does_not_read_its_input_is_no_error(
        self, transport: Transport
    ) -> None:
        result = await self._ended(transport, self.resource.command("exit", "3", stdin=bytes(_MIB)))
        assert result.returncode == 3

    @rule("X3")
    async def test_input_that_comes_when_the_command_has_ended_is_no_error(
        self, transport: Transport
    ) -> None:
        command = self.resource.command("exit", "0")
        sent = asyncio.Event()
        try:
            async with transport.stream(command, _late(self.resource.glance_s, sent)) as process:
                with suppress(TimeoutError):  # nobody need take it
                    await asyncio.wait_for(sent.wait(), 2 * self.resource.glance_s)
                async for _ in process.stdout:
                    pass
                result = await process.wait()
        except Exception as error:
            pytest.fail(_instead(command, error))
        assert result.returncode == 0

    # -------------------------------------------------------------- X4

    @rule("X4")
    async def test_a_command_waits_while_nobody_reads(self, transport: Transport) -> None:
        before = _memory()
        command = self.resource.command("yes", str(128 * _MIB))
        async with transport.stream(command) as process:
            assert await anext(process.stdout)
            piled = await self._piled_up(lambda: _memory() - before)
        assert piled < _MAY_PILE_UP

    @rule("X4")
    @pytest.mark.parametrize("why", ["it sleeps", "its output is not read"])
    async def test_input_waits_while_the_command_does_not_read(
        self, transport: Transport, why: str
    ) -> None:
        taken: list[int] = []
        asleep = self.resource.command("sleep", self.resource.forever)
        command = asleep if why == "it sleeps" else self.resource.command("cat")
        async with transport.stream(command, _endless(taken)) as process:
            if command != asleep:
                assert await anext(process.stdout)
            piled = await self._piled_up(lambda: sum(taken))
        assert piled < _MAY_PILE_UP

    async def _piled_up(self, size: Callable[[], int]) -> int:
        """How many bytes there are when it gets no more of them, or too many."""
        before, more = size(), _MIB
        while more >= _MIB and before < _MAY_PILE_UP:
            await asyncio.sleep(self.resource.glance_s)
            now = size()
            before, more = now, now - before
        return before

    # -------------------------------------------------------------- X5

    @rule("X5")
    async def test_output_up_to_the_bound_is_whole(self, transport: Transport) -> None:
        result = await self._ended(transport, self.resource.command("yes", "4096", max_output=4096))
        assert result.stdout == b"y\n" * 2048

    @rule("X5")
    async def test_output_beyond_the_bound_is_a_resource_error(self, transport: Transport) -> None:
        command = self.resource.command("yes", str(_MIB), max_output=4096)
        with pytest.raises(ResourceError):
            await transport.run(command)

    @rule("X5")
    async def test_output_beyond_the_bound_does_not_pile_up(self, transport: Transport) -> None:
        before = most = _memory()
        command = self.resource.command("yes", str(128 * _MIB), max_output=4096)
        running = asyncio.ensure_future(transport.run(command))
        while not running.done():
            await asyncio.wait([running], timeout=0.005)
            most = max(most, _memory())
        running.exception()  # what comes of it is another test's
        assert most - before < _MAY_PILE_UP

    @rule("X5")
    async def test_the_bound_does_not_hold_for_what_is_streamed(self, transport: Transport) -> None:
        command = self.resource.command("yes", str(_MIB), max_output=4096)
        async with transport.stream(command) as process:
            got = sum([len(chunk) async for chunk in process.stdout])
            assert (await process.wait()).returncode == 0
        assert got == _MIB

    @rule("X5")
    async def test_stderr_is_cut_at_the_bound(self, transport: Transport) -> None:
        command = self.resource.command("complain", str(_MIB), max_output=4096)
        result = await self._ended(transport, command)
        assert 0 < len(result.stderr) <= 4096
        assert (b"y\n" * 2048).startswith(result.stderr)

    # -------------------------------------------------------------- X6

    @rule("X6")
    async def test_a_command_that_takes_too_long_is_ended(self, transport: Transport) -> None:
        await self._is_ended_late(transport.run)

    @rule("X6")
    async def test_a_streamed_command_that_takes_too_long_is_ended(
        self, transport: Transport
    ) -> None:
        async def waited(command: Command) -> None:
            async with transport.stream(command) as process:
                await process.wait()

        await self._is_ended_late(waited)

    @rule("X6")
    @pytest.mark.parametrize("verb", ["sleep", "stay"])
    async def test_a_cancelled_command_is_ended(self, transport: Transport, verb: str) -> None:
        mark = _mark()
        command = self.resource.command(verb, self.resource.forever, mark)
        running = asyncio.ensure_future(transport.run(command))
        await self._is_there(mark)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await self._is_gone(mark)

    @rule("X6")
    async def test_a_stream_that_is_left_early_ends_its_command(self, transport: Transport) -> None:
        mark = _mark()
        async with transport.stream(self._sleep(mark)):
            await self._is_there(mark)
        await self._is_gone(mark)

    def _sleep(self, mark: str, **limits: float) -> Command:
        return self.resource.command("sleep", self.resource.forever, mark, **limits)

    def _brief_sleep(self, mark: str, times: int = 1) -> Command:
        return self._sleep(mark, timeout_s=times * self.resource.brief_s * self.resource.clock)

    async def _is_ended_late(self, run: Callable[[Command], Awaitable[object]]) -> None:
        """A command is ended when its time is over, and it had started: on a slow host that takes more than a brief time-out."""
        for times in (1, 3, 9):
            mark = _mark()
            running = asyncio.ensure_future(run(self._brief_sleep(mark, times)))
            started = await self._was_there(mark, running)
            await self._out_of_time(running)
            await self._is_gone(mark)
            if started:
                return
        not_observed("a command that starts before its time-out is over")

    async def _was_there(self, mark: str, running: asyncio.Future[object]) -> bool:
        """Whether the command was seen, before it was over."""
        until = asyncio.get_running_loop().time() + self.resource.patience_s
        while not running.done() and asyncio.get_running_loop().time() < until:
            if self.resource.probe and await self.resource.probe.processes(mark):
                return True
            await asyncio.sleep(self.resource.poll_s)
        return False

    async def _out_of_time(self, waiting: Awaitable[object]) -> OperationTimeout:
        """The error of a command that takes too long."""
        with pytest.raises(OperationTimeout) as caught:
            try:
                await asyncio.wait_for(waiting, self.resource.patience_s)
            except TimeoutError:
                pytest.fail("its time-out is over, and the command still runs")
        return caught.value

    async def _is_there(self, mark: str) -> None:
        """The command has started, and its child."""
        if self.resource.probe is None:
            await asyncio.sleep(self.resource.poll_s)
            return
        async with asyncio.timeout(self.resource.patience_s):
            found = await self.resource.probe.processes(f"{mark}-child")
            while not found:
                await asyncio.sleep(self.resource.poll_s)
                found = await self.resource.probe.processes(f"{mark}-child")

    async def _is_gone(self, mark: str) -> None:
        """The command and its child are not there, nor a moment later; what is ending is given a moment."""
        if self.resource.probe is None:
            not_observed("a look at the host (TransportResource.probe)")
        left = await self.resource.probe.processes(mark)
        for _ in range(20):
            if not left:
                break
            await asyncio.sleep(self.resource.poll_s)
            left = await self.resource.probe.processes(mark)
        assert list(left) == []
        await asyncio.sleep(self.resource.glance_s)
        assert list(await self.resource.probe.processes(mark)) == []

    # -------------------------------------------------------------- X7

    @rule("X7")
    async def test_a_command_that_took_too_long_may_have_run(self, transport: Transport) -> None:
        error = await self._out_of_time(transport.run(self._brief_sleep(_mark())))
        assert error.may_have_run is True

    @rule("X7")
    async def test_nothing_has_run_if_nothing_answers(self) -> None:
        async with self._fault("unreachable") as transport:
            with pytest.raises(TransportError) as caught:
                await transport.run(self.resource.command("exit", "0"))
        assert isinstance(caught.value, Unreachable)
        assert caught.value.may_have_run is False

    @rule("X7")
    async def test_a_command_whose_answer_is_lost_may_have_run(self) -> None:
        async with self._fault("lost_after") as transport:
            with pytest.raises(TransportError) as caught:
                await transport.run(self.resource.command("exit", "0"))
        assert caught.value.may_have_run is True

    @rule("X7")
    async def test_what_was_lost_before_it_started_has_not_run(self) -> None:
        async with self._fault("lost_before") as transport:
            try:
                result = await transport.run(self.resource.command("exit", "3"))
            except TransportError as error:
                assert error.may_have_run is False
            else:  # what has certainly not run may be tried again
                assert result.returncode == 3

    # -------------------------------------------------------------- X8

    @rule("X8")
    async def test_the_next_command_runs_after_one_that_took_too_long(
        self, transport: Transport
    ) -> None:
        await self._out_of_time(transport.run(self._brief_sleep(_mark())))
        assert (await self._ended(transport, self.resource.command("exit", "3"))).returncode == 3

    @rule("X8")
    async def test_the_next_command_runs_after_the_host_did_not_answer(self) -> None:
        await self._works_after("unreachable")

    @rule("X8")
    async def test_the_next_command_runs_after_the_connection_was_lost(self) -> None:
        await self._works_after("lost_after")

    async def _works_after(self, fault: str) -> None:
        async with self._fault(fault) as transport:
            with pytest.raises(TransportError):
                await transport.run(self.resource.command("exit", "0"))
            assert (
                await self._ended(transport, self.resource.command("exit", "3"))
            ).returncode == 3

    @asynccontextmanager
    async def _fault(self, name: str) -> AsyncIterator[Transport]:
        """An open transport with a fault, or "not observed"."""
        if self.resource.faults is None:
            not_observed("a way to the host that can be made to fail (TransportResource.faults)")
        async with AsyncExitStack() as stack:
            try:
                made = getattr(self.resource.faults, name)(self.resource.config)
                transport: Transport = await stack.enter_async_context(made)
            except LookupError as error:
                not_observed(f"what cannot be brought about here: {error}")
            listen_to(transport, self.crossed)
            yield transport


async def _streamed(
    transport: Transport, command: Command, stdin: AsyncIterator[bytes] | None = None
) -> bytes:
    """What a streamed command printed, which has to end well."""
    try:
        async with transport.stream(command, stdin) as process:
            got = b"".join([chunk async for chunk in process.stdout])
            result = await process.wait()
    except Exception as error:
        pytest.fail(_instead(command, error))
    assert result.returncode == 0
    return got


def _instead(command: Command, error: Exception) -> str:
    if isinstance(error, OperationTimeout | TimeoutError):
        return f"{command.argv[0]} has not ended after {command.timeout_s:g} s"
    return f"no end of {command.argv[0]}, but {error!r}"


class _NoMoreInput(Exception):
    """What our own input raises."""


async def _broken() -> AsyncIterator[bytes]:
    yield b"half of it"
    raise _NoMoreInput


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _late(after_s: float, sent: asyncio.Event) -> AsyncIterator[bytes]:
    """Input that comes when most commands have ended. In pieces: a connection that is closed refuses the second, if not the first."""
    await asyncio.sleep(after_s)
    for _ in range(3):
        yield b"late"
        await asyncio.sleep(0.02)
    sent.set()


async def _endless(taken: list[int]) -> AsyncIterator[bytes]:
    """Input that nobody should take; notes what is taken."""
    for _ in range(256 * _MIB // len(_CHUNK)):
        taken.append(len(_CHUNK))
        yield _CHUNK
        await asyncio.sleep(0)


def _remote_file() -> str:
    return f"/tmp/intercede-contract-{uuid.uuid4().hex}"  # noqa: S108  # a name of our own, on the host


def _mark() -> str:
    return f"contract-{uuid.uuid4().hex}"


def _memory() -> int:
    """The memory of this process, in bytes, or "not observed"."""
    place = Path("/proc/self/statm")
    if sys.platform != "linux" or not place.exists():
        not_observed("a system that tells a process's memory (/proc)")
    return int(place.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
