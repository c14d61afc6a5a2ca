"""Connections that break, schedulers that answer nonsense, disks that are full: nothing lost, nothing doubled, one clear error."""

import os
import random
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.core import (
    ClosedError,
    Command,
    CommandResult,
    ConnectionLost,
    CopyVars,
    Facts,
    FailureCode,
    FileRef,
    InterCEdeError,
    JobDetails,
    JobStatus,
    NativeJob,
    OutputSpec,
    ResourceError,
    Results,
    SpecRefused,
    StagedBatch,
    SubmissionSpec,
    SubmitUncertain,
    Unreachable,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 4))
async def test_a_submit_that_lost_its_connection_is_done_once_or_not_at_all(
    make_backend: Any, tools: Any, tmp_path: Path, when: str, number: int
) -> None:
    """Exec 1 is the probe, 2 stages, 3 submits."""
    ledger = tmp_path / "ledger"
    wire = tools.Wire(cut=lambda n: when if n == number else None)
    spec = tools.script('echo "$INTERCEDE_JOB" >> "$1"', str(ledger), tag="cut")
    async with make_backend(wire) as ce:
        try:
            submission = await ce.submit(spec, 3)
        except ConnectionLost as error:
            assert number < 3
            assert error.resource == "here"
            assert error.operation == "submit"
            assert await ce.find("cut") == ()
            assert (await ce.counts()).waiting == 0
            submission = await ce.submit(spec, 3)
        assert len(submission.handles) == 3
        ids = tools.ids_of(submission)
        assert set(await tools.finish(ce, ids)) == {JobStatus.SUCCESSFUL}
        assert [handle.id for handle in await ce.find("cut")] == ids
    lines = ledger.read_text().split()
    assert len(lines) == len(set(lines)) == 3


async def test_every_call_survives_a_lost_connection(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("echo 1", tag="x"), 2))
        await tools.finish(ce, ids)
        calls = {
            "status": lambda: ce.status(ids),
            "details": lambda: ce.details(ids),
            "counts": ce.counts,
            "find": lambda: ce.find("x"),
            "diagnostics": lambda: ce.diagnostics(ids),
            "fetch_output": lambda: ce.fetch_output(ids, tmp_path / "out"),
            "kill": lambda: ce.kill(ids),
            "purge": lambda: ce.purge(ids),
        }
        for name, call in calls.items():
            for when in ("before", "after"):
                number = wire.execs + 1
                wire.cut = lambda n, number=number, when=when: when if n == number else None
                try:
                    await call()
                except ConnectionLost as error:
                    assert str(error).startswith(f"here: {name}: ")
            await call()
        assert (await ce.status(ids)).failures[ids[0]].code is FailureCode.NO_SUCH_JOB


class Broken(DirectScheduler):
    """Direct, with answers replaced."""

    def __init__(self, verb: str, answer: Sequence[str]) -> None:
        super().__init__(DirectConfig(slots=4))
        self.verb = verb
        self.answer = answer

    def _replace(self, verb: str, commands: Sequence[Command]) -> Sequence[Command]:
        return [Command(tuple(self.answer))] if verb == self.verb else commands

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return self._replace("status", super().status_commands(jobs))

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        return self._replace("list", super().list_commands(mark_prefix))

    def submit_commands(self, batch: Any, facts: Any) -> Sequence[Command]:
        return self._replace("submit", super().submit_commands(batch, facts))

    def probe_commands(self, queue: str | None) -> Sequence[Command]:
        return self._replace("probe", super().probe_commands(queue))


NONSENSE = [
    ("true",),
    ("false",),
    ("echo", "direct"),
    ("printf", "direct\\nend"),
    ("sh", "-c", "echo garbage; exit 1"),
    ("sh", "-c", "head -c 1000 /dev/urandom"),
    ("sh", "-c", "kill -9 $$"),
    ("no-such-command",),
]


@pytest.mark.parametrize("answer", NONSENSE, ids=" ".join)
async def test_a_queue_that_answers_nonsense_is_not_now_for_every_job(
    make_backend: Any, tools: Any, answer: Sequence[str]
) -> None:
    scheduler = Broken("none", answer)
    async with make_backend(scheduler=scheduler) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 3"), 2))
        await tools.finish(ce, ids)
        scheduler.verb = "status"
        for _ in range(4):
            result = await ce.status(ids)
            assert set(result.values()) == {JobStatus.UNKNOWN}
            assert {f.code for f in result.failures.values()} == {FailureCode.NOT_NOW}
        killed = await ce.kill(ids)
        assert {o.note for o in killed.values()} == {"it had ended already"}
        scheduler.verb = "list"
        with pytest.raises(ResourceError, match="here: counts: "):
            await ce.counts()
        scheduler.verb = "none"
        assert set((await ce.status(ids)).values()) == {JobStatus.FAILED}


