"""The check of one resource, from its table to the proof that nothing is left there.

Whatever goes wrong on the way, the last step looks for everything that carries the check's tag, ends it and removes it.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from intercede.core import (
    AuthenticationError,
    BulkResult,
    Failure,
    FailureCode,
    InterCEdeError,
    JobDetails,
    JobHandle,
    JobID,
    JobStatus,
    ResourceError,
    SubmitUncertain,
)
from intercede.toolkit import JobParts, new_submission

from ._configuration import Configuration
from ._exits import ExitCode
from ._line import Late, Line, Stopped
from ._probes import (
    Probe,
    check_fetched,
    check_success,
    probes,
    state_of,
    too_early,
    unfinished,
    unread,
    words_of,
)
from ._screen import Watch
from ._steps import Cause, Course, Finding, Outcome, Result, Step, finding_of

__all__ = ["Check"]

#: The next question comes after a tenth of the time waited so far, within these bounds.
_PAUSE_SHARE: Final = 0.1
_PAUSE_LEAST_S: Final = 0.1
_PAUSE_MOST_S: Final = 5.0


#: What a resource may lack.
_ABILITIES: Final = (
    "dry_run",
    "find",
    "diagnostics",
    "counts",
    "kill",
    "fetch_output",
    "purge",
)


class _Untried(Exception):
    """A step turned out to be one that cannot be tried."""

    def __init__(self, outcome: Outcome, note: str) -> None:
        super().__init__(note)
        self.outcome = outcome
        self.note = note


class Check:
    """The check of one resource: `run` in a thread, `stop` from any.

    Args:
        configuration: Where the resource is described.
        resource: Its name.
        timeout_s: How long each step may take.
        watch: Is told how it goes.

    Attributes:
        course: What came of it so far.
        fault: What ended it that is a fault of this program.
    """

    def __init__(
        self, configuration: Configuration, resource: str, timeout_s: float, watch: Watch
    ) -> None:
        self.course = Course(resource, f"intercede-check-{secrets.token_hex(8)}")
        self.fault: BaseException | None = None
        self._line = Line(configuration, resource)
        self._timeout_s = timeout_s
        self._watch = watch
        self._abilities: frozenset[str] | None = None
        #: What the resource said to the first question, unless it was an answer.
        self._first: ResourceError | Finding | None = None
        self._jobs: list[JobID] = []
        self._purge_passed = False
        self._submitted_at = 0.0
        self._brief = self._sleeper = JobID("")
        self._ours: set[tuple[str, int]] = set()
        self._ended: set[JobID] = set()

    def run(self) -> None:
        """Take all steps. Raises nothing."""
        try:
            with tempfile.TemporaryDirectory(prefix="intercede-check-") as place:
                with suppress(Stopped):
                    self._go(Path(place))
                self._line.clear_up()
                with suppress(Stopped):
                    self._step(Step.CLEAN, self._cleaned)
        except BaseException as fault:
            self.fault = fault
        finally:
            self._line.close()
            self.course.complete()

    def stop(self) -> None:
        """End it soon: what is under way is broken off, and what was submitted is ended and removed.

        A submit is not broken off: only when it has ended is it known what there is to remove.
        """
        self._line.stop()

    def abandon(self) -> None:
        """Nobody waits for it any more: it does not even clear up."""
        self._line.abandon()

    # ------------------------------------------------------------ the course

    def _go(self, place: Path) -> None:
        self._step(Step.CONFIGURATION, self._configured)
        brief, sleeper = probes(
            place, self.course.tag, self._timeout_s if self._offers("kill") else None
        )
        self._step(Step.CONNECT, self._connected)
        self._step(Step.QUEUE, lambda: self._answering(brief))
        self._step(Step.SUBMIT, lambda: self._submitted(brief, sleeper))
        self._step(Step.FIND, self._found, "find")
        self._step(Step.STATUS, self._seen_running)
        self._step(Step.DIAGNOSTICS, lambda: self._read(sleeper), "diagnostics")
        self._step(Step.COUNTS, self._counted, "counts")
        self._step(Step.KILL, self._killed, "kill")
        self._step(Step.FINISH, self._finished)
        self._step(Step.FETCH, lambda: self._fetched(brief, place / "fetched"), "fetch_output")
        self._step(Step.PURGE, self._purged, "purge")

    def _step(self, step: Step, act: Callable[[], str], ability: str = "") -> None:
        """Take a step, if it can be taken. What `act` returns is worth knowing."""
        results = self.course.results
        if ability and self._abilities is not None and not self._offers(ability):
            results[step] = Result(Outcome.NOT_OFFERED)
        if step in results or self.course.hindrance(step) is not None:
            return
        self._line.check()
        self._tell(step)
        self._line.allow(self._timeout_s)
        began = time.monotonic()
        outcome, note, cause = Outcome.OK, "", None
        try:
            note = act()
        except _Untried as untried:
            results[step] = Result(untried.outcome, note=untried.note)
            return
        except Late:
            outcome, cause = Outcome.FAILED, Cause.of(_no_answer(self._timeout_s))
        except (InterCEdeError, OSError, Finding) as error:
            outcome, cause = Outcome.FAILED, Cause.of(error)
        results[step] = Result(outcome, time.monotonic() - began, note, cause)

    def _tell(self, step: Step, more: str = "") -> None:
        text = f"{step}: {more}" if more else str(step)
        self._watch.show(self.course.resource, len(self.course.results), text)

    # ------------------------------------------------------------ as far as the queue

    def _configured(self) -> str:
        backend = self._line.open()
        self._abilities = frozenset(name for name in _ABILITIES if hasattr(backend, name))
        return ""

    def _offers(self, ability: str) -> bool:
        return self._abilities is not None and ability in self._abilities

    def _connected(self) -> str:
        """The first question connects, logs in and is answered, all in one call: what it brings belongs to three steps."""
        results = self.course.results
        try:
            self._first = self._first_answer()
        except AuthenticationError as error:
            results[Step.AUTHENTICATE] = Result(Outcome.FAILED, cause=Cause.of(error))
            if not error.refused:
                raise _Untried(Outcome.NOT_REACHED, "there was nothing to log in with") from None
            return ""
        except ResourceError as error:  # it can say no only to who has been let in
            self._first = error
        results[Step.AUTHENTICATE] = Result(Outcome.OK, note="in the same call")
        return ""

    def _first_answer(self) -> Finding | None:
        """What is wrong with it."""
        if self._offers("find"):
            self._line.find(self.course.tag)
            return None
        nobodys = JobParts(self.course.resource, new_submission(), 0).encode()
        answer = self._line.details([nobodys])
        failure = answer.failures.get(nobodys)
        if failure is None:
            return Finding(
                f"a job that nobody submitted is {answer[nobodys].status}",
                "see whether the table leads to the resource that is meant",
            )
        return None if _is_gone(failure) else finding_of(failure, "a first question")

    def _answering(self, brief: Probe) -> str:
        if self._first is not None:
            raise self._first
        if self._offers("dry_run"):
            self._line.dry_run(brief.spec)
        if not self._offers("counts"):
            return ""
        counts = self._line.counts()
        return f"{counts.running} running, {counts.waiting} waiting"

    # ------------------------------------------------------------ two jobs

    def _submitted(self, brief: Probe, sleeper: Probe) -> str:
        handles = [self._sent_off(probe) for probe in (brief, sleeper)]
        self._brief, self._sleeper = (handle.id for handle in handles)
        self._ours = {(handle.submission, handle.copy) for handle in handles}
        return ""

    def _sent_off(self, probe: Probe) -> JobHandle:
        with self._line.shielded():
            self.course.sent = True
            try:
                submission = self._line.submit(probe.spec)
            except SubmitUncertain as error:
                self._remember(error.handles)
                raise
            self._remember(submission.handles)
        self._submitted_at = time.monotonic()
        for failure in submission.failures.values():
            raise finding_of(failure, "the job was not submitted")
        (handle,) = submission.handles
        return handle

    def _remember(self, handles: Iterable[JobHandle]) -> None:
        new = [handle.id for handle in handles]
        self._jobs += new
        self.course.left += tuple(new)

    def _found(self) -> str:
        handles = self._line.find(self.course.tag)
        there = {(handle.submission, handle.copy) for handle in handles}
        if there != self._ours:
            raise Finding(
                f"the tag of the two jobs leads to {len(there & self._ours)} of them"
                f" and to {len(there - self._ours)} others",
                "see whether the sandboxes are on a file system that every login node shares",
            )
        return ""

    def _seen_running(self) -> str:
        job = self._sleeper
        details = self._followed(Step.STATUS, job, JobStatus.RUNNING)
        if details.status.is_finished:
            raise self._too_early(details)
        if details.status is not JobStatus.RUNNING:
            waited_s = time.monotonic() - self._submitted_at
            raise unfinished(details, waited_s, "running", self._said(job))
        return f"on {details.node}" if details.node else ""

    def _read(self, sleeper: Probe) -> str:
        wanted = f"{sleeper.word}\n".encode()
        job, began = self._sleeper, time.monotonic()
        while True:
            answer = self._line.diagnostics([job])
            failure = answer.failures.get(job)
            if failure is None and answer[job].stdout_tail == wanted:
                return ""
            self._check_it_runs()
            if failure is not None and (self._line.late or failure.code not in _PASSING):
                raise finding_of(failure, "the running job's output")
            if self._line.late:
                raise unread(answer[job], wanted)
            self._pause(began)

    def _counted(self) -> str:
        began = time.monotonic()
        while True:
            counts = self._line.counts()
            if counts.running + counts.waiting:
                return f"{counts.running} running, {counts.waiting} waiting"
            self._check_it_runs()
            if self._line.late:
                raise Finding(
                    "no unfinished job is counted, though one runs",
                    "see whether the account may see its own jobs there",
                )
            self._pause(began)

    def _killed(self) -> str:
        job = self._sleeper
        if job in self._ended:
            raise _Untried(Outcome.NOT_REACHED, "the job had ended before")
        failure = self._line.kill([job]).failures.get(job)
        if failure is not None:
            raise finding_of(failure, "the job was not killed")
        began = time.monotonic()
        details = self._followed(Step.KILL, job)
        if not details.status.is_finished:
            raise unfinished(
                details, time.monotonic() - began, "ended by the kill", self._said(job)
            )
        if details.status is not JobStatus.CANCELLED:
            raise self._too_early(details)
        return ""

    def _check_it_runs(self) -> None:
        """Return unless the sleeping job has ended meanwhile."""
        answer = self._line.details([self._sleeper])
        details = answer[self._sleeper]
        if details.status.is_finished:
            self._ended.add(self._sleeper)
            raise self._too_early(details)

    def _too_early(self, details: JobDetails) -> Finding:
        waited_s = time.monotonic() - self._submitted_at
        return too_early(details, waited_s, self._said(self._sleeper))

    def _finished(self) -> str:
        job = self._brief
        details = self._followed(Step.FINISH, job)
        if not details.status.is_finished:
            waited_s = time.monotonic() - self._submitted_at
            raise unfinished(details, waited_s, "finished", self._said(job))
        check_success(details, lambda: self._said(job))
        return ""

    def _fetched(self, brief: Probe, dest: Path) -> str:
        answer = self._line.fetch_output([self._brief], dest)
        for failure in answer.failures.values():
            raise finding_of(failure, "the output was not fetched")
        return check_fetched(answer[self._brief], brief)

    # ------------------------------------------------------------ nothing left

    def _purged(self) -> str:
        self._remove(self._jobs)
        self._purge_passed = True
        return ""

    def _cleaned(self) -> str:
        if not self.course.sent:
            raise _Untried(Outcome.NOT_REACHED, "nothing was submitted")
        there = self._still_there()
        if not self._offers("purge"):
            self._end(there)
            raise _Untried(Outcome.NOT_OFFERED, f"{len(there)} jobs stay there: it has no purge")
        self._remove(there)
        if self._still_there() or (there and self._purge_passed):
            raise _undead(there)
        return f"{len(there)} jobs of failed steps were removed" if there else ""

    def _still_there(self) -> tuple[JobID, ...]:
        """What is left of the check's jobs."""
        if self._offers("find"):
            there = [handle.id for handle in self._line.find(self.course.tag)]
        else:
            answer = self._line.details(self._jobs) if self._jobs else BulkResult({})
            there = [job for job in self._jobs if not _is_gone(answer.failures.get(job))]
        self.course.left = tuple(there)
        return tuple(there)

    def _end(self, jobs: Iterable[JobID]) -> None:
        """Kill those that have not ended yet. What comes of it is seen when they are removed."""
        alive = [job for job in jobs if job not in self._ended]
        if alive and self._offers("kill"):
            self._line.kill(alive)

    def _remove(self, jobs: Sequence[JobID]) -> None:
        """End and purge them, and wait for those that take their time to end."""
        left, began = list(jobs), time.monotonic()
        while left:
            self._end(left)
            failures = self._line.purge(left).failures
            left = [job for job in left if not _is_gone(failures.get(job, _GONE))]
            gone = set(jobs) - set(left)
            self.course.left = tuple(job for job in self.course.left if job not in gone)
            if not left:
                return
            failure = failures[left[0]]
            self._ended -= {job for job in left if failures[job].code is FailureCode.NOT_FINISHED}
            if self._line.late or failure.code not in _PASSING:
                raise finding_of(failure, f"{len(left)} jobs were not removed")
            self._pause(began)

    # ------------------------------------------------------------ asking again and again

    def _followed(self, step: Step, job: JobID, wanted: JobStatus | None = None) -> JobDetails:
        """The details of a job when it has finished, or is what is wanted, or the time is over."""
        began = time.monotonic()
        while True:
            answer = self._line.details([job])
            details, failure = answer[job], answer.failures.get(job)
            if failure is not None and (self._line.late or failure.code not in _PASSING):
                raise finding_of(failure, "the job")
            if details.status.is_finished:
                self._ended.add(job)
            if details.status.is_finished or details.status is wanted or self._line.late:
                return details
            self._tell(step, state_of(details))
            self._pause(began)

    def _pause(self, began: float) -> None:
        waited_s = time.monotonic() - began
        self._line.pause(min(max(waited_s * _PAUSE_SHARE, _PAUSE_LEAST_S), _PAUSE_MOST_S))

    def _said(self, job: JobID) -> str:
        """What a job and its scheduler have said, as far as it can be had."""
        if not self._offers("diagnostics"):
            return ""
        try:
            return words_of(self._line.diagnostics([job])[job])
        except (InterCEdeError, Late):
            return ""


# ---------------------------------------------------------------- findings and failures

#: A failure that may pass.
_PASSING: Final = (FailureCode.NOT_FINISHED, FailureCode.NOT_NOW)
_GONE: Final = Failure(FailureCode.NO_SUCH_JOB, "")


def _is_gone(failure: Failure | None) -> bool:
    return failure is not None and failure.code is FailureCode.NO_SUCH_JOB


def _no_answer(seconds: float) -> Finding:
    return Finding(
        f"there was no answer within {seconds:g} s",
        "see whether the host or its scheduler is overloaded, or give it longer with --timeout",
        exit_code=ExitCode.RESOURCE,
    )


def _undead(jobs: Sequence[JobID]) -> Finding:
    return Finding(
        f"{len(jobs)} jobs were there although they had been purged",
        "see who else writes into the sandboxes there",
    )
