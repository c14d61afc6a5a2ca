"""The cluster of a Slurm stack that is up, handled as its administrator would, and counted from behind.

Tests see by it what Slurm itself holds, how often its commands ran for an account, and what a client does when daemons die, hang or forget,
or when a command on the account's PATH is not the one that it seems to be. What a block has broken is whole again at its end.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from attrs import field, frozen

from ._engine import Engine, find_engine
from ._errors import StackError
from ._life import Running, running
from ._manifest import stacks

__all__ = ["Cluster", "Job"]

_TIMEOUT_S: Final = 120.0
#: The account's own folder of what stands before Slurm's commands: see the recipe's `front`.
_FRONT: Final = ".front"
#: FILE: its lines, if it is there.
_LINES: Final = 'if [ -e "$HOME/$1" ]; then cat "$HOME/$1"; fi'
#: COMMAND, and a script as stdin would be: written beside and moved, so that no call finds half of it.
_REPLACE: Final = """
mkdir -p "$HOME/.front"
printf '%s\\n' "$2" > "$HOME/.front/.$1"
chmod 755 "$HOME/.front/.$1"
mv "$HOME/.front/.$1" "$HOME/.front/$1"
"""
#: Names may have several lines: a word that none of them can hold is about each row.
_JOBS: Final = '/usr/bin/squeue --noheader --array --states=all --format="$1|%i|%u|%T|%j|$1"'


@frozen
class Job:
    """What the controller holds of one job, or of one element of an array.

    Attributes:
        id: `JOB` or `JOB_INDEX`.
        account: Whose it is.
        state: Slurm's word.
        name: As it was submitted.
    """

    id: str
    account: str
    state: str
    name: str


@frozen
class Cluster:
    """The Slurm of a stack that is up.

    Args:
        there: The stack.
        account: Whose calls are counted and replaced; none other's.
    """

    there: Running
    account: str
    _engine: Engine = field(factory=find_engine, repr=False)

    @classmethod
    def of(cls, stack: str, account: str = "") -> Cluster:
        """The cluster of the stack with this id; without an account the one that the suite uses there."""
        there = running(stacks()[stack])
        return cls(there, account or there.stack.account)

    # -------------------------------------------------------------- looking

    async def run(self, script: str, *words: str, user: str = "root") -> str:
        """What a script of sh prints in the container, run in the user's home.

        Raises:
            StackError: It failed.
        """
        command = ("sh", "-c", f"cd\n{script}", "cluster", *words)
        return await asyncio.to_thread(
            self._engine.run,
            *("exec", "--user", user, self.there.container, *command),
            timeout_s=_TIMEOUT_S,
        )

    async def jobs(self) -> Sequence[Job]:
        """All that the controller holds, of everybody."""
        word = secrets.token_hex(12)
        said = await self.run(_JOBS, word)
        rows = re.findall(rf"^{word}\|(.*?)\|{word}$", said, re.DOTALL | re.MULTILINE)
        if said.count(word) != 2 * len(rows):
            raise StackError(f"squeue printed half a row: {said[-200:]!r}")
        return [Job(*row.split("|", 3)) for row in rows]

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[Counter[str]]:
        """At the end of the block, how often each of Slurm's commands was called by the account meanwhile."""
        calls: Counter[str] = Counter()
        await self._as_account('mkdir -p "$HOME/.front"')
        before = Counter(await self._calls())
        yield calls
        calls.update(Counter(await self._calls()) - before)

    async def _calls(self) -> Sequence[str]:
        return (await self._as_account(_LINES, f"{_FRONT}/calls")).split()

    # -------------------------------------------------------------- breaking

    @asynccontextmanager
    async def replaced(self, command: str, script: str) -> AsyncIterator[None]:
        """The account gets this script instead of one of `sacct sbatch scancel scontrol sinfo squeue`; `/usr/bin` has the real ones."""
        await self._as_account(_REPLACE, command, script)
        try:
            yield
        finally:
            await self._as_account('rm -f "$HOME/.front/$1"', command)

    @asynccontextmanager
    async def killed(self, *daemons: str) -> AsyncIterator[None]:
        """Daemons, as `slurmctld`, end as by a power cut, and are started again as they were."""
        await self.run('cluster kill "$@"', *daemons)
        try:
            yield
        finally:
            await self.run('cluster start "$@" && cluster await', *daemons)

    @asynccontextmanager
    async def frozen(self, *daemons: str) -> AsyncIterator[None]:
        """Daemons hang: their ports are open, and nobody answers."""
        await self.run('cluster freeze "$@"', *daemons)
        try:
            yield
        finally:
            await self.run('cluster thaw "$@" && cluster await', *daemons)

    async def cold_start(self) -> None:
        """The controller begins without anything that it knew: its queue is empty, and its ids begin again."""
        await self.run("cluster cold")

    async def fail_node(self, node: str) -> None:
        """A node, as `n2`, is declared dead with all that runs there, and comes back."""
        await self.run('scontrol update NodeName="$1" State=down Reason="a test"', node)
        # It may have come back by itself (ReturnToService), and then there is nothing to resume.
        await self.run('scontrol update NodeName="$1" State=resume || : && cluster await', node)

    async def _as_account(self, script: str, *words: str) -> str:
        return await self.run(script, *words, user=self.account)
