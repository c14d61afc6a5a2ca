"""A cluster's work over SSH: 1,000 copies submitted, 10,000 polled, the output of 1,000 fetched, 10,000 killed, beside Slurm's own commands
through OpenSSH's `ssh`.

Both have a connection already, to the same account of the same cluster. Jobs that are only submitted and counted are held, so that no turn
shares the machine with the jobs of the one before. Killed are held ones, and ones of which some run: a cluster forgets a held array in one
step, and ends a running one job by job.

Beside each stands the bare command, and where ours does more by contract, what a careful hand would do to get the same.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from attrs import frozen

from intercede.backend.batch import BatchBackend
from intercede.core import (
    CredentialProvider,
    JobStatus,
    OutputSpec,
    Submission,
    SubmissionSpec,
    registry,
)
from stacks._life import Running, running
from stacks._manifest import stacks

from ._measure import Case, Row, Side, measure
from ._work import all_successful, shared_connection

__all__ = ["rows"]

_STACK: Final = "slurm-wide-forky"
_ACCOUNT: Final = "plain"
_FEW: Final = 1_000
_MANY: Final = 10_000
#: So many run, at least, when the others are killed with them.
_RUNNING: Final = 100
_PATIENCE_S: Final = 600.0
#: What each job writes whose output is fetched, beside a word on stdout, in bytes: a small result, where each file costs more than what
#: is in it, and one of the size of a log.
_SMALL: Final = 10_240
_USUAL: Final = 102_400


async def rows(rounds: int, tell: Callable[[str], None]) -> Sequence[Row]:
    """Measure the four of them, on a stack that is up."""
    there = running(stacks()[_STACK])
    host = f"{_ACCOUNT}@{there.stack.id}"
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="intercede-bench-") as folder,
        shared_connection(["-F", f"{there.folder}/ssh_config"], host, Path(folder)) as options,
    ):
        async with (
            there.way.credentials(there.folder)() as credentials,
            _backend(there, credentials, "held", options=["--hold"]) as held,
            _backend(there, credentials, "live") as live,
        ):
            bench = _Bench(["ssh", *options, host], held, live, Path(folder))
            for case in bench.cases():
                async with case() as sides:
                    found.append(await measure(sides, rounds, tell))
    return found


@asynccontextmanager
async def _backend(
    there: Running, credentials: CredentialProvider, name: str, **keys: Any
) -> AsyncIterator[BatchBackend]:
    config = {
        "name": name,
        "transport": there.way.config(there.stack, there.folder, there.port, _ACCOUNT),
        "scheduler": {"type": "slurm", **keys},
    }
    ce = registry.backend(config, credentials)
    assert isinstance(ce, BatchBackend)
    async with ce:
        yield ce


@frozen
class _Bench:
    """Who does the work.

    Attributes:
        ssh: The command that runs another one on the host.
        held: Submits jobs that do not start.
        live: Submits jobs that do.
        place: A folder of our own.
    """

    ssh: Sequence[str]
    held: BatchBackend
    live: BatchBackend
    place: Path

    def cases(self) -> Sequence[Callable[[], AbstractAsyncContextManager[Case]]]:
        """All of it, in the order of the table."""
        polls = (self.poll, self.poll_split)
        fetches = (partial(self.fetch, _SMALL), partial(self.fetch, _USUAL))
        return (self.submit, *polls, *fetches, self.kill, self.kill_live)

    @asynccontextmanager
    async def submit(self) -> AsyncIterator[Case]:
        """From the specification to the ids. Ours stages a sandbox for each copy."""
        made: list[Submission] = []

        async def ours() -> None:
            made.append(await self.held.submit(_nothing(), _FEW))

        async def ours_came() -> None:
            assert (await self.held.counts()).waiting == _FEW
            await self._away(self.held, made.pop())

        async def raw() -> None:
            array = f"sbatch --parsable --hold --array=0-{_FEW - 1} --output=/dev/null"
            await self._run(array, b"#!/bin/sh\nexec true\n")

        async def raw_came() -> None:
            assert len(await self._queue()) == _FEW
            await self._empty()

        async def with_folders() -> None:
            names = f"i=0; while [ $i -lt {_FEW} ]; do echo $i; i=$((i + 1)); done"
            await self._run(f"mkdir array && cd array && {{ {names}; }} | xargs mkdir -p")
            array = f"sbatch --parsable --hold --array=0-{_FEW - 1} --output=%a/stdout"
            await self._run(f"cd array && {array}", b"#!/bin/sh\nexec true\n")

        async def folders_came() -> None:
            await raw_came()
            await self._run("rm -r array")

        yield Case(
            "1,000 copies submitted",
            Side("interCEde", ours, ours_came),
            [
                Side("sbatch", raw, raw_came),
                Side("mkdir and sbatch", with_folders, folders_came),
            ],
        )

    def poll(self) -> AbstractAsyncContextManager[Case]:
        """Of jobs that wait as they were submitted: Slurm has one record for an array."""
        return self._poll("10,000 polled, in arrays that wait", split=False)

    def poll_split(self) -> AbstractAsyncContextManager[Case]:
        """Of jobs that Slurm has a record for, each, as it has of all that run."""
        return self._poll("10,000 polled, each with its record", split=True)

    @asynccontextmanager
    async def _poll(self, name: str, *, split: bool) -> AsyncIterator[Case]:
        """From the ids to where each job is, by its id."""
        submission = await self.held.submit(_nothing(), _MANY)
        submission.raise_for_failures()
        ids = [handle.id for handle in submission.handles]
        natives = await self._queue()
        arrays = dict.fromkeys(native.partition("_")[0] for native in natives)
        if split:
            # What tells one element from the others takes it out of the array's record; the last stays in it.
            tell = [f"scontrol update JobId={a}_[0-{_FEW - 2}] Nice=5" for a in arrays]
            await self._run("; ".join(tell))
        seen: list[int] = []

        async def ours() -> None:
            statuses = await self.held.status(ids)
            seen.append([statuses[job] for job in ids].count(JobStatus.HELD))

        async def read(which: str) -> None:
            said = await self._run(f"squeue -h -r {which} -o '%i %T'")
            states = dict(row.split(" ") for row in said.decode().splitlines())
            seen.append([states[native] for native in natives].count("PENDING"))

        async def by_user() -> None:
            await read(f"-u {_ACCOUNT}")

        async def by_id() -> None:
            await read("-j " + ",".join(natives))

        async def all_seen() -> None:
            assert seen.pop() == _MANY

        yield Case(
            name,
            Side("interCEde", ours, all_seen),
            [Side("squeue -j IDS", by_id, all_seen), Side("squeue", by_user, all_seen)],
        )
        await self._away(self.held, submission)

    @asynccontextmanager
    async def fetch(self, size: int) -> AsyncIterator[Case]:
        """From the host to files here: three of each job, the largest of this size."""
        payload = f"head -c {size} /dev/zero >result; echo done"
        spec = SubmissionSpec("sh", ["-c", payload], resident=True, outputs=OutputSpec(["result"]))
        submission = await self.live.submit(spec, _FEW)
        submission.raise_for_failures()
        ids = [handle.id for handle in submission.handles]
        await all_successful(self.live, ids)
        directory = submission.handles[0].metadata["directory"].rpartition("/")[0]
        here = self.place / "here"

        async def ours() -> None:
            (await self.live.fetch_output(ids, here)).raise_for_failures()

        async def raw() -> None:
            names = "[0-9]*/stdout [0-9]*/stderr [0-9]*/work/result"
            remote = shlex.join([*self.ssh, f"cd {shlex.quote(directory)} && tar -cf - {names}"])
            await anyio.run_process(["sh", "-c", f"mkdir {here} && {remote} | tar -C {here} -xf -"])

        async def all_here() -> None:
            await anyio.to_thread.run_sync(_check_output, here, size)

        yield Case(
            f"outputs of 1,000 jobs fetched, {size // 1024} kB each",
            Side("interCEde", ours, all_here),
            [Side("ssh tar", raw, all_here)],
        )
        (await self.live.purge(ids)).raise_for_failures()

    def kill(self) -> AbstractAsyncContextManager[Case]:
        """Of held jobs."""
        return self._kill(self.held, "10,000 held jobs killed", 0)

    def kill_live(self) -> AbstractAsyncContextManager[Case]:
        """Of jobs some of which run."""
        return self._kill(self.live, "10,000 killed, some of which run", _RUNNING)

    @asynccontextmanager
    async def _kill(self, ce: BatchBackend, name: str, running: int) -> AsyncIterator[Case]:
        """From the ids to the end of all. Each turn has new jobs; only the kill is timed."""
        made: list[Submission] = []

        async def submitted() -> None:
            for submission in made:
                await self._away(ce, submission)
            made.clear()
            made.append(await ce.submit(SubmissionSpec("sleep", ["3600"], resident=True), _MANY))
            with anyio.fail_after(_PATIENCE_S):
                while True:
                    if (await ce.counts()).running >= running:
                        break
                    await anyio.sleep(1)

        async def ours() -> None:
            ids = [handle.id for handle in made[0].handles]
            (await ce.kill(ids)).raise_for_failures()

        async def by_id() -> None:
            natives = [handle.id.rpartition("/")[2] for handle in made[0].handles]
            await self._run("xargs scancel", "\n".join(natives).encode())

        async def by_user() -> None:
            await self._run(f"scancel -u {_ACCOUNT}")

        async def all_gone() -> None:
            await self._emptied()
            await submitted()

        await submitted()
        yield Case(
            name,
            Side("interCEde", ours, all_gone),
            [Side("scancel IDS", by_id, all_gone), Side("scancel -u", by_user, all_gone)],
        )
        await self._away(ce, made[0])

    async def _run(self, command: str, stdin: bytes = b"") -> bytes:
        result = await anyio.run_process([*self.ssh, command], input=stdin)
        return result.stdout

    async def _queue(self) -> list[str]:
        """The ids of the account's jobs that wait or run."""
        return (await self._run(f"squeue -h -r -u {_ACCOUNT} -o %i")).decode().split()

    async def _empty(self) -> None:
        await self._run(f"scancel -u {_ACCOUNT}")
        await self._emptied()

    async def _emptied(self) -> None:
        with anyio.fail_after(_PATIENCE_S):
            while True:
                if not await self._queue():
                    break
                await anyio.sleep(0.2)

    async def _away(self, ce: BatchBackend, submission: Submission) -> None:
        """Leave nothing of its jobs."""
        ids = [handle.id for handle in submission.handles]
        (await ce.kill(ids)).raise_for_failures()
        (await ce.purge(ids)).raise_for_failures()


def _nothing() -> SubmissionSpec:
    return SubmissionSpec("true", resident=True)


def _check_output(here: Path, size: int) -> None:
    """All of it came; make room for the next turn."""
    results = [file.stat().st_size for file in here.rglob("result")]
    assert results == [size] * _FEW
    words = [file.read_bytes() for file in here.rglob("stdout")]
    assert words == [b"done\n"] * _FEW
    shutil.rmtree(here)
