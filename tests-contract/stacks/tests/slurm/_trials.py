"""Operations that can be tried while something fails, and what must be so afterwards, whatever came of them.

What Slurm really holds is counted by its administrator, against the handles. Jobs whose number matters are held, so that none ends before it
is counted.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from intercede.core import (
    BulkResult,
    Failure,
    FailureCode,
    InterCEdeError,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    Submission,
    SubmitUncertain,
)
from intercede.toolkit import new_submission
from stacks.tests.slurm._scene import NAME, PATIENCE_S, Scene, native_of

__all__ = [
    "OPERATIONS",
    "Trial",
    "asking",
    "check_answer",
    "failures_of",
    "killing",
    "prepared",
]

OPERATIONS: Final = ("submit", "status", "fetch", "kill", "purge")
_COPIES: Final = 3
_WORDS: Final = b"what the job says\n"
_POLL_S: Final = 0.5


@frozen
class Trial:
    """One operation that can be done now, and what must be so whatever came of it.

    Attributes:
        call: Does it.
        check: Looks at what came of it.
        ids: Its jobs, if there are any yet.
    """

    call: Callable[[], Awaitable[object]]
    check: Callable[[object], Awaitable[None]]
    ids: Sequence[JobID] = ()


async def prepared(scene: Scene, operation: str, dest: Path, *, forgetful: bool = False) -> Trial:
    """Jobs for an operation.

    Args:
        scene: Where.
        operation: One of them.
        dest: For what is fetched.
        forgetful: The controller will die, and with it what it has taken and not written down.
    """
    if operation == "submit":
        return await _submitting(scene, forgetful=forgetful)
    if operation == "status":
        return (await asking(scene))[0]
    if operation == "kill":
        return await killing(scene, forgetful=forgetful)
    ids = await scene.submitted(f"printf '{_WORDS.decode()[:-1]}\\n'", _COPIES)
    await scene.until(ids, JobStatus.SUCCESSFUL)
    return _fetching(scene, ids, dest) if operation == "fetch" else _purging(scene, ids)


async def _submitting(scene: Scene, *, forgetful: bool) -> Trial:
    ce = await scene.backend(options=["--hold"])
    tag = secrets.token_hex(4)
    # What an earlier trial has left comes back with a controller that had forgotten it, and died before it wrote that down. Ids of
    # submissions begin with their time.
    earlier = f"{NAME}{new_submission()}"

    async def check(outcome: object) -> None:
        """What Slurm has got since is what the outcome says, and what anybody finds by the tag."""
        found, lost = await _settled(scene, tag)
        marked = [job for job in await scene.cluster.jobs() if job.name.startswith(NAME)]
        new = [job for job in marked if job.name > earlier]
        assert sorted(job.id for job in new) == sorted(map(native_of, found)), (new, outcome)
        assert forgetful or not lost, outcome
        if isinstance(outcome, Submission):
            handles = {handle.id for handle in outcome.handles}
            assert handles == {*found, *lost}
            assert len(handles) + len(outcome.failures) == _COPIES
        elif isinstance(outcome, SubmitUncertain):
            assert [handle.copy for handle in outcome.handles] == list(range(_COPIES))
            assert len(found) in (0, _COPIES)
        else:
            assert isinstance(outcome, InterCEdeError), repr(outcome)
            assert not getattr(outcome, "may_have_run", False), repr(outcome)
            assert not found
        if new:
            await scene.control("release", ",".join({job.id.partition("_")[0] for job in new}))
            await scene.until(found, JobStatus.SUCCESSFUL)
            ran = await scene.ran()
            assert [ran[_copy_of(job)] for job in found] == [1] * len(found)

    return Trial(lambda: ce.submit(scene.spec(tag=tag), _COPIES), check)


async def _settled(scene: Scene, tag: str) -> tuple[list[JobID], list[JobID]]:
    """The jobs with this tag that Slurm has, and those that it had, when that is certain; what was only staged is ended."""
    handles: Sequence[JobHandle] = ()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            handles = await scene.ce.find(tag)
            details = await scene.ce.details([handle.id for handle in handles])
            if FailureCode.NOT_NOW not in {why.code for why in failures_of(details)}:
                break
            await asyncio.sleep(_POLL_S)
    found, lost = [], []
    for handle in handles:
        status, has_native = details[handle.id].status, handle.id.count("/") == 3
        if status is JobStatus.FINISHED_UNKNOWN:
            if has_native:
                lost.append(handle.id)
        elif has_native:
            found.append(handle.id)
        elif status is JobStatus.HELD:
            # Its id was learnt from Slurm's list.
            [native] = [
                job.id
                for job in await scene.in_slurm(handle.submission)
                if job.id.partition("_")[2] == str(handle.copy)
            ]
            found.append(JobID(f"{handle.id}/{native}"))
        else:
            (await scene.ce.kill([handle.id])).raise_for_failures()
    return found, lost


async def asking(scene: Scene) -> tuple[Trial, Mapping[JobID, JobStatus]]:
    """A status call, and the truth."""
    good, bad = await scene.submitted("exit 0"), await scene.submitted("exit 3")
    truth = dict.fromkeys(good, JobStatus.SUCCESSFUL) | dict.fromkeys(bad, JobStatus.FAILED)
    await scene.until(list(truth), *truth.values())
    truth |= dict.fromkeys(await scene.running(), JobStatus.RUNNING)
    truth |= dict.fromkeys(await scene.held(2), JobStatus.HELD)
    ids = list(truth)

    async def check(outcome: object) -> None:
        check_answer(outcome, truth)
        assert dict(await scene.ce.status(ids)) == truth

    return Trial(lambda: scene.ce.status(ids), check, ids), truth


def check_answer(outcome: object, truth: Mapping[JobID, JobStatus]) -> None:
    """Nothing was said that is not so."""
    assert isinstance(outcome, (Mapping, InterCEdeError)), repr(outcome)
    if isinstance(outcome, Mapping):
        known = {job: at for job, at in outcome.items() if at is not JobStatus.UNKNOWN}
        assert known.items() <= truth.items()
        assert {why.code for why in failures_of(outcome)} <= {FailureCode.NOT_NOW}


async def killing(scene: Scene, *, forgetful: bool = False) -> Trial:
    """A kill of one job that runs and one that waits, beside others.

    Args:
        scene: Where.
        forgetful: See `prepared`. What was cancelled may be back then, and can be killed again.
    """
    running, held = await scene.running(2), await scene.held(3)
    ids, others = [running[0], held[1]], [running[1], held[0], held[2]]

    async def check(outcome: object) -> None:
        assert isinstance(outcome, (Mapping, InterCEdeError)), repr(outcome)
        if isinstance(outcome, Mapping):
            assert {why.code for why in failures_of(outcome)} <= {FailureCode.NOT_NOW}
            done = [job for job in ids if outcome[job].ok]
            if not forgetful:
                await scene.until(done, JobStatus.CANCELLED)
        async with asyncio.timeout(PATIENCE_S):
            while (await scene.ce.kill(ids)).failures:
                await asyncio.sleep(0.5)
        await scene.until(ids, JobStatus.CANCELLED)
        there = {job.id: job.state for job in await scene.all_in_slurm()}
        assert not {there.get(native_of(job)) for job in ids} & {"PENDING", "RUNNING"}
        assert [there[native_of(job)] for job in others] == ["RUNNING", "PENDING", "PENDING"]

    return Trial(lambda: scene.ce.kill(ids), check, ids)


def _fetching(scene: Scene, ids: Sequence[JobID], dest: Path) -> Trial:
    async def check(outcome: object) -> None:
        assert isinstance(outcome, (Mapping, InterCEdeError)), repr(outcome)
        for output in (outcome if isinstance(outcome, Mapping) else {}).values():
            _check_output(output)
        again = await scene.ce.fetch_output(ids, dest)
        again.raise_for_failures()
        for output in again.values():
            _check_output(output)

    return Trial(lambda: scene.ce.fetch_output(ids, dest), check, ids)


def _check_output(output: JobOutput) -> None:
    if output.failure is None:
        assert output.stdout is not None
        assert output.stdout.read_bytes() == _WORDS
    else:
        assert output.failure.code is FailureCode.NOT_NOW, output


def _purging(scene: Scene, ids: Sequence[JobID]) -> Trial:
    async def check(outcome: object) -> None:
        assert isinstance(outcome, (Mapping, InterCEdeError)), repr(outcome)
        (await scene.ce.purge(ids)).raise_for_failures()
        codes = {why.code for why in (await scene.ce.status(ids)).failures.values()}
        assert codes == {FailureCode.NO_SUCH_JOB}

    return Trial(lambda: scene.ce.purge(ids), check, ids)


def failures_of(outcome: object) -> Iterator[Failure]:
    """What went wrong for single jobs."""
    if isinstance(outcome, BulkResult):
        yield from outcome.failures.values()


def _copy_of(job: JobID) -> str:
    _, submission, copy, *_ = job.split("/")
    return f"{submission}.{copy}"
