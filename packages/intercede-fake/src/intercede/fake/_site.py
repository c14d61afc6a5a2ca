"""The pretend machine: jobs, slots and a clock.

Nothing runs here. A job's start follows from the slots and the jobs before it, its output and its end from its program; both are
computed when somebody asks, so that there is no task to leak and no moment at which the state is half-way.

Several backends may share a site, as several processes share a cluster.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from attrs import define, field, frozen

from intercede.core import ConfigurationError, JobCounts, JobID, JobStatus, SubmissionSpec

from ._clock import Clock, FastClock
from ._payload import Program, Progress, perform

__all__ = ["NODE", "FakeJob", "FakeSite", "SiteKeys"]

#: Where every job runs.
NODE: Final = "fake-node"


@define(eq=False)
class FakeJob:
    """One job that the site knows.

    Attributes:
        id: Its id, for callers.
        resource: The resource name it was submitted under.
        submission: Its submission's id.
        copy: Its number.
        spec: What was asked for.
        program: What it runs.
        secrets: The names of its secret files.
        submitted_at: UTC, on the site's clock.
        staged_only: It lies ready and was never submitted: it never starts.
        held: It does not start until it is released.
        fetched: Its output was fetched by a destructive fetch.
        eligible: When it may start at the earliest.
        started: When it did.
        ended: When it ends or ended, known from its start on.
        verdict: How it ended, if not by itself.
    """

    id: JobID
    resource: str
    submission: str
    copy: int
    spec: SubmissionSpec
    program: Program
    secrets: frozenset[str]
    submitted_at: datetime
    staged_only: bool = False
    held: bool = False
    fetched: bool = False
    eligible: float = 0.0
    started: float | None = None
    ended: float | None = None
    verdict: JobStatus | None = None
    _whole: Progress | None = field(default=None, init=False)

    @property
    def whole(self) -> Progress:
        """All that the program does if nobody ends it."""
        if self._whole is None:
            self._whole = perform(self.program)
        return self._whole

    @property
    def out_of_time(self) -> bool:
        """It is ended by its wall time."""
        limit = self.spec.resources.wall_time_s
        assert self.whole.duration is not None
        return limit is not None and self.whole.duration > limit

    @property
    def duration(self) -> float:
        """Seconds from start to end, if nobody ends it."""
        limit = self.spec.resources.wall_time_s
        assert self.whole.duration is not None
        return self.whole.duration if limit is None else min(self.whole.duration, limit)

    def status(self, now: float) -> JobStatus:
        """Where it is."""
        if self.verdict is not None:
            return self.verdict
        if self.started is None:
            return JobStatus.HELD if self.held else JobStatus.PENDING
        assert self.ended is not None
        if now < self.ended:
            return JobStatus.RUNNING
        if self.out_of_time or self.whole.exit_code != 0:
            return JobStatus.FAILED
        return JobStatus.SUCCESSFUL

    def progress(self, now: float) -> Progress:
        """What it has done."""
        if self.started is None:
            return Progress(files=self.program.files)
        assert self.ended is not None
        elapsed = min(now, self.ended) - self.started
        assert self.whole.duration is not None
        if elapsed >= self.whole.duration:
            return self.whole
        return perform(self.program, elapsed)

    def processes(self, now: float) -> list[str]:
        """Its living processes. A child in a session of its own outlives the payload, but not a kill."""
        if self.started is None or self.verdict is not None:
            return []
        progress = self.progress(now)
        alive = [
            f"{self.id}: sleep {death - birth:g}"
            for birth, death in progress.children
            if self.started + death > now
        ]
        if progress.sleeping is not None and self.status(now) is JobStatus.RUNNING:
            # Only sleeping takes time, so a payload that runs has a `sleep` beneath it.
            argv = " ".join([self.program.name, *self.program.arguments])
            alive += [f"{self.id}: {argv}", f"{self.id}: sleep {progress.sleeping:g}"]
        return alive

    def mentions(self, marker: str) -> bool:
        """The marker occurs in its arguments or environment, which every process of it shows."""
        shown = (*self.program.arguments, *self.program.environment.values())
        return any(marker in text for text in shown)


@frozen
class SiteKeys:
    """What makes a site from a configuration."""

    speed: float
    slots: int | None
    queue_delay_s: float

    def site(self) -> FakeSite:
        """A new site."""
        return FakeSite(FastClock(self.speed), slots=self.slots, queue_delay_s=self.queue_delay_s)


_named: dict[str, tuple[SiteKeys, FakeSite]] = {}


class FakeSite:
    """A machine that several backends may share.

    Args:
        clock: What time it is; None: real time, 1,000 times as fast.
        slots: How many jobs run at once; None: all.
        queue_delay_s: Fake seconds that every job waits at least.

    Attributes:
        files: What lies on the host outside all sandboxes, by path.
        links: Sandboxes that somebody has replaced by a link to another one.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        slots: int | None = None,
        queue_delay_s: float = 0.0,
    ) -> None:
        self.clock = FastClock(1000.0) if clock is None else clock
        self.slots = slots
        self.queue_delay_s = queue_delay_s
        self.files: dict[str, bytes] = {}
        self.links: dict[JobID, JobID] = {}
        self._jobs: dict[JobID, FakeJob] = {}
        self._waiting: list[FakeJob] = []
        self._busy_until: list[float] = []
        # The sync facade drives backends from several threads, each with its own loop.
        self._lock = threading.RLock()

    @staticmethod
    def named(name: str, keys: SiteKeys) -> FakeSite:
        """The site of this name in this process, made at the first call.

        Raises:
            ConfigurationError: It was made from other keys.
        """
        known_keys, site = _named.setdefault(name, (keys, keys.site()))
        if known_keys != keys:
            raise ConfigurationError(
                f"{name!r} exists already, made with {known_keys}, not {keys}",
                path="site",
                remedy="give it the same speed, slots and queue_delay_s, or another name",
            )
        return site

    @staticmethod
    def known(name: str) -> FakeSite | None:
        """The site of this name in this process, if there is one."""
        entry = _named.get(name)
        return None if entry is None else entry[1]

    @staticmethod
    def forget(name: str | None = None) -> None:
        """Forget the site of this name, or all: the next backend that names it gets a new one."""
        if name is None:
            _named.clear()
        else:
            _named.pop(name, None)

    # ------------------------------------------------------------ for tests

    def processes(self, marker: str = "") -> list[str]:
        """The living processes of jobs in whose arguments or environment the marker occurs, as "<job id>: <arguments>"."""
        with self._lock:
            now = self._settled()
            jobs = [job for job in self._jobs.values() if not marker or job.mentions(marker)]
            return [line for job in jobs for line in job.processes(now)]

    def showing(self, text: str) -> list[JobID]:
        """The jobs, running or not, in whose arguments or environment the text occurs."""
        with self._lock:
            return [job.id for job in self._jobs.values() if job.mentions(text)]

    def __contains__(self, job: object) -> bool:
        """The site keeps something of this job."""
        return job in self._jobs

    def hold(self, job: JobID) -> None:
        """Hold a job that has not started."""
        with self._lock:
            self._settled()
            held = self._jobs[job]
            if held.started is not None or held.verdict is not None:
                raise ValueError(f"{job} has started already")
            held.held = True

    def release(self, job: JobID) -> None:
        """Let a held job start."""
        with self._lock:
            now = self._settled()
            released = self._jobs[job]
            released.held = False
            released.eligible = max(released.eligible, now)

    def lose(self, job: JobID) -> None:
        """End a job so that nobody can learn how, as a foreign kill may: it becomes FINISHED_UNKNOWN."""
        with self._lock:
            self._end(self._jobs[job], JobStatus.FINISHED_UNKNOWN)

    # ------------------------------------------------------------ for backends

    def add(self, jobs: Iterable[FakeJob]) -> None:
        """Take jobs in."""
        with self._lock:
            now = self._settled()
            for job in jobs:
                job.eligible = now + self.queue_delay_s
                self._jobs[job.id] = job
                self._waiting.append(job)

    def look(self, job: JobID, resource: str) -> tuple[FakeJob, float] | None:
        """The job and the time, if this resource name has such a job."""
        with self._lock:
            now = self._settled()
            found = self._jobs.get(job)
            return None if found is None or found.resource != resource else (found, now)

    def tagged(self, tag: str, resource: str) -> tuple[FakeJob, ...]:
        """The jobs with this tag, in the order of their submits."""
        with self._lock:
            return tuple(job for job in self._of(resource) if job.spec.tag == tag)

    def counts(self, resource: str) -> JobCounts:
        """The unfinished jobs of this resource name."""
        with self._lock:
            now = self._settled()
            states = [job.status(now) for job in self._of(resource)]
            running = states.count(JobStatus.RUNNING)
            unfinished = sum(not state.is_finished for state in states)
            return JobCounts(running=running, waiting=unfinished - running)

    def kill(self, job: FakeJob) -> bool:
        """End a job with all its processes; False if it had ended already."""
        with self._lock:
            return self._end(job, JobStatus.CANCELLED)

    def remove(self, job: FakeJob) -> None:
        """Forget a job."""
        with self._lock:
            self._jobs.pop(job.id, None)

    def why_waiting(self, job: FakeJob) -> str:
        """Why a job has not started, in the scheduler's words."""
        with self._lock:
            now = self._settled()
            if job.staged_only:
                return "it was staged and never submitted"
            if job.held:
                return "it is held"
            if job.eligible > now:
                return f"the queue delay lasts {job.eligible - now:.1f} s more"
            return f"no slot is free: {self.slots} of {self.slots} are busy"

    def _of(self, resource: str) -> Iterator[FakeJob]:
        return (job for job in self._jobs.values() if job.resource == resource)

    def _end(self, job: FakeJob, verdict: JobStatus) -> bool:
        now = self._settled()
        if job.status(now).is_finished:
            return False
        if job.started is None:
            self._waiting.remove(job)
        elif self.slots is not None and job.ended is not None:
            self._busy_until[self._busy_until.index(job.ended)] = now
            heapq.heapify(self._busy_until)
        job.ended = now
        job.verdict = verdict
        return True

    def _settled(self) -> float:
        """Start what could start until now, first come, first served; and the time."""
        now = self.clock.now()
        started: set[JobID] = set()
        for job in self._waiting:
            if job.held or job.staged_only:
                continue
            start = max(job.eligible, self._slot_free_at())
            if start > now:
                break
            job.started = start
            job.ended = start + job.duration
            self._occupy(job.ended)
            started.add(job.id)
        if started:
            self._waiting = [job for job in self._waiting if job.id not in started]
        return now

    def _slot_free_at(self) -> float:
        if self.slots is None or len(self._busy_until) < self.slots:
            return 0.0
        return self._busy_until[0]

    def _occupy(self, until: float) -> None:
        if self.slots is None:
            return
        if len(self._busy_until) == self.slots:
            heapq.heapreplace(self._busy_until, until)
        else:
            heapq.heappush(self._busy_until, until)
