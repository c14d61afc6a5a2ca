"""DIRAC 9.1 with its own SSH element and with the one over interCEde: pilots submitted, polled, and their outputs fetched, beside each other.

Both are made by DIRAC's own factory, for the same account of the same cluster, and have connected already; each call is one that DIRAC's agents
make. Once the host is near, once a relay puts 50 ms of round-trip time before it. Pilots that are only submitted and polled find the cluster
full, so that no turn shares this machine with the pilots of its own; each turn begins with an empty queue. DIRAC and the extension must be
installed: `hatch run dirac:bench`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from attrs import field, frozen

from intercede.contract import Relay
from stacks._engine import Engine, find_engine
from stacks._life import Running, running
from stacks._manifest import stacks

from ._measure import Case, Row, Side, measure

__all__ = ["rows"]

#: With Python on the host, which DIRAC's own element needs.
_STACK: Final = "slurm-python-trixie"
_ACCOUNT: Final = "plain"
_AWAY_S: Final = 0.05
_FEW: Final = 100
_MANY: Final = 1_000
_PATIENCE_S: Final = 600.0
#: One that lasts, and one whose output is fetched.
_LASTING: Final = "exec sleep 900"
_BRIEF: Final = "echo pilot"
#: End all jobs and remove what is theirs; wait until nothing is left.
_CLEAR: Final = """
scancel -u "$1"
while [ -n "$(squeue -h -u "$1")" ]; do sleep 0.5; done
rm -rf "$2/ours/.intercede"
"""
#: Another account has all of the partition's nodes, but for what is reserved of one; and has them no more.
_FILL: Final = """
for cpus in 64 64 60; do
  sbatch -p main --ntasks=1 --cpus-per-task=$cpus -o /dev/null --chdir=/ --wrap 'exec sleep 36000'