async def test_an_unreadable_answer_to_a_submit_is_uncertain_and_never_tried_again(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    scheduler = Broken("submit", ("sh", "-c", f"echo called >> {tmp_path}/calls; echo garbage"))
    async with make_backend(scheduler=scheduler) as ce:
        with pytest.raises(SubmitUncertain, match="do not submit again") as caught:
            await ce.submit(tools.script("exit 0", tag="u"), 2)
        assert (tmp_path / "calls").read_text() == "called\n"
        handles = caught.value.handles
        assert [handle.copy for handle in handles] == [0, 1]
        assert await ce.find("u") == handles
        ids = tools.ids_of(handles)
        assert {f.code for f in (await ce.status(ids)).failures.values()} <= {FailureCode.NOT_NOW}
        # The scheduler lists none of them: after the grace they count as lost, not as finished in any way.
        assert set(await tools.finish(ce, ids)) == {JobStatus.FINISHED_UNKNOWN}
        (await ce.purge(ids)).raise_for_failures()


async def test_an_attempt_without_an_answer_in_time_is_uncertain(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire(cut=lambda n: "after" if n >= 3 else None)
    async with make_backend(wire, submit_deadline_s=0.5) as ce:
        with pytest.raises(SubmitUncertain) as caught:
            await ce.submit(tools.script("exit 0"), 2)
        wire.cut = lambda n: None
        ids = tools.ids_of(caught.value.handles)
        assert all(len(job.split("/")) == 3 for job in ids)
        assert set(await tools.finish(ce, ids)) == {JobStatus.SUCCESSFUL}
        assert (await ce.kill(ids))[ids[0]].note == "it had ended already"


async def test_a_refused_submission_leaves_nothing(
    make_backend: Any, tools: Any, root: Path
) -> None:
    refusal = "echo direct; echo no such partition >&2; echo end"
    async with make_backend(scheduler=Broken("submit", ("sh", "-c", refusal))) as ce:
        submission = await ce.submit(tools.script("exit 0", tag="r"), 2)
        assert submission.handles == ()
        assert {f.code for f in submission.failures.values()} == {FailureCode.REFUSED}
        assert "no such partition" in submission.failures[0].message
        assert await ce.find("r") == ()
    assert os.listdir(root) == []


async def test_a_job_without_a_record_of_its_end_is_not_finished_before_the_grace(
    make_backend: Any, tools: Any, root: Path, tmp_path: Path
) -> None:
    async with make_backend(grace_s=2) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0")))
        await tools.finish(ce, ids)
        _, submission, copy, _ = ids[0].split("/")
        record = root / submission / copy / "exit"
        text = record.read_text()
        record.unlink()
        result = await ce.status(ids)
        assert result[ids[0]] is JobStatus.UNKNOWN
        assert result.failures[ids[0]].code is FailureCode.NOT_NOW
        # The file system catches up.
        record.write_text(text)
        assert (await ce.status(ids))[ids[0]] is JobStatus.SUCCESSFUL
        record.unlink()
        assert await tools.finish(ce, ids) == [JobStatus.FINISHED_UNKNOWN]
        # What appears after that is not believed: a finished status never changes.
        record.write_text(text)
        assert (await ce.status(ids))[ids[0]] is JobStatus.FINISHED_UNKNOWN
        record.unlink()
        assert (await ce.fetch_output(ids, tmp_path / "out"))[ids[0]].stdout is not None
        (await ce.purge(ids)).raise_for_failures()


@pytest.mark.parametrize("text", ["", "code=0", "code=999 end\n", "x" * 10_000, "\0\0\n"])
async def test_a_forged_record_spoils_only_its_own_job(
    make_backend: Any, tools: Any, root: Path, text: str
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0"), 3))
        await tools.finish(ce, ids)
        (root / ids[1].split("/")[1] / "1" / "exit").write_text(text)
        statuses = await tools.finish(ce, ids)
    assert statuses == [
        JobStatus.SUCCESSFUL,
        JobStatus.FINISHED_UNKNOWN,
        JobStatus.SUCCESSFUL,
    ]


async def test_a_root_that_is_a_link_is_refused(
    make_backend: Any, tools: Any, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    async with make_backend() as ce:
        with pytest.raises(ResourceError, match="is a symbolic link; configure another root"):
            await ce.submit(tools.script("exit 0"))
        with pytest.raises(ResourceError, match="is a symbolic link"):
            await ce.counts()
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_root_of_somebody_elses_is_refused(
    make_backend: Any, tools: Any, root: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a directory of somebody else's")
    root.mkdir()
    os.chown(root, 1, 1)
    async with make_backend() as ce:
        with pytest.raises(ResourceError, match="belongs to somebody else"):
            await ce.submit(tools.script("exit 0"))


async def test_a_root_that_cannot_be_made_is_one_clear_error(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    async with make_backend(root=str(tmp_path / "file" / "root")) as ce:
        with pytest.raises(ResourceError, match="here: submit: the sandbox root is refused"):
            await ce.submit(tools.script("exit 0"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=2000", "tmpfs", str(path)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("tar", ["gnu", "other", "none"], indirect=True)
async def test_a_full_sandbox_file_system_is_one_clear_error_and_nothing_stays(
    make_backend: Any, tools: Any, small_disk: Path, tar: str
) -> None:
    root = small_disk / "root"
    spec = tools.script("exit 0", inputs=[FileRef("big", content=bytes(2 * 2**20))], tag="full")
    async with make_backend(root=str(root)) as ce:
        with pytest.raises(ResourceError, match="No space left on device") as caught:
            await ce.submit(spec)
        assert str(caught.value).startswith("here: submit: the sandbox could not be made")
        assert "its file system is full; make room there" in str(caught.value)
        assert await ce.find("full") == ()
        assert os.listdir(root) == []
        # And there is room for a job that fits.
        ids = tools.ids_of(await ce.submit(tools.script("exit 0")))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL]


async def test_a_job_that_fills_the_disk_still_tells_how_it_ended(
    make_backend: Any, tools: Any, small_disk: Path
) -> None:
    async with make_backend(root=str(small_disk / "root")) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 0.5; cat /dev/zero > big; exit 5")))
        assert await tools.finish(ce, ids) == [JobStatus.FAILED]
        assert (await ce.details(ids))[ids[0]].exit_code == 5
        (await ce.purge(ids)).raise_for_failures()


async def test_a_scheduler_answer_that_was_not_kept_is_uncertain_and_the_job_is_followed(
    make_backend: Any, tools: Any, root: Path
) -> None:
    """The payload was faster and filled the disk."""
    wire = tools.Wire()

    def forget(number: int) -> str | None:
        if number == 4:
            for code in root.glob("*/attempt/0.code"):
                code.write_text("")
        return "after" if number == 3 else None

    wire.cut = forget
    async with make_backend(wire) as ce:
        with pytest.raises(SubmitUncertain, match="was not kept") as caught:
            await ce.submit(tools.script("exit 5", tag="kept"), 2)
        ids = tools.ids_of(caught.value.handles)
        assert [handle.id for handle in await ce.find("kept")] == ids
        assert await tools.finish(ce, ids) == [JobStatus.FAILED] * 2
        assert (await ce.details(ids))[ids[0]].exit_code == 5


async def test_a_full_disk_at_dest_fails_the_job_that_does_not_fit_and_leaves_nothing_of_it(
    make_backend: Any, tools: Any, small_disk: Path
) -> None:
    spec = tools.script('head -c "$SIZE" /dev/zero > data', outputs=OutputSpec(["data"]))
    dest = small_disk / "dest"
    copies = [CopyVars(environment={"SIZE": size}) for size in ("1000", "3000000", "2000")]
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(spec, copies))
        await tools.finish(ce, ids)
        outputs = await ce.fetch_output(ids, dest)
        assert list(outputs.failures) == [ids[1]]
        assert "No space left on device" in outputs.failures[ids[1]].message
        assert [o.files["data"].stat().st_size for o in outputs.values() if o.files] == [1000, 2000]
        assert sorted(os.listdir(next(dest.iterdir()))) == ["0", "2"]
        shutil.rmtree(dest)
        (small_disk / "file").write_text("")
        with pytest.raises(OSError, match="Not a directory"):
            await ce.fetch_output(ids, small_disk / "file" / "dest")


async def test_an_input_that_changes_while_it_is_read_fails_the_submission(
    make_backend: Any, tools: Any, tmp_path: Path, root: Path
) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(bytes(3 * 2**20))
    wire = tools.Wire()

    def grow(number: int) -> None:
        with growing.open("ab") as file:
            file.write(b"more")

    wire.cut = grow
    async with make_backend(wire) as ce:
        await ce.counts()
        with pytest.raises(SpecRefused, match="changed while it was read") as caught:
            await ce.submit(tools.script("exit 0", inputs=[FileRef("x", source=growing)], tag="g"))
        assert caught.value.field == "inputs[0].source"
        assert await ce.find("g") == ()
    assert [name for name in os.listdir(root) if name != ".direct"] == []


async def test_calls_cancelled_at_any_moment_leave_the_backend_usable_and_no_process(
    make_backend: Any, tools: Any, tmp_path: Path, root: Path
) -> None:
    chance = random.Random(7)
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        ids = tools.ids_of(
            await ce.submit(tools.script("seq 1000 > a", outputs=OutputSpec(["a"])), 3)
        )
        await tools.finish(ce, ids)
        descriptors = len(os.listdir("/proc/self/fd"))
        calls = [
            lambda: ce.status(ids),
            lambda: ce.fetch_output(ids, tmp_path / "out"),
            lambda: ce.diagnostics(ids),
            lambda: ce.submit(tools.script("exit 0", tag="cancelled")),
            ce.counts,
        ]
        for _ in range(8):
            for call in calls:
                with anyio.move_on_after(chance.uniform(0, 0.03)):
                    await call()
        tagged = tools.ids_of(await ce.find("cancelled"))
        (await ce.kill(tagged)).raise_for_failures()
        await tools.finish(ce, tagged)
        assert set((await ce.status(ids)).values()) == {JobStatus.SUCCESSFUL}
        assert (await ce.counts()).running == 0
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert not list((tmp_path / "out").glob(".intercede-*"))
    # Workers end when the queue is empty; nothing else may be left.
    with anyio.fail_after(10):
        while _processes_in(root):
            await anyio.sleep(0.1)


def _processes_in(root: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(root):
                found.append((entry / "cmdline").read_text()[:80])
        except OSError:
            continue
    return found


async def test_the_first_to_connect_may_be_cancelled_without_failing_the_others(
    make_backend: Any, tools: Any
) -> None:
    async with make_backend(
        tools.Wire(shell=("sh", "-c", 'sleep 0.3; exec sh -c "$1"', "sh"))
    ) as ce:
        ce._host.transport.shell = ("env", "sh")
        done = []

        async def count() -> None:
            done.append(await ce.counts())

        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(0.001) as first:
                tasks.start_soon(count)
                tasks.start_soon(count)
                await ce.counts()
        assert first.cancelled_caught
        assert len(done) == 2


async def test_after_close_every_call_says_so(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    ce = make_backend()
    async with ce:
        await ce.counts()
    await ce.aclose()
    for call in (
        lambda: ce.submit(tools.script("exit 0")),
        lambda: ce.status([]),
        lambda: ce.find("x"),
        ce.counts,
        lambda: ce.fetch_output([], tmp_path),
    ):
        with pytest.raises(ClosedError, match="'here' is closed"):
            await call()


def test_a_backend_of_another_loop_is_a_clear_error(make_backend: Any) -> None:
    ce = make_backend()
    anyio.run(ce.counts)
    with pytest.raises(ClosedError, match="another event loop"):
        anyio.run(ce.counts)


async def test_an_unreachable_host_is_told_with_nothing_submitted(
    make_backend: Any, tools: Any
) -> None:
    wire = tools.Wire()

    async def unreachable(command: Command) -> CommandResult:
        raise Unreachable("no route to host")

    wire.inner.run = unreachable
    async with make_backend(wire) as ce:
        for call in (lambda: ce.submit(tools.script("exit 0")), ce.counts):
            with pytest.raises(Unreachable, match=r"^here: (submit|counts): no route to host"):
                await call()


class OwnFiles(DirectScheduler):
    stages_own_files = True


def test_a_scheduler_that_carries_its_own_files_is_refused(tools: Any) -> None:
    with pytest.raises(InterCEdeError, match="carries its files itself"):
        BatchBackend(BatchConfig(), "x", tools.Wire(), OwnFiles())


class Historian(DirectScheduler):
    """Direct, with a history."""

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return [Command(("sh", "-c", "cat history; exit 0"))]

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Sequence[CommandResult]
    ) -> Mapping[NativeJob, JobDetails]:
        if not results[0].stdout:
            raise ResourceError("no history")
        return {
            job: JobDetails(JobStatus.FAILED, reason=results[0].stdout.decode()) for job in jobs
        }


async def test_history_is_asked_only_for_a_job_without_a_record_and_believed_then(
    make_backend: Any, tools: Any, root: Path
) -> None:
    wire = tools.Wire()
    async with make_backend(wire, scheduler=Historian(DirectConfig(slots=2)), grace_s=60) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0"), 2))
        await tools.finish(ce, ids)
        (root / ids[0].split("/")[1] / "0" / "exit").unlink()
        assert [s.value for s in (await ce.status(ids)).values()] == ["unknown", "successful"]
        (root / "history").write_text("NODE_FAIL")
        details = await ce.details(ids)
        assert [d.status.value for d in details.values()] == ["failed", "successful"]
        assert details[ids[0]].reason == "NODE_FAIL"


async def test_signals_to_the_group_of_the_submitter_do_not_end_jobs(
    make_backend: Any, tools: Any, root: Path
) -> None:
    """Ctrl-C at a terminal goes to all of the foreground's process group."""
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 1; exit 6")))
        await tools.until(ce, ids, JobStatus.RUNNING)
        place = root / ids[0].split("/")[1] / "0" / "start"
        while not place.exists():
            await anyio.sleep(0.02)
        runner = int(place.read_text().split()[2])
        assert os.getpgid(runner) != os.getpgid(0)
        assert os.getsid(runner) != os.getsid(0)
        await tools.finish(ce, ids)
        assert (await ce.details(ids))[ids[0]].exit_code == 6


class Scripts(DirectScheduler):
    """Direct, which says what it says in a script on standard input; and takes two copies."""

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        if len(batch.copies) > 2:
            raise SpecRefused("copies", f"{len(batch.copies)} exceed the limit of 2")
        (command,) = super().submit_commands(batch, facts)
        return [Command(("sh",), stdin=f"# job\n{shlex.join(command.argv)}\n".encode())]


async def test_what_depends_on_the_number_of_copies_is_refused_before_anything_is_staged(
    make_backend: Any, tools: Any, root: Path
) -> None:
    wire = tools.Wire()
    async with make_backend(wire, scheduler=Scripts(DirectConfig(slots=1))) as ce:
        for call in (ce.submit, ce.dry_run):
            with pytest.raises(SpecRefused, match="3 exceed the limit of 2"):
                await call(tools.script("exit 0"), 3)
        assert wire.execs == 1
        assert not root.exists()


class Opening(DirectScheduler):
    """Direct on a host whose queues are closed when it is first asked."""

    def __init__(self) -> None:
        super().__init__(DirectConfig(slots=1))
        self.asked = 0

    def parse_probe(self, results: Results) -> Facts:
        self.asked += 1
        return {**super().parse_probe(results), "open": int(self.asked > 1)}

    def check(self, spec: SubmissionSpec, facts: Facts) -> None:
        if not facts["open"]:
            raise SpecRefused("resources.queue", "it is closed")


async def test_a_refusal_is_not_believed_of_what_was_asked_long_ago(
    make_backend: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Opening()
    async with make_backend(scheduler=scheduler) as ce:
        for _ in range(2):
            with pytest.raises(SpecRefused, match="it is closed"):
                await ce.submit(tools.script("exit 0"))
        assert scheduler.asked == 1
        monkeypatch.setattr("intercede.backend.batch._host._FRESH_S", 0.0)
        ids = tools.ids_of(await ce.submit(tools.script("exit 0")))
        assert scheduler.asked == 2
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL]


async def test_a_dry_run_shows_the_very_script_that_is_given_to_the_scheduler(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend(scheduler=Scripts(DirectConfig(slots=1))) as ce:
        spec = tools.script("exit 0")
        shown = await ce.dry_run(spec, 2)
        ids = tools.ids_of(await ce.submit(spec, 2))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL] * 2
    assert shown.command == "sh"
    name = Path(shown.details["directory"]).name
    given = (root / ids[0].split("/")[1] / "attempt/0.in").read_bytes()
    assert shown.files["attempt/0.in"] == given.replace(
        ids[0].split("/")[1].encode(), name.encode()
    )
