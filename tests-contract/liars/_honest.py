"""What every liar is made from: a fake that keeps all rules, and can show more of itself than the fake does.

Its output can be cut, its ids can be given to another job, and it knows a program that is not there. So nearly every rule is observed, in
milliseconds; what needs real processes is shown by the runs on real resources.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import evolve, field, frozen

from intercede.contract import LocalProbe, Resource
from intercede.core import (
    CredentialProvider,
    Failure,
    FailureCode,
    JobBackend,
    JobHandle,
    JobID,
    JobOutput,
    SpecRefused,
    SubmissionSpec,
    registry,
)
from intercede.core.registry import describe
from intercede.fake import FakeBackend, FakeConfig, FakeFaults, FakeProbe
from intercede.fake._faults import Trouble
from intercede.fake._output import Gathered
from intercede.fake._site import FakeJob

__all__ = ["HONEST", "LIARS", "ROOT", "Honest", "Liar", "LiarConfig", "lie", "make", "resource_of"]

#: The name under which the honest one is run.
HONEST: Final = "honest"
#: The variable that tells where the sandboxes of real ones lie.
ROOT: Final = "INTERCEDE_LIARS_ROOT"
#: A resident program that the pretend host lacks; it has all others.
NOWHERE: Final = "/no/such/program"


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

    def _check_honourable(self, spec: SubmissionSpec) -> None:
        super()._check_honourable(spec)
        if spec.resident and spec.executable == NOWHERE:
            raise SpecRefused("executable", f"{NOWHERE!r} is not there", remedy="name another")


Maker = Callable[["LiarConfig", str], JobBackend]
T = TypeVar("T")


@frozen(kw_only=True)
class Liar:
    """One backend, transport or scheduler that lies.

    Attributes:
        name: What it is called.
        rule: The one that it breaks.
        deed: What it does, for the table.
        neighbours: Rules that cannot hold either when it does so.
        made: Its class: of a backend one of `Honest`, or one made of real parts.
        lacking: What the suite is not given for it: a field of `Resource`. So a test is tried that stands in for one that needs more.
        needs: Programs of which this machine must have one, lest the lie be the truth here.
    """

    name: str
    rule: str
    deed: str
    neighbours: frozenset[str]
    made: type[Any]
    lacking: str = ""
    needs: tuple[str, ...] = ()

    @property
    def unobserved(self) -> str:
        """What it would take to see the lie on this machine; nothing if it can be seen."""
        if not self.needs or any(map(shutil.which, self.needs)):
            return ""
        return f"needs {' or '.join(self.needs)}"

    @property
    def breaks(self) -> frozenset[str]:
        """All rules that must be seen to fail."""
        return self.neighbours | {self.rule}

    @property
    def tried(self) -> tuple[str, ...]:
        """The rules, or families of rules, with whose tests it is tried when not with all: a real one takes its time."""
        return (self.rule[0],) if self.is_pretend else tuple(sorted(self.breaks))

    @property
    def is_pretend(self) -> bool:
        """Nothing of it is real, or it is no backend."""
        return self.rule[0] in "XN" or issubclass(self.made, Honest)


#: By name.
LIARS: Final[dict[str, Liar]] = {}


class lie:  # it is used as a decorator
    """Enter a class in the table of liars, under its own name.

    Args:
        rule: The rule that it breaks.
        deed: What it does.
        neighbours: Other rules that fail with it, separated by blanks.
        lacking: See `Liar`.
        needs: Likewise, separated by blanks.
    """

    def __init__(
        self, rule: str, deed: str, neighbours: str = "", *, lacking: str = "", needs: str = ""
    ) -> None:
        self._rule = rule
        self._deed = deed
        self._neighbours = frozenset(neighbours.split())
        self._lacking = lacking
        self._needs = tuple(needs.split())

    def __call__(self, made: type[T]) -> type[T]:
        name = made.__name__
        LIARS[name] = Liar(
            name=name,
            rule=self._rule,
            deed=self._deed,
            neighbours=self._neighbours,
            made=made,
            lacking=self._lacking,
            needs=self._needs,
        )
        return made


@frozen
class LiarConfig(FakeConfig):
    """The keys of a liar: those of a fake, and which it is."""

    lie: str = field(default=HONEST, metadata=describe("Which liar"))
    root: str = field(default="", metadata=describe("Where the sandboxes of a real one lie"))


def make(config: LiarConfig, resource: str, credentials: CredentialProvider | None) -> JobBackend:
    """The liar that the configuration names."""
    maker: Maker = Honest if config.lie == HONEST else LIARS[config.lie].made
    return maker(config, resource)


# ---------------------------------------------------------------- what the suite is told of it


class HonestFaults(FakeFaults):
    """What can be made to go wrong with it, besides what can with any fake."""

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
    liar = LIARS.get(name)
    if liar is None or liar.is_pretend:
        return _pretended(name, liar)
    root = f"{os.environ[ROOT]}/{name}"
    return Resource(
        config={"type": "liar", "lie": name, "root": root},
        seconds=0.3,
        other_process=True,
        probe=LocalProbe(root),
    )


def _pretended(name: str, liar: Liar | None) -> Resource:
    slow_connect = {"operation": "connect", "kind": "slow", "times": 0, "seconds": 0.5}
    config: dict[str, Any] = {
        "type": "liar",
        "lie": name,
        "site": f"liars-{name}",
        "speed": 100.0,
        "faults": [slow_connect],
    }
    alone = {**config, "site": f"liars-{name}-{{unique}}"}
    resource = Impatient(
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
            "executable": NOWHERE,
        },
        probe=FakeProbe(f"liars-{name}"),
        faults=HonestFaults(),
    )
    lacking: dict[str, Any] = {liar.lacking: None} if liar and liar.lacking else {}
    return evolve(resource, **lacking)
