"""Liars about K, P, C, D and E: kill, purge, counts, diagnostics and errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import evolve

from intercede.core import (
    BulkResult,
    ClosedError,
    CopyVars,
    Diagnostics,
    Failure,
    FailureCode,
    JobCounts,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OpOutcome,
    SpecRefused,
    StatusMap,
    Submission,
    SubmissionSpec,
    Unreachable,
)
from intercede.fake import FakeConfig
from intercede.fake._site import FakeJob

from ._honest import Honest, lie

Copies = int | Sequence[CopyVars]
_LOG = logging.getLogger(__name__)


# ---------------------------------------------------------------- K1


@lie("K1", "kills only what runs; what waits starts later", "S7")
class SparesThePending(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        if job.status(now) is JobStatus.PENDING:
            return OpOutcome(True)
        return super()._kill(job, now)


@lie("K1", "names at most ten jobs to the scheduler, and says that all were killed")
class KillsTen(Honest):
    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        result, rest = await super().kill(ids[:10]), ids[10:]
        ours = [job for job in rest if self.site.look(job, self.resource)]
        others = await super().kill([job for job in rest if job not in ours])
        done = dict.fromkeys(ours, OpOutcome(True))
        every = {**result, **others, **done}
        return BulkResult(
            {job: every[job] for job in dict.fromkeys(ids)}, {**result.failures, **others.failures}
        )


@lie("K1", "looks before the scheduler has ended a job, and says of its kill: not now", "K2")
class LooksTooSoon(Honest):
    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        before = await self.status(ids)
        result = await super().kill(ids)
        ran = [job for job, at in before.items() if at is JobStatus.RUNNING]
        failure = Failure(FailureCode.NOT_NOW, "it is still in the queue")
        return BulkResult(
            {**result, **dict.fromkeys(ran, OpOutcome(False, failure=failure))},
            {**result.failures, **dict.fromkeys(ran, failure)},
        )


@lie("K1", "kills the payload, and not what it started in a session of its own")
class KillsOneSession(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        outcome = super()._kill(job, now)
        if "spawn" in job.spec.arguments and outcome.note is None:
            program = evolve(job.program, arguments=("sleep", self._left(job)))
            orphan = evolve(
                job, id=JobID(f"orphan/{job.submission}/{job.copy}"), resource="orphan",
                program=program, verdict=None, started=None, ended=None,
            )  # fmt: skip
            self.site.add([orphan])
        return outcome

    def _left(self, job: FakeJob) -> str:
        """How long the child would still have slept."""
        verbs = job.spec.arguments
        return verbs[verbs.index("spawn") + 1]


@lie("K1", "sends TERM, and believes that the payload obeys", lacking="probe")
class AsksPolitely(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        if "trap" in job.spec.arguments and job.status(now) is JobStatus.RUNNING:
            return OpOutcome(True)
        return super()._kill(job, now)


@lie("K1", "kills the whole array with one of its elements", "C1")
class KillsTheArray(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        outcome = super()._kill(job, now)
        for other in list(self.site._jobs.values()):
            if other.submission == job.submission:
                self.site.kill(other)
        return outcome


# ---------------------------------------------------------------- K2


@lie("K2", "takes silence for success: a job that nobody knows was killed", "T2 P3")
class SilenceIsSuccess(Honest):
    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        result = await super().kill(ids)
        return BulkResult(dict.fromkeys(result, OpOutcome(True)), {})


@lie("K2", "does not say that a job had finished already")
class KillsWithoutNote(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        return evolve(super()._kill(job, now), note=None)


@lie("K2", "does not say that a job had ended by itself")
class NotesItsOwnKills(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        outcome = super()._kill(job, now)
        return outcome if job.verdict else evolve(outcome, note=None)


@lie("K2", "does not say that it has killed a job before")
class ForgetsItsKill(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        outcome = super()._kill(job, now)
        return evolve(outcome, note=None) if job.verdict else outcome


@lie("K2", "stops at the first id that it does not know")
class StopsAtTheUnknown(Honest):
    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        if not isinstance(ids, str) and any(
            self.site.look(job, self.resource) is None for job in ids
        ):
            failure = Failure(FailureCode.NO_SUCH_JOB, "invalid job id specified")
            return BulkResult(
                dict.fromkeys(ids, OpOutcome(False, failure=failure)), dict.fromkeys(ids, failure)
            )
        return await super().kill(ids)


@lie("K2", "fails when a job was killed before")
class KillsOnce(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        if job.status(now) is JobStatus.CANCELLED:
            return OpOutcome(
                False, failure=Failure(FailureCode.FAILED, "already completing or completed")
            )
        return super()._kill(job, now)


class OneAtATime(Honest):
    """Fails a call that comes while another one of its kind is under way."""

    _busy = False

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Whether there was no other."""
        alone, self._busy = not self._busy, True
        try:
            await asyncio.sleep(0)
            yield alone
        finally:
            self._busy = self._busy and not alone

    def refused(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """What is said of all jobs then."""
        failure = Failure(FailureCode.FAILED, "resource temporarily unavailable")
        return BulkResult(
            dict.fromkeys(ids, OpOutcome(False, failure=failure)), dict.fromkeys(ids, failure)
        )


@lie("K2", "fails a kill while another one is under way")
class KillsOneAtATime(OneAtATime):
    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        async with self.alone() as alone:
            return await super().kill(ids) if alone else self.refused(ids)


@lie("K2", "finds no job that was killed")
class FindsNoKilled(Honest):
    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        return tuple(
            handle
            for handle in await super().find(tag)
            if self.site._jobs[handle.id].verdict is not JobStatus.CANCELLED
        )


# ---------------------------------------------------------------- P


@lie("P1", "removes every path that begins with the copy's: 1, 10 and 11")
class PurgesTheNeighbour(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        outcome = super()._purge(job, now)
        if isinstance(outcome, OpOutcome):
            for other in list(self.site._jobs.values()):
                if other.id.startswith(job.id):
                    self.site.remove(other)
        return outcome


@lie("P1", "follows a link that lies where the sandbox was")
class PurgesThroughLinks(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        outcome = super()._purge(job, now)
        if target := self.site.links.pop(job.id, None):
            self.site._jobs.pop(target, None)
        return outcome


@lie("P1", "removes what a link of the payload's leads to")
class PurgesLinkedFiles(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        outcome = super()._purge(job, now)
        for entry in job.progress(now).files.values():
            self.site.files.pop(f"{entry.target}/treasure", None)
        return outcome


@lie("P1", "forgets the job, and leaves its sandbox")
class LeavesTheSandbox(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        outcome = super()._purge(job, now)
        if isinstance(outcome, OpOutcome):
            job.resource = "nobody"
            self.site._jobs[job.id] = job
        return outcome


@lie("P2", "fails when a job was purged before")
class PurgesOnce(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._purged: set[JobID] = set()

    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        again = self._purged & set(ids)
        await asyncio.sleep(0)
        result = await super().purge(ids)
        self._purged |= {job for job, outcome in result.items() if outcome.ok}
        failure = Failure(FailureCode.FAILED, "cannot remove: no such directory")
        return BulkResult(
            {**result, **dict.fromkeys(again, OpOutcome(False, failure=failure))},
            {**result.failures, **dict.fromkeys(again, failure)},
        )


@lie("P2", "fails a purge while another one is under way")
class PurgesOneAtATime(OneAtATime):
    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        async with self.alone() as alone:
            return await super().purge(ids) if alone else self.refused(ids)


@lie("P3", "answers from its cache for a job that was purged", "P1 P2 P4 T5")
class RemembersThePurged(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._ends: dict[JobID, JobStatus] = {}

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        self._ends.update((job, at) for job, at in seen.items() if at.is_finished)
        known = self._ends.keys() & seen.keys()
        return BulkResult(
            {job: self._ends.get(job, at) for job, at in seen.items()},
            {job: failure for job, failure in seen.failures.items() if job not in known},
        )


@lie("P3", "still shows the output of a job that was purged")
class ShowsThePurged(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._purged: set[JobID] = set()

    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        self._purged.add(job.id)
        return super()._purge(job, now)

    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        seen = await super().diagnostics(ids)
        return BulkResult(
            dict(seen), {job: f for job, f in seen.failures.items() if job not in self._purged}
        )


@lie("P4", "purges a job that still runs, after killing it")
class PurgesTheRunning(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        self.site.kill(job)
        self.site.remove(job)
        return OpOutcome(True)


@lie("P4", "empties the streams of a job before it sees that it still runs")
class PurgesBeforeItLooks(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        if job.status(now) is JobStatus.RUNNING:
            job.program = evolve(job.program, arguments=("sleep", f"{job.whole.duration}"))
            job._whole = None
        return super()._purge(job, now)


@lie("P4", "purges a job that waits")
class PurgesThePending(Honest):
    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        if job.status(now) is JobStatus.PENDING:
            self.site.kill(job)
        return super()._purge(job, now)


@lie("P4", "purges nothing of a bulk in which one job still runs")
class RefusesAll(Honest):
    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        if not isinstance(ids, str):
            for job in ids:
                found = self.site.look(job, self.resource)
                if found and not found[0].status(found[1]).is_finished:
                    failure = Failure(FailureCode.NOT_FINISHED, "one of them still runs")
                    return BulkResult(
                        dict.fromkeys(ids, OpOutcome(False, failure=failure)),
                        dict.fromkeys(ids, failure),
                    )
        return await super().purge(ids)


# ---------------------------------------------------------------- C1


class Counts(Honest):
    """Counts other jobs than it should."""

    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        """Whether the job is counted."""
        return job.resource == self.resource and not status.is_finished

    async def counts(self) -> JobCounts:
        await super().counts()
        now = self.site.clock.now()
        jobs = [(job, job.status(now)) for job in list(self.site._jobs.values())]
        states = [status for job, status in jobs if self.counted(job, status)]
        running = states.count(JobStatus.RUNNING)
        return JobCounts(running=running, waiting=len(states) - running)


@lie("C1", "counts the jobs of all users")
class CountsEverybody(Counts):
    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        return not status.is_finished


@lie("C1", "leaves out what waits", "P4")
class CountsTheRunning(Counts):
    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        return super().counted(job, status) and status is JobStatus.RUNNING


@lie("C1", "counts an array as one job", "S9 P4")
class CountsArraysOnce(Counts):
    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        return super().counted(job, status) and job.copy == 0


@lie("C1", "takes the one blank line of an empty queue for a job", "S6 S8")
class CountsABlankLine(Honest):
    async def counts(self) -> JobCounts:
        counts = await super().counts()
        return counts if self.site._jobs else JobCounts(running=0, waiting=1)


@lie("C1", "answers every other time what it answered the time before")
class CountsEveryOtherTime(Honest):
    _known: JobCounts | None = None

    async def counts(self) -> JobCounts:
        counts, known = await super().counts(), self._known
        self._known = counts if known is None else None
        return known or counts


@lie("C1", "takes an array for done when its first copy is")
class TakesTheFirstForAll(Counts):
    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        first = self.site.look(JobID(f"{self.resource}/{job.submission}/0"), self.resource)
        done = first and first[0].status(first[1]) is JobStatus.SUCCESSFUL
        return super().counted(job, status) and not done


@lie("C1", "counts all as waiting", lacking="narrow")
class CountsRunningAsWaiting(Honest):
    async def counts(self) -> JobCounts:
        counts = await super().counts()
        return JobCounts(running=0, waiting=counts.running + counts.waiting)


@lie("C1", "counts a failed job as waiting to be looked at")
class CountsTheFailed(Counts):
    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        return super().counted(job, status) or (
            job.resource == self.resource and status is JobStatus.FAILED
        )


@lie("C1", "counts a killed job until it is purged")
class CountsTheKilled(Counts):
    def counted(self, job: FakeJob, status: JobStatus) -> bool:
        return super().counted(job, status) or (
            job.resource == self.resource and status is JobStatus.CANCELLED
        )


@lie("C1", "counts what waits as running")
class CountsWaitingAsRunning(Honest):
    async def counts(self) -> JobCounts:
        counts = await super().counts()
        return JobCounts(running=counts.running + counts.waiting, waiting=0)


# ---------------------------------------------------------------- D1


class ShowsOtherwise(Honest):
    """Changes what diagnostics show."""

    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        """What is shown instead."""
        return seen

    def _diagnostics(self, job: FakeJob, now: float) -> Diagnostics:
        return self.changed(super()._diagnostics(job, now), job, now)


@lie("D1", "shows output only once")
class ShowsOnce(ShowsOtherwise):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._shown: dict[JobID, int] = {}

    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        old = self._shown.get(job.id, 0)
        self._shown[job.id] = len(seen.stdout_tail)
        return evolve(seen, stdout_tail=seen.stdout_tail[old:])


@lie("D1", "shows all of a log that has five million bytes")
class ShowsEverything(ShowsOtherwise):
    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        return evolve(seen, stdout_tail=bytes(job.progress(now).stdout), truncated=False)


@lie("D1", "shows the beginning of a long output")
class ShowsTheHead(ShowsOtherwise):
    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        head = bytes(job.progress(now).stdout)[: len(seen.stdout_tail)]
        return evolve(seen, stdout_tail=head)


@lie("D1", "does not say why a job has not started")
class SaysNotWhy(ShowsOtherwise):
    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        return evolve(seen, log_tail=b"" if job.started is None else seen.log_tail)


@lie("D1", "shows nothing of a job that has finished")
class ShowsTheRunning(ShowsOtherwise):
    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        if job.status(now).is_finished:
            return evolve(seen, stdout_tail=b"", stderr_tail=b"")
        return seen


@lie("D1", "shows nothing of a job that has failed")
class ShowsTheSuccessful(ShowsOtherwise):
    def changed(self, seen: Diagnostics, job: FakeJob, now: float) -> Diagnostics:
        if job.status(now) is JobStatus.FAILED:
            return evolve(seen, stdout_tail=b"", stderr_tail=b"")
        return seen


@lie("D1", "shows nothing when one of the jobs is not known")
class ShowsAllOrNothing(Honest):
    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        seen = await super().diagnostics(ids)
        nothing = dict.fromkeys(seen, Diagnostics()) if seen.failures else dict(seen)
        return BulkResult(nothing, seen.failures)


# ---------------------------------------------------------------- E


@lie("E1", "does not say which resource was closed")
class AnonymousErrors(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        try:
            return await super().status(ids)
        except ClosedError as error:
            raise ClosedError(f"closed: {error}") from None


@lie("E1", "gives no remedy when it refuses")
class GivesNoRemedy(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        try:
            return await super().submit(spec, copies)
        except SpecRefused as refused:
            raise SpecRefused(refused.field, "not acceptable").at(self.resource, "submit") from None


class OwnRefusal(SpecRefused):
    """A refusal that arrives in another process as something else."""

    def __reduce__(self) -> tuple[type[SpecRefused], tuple[str, str]]:
        return SpecRefused, ("", "refused")


@lie("E1", "raises errors that lose what they say on the way to another process")
class LosesWordsInPickles(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        try:
            return await super().submit(spec, copies)
        except SpecRefused as refused:
            raise OwnRefusal(refused.field, str(refused), remedy=refused.remedy).at(
                self.resource, "submit"
            ) from None


@lie("E1", "has no words for the failure of one job")
class SaysNothing(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        return BulkResult(
            dict(seen), {job: Failure(f.code, "?") for job, f in seen.failures.items()}
        )


@lie("E1", "does not name the resource that is not reached")
class UnreachableSomewhere(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        try:
            return await super().status(ids)
        except Unreachable:
            raise Unreachable("connection refused") from None


@lie("E1", "takes a full disk here for a failure of the job")
class HidesDiskErrors(Honest):
    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        try:
            return await super().fetch_output(ids, dest)
        except OSError as error:
            failure = Failure(FailureCode.FAILED, str(error))
            return BulkResult(
                dict.fromkeys(ids, JobOutput(failure=failure)), dict.fromkeys(ids, failure)
            )


@lie("E2", "logs what it submits")
class LogsSecrets(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        secrets = [] if isinstance(copies, int) else [dict(v.secrets) for v in copies]
        _LOG.debug("submit %s with %s", spec.executable, secrets)
        return await super().submit(spec, copies)


@lie("E2", "writes the sandbox to the log that is fetched", "F8")
class SecretsInTheJobLog(Honest):
    def _log(self, job: FakeJob, now: float) -> bytes:
        said = [bytes(job.program.files[name].content) for name in sorted(job.secrets)]
        return super()._log(job, now) + b"".join(said)


@lie("E2", "shows the copies in the error when it refuses")
class SecretsInErrors(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        try:
            return await super().submit(spec, copies)
        except SpecRefused as refused:
            secrets = [] if isinstance(copies, int) else [dict(v.secrets) for v in copies]
            raise SpecRefused(refused.field, f"{refused}: {secrets}", remedy=refused.remedy).at(
                self.resource, "submit"
            ) from None
