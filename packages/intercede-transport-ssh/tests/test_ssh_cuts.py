"""A connection that is cut anywhere: what ran, ran once, and what is said not to have run did not."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from stacks.sshd import Sshd

from intercede.contract import Direction, Ending, Relay
from intercede.core import Command, ConnectionLost, TransportError
from intercede.transport.ssh import SSHTransport

Opened = Callable[..., SSHTransport]

#: From the first byte of an open connection to past the end of a small command.
WITHIN = 3000


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("ending", list(Ending))
async def test_a_command_over_a_connection_that_is_cut_runs_at_most_once(
    direction: Direction, ending: Ending, sshd: Sshd, opened: Opened, tmp_path: Path
) -> None:
    seen = set()
    chance = random.Random(f"{direction} {ending}")
    async with Relay(sshd.port) as relay:
        transport = opened(sshd, port=relay.port, host_keys=[sshd.host_key])
        for number in range(40):
            await transport.run(Command(["true"]))
            flag = tmp_path / str(number)
            flag.touch()
            relay.cut(direction, after=chance.randrange(WITHIN), ending=ending)
            told: bool | None = None
            try:
                result = await transport.run(
                    Command(["sh", "-c", 'printf x >>"$1"; cat', "sh", str(flag)], stdin=b"in")
                )
            except TransportError as error:
                told = error.may_have_run
            else:
                assert (result.returncode, result.stdout) == (0, b"in")
            relay.let_through()
            # What may have run may still be about to.
            await asyncio.sleep(0.2 if told else 0)
            ran = flag.read_bytes()
            assert ran in {None: (b"x",), False: (b"",), True: (b"", b"x")}[told], (number, told)
            seen.add((told, ran))
    assert (None, b"x") in seen
    assert {told for told, _ in seen} >= {None, True}


@pytest.mark.parametrize("many", [10])
async def test_all_commands_of_a_connection_that_is_cut_are_told_apart(
    many: int, sshd: Sshd, opened: Opened, tmp_path: Path
) -> None:
    chance = random.Random(many)
    async with Relay(sshd.port) as relay:
        transport = opened(sshd, port=relay.port, host_keys=[sshd.host_key])

        async def one(flag: Path) -> bool | None:
            flag.touch()
            command = Command(["sh", "-c", 'printf x >>"$1"; sleep 0.02', "sh", str(flag)])
            try:
                await transport.run(command)
            except TransportError as error:
                return error.may_have_run
            return None

        for turn in range(8):
            await transport.run(Command(["true"]))
            direction = chance.choice(list(Direction))
            relay.cut(direction, after=chance.randrange(WITHIN * 4))
            flags = [tmp_path / f"{turn}-{number}" for number in range(many)]
            told = await asyncio.gather(*map(one, flags))
            relay.let_through()
            await asyncio.sleep(0.3)
            for flag, what in zip(flags, told, strict=True):
                ran = flag.read_bytes()
                assert ran in {None: (b"x",), False: (b"",), True: (b"", b"x")}[what]


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("ending", list(Ending))
async def test_a_stream_over_a_connection_that_is_cut_runs_at_most_once_and_is_never_half_well(
    direction: Direction, ending: Ending, sshd: Sshd, opened: Opened, tmp_path: Path
) -> None:
    pieces = [bytes([number]) * 1000 for number in range(40)]
    whole = b"".join(pieces)

    async def fed() -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield piece

    async def streamed(transport: SSHTransport, flag: Path) -> tuple[int, bytes]:
        command = Command(["sh", "-c", 'printf x >>"$1"; cat; exit 7', "sh", str(flag)])
        async with transport.stream(command, fed()) as process:
            came = b"".join([chunk async for chunk in process.stdout])
            return (await process.wait()).returncode, came

    seen = set()
    chance = random.Random(f"stream {direction} {ending}")
    async with Relay(sshd.port) as relay:
        transport = opened(sshd, port=relay.port, host_keys=[sshd.host_key])
        for number in range(20):
            await transport.run(Command(["true"]))
            flag = tmp_path / str(number)
            flag.touch()
            # Half of them about its beginning, the others anywhere until past its end.
            within = WITHIN if number % 2 else 2 * len(whole)
            relay.cut(direction, after=chance.randrange(within), ending=ending)
            told: bool | None = None
            try:
                assert await streamed(transport, flag) == (7, whole)
            except TransportError as error:
                told = error.may_have_run
            relay.let_through()
            await asyncio.sleep(0.2 if told else 0)
            ran = flag.read_bytes()
            assert ran in {None: (b"x",), False: (b"",), True: (b"", b"x")}[told], (number, told)
            seen.add((told, ran))
    assert {told for told, _ in seen} >= {None, True}


async def test_a_stream_that_is_lost_when_it_has_begun_may_have_run_whoever_hears_of_it(
    sshd: Sshd, opened: Opened
) -> None:
    async with Relay(sshd.port) as relay:
        transport = opened(sshd, port=relay.port, host_keys=[sshd.host_key])
        command = Command(["sh", "-c", "echo begun; exec sleep 60"])
        for waits in (True, False):
            with pytest.raises(ConnectionLost) as caught:
                async with transport.stream(command) as process:
                    assert await anext(aiter(process.stdout)) == b"begun\n"
                    await relay.drop()
                    if waits:
                        await process.wait()
                    else:
                        await anext(aiter(process.stdout))
            assert caught.value.may_have_run
