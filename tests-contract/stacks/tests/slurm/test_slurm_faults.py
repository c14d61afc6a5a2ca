"""Slurm, and the way to it, fail in the middle of every operation: nothing is lost, and nothing is doubled.

Three variables of the environment make a long run of it (docs/faults.md): INTERCEDE_FAULTS_CUTS, INTERCEDE_FAULTS_FROZEN_S and
INTERCEDE_FAULTS_SEED.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

from intercede.backend.batch import BatchBackend
from intercede.contract import Direction, Ending
from intercede.core import FailureCode, JobID, JobStatus, SubmitUncertain
from stacks.tests.slurm._scene import (
    ACCOUNTING,
    PATIENCE_S,
    Scene,
    native_of,
    opened,
    outcome_of,
    passing,
)
from stacks.tests.slurm._trials import OPERATIONS, failures_of, prepared

CUTS: Final = int(os.environ.get("INTERCEDE_FAULTS_CUTS", "5"))
#: Slurm's commands wait for an answer for 10 s.
FROZEN_S: Final = float(os.environ.get("INTERCEDE_FAULTS_FROZEN_S", "12"))
#: For what the controller takes with it when it dies.
GRACE_S: Final = 20.0
#: The controller writes down what it knows not at once (SAVE_MAX_WAIT).
WRITTEN_S: Final = 6.0
SEED: Final = os.environ.get("INTERCEDE_FAULTS_SEED") or secrets.token_hex(4)
operations = pytest.mark.parametrize("operation", OPERATIONS)
failing = pytest.mark.parametrize("breaking", ["frozen", "killed"])
with_slurmdbd = pytest.mark.skipif(not ACCOUNTING, reason="the cluster has no slurmdbd")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with opened(grace_s=GRACE_S, submit_deadline_s=PATIENCE_S) as scene:
        # Their probes are not what is on trial.
        await scene.ce.counts()
        await (await scene.backend(options=["--hold"])).counts()
        yield scene


# ---------------------------------------------------------------- the way is cut


@operations
async def test_an_operation_whose_connection_is_cut_loses_and_doubles_nothing(
    scene: Scene, tmp_path: Path, operation: str
) -> None:
    random, relay = Random(f"{SEED} {operation}"), scene.relay
    trial = await prepared(scene, operation, tmp_path / "whole")
    before = dict(relay.passed)
    outcome = await trial.call()
    sizes = {way: relay.passed[way] - before[way] for way in Direction}
    await trial.check(outcome)
    for number in range(CUTS):
        trial = await prepared(scene, operation, tmp_path / f"cut{number}")
        way, ending = random.choice(list(Direction)), random.choice(list(Ending))
        after = random.randrange(sizes[way])
        with noted(f"cut {way} after {after} of {sizes[way]} bytes by {ending}"):
            relay.cut(way, after, ending=ending)
            outcome = await outcome_of(trial.call())
            relay.let_through()
            assert not isinstance(outcome, SubmitUncertain), "the host can be reached again"
            await trial.check(outcome)
        await scene.end_jobs()


@contextmanager
def noted(what: str) -> Iterator[None]:
    """Whatever goes wrong in the block says what had been done, and how to do it again."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{what}; INTERCEDE_FAULTS_SEED={SEED} repeats it")
        raise


# ---------------------------------------------------------------- daemons hang, die and forget


@failing
@operations
async def test_an_operation_in_which_slurmctld_fails_loses_and_doubles_nothing(
    scene: Scene, tmp_path: Path, operation: str, breaking: str
) -> None:
    random = Random(f"{SEED} {operation} {breaking}")
    trial = await prepared(scene, operation, tmp_path / "whole")
    began = time.monotonic()
    outcome = await trial.call()
    took = time.monotonic() - began
    await trial.check(outcome)
    trial = await prepared(scene, operation, tmp_path / "broken", forgetful=breaking == "killed")
    await asyncio.sleep(WRITTEN_S)
    moment = random.uniform(0, took)
    with noted(f"{breaking} after {moment:.3f} of {took:.3f} s"):
        task = asyncio.ensure_future(outcome_of(trial.call()))
        await asyncio.sleep(moment)
        async with getattr(scene.cluster, breaking)("slurmctld"):
            await asyncio.sleep(FROZEN_S)
        await trial.check(await task)


