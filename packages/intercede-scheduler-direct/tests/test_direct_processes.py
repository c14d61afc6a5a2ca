"""Direct on this machine, through batch: slots, workers that die, processes that hide."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.core import (
    CopyVars,
    FailureCode,
    JobID,
    JobStatus,
    Resources,
    Submission,
    SubmissionSpec,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler
from intercede.transport.local import LocalTransport

SLOTS = 2


def make(root: Path, slots: int | None = SLOTS, grace_s: float = 1) -> BatchBackend:
    return BatchBackend(
        BatchConfig(root=str(root), grace_s=grace_s),
        "here",
        LocalTransport(),
        DirectScheduler(DirectConfig(slots=slots)),
    )


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "root"
    yield path
    for pid in processes_in(path):
        end(pid)


@pytest_asyncio.fixture
async def ce(root: Path) -> AsyncIterator[BatchBackend]:
    async with make(root) as backend:
        yield backend


def end(pid: int) -> None:
    """Kill a process that may just have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def script(text: str, *arguments: str, wall_time_s: int | None = None) -> SubmissionSpec:
    return SubmissionSpec(
        "/bin/sh",
        resident=True,
        arguments=["-c", text, "sh", *arguments],
        resources=Resources(wall_time_s=wall_time_s),
    )


def ids_of(submission: Submission) -> list[JobID]:
    submission.raise_for_failures()
    return [handle.id for handle in submission.handles]


def processes_in(root: Path) -> list[int]:
    """Processes whose working directory is beneath the root: workers, runners, payloads."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(root):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def workers(root: Path) -> list[int]:
    """The processes that the slots name."""
    found = []
    for slot in (root / ".direct" / os.uname().nodename / "slots").iterdir():
        words = slot.read_text().split()
        if words:
            found.append(int(words[0]))
    return found


def runner(root: Path, job: JobID) -> int:
    """The process that runs the job's payload."""
    _, submission, copy, _ = job.split("/")
    start = root / submission / copy / "start"
    while not start.exists():
        time.sleep(0.01)
    return int(start.read_text().split()[2])


def payload_of(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0])


async def finish(ce: BatchBackend, ids: Sequence[JobID], within_s: float = 30) -> list[JobStatus]:
    with anyio.fail_after(within_s):
        while True:
            statuses = list((await ce.status(ids)).values())
            if all(status.is_finished for status in statuses):
                return statuses
            await anyio.sleep(0.05)


async def until(ce: BatchBackend, ids: Sequence[JobID], status: JobStatus) -> None:
    with anyio.fail_after(20):
        while set((await ce.status(ids)).values()) != {status}:
            await anyio.sleep(0.02)


async def until_running_payload(ce: BatchBackend, root: Path, job: JobID) -> tuple[int, int]:
    """Wait until the payload runs. Returns runner and payload."""
    await until(ce, [job], JobStatus.RUNNING)
    process = runner(root, job)
    with anyio.fail_after(10):
        while True:
            try:
                child = payload_of(process)
                if b"INTERCEDE_JOB=" in Path(f"/proc/{child}/environ").read_bytes():
                    return process, child
            except (IndexError, OSError):
                pass
            await anyio.sleep(0.01)


async def test_no_more_copies_run_at_once_than_there_are_slots(
    ce: BatchBackend, root: Path, tmp_path: Path
) -> None:
    """Two submitters, five submissions, one limit."""
    ledger = tmp_path / "ledger"
    text = 'echo + >> "$1"; sleep 0.2; echo - >> "$1"'
    async with make(root) as other:
        ids = []
        for number in range(5):
            backend = ce if number % 2 else other
            ids += ids_of(await backend.submit(script(text, str(ledger)), 3))
        assert set(await finish(ce, ids)) == {JobStatus.SUCCESSFUL}
    running = most = 0
    for mark in ledger.read_text().split():
        running += 1 if mark == "+" else -1
        most = max(most, running)
    assert most == SLOTS


async def test_the_default_limit_is_the_hosts_cores(root: Path) -> None:
    async with make(root, slots=None) as ce:
        ids = ids_of(await ce.submit(script("exit 0")))
        await finish(ce, ids)
    limit = root / ".direct" / os.uname().nodename / "limit"
    assert int(limit.read_text()) == len(os.sched_getaffinity(0))


