"""What a scheduler says of the end of a job, beside what the sandbox knows."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from intercede.core import (
    Command,
    CommandResult,
    FailureCode,
    JobDetails,
    JobID,
    JobStatus,
    NativeJob,
    ResourceError,
    Resources,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler

TIMEOUT = JobDetails(
    JobStatus.FAILED, native_state="TIMEOUT", reason="the time limit was reached", node="n7"
)


class Tells(DirectScheduler):
    """Direct, whose queue also tells what `said` says of a native id, and whose history what `past` says; None: it is down."""

    def __init__(self) -> None:
        super().__init__(DirectConfig(slots=4))
        self.said: dict[str, JobDetails] = {}
        self.past: dict[str, JobDetails] | None = {}

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Sequence[CommandResult]
    ) -> Mapping[NativeJob, JobDetails]:
        said = {job: self.said[job.id] for job in jobs if job.id in self.said}
        return {**super().parse_status(jobs, results), **said}

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return [Command(("sh", "-c", "echo asked >> history"))]

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Sequence[CommandResult]
    ) -> Mapping[NativeJob, JobDetails]:
        if self.past is None:
            raise ResourceError("no accounting today")
        return {job: self.past[job.id] for job in jobs if job.id in self.past}


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
        assert not (root / "history").exists()
        assert b"time limit" in (await ce.diagnostics(ids))[ids[0]].log_tail
        (await ce.fetch_output(ids, tmp_path / "out")).raise_for_failures()
        (await ce.purge(ids)).raise_for_failures()


async def test_a_job_of_which_the_queue_cannot_tell_is_not_told_now(
    make_backend: Any, tools: Any
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 60"), 2))
        scheduler.said = {native(ids[0]): JobDetails(JobStatus.UNKNOWN, reason="a torn row")}
        statuses = await ce.status(ids)
        assert statuses[ids[0]] is JobStatus.UNKNOWN
        failure = statuses.failures[ids[0]]
        assert (failure.code, failure.message) == (FailureCode.NOT_NOW, "a torn row")
        assert set(statuses.failures) == {ids[0]}
        scheduler.said = {}
        (await ce.kill(ids)).raise_for_failures()


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


async def without_records(ce: Any, tools: Any, root: Path, copies: int = 1) -> list[JobID]:
    """Jobs that have left the queue and whose runners were killed."""
    ids: list[JobID] = tools.ids_of(await ce.submit(tools.script("exit 0"), copies))
    with anyio.fail_after(20):
        while not all((place(root, job) / "exit").exists() for job in ids):
            await anyio.sleep(0.05)
    for job in ids:
        (place(root, job) / "exit").unlink()
    return ids


@pytest.mark.parametrize("shell", [["dash"], ["bash"], ["busybox", "sh"]], ids=" ".join)
@pytest.mark.parametrize("record", [True, False])
async def test_what_the_queue_said_stays_when_it_has_forgotten(
    make_backend: Any, tools: Any, root: Path, record: bool, shell: list[str]
) -> None:
    scheduler, wire = Tells(), tools.Wire(shell=shell)
    async with make_backend(wire, scheduler=scheduler) as ce:
        if record:
            ids = tools.ids_of(await ce.submit(tools.script("exit 0")))
        else:
            ids = await without_records(ce, tools, root)
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert await tools.finish(ce, ids) == [JobStatus.FAILED]
        before = (await ce.details(ids))[ids[0]]
        for said in ({}, {native(ids[0]): JobDetails(JobStatus.SUCCESSFUL)}):
            scheduler.said = said
            execs = wire.execs
            assert (await ce.details(ids))[ids[0]] == before
            assert wire.execs == execs + 2
        assert not (root / "history").exists()
        # A record that comes later tells more, and changes nothing.
        (place(root, ids[0]) / "exit").write_text(
            "code=0 signal=- cancelled=- limit=- began=1 ended=2 node=n1 end\n"
        )
        later = (await ce.details(ids))[ids[0]]
        assert (later.status, later.exit_code, later.node) == (JobStatus.FAILED, 0, "n1")


async def test_what_the_history_said_stays_when_it_is_gone(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler, wire = Tells(), tools.Wire()
    async with make_backend(wire, scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root, 2)
        scheduler.past = {native(ids[0]): TIMEOUT}
        spent = []
        for past in (scheduler.past, {}, None):
            scheduler.past = past
            execs = wire.execs
            details = await ce.details(ids)
            spent.append(wire.execs - execs)
            assert details[ids[0]] == TIMEOUT
            assert details.failures[ids[1]].code is FailureCode.NOT_NOW
        assert spent == [3, 2, 2]
        assert "no accounting today" in details.failures[ids[1]].message


@pytest.mark.parametrize("down", [True, False])
async def test_a_job_of_which_no_history_tells_within_the_grace_stays_lost(
    make_backend: Any, tools: Any, root: Path, down: bool
) -> None:
    scheduler, wire = Tells(), tools.Wire()
    scheduler.past = None if down else {}
    async with make_backend(wire, scheduler=scheduler, grace_s=1) as ce:
        ids = await without_records(ce, tools, root)
        assert (await ce.status(ids)).failures[ids[0]].code is FailureCode.NOT_NOW
        assert await tools.finish(ce, ids) == [JobStatus.FINISHED_UNKNOWN]
        scheduler.past = {native(ids[0]): TIMEOUT}
        scheduler.said = {native(ids[0]): TIMEOUT}
        asked, execs = (root / "history").read_text(), wire.execs
        assert await tools.finish(ce, ids) == [JobStatus.FINISHED_UNKNOWN]
        assert wire.execs == execs + 2
        assert (root / "history").read_text() == asked
        (await ce.purge(ids)).raise_for_failures()
        assert wire.execs == execs + 3


async def test_a_history_that_answers_when_the_grace_is_over_is_heard(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler, grace_s=1) as ce:
        ids = await without_records(ce, tools, root)
        await ce.status(ids)
        await anyio.sleep(3)
        scheduler.past = {native(ids[0]): TIMEOUT}
        assert await tools.finish(ce, ids) == [JobStatus.FAILED]


async def test_a_job_that_was_killed_is_cancelled_whatever_the_scheduler_says(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 2))
        (await ce.kill(ids)).raise_for_failures()
        # The second was killed before it started: it leaves no record.
        (place(root, ids[1]) / "exit").unlink(missing_ok=True)
        for said in (TIMEOUT, JobDetails(JobStatus.SUCCESSFUL)):
            scheduler.said = scheduler.past = {native(job): said for job in ids}
            assert set(await tools.finish(ce, ids)) == {JobStatus.CANCELLED}
        assert not (root / "history").exists()


@pytest.mark.parametrize("operation", ["purge", "fetch_output", "kill"])
async def test_a_job_whose_end_is_written_down_has_ended_for_every_call(
    make_backend: Any, tools: Any, root: Path, tmp_path: Path, operation: str
) -> None:
    scheduler, wire = Tells(), tools.Wire()
    async with make_backend(wire, scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root)
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert await tools.finish(ce, ids) == [JobStatus.FAILED]
        scheduler.said, execs = {}, wire.execs
        dest = [tmp_path / "out"] if operation == "fetch_output" else []
        result = await getattr(ce, operation)(ids, *dest)
        result.raise_for_failures()
        assert wire.execs == execs + 1
        if operation == "kill":
            assert result[ids[0]].note == "it had ended already"
            assert (await ce.status(ids))[ids[0]] is JobStatus.FAILED


@pytest.mark.parametrize(
    "forged",
    [b"", b"garbage\n", b"{}\n", b'{"status":"running"}\n', b'{"status":"x"}', b"\xff\x0b" * 10**6],
)
async def test_what_a_payload_writes_in_place_of_the_schedulers_word_spoils_only_its_own_job(
    make_backend: Any, tools: Any, root: Path, forged: bytes
) -> None:
    async with make_backend(grace_s=1) as ce:
        ids = await without_records(ce, tools, root, 2)
        (place(root, ids[0]) / "ended").write_bytes(forged)
        statuses = await tools.finish(ce, ids)
        assert statuses == [JobStatus.FINISHED_UNKNOWN] * 2
        (await ce.purge(ids)).raise_for_failures()


async def test_a_word_that_cannot_be_written_down_is_told_all_the_same(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root)
        (place(root, ids[0]) / "ended").mkdir()
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert (await ce.details(ids))[ids[0]] == TIMEOUT


async def test_a_word_that_is_half_written_is_not_believed_yet(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root)
        written = place(root, ids[0]) / "ended"
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert (await ce.details(ids))[ids[0]] == TIMEOUT
        line = written.read_bytes()
        scheduler.said = {}
        written.write_bytes(line[: len(line) // 2])
        assert (await ce.status(ids)).failures[ids[0]].code is FailureCode.NOT_NOW
        written.write_bytes(line)
        assert (await ce.details(ids))[ids[0]] == TIMEOUT


async def test_a_word_that_somebody_died_over_is_written_again(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root)
        written = place(root, ids[0]) / "ended"
        written.touch()
        refused = await ce.purge(ids)
        assert refused.failures[ids[0]].code is FailureCode.NOT_NOW
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert (await ce.details(ids))[ids[0]] == TIMEOUT
        scheduler.said = {}
        assert (await ce.details(ids))[ids[0]] == TIMEOUT
        assert written.stat().st_size > 0


async def test_the_first_word_stays(make_backend: Any, tools: Any, root: Path) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root)
        scheduler.said = {native(ids[0]): TIMEOUT}
        assert (await ce.details(ids))[ids[0]] == TIMEOUT
        scheduler.said = {native(ids[0]): JobDetails(JobStatus.CANCELLED, native_state="CANCELLED")}
        assert (await ce.details(ids))[ids[0]] == TIMEOUT


async def test_the_schedulers_word_is_kept_as_it_was_said(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Tells()
    word = JobDetails(
        JobStatus.FAILED, native_state="IT'S\n$(touch hacked)", reason="\u00e9\u2028 \\n '\"`id`"
    )
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        ids = await without_records(ce, tools, root)
        scheduler.said = {native(ids[0]): word}
        assert (await ce.details(ids))[ids[0]] == word
        scheduler.said = {}
        assert (await ce.details(ids))[ids[0]] == word
        assert json.loads((place(root, ids[0]) / "ended").read_text())["reason"] == word.reason
        assert not (root / "hacked").exists()


#: Ends with exit code 0 when it is told to.
OBEDIENT = "trap 'exit 0' TERM; : > ready; while :; do sleep 0.05; done"


async def ready(root: Path, job: JobID) -> int:
    """The process group of a job that runs such a payload."""
    with anyio.fail_after(20):
        while not (place(root, job) / "work/ready").exists():
            await anyio.sleep(0.02)
    return os.getpgid(int((place(root, job) / "start").read_text().split()[2]))


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        (None, JobStatus.FAILED, "told to end (TERM), not by us"),
        (TIMEOUT, JobStatus.FAILED, TIMEOUT.reason),
        (JobDetails(JobStatus.CANCELLED, reason="by root"), JobStatus.CANCELLED, "by root"),
        (JobDetails(JobStatus.SUCCESSFUL, reason="all well"), JobStatus.SUCCESSFUL, "all well"),
    ],
)
async def test_a_job_that_somebody_told_to_end_is_what_the_scheduler_says_and_never_just_successful(
    make_backend: Any,
    tools: Any,
    root: Path,
    word: JobDetails | None,
    status: JobStatus,
    reason: str,
) -> None:
    scheduler = Tells()
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script(OBEDIENT)))
        group = await ready(root, ids[0])
        assert group != os.getpgid(0)
        os.killpg(group, signal.SIGTERM)
        with anyio.fail_after(20):
            while not (place(root, ids[0]) / "exit").exists():
                await anyio.sleep(0.02)
        scheduler.said = {} if word is None else {native(ids[0]): word}
        for _ in range(2):
            assert await tools.finish(ce, ids) == [status]
            details = (await ce.details(ids))[ids[0]]
            assert (details.exit_code, details.reason) == (0, reason)
            scheduler.said = {}


async def test_a_job_that_we_told_to_end_is_not_somebody_elses(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend(scheduler=Tells()) as ce:
        killed = tools.ids_of(await ce.submit(tools.script(OBEDIENT)))
        limit = Resources(wall_time_s=1)
        limited = tools.ids_of(await ce.submit(tools.script(OBEDIENT, resources=limit)))
        await ready(root, killed[0])
        (await ce.kill(killed)).raise_for_failures()
        assert await tools.finish(ce, killed + limited) == [JobStatus.CANCELLED, JobStatus.FAILED]
        details = (await ce.details(limited))[limited[0]]
        assert details.reason == "ended at its limit of wall-time"
