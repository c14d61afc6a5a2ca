"""SSH x direct through `batch`, with the way to the host cut, its sshd restarted, and the host frozen, in the middle of every operation.

What is true is looked up on the host, which is this machine: what ran, how often, and what lies where. Three variables of the environment
make a long run of it (docs/faults.md): INTERCEDE_FAULTS_CUTS, INTERCEDE_FAULTS_FROZEN_S and INTERCEDE_FAULTS_SEED.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio.to_thread
import pytest
from attrs import define, field

from intercede.backend.batch import BatchBackend
from intercede.contract import Direction, Ending, LocalProbe, Relay
from intercede.core import (
    Command,
    FailureCode,
    FileRef,
    InterCEdeError,
    JobCounts,
    JobID,
    JobStatus,
    OutputSpec,
    Submission,
    SubmissionSpec,
    SubmitUncertain,
    Transport,
    TransportError,
    registry,
)
from stacks.sshd import Sshd

CUTS: Final = int(os.environ.get("INTERCEDE_FAULTS_CUTS", "20"))
FROZEN_S: Final = float(os.environ.get("INTERCEDE_FAULTS_FROZEN_S", "1.5"))
SEED: Final = os.environ.get("INTERCEDE_FAULTS_SEED") or secrets.token_hex(4)
#: A test with more cuts would take too long.
AT_ONCE: Final = 10
OUTPUT: Final = b"0123456789abcdef" * 20_000
PATIENCE_S: Final = 60.0

turns = pytest.mark.parametrize("turn", range(max(1, CUTS // AT_ONCE)))
Operation = Callable[[], Awaitable[object]]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


def told(sshd: Sshd, relay: Relay, **keys: object) -> dict[str, Any]:
    """The transport's configuration, through the relay."""
    return {
        **sshd.config,
        "host": relay.host,
        "port": relay.port,
        "host_keys": [sshd.host_key],
        **keys,
    }


# ---------------------------------------------------------------- jobs, and what is true of them


