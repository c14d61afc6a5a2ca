"""A backend on a Slurm stack that is up, in a place of its own there, and what is true of its jobs.

What Slurm holds is asked of the controller by its administrator, and what ran is read in a ledger that the payloads write: never asked of
the backend.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from attrs import define, field

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.contract import Relay
from intercede.core import (
    InterCEdeError,
    JobDetails,
    JobHandle,
    JobID,
    JobStatus,
    OutputSpec,
    SubmissionSpec,
    registry,
)
from stacks._life import running
from stacks._manifest import Stack, stacks
from stacks.slurm import Cluster, Job

__all__ = [
    "ACCOUNTING",
    "CONTAINERS",
    "FORGETFUL",
    "MAX_ARRAY",
    "MAX_JOBS",
    "NAME",
    "PATIENCE_S",
    "STACK",
    "VERSION",
    "Scene",
    "native_of",
    "opened",
    "outcome_of",
    "passing",
]


def _the_stack() -> Stack:
    name = os.environ.get("INTERCEDE_STACK", "")
    if name not in stacks():
        raise LookupError(f"INTERCEDE_STACK={name!r} is no stack; there are: {', '.join(stacks())}")
    return stacks()[name]


def _setting(name: str, default: int) -> int:
    """One of slurm.conf's, as the stack's recipe has it."""
    match = re.search(rf"\b{name}=([0-9]+)", STACK.prepare)
    return int(match[1]) if match else default


#: The stack on which the tests run.
STACK: Final = _the_stack()
#: Slurm's version, as (20, 11).
VERSION: Final = tuple(int(part) for part in STACK.version.split("."))
#: Whether it has slurmdbd.
ACCOUNTING: Final = "accounting" in STACK.prepare.split()
#: Whether it runs containers.
CONTAINERS: Final = "oci" in STACK.prepare.split()
MAX_JOBS: Final = _setting("MaxJobCount", 10_000)
MAX_ARRAY: Final = _setting("MaxArraySize", 1001)
#: Whether Slurm has forgotten a job soon after its end, before anybody asks.
FORGETFUL: Final = _setting("MinJobAge", 300) < 60
#: How long to wait for what must come, in seconds: a time limit of one minute is noticed within another half.
PATIENCE_S: Final = 180.0
_POLL_S: Final = 0.5
NAME: Final = "intercede-"
_FINISHED: Final = tuple(status for status in JobStatus if status.is_finished)
#: A run that was ended in the middle of a fault may have left it.
_MEND: Final = """
cluster ready || {
  if [ -e /etc/slurm/slurmdbd.conf ]; then
    cluster thaw slurmdbd || cluster start slurmdbd
  fi
  cluster thaw slurmctld || cluster start slurmctld
  cluster await
}
"""
#: PLACE: end all jobs of the submissions beneath it.
_END: Final = """
names=$(ls "$1/root" 2>/dev/null | sed 's/^/intercede-/')
/usr/bin/squeue --noheader --format='%A %j' | awk -v names="$names" '
  BEGIN { split(names, name, "\\n"); for (i in name) ours[name[i]] }
  $2 in ours && !seen[$1]++ { print $1 }' | xargs -r /usr/bin/scancel
"""
#: PLACE: the same, and remove it.
_CLEAR: Final = f"""{_END}
# What is ending still writes.
for i in 1 2 3 4 5 6 7 8 9; do
  rm -rf "$1" 2>/dev/null && exit
  sleep 1
