"""A connection that is cut anywhere: what ran, ran once, and what is said not to have run did not."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from stacks.sshd import Sshd

from intercede.contract import Direction, Ending, Relay
from intercede.core import Command, TransportError
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
