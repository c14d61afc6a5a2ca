"""A whole backend without a machine.

Every method is the contract's, on a `FakeSite`: check the call, look at the site, answer per job. It doubles as the shortest complete
example of a backend.

A backend object has exactly the abilities it was made with: `make_backend` builds a class that lacks what the configuration takes away.
"""

from __future__ import annotations

import secrets as random
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar, cast

from attrs import evolve, field, frozen

from intercede.core import (
    BulkResult,
    ConfigurationError,
    CopyVars,
    Diagnostics,
    DryRun,
    Failure,
    FailureCode,
    JobBackend,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OpOutcome,
    SpecRefused,
    StatusMap,
    Submission,
    SubmissionSpec,
    SubmitUncertain,
    distinct_ids,
    expand_copies,
)
from intercede.core.registry import describe

from ._content import Content
from ._faults import Fault, Faults, Operation, Trouble, faults_of, texts
from ._lifetime import Lifetime, in_thread
from ._output import Gathered, Limits, over_limit, select, write_output
from ._payload import Entry, Program
from ._site import NODE, FakeJob, FakeSite, SiteKeys
from ._staging import read_sandbox, with_secrets

__all__ = ["CAPABILITIES", "FakeBackend", "FakeConfig", "make_backend"]

V = TypeVar("V")

_BACKEND: Final = "fake"
_LOG: Final = "log"

#: What can be taken away; without `fetch_output` there is no `destructive` either.
CAPABILITIES: Final = (
    "fetch_output",
    "kill",
    "purge",
    "counts",
    "diagnostics",
    "details",
    "find",
    "dry_run",
)