done
exec rm -rf "$1"
"""


@define
class Scene:
    """A place in the home of the stack's account, and backends that work there.

    Attributes:
        cluster: The stack's Slurm.
        place: The sandboxes are in its `root`, the ledger beside it.
        relay: On the way of every backend.
        name: The resource's.
        keys: Of every backend's configuration.
        ce: The first backend.
        execs: How many commands the backends' transports have run.
    """

    cluster: Cluster
    place: str
    relay: Relay
    name: str
    keys: dict[str, Any]
    execs: int = 0
    ce: BatchBackend = field(init=False)
    _exits: AsyncExitStack = field(factory=AsyncExitStack, repr=False)
    _others: dict[str, BatchBackend] = field(factory=dict, repr=False)
    _locks: dict[str, asyncio.Lock] = field(factory=dict, repr=False)

    # ------------------------------------------------------------ backends

    async def backend(self, **scheduler: Any) -> BatchBackend:
        """A backend of the same resource, whose jobs go elsewhere: `queue="low"`, `options=["--hold"]`."""
        key = repr(sorted(scheduler.items()))
        if key not in self._others:
            self._others[key] = await self.another(scheduler)
        return self._others[key]

    async def another(
        self, scheduler: Mapping[str, Any] = {}, account: str = "", **keys: Any
    ) -> BatchBackend:
        """A backend of the same resource with a connection of its own, as another process has."""
        there = self.cluster.there
        way = there.way
        told = way.config(there.stack, there.folder, there.port, account or self.cluster.account)
        provider = await self._exits.enter_async_context(way.credentials(there.folder)())
        transport = registry.transport(way.through(told, self.relay), provider)
        self._count(transport)
        speaking = registry.scheduler({"type": "slurm", **scheduler})
        config = BatchConfig(**{"root": self.root, **self.keys, **keys})
        backend = BatchBackend(config, self.name, transport, speaking)
        return await self._exits.enter_async_context(backend)

    def _count(self, transport: Any) -> None:
        stream = transport.stream

        def counted(command: object, stdin: object = None) -> object:
            self.execs += 1
            return stream(command, stdin)

        transport.stream = counted  # by which it runs everything

    def alone(self, node: str) -> asyncio.Lock:
        """Held by who needs a node for himself."""
        return self._locks.setdefault(node, asyncio.Lock())

    # ------------------------------------------------------------ jobs

    def spec(self, then: str = "", tag: str = "check", **keys: Any) -> SubmissionSpec:
        """Writes into the ledger that it runs, then does something."""
        text = f'echo "$INTERCEDE_JOB" >> "$0"; {then}'
        return SubmissionSpec(
            "/bin/sh",
            resident=True,
            arguments=["-c", text, f"{self.place}/ledger"],
            outputs=OutputSpec(everything=True),
            tag=tag,
            **keys,
        )

    async def submitted(
        self, then: str = "", copies: int = 1, *, ce: BatchBackend | None = None, **keys: Any
    ) -> list[JobID]:
        """The ids of new jobs."""
        submission = await (ce or self.ce).submit(self.spec(then, **keys), copies)
        submission.raise_for_failures()
        return [handle.id for handle in submission.handles]

    async def held(self, copies: int = 1, then: str = "", **keys: Any) -> list[JobID]:
        """New jobs that their user holds."""
        return await self.submitted(then, copies, ce=await self.backend(options=["--hold"]), **keys)

    async def running(self, copies: int = 1, then: str = "exec sleep 600", **keys: Any) -> list[JobID]:  # fmt: skip
        """New jobs whose payloads run."""
        before = sum((await self.ran()).values())
        ids = await self.submitted(then, copies, **keys)
        await self.until(ids, JobStatus.RUNNING)
        async with asyncio.timeout(PATIENCE_S):
            while sum((await self.ran()).values()) < before + copies:
                await asyncio.sleep(0.1)
        return ids

    async def until(
        self, ids: Sequence[JobID], *wanted: JobStatus, ce: BatchBackend | None = None
    ) -> None:
        """Wait until each of the jobs is in one of these states."""
        status: object = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    status = await (ce or self.ce).status(ids)
                    if all(at in wanted for at in status.values()):
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise AssertionError(f"not {wanted} within {PATIENCE_S} s: {status}") from None

    async def finished(
        self, ids: Sequence[JobID], within_s: float = PATIENCE_S
    ) -> dict[JobID, JobDetails]:
        """The details of jobs, as they are told when all of them have ended for the first time."""
        async with asyncio.timeout(within_s):
            while True:
                details = await self.ce.details(ids)
                if all(one.status.is_finished for one in details.values()):
                    return dict(details)
                await asyncio.sleep(_POLL_S)

    async def details(self, job: JobID, ce: BatchBackend | None = None) -> JobDetails:
        """Those of one job; an error if there are none."""
        found = await (ce or self.ce).details([job])
        found.raise_for_failures()
        return found[job]

    async def waiting(self, job: JobID, reason: str) -> JobDetails:
        """The details of a job that waits, when Slurm has found out why."""
        details = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    details = await self.details(job)
                    if reason in (details.reason or ""):
                        return details
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise AssertionError(f"no {reason} within {PATIENCE_S} s: {details}") from None

    # ------------------------------------------------------------ what is true

    async def ran(self) -> Counter[str]:
        """How often each job ran, by submission and copy."""
        script = 'if [ -e "$1" ]; then cat "$1"; fi'
        lines = await self.as_account(script, f"{self.place}/ledger")
        return Counter(line.removesuffix(";") for line in lines.splitlines())

    async def in_slurm(self, submission: str) -> list[Job]:
        """What the controller holds of a submission."""
        return [job for job in await self.cluster.jobs() if job.name == f"{NAME}{submission}"]

    async def all_in_slurm(self) -> list[Job]:
        """What the controller holds of every submission of this place."""
        there = await self.submissions()
        return [job for job in await self.cluster.jobs() if job.name.removeprefix(NAME) in there]

    async def count(self, state: str) -> int:
        """How many jobs of this place the controller has in this state."""
        return [job.state for job in await self.all_in_slurm()].count(state)

    async def submissions(self) -> set[str]:
        """What is staged."""
        return {name for name in await self.debris() if re.fullmatch("[0-9a-z]+", name)}

    async def debris(self) -> set[str]:
        """All that lies in the root."""
        return set((await self.as_account('ls -A "$1" 2>/dev/null || :', self.root)).split())

    @property
    def root(self) -> str:
        """Where the sandboxes are."""
        return f"{self.place}/root"

    async def as_account(self, script: str, *words: str) -> str:
        """What a script prints that runs as the account, past everything that is on trial."""
        return await self.cluster.run(script, *words, user=self.cluster.account)

    async def control(self, *words: str) -> str:
        """An order of the administrator's: `hold 123`."""
        return await self.cluster.run('exec /usr/bin/scontrol "$@"', *words)

    async def end_jobs(self) -> None:
        """All that wait or run, so that others find room."""
        await self.cluster.run(_END, self.place)

    async def scancel(self, *words: str, user: str = "") -> None:
        """End jobs behind the backend's back."""
        script = 'exec /usr/bin/scancel "$@"'
        await self.cluster.run(script, *words, user=user or self.cluster.account)

    async def check_nothing_lost(self, handles: Sequence[JobHandle], copies: int) -> None:
        """Slurm has the jobs of the handles of one submission, and no other; each once."""
        assert [handle.copy for handle in handles] == list(range(copies))
        natives = sorted(native_of(handle.id) for handle in handles)
        there = sorted(job.id for job in await self.in_slurm(handles[0].submission))
        assert there == natives