@define
class Scene:
    """A backend behind a relay, and the host that it works on.

    Attributes:
        place: Of this test; the sandboxes are beneath it.
        relay: On the way.
        ce: The backend.
        tags: Of its jobs.
    """

    place: Path
    relay: Relay
    ce: BatchBackend
    tags: set[str] = field(factory=set)

    @property
    def root(self) -> Path:
        return self.place / "root"

    def spec(self, tag: str, then: str = "") -> SubmissionSpec:
        """Notes in the ledger that it ran, has an input and outputs, and does something."""
        return SubmissionSpec(
            "/bin/sh",
            resident=True,
            arguments=[
                "-c",
                f'echo "$1 $INTERCEDE_JOB" >> "$0"; cp data large; echo small > small; {then}',
                str(self.place / "ledger"),
                tag,
            ],
            inputs=[FileRef("data", content=OUTPUT)],
            outputs=OutputSpec(["large", "small"]),
            tag=tag,
        )

    def ran(self, tag: str) -> Counter[str]:
        """How often each job of the tag ran."""
        ledger = self.place / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return Counter(job for line in lines for of, job in [line.split()] if of == tag)

    async def submitted(self, tag: str, copies: int, then: str = "") -> list[JobID]:
        self.tags.add(tag)
        submission = await self.ce.submit(self.spec(tag, then), copies)
        submission.raise_for_failures()
        return [handle.id for handle in submission.handles]

    async def until(self, ids: Sequence[JobID], *wanted: JobStatus) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not all(at in wanted for at in (await self.ce.status(ids)).values()):
                await asyncio.sleep(0.05)

    async def finished(self, tag: str, copies: int, then: str = "") -> list[JobID]:
        ids = await self.submitted(tag, copies, then)
        await self.until(ids, JobStatus.SUCCESSFUL, JobStatus.FAILED)
        return ids

    async def running(self, tag: str, copies: int) -> list[JobID]:
        ids = await self.submitted(tag, copies, "exec sleep 600")
        await self.until(ids, JobStatus.RUNNING)
        async with asyncio.timeout(PATIENCE_S):
            while len(self.ran(tag)) < copies:
                await asyncio.sleep(0.05)
        return ids

    def sandbox(self, job: JobID) -> Path:
        _, submission, copy, *_ = job.split("/")
        return self.root / submission / copy

    async def processes(self, job: JobID) -> Sequence[str]:
        _, submission, copy, *_ = job.split("/")
        return await LocalProbe(self.root).processes(f"INTERCEDE_JOB={submission}.{copy};")

    # ------------------------------------------------------------ what must be right after anything

    async def check_submit(self, tag: str, copies: int, outcome: object) -> None:
        """Nothing lost, nothing doubled: what came of a submit is what happened on the host."""
        if isinstance(outcome, Submission):
            outcome.raise_for_failures()
            ids = [handle.id for handle in outcome.handles]
            await self.until(ids, JobStatus.SUCCESSFUL)
            assert list(self.ran(tag).values()) == [1] * copies
            assert [handle.id for handle in await self.ce.find(tag)] == ids
            return
        if isinstance(outcome, SubmitUncertain):
            # The handles are good for it, whatever happened.
            ids = [handle.id for handle in outcome.handles]
            assert len(ids) == copies
            await self._check_uncertain(ids, tag)
            return
        # "Nothing was submitted": at most something is staged, which can be found, and never runs.
        assert isinstance(outcome, InterCEdeError)
        assert getattr(outcome, "may_have_run", False) is False, repr(outcome)
        await self._check_uncertain([handle.id for handle in await self.ce.find(tag)], tag)
        assert not self.ran(tag)

    async def _check_uncertain(self, ids: Sequence[JobID], tag: str) -> None:
        """Each of the jobs ran once and says so, or did not run and can be cleared away."""
        left = list(ids)
        async with asyncio.timeout(PATIENCE_S):
            while left:
                result = await self.ce.status(left)
                gone = [
                    job
                    for job, why in result.failures.items()
                    if why.code is FailureCode.NO_SUCH_JOB
                ]
                ended = [job for job in left if result[job].is_finished]
                staged = [job for job in left if result[job] is JobStatus.PENDING]
                if staged:
                    await self.ce.kill(staged)
                left = [job for job in left if job not in gone and job not in ended]
                await asyncio.sleep(0.05)
        statuses = await self.ce.status(ids)
        ran = self.ran(tag)
        assert set(ran.values()) <= {1}
        for job in ids:
            _, submission, copy, *_ = job.split("/")
            if statuses[job] is JobStatus.SUCCESSFUL:
                assert ran[f"{submission}.{copy};"] == 1

    async def check_debris(self) -> None:
        """Nothing of a staging that was broken off stays."""
        async with asyncio.timeout(PATIENCE_S):
            while list(self.root.glob(".part.*")):
                await asyncio.sleep(0.05)

    async def check_status(self, truth: Mapping[JobID, JobStatus], outcome: object) -> None:
        """Nothing was said that is not so; and the next one says it all."""
        if isinstance(outcome, Mapping):
            known = {job: at for job, at in outcome.items() if at is not JobStatus.UNKNOWN}
            assert known.items() <= truth.items()
        else:
            assert isinstance(outcome, TransportError), repr(outcome)
        assert dict(await self.ce.status(list(truth))) == truth

    async def check_find(self, tag: str, truth: Sequence[JobID], outcome: object) -> None:
        """All of the jobs were found, or none is said to be; and the next one finds them."""
        if isinstance(outcome, tuple):
            assert [handle.id for handle in outcome] == truth
        else:
            assert isinstance(outcome, TransportError), repr(outcome)
        assert [handle.id for handle in await self.ce.find(tag)] == truth

    async def check_counts(self, truth: JobCounts, outcome: object) -> None:
        """Either all are counted or none; and the next one counts them."""
        assert outcome == truth or isinstance(outcome, TransportError), repr(outcome)
        assert await self.ce.counts() == truth

    def check_fetch(self, jobs: Sequence[JobID], dest: Path, outcome: object) -> None:
        """A job is there whole, or not at all."""
        if isinstance(outcome, Mapping):
            for job in jobs:
                output = outcome[job]
                if output.failure is not None:
                    assert output.failure.code is FailureCode.NOT_NOW
                    assert not _directory(dest, job).exists()
                    continue
                assert output.files["large"].read_bytes() == OUTPUT
                assert output.files["small"].read_bytes() == b"small\n"
        for job in jobs:
            if _directory(dest, job).exists():
                there = {path.name for path in _directory(dest, job).rglob("*") if path.is_file()}
                assert there == {"large", "small", "stdout", "stderr"}
                assert (_directory(dest, job) / "work" / "large").read_bytes() == OUTPUT
        if dest.exists():
            assert not list(dest.glob(".intercede-*"))

    async def check_kill(self, job: JobID, outcome: object) -> None:
        """What was killed is over; what was not killed can be."""
        if not (isinstance(outcome, Mapping) and outcome[job].ok):
            if isinstance(outcome, Mapping):
                assert outcome[job].failure.code is FailureCode.NOT_NOW
            async with asyncio.timeout(PATIENCE_S):
                while not (await self.ce.kill([job]))[job].ok:
                    await asyncio.sleep(0.05)
        assert (await self.ce.status([job]))[job] is JobStatus.CANCELLED
        assert await self.processes(job) == []

    async def check_purge(self, job: JobID, outcome: object) -> None:
        """What was purged is gone; what was not can be, as a whole."""
        if isinstance(outcome, Mapping) and outcome[job].ok:
            assert not self.sandbox(job).exists()
        (await self.ce.purge([job])).raise_for_failures()
        assert not self.sandbox(job).exists()
        assert (await self.ce.status([job])).failures[job].code is FailureCode.NO_SUCH_JOB


