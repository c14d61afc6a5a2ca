"""A batch system that is not there: the commands that `FakeScheduler` speaks, answered from a `FakeSite`.

Every answer begins with the line `fake-queue 1`, so that nothing else is taken for one; its rows are fields between tabs, "-" for none,
moments in seconds since 1970.

    fake-info                                 KEY VALUE
    fake-submit MARK RUNNER QUEUE COPY ...    COPY ID
    fake-queue ID ...                         ID STATE SUBMITTED STARTED REASON      of those that wait or run
                                              ID STATE SUBMITTED STARTED ENDED       of those that are ending
                                              ID HOW SUBMITTED STARTED ENDED         of those that have ended and are still there
    fake-history ID ...                       ID HOW SUBMITTED STARTED ENDED         of those that have ended
    fake-kill ID ...                          -
    fake-list PREFIX                          ID STATE MARK                          of all that wait, run or are ending
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from intercede.core import Command, CommandResult, JobID, JobStatus, SubmissionSpec

from ._payload import PAYLOAD, Program
from ._site import FakeJob, FakeSite

__all__ = ["ENDING", "HEADER", "FakeQueue"]

#: The first line of every answer.
HEADER: Final = "fake-queue 1"

#: The state of a job that has ended and keeps its place.
ENDING: Final = "ending"

_RESOURCE: Final = "fake-queue"
_NONE: Final = "-"
_STATES: Final[Mapping[JobStatus, str]] = {
    JobStatus.PENDING: "waiting",
    JobStatus.HELD: "held",
    JobStatus.RUNNING: "running",
}
_LISTED: Final = (*_STATES.values(), ENDING)


class FakeQueue:
    """A pretend batch system.

    Args:
        site: The machine, with its clock and slots; None: a new one.
        verbs: What every job does, as the payload's verbs.
        ending_s: How long a job that has ended is still being cleared away, in seconds of the site's clock.
        kept_s: How long the queue tells of it then.

    Attributes:
        handlers: Its commands, for a `FakeTransport`.
        site: The machine.
    """

    def __init__(
        self,
        site: FakeSite | None = None,
        verbs: Sequence[str] = ("sleep", "60"),
        *,
        ending_s: float = 0.0,
        kept_s: float = 0.0,
    ) -> None:
        self.site = site or FakeSite()
        self._ending_s = ending_s
        self._kept_s = kept_s
        self._verbs = tuple(verbs)
        self._last = 0
        self._jobs: list[FakeJob] = []
        self.handlers: Mapping[str, Callable[[Command], CommandResult]] = {
            "fake-info": self._info,
            "fake-submit": self._submit,
            "fake-queue": self._queue,
            "fake-history": self._history,
            "fake-kill": self._kill,
            "fake-list": self._list,
        }

    def hold(self, native: str) -> None:
        """Hold a job that has not started."""
        self.site.hold(JobID(native))

    def lose(self, native: str) -> None:
        """End a job so that nobody can learn how."""
        self.site.lose(JobID(native))

    def _info(self, command: Command) -> CommandResult:
        facts = [("queues", "default"), ("max_cpus", "64"), ("max_wall_time_s", "604800")]
        return _answer(facts)

    def _submit(self, command: Command) -> CommandResult:
        if len(command.argv) < 5:
            return CommandResult(2, stderr=b"fake-submit: too few arguments\n")
        mark, _runner, queue, *copies = command.argv[1:]
        if queue not in (_NONE, "default"):
            return CommandResult(1, stderr=f"fake-submit: no queue {queue}\n".encode())
        self._last += 1
        jobs = [self._job(mark, f"{self._last}.{int(copy)}", int(copy)) for copy in copies]
        self._jobs.extend(jobs)
        self.site.add(jobs)
        return _answer((str(job.copy), job.id) for job in jobs)

    def _job(self, mark: str, native: str, copy: int) -> FakeJob:
        spec = SubmissionSpec(PAYLOAD, self._verbs, resident=True)
        return FakeJob(
            id=JobID(native),
            resource=_RESOURCE,
            submission=mark,
            copy=copy,
            spec=spec,
            program=Program(PAYLOAD, spec.arguments, {}, {}),
            secrets=frozenset(),
            submitted_at=self.site.clock.moment(self.site.clock.now()),
        )

    def _queue(self, command: Command) -> CommandResult:
        return _answer(
            (
                job.id,
                state,
                _seconds(job.submitted_at),
                self._moment(job.started),
                self._last_word(job, now),
            )
            for job, now in self._known(command.argv[1:])
            if (state := self._state(job, now)) is not None
        )

    def _state(self, job: FakeJob, now: float) -> str | None:
        """What the queue says of a job; None: nothing any more."""
        status = job.status(now)
        if not status.is_finished:
            return _STATES[status]
        assert job.ended is not None
        if now < job.ended + self._ending_s:
            return ENDING
        return _how(job) if now < job.ended + self._ending_s + self._kept_s else None

    def _last_word(self, job: FakeJob, now: float) -> str:
        if job.status(now).is_finished:
            return self._moment(job.ended)
        return self.site.why_waiting(job) if job.started is None else _NONE

    def _history(self, command: Command) -> CommandResult:
        return _answer(
            (
                job.id,
                _how(job),
                _seconds(job.submitted_at),
                self._moment(job.started),
                self._moment(job.ended),
            )
            for job, now in self._known(command.argv[1:])
            if job.status(now).is_finished and self._state(job, now) != ENDING
        )

    def _kill(self, command: Command) -> CommandResult:
        for job, _ in list(self._known(command.argv[1:])):
            self.site.kill(job)
        return _answer(())

    def _list(self, command: Command) -> CommandResult:
        prefix = command.argv[1] if len(command.argv) > 1 else ""
        return _answer(
            (job.id, state, job.submission)
            for job, now in self._known(job.id for job in self._jobs)
            if (state := self._state(job, now)) in _LISTED and job.submission.startswith(prefix)
        )

    def _known(self, natives: Iterable[str]) -> Iterable[tuple[FakeJob, float]]:
        """The jobs, and the time."""
        for native in natives:
            found = self.site.look(JobID(native), _RESOURCE)
            if found is not None:
                yield found

    def _moment(self, seconds: float | None) -> str:
        return _NONE if seconds is None else _seconds(self.site.clock.moment(seconds))


def _how(job: FakeJob) -> str:
    if job.verdict is JobStatus.CANCELLED:
        return "killed"
    if job.verdict is not None:
        return "lost"
    if job.whole.signal is not None:
        return f"signal:{job.whole.signal}"
    return f"exit:{job.whole.exit_code}"


def _seconds(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).timestamp():.6f}"


def _answer(rows: Iterable[Sequence[str]]) -> CommandResult:
    lines = [HEADER, *("\t".join(row) for row in rows)]
    return CommandResult(0, "".join(f"{line}\n" for line in lines).encode())
