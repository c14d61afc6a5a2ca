"""What becomes of submissions that broke off, and of calls that the host does not carry out."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from intercede.core import (
    AuthenticationError,
    Command,
    CommandResult,
    ConnectionLost,
    Facts,
    Failure,
    FailureCode,
    JobCounts,
    JobID,
    JobStatus,
    NativeJob,
    ResourceError,
    StagedBatch,
    SubmitUncertain,
    Unreachable,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler


async def staged_only(make_backend: Any, tools: Any, tag: str, copies: int = 2) -> list[JobID]:
    """Leave a submission behind that was staged and never submitted, as a submitter does that dies between the two."""

    class Died(BaseException):
        pass

    wire = tools.Wire()

    def die(number: int) -> None:
        if number == 3:
            raise Died

    wire.cut = die
    ce = make_backend(wire)
    with pytest.raises(Died):
        await ce.submit(tools.script("exit 0", tag=tag), copies)
    wire.cut = lambda number: None
    ids = [handle.id for handle in await ce.find(tag)]
    assert len(ids) == copies
    return ids


async def test_what_was_staged_and_never_submitted_is_found_counted_pending_and_can_be_killed(
    make_backend: Any, tools: Any, root: Path
) -> None:
    ids = await staged_only(make_backend, tools, "staged")
    async with make_backend() as ce:
        details = await ce.details(ids)
        assert {d.status for d in details.values()} == {JobStatus.PENDING}
        assert "not submitted" in (details[ids[0]].reason or "")
        assert (await ce.counts()).waiting == 2
        assert b"not submitted" in (await ce.diagnostics(ids))[ids[0]].log_tail
        assert (await ce.purge(ids)).failures[ids[0]].code is FailureCode.NOT_FINISHED
        (await ce.kill(ids[:1])).raise_for_failures()
        assert [s.value for s in (await ce.status(ids)).values()] == ["cancelled", "pending"]
        assert (await ce.counts()).waiting == 1
        (await ce.kill(ids)).raise_for_failures()
        assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}
        assert (await ce.counts()).waiting == 0
        (await ce.purge(ids)).raise_for_failures()
        assert await ce.find("staged") == ()


def dead_owner(root: Path, job: JobID) -> None:
    """The attempt was begun by a process that is gone."""
    attempt = root / job.split("/")[1] / "attempt"
    attempt.mkdir()
    (attempt / "owner").write_text(f"{os.uname().nodename} {2**22 + 1} 1\n")


async def test_an_attempt_whose_owner_died_counts_as_lost_after_the_grace(
    make_backend: Any, tools: Any, root: Path
) -> None:
    ids = await staged_only(make_backend, tools, "dead")
    dead_owner(root, ids[0])
    async with make_backend(grace_s=2) as ce:
        result = await ce.status(ids)
        assert {f.code for f in result.failures.values()} == {FailureCode.NOT_NOW}
        assert (await ce.counts()).waiting == 2
        assert set(await tools.finish(ce, ids)) == {JobStatus.FINISHED_UNKNOWN}
        (await ce.purge(ids)).raise_for_failures()


async def test_an_attempt_whose_owner_died_before_it_said_who_it_was_counts_as_lost(
    make_backend: Any, tools: Any, root: Path
) -> None:
    ids = await staged_only(make_backend, tools, "torn")
    attempt = root / ids[0].split("/")[1] / "attempt"
    attempt.mkdir()
    (attempt / "owner").write_text("")
    async with make_backend() as ce:
        failures = (await ce.status(ids)).failures
        assert {f.code for f in failures.values()} == {FailureCode.NOT_NOW}
        os.utime(attempt, (0, 0))
        assert set(await tools.finish(ce, ids)) == {JobStatus.FINISHED_UNKNOWN}


class Lists(DirectScheduler):
    """Direct, whose list also tells of an attempt that lost its answer."""

    def __init__(self) -> None:
        super().__init__(DirectConfig(slots=2))
        self.listed: dict[str, tuple[str, int | None, JobStatus]] = {}
        self.asked: list[str] = []

    def parse_list(
        self, results: Sequence[CommandResult]
    ) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        return {**super().parse_list(results), **self.listed}

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        self.asked.extend(job.id for job in jobs)
        return super().status_commands(jobs)


async def test_native_ids_of_a_lost_attempt_are_learnt_from_the_list_by_its_mark(
    make_backend: Any, tools: Any, root: Path
) -> None:
    ids = await staged_only(make_backend, tools, "listed", copies=11)
    dead_owner(root, ids[0])
    submission = ids[0].split("/")[1]
    scheduler = Lists()
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        mark, running = f"intercede:here:{submission}", JobStatus.RUNNING
        # Those before them have left the queue; the native ids need not count up with the copies.
        scheduler.listed = {"s.7": (mark, 10, running), "s.9": (mark, 2, running)}
        failures = (await ce.status([ids[10], ids[1], ids[2]])).failures
        assert scheduler.asked == ["s.7", "s.9"]
        assert "does not list it yet" in failures[ids[1]].message


@pytest.mark.parametrize(
    "rows",
    [
        {"s.7": None},
        {"s.7": 0, "s.8": 0},
        {"$(touch hacked)": 0},
    ],
    ids=["which does not tell its copy", "whose copy another claims", "whose id is none"],
)
async def test_a_listed_job_is_not_learnt(
    make_backend: Any, tools: Any, root: Path, rows: Mapping[str, int | None]
) -> None:
    ids = await staged_only(make_backend, tools, "listed", copies=1)
    dead_owner(root, ids[0])
    scheduler = Lists()
    async with make_backend(scheduler=scheduler, grace_s=60) as ce:
        mark = f"intercede:here:{ids[0].split('/')[1]}"
        scheduler.listed = {
            native: (mark, copy, JobStatus.RUNNING) for native, copy in rows.items()
        }
        assert (await ce.status(ids)).failures[ids[0]].code is FailureCode.NOT_NOW
        assert scheduler.asked == []


async def test_a_list_that_cannot_be_read_neither_loses_nor_cancels_a_job(
    make_backend: Any, tools: Any, root: Path
) -> None:
    class Mute(Lists):
        def parse_list(
            self, results: Sequence[CommandResult]
        ) -> Mapping[str, tuple[str, int | None, JobStatus]]:
            raise ResourceError("no daemon")

    ids = await staged_only(make_backend, tools, "mute")
    dead_owner(root, ids[0])
    async with make_backend(scheduler=Mute(), grace_s=0.1) as ce:
        killed = await ce.kill(ids[:1])
        assert "no daemon" in killed.failures[ids[0]].message
        for _ in range(2):
            failures = (await ce.status(ids)).failures
            assert [failures[job].code for job in ids] == [FailureCode.NOT_NOW] * 2
            assert "no daemon" in failures[ids[1]].message
            await anyio.sleep(1.1)


async def test_a_job_without_native_id_whose_record_is_garbage_has_ended(
    make_backend: Any, tools: Any, root: Path
) -> None:
    ids = await staged_only(make_backend, tools, "torn")
    dead_owner(root, ids[0])
    (root / ids[0].split("/")[1] / "0" / "exit").write_text("garbage\n")
    async with make_backend(grace_s=60) as ce:
        assert (await ce.status(ids[:1]))[ids[0]] is JobStatus.FINISHED_UNKNOWN


async def test_a_job_that_runs_for_longer_than_the_grace_is_not_lost_for_lack_of_a_native_id(
    make_backend: Any, tools: Any
) -> None:
    """That it left the queue is not known of a job whose native id had to be learnt first."""
    async with make_backend(grace_s=1.0) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 3")))
        bare = [JobID(job.rpartition("/")[0]) for job in ids]
        while not (await ce.status(ids))[ids[0]].is_finished:
            await ce.status(bare)
            await anyio.sleep(0.1)
        assert (await ce.status(ids))[ids[0]] is JobStatus.SUCCESSFUL
        assert (await ce.status(bare))[bare[0]] is JobStatus.SUCCESSFUL


async def test_an_uncertain_job_is_killed_once_its_native_id_is_learnt(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire(cut=lambda number: "after" if number >= 3 else None)
    async with make_backend(wire, submit_deadline_s=0.2) as ce:
        with pytest.raises(SubmitUncertain) as caught:
            await ce.submit(tools.script("sleep 300", tag="k"), 2)
        wire.cut = lambda number: None
        ids = tools.ids_of(caught.value.handles)
        await tools.until(ce, ids, JobStatus.RUNNING)
        (await ce.kill(ids)).raise_for_failures()
        assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}
        assert [h.copy for h in await ce.find("k")] == [0, 1]


@pytest.mark.parametrize("error", [Unreachable("gone"), AuthenticationError("expired")])
async def test_a_submit_that_certainly_did_not_arrive_raises_what_happened(
    make_backend: Any, tools: Any, error: Exception
) -> None:
    wire = tools.Wire()

    def fail(number: int) -> None:
        if number == 3:
            raise error

    wire.cut = fail
    async with make_backend(wire) as ce:
        with pytest.raises(type(error), match=r"^here: submit: "):
            await ce.submit(tools.script("exit 0", tag="x"))
        assert await ce.find("x") == ()


async def test_a_staging_that_was_lost_may_have_run_and_no_job_may(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire(cut=lambda number: "after" if number == 2 else None)
    async with make_backend(wire) as ce:
        with pytest.raises(ConnectionLost, match="cut after it ran") as caught:
            await ce.submit(tools.script("exit 0", tag="x"))
        assert caught.value.may_have_run is False
        assert await ce.find("x") == ()


async def test_a_submit_without_an_answer_ends_with_its_deadline(
    make_backend: Any, tools: Any
) -> None:
    class Silent(DirectScheduler):
        def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
            return [Command(("sleep", "30"))]

    async with make_backend(scheduler=Silent(DirectConfig(slots=1)), submit_deadline_s=1) as ce:
        began = time.monotonic()
        with pytest.raises(SubmitUncertain):
            await ce.submit(tools.script("exit 0"))
        assert time.monotonic() - began < 10


async def test_a_submit_that_never_gets_through_gives_up_at_its_deadline(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire(cut=lambda number: "before" if 3 <= number <= 4 else None)
    async with make_backend(wire, submit_deadline_s=0.1) as ce:
        with pytest.raises(ConnectionLost, match="before anything was sent"):
            await ce.submit(tools.script("exit 0", tag="x"))
        assert await ce.find("x") == ()


async def test_an_answer_that_was_cut_during_a_submit_is_looked_up(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire()
    run = wire.inner.run

    async def cut(command: Command) -> CommandResult:
        result = await run(command)
        if wire.execs == 3:
            return CommandResult(0, result.stdout[: len(result.stdout) // 2])
        return result  # type: ignore[no-any-return]  # of a test's wire

    wire.inner.run = cut
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0", tag="once"), 2))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL] * 2


class Odd(DirectScheduler):
    """Direct, with native ids made up: what it says that it has not got does not run either."""

    def __init__(self, natives: Mapping[int, str | Failure]) -> None:
        super().__init__(DirectConfig(slots=2))
        self.natives = natives

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        return [Command(("true",))]

    def parse_submit(
        self, batch: StagedBatch, results: Sequence[CommandResult]
    ) -> Mapping[int, str | Failure]:
        return self.natives


async def test_a_native_id_that_is_none_and_a_copy_without_an_answer_are_failures(
    make_backend: Any, tools: Any
) -> None:
    refused = Failure(FailureCode.REFUSED, "no")
    async with make_backend(scheduler=Odd({0: "$(id)", 1: "s.1", 2: refused})) as ce:
        submission = await ce.submit(tools.script("exit 0", tag="odd"), 4)
        assert [handle.copy for handle in submission.handles] == [1]
        assert set(submission.failures) == {0, 2, 3}
        assert "'$(id)'" in submission.failures[0].message
        assert submission.failures[2] is refused
        assert "says nothing about this copy" in submission.failures[3].message
        assert [h.copy for h in await ce.find("odd")] == [1]
        bare = JobID(f"here/{submission.id}/2")
        assert (await ce.details([bare])).failures[bare].code is FailureCode.NO_SUCH_JOB


class Powerless(DirectScheduler):
    """Direct, whose kill does nothing, like scancel, which is silent about it."""

    def __init__(self) -> None:
        super().__init__(DirectConfig(slots=2))
        self.is_mute = False

    def kill_commands(self, jobs: Any) -> Sequence[Command]:
        return [Command(("true",))]

    def status_commands(self, jobs: Any) -> Sequence[Command]:
        return [Command(("false",))] if self.is_mute else super().status_commands(jobs)


async def test_a_kill_without_effect_is_a_failure_whatever_the_command_says(
    make_backend: Any, tools: Any, root: Path
) -> None:
    scheduler = Powerless()
    async with make_backend(scheduler=scheduler) as ce, make_backend() as other:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300")))
        # A job that has been chosen runs; one whose payload has not started yet sees the mark and does not start.
        with anyio.fail_after(20):
            while not (root / ids[0].split("/")[1] / "0" / "stdout").exists():
                await anyio.sleep(0.02)
        failure = (await ce.kill(ids)).failures[ids[0]]
        assert failure.code is FailureCode.NOT_NOW
        assert "still RUNNING" in failure.message
        scheduler.is_mute = True
        assert (await ce.kill(ids)).failures[ids[0]].code is FailureCode.NOT_NOW
        (await other.kill(ids)).raise_for_failures()


async def test_a_kill_that_cannot_leave_its_mark_says_so(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exec sleep 300")))
        await tools.until(ce, ids, JobStatus.RUNNING)
        submission = root / ids[0].split("/")[1]
        marks = [submission / "0" / "cancel", submission / "cancel"]
        for mark in marks:
            mark.mkdir()
        failure = (await ce.kill(ids)).failures[ids[0]]
        assert "cannot be written" in failure.message
        for mark in marks:
            mark.rmdir()
        (await ce.kill(ids)).raise_for_failures()


async def test_a_kill_of_all_that_is_there_leaves_one_mark_that_reaches_those_that_wait(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend(slots=1) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 3))
        await tools.until(ce, ids[:1], JobStatus.RUNNING)
        (await ce.kill(ids)).raise_for_failures()
        submission = root / ids[0].split("/")[1]
        assert [str(mark.relative_to(submission)) for mark in submission.rglob("cancel")] == [
            "cancel"
        ]
        assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}
        again = await ce.kill(ids)
        again.raise_for_failures()
        assert all(outcome.note for outcome in again.values())
        assert (await ce.counts()) == JobCounts(running=0, waiting=0)


async def test_a_kill_of_some_does_not_reach_the_others(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend(slots=1) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 0.5"), 3))
        (await ce.kill(ids[:2])).raise_for_failures()
        assert not (root / ids[0].split("/")[1] / "cancel").exists()
        assert await tools.finish(ce, ids) == [
            JobStatus.CANCELLED,
            JobStatus.CANCELLED,
            JobStatus.SUCCESSFUL,
        ]


async def test_a_kill_of_what_is_left_does_not_change_what_was_lost(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 2))
        await tools.until(ce, ids, JobStatus.RUNNING)
        submission = root / ids[0].split("/")[1]
        (submission / "0" / "lost").touch()
        (await ce.kill(ids)).raise_for_failures()
        assert not (submission / "cancel").exists()
        assert await tools.finish(ce, ids[1:]) == [JobStatus.CANCELLED]
        # Its processes, which this test left alone, are nobody's any more.
        (submission / "0" / "lost").unlink()
        (await ce.kill(ids)).raise_for_failures()


async def test_one_foreign_id_does_not_keep_the_others_from_being_killed(
    make_backend: Any, tools: Any
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 2))
        foreign = JobID("here/" + "0" * 26 + "/0/" + "0" * 26 + ".0")
        result = await ce.kill([foreign, *ids])
        assert list(result.failures) == [foreign]
        assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}


async def test_what_cannot_be_removed_is_told(make_backend: Any, tools: Any, root: Path) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("mkdir busy"), 2))
        await tools.finish(ce, ids)
        busy = root / ids[0].split("/")[1] / "0" / "work" / "busy"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(busy)], check=False)
        if mounted.returncode:
            pytest.skip("mounting takes root")
        try:
            result = await ce.purge(ids)
        finally:
            subprocess.run(["umount", "-l", str(busy)], check=True)
        assert list(result.failures) == [ids[0]]
        assert "busy" in result.failures[ids[0]].message.lower()
        (await ce.purge(ids)).raise_for_failures()


@pytest.mark.parametrize("given", ["~/boxes", "boxes", "~"])
async def test_a_root_is_relative_to_the_home_directory(
    make_backend: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with make_backend(root=given) as ce:
        submission = await ce.submit(tools.script("exit 0"))
        await tools.finish(ce, tools.ids_of(submission))
    place = tmp_path if given == "~" else tmp_path / "boxes"
    assert (place / submission.id).is_dir()
    for pid in Path("/proc").iterdir():
        if pid.name.isdigit():
            try:
                assert not (pid / "cwd").readlink().is_relative_to(tmp_path)
            except OSError:
                continue


def test_a_root_on_two_lines_is_refused(make_backend: Any) -> None:
    with pytest.raises(ValueError, match="one line"):
        make_backend(root="/tmp/a\nb")


async def test_every_submission_that_vanished_is_no_such_job(
    make_backend: Any, tools: Any, root: Path, tmp_path: Path
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0", tag="v"), 2))
        await tools.finish(ce, ids)
        subprocess.run(["rm", "-r", str(root / ids[0].split("/")[1])], check=True)
        for call in (ce.status, ce.kill, ce.diagnostics):
            result = await call(ids)
            assert {f.code for f in result.failures.values()} == {FailureCode.NO_SUCH_JOB}
        subprocess.run(["rm", "-r", str(root)], check=True)
        bare = [JobID(job.rpartition("/")[0]) for job in ids]
        for asked in (ids, bare):
            for call in (ce.status, ce.kill, ce.diagnostics):
                result = await call(asked)
                assert {f.code for f in result.failures.values()} == {FailureCode.NO_SUCH_JOB}
            outputs = await ce.fetch_output(asked, tmp_path / "out")
            assert {f.code for f in outputs.failures.values()} == {FailureCode.NO_SUCH_JOB}
        assert await ce.find("v") == ()
        assert (await ce.counts()).waiting == 0


async def test_a_probe_without_an_answer_is_tried_again_by_the_next_call(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire()
    run = wire.inner.run

    async def nothing(command: Command) -> CommandResult:
        return CommandResult(255, b"", b"bash: eval: not found")

    wire.inner.run = nothing
    async with make_backend(wire) as ce:
        with pytest.raises(ResourceError, match="the answer was cut") as caught:
            await ce.counts()
        assert caught.value.said == "bash: eval: not found"
        wire.inner.run = run
        assert (await ce.counts()).running == 0
        assert repr(ce) == "<BatchBackend 'here'>"