async def test_waiting_copies_start_without_anybody_asking(
    ce: BatchBackend, root: Path, tmp_path: Path
) -> None:
    ids = ids_of(await ce.submit(script('sleep 0.1; : > "$1/$INTERCEDE_COPY"', str(tmp_path)), 8))
    with anyio.fail_after(20):
        while not all((tmp_path / str(copy)).exists() for copy in range(8)):
            await anyio.sleep(0.05)
    await finish(ce, ids)
    with anyio.fail_after(10):
        while processes_in(root):
            await anyio.sleep(0.05)


async def test_a_copy_that_waits_is_pending_and_says_why(ce: BatchBackend) -> None:
    ids = ids_of(await ce.submit(script("sleep 100"), SLOTS + 1))
    await until(ce, ids[:SLOTS], JobStatus.RUNNING)
    details = await ce.details(ids)
    assert details[ids[-1]].status is JobStatus.PENDING
    assert "slot" in (details[ids[-1]].reason or "")
    (await ce.kill(ids)).raise_for_failures()


async def test_when_the_workers_die_the_next_call_takes_over(
    ce: BatchBackend, root: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    ids = ids_of(
        await ce.submit(script('echo "$INTERCEDE_COPY" >> "$1"; sleep 0.3', str(ledger)), 6)
    )
    await until(ce, ids[:1], JobStatus.RUNNING)
    for pid in workers(root):
        end(pid)
    assert set(await finish(ce, ids)) == {JobStatus.SUCCESSFUL}
    assert sorted(ledger.read_text().split()) == [str(copy) for copy in range(6)]


async def test_workers_killed_again_and_again_run_nothing_twice_and_lose_nothing(
    ce: BatchBackend, root: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    ids = ids_of(await ce.submit(script('echo "$INTERCEDE_COPY" >> "$1"', str(ledger)), 60))
    for _ in range(15):
        for pid in workers(root):
            end(pid)
        await ce.status(ids)
        await anyio.sleep(0.02)
    await finish(ce, ids, 60)
    ran = ledger.read_text().split()
    assert len(ran) == len(set(ran)) == 60
    assert set((await ce.status(ids)).values()) == {JobStatus.SUCCESSFUL}


@pytest.mark.parametrize("torn", ["slot", "next"])
async def test_a_worker_that_died_while_it_wrote_blocks_nothing(
    ce: BatchBackend, root: Path, torn: str
) -> None:
    """A file is empty between its making and its first byte."""
    ids = ids_of(await ce.submit(script("sleep 0.3"), 6))
    await until(ce, ids[:1], JobStatus.RUNNING)
    submission = ids[0].split("/")[1]
    if torn == "slot":
        (root / submission / "5" / "slot").write_text("")
    else:
        (root / ".direct" / os.uname().nodename / "next" / submission).write_text("")
    assert set(await finish(ce, ids)) == {JobStatus.SUCCESSFUL}


async def test_a_job_whose_worker_died_while_it_wrote_can_be_killed(
    ce: BatchBackend, root: Path
) -> None:
    ids = ids_of(await ce.submit(script("sleep 300"), SLOTS + 1))
    await until(ce, ids[:SLOTS], JobStatus.RUNNING)
    (root / ids[0].split("/")[1] / str(SLOTS) / "slot").write_text("")
    (await ce.kill(ids)).raise_for_failures()
    assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}


async def test_a_job_that_was_killed_before_its_start_does_not_run_when_its_slot_does(
    root: Path,
) -> None:
    """Its runner saw the mark and left neither a start nor an end; its worker has gone on, or another has its slot."""
    async with make(root, slots=1) as ce:
        killed = ids_of(await ce.submit(script("true")))
        await finish(ce, killed)
        copy = root / killed[0].split("/")[1] / "0"
        slot = root / ".direct" / os.uname().nodename / "slots" / "1"
        with anyio.fail_after(20):
            while slot.read_text():  # its worker has not gone on yet
                await anyio.sleep(0.02)
        for record in ("start", "exit"):
            (copy / record).unlink()
        (copy / "cancel").touch()
        assert (await ce.status(killed))[killed[0]] is JobStatus.CANCELLED
        running = ids_of(await ce.submit(script("sleep 300")))
        await until(ce, running, JobStatus.RUNNING)
        assert (await ce.status(killed))[killed[0]] is JobStatus.CANCELLED
        assert (await ce.counts()).running == 1
        (await ce.kill(running)).raise_for_failures()


async def test_a_job_whose_runner_died_runs_until_its_payload_ends(
    ce: BatchBackend, root: Path, tmp_path: Path
) -> None:
    ids = ids_of(await ce.submit(script("exec sleep 300")))
    process, payload = await until_running_payload(ce, root, ids[0])
    os.kill(process, signal.SIGKILL)
    await anyio.sleep(0.2)
    assert (await ce.status(ids))[ids[0]] is JobStatus.RUNNING
    assert (await ce.counts()).running == 1
    os.kill(payload, signal.SIGKILL)
    result = await ce.status(ids)
    assert result.failures[ids[0]].code is FailureCode.NOT_NOW
    assert await finish(ce, ids) == [JobStatus.FINISHED_UNKNOWN]


async def test_a_job_whose_runner_died_can_be_killed(ce: BatchBackend, root: Path) -> None:
    ids = ids_of(await ce.submit(script("sleep 300")))
    process, payload = await until_running_payload(ce, root, ids[0])
    os.kill(process, signal.SIGKILL)
    (await ce.kill(ids)).raise_for_failures()
    assert await finish(ce, ids) == [JobStatus.CANCELLED]
    assert not Path(f"/proc/{payload}/environ").exists() or payload not in processes_in(root)


@pytest.mark.parametrize(
    "text",
    [
        "sleep 300",
        "setsid sleep 300 & sleep 300",
        "setsid sh -c 'setsid sleep 300 & sleep 300' & wait",
        "trap '' TERM HUP INT; while :; do sleep 300; done",
        "env -i sleep 300",
        "kill -STOP $$",
        "while :; do setsid sleep 300 & sleep 0.01; done",
    ],
)
async def test_a_kill_ends_every_process_of_the_job(
    ce: BatchBackend, root: Path, text: str
) -> None:
    ids = ids_of(await ce.submit(script(text), SLOTS))
    await until_running_payload(ce, root, ids[0])
    await anyio.sleep(0.3)
    result = await ce.kill(ids)
    result.raise_for_failures()
    beneath = processes_in(root / ids[0].split("/")[1])
    assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}
    assert beneath == []