@failing
@operations
async def test_an_operation_begun_while_slurmctld_is_away_loses_and_doubles_nothing(
    scene: Scene, tmp_path: Path, operation: str, breaking: str
) -> None:
    trial = await prepared(scene, operation, tmp_path / "broken")
    await asyncio.sleep(WRITTEN_S)
    async with getattr(scene.cluster, breaking)("slurmctld"):
        task = asyncio.ensure_future(outcome_of(trial.call()))
        await asyncio.sleep(FROZEN_S)
    await trial.check(await task)


async def test_a_cold_start_never_takes_new_jobs_for_old_ones(scene: Scene) -> None:
    """The controller has lost all that it knew, and gives out the ids of our jobs to others."""
    await scene.cluster.cold_start()
    old = await scene.another(grace_s=5.0)
    [ended] = await scene.submitted("exit 3")
    await scene.until([ended], JobStatus.FAILED)
    alone, held = await scene.running(), await scene.held(2)
    lost = [*alone, *held]
    await scene.cluster.cold_start()
    new = await scene.submitted(""), await scene.running(), await scene.held(2)
    assert [native_of(job) for ids in new for job in ids] == [
        native_of(job) for job in [ended, *lost]
    ]
    await scene.until(new[0], JobStatus.SUCCESSFUL)
    details = await _ended(old, [ended, *lost])
    assert details[ended] is JobStatus.FAILED
    assert {details[job] for job in lost} <= {
        JobStatus.FAILED,
        JobStatus.CANCELLED,
        JobStatus.FINISHED_UNKNOWN,
    }
    (await old.kill(lost)).raise_for_failures()
    assert dict(await scene.ce.status([job for ids in new for job in ids])) == {
        **dict.fromkeys(new[0], JobStatus.SUCCESSFUL),
        **dict.fromkeys(new[1], JobStatus.RUNNING),
        **dict.fromkeys(new[2], JobStatus.HELD),
    }
    assert dict(await old.status([ended, *lost])) == details


async def test_a_kill_after_a_cold_start_does_not_reach_new_jobs(scene: Scene) -> None:
    """Nobody has asked for their status since."""
    await scene.cluster.cold_start()
    lost = [*await scene.running(), *await scene.held(2)]
    await scene.cluster.cold_start()
    new = [*await scene.running(), *await scene.held(2)]
    assert list(map(native_of, new)) == list(map(native_of, lost))
    await scene.ce.kill(lost)
    await scene.until(lost, JobStatus.CANCELLED, JobStatus.FAILED)
    there = {job.id: job.state for job in await scene.all_in_slurm()}
    assert [there[native_of(job)] for job in new] == ["RUNNING", "PENDING", "PENDING"]


async def _ended(ce: BatchBackend, ids: Sequence[JobID]) -> dict[JobID, JobStatus]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = await ce.status(ids)
            if all(at.is_finished for at in status.values()):
                return dict(status)
            assert all(at is JobStatus.UNKNOWN or at.is_finished for at in status.values())
            await asyncio.sleep(0.5)


@with_slurmdbd
@failing
@operations
async def test_nothing_needs_slurmdbd(
    scene: Scene, tmp_path: Path, operation: str, breaking: str
) -> None:
    trial = await prepared(scene, operation, tmp_path / "broken")
    async with getattr(scene.cluster, breaking)("slurmdbd"):
        outcome = await trial.call()
        assert not list(failures_of(outcome))
        await trial.check(outcome)


@with_slurmdbd
@failing
async def test_a_job_that_only_slurmdbd_could_tell_of_is_not_finished_while_it_is_away(
    scene: Scene, breaking: str
) -> None:
    job = await _forgotten(scene)
    # On a slow machine slurmdbd may take longer to come back than the grace of the others.
    patient = await scene.another(grace_s=2 * PATIENCE_S)
    async with getattr(scene.cluster, breaking)("slurmdbd"):
        result = await patient.status([job])
        assert result.failures[job].code is FailureCode.NOT_NOW
    await scene.until([job], JobStatus.FAILED, JobStatus.CANCELLED, ce=patient)


async def _forgotten(scene: Scene) -> JobID:
    """A job that left no record, and that only the accounts still know."""
    [job] = await scene.held(then="exec sleep 600")
    native, submission = native_of(job), job.split("/")[1]
    await scene.scancel(native)

    async def written() -> bool:
        # The end may be written before the name is; if the controller dies between, the row is "allocation" for ever (22.05).
        script = 'sacct -n -X -P -S now-1hour -j "$1" --format=JobName,State'
        return f"{submission}|CANCELLED" in await scene.cluster.run(script, native)

    await passing(written, f"sacct's word of {submission}")
    await scene.cluster.cold_start()
    return job