def native_of(job: JobID) -> str:
    """The scheduler's id in a job's."""
    _, _, _, native = job.split("/")
    return native


async def outcome_of(call: Awaitable[object]) -> object:
    """What an operation returns, or the error it raises, if that is one of ours."""
    try:
        return await call
    except InterCEdeError as error:
        return error


async def passing(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something has become true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await true():
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S} s: {what}") from None


@asynccontextmanager
async def opened(scheduler: Mapping[str, Any] = {}, **keys: Any) -> AsyncIterator[Scene]:
    """A scene, with everything that it holds on the cluster ended and removed at its end.

    Args:
        scheduler: Of the first backend's.
        keys: Of every backend's configuration.
    """
    there = running(STACK)
    cluster = Cluster(there, STACK.account)
    await cluster.run(_MEND)
    unique = uuid.uuid4().hex[:12]
    place = f"{there.home}/checks.{unique}"
    told = there.way.config(STACK, there.folder, there.port, cluster.account)
    host, port = there.way.server(told)
    async with Relay(port, host) as relay, AsyncExitStack() as exits:
        exits.push_async_callback(cluster.run, _CLEAR, place)
        await cluster.run('mkdir "$1"', place, user=cluster.account)
        exits.callback(relay.let_through)
        scene = Scene(cluster, place, relay, f"checks-{unique}", keys, exits=exits)
        scene.ce = await scene.another(scheduler)
        yield scene
