"""What a scheduler says of the end of a job, beside what the sandbox knows."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from intercede.core import (
    Command,
    CommandResult,
    FailureCode,
    JobDetails,
    JobID,
    JobStatus,
    NativeJob,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler

TIMEOUT = JobDetails(
    JobStatus.FAILED, native_state="TIMEOUT", reason="the time limit was reached", node="n7"
)


class Tells(DirectScheduler):
    """Direct, whose queue also tells what `said` says of a native id."""

    def __init__(self) -> None:
        super().__init__(DirectConfig(slots=4))
        self.said: dict[str, JobDetails] = {}

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Sequence[CommandResult]
    ) -> Mapping[NativeJob, JobDetails]:
        said = {job: self.said[job.id] for job in jobs if job.id in self.said}
        return {**super().parse_status(jobs, results), **said}

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return [Command(("sh", "-c", "echo asked >> history", *(job.id for job in jobs)))]


def native(job: JobID) -> str:
    return job.split("/")[3]


def place(root: Path, job: JobID) -> Path:
    _, submission, copy, _ = job.split("/")
    return root / submission / copy


async def test_the_queue_tells_how_a_job_without_a_record_ended(
    make_backend: Any, tools: Any, root: Path, tmp_path: Path
) -> None:
    scheduler, wire = Tells(), tools.Wire()
    async with make_backend(wire, scheduler=scheduler, grace_s=60) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0"), 2))
        await tools.finish(ce, ids)
        (place(root, ids[0]) / "exit").unlink()
        scheduler.said = {native(ids[0]): TIMEOUT}
        execs = wire.execs
        details = await ce.details(ids)
        assert wire.execs == execs + 2
        assert details[ids[0]] == TIMEOUT
        assert details[ids[1]].status is JobStatus.SUCCESSFUL
        assert b"time limit" in (await ce.diagnostics(ids))[ids[0]].log_tail
        (await ce.fetch_output(ids, tmp_path / "out")).raise_for_failures()
        (await ce.purge(ids)).raise_for_failures()


async def test_a_payload_that_ended_well_because_its_time_was_over_has_failed(
    make_backend: Any, tools: Any
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0"), 2))
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert [s.value for s in await tools.finish(ce, ids)] == ["failed", "successful"]
        details = (await ce.details(ids))[ids[0]]
        assert (details.exit_code, details.reason) == (0, TIMEOUT.reason)
        assert details.native_state == "TIMEOUT"


@pytest.mark.parametrize(
    ("said", "note"),
    [
        (JobDetails(JobStatus.RUNNING, ended_at=datetime.now(UTC)), "it is ending"),
        (JobDetails(JobStatus.CANCELLED), None),
    ],
    ids=["ending", "ended"],
)
async def test_a_kill_has_succeeded_when_the_scheduler_ends_the_job(
    make_backend: Any, tools: Any, said: JobDetails, note: str | None
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300")))
        await tools.until(ce, ids, JobStatus.RUNNING)
        scheduler.said = {native(ids[0]): said}
        outcome = (await ce.kill(ids))[ids[0]]
        assert (outcome.ok, outcome.note) == (True, note)
        scheduler.said = {}
        assert await tools.finish(ce, ids) == [JobStatus.CANCELLED]


async def test_a_kill_of_a_job_that_runs_on_has_failed(make_backend: Any, tools: Any) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300")))
        scheduler.said = {native(ids[0]): JobDetails(JobStatus.RUNNING, native_state="R")}
        failure = (await ce.kill(ids)).failures[ids[0]]
        assert (failure.code, "still R" in failure.message) == (FailureCode.NOT_NOW, True)
