"""Liars about T: what is said of a job."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from intercede.core import (
    BulkResult,
    CopyVars,
    Failure,
    FailureCode,
    JobDetails,
    JobHandle,
    JobID,
    JobStatus,
    OpOutcome,
    ResourceError,
    StatusMap,
    Submission,
    SubmissionSpec,
)
from intercede.fake import FakeBackend, FakeConfig
from intercede.fake._faults import Trouble
from intercede.fake._site import FakeJob

from ._honest import Honest, lie

#: What a scheduler would call its jobs.
_NUMBERS = itertools.count(4711)


class SaysOtherwise(Honest):
    """Changes what status says."""

    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        """What is said instead, of which jobs."""
        return {}

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        entries = {**seen, **self.changed(seen)}
        unknown = {job for job, status in entries.items() if status is JobStatus.UNKNOWN}
        silent = Failure(FailureCode.NOT_NOW, "it says nothing of this job")
        return BulkResult(entries, {job: seen.failures.get(job, silent) for job in unknown})


# ---------------------------------------------------------------- T1


@lie("T1", "answers in the order of the scheduler")
class AnswersInItsOwnOrder(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        return BulkResult({job: seen[job] for job in sorted(seen)}, seen.failures)


@lie("T1", "answers an id that was asked for twice where it came last")
class AnswersTheLast(Honest):
    async def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        seen = await super().details(ids)
        order = list(dict.fromkeys(reversed(ids)))[::-1]
        return BulkResult({job: seen[job] for job in order}, seen.failures)


@lie("T1", "writes its script before it sees that it was asked for nothing")
class WorksForNothing(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        Path(os.devnull).write_bytes(b"")  # noqa: ASYNC240  # as one does
        return await super().status(ids)


@lie("T1", "has a thread write its script before it sees that it was asked for nothing")
class WorksForNothingElsewhere(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        await asyncio.to_thread(lambda: None)  # there is an idle thread by now
        await asyncio.to_thread(Path(os.devnull).write_bytes, b"")
        return await super().status(ids)


@lie("T1", "takes one id for a list")
class TakesAString(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        return await super().status([JobID(ids)] if isinstance(ids, str) else ids)


@lie("T1", "reads the first page of a thousand rows, and no other", "T2")
class ReadsOnePage(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        page = list(seen)[:1000]
        return BulkResult(
            {job: seen[job] for job in page},
            {job: seen.failures[job] for job in page if job in seen.failures},
        )


# ---------------------------------------------------------------- T2


@lie("T2", "strips blanks from an id")
class StripsIds(Honest):
    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        return super()._found(JobID(job.strip()), trouble)


@lie("T2", "takes the submission out of an id with a pattern that is not anchored")
class SearchesIds(Honest):
    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        match = re.search(rf"{re.escape(self.resource)}/[0-9a-f]{{16}}/[0-9]+", job)
        return super()._found(JobID(match[0]) if match else job, trouble)


@lie("T2", "does not look at the resource's name in an id")
class IgnoresTheResource(Honest):
    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        theirs = self.site._jobs.get(job)
        if theirs is None:
            return super()._found(job, trouble)
        found = self.site.look(job, theirs.resource)
        return trouble.failure(job, theirs.copy) or found or super()._found(job, trouble)


@lie("T2", "knows a job by submission and copy, whatever resource the id names")
class KnowsByTheRest(Honest):
    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        own, _, rest = job.partition("/")
        for theirs in list(self.site._jobs.values()):
            if own == self.resource and theirs.id.endswith(f"/{rest}") and rest.count("/") == 1:
                found = self.site.look(theirs.id, theirs.resource)
                return trouble.failure(job, theirs.copy) or found or super()._found(job, trouble)
        return super()._found(job, trouble)


@lie("T2", "puts ids between double quotes in a script")
class QuotesBadly(Honest):
    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        if match := re.search(r"\$\(touch (\S+)\)", job):
            self.site.files[match[1]] = b""
        return super()._found(job, trouble)


@lie("T2", "says of a job that it does not know that it is over", "T1 T5 P1 P2 P3 P4 E1")
class AbsentIsOver(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {
            job: JobStatus.FINISHED_UNKNOWN
            for job, failure in seen.failures.items()
            if failure.code is FailureCode.NO_SUCH_JOB
        }


@lie("T2", "calls a job of another resource over, since it is not in the queue")
class ForeignIsOver(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        foreign = [job for job in seen.failures if not job.startswith(f"{self.resource}/")]
        return BulkResult(
            {**seen, **dict.fromkeys(foreign, JobStatus.FINISHED_UNKNOWN)}, seen.failures
        )


@lie("T2", "gives up when more ids are strange than fit into a command line")
class GivesUpAtMany(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return dict.fromkeys(seen, JobStatus.UNKNOWN) if len(seen.failures) > 5_000 else {}


# ---------------------------------------------------------------- T3


@lie("T3", "calls a resident program that is not there successful, since nothing failed")
class RunsWhatIsNotThere(Honest):
    def _check_honourable(self, spec: SubmissionSpec) -> None:
        FakeBackend._check_honourable(self, spec)


@lie("T3", "takes an exit code modulo 128")
class ExitModulo128(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {
            job: JobStatus.SUCCESSFUL
            for job, status in seen.items()
            if status is JobStatus.FAILED and self._exit(job) == 0
        }

    def _exit(self, job: JobID) -> int | None:
        code = self.site._jobs[job].whole.exit_code
        return None if code is None else code % 128


@lie("T3", "does not know what a signal is, so that the job was successful")
class SignalIsSuccess(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {
            job: JobStatus.SUCCESSFUL
            for job, status in seen.items()
            if status is JobStatus.FAILED and self.site._jobs[job].whole.signal is not None
        }


@lie("T3", "calls a job that we killed failed", "F1 K1 K2 T4 T5")
class KilledIsFailed(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {job: JobStatus.FAILED for job, at in seen.items() if at is JobStatus.CANCELLED}


@lie("T3", "looks for a resident program in the sandbox")
class StagesNothingThatIsThere(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {
            job: JobStatus.FAILED
            for job, status in seen.items()
            if status is JobStatus.SUCCESSFUL and self.site._jobs[job].spec.resident
        }


@lie("T3", "tells a signal in details as the exit code 128 + n")
class SignalsAsExitCodes(Honest):
    def _details(self, job: FakeJob, now: float) -> JobDetails:
        details = super()._details(job, now)
        if details.signal is None:
            return details
        return evolve(details, exit_code=128 + details.signal, signal=None)


@lie("T3", "tells exit codes above 128 in details as signals")
class ExitCodesAsSignals(Honest):
    def _details(self, job: FakeJob, now: float) -> JobDetails:
        details = super()._details(job, now)
        if details.exit_code is None or details.exit_code <= 128:
            return details
        return evolve(details, exit_code=None, signal=details.exit_code - 128)


@lie("T3", "tells the end that is planned of a job that still runs")
class TellsThePlannedEnd(Honest):
    def _details(self, job: FakeJob, now: float) -> JobDetails:
        details = super()._details(job, now)
        if details.status is not JobStatus.RUNNING or job.ended is None:
            return details
        return evolve(details, ended_at=self.site.clock.moment(job.ended), exit_code=0)


# ---------------------------------------------------------------- T4


@lie("T4", "forgets how a job ended when it was asked often enough", "L4")
class ForgetsTheEnd(SaysOtherwise):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._asked: Counter[JobID] = Counter()

    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        self._asked.update(job for job, status in seen.items() if status.is_finished)
        return {job: JobStatus.UNKNOWN for job in seen if self._asked[job] > 5}


@lie("T4", "calls a finished job cancelled once somebody kills it", "K2")
class KillsTheFinished(Honest):
    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        outcome = super()._kill(job, now)
        job.verdict = JobStatus.CANCELLED
        return outcome


@lie("T4", "remembers that it killed a job only as long as it is open")
class ForgetsItsKills(SaysOtherwise):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._killed: set[JobID] = set()

    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        self._killed.add(job.id)
        return super()._kill(job, now)

    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {
            job: JobStatus.FAILED
            for job, status in seen.items()
            if status is JobStatus.CANCELLED and job not in self._killed
        }


@lie("T4", "shares one answer between all who ask at once, and gives the late ones half of it")
class SharesAnswers(SaysOtherwise):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._asking = 0

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        self._asking += 1
        try:
            await asyncio.sleep(0)
            return await super().status(ids)
        finally:
            self._asking -= 1

    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        half = list(seen)[len(seen) // 2 + 1 :]
        return dict.fromkeys(half, JobStatus.UNKNOWN) if self._asking == 7 else {}


# ---------------------------------------------------------------- T5, T6


@lie("T5", "reads a command that failed as an empty queue, and an empty queue as success")
class FailedCommandIsTheEnd(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        try:
            return await super().status(ids)
        except ResourceError:
            return BulkResult(dict.fromkeys(ids, JobStatus.SUCCESSFUL), {})


@lie("T5", "knows nothing of any job when one row does not parse")
class OneRowFreezesAll(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        if FailureCode.NOT_NOW not in {failure.code for failure in seen.failures.values()}:
            return seen
        failure = Failure(FailureCode.NOT_NOW, "the queue does not parse")
        return BulkResult(dict.fromkeys(seen, JobStatus.UNKNOWN), {**dict.fromkeys(seen, failure)})


@lie("T5", "takes a job whose row does not parse for finished")
class GarbageIsTheEnd(SaysOtherwise):
    def changed(self, seen: StatusMap) -> Mapping[JobID, JobStatus]:
        return {
            job: JobStatus.FINISHED_UNKNOWN
            for job, failure in seen.failures.items()
            if failure.code is FailureCode.NOT_NOW
        }


@lie("T5", "puts the answers to the ids in the order of the rows when a job is gone")
class ShiftsRows(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        known = [job for job in seen if job not in seen.failures]
        if not 0 < len(seen.failures) < len(seen) < 10 or len({seen[j] for j in known}) < 2:
            return seen
        rows = [seen[job] for job in known] + [JobStatus.UNKNOWN] * len(seen.failures)
        failure = Failure(FailureCode.NOT_NOW, "no row")
        answers = dict(zip(seen, rows, strict=True))
        return BulkResult(
            answers, {job: failure for job in seen if answers[job] is JobStatus.UNKNOWN}
        )


@lie("T6", "sees that an id's submission exists, and asks for what its last part says")
class TrustsTheNativePart(Honest):
    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        submission = await super().submit(spec, copies)
        return evolve(submission, handles=tuple(map(self._numbered, submission.handles)))

    def _numbered(self, handle: JobHandle) -> JobHandle:
        """The same, with an id of the scheduler's."""
        job = self.site._jobs.pop(handle.id)
        job.id = JobID(f"{handle.id}/{next(_NUMBERS)}")
        self.site._jobs[job.id] = job
        return evolve(handle, id=job.id)

    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        *rest, native = job.split("/")
        known = [other.split("/") for other in list(self.site._jobs)]
        if len(rest) == 3 and rest in (parts[:3] for parts in known):
            for parts in known:
                if parts[3:] == [native]:
                    return super()._found(JobID("/".join(parts)), trouble)
        return super()._found(job, trouble)


@lie("T6", "looks a job up by the scheduler's id alone")
class TrustsReusedIds(Honest):
    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        return super()._found(self.reused.get(job, job), trouble)
