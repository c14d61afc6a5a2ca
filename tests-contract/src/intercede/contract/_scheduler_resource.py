"""What the suite must know of a scheduler before it can hold it to the rules N1 to N6: answers that a real daemon gave.

A sample is data: which daemon said it, to which command, and what it means. The rules are about purity, so nothing is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from intercede.core import (
    CommandResult,
    ConfigurationError,
    Failure,
    JobDetails,
    NativeJob,
    Results,
    Scheduler,
    StagedBatch,
    SubmissionSpec,
    registry,
)

from ._resource import described

__all__ = ["CALLS", "Sample", "SchedulerResource", "submitted_batch"]


def _results(values: Iterable[CommandResult]) -> tuple[CommandResult, ...]:
    return tuple(values)


def _jobs(values: Iterable[NativeJob]) -> tuple[NativeJob, ...]:
    return tuple(values)


@frozen(kw_only=True)
class Sample:
    """What a daemon answered, once.

    Attributes:
        call: One of `CALLS`.
        daemon: Who spoke, with its version.
        command: What it was asked, as a person would type it.
        results: How each command of the call ended.
        expected: What that means; None: the answer is of no use, and raises `ResourceError`. For `probe` facts that it must tell; for
            `submit` the native id by copy, None where it was refused; for `status` and `history` the status by native id, and a job that
            is not there is absent; for `list` mark, copy and status by native id.
        jobs: Who was asked for, in `status` and `history`.
        batch: What was submitted, in `submit`.
    """

    call: str
    daemon: str
    command: str
    results: tuple[CommandResult, ...] = field(converter=_results)
    expected: Mapping[str, Any] | None
    jobs: tuple[NativeJob, ...] = field(default=(), converter=_jobs)
    batch: StagedBatch | None = None

    def __str__(self) -> str:
        return f"{self.call}, {self.daemon}, {self.command!r}"

    @classmethod
    def read(cls, path: str | Path) -> tuple[Sample, ...]:
        """The samples of a JSON file: a list of tables with these attributes as keys, bytes as text."""
        return tuple(_sample(table) for table in json.loads(Path(path).read_text("utf-8")))


def _sample(table: Mapping[str, Any]) -> Sample:
    values = dict(table)
    values["results"] = [
        CommandResult(result["returncode"], _bytes(result["stdout"]), _bytes(result["stderr"]))
        for result in values["results"]
    ]
    values["jobs"] = [
        NativeJob(
            job["id"],
            job["copy"],
            job["submission"],
            datetime.fromisoformat(job["submitted_at"]),
        )
        for job in values.get("jobs", ())
    ]
    if values.get("batch") is not None:
        spec = SubmissionSpec("/bin/true", resident=True)
        values["batch"] = StagedBatch(**values["batch"], spec=spec)
    return Sample(**values)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@frozen(kw_only=True)
class SchedulerResource:
    """One scheduler, as the suite sees it.

    Attributes:
        config: What `registry.scheduler` is given.
        samples: What its daemon answered, see `Sample.read`.
        native: How its native ids are made up, from `{submission}`, `{copy}` and `{number}`, as in "{number}_{copy}"; for long lists.
        ids_limit: How many jobs its daemon takes in one command; None: as many as fit.
        argv_limit: How many bytes of arguments one command may have.
    """

    config: str | Mapping[str, Any]
    samples: Sequence[Sample] = ()
    native: str | None = None
    ids_limit: int | None = None
    argv_limit: int = 131_072

    @classmethod
    def from_toml(cls, path: str | Path) -> SchedulerResource:
        """Read a description: the keys are the attributes; `samples` is a file beside the description, see `Sample.read`."""
        values = described(path, [attribute.name for attribute in cls.__attrs_attrs__])
        if "samples" in values:
            file = Path(path).parent / str(values["samples"])
            try:
                values["samples"] = Sample.read(file)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ConfigurationError(
                    f"{file} cannot be read: {error!r}", path="samples", operation="contract"
                ) from None
        return cls(**values)

    def made(self) -> Scheduler:
        """A scheduler from the registry."""
        return registry.scheduler(self.config)


def _submitted(answer: Mapping[int, str | Failure]) -> dict[str, str | None]:
    return {str(copy): None if isinstance(x, Failure) else x for copy, x in answer.items()}


def _told(answer: Mapping[NativeJob, JobDetails]) -> dict[str, Any]:
    return {job.id: str(details.status) for job, details in answer.items()}


def submitted_batch(sample: Sample) -> StagedBatch:
    """What was submitted, in a sample of a submit."""
    assert sample.batch is not None, f"a sample of a submit needs its batch: {sample}"
    return sample.batch


#: How the answer to each call is parsed, and written as `Sample.expected` has it.
CALLS: Final[Mapping[str, Callable[[Scheduler, Sample, Results], Mapping[str, Any]]]] = {
    "probe": lambda scheduler, sample, results: dict(scheduler.parse_probe(results)),
    "submit": lambda scheduler, sample, results: _submitted(
        scheduler.parse_submit(submitted_batch(sample), results)
    ),
    "status": lambda scheduler, sample, results: _told(
        scheduler.parse_status(sample.jobs, results)
    ),
    "history": lambda scheduler, sample, results: _told(
        scheduler.parse_history(sample.jobs, results)
    ),
    "list": lambda scheduler, sample, results: {
        native: [mark, copy, str(status)]
        for native, (mark, copy, status) in scheduler.parse_list(results).items()
    },
}