def _directory(dest: Path, job: JobID) -> Path:
    _, submission, copy, *_ = job.split("/")
    return dest / submission / copy


@asynccontextmanager
async def scene(sshd: Sshd, place: Path, ssh: Mapping[str, object] = {}, **keys: object) -> AsyncIterator[Scene]:  # fmt: skip
    """A scene, with everything that runs in it killed at its end."""
    async with Relay(sshd.port) as relay, sshd.credentials() as provider:
        config = {
            "name": "faults",
            "transport": told(sshd, relay, **ssh),
            "scheduler": {"type": "direct", "slots": 100},
            "root": str(place / "root"),
            "grace_s": 1.0,
            **keys,
        }
        async with registry.backend(config, provider) as ce:
            assert isinstance(ce, BatchBackend)
            there = Scene(place, relay, ce)
            yield there
        relay.let_through()
        async with registry.backend({**config, "submit_deadline_s": 20.0}, provider) as last:
            assert isinstance(last, BatchBackend)
            ids = [handle.id for tag in sorted(there.tags) for handle in await last.find(tag)]
            await last.kill(ids)


# ---------------------------------------------------------------- cuts


class Cutting:
    """Cuts at random bytes of an operation, the same for the same seed.

    Args:
        relay: Where.
        operation: Its name.
        turn: Which of the tests.
    """

    def __init__(self, relay: Relay, operation: str, turn: int) -> None:
        self._relay = relay
        self._random = Random(f"{SEED} {operation} {turn}")
        self._sizes: dict[Direction, int] = {}

    async def measure(self, call: Operation) -> None:
        """See how many bytes the operation takes undisturbed."""
        before = self._relay.passed
        await call()
        await asyncio.sleep(0.1)
        after = self._relay.passed
        self._sizes = {direction: after[direction] - before[direction] for direction in Direction}

    @asynccontextmanager
    async def once(self, call: Operation) -> AsyncIterator[object]:
        """Cut the connection once in the operation, and give its outcome; whatever is wrong with that says where it was cut."""
        direction = self._random.choice(list(Direction))
        after = self._random.randrange(self._sizes[direction])
        ending = self._random.choice(list(Ending))
        self._relay.cut(direction, after, ending=ending)
        try:
            outcome = await outcome_of(call())
            # The conversation may have been a little shorter this time.
            self._relay.let_through()
            yield outcome
        except BaseException as error:
            error.add_note(
                f"cut {direction} after {after} of {self._sizes[direction]} bytes by {ending};"
                f" INTERCEDE_FAULTS_SEED={SEED} repeats it"
            )
            raise
        finally:
            self._relay.let_through()


async def outcome_of(call: Awaitable[object]) -> object:
    """What an operation returns, or the error it raises, if that is one of ours."""
    try:
        return await call
    except InterCEdeError as error:
        return error


def check_type(outcome: object) -> None:
    """An error says that it was the way to the host that failed, not the host."""
    if isinstance(outcome, InterCEdeError):
        assert isinstance(outcome, (TransportError, SubmitUncertain)), repr(outcome)