@frozen
class FakeConfig:
    """The keys of a fake resource."""

    site: str | None = field(
        default=None,
        metadata=describe(
            "Name of a site in this process that other backends share; none: its own"
        ),
    )
    speed: float = field(
        default=1000.0, metadata=describe("How fast time passes", unit="fake s per s")
    )
    slots: int | None = field(
        default=None, metadata=describe("How many jobs run at once; none: all")
    )
    queue_delay_s: float = field(
        default=0.0, metadata=describe("How long every job waits at least", unit="fake s")
    )
    without: tuple[str, ...] = field(
        default=(),
        converter=texts,
        metadata=describe(f"Abilities to take away, of {', '.join(CAPABILITIES)}"),
    )
    destructive: bool = field(
        default=False, metadata=describe("A fetch removes the output, so that it succeeds once")
    )
    queues: tuple[str, ...] = field(
        default=("default",), converter=texts, metadata=describe("The queues there are")
    )
    max_cpus: int = field(default=64, metadata=describe("Cores a copy can have"))
    max_memory_mb: int = field(
        default=262_144, metadata=describe("Memory a copy can have", unit="MiB")
    )
    max_wall_time_s: int = field(
        default=604_800, metadata=describe("Time a copy can have", unit="fake s")
    )
    max_gpus: int = field(default=0, metadata=describe("Accelerators a copy can have"))
    max_nodes: int = field(default=1, metadata=describe("Hosts a copy can have"))
    output_max_bytes: int = field(
        default=4 * 2**30, metadata=describe("What one job may bring back", unit="bytes")
    )
    output_max_files: int = field(
        default=100_000, metadata=describe("How many files one job may bring back")
    )
    output_max_seconds: float = field(
        default=3600.0, metadata=describe("How long one job's fetch may take", unit="fake s")
    )
    fetch_bytes_per_s: float | None = field(
        default=None,
        metadata=describe("How fast output arrives; none: at once", unit="bytes per fake s"),
    )
    tail_bytes: int = field(
        default=4096, metadata=describe("How much of each stream diagnostics shows", unit="bytes")
    )
    faults: tuple[Fault, ...] = field(
        default=(), converter=faults_of, metadata=describe("What goes wrong; a list of tables")
    )

    def __attrs_post_init__(self) -> None:
        for name in self.without:
            if name not in CAPABILITIES:
                raise ConfigurationError(
                    f"{name!r} is not an ability that can be taken away",
                    path="without",
                    candidates=CAPABILITIES,
                )
        for name, least in (
            ("speed", 1e-6),
            ("queue_delay_s", 0),
            ("tail_bytes", 1),
            ("output_max_bytes", 1),
            ("output_max_files", 0),
            ("output_max_seconds", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"{getattr(self, name)} is too small; give at least {least}", path=name
                )
        for name in ("slots", "fetch_bytes_per_s"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{value} is too small; give at least 1", path=name)

    @property
    def site_keys(self) -> SiteKeys:
        """What of it makes the site."""
        return SiteKeys(self.speed, self.slots, self.queue_delay_s)


class FakeBackend:
    """A backend with every ability, on a pretend machine.

    Args:
        config: Limits, faults and what else the registry's table has; None: defaults.
        resource: The resource's name, part of every job id.
        site: The machine, with its clock; None: the one that `config` describes.

    Attributes:
        resource: Its name.
        site: The machine.
        faults: What goes wrong; may be changed at any time.

    Raises:
        ConfigurationError: `config` takes an ability away: use `make_backend`.
    """

    def __init__(
        self,
        config: FakeConfig | None = None,
        resource: str = "fake",
        *,
        site: FakeSite | None = None,
    ) -> None:
        self._config = config or FakeConfig()
        for name in self._config.without:
            if hasattr(type(self), name):
                raise ConfigurationError(
                    f"a {type(self).__name__} has {name!r}",
                    path="without",
                    remedy="make_backend makes one that lacks it",
                )
        self.resource = resource
        self.site = site or _site_of(self._config)
        self.faults = Faults(self._config.faults)
        self._lifetime = Lifetime(resource, self.site.clock, self.faults)
        self._limits = Limits(self._config.output_max_bytes, self._config.output_max_files)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.resource!r}>"

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        self._lifetime.check("open")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Jobs are not affected. Idempotent."""
        self._lifetime.close()

    # ------------------------------------------------------------ submit

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        """As `Submitter`. Inputs are read whole, into memory."""
        variants = self._variants(copies, Operation.SUBMIT)
        trouble = await self._lifetime.begin(Operation.SUBMIT)
        programs = await self._prepared(spec, variants, Operation.SUBMIT)
        self._lifetime.check(Operation.SUBMIT)

        submission = random.token_hex(8)
        submitted_at = self.site.clock.moment(self.site.clock.now())
        jobs = [
            FakeJob(
                id=JobID(f"{self.resource}/{submission}/{copy}"),
                resource=self.resource,
                submission=submission,
                copy=copy,
                spec=spec,
                program=program,
                secrets=frozenset(variants[copy].secrets),
                submitted_at=submitted_at,
                staged_only=trouble.staged_only,
            )
            for copy, program in enumerate(programs)
        ]
        failures = {job.copy: trouble.failure(job.id, job.copy) for job in jobs}
        accepted = [job for job in jobs if failures[job.copy] is None]
        self.site.add(accepted)
        handles = tuple(map(_handle, accepted))
        if trouble.done is not None or trouble.staged_only:
            raise SubmitUncertain(
                "the connection broke before the answer came",
                mark=submission,
                handles=handles,
                resource=self.resource,
                operation=Operation.SUBMIT,
                remedy="find the tag, or ask for the status of the handles; do not submit again",
            )
        return Submission(
            submission,
            handles,
            {copy: failure for copy, failure in failures.items() if failure is not None},
        )

    async def dry_run(self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1) -> DryRun:
        """As `SupportsDryRun`."""
        variants = self._variants(copies, Operation.DRY_RUN)
        trouble = await self._lifetime.begin(Operation.DRY_RUN)
        programs = await self._prepared(spec, variants, Operation.DRY_RUN)
        files: dict[str, bytes] = {}
        for copy, program in enumerate(programs):
            for name, entry in program.files.items():
                if name in variants[copy].secrets:
                    files[f"{copy}/work/{name}"] = b""
                elif copy == 0:
                    files[f"work/{name}"] = bytes(entry.content)
        self._lifetime.end(trouble, Operation.DRY_RUN)
        return DryRun(
            command=shlex.join([spec.executable, *spec.arguments]),
            files=files,
            details={"resource": self.resource, "copies": str(len(variants)), "node": NODE},
        )

    def _variants(
        self, copies: int | Sequence[CopyVars], operation: Operation
    ) -> tuple[CopyVars, ...]:
        try:
            return expand_copies(copies)
        except SpecRefused as refusal:
            raise refusal.at(self.resource, operation) from None

    async def _prepared(
        self, spec: SubmissionSpec, variants: Sequence[CopyVars], operation: Operation
    ) -> list[Program]:
        """What each copy would run, after all checks; nothing is recorded yet (S6)."""

        def read() -> list[Program]:
            shared: dict[str, Entry] = read_sandbox(spec)
            return [
                with_secrets(spec, shared, copy, variables)
                for copy, variables in enumerate(variants)
            ]

        try:
            self._check_honourable(spec)
            return await in_thread(read)
        except SpecRefused as refusal:
            raise refusal.at(self.resource, operation) from None

    def _check_honourable(self, spec: SubmissionSpec) -> None:
        for index, ref in enumerate(spec.inputs):
            if ref.url is not None:
                raise SpecRefused(
                    f"inputs[{index}].url",
                    f"{ref.url!r} cannot be fetched from here",
                    remedy="give source or content",
                )
        for index, member in enumerate(spec.outputs.members):
            if member.destination is not None:
                raise SpecRefused(
                    f"outputs.members[{index}].destination",
                    f"{member.destination!r} cannot be uploaded to from here",
                    remedy="leave it out, and fetch the output",
                )
        if spec.container is not None:
            raise SpecRefused(
                "container", f"{spec.container!r}: there are none here", remedy="leave it out"
            )
        self._check_resources(spec)

    def _check_resources(self, spec: SubmissionSpec) -> None:
        asked, config = spec.resources, self._config
        if asked.queue is not None and asked.queue not in config.queues:
            raise SpecRefused(
                "resources.queue",
                f"{asked.queue!r} is not a queue",
                remedy=f"there are: {', '.join(config.queues) or 'none; leave it out'}",
            )
        for name, value, limit in (
            ("cpus", asked.cpus, config.max_cpus),
            ("memory_mb", asked.memory_mb, config.max_memory_mb),
            ("wall_time_s", asked.wall_time_s, config.max_wall_time_s),
            ("gpus", asked.gpus, config.max_gpus),
            ("nodes", asked.nodes, config.max_nodes),
        ):
            if value is not None and value > limit:
                raise SpecRefused(
                    f"resources.{name}",
                    f"{value} exceeds the limit of {limit}",
                    remedy="ask for less",
                )

    # ------------------------------------------------------------ per job

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        """As `Monitor`."""
        return await self._each(
            Operation.STATUS,
            ids,
            lambda job, now: job.status(now),
            lambda failure: JobStatus.UNKNOWN,
        )

    async def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        """As `SupportsDetails`."""
        return await self._each(
            Operation.DETAILS,
            ids,
            self._details,
            lambda failure: JobDetails(JobStatus.UNKNOWN, reason=failure.message),
        )

    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        """As `SupportsLiveDiagnostics`."""
        return await self._each(
            Operation.DIAGNOSTICS, ids, self._diagnostics, lambda failure: Diagnostics()
        )

    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """As `Cancellable`."""
        return await self._each(Operation.KILL, ids, self._kill, _not_ok)

    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """As `Purgeable`."""
        return await self._each(Operation.PURGE, ids, self._purge, _not_ok)

    async def _each(
        self,
        operation: Operation,
        ids: Sequence[JobID],
        act: Callable[[FakeJob, float], V | Failure],
        failed: Callable[[Failure], V],
    ) -> BulkResult[V]:
        """Answer for every id (T1): what `act` says, or what stands for a failure."""
        wanted = distinct_ids(ids)
        self._lifetime.check(operation)
        if not wanted:
            return BulkResult({})
        trouble = await self._lifetime.begin(operation)
        entries: dict[JobID, V] = {}
        failures: dict[JobID, Failure] = {}
        for job in wanted:
            found = self._found(job, trouble)
            answer = found if isinstance(found, Failure) else act(*found)
            if isinstance(answer, Failure):
                failures[job] = answer
                answer = failed(answer)
            entries[job] = answer
        self._lifetime.end(trouble, operation)
        return BulkResult(entries, failures)

    def _found(self, job: JobID, trouble: Trouble) -> tuple[FakeJob, float] | Failure:
        """The job and the time. An id is only ever looked up, so that a hostile one is an unknown one (T2)."""
        found = self.site.look(job, self.resource)
        if found is None:
            return Failure(
                FailureCode.NO_SUCH_JOB,
                f"{self.resource} has no job {job[:80]!r}; it may have been purged",
            )
        return trouble.failure(job, found[0].copy) or found

    def _details(self, job: FakeJob, now: float) -> JobDetails:
        status = job.status(now)
        details = JobDetails(status, native_state=status.value, reason=self._reason(job, now))
        if job.started is None:
            ended = job.ended
            return evolve(
                details, ended_at=None if ended is None else self.site.clock.moment(ended)
            )
        details = evolve(details, started_at=self.site.clock.moment(job.started), node=NODE)
        if not status.is_finished or job.ended is None:
            return details
        details = evolve(details, ended_at=self.site.clock.moment(job.ended))
        if job.verdict is not None or job.out_of_time:
            return details
        return evolve(details, exit_code=job.whole.exit_code, signal=job.whole.signal)

    def _reason(self, job: FakeJob, now: float) -> str | None:
        status = job.status(now)
        if status in (JobStatus.PENDING, JobStatus.HELD):
            return self.site.why_waiting(job)
        if status is JobStatus.CANCELLED:
            return "it was killed"
        if status is JobStatus.FINISHED_UNKNOWN:
            return "it vanished"
        if status is not JobStatus.FAILED:
            return None
        if job.out_of_time:
            return f"it exceeded its wall time of {job.spec.resources.wall_time_s} s"
        if job.whole.signal is not None:
            return f"it died by signal {job.whole.signal}"
        return f"it ended with exit code {job.whole.exit_code}"

    def _log(self, job: FakeJob, now: float) -> bytes:
        """The scheduler's own words about a job."""
        details = self._details(job, now)
        lines = [f"submitted {job.submitted_at.isoformat()}"]
        if details.started_at is not None:
            lines.append(f"started {details.started_at.isoformat()} on {NODE}")
        if details.reason is not None:
            lines.append(f"{details.status}: {details.reason}")
        if details.ended_at is not None:
            lines.append(f"ended {details.ended_at.isoformat()}: {details.status}")
        return "".join(f"{line}\n" for line in lines).encode()

    def _diagnostics(self, job: FakeJob, now: float) -> Diagnostics:
        progress = job.progress(now)
        log = Content.of(self._log(job, now))
        length = self._config.tail_bytes
        return Diagnostics(
            stdout_tail=progress.stdout.tail(length),
            stderr_tail=progress.stderr.tail(length),
            log_tail=log.tail(length),
            truncated=max(progress.stdout.size, progress.stderr.size, log.size) > length,
        )

    def _kill(self, job: FakeJob, now: float) -> OpOutcome:
        if self.site.kill(job):
            return OpOutcome(True)
        return OpOutcome(True, note=f"already finished: {job.status(now)}")

    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        status = job.status(now)
        if not status.is_finished:
            return _not_finished(job, status, "kill it first, or wait")
        self.site.remove(job)
        return OpOutcome(True)

    # ------------------------------------------------------------ output

    @property
    def destructive(self) -> bool:
        """As configured."""
        return self._config.destructive

    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        """As `OutputRetriever`."""
        wanted = distinct_ids(ids)
        self._lifetime.check(Operation.FETCH)
        if not wanted:
            return BulkResult({})
        trouble = await self._lifetime.begin(Operation.FETCH)
        await in_thread(lambda: Path(dest).mkdir(parents=True, exist_ok=True))
        entries = {job: await self._fetch(job, Path(dest), trouble) for job in wanted}
        self._lifetime.end(trouble, Operation.FETCH)
        failures = {
            job: output.failure for job, output in entries.items() if output.failure is not None
        }
        return BulkResult(entries, failures)

    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        found = self._found(job_id, trouble)
        if isinstance(found, Failure):
            return JobOutput(failure=found)
        job, now = found
        status = job.status(now)
        if not status.is_finished:
            return JobOutput(failure=_not_finished(job, status, "wait for its end"))
        if job.fetched:
            gone = "its output was fetched already, and removed"
            return JobOutput(failure=Failure(FailureCode.FAILED, gone))
        gathered = self._gathered(job, now)
        excess = over_limit(gathered, self._limits) or await self._arrived(job, gathered, trouble)
        if excess is not None:
            return JobOutput(failure=excess)
        try:
            output = await in_thread(
                lambda: write_output(
                    dest,
                    f"{job.submission}/{job.copy}",
                    gathered,
                    stdout=_stdout(job.spec),
                    stderr=_stderr(job.spec),
                    log=_LOG,
                )
            )
        except OSError as error:
            return JobOutput(
                failure=Failure(
                    FailureCode.FAILED, f"it could not be written beneath {dest}: {error.strerror}"
                )
            )
        job.fetched = self.destructive
        return output

    async def _arrived(self, job: FakeJob, gathered: Gathered, trouble: Trouble) -> Failure | None:
        """Take as long as this output takes to arrive, but not longer than it may."""
        rate, limit = self._config.fetch_bytes_per_s, self._config.output_max_seconds
        seconds = trouble.delay_of(job.id, job.copy)
        if rate is not None:
            seconds += gathered.size / rate
        await self.site.clock.sleep(min(seconds, limit))
        if seconds <= limit:
            return None
        return Failure(
            FailureCode.LIMIT,
            f"the fetch takes longer than output_max_seconds={limit:g}; raise the limit",
        )

    def _gathered(self, job: FakeJob, now: float) -> Gathered:
        progress = job.progress(now)
        streams = {_LOG: Content.of(self._log(job, now))}
        if job.started is not None:
            streams[_stdout(job.spec)] = progress.stdout
            streams[_stderr(job.spec)] = progress.stderr
        return select(
            progress.files,
            job.spec.outputs,
            staged=frozenset(job.program.files),
            secrets=job.secrets,
            streams=streams,
        )

    # ------------------------------------------------------------ of the resource

    async def counts(self) -> JobCounts:
        """As `LoadReporter`."""
        trouble = await self._lifetime.begin(Operation.COUNTS)
        counts = self.site.counts(self.resource)
        self._lifetime.end(trouble, Operation.COUNTS)
        return counts

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        """As `Discoverable`."""
        trouble = await self._lifetime.begin(Operation.FIND)
        found = tuple(map(_handle, self.site.tagged(tag, self.resource)))
        self._lifetime.end(trouble, Operation.FIND)
        return found


def make_backend(
    config: FakeConfig, resource: str = "fake", *, site: FakeSite | None = None
) -> JobBackend:
    """A fake backend with exactly the abilities that the configuration leaves.

    Args:
        config: As in the registry's table.
        resource: The resource's name.
        site: The machine; None: the one that `config` describes.
    """
    return _lacking(frozenset(config.without))(config, resource, site=site)


def _lacking(without: frozenset[str]) -> Callable[..., JobBackend]:
    """`FakeBackend` without some methods: not hidden, not there."""
    if not without:
        return FakeBackend
    gone = {*without, "__dict__", "__weakref__"}
    if "fetch_output" in without:
        gone.add("destructive")
    members = {name: member for name, member in vars(FakeBackend).items() if name not in gone}
    return cast("Callable[..., JobBackend]", type(FakeBackend.__name__, (), members))


def _site_of(config: FakeConfig) -> FakeSite:
    if config.site is None:
        return config.site_keys.site()
    return FakeSite.named(config.site, config.site_keys)


def _handle(job: FakeJob) -> JobHandle:
    return JobHandle(
        id=job.id,
        backend=_BACKEND,
        resource=job.resource,
        submission=job.submission,
        copy=job.copy,
        submitted_at=job.submitted_at,
        tag=job.spec.tag,
    )


def _stdout(spec: SubmissionSpec) -> str:
    return "stdout" if spec.stdout is None else spec.stdout


def _stderr(spec: SubmissionSpec) -> str:
    return "stderr" if spec.stderr is None else spec.stderr


def _not_ok(failure: Failure) -> OpOutcome:
    return OpOutcome(False, failure=failure)


def _not_finished(job: FakeJob, status: JobStatus, remedy: str) -> Failure:
    return Failure(FailureCode.NOT_FINISHED, f"{job.id} is {status}; {remedy}")