done
for i in $(seq 150); do [ "$(squeue -h -u root -t R | wc -l)" = 3 ] && exit; sleep 0.2; done
exit 1
"""
_FREE: Final = 'scancel -u root; while [ -n "$(squeue -h -u root)" ]; do sleep 0.2; done'


async def rows(rounds: int, tell: Callable[[str], None]) -> Sequence[Row]:
    """Measure, on a stack that is up."""
    from DIRAC import gLogger

    gLogger.setLevel("FATAL")
    there = running(stacks()[_STACK])
    found = []
    with tempfile.TemporaryDirectory(prefix="intercede-bench-") as folder:
        async with Relay(there.port, delay_s=_AWAY_S) as relay:
            for where, port in (("", there.port), (", 50 ms away", relay.port)):
                bench = _Bench(there, port, Path(folder), where)
                try:
                    for case in bench.cases():
                        async with case as sides:
                            found.append(await measure(sides, rounds, tell))
                finally:
                    await bench.close()
    return found


@frozen
class _Bench:
    """Both elements, and what they are given to do.

    Attributes:
        there: The stack.
        port: Where the host is reached.
        place: A folder of our own.
        where: What the names of cases end with.
    """

    there: Running
    port: int
    place: Path
    where: str
    _engine: Engine = field(factory=find_engine)
    _made: list[Any] = field(factory=list)

    def cases(self) -> Sequence[Any]:
        """One after the other."""
        return [self._submit(_FEW), self._submit(_MANY), self._poll(), self._outputs()]

    # ------------------------------------------------------------ the work

    @asynccontextmanager
    async def _full(self) -> AsyncIterator[None]:
        """Nobody's job begins."""
        await self._run(_FILL)
        try:
            yield
        finally:
            await self._run(_FREE)

    @asynccontextmanager
    async def _submit(self, copies: int) -> AsyncIterator[Case]:
        """From the executable to the references."""
        elements = await self._elements()

        async def submit(ce: Any) -> None:
            await self._submitted(ce, copies, _LASTING)

        async def came() -> None:
            assert len((await self._run("squeue -h -r -u plain -o %i")).split()) == copies
            await self._clear()

        async with self._full():
            yield self._case(f"{copies:,} submitted", elements, submit, came)

    @asynccontextmanager
    async def _poll(self) -> AsyncIterator[Case]:
        """From the references to their statuses."""
        elements = await self._elements()
        seen: list[Any] = []

        async def poll(ce: Any) -> None:
            seen.append(await _call(ce.getJobStatus, list(references[ce])))

        async def all_seen() -> None:
            assert list(seen.pop().values()) == ["Waiting"] * _MANY

        async with self._full():
            references = {ce: await self._submitted(ce, _MANY, _LASTING) for ce in elements}
            for ce in elements:  # the database of Slurm's, which DIRAC asks, lags
                await self._until(ce, list(references[ce]), {"Waiting"})
            yield self._case(f"{_MANY:,} polled", elements, poll, all_seen)
            await self._clear()

    @asynccontextmanager
    async def _outputs(self) -> AsyncIterator[Case]:
        """From the references to files here, one call for each pilot, as DIRAC has it."""
        elements = await self._elements()
        references = {ce: await self._submitted(ce, _FEW, _BRIEF) for ce in elements}
        for ce in elements:
            await self._until(ce, list(references[ce]), {"Done"})
        here = self.place / "here"

        async def fetch(ce: Any) -> None:
            here.mkdir()
            for reference, stamp in references[ce].items():
                await _call(ce.getJobOutput, f"{reference}:::{stamp}", str(here))

        async def all_here() -> None:
            assert [path.read_text() for path in here.glob("*.out")] == ["pilot\n"] * _FEW
            shutil.rmtree(here)

        yield self._case(f"outputs of {_FEW} fetched", elements, fetch, all_here)
        await self._clear()

    def _case(
        self,
        name: str,
        elements: tuple[Any, Any],
        run: Callable[[Any], Awaitable[None]],
        verify: Callable[[], Awaitable[None]],
    ) -> Case:
        """Both elements doing the same."""
        ours, theirs = elements
        return Case(
            f"{name}{self.where}",
            Side("interCEde", partial(run, ours), verify),
            [Side("DIRAC's SSH element", partial(run, theirs), verify)],
        )

    # ------------------------------------------------------------ the elements

    async def _elements(self) -> tuple[Any, Any]:
        """The one over interCEde and DIRAC's own, connected."""
        return await self._element("InterCEde"), await self._element("SSH")

    async def _element(self, kind: str) -> Any:
        from DIRAC.Resources.Computing.ComputingElementFactory import ComputingElementFactory

        known = f"[127.0.0.1]:{self.port} " + " ".join(
            (self.there.folder / "known_hosts").read_text().split()[1:3]
        )
        hosts = self.place / "known_hosts"
        hosts.write_text(f"{known}\n")
        parameters = {
            "Queue": "main",
            "BatchSystem": "SLURM",
            "SSHHost": "127.0.0.1",
            "SSHPort": self.port,
            "SSHUser": _ACCOUNT,
            "SSHKey": str(self.there.folder / "key"),
            "SSHKnownHosts": str(hosts),
            "SharedArea": f"/home/{_ACCOUNT}/{'ours' if kind == 'InterCEde' else 'theirs'}",
            "SubmitOptions": "",  # without it DIRAC's own cannot submit
        }
        ce = await _call(ComputingElementFactory().getCE, kind, "bench", parameters)
        self._made.append(ce)
        await _call(ce.available)
        return ce

    async def _submitted(self, ce: Any, copies: int, script: str) -> dict[str, str]:
        """The stamps of new pilots, by reference."""
        executable = self.place / "pilot.sh"
        executable.write_text(f"#!/bin/sh\n{script}\n")
        executable.chmod(0o700)
        submit = partial(ce.submitJob, str(executable), None, copies)
        result = await anyio.to_thread.run_sync(submit)
        assert result["OK"], result
        assert len(result["Value"]) == copies
        stamps: dict[str, str] = result["PilotStampDict"]
        return stamps

    async def _until(self, ce: Any, references: Sequence[str], wanted: set[str]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while True:
            statuses = list((await _call(ce.getJobStatus, references)).values())
            if len(statuses) == len(references) and set(statuses) <= wanted:
                return
            assert time.monotonic() < until
            await anyio.sleep(1)

    async def close(self) -> None:
        """Let go of both, and of what they left."""
        await self._clear()
        for ce in self._made:
            await anyio.to_thread.run_sync(ce.shutdown)

    async def _clear(self) -> None:
        await self._run(_CLEAR, _ACCOUNT, f"/home/{_ACCOUNT}")

    async def _run(self, script: str, *words: str) -> str:
        command = ("exec", self.there.container, "sh", "-c", script, "bench", *words)
        return await anyio.to_thread.run_sync(
            partial(self._engine.run, *command, timeout_s=_PATIENCE_S)
        )


async def _call(method: Callable[..., dict[str, Any]], *args: object) -> Any:
    """The value of what DIRAC returns, which must be good."""
    result = await anyio.to_thread.run_sync(partial(method, *args))
    assert result["OK"], result
    return result["Value"]
