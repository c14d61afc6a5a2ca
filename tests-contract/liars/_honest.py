"""What every liar is made from: a fake that keeps all rules, and can show more of itself than the fake does.

Its output can be cut, its ids can be given to another job, and a probe sees its pretend host. So nearly every rule is observed, in
milliseconds; what needs real processes is shown by the runs on real resources.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from attrs import evolve, field, frozen

from intercede.contract import Resource
from intercede.core import (
    CredentialProvider,
    Failure,
    FailureCode,
    JobBackend,
    JobHandle,
    JobID,
    JobOutput,
    registry,
)
from intercede.core.registry import describe
from intercede.fake import FakeBackend, FakeConfig, FakeSite
from intercede.fake._faults import Trouble
from intercede.fake._output import Gathered
from intercede.fake._site import FakeJob

__all__ = ["HONEST", "LIARS", "Honest", "Liar", "LiarConfig", "lie", "make", "resource_of"]

T = TypeVar("T")

#: The name under which the honest one is run.
HONEST: Final = "honest"


class Honest(FakeBackend):
    """Keeps every rule.

    Attributes:
        cut: Jobs whose output does not arrive whole.
        reused: Whose id the scheduler has given to whom.
    """

    cut: frozenset[JobID] = frozenset()
    reused: Mapping[JobID, JobID] = {}

    def _gathered(self, job: FakeJob, now: float) -> Gathered:
        gathered = super()._gathered(job, now)
        if job.id not in self.cut:
            return gathered
        return evolve(gathered, members=dict(list(gathered.members.items())[::2]))

    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        if job_id in self.cut:
            return JobOutput(failure=Failure(FailureCode.NOT_NOW, "the stream was cut"))
        return await super()._fetch(job_id, dest, trouble)


@frozen(kw_only=True)
class Liar:
    """One backend, transport or scheduler that lies.

    Attributes:
        name: What it is called.
        rule: The one that it breaks.
        deed: What it does, for the table.
        neighbours: Rules that cannot hold either when it does so.
        made: Its class.
    """

    name: str
    rule: str
    deed: str
    neighbours: frozenset[str]
    made: type[Any]

    @property
    def breaks(self) -> frozenset[str]:
        """All rules that must be seen to fail."""
        return self.neighbours | {self.rule}


#: By name.
LIARS: Final[dict[str, Liar]] = {}


class lie:  # it is used as a decorator
    """Enter a class in the table of liars, under its own name.

    Args:
        rule: The rule that it breaks.
        deed: What it does.
        neighbours: Other rules that fail with it, separated by blanks.
    """

    def __init__(self, rule: str, deed: str, neighbours: str = "") -> None:
        self._rule = rule
        self._deed = deed
        self._neighbours = frozenset(neighbours.split())

    def __call__(self, made: type[T]) -> type[T]:
        name = made.__name__
        LIARS[name] = Liar(
            name=name,
            rule=self._rule,
            deed=self._deed,
            neighbours=self._neighbours,
            made=made,
        )
        return made


@frozen
class LiarConfig(FakeConfig):
    """The keys of a liar: those of a fake, and which it is."""

    lie: str = field(default=HONEST, metadata=describe("Which liar"))


def make(config: LiarConfig, resource: str, credentials: CredentialProvider | None) -> JobBackend:
    """The liar that the configuration names."""
    backend: type[Honest] = Honest if config.lie == HONEST else LIARS[config.lie].made
    return backend(config, resource)


# ---------------------------------------------------------------- what the suite is told of it


class FakeProbe:
    """Looks at the pretend host of one site.

    Args:
        site: The site's name.

    Attributes:
        files: The files of every pretend host, by path.
        links: What became a link to the sandbox of another job.
    """

    files: ClassVar[dict[str, bytes]] = {}
    links: ClassVar[dict[str, str]] = {}

    def __init__(self, site: str) -> None:
        self._site = site

    @property
    def _jobs(self) -> list[FakeJob]:
        site = FakeSite.known(self._site)
        return [] if site is None else list(site._jobs.values())

    async def processes(self, marker: str) -> Sequence[str]:
        """See `Probe`."""
        site = FakeSite.known(self._site)
        return [] if site is None else site.processes(marker)

    async def exposed(self, needle: bytes) -> Sequence[str]:
        """See `Probe`."""
        shown = needle.decode()
        return [f"process of {job.id}" for job in self._jobs if job.mentions(shown)]

    async def sandbox(self, handle: JobHandle) -> str | None:
        """See `Probe`."""
        there = any(job.id == handle.id for job in self._jobs)
        return f"/pretend/{handle.id}" if there else None

    async def read(self, path: str) -> bytes | None:
        """See `Probe`."""
        return self.files.get(path)

    async def write(self, path: str, content: bytes) -> None:
        """See `Probe`."""
        self.files[path] = content

    async def replace_by_link(self, path: str, target: str) -> None:
        """See `Probe`."""
        self.links[path.removeprefix("/pretend/")] = target.removeprefix("/pretend/")

    async def scratch(self) -> str:
        """See `Probe`."""
        return "/scratch"


@asynccontextmanager
async def faulty(config: Mapping[str, object], **fault: object) -> AsyncIterator[JobBackend]:
    """A backend with one fault."""
    async with registry.backend({**config, "faults": [{"times": 0, **fault}]}) as backend:
        yield backend


class HonestFaults:
    """What can be made to go wrong with it."""

    def status_fails(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        """See `Faults`."""
        return faulty(config, operation="status", kind="resource-error")

    def unreachable(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        """See `Faults`."""
        return faulty(config, operation="connect", kind="unreachable")

    def row_is_garbage(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """See `Faults`."""
        return faulty(config, operation="status", kind="item", ids=[handle.id], code="not-now")

    def submit_answer_lost(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """See `Faults`."""
        return faulty(config, operation="submit", kind="lost-after-effect", times=1)

    def lost_after_staging(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """See `Faults`."""
        return faulty(config, operation="submit", kind="staged-only")

    @asynccontextmanager
    async def output_cut(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AsyncIterator[JobBackend]:
        """See `Faults`."""
        async with registry.backend(config) as backend:
            assert isinstance(backend, Honest)
            backend.cut = frozenset({handle.id})
            yield backend

    @asynccontextmanager
    async def id_reused(
        self, config: Mapping[str, object], finished: JobHandle, running: JobHandle
    ) -> AsyncIterator[JobBackend]:
        """See `Faults`."""
        async with registry.backend(config) as backend:
            assert isinstance(backend, Honest)
            backend.reused = {finished.id: running.id}
            yield backend


class Impatient(Resource):
    """A lie is seen at once; who waits for one would wait for ever."""

    @property
    def patience_s(self) -> float:
        """As short as a busy machine allows."""
        return 6.0

    @property
    def clearing_s(self) -> float:
        """As long as for anything else."""
        return self.patience_s


def resource_of(name: str) -> Resource:
    """What the suite is told of this liar, or of the honest one."""
    slow_connect = {"operation": "connect", "kind": "slow", "times": 0, "seconds": 0.5}
    config: dict[str, Any] = {
        "type": "liar",
        "lie": name,
        "site": f"liars-{name}",
        "speed": 100.0,
        "faults": [slow_connect],
    }
    alone = {**config, "site": f"liars-{name}-{{unique}}"}
    return Impatient(
        config=config,
        seconds=0.05,
        clock=100.0,
        narrow={**alone, "slots": 1},
        limited={
            "bytes": {**alone, "output_max_bytes": 100_000},
            "files": {**alone, "output_max_files": 20},
            "seconds": {**alone, "output_max_seconds": 5.0, "fetch_bytes_per_s": 1e8},
        },
        absurd={
            "cpus": 65,
            "memory_mb": 2**40,
            "nodes": 2,
            "gpus": 1,
            "queue": "no-such-queue",
        },
        probe=FakeProbe(f"liars-{name}"),
        faults=HonestFaults(),
    )