@turns
async def test_a_command_that_is_cut_runs_once_or_says_that_it_may_have(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    ledger = tmp_path / "ledger"

    def command(word: str) -> Command:
        text = 'cat > "$0.in" && echo "$1" >> "$0" && cat "$0.in"'
        return Command(("sh", "-c", text, str(ledger), word), stdin=OUTPUT)

    async with (
        Relay(sshd.port) as relay,
        sshd.credentials() as provider,
        registry.transport(told(sshd, relay), provider) as transport,
    ):
        cutting = Cutting(relay, "command", turn)
        await transport.run(Command(("true",)))
        await cutting.measure(lambda: transport.run(command("whole")))
        for number in range(AT_ONCE):
            call = partial(transport.run, command(f"cut{number}"))
            async with cutting.once(call) as outcome:
                await asyncio.sleep(0.1)
                await _check_command(transport, ledger, f"cut{number}", outcome)


@turns
async def test_a_first_command_whose_connection_is_cut_runs_once_or_says_that_it_may_have(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    ledger = tmp_path / "ledger"

    def command(word: str) -> Command:
        return Command(("sh", "-c", 'echo "$1" >> "$0"', str(ledger), word))

    async with Relay(sshd.port) as relay, sshd.credentials() as provider:

        async def first(word: str) -> object:
            async with registry.transport(told(sshd, relay), provider) as transport:
                return await transport.run(command(word))

        cutting = Cutting(relay, "first", turn)
        await cutting.measure(lambda: first("whole"))
        for number in range(AT_ONCE):
            async with cutting.once(partial(first, f"cut{number}")) as outcome:
                await asyncio.sleep(0.1)
                async with registry.transport(told(sshd, relay), provider) as transport:
                    await _check_command(transport, ledger, f"cut{number}", outcome)


async def _check_command(transport: Transport, ledger: Path, word: str, outcome: object) -> None:
    """Whether it ran is seen on the host, when whatever there is of it has ended."""
    async with asyncio.timeout(PATIENCE_S):
        while await LocalProbe(ledger.parent).processes(f"{ledger}"):
            await asyncio.sleep(0.05)
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    times = lines.count(word)
    if isinstance(outcome, TransportError):
        assert times <= (1 if outcome.may_have_run else 0), repr(outcome)
    else:
        assert not isinstance(outcome, InterCEdeError), repr(outcome)
        assert times == 1
    assert (await transport.run(Command(("echo", "well")))).stdout == b"well\n"


@turns
async def test_a_submit_that_is_cut_loses_nothing_and_doubles_nothing(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        cutting = Cutting(there.relay, "submit", turn)
        await there.finished("first", 1)
        await cutting.measure(lambda: there.submitted("whole", 3))
        for number in range(AT_ONCE):
            tag = f"cut{number}"
            async with cutting.once(partial(there.ce.submit, there.spec(tag), 3)) as outcome:
                assert not isinstance(outcome, SubmitUncertain), "the host can be reached again"
                await there.check_submit(tag, 3, outcome)
        await there.check_debris()


@turns
async def test_a_status_that_is_cut_says_nothing_that_is_not_so(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        truth = {
            (await there.finished("good", 1))[0]: JobStatus.SUCCESSFUL,
            (await there.finished("bad", 1, "exit 3"))[0]: JobStatus.FAILED,
            (await there.running("jobs", 1))[0]: JobStatus.RUNNING,
        }
        ids = list(truth)
        cutting = Cutting(there.relay, "status", turn)
        await cutting.measure(lambda: there.ce.status(ids))
        for _ in range(AT_ONCE):
            async with cutting.once(partial(there.ce.status, ids)) as outcome:
                await there.check_status(truth, outcome)


@turns
async def test_a_fetch_that_is_cut_brings_jobs_whole_or_not_at_all(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        ids = await there.finished("jobs", 3)
        cutting = Cutting(there.relay, "fetch", turn)
        await cutting.measure(lambda: there.ce.fetch_output(ids, tmp_path / "whole"))
        for number in range(AT_ONCE):
            dest = tmp_path / f"cut{number}"
            async with cutting.once(partial(there.ce.fetch_output, ids, dest)) as outcome:
                there.check_fetch(ids, dest, outcome)
                again = await there.ce.fetch_output(ids, dest)
                again.raise_for_failures()
                there.check_fetch(ids, dest, again)


@turns
async def test_a_kill_that_is_cut_kills_what_it_says_and_nothing_else(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        bystander = (await there.running("bystander", 1))[0]
        first, *ids = await there.running("jobs", AT_ONCE + 1)
        cutting = Cutting(there.relay, "kill", turn)
        await cutting.measure(lambda: there.ce.kill([first]))
        for job in ids:
            async with cutting.once(partial(there.ce.kill, [job])) as outcome:
                assert isinstance(outcome, (Mapping, TransportError)), repr(outcome)
                await there.check_kill(job, outcome)
        assert (await there.ce.status([bystander]))[bystander] is JobStatus.RUNNING


@turns
async def test_a_purge_that_is_cut_removes_what_it_says_and_nothing_else(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        bystander = (await there.finished("bystander", 1))[0]
        first, *ids = await there.finished("jobs", AT_ONCE + 1)
        cutting = Cutting(there.relay, "purge", turn)
        await cutting.measure(lambda: there.ce.purge([first]))
        for job in ids:
            async with cutting.once(partial(there.ce.purge, [job])) as outcome:
                assert isinstance(outcome, (Mapping, TransportError)), repr(outcome)
                await there.check_purge(job, outcome)
        output = (await there.ce.fetch_output([bystander], tmp_path / "out"))[bystander]
        assert output.files["large"].read_bytes() == OUTPUT


@turns
async def test_a_find_that_is_cut_finds_all_or_says_nothing(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        await there.finished("bystander", 1)
        ids = await there.finished("wanted", 3)
        cutting = Cutting(there.relay, "find", turn)
        await cutting.measure(lambda: there.ce.find("wanted"))
        for _ in range(AT_ONCE):
            async with cutting.once(partial(there.ce.find, "wanted")) as outcome:
                await there.check_find("wanted", ids, outcome)


@turns
async def test_counts_that_are_cut_count_all_or_say_nothing(
    sshd: Sshd, tmp_path: Path, turn: int
) -> None:
    async with scene(sshd, tmp_path) as there:
        await there.running("jobs", 2)
        truth = await there.ce.counts()
        assert truth.running == 2
        cutting = Cutting(there.relay, "counts", turn)
        await cutting.measure(there.ce.counts)
        for _ in range(AT_ONCE):
            async with cutting.once(there.ce.counts) as outcome:
                await there.check_counts(truth, outcome)


# ---------------------------------------------------------------- restarts and frost

OPERATIONS: Final = ("submit", "status", "fetch", "kill", "purge", "find", "counts")
operations = pytest.mark.parametrize("operation", OPERATIONS)
Check = Callable[[object], Awaitable[None]]


async def prepared(there: Scene, operation: str, tag: str) -> tuple[Operation, Check]:
    """An operation that can be done, and what must be so whatever came of it."""
    ce = there.ce
    if operation == "submit":
        return (
            lambda: ce.submit(there.spec(tag), 3),
            lambda outcome: there.check_submit(tag, 3, outcome),
        )
    alive = operation in ("kill", "counts")
    job = (await (there.running if alive else there.finished)(f"jobs{tag}", 1))[0]
    if operation == "status":
        truth = {job: JobStatus.SUCCESSFUL}
        return lambda: ce.status([job]), lambda outcome: there.check_status(truth, outcome)
    if operation == "find":
        mark = f"jobs{tag}"
        return lambda: ce.find(mark), lambda outcome: there.check_find(mark, [job], outcome)
    if operation == "counts":
        counted = await ce.counts()
        return ce.counts, lambda outcome: there.check_counts(counted, outcome)
    if operation == "kill":
        return lambda: ce.kill([job]), lambda outcome: there.check_kill(job, outcome)
    if operation == "purge":
        return lambda: ce.purge([job]), lambda outcome: there.check_purge(job, outcome)
    dest = there.place / f"dest{tag}"

    async def check_fetch(outcome: object) -> None:
        there.check_fetch([job], dest, outcome)
        again = await ce.fetch_output([job], dest)
        again.raise_for_failures()
        there.check_fetch([job], dest, again)

    return lambda: ce.fetch_output([job], dest), check_fetch


@asynccontextmanager
async def under_way(
    there: Scene, operation: str, number: int = 0
) -> AsyncIterator[tuple[asyncio.Task[object], Check]]:
    """The operation, begun and in its middle, at a random byte; with each number at another."""
    call, _ = await prepared(there, operation, f"whole{number}")
    before = there.relay.passed[Direction.TO_SERVER]
    await call()
    size = there.relay.passed[Direction.TO_SERVER] - before
    call, check = await prepared(there, operation, f"broken{number}")
    before = there.relay.passed[Direction.TO_SERVER]
    moment = Random(f"{SEED} {operation} {number}").randrange(size)
    task = asyncio.ensure_future(outcome_of(call()))
    while not task.done() and there.relay.passed[Direction.TO_SERVER] - before < moment:
        await asyncio.sleep(0)
    try:
        yield task, check
    except BaseException as error:
        error.add_note(
            f"{operation} after {moment} of {size} bytes; INTERCEDE_FAULTS_SEED={SEED} repeats it"
        )
        raise


@asynccontextmanager
async def frozen(
    sshd: Sshd, there: Scene, operation: str
) -> AsyncIterator[tuple[asyncio.Task[object], Check]]:
    """The operation, and the host that froze in the middle of it."""
    for number in range(20):
        async with under_way(there, operation, number) as (task, check):
            try:
                sshd.freeze()
                await asyncio.wait([task], timeout=0.3)
                if not task.done():
                    yield task, check
                    return
            finally:
                sshd.thaw()
            # At a late byte it may be over before the host is frozen.
            await check(await task)
    pytest.fail("each of them was over before the host was frozen")


@operations
async def test_an_operation_in_which_sshd_restarts_is_done_or_a_typed_error(
    sshd: Sshd, tmp_path: Path, operation: str
) -> None:
    async with scene(sshd, tmp_path) as there, under_way(there, operation) as (task, check):
        await anyio.to_thread.run_sync(sshd.restart)
        began = time.monotonic()
        outcome = await task
        assert time.monotonic() - began < 15
        check_type(outcome)
        assert not isinstance(outcome, SubmitUncertain), "the host can be reached again"
        await check(outcome)


@operations
async def test_an_operation_on_a_host_that_freezes_ends_within_the_configured_time(
    sshd: Sshd, tmp_path: Path, operation: str
) -> None:
    ssh = {"connect_timeout_s": 2.0}
    limits = {"command_timeout_s": 4.0, "transfer_timeout_s": 4.0, "submit_deadline_s": 6.0}
    # Connecting, the command, and ending it; a submit has two, and clears up.
    allowed_s = 2.0 + 6.0 + 6.0 if operation != "submit" else 2 * (2.0 + 6.0 + 6.0) + 10.0
    async with (
        scene(sshd, tmp_path, ssh, **limits) as there,
        frozen(sshd, there, operation) as (task, check),
    ):
        began = time.monotonic()
        outcome = await task
        assert time.monotonic() - began < allowed_s
        await asyncio.sleep(FROZEN_S)
        sshd.thaw()
        check_type(outcome)
        await check(outcome)


@operations
async def test_an_operation_on_a_host_that_thaws_in_time_is_done(
    sshd: Sshd, tmp_path: Path, operation: str
) -> None:
    ssh = {"keepalive_s": 2 * FROZEN_S + 10}
    async with (
        scene(sshd, tmp_path, ssh) as there,
        frozen(sshd, there, operation) as (task, check),
    ):
        await asyncio.sleep(FROZEN_S)
        assert not task.done()
        sshd.thaw()
        outcome = await task
        assert not isinstance(outcome, InterCEdeError), repr(outcome)
        await check(outcome)


# ---------------------------------------------------------------- round trips


async def test_a_hundred_jobs_take_as_many_round_trips_as_one(sshd: Sshd, tmp_path: Path) -> None:
    """Those of the design's table, one for each command.

    On the wire a command takes three: sshd grants a session, then the command, and takes no input before (its window is 0 until then).
    """
    allowed = {"submit": 2, "status": 2, "fetch": 1}
    commands, turns = {}, {}
    async with scene(sshd, tmp_path) as there:
        await there.finished("first", 1)
        there.relay.delay_s = 0.05
        ids: list[JobID] = []

        async def submit() -> None:
            ids.extend(await there.submitted("many", 100, "rm large"))

        async def status() -> None:
            assert set((await there.ce.status(ids)).values()) == {JobStatus.SUCCESSFUL}

        async def fetch() -> None:
            (await there.ce.fetch_output(ids, tmp_path / "out")).raise_for_failures()

        for operation, call in (("submit", submit), ("status", status), ("fetch", fetch)):
            if operation == "status":
                await there.until(ids, JobStatus.SUCCESSFUL)
                await asyncio.sleep(0.5)
            before, turned = sshd.log.count("Starting session: command"), there.relay.turns
            await call()
            commands[operation] = sshd.log.count("Starting session: command") - before
            turns[operation] = there.relay.turns - turned
    assert commands == allowed
    # And it says that it closes the session, for which nobody waits.
    assert all(turns[name] <= 3 * count + 1 for name, count in allowed.items()), turns