async def test_a_payload_may_clean_up_when_it_is_killed(
    ce: BatchBackend, root: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "cleaned"
    text = "trap 'sleep 0.5; : > \"$1\"; exit 0' TERM; : > ready; while :; do sleep 0.05; done"
    ids = ids_of(await ce.submit(script(text, str(flag))))
    with anyio.fail_after(10):
        while not list(root.glob("*/0/work/ready")):
            await anyio.sleep(0.02)
    (await ce.kill(ids)).raise_for_failures()
    assert flag.exists()
    # It ended with exit code 0, and it ended because it was killed.
    assert (await ce.status(ids))[ids[0]] is JobStatus.CANCELLED


async def test_a_kill_spares_the_copy_whose_number_begins_alike(ce: BatchBackend) -> None:
    async with TwelveCopies(ce) as ids:
        (await ce.kill([ids[1]])).raise_for_failures()
        statuses = list((await ce.status(ids)).values())
        assert statuses[1] is JobStatus.CANCELLED
        assert JobStatus.CANCELLED not in (statuses[0], *statuses[2:])


class TwelveCopies:
    """1, 10 and 11 begin alike."""

    def __init__(self, ce: BatchBackend) -> None:
        self.ce = ce
        self.ids: list[JobID] = []

    async def __aenter__(self) -> list[JobID]:
        self.ids = ids_of(await self.ce.submit(script("sleep 100"), 12))
        await until(self.ce, self.ids[:SLOTS], JobStatus.RUNNING)
        return self.ids

    async def __aexit__(self, *exc: object) -> None:
        await self.ce.kill(self.ids)


async def test_a_killed_waiting_copy_never_starts(ce: BatchBackend, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ids = ids_of(
        await ce.submit(script('echo "$INTERCEDE_COPY" >> "$1"; sleep 0.2', str(ledger)), 10)
    )
    (await ce.kill(ids[3:])).raise_for_failures()
    statuses = await finish(ce, ids)
    assert set(statuses[:3]) == {JobStatus.SUCCESSFUL}
    started = set(ledger.read_text().split())
    assert started >= {"0", "1", "2"}
    assert set(statuses[6:]) == {JobStatus.CANCELLED}
    assert not started & {"6", "7", "8", "9"}


async def test_a_copy_that_was_half_purged_never_starts(
    ce: BatchBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, ledger = tmp_path / "go", tmp_path / "ledger"
    text = 'while [ ! -e "$1" ]; do sleep 0.05; done; echo "$INTERCEDE_COPY" >> "$2"'
    ids = ids_of(await ce.submit(script(text, str(go), str(ledger)), 5))
    await until(ce, ids[:SLOTS], JobStatus.RUNNING)
    (await ce.kill(ids[3:4])).raise_for_failures()
    tools = tmp_path / "tools"
    tools.mkdir()
    # It dies when all but the directory is gone, the mark of the kill too.
    (tools / "rm").write_text('#!/bin/sh\nfor last; do :; done\n/bin/rm -f "$last"/*\nkill -9 $$\n')
    (tools / "rm").chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        assert (await ce.purge(ids[3:4])).failures
    go.touch()
    others = [*ids[:3], ids[4]]
    assert set(await finish(ce, others)) == {JobStatus.SUCCESSFUL}
    await anyio.sleep(0.3)
    assert sorted(ledger.read_text().split()) == ["0", "1", "2", "4"]


async def test_a_reused_process_number_is_not_our_job(ce: BatchBackend, root: Path) -> None:
    ids = ids_of(await ce.submit(script("exec sleep 300")))
    process, payload = await until_running_payload(ce, root, ids[0])
    start = root / ids[0].split("/")[1] / "0" / "start"
    words = start.read_text().split()
    os.kill(process, signal.SIGKILL)
    os.kill(payload, signal.SIGKILL)
    # Our own process now has the number; its start time tells it apart.
    words[2] = str(os.getpid())
    start.write_text(" ".join(words) + "\n")
    assert await finish(ce, ids) == [JobStatus.FINISHED_UNKNOWN]
    assert (await ce.counts()).running == 0


async def test_after_a_reboot_what_ran_is_over_and_what_waited_starts(
    ce: BatchBackend, root: Path
) -> None:
    ids = ids_of(await ce.submit(script('[ "$INTERCEDE_COPY" -ge 2 ] || sleep 300'), 4))
    for job in ids[:SLOTS]:
        await until_running_payload(ce, root, job)
    for pid in processes_in(root):
        end(pid)
    submission = root / ids[0].split("/")[1]
    for copy in range(SLOTS):
        slot = submission / str(copy) / "slot"
        words = slot.read_text().split()
        words[2] = "another-boot"
        slot.write_text(" ".join(words) + "\n")
    statuses = await finish(ce, ids)
    assert set(statuses[:SLOTS]) == {JobStatus.FINISHED_UNKNOWN}
    assert set(statuses[SLOTS:]) == {JobStatus.SUCCESSFUL}


async def test_a_job_of_another_host_on_the_same_file_system_is_not_now(
    ce: BatchBackend, root: Path
) -> None:
    ids = ids_of(await ce.submit(script("sleep 300")))
    await until_running_payload(ce, root, ids[0])
    slot = root / ids[0].split("/")[1] / "0" / "slot"
    text = slot.read_text()
    words = text.split()
    words[1] = "login2"
    slot.write_text(" ".join(words) + "\n")
    result = await ce.status(ids)
    assert result.failures[ids[0]].code is FailureCode.NOT_NOW
    assert "login2" in result.failures[ids[0]].message
    slot.write_text(text)
    (await ce.kill(ids)).raise_for_failures()


async def test_a_wall_time_is_told_as_the_reason(ce: BatchBackend) -> None:
    ids = ids_of(await ce.submit(script("sleep 300", wall_time_s=1)))
    assert await finish(ce, ids) == [JobStatus.FAILED]
    details = (await ce.details(ids))[ids[0]]
    assert details.signal == signal.SIGTERM
    assert "wall-time" in (details.reason or "")


async def test_a_wall_time_that_was_not_used_up_leaves_no_process(
    ce: BatchBackend, root: Path
) -> None:
    ids = ids_of(await ce.submit(script("exit 0", wall_time_s=3600), 3))
    assert set(await finish(ce, ids)) == {JobStatus.SUCCESSFUL}
    with anyio.fail_after(10):
        while processes_in(root):
            await anyio.sleep(0.05)


async def test_a_job_inside_a_job_does_not_take_the_others_with_it(
    ce: BatchBackend, root: Path
) -> None:
    """A submitter that is itself a job starts workers; killing it must not kill what they run."""
    program = """
import sys, anyio
from intercede.core import SubmissionSpec, registry
async def main():
    config = {"transport": "local", "scheduler": "direct", "name": "here", "root": sys.argv[1], "slots": 2}
    async with registry.backend(config) as ce:
        submission = await ce.submit(SubmissionSpec("sleep", ["300"], resident=True))
        print(submission.handles[0].id, flush=True)
    await anyio.sleep(300)
anyio.run(main)
"""
    outer = ids_of(
        await ce.submit(SubmissionSpec(sys.executable, ["-c", program, str(root)], resident=True))
    )
    with anyio.fail_after(20):
        while not (shown := (await ce.diagnostics(outer))[outer[0]].stdout_tail):
            await anyio.sleep(0.05)
    inner = [JobID(shown.decode().strip())]
    await until(ce, inner, JobStatus.RUNNING)
    (await ce.kill(outer)).raise_for_failures()
    await anyio.sleep(0.3)
    assert (await ce.status(outer + inner))[inner[0]] is JobStatus.RUNNING
    (await ce.kill(inner)).raise_for_failures()


async def test_copies_differ_by_their_number_and_their_variables(ce: BatchBackend) -> None:
    variants = [CopyVars(environment={"X": str(number)}) for number in range(5)]
    ids = ids_of(await ce.submit(script('exit "$((INTERCEDE_COPY * 10 + X))"'), variants))
    await finish(ce, ids)
    details = await ce.details(ids)
    assert [d.exit_code for d in details.values()] == [0, 11, 22, 33, 44]


def test_a_host_without_the_tools_is_told_which_are_missing(tmp_path: Path) -> None:
    scheduler = DirectScheduler()
    command = scheduler.probe_commands(None)[0]
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "uname", "grep", "cat", "nproc"):
        path = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout
        (tools / name).symlink_to(path.strip())
    answer = subprocess.run(
        command.argv, env={"PATH": str(tools)}, capture_output=True, check=False
    )
    from intercede.core import CommandResult, ResourceError

    with pytest.raises(ResourceError, match="the host lacks flock, setsid, awk"):
        scheduler.parse_probe([CommandResult(answer.returncode, answer.stdout, answer.stderr)])


async def test_a_job_gets_the_path_of_who_submitted_it_and_no_other_environment(
    ce: BatchBackend, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a worker of somebody else's runs it."""
    monkeypatch.setenv("SITE_TOKEN", "secret-4711")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    first = ids_of(await ce.submit(script("sleep 1; env"), SLOTS))
    await until(ce, first, JobStatus.RUNNING)
    monkeypatch.setenv("PATH", f"/a b:{os.environ['PATH']}")
    second = ids_of(await ce.submit(script("env")))
    await finish(ce, first + second)
    outputs = await ce.fetch_output(first + second, tmp_path / "out")
    environments = []
    for output in outputs.values():
        assert output.stdout is not None
        lines = output.stdout.read_text().splitlines()
        environments.append(dict(line.split("=", 1) for line in lines))
    for environment in environments:
        assert "SITE_TOKEN" not in environment
        assert environment["LANG"] == "C.UTF-8"
        assert "LC_ALL" not in environment
        assert environment["HOME"] == os.environ["HOME"]
    assert environments[-1]["PATH"] == os.environ["PATH"]
    assert environments[0]["PATH"] == os.environ["PATH"].removeprefix("/a b:")
