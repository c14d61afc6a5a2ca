"""What every lying scheduler is made from: the language of the fake's batch system, or that of direct.

Both are honest, and have recorded answers: those of direct are the suite's own, those of the fake stand here, since more can be wrong
with a queue that holds jobs and remembers how they ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from intercede.contract import Sample, SchedulerResource
from intercede.core import (
    CommandResult,
    NativeJob,
    Scheduler,
    StagedBatch,
    SubmissionSpec,
)
from intercede.core.registry import describe
from intercede.fake import FakeScheduler
from intercede.scheduler.direct import DirectScheduler

from ._honest import LIARS

__all__ = [
    "HONEST_SCHEDULERS",
    "SchedulerLiarConfig",
    "make_scheduler",
    "scheduler_resource_of",
]

#: The names under which the honest ones are run.
HONEST_SCHEDULERS: Final[Mapping[str, type]] = {
    "honest_queue": FakeScheduler,
    "honest_direct": DirectScheduler,
}
_DIRECT: Final = Path(__file__).parents[1] / "tests/samples/direct.json"


@frozen
class SchedulerLiarConfig:
    """Which liar."""

    lie: str = field(default="honest_queue", metadata=describe("Which liar"))


def _made(name: str) -> type:
    return HONEST_SCHEDULERS.get(name) or LIARS[name].made


def make_scheduler(config: SchedulerLiarConfig) -> Scheduler:
    """The liar that the configuration names."""
    scheduler: Scheduler = _made(config.lie)()
    return scheduler


# ---------------------------------------------------------------- what the suite is told of it

_WHEN: Final = datetime(2026, 11, 22, 6, tzinfo=UTC)
_AT: Final = f"{_WHEN.timestamp():.6f}"
_LONG_AGO: Final = f"{_WHEN.timestamp() - 86_400:.6f}"
_SPEC: Final = SubmissionSpec("/bin/true", resident=True)
_BATCH: Final = StagedBatch("s1", "mark1", "/pretend/s1", "/pretend/s1/runner", (0, 1, 2), _SPEC)
_JOBS: Final = tuple(NativeJob(f"1.{copy}", copy, "s1", _WHEN) for copy in (*range(8), 10))


def _answer(*rows: Sequence[str]) -> CommandResult:
    lines = ["fake-queue 1", *("\t".join(row) for row in rows)]
    return CommandResult(0, "".join(f"{line}\n" for line in lines).encode())


def _sample(
    call: str, command: str, expected: Mapping[str, Any] | None, *results: CommandResult
) -> Sample:
    return Sample(
        call=call,
        daemon="fake-queue 1",
        command=command,
        results=results,
        expected=expected,
        jobs=_JOBS if call in ("status", "history") else (),
        batch=_BATCH if call == "submit" else None,
    )


_RUNNING: Final = ("1.1", "running", _AT, _AT, "-")
_WAITING: Final = ("1.2", "waiting", _AT, "-", "no slot is free: 1 of 1 are busy")
_HELD: Final = ("1.3", "held", _AT, "-", "held by the operator")
_DOWN: Final = CommandResult(1, b"", b"fake-queue: cannot reach the daemon\n")

#: What the fake's batch system says, and what it means.
_QUEUE: Final = (
    _sample(
        "probe",
        "fake-info",
        {"queues": "default", "max_cpus": 64},
        _answer(("queues", "default"), ("max_cpus", "64")),
    ),
    _sample(
        "submit",
        "fake-submit mark1 /pretend/s1/runner - 0 1 2",
        {"0": "1.0", "1": "1.1", "2": "1.2"},
        _answer(("0", "1.0"), ("1", "1.1"), ("2", "1.2")),
    ),
    _sample(
        "submit",
        "fake-submit mark1 /pretend/s1/runner none 0 1 2",
        {"0": None, "1": None, "2": None},
        CommandResult(1, b"", b"fake-submit: no queue none\n"),
    ),
    _sample(
        "status",
        "fake-queue 1.0 1.1 1.2 1.3",
        {"1.1": "running", "1.2": "pending", "1.3": "held"},
        _answer(_RUNNING, _WAITING, _HELD),
    ),
    _sample(
        "status",
        "fake-queue 1.0 1.1 && fake-queue 1.2 1.3",
        {"1.1": "running", "1.2": "pending"},
        _answer(_RUNNING),
        _answer(_WAITING),
    ),
    # An id that was given out on another day is somebody else's.
    _sample(
        "status",
        "fake-queue 1.1 1.2",
        {"1.1": "running"},
        _answer(_RUNNING, ("1.2", "running", _LONG_AGO, _LONG_AGO, "-")),
    ),
    _sample(
        "status",
        "fake-queue 1.1 1.10",
        {"1.10": "running"},
        _answer(("1.10", "running", _AT, _AT, "-")),
    ),
    # A queue may tell of jobs that are ending, and how others ended.
    _sample(
        "status",
        "fake-queue 1.0 1.1 1.2 1.4",
        {"1.0": "successful", "1.1": "running", "1.2": "running", "1.4": "failed"},
        _answer(
            ("1.0", "exit:0", _AT, _AT, _AT),
            _RUNNING,
            ("1.2", "ending", _AT, _AT, _AT),
            ("1.4", "signal:9", _AT, _AT, _AT),
        ),
    ),
    _sample("status", "fake-queue 1.0", {}, _answer()),
    _sample("status", "fake-queue 1.1", None, _DOWN),
    _sample("status", "fake-queue 1.1 && fake-queue 1.2", None, _answer(_RUNNING), _DOWN),
    _sample(
        "history",
        "fake-history 1.0 1.1 1.2 1.3 1.4 1.5 1.6",
        {
            "1.0": "successful",
            "1.2": "failed",
            "1.3": "failed",
            "1.4": "failed",
            "1.5": "cancelled",
            "1.6": "finished-unknown",
        },
        _answer(
            ("1.0", "exit:0", _AT, _AT, _AT),
            ("1.2", "exit:7", _AT, _AT, _AT),
            ("1.3", "exit:128", _AT, _AT, _AT),
            ("1.4", "signal:9", _AT, _AT, _AT),
            ("1.5", "killed", _AT, "-", _AT),
            ("1.6", "lost", _AT, _AT, _AT),
        ),
    ),
    _sample("history", "fake-history 1.1", {}, _answer()),
    _sample("history", "fake-history 1.0", None, _DOWN),
    _sample(
        "list",
        "fake-list mark1",
        {
            "1.1": ["mark1", 1, "running"],
            "1.2": ["mark1", 2, "pending"],
            "1.3": ["mark1", 3, "held"],
            "12.0": ["mark10", 0, "running"],
        },
        _answer(
            ("1.1", "running", "mark1"),
            ("1.2", "waiting", "mark1"),
            ("1.3", "held", "mark1"),
            ("12.0", "running", "mark10"),
        ),
    ),
    _sample("list", "fake-list mark2", {}, _answer()),
    _sample("list", "fake-list mark1", None, _DOWN),
    _sample("probe", "fake-info", None, _DOWN),
)


def scheduler_resource_of(name: str) -> SchedulerResource:
    """What the suite is told of this liar, or of an honest one."""
    config = {"type": "liar", "lie": name}
    made = _made(name)
    if issubclass(made, FakeScheduler):
        return SchedulerResource(
            config=config,
            samples=_told(made, _QUEUE),
            native="{number}.{copy}",
            ids_limit=500,
        )
    return SchedulerResource(
        config=config,
        samples=_told(made, Sample.read(_DIRECT)),
        native="{submission}.{copy}",
    )


def _told(made: type, samples: Sequence[Sample]) -> Sequence[Sample]:
    """The recorded answers, as a liar about them tells them."""
    retold: Callable[[Sequence[Sample]], Sequence[Sample]] = getattr(made, "retold", list)
    return retold(samples)
