"""Any transport with any scheduler.

Each call is one script on the host (two for a submit), made of the texts in `_sandbox` and of the scheduler's own commands; what comes
back is parsed by pure functions. Nothing is remembered between calls but the answer of the probe: what there is to know lies in the
sandbox and in the scheduler, so that any process with the same configuration knows it too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

import anyio
import anyio.to_thread
from attrs import evolve, field, frozen

from intercede.core import (
    BulkResult,
    Command,
    CommandResult,
    ConfigurationError,
    ConnectionLost,
    CopyVars,
    Diagnostics,
    DryRun,
    Facts,
    Failure,
    FailureCode,
    InterCEdeError,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    NativeJob,
    OperationTimeout,
    OpOutcome,
    ResourceError,
    Scheduler,
    SpecRefused,
    StagedBatch,
    StatusMap,
    Submission,
    SubmissionSpec,
    SubmitUncertain,
    Transport,
    TransportError,
    distinct_ids,
    expand_copies,
    from_json,
    to_json,
)
from intercede.toolkit import (
    Frames,
    JobParts,
    Lifetime,
    Limits,
    Script,
    new_submission,
    parse_id,
    quote,
    runner_script,
    submission_time,
    sweep,
)

from . import _sandbox as sandbox
from ._config import BatchConfig
from ._fetching import Fetching
from ._staging import collect_sources, generated_files, tar_stream
from ._verdict import parse_ends, verdict

__all__ = ["BatchBackend"]

T = TypeVar("T")

#: How long one script waits for an attempt that somebody else began, in seconds.
_ATTEMPT_WAIT_S: Final = 30.0
#: Between two tries to learn what became of an attempt, in seconds.
_ATTEMPT_PAUSE_S: Final = 1.0
#: For clearing up after a failure, in seconds.
_CLEAR_UP_S: Final = 10.0
_STDERR_SHOWN: Final = 2000
#: How long a word of a dry run's command may be.
_WORD_SHOWN: Final = 300


@frozen
class _Host:
    """What the probe told.

    Attributes:
        root: The sandbox root, absolute.
        facts: The scheduler's.
    """

    root: str
    facts: Facts = field(hash=False)


@frozen
class _Attempts:
    """What the sandbox tells of submissions.

    Attributes:
        states: By submission, one of `ATTEMPT_*`.
        answers: By submission, what the scheduler's commands answered.
        specs: By submission, the specification without its inputs, where it was asked for.
        copies: By submission, the copies that are there, where they were asked for.
    """

    states: dict[str, str] = field(factory=dict)
    answers: dict[str, list[CommandResult]] = field(factory=dict)
    specs: dict[str, SubmissionSpec] = field(factory=dict)
    copies: dict[str, list[int]] = field(factory=dict)


class BatchBackend:
    """Runs jobs through a scheduler's commands on a host.

    Everything a backend can do, it can with any transport and scheduler. Secrets of a copy travel in the staging stream, as files of mode
    0600, and pass nowhere else (S5).

    Args:
        config: Where and how long.
        name: The resource's name in job ids.
        transport: Opened at the first use, closed with the backend.
        scheduler: Its language.

    Raises:
        ConfigurationError: The scheduler carries its files itself, which needs another backend.
    """

    def __init__(
        self, config: BatchConfig, name: str, transport: Transport, scheduler: Scheduler
    ) -> None:
        if scheduler.stages_own_files:
            raise ConfigurationError(
                "this scheduler carries its files itself, and batch keeps them in a sandbox",
                path="scheduler",
            )
        self._config = config
        self._name = name
        self._transport = transport
        self._scheduler = scheduler
        self._root = config.root or f"~/.intercede/{name}"
        self._native_id = re.compile(scheduler.native_id)
        self._lifetime = Lifetime(f"the backend {name!r}")
        self._opening = asyncio.Lock()
        self._host: _Host | None = None

    def __repr__(self) -> str:
        return f"<BatchBackend {self._name!r}>"

    # ------------------------------------------------------------ lifetime

    async def __aenter__(self) -> Self:
        self._lifetime.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the transport. Idempotent; jobs are not affected."""
        if self._lifetime.close():
            await self._transport.aclose()

    async def _connect(self) -> _Host:
        """Open the transport and probe, once for all who wait; if the first of them is cancelled, the next one does it (L6)."""
        async with self._opening:
            if self._host is None:
                self._lifetime.check()
                await self._transport.__aenter__()
                self._host = await self._probe()
            return self._host

    async def _probe(self) -> _Host:
        script = Script()
        script.add('frame say; printf "home %s\\n" "$HOME"')
        commands = self._scheduler.probe_commands(None)
        script.run_all("probe", commands)
        frames = await self._run(script)
        home = next((line[5:] for line in frames.lines if line.startswith("home /")), "/")
        root = self._root
        if root == "~" or root.startswith("~/"):
            root = home.rstrip("/") + root[1:]
        elif not root.startswith("/"):
            root = f"{home.rstrip('/')}/{root}"
        facts = self._scheduler.parse_probe(frames.commands("probe", len(commands)))
        return _Host(root.rstrip("/") or "/", facts)

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        """Every error names the resource and the operation."""
        self._lifetime.check()
        try:
            yield
        except InterCEdeError as error:
            error.at(self._name, name)
            raise

    async def _run(self, script: Script, timeout_s: float | None = None) -> Frames:
        """Run a script to its end.

        Raises:
            ResourceError: It did not come to its end, or the sandbox root is not what it should be.
        """
        seconds = timeout_s or self._config.command_timeout_s
        result = await self._transport.run(script.command(timeout_s=seconds))
        frames = script.parse(result.stdout)
        for line in frames.lines:
            if line.startswith("refused "):
                raise _refused_root(line)
        if not frames.ended:
            raise ResourceError(
                f"the answer was cut (exit code {result.returncode})",
                said=result.stderr[-_STDERR_SHOWN:].decode(errors="replace"),
            )
        return frames

    def _script(self, host: _Host) -> Script:
        """A script that begins in the sandbox root."""
        script = Script()
        script.add(sandbox.enter(host.root))
        return script

    # ------------------------------------------------------------ submit

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        """Stage the sandbox, then submit; see `Submitter.submit`."""
        with self._operation("submit"):
            variants = expand_copies(copies)
            _check_spec(spec, variants)
            sources, directories = await anyio.to_thread.run_sync(collect_sources, spec)
            host = await self._connect()
            self._scheduler.check(spec, host.facts)
            batch = self._batch(host, new_submission(), spec, len(variants))
            files = self._generated(batch, variants)
            end_mark = Script().nonce
            stream = tar_stream(sources, directories, files, end_mark)
            try:
                await self._stage(host, batch, stream, end_mark)
            except BaseException:
                await self._clear_up(host, batch.submission)
                raise
            return await self._attempt(host, batch)

    async def dry_run(self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1) -> DryRun:
        """What `submit` would send; see `SupportsDryRun.dry_run`."""
        with self._operation("dry_run"):
            variants = expand_copies(copies)
            _check_spec(spec, variants)
            sources, directories = await anyio.to_thread.run_sync(collect_sources, spec)
            host = await self._connect()
            self._scheduler.check(spec, host.facts)
            batch = self._batch(host, new_submission(), spec, len(variants))
            blanked = [
                evolve(variant, secrets=dict.fromkeys(variant.secrets, b"")) for variant in variants
            ]
            files = self._generated(batch, blanked)
            commands = self._scheduler.submit_commands(batch, host.facts)
            return DryRun(
                command="\n".join(
                    " ".join(_shown(word) for word in command.argv) for command in commands
                ),
                files={name: content for name, (content, _) in files.items()},
                details={
                    "directory": batch.directory,
                    "copies": str(len(variants)),
                    "staged files": str(len(sources)),
                    "staged directories": str(len(directories)),
                    "staged bytes": str(sum(source.size for source in sources)),
                },
            )

    def _batch(
        self, host: _Host, submission: str, spec: SubmissionSpec, copies: int
    ) -> StagedBatch:
        directory = f"{host.root.rstrip('/')}/{submission}"
        return StagedBatch(
            submission=submission,
            mark=self._mark(submission),
            directory=directory,
            runner=f"{directory}/runner",
            copies=tuple(range(copies)),
            spec=spec,
        )

    def _mark(self, submission: str = "") -> str:
        return f"intercede:{self._name}:{submission}"

    def _generated(
        self, batch: StagedBatch, variants: Sequence[CopyVars]
    ) -> dict[str, tuple[bytes, int]]:
        spec = batch.spec
        meta = "\n".join(
            [
                f"{self._name} {len(variants)}",
                # The sign keeps an empty tag apart from none.
                "" if spec.tag is None else f"={spec.tag}",
                to_json(evolve(spec, inputs=())),
                "",
            ]
        )
        return generated_files(
            spec,
            variants,
            runner=runner_script(spec, directory=batch.directory, submission=batch.submission),
            meta=meta.encode("utf-8", "surrogateescape"),
            select=sandbox.select_function(spec, variants).encode("utf-8", "surrogateescape"),
        )

    async def _stage(
        self, host: _Host, batch: StagedBatch, stream: AsyncIterator[bytes], end_mark: str
    ) -> None:
        script = Script()
        script.add(sandbox.make_root(host.root))
        script.add(sandbox.stage(batch.submission, len(batch.copies), end_mark))
        command = script.command(timeout_s=self._config.transfer_timeout_s)
        answer = bytearray()
        async with self._transport.stream(command, stream) as process:
            async for chunk in process.stdout:
                answer += chunk
            result = await process.wait()
        frames = script.parse(bytes(answer))
        if "staged" in frames.lines:
            return
        for number, line in enumerate(frames.lines):
            if line.startswith("refused "):
                raise _refused_root(line)
            if line.startswith("failed "):
                said = "\n".join([line[7:], *frames.lines[number + 1 :]])
                raise ResourceError(
                    f"the sandbox could not be made in {host.root}",
                    said=said,
                    remedy="see that it can be written and has room",
                )
        raise ResourceError(
            "staging did not come to its end",
            said=result.stderr[-_STDERR_SHOWN:].decode(errors="replace"),
        )

    async def _clear_up(self, host: _Host, submission: str) -> None:
        """Remove what a failed staging left, as far as the host can be reached."""
        script = self._script(host)
        script.add(f"rm -rf .part.{submission} {submission}")
        with anyio.move_on_after(_CLEAR_UP_S, shield=True):
            try:
                await self._run(script, _CLEAR_UP_S)
            except InterCEdeError:
                return  # what is left has no tag and no job: the next submit sweeps it

    async def _attempt(self, host: _Host, batch: StagedBatch) -> Submission:
        """Submit exactly once: whoever comes second reads what the first one got (S9)."""
        deadline = anyio.current_time() + self._config.submit_deadline_s
        may_have_run = False
        trouble = "the attempt did not come to its end"
        while True:
            try:
                attempts = await self._try_attempt(host, batch)
            except (ConnectionLost, OperationTimeout) as error:
                may_have_run = may_have_run or error.may_have_run
                trouble = str(error)
            except TransportError as error:
                if not may_have_run:
                    raise
                trouble = str(error)
            else:
                state = attempts.states.get(batch.submission)
                if state == sandbox.ATTEMPT_DONE:
                    return await self._submitted(host, batch, attempts)
                may_have_run = True
                if state != sandbox.ATTEMPT_OPEN:
                    trouble = f"the attempt is {state or 'gone'}"
                    break
            if anyio.current_time() > deadline:
                break
            await anyio.sleep(_ATTEMPT_PAUSE_S)
        raise SubmitUncertain(
            f"whether the scheduler has the jobs could not be learnt: {trouble}",
            mark=batch.mark,
            handles=[self._handle(batch, copy, None) for copy in batch.copies],
            remedy="do not submit again; ask for the status of the handles, or find them by their tag",
        )

    async def _try_attempt(self, host: _Host, batch: StagedBatch) -> _Attempts:
        commands = self._scheduler.submit_commands(batch, host.facts)
        script = self._script(host)
        script.add(sandbox.attempt(batch.submission, commands, _ATTEMPT_WAIT_S))
        for command in commands:
            script.add_data(command.stdin)
        return self._attempts(await self._run(script, _ATTEMPT_WAIT_S * 2))

    async def _submitted(self, host: _Host, batch: StagedBatch, attempts: _Attempts) -> Submission:
        try:
            natives = self._natives(batch, attempts)
        except ResourceError as error:
            raise SubmitUncertain(
                f"the scheduler's answer cannot be read: {error.message}",
                mark=batch.mark,
                handles=[self._handle(batch, copy, None) for copy in batch.copies],
                said=error.said,
                remedy="do not submit again; ask for the status of the handles",
            ) from error
        handles = []
        failures = {}
        for copy in batch.copies:
            native = natives.get(copy)
            if isinstance(native, str):
                handles.append(self._handle(batch, copy, native))
            else:
                failures[copy] = native or Failure(
                    FailureCode.FAILED, "the scheduler's answer says nothing about this copy"
                )
        if not handles:
            await self._clear_up(host, batch.submission)
        return Submission(batch.submission, tuple(handles), failures)

    def _natives(self, batch: StagedBatch, attempts: _Attempts) -> dict[int, str | Failure]:
        """Native ids, by copy; those that do not look like one are failures (N5)."""
        answers = attempts.answers.get(batch.submission, [])
        natives = dict(self._scheduler.parse_submit(batch, answers))
        for copy, native in natives.items():
            if isinstance(native, str) and not self._native_id.fullmatch(native):
                natives[copy] = Failure(
                    FailureCode.FAILED, f"the scheduler gave no id, but {native[:80]!r}"
                )
        return natives

    def _handle(self, batch: StagedBatch, copy: int, native: str | None) -> JobHandle:
        return JobHandle(
            id=JobParts(self._name, batch.submission, copy, native).encode(),
            backend="batch",
            resource=self._name,
            submission=batch.submission,
            copy=copy,
            submitted_at=submission_time(batch.submission),
            tag=batch.spec.tag,
            metadata={"directory": f"{batch.directory}/{copy}"},
        )

    # ------------------------------------------------------------ find

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        """The jobs that submits with this tag made; see `Discoverable.find`."""
        with self._operation("find"):
            host = await self._connect()
            script = self._script(host)
            script.add(sandbox.search_tag(self._name, tag))
            attempts = self._attempts(await self._run(script))
            handles: list[JobHandle] = []
            for submission, copies in sorted(attempts.copies.items()):
                spec = attempts.specs.get(submission) or SubmissionSpec("unknown", tag=tag)
                batch = self._batch(host, submission, spec, max(copies, default=-1) + 1)
                natives: Mapping[int, str | Failure] = {}
                if attempts.states.get(submission) == sandbox.ATTEMPT_DONE:
                    try:
                        natives = self._natives(batch, attempts)
                    except ResourceError:
                        natives = {}
                for copy in sorted(copies):
                    native = natives.get(copy)
                    if not isinstance(native, Failure):
                        handles.append(self._handle(batch, copy, native))
            return tuple(handles)

    def _attempts(self, frames: Frames) -> _Attempts:
        """Read what the attempt functions of the sandbox printed."""
        attempts = _Attempts()
        for line in frames.lines:
            word, _, rest = line.partition(" ")
            submission, _, rest = rest.partition(" ")
            if not _is_submission(submission):
                continue
            if word == "attempt":
                attempts.states[submission] = rest
            elif word == "copy" and rest.isdigit():
                attempts.copies.setdefault(submission, []).append(int(rest))
            elif word == "found":
                attempts.copies.setdefault(submission, [])
                try:
                    attempts.specs[submission] = from_json(SubmissionSpec, rest)
                except ConfigurationError:
                    continue  # broken by somebody: its copies are found all the same
        for submission in attempts.states:
            answers: list[CommandResult] = []
            while (answer := frames.results.get(f"{submission}.{len(answers)}")) is not None:
                answers.append(answer)
            attempts.answers[submission] = answers
        return attempts

    # ------------------------------------------------------------ status

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        """Where the jobs are; see `Monitor.status`."""
        with self._operation("status"):
            details, failures = await self._details(ids)
            return BulkResult({job: d.status for job, d in details.items()}, failures)

    async def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        """All that is known of the jobs; see `SupportsDetails.details`."""
        with self._operation("details"):
            return BulkResult(*await self._details(ids))

    async def _details(
        self, ids: Sequence[JobID]
    ) -> tuple[dict[JobID, JobDetails], dict[JobID, Failure]]:
        """Ask the queue; then, for what has left it, the sandbox and the history."""
        asked = distinct_ids(ids)
        parts, failures = self._parse(asked)
        found: dict[JobID, JobDetails] = {}
        if parts:
            host = await self._connect()
            parts = await self._resolve(host, parts, found, failures)
        if parts:
            left = await self._ask_queue(host, parts, found, failures)
            if left:
                await self._ask_ends(host, left, found, failures)
        nothing = JobDetails(JobStatus.UNKNOWN)
        return (
            {job: found.get(job, nothing) for job in asked},
            {job: failures[job] for job in asked if job in failures},
        )

    def _parse(self, ids: Iterable[JobID]) -> tuple[dict[JobID, JobParts], dict[JobID, Failure]]:
        """Ids that may be ours, and why the others are not (T2). No I/O."""
        parts: dict[JobID, JobParts] = {}
        failures: dict[JobID, Failure] = {}
        for job in ids:
            try:
                parsed = parse_id(job)
                reason = self._foreign(parsed)
            except ValueError as error:
                reason = f"not a job id: {error}"
            if reason:
                failures[job] = Failure(FailureCode.NO_SUCH_JOB, reason)
            else:
                parts[job] = parsed
        return parts, failures

    def _foreign(self, parts: JobParts) -> str:
        if parts.resource != self._name:
            return f"it belongs to the resource {parts.resource!r}, not to {self._name!r}"
        if not _is_submission(parts.submission):
            return "not a job id: no such submission can have been made"
        if parts.native is not None and not self._native_id.fullmatch(parts.native):
            return "not a job id: no such native id can have been given"
        return ""

    async def _resolve(
        self,
        host: _Host,
        parts: dict[JobID, JobParts],
        found: dict[JobID, JobDetails],
        failures: dict[JobID, Failure],
    ) -> dict[JobID, JobParts]:
        """Learn the native ids of jobs whose handle has none: their submitter died, or was left uncertain.

        Returns:
            The jobs that have a native id; the others are in `found` or `failures`.
        """
        bare = {job: part for job, part in parts.items() if part.native is None}
        if not bare:
            return parts
        script = self._script(host)
        script.add(sandbox.read_attempts(dict.fromkeys(p.submission for p in bare.values())))
        listing = self._scheduler.list_commands(self._mark())
        script.run_all("list", listing)
        script.add(
            sandbox.read_ends(((p.submission, p.copy) for p in bare.values()), self._config.grace_s)
        )
        frames = await self._run(script)
        attempts = self._attempts(frames)
        ends = parse_ends(frames.lines)
        natives: dict[str, Mapping[int, str | Failure]] = {}
        resolved = {job: part for job, part in parts.items() if part.native is not None}
        for job, part in bare.items():
            end = ends.get((part.submission, part.copy))
            state = attempts.states.get(part.submission)
            if state is None or end is None or not end.present:
                failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such submission is here")
                continue
            if part.submission not in natives:
                natives[part.submission] = self._learn(host, part.submission, attempts, frames)
            native = natives[part.submission].get(part.copy)
            if isinstance(native, str):
                resolved[job] = evolve(part, native=native)
            elif isinstance(native, Failure):
                found[job] = JobDetails(JobStatus.FAILED, reason=f"not submitted: {native.message}")
            elif end.cancelled or end.record is not None:
                found[job] = _details_or(verdict(end, None, self._config.grace_s), failures, job)
            elif state == sandbox.ATTEMPT_STAGED:
                found[job] = JobDetails(
                    JobStatus.PENDING,
                    reason="staged, and not submitted: kill and purge it, or wait",
                )
            elif state != sandbox.ATTEMPT_OPEN and end.age_s >= self._config.grace_s:
                found[job] = JobDetails(
                    JobStatus.FINISHED_UNKNOWN,
                    reason="its submission broke off, and the scheduler does not know it",
                )
            else:
                failures[job] = Failure(
                    FailureCode.NOT_NOW,
                    f"its submission is {state}, and the scheduler does not list it yet",
                )
        return resolved

    def _learn(
        self, host: _Host, submission: str, attempts: _Attempts, frames: Frames
    ) -> Mapping[int, str | Failure]:
        """The native ids of a submission, from its attempt's answer or, if that is missing, from the scheduler's list."""
        copies = 1 + max(
            (int(line.split(" ")[1].partition("/")[2]) for line in frames.lines
             if re.match(rf"(none|exit) {submission}/[0-9]+ ", line)),
            default=0,
        )  # fmt: skip
        batch = self._batch(host, submission, SubmissionSpec("unknown"), copies)
        if attempts.states[submission] == sandbox.ATTEMPT_DONE:
            try:
                return self._natives(batch, attempts)
            except ResourceError:
                pass
        if attempts.states[submission] in (sandbox.ATTEMPT_STAGED, sandbox.ATTEMPT_CANCELLED):
            return {}
        try:
            listed = self._scheduler.parse_list(frames.commands("list", 1))
        except ResourceError:
            return {}
        # Native ids of one submission count up with its copies.
        mine = sorted(
            (native for native, (mark, _) in listed.items() if mark == batch.mark),
            key=lambda native: [int(n) for n in re.findall(r"[0-9]+", native)],
        )
        return dict(enumerate(mine)) if len(mine) == copies else {}

    async def _ask_queue(
        self,
        host: _Host,
        parts: Mapping[JobID, JobParts],
        found: dict[JobID, JobDetails],
        failures: dict[JobID, Failure],
    ) -> dict[JobID, JobParts]:
        """Look the jobs up in the queue. Returns those that have left it."""
        script = self._script(host)
        script.add(
            sandbox.unknown_submissions(
                self._name, dict.fromkeys(part.submission for part in parts.values())
            )
        )
        jobs = {job: _native(part) for job, part in parts.items()}
        commands = self._scheduler.status_commands(list(jobs.values()))
        script.run_all("status", commands)
        frames = await self._run(script)
        if "absent" in frames.lines:
            unknown = {part.submission for part in parts.values()}
        else:
            unknown = {line[8:] for line in frames.lines if line.startswith("unknown ")}
        failures |= {
            job: Failure(FailureCode.NO_SUCH_JOB, "no such submission is here")
            for job, part in parts.items()
            if part.submission in unknown
        }
        known = {job: native for job, native in jobs.items() if job not in failures}
        if not known:
            return {}
        live, trouble = self._live(list(known.values()), frames, "status", len(commands))
        left = {}
        for job, native in known.items():
            details = live.get(native)
            if trouble is not None:
                failures[job] = trouble
            elif details is None:
                left[job] = parts[job]
            elif details.status is JobStatus.UNKNOWN:
                failures[job] = Failure(FailureCode.NOT_NOW, details.reason or "ask again")
            else:
                found[job] = details
        return left

    def _live(
        self, jobs: Sequence[NativeJob], frames: Frames, prefix: str, count: int
    ) -> tuple[Mapping[NativeJob, JobDetails], Failure | None]:
        """The jobs in the queue; or why nothing is known of any: absence is only believed of an answer that parses (T5)."""
        try:
            results = frames.commands(prefix, count)
            return self._scheduler.parse_status(jobs, results), None
        except ResourceError as error:
            return {}, Failure(FailureCode.NOT_NOW, f"the queue could not be read: {error}")

    async def _ask_ends(
        self,
        host: _Host,
        left: Mapping[JobID, JobParts],
        found: dict[JobID, JobDetails],
        failures: dict[JobID, Failure],
    ) -> None:
        """Learn how jobs that left the queue ended; the history is only asked if a record is missing."""
        script = self._script(host)
        script.add(
            sandbox.read_ends(
                ((part.submission, part.copy) for part in left.values()), self._config.grace_s
            )
        )
        jobs = {job: _native(part) for job, part in left.items()}
        commands = self._scheduler.history_commands(list(jobs.values()))
        if commands:
            script.add('if [ -n "$undecided" ]; then')
            script.run_all("history", commands)
            script.add("fi")
        frames = await self._run(script)
        ends = parse_ends(frames.lines)
        history: Mapping[NativeJob, JobDetails] = {}
        if commands and "history0" in frames.results:
            try:
                results = frames.commands("history", len(commands))
                history = self._scheduler.parse_history(list(jobs.values()), results)
            except ResourceError:
                history = {}
        for job, part in left.items():
            outcome = verdict(
                ends.get((part.submission, part.copy)), history.get(jobs[job]), self._config.grace_s
            )
            found[job] = _details_or(outcome, failures, job)

    # ------------------------------------------------------------ output

    @property
    def destructive(self) -> bool:
        """False: the output stays until it is purged."""
        return False

    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        """Bring the output of finished jobs here; see `OutputRetriever.fetch_output`."""
        with self._operation("fetch_output"):
            asked = distinct_ids(ids)
            parts, failures = self._parse(asked)
            outputs: dict[JobID, JobOutput] = {}
            if parts:
                host = await self._connect()
                dest = Path(dest)
                await anyio.to_thread.run_sync(_prepare, dest)
                undecided = await self._fetch(host, parts, dest, outputs, failures, ended=False)
                if undecided:
                    finished = await self._finished(undecided, failures)
                    if finished:
                        await self._fetch(host, finished, dest, outputs, failures, ended=True)
            failures |= {job: out.failure for job, out in outputs.items() if out.failure}
            return BulkResult(
                {job: outputs.get(job) or JobOutput(failure=failures[job]) for job in asked},
                {job: failures[job] for job in asked if job in failures},
            )

    async def _fetch(
        self,
        host: _Host,
        parts: Mapping[JobID, JobParts],
        dest: Path,
        outputs: dict[JobID, JobOutput],
        failures: dict[JobID, Failure],
        *,
        ended: bool,
    ) -> dict[JobID, JobParts]:
        """One stream. Returns the jobs that have no record of their end."""
        script = self._script(host)
        jobs = sorted({(part.submission, part.copy) for part in parts.values()})
        script.add(sandbox.stream_output(jobs, self._name, ended=ended))
        command = script.command(timeout_s=self._config.transfer_timeout_s)
        limits = Limits(
            self._config.output_max_bytes,
            self._config.output_max_files,
            self._config.output_max_s,
        )
        fetching = Fetching(script.nonce, dest, limits)
        first = bytearray()
        try:
            async with self._transport.stream(command) as process:
                async for chunk in process.stdout:
                    if len(first) < _STDERR_SHOWN:
                        first += chunk[:_STDERR_SHOWN]
                    await anyio.to_thread.run_sync(fetching.feed, chunk)
                await process.wait()
        except (ConnectionLost, OperationTimeout):
            if not fetching.outputs:
                raise  # nothing has come: the whole operation has failed
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(fetching.finish)
        lines = script.parse(bytes(first)).lines
        for line in lines:
            if line.startswith("refused "):
                raise _refused_root(line)
        nowhere = "absent" in lines
        undecided = {}
        for job, part in parts.items():
            key = f"{part.submission}/{part.copy}"
            if nowhere or key in fetching.preface.absent:
                failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
            elif key in fetching.preface.unended:
                undecided[job] = part
            elif key in fetching.outputs:
                outputs[job] = fetching.outputs[key]
            else:
                failures[job] = Failure(FailureCode.NOT_NOW, "the answer says nothing about it")
        return undecided

    async def _finished(
        self, parts: Mapping[JobID, JobParts], failures: dict[JobID, Failure]
    ) -> dict[JobID, JobParts]:
        """Those of the jobs that have ended all the same; the others fail with what they are."""
        details, trouble = await self._details(list(parts))
        finished = {}
        for job, part in parts.items():
            if job in trouble:
                failures[job] = trouble[job]
            elif details[job].status.is_finished:
                finished[job] = part
            else:
                failures[job] = Failure(
                    FailureCode.NOT_FINISHED, f"it is {details[job].status}; wait, or kill it first"
                )
        return finished

    # ------------------------------------------------------------ kill and purge

    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """End the jobs; see `Cancellable.kill`."""
        with self._operation("kill"):
            asked = distinct_ids(ids)
            parts, failures = self._parse(asked)
            outcomes: dict[JobID, OpOutcome] = {}
            if parts:
                host = await self._connect()
                await self._kill(host, parts, outcomes, failures)
            return _outcomes(asked, outcomes, failures)

    async def _kill(
        self,
        host: _Host,
        parts: dict[JobID, JobParts],
        outcomes: dict[JobID, OpOutcome],
        failures: dict[JobID, Failure],
    ) -> None:
        script = self._script(host)
        submissions = dict.fromkeys(part.submission for part in parts.values())
        script.add(sandbox.unknown_submissions(self._name, submissions))
        # Nothing is killed before it is known that all of it is ours.
        script.add('[ -z "$unknown" ] || { frame ended; exit 0; }')
        script.add(sandbox.mark_killed([(p.submission, p.copy) for p in parts.values()]))
        bare = {job: part for job, part in parts.items() if part.native is None}
        jobs = {job: _native(part) for job, part in parts.items() if part.native is not None}
        commands: Sequence[Command] = ()
        if jobs:
            script.run_all("kill", self._scheduler.kill_commands(list(jobs.values())))
            commands = self._scheduler.status_commands(list(jobs.values()))
            script.run_all("status", commands)
        frames = await self._run(script)
        unknown = _after(frames.lines, "unknown ")
        if unknown or "absent" in frames.lines:
            ours = {}
            for job, part in parts.items():
                if "absent" in frames.lines or part.submission in unknown:
                    failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
                else:
                    ours[job] = part
            if ours:
                await self._kill(host, ours, outcomes, failures)
            return
        said = {word: _after(frames.lines, f"{word} ") for word in ("absent", "ended", "unmarked")}
        live, trouble = (
            self._live(list(jobs.values()), frames, "status", len(commands)) if jobs else ({}, None)
        )
        for job, part in parts.items():
            key = f"{part.submission}/{part.copy}"
            if key in said["absent"]:
                failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
            elif key in said["ended"]:
                outcomes[job] = OpOutcome(ok=True, note="it had ended already")
            elif key in said["unmarked"]:
                failures[job] = Failure(
                    FailureCode.NOT_NOW, "its sandbox cannot be written; kill it again"
                )
            elif job in bare:
                continue
            elif trouble is not None:
                failures[job] = trouble
            elif jobs[job] in live:
                state = live[jobs[job]].native_state or live[jobs[job]].status
                failures[job] = Failure(
                    FailureCode.NOT_NOW, f"it was told to end and is still {state}; kill it again"
                )
            else:
                outcomes[job] = OpOutcome(ok=True)
        rest = {job: part for job, part in bare.items() if job not in failures | outcomes}
        if rest:
            await self._kill_bare(host, rest, outcomes, failures)

    async def _kill_bare(
        self,
        host: _Host,
        parts: dict[JobID, JobParts],
        outcomes: dict[JobID, OpOutcome],
        failures: dict[JobID, Failure],
    ) -> None:
        """Jobs whose native id had to be learnt first."""
        found: dict[JobID, JobDetails] = {}
        trouble: dict[JobID, Failure] = {}
        resolved = await self._resolve(host, parts, found, trouble)
        for job in parts:
            if job in trouble:
                failures[job] = trouble[job]
            elif job in found and found[job].status.is_finished:
                outcomes[job] = OpOutcome(ok=True)
            elif job in found:
                failures[job] = Failure(
                    FailureCode.NOT_NOW, "its submission is under way; kill it again"
                )
        if resolved:
            await self._kill(host, resolved, outcomes, failures)

    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """Remove what is kept of finished jobs; see `Purgeable.purge`."""
        with self._operation("purge"):
            asked = distinct_ids(ids)
            parts, failures = self._parse(asked)
            outcomes: dict[JobID, OpOutcome] = {}
            if parts:
                host = await self._connect()
                undecided = await self._purge(host, parts, outcomes, failures, ended=False)
                if undecided:
                    finished = await self._finished(undecided, failures)
                    if finished:
                        await self._purge(host, finished, outcomes, failures, ended=True)
            return _outcomes(asked, outcomes, failures)

    async def _purge(
        self,
        host: _Host,
        parts: Mapping[JobID, JobParts],
        outcomes: dict[JobID, OpOutcome],
        failures: dict[JobID, Failure],
        *,
        ended: bool,
    ) -> dict[JobID, JobParts]:
        """Returns the jobs that have no record of their end."""
        script = self._script(host)
        jobs = sorted({(part.submission, part.copy) for part in parts.values()})
        script.add(sandbox.purge(jobs, self._name, ended=ended))
        frames = await self._run(script)
        absent, removed = _after(frames.lines, "absent "), _after(frames.lines, "removed ")
        unended = _after(frames.lines, "unended ")
        stays = dict(
            line[6:].partition(" ")[::2] for line in frames.lines if line.startswith("stays ")
        )
        undecided = {}
        for job, part in parts.items():
            key = f"{part.submission}/{part.copy}"
            if key in removed:
                outcomes[job] = OpOutcome(ok=True)
            elif key in absent or "absent" in frames.lines:
                outcomes[job] = OpOutcome(ok=True, note="nothing of it was left")
            elif key in unended:
                undecided[job] = part
            else:
                said = stays.get(key, "the answer says nothing about it")
                failures[job] = Failure(FailureCode.FAILED, f"not all could be removed: {said}")
        return undecided

    # ------------------------------------------------------------ counts and diagnostics

    async def counts(self) -> JobCounts:
        """All unfinished jobs of this resource; see `LoadReporter.counts`."""
        with self._operation("counts"):
            host = await self._connect()
            script = self._script(host)
            script.add(sandbox.staged_counts(self._name))
            commands = self._scheduler.list_commands(self._mark())
            script.run_all("list", commands)
            frames = await self._run(script)
            if "absent" in frames.lines:
                return JobCounts(0, 0)
            listed = self._scheduler.parse_list(frames.commands("list", len(commands)))
            marks = {mark for mark, _ in listed.values()}
            statuses = [status for _, status in listed.values() if not status.is_finished]
            running = statuses.count(JobStatus.RUNNING)
            staged = 0
            for line in _after(frames.lines, "staged "):
                submission, _, number = line.partition(" ")
                # An attempt that is open may have reached the scheduler already.
                if number.isdigit() and self._mark(submission) not in marks:
                    staged += int(number)
            return JobCounts(running, len(statuses) - running + staged)

    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        """The tails of the output so far; see `SupportsLiveDiagnostics.diagnostics`."""
        with self._operation("diagnostics"):
            asked = distinct_ids(ids)
            parts, failures = self._parse(asked)
            shown: dict[JobID, Diagnostics] = {}
            if parts:
                host = await self._connect()
                script = self._script(host)
                submissions = dict.fromkeys(part.submission for part in parts.values())
                script.add(sandbox.unknown_submissions(self._name, submissions))
                size = self._config.tail_bytes
                script.add(sandbox.tails([(p.submission, p.copy) for p in parts.values()], size))
                jobs = {job: _native(p) for job, p in parts.items() if p.native is not None}
                commands = self._scheduler.status_commands(list(jobs.values())) if jobs else ()
                script.run_all("status", commands)
                frames = await self._run(script)
                gone, absent = _after(frames.lines, "unknown "), _after(frames.lines, "absent ")
                live, _ = self._live(list(jobs.values()), frames, "status", len(commands))
                for job, part in parts.items():
                    key = f"{part.submission}/{part.copy}"
                    if "absent" in frames.lines or part.submission in gone or key in absent:
                        failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
                        continue
                    details = live.get(jobs[job]) if job in jobs else None
                    if details is None and part.native is None:
                        details = JobDetails(JobStatus.PENDING, reason="staged, not submitted")
                    shown[job] = _diagnostics(frames, key, details, size)
            return BulkResult(
                {job: shown.get(job, Diagnostics()) for job in asked},
                {job: failures[job] for job in asked if job in failures},
            )


def _check_spec(spec: SubmissionSpec, variants: Sequence[CopyVars]) -> None:
    """Refuse what no batch system's sandbox can do (S6)."""
    for index, ref in enumerate(spec.inputs):
        if ref.url is not None:
            raise SpecRefused(
                f"inputs[{index}].url",
                f"{ref.url!r}: this resource fetches nothing by itself",
                remedy="give a source, or let the payload fetch it",
            )
    for index, member in enumerate(spec.outputs.members):
        if member.destination is not None:
            raise SpecRefused(
                f"outputs.members[{index}].destination",
                f"{member.destination!r}: this resource uploads nothing by itself",
                remedy="leave it out and fetch the output, or let the payload upload it",
            )
    staged = {ref.name for ref in spec.inputs} | {spec.executable_name}
    for copy, variant in enumerate(variants):
        taken = sorted(name for name in variant.secrets if name in staged)
        if taken:
            raise SpecRefused(
                f"copies[{copy}].secrets", f"{taken[0]!r} is also an input or the executable"
            )


def _is_submission(text: str) -> bool:
    try:
        submission_time(text)
    except ValueError:
        return False
    return True


def _native(part: JobParts) -> NativeJob:
    assert part.native is not None
    return NativeJob(part.native, part.copy, part.submission, submission_time(part.submission))


def _after(lines: Iterable[str], prefix: str) -> set[str]:
    return {line[len(prefix) :] for line in lines if line.startswith(prefix)}


def _details_or(
    outcome: JobDetails | Failure, failures: dict[JobID, Failure], job: JobID
) -> JobDetails:
    if isinstance(outcome, JobDetails):
        return outcome
    failures[job] = outcome
    return JobDetails(JobStatus.UNKNOWN)


def _outcomes(
    asked: Sequence[JobID],
    outcomes: Mapping[JobID, OpOutcome],
    failures: Mapping[JobID, Failure],
) -> BulkResult[OpOutcome]:
    return BulkResult(
        {
            job: OpOutcome(ok=False, failure=failures[job]) if job in failures else outcomes[job]
            for job in asked
        },
        {job: failures[job] for job in asked if job in failures},
    )


def _diagnostics(frames: Frames, key: str, details: JobDetails | None, size: int) -> Diagnostics:
    tails = {}
    truncated = False
    for stream in ("stdout", "stderr", "log"):
        result = frames.results.get(f"{key}/{stream}")
        tail = b"" if result is None else result.stdout
        truncated = truncated or len(tail) > size
        tails[stream] = tail[-size:]
    if details is not None and details.status is not JobStatus.RUNNING and details.reason:
        tails["log"] = (tails["log"] + f"{details.reason}\n".encode())[-size:]
    return Diagnostics(tails["stdout"], tails["stderr"], tails["log"], truncated)


def _shown(word: str) -> str:
    """A word of a command, for people: a program in an argument is not shown in full."""
    if len(word) <= _WORD_SHOWN:
        return quote(word)
    return f"'... ({len(word)} characters)'"


def _refused_root(line: str) -> ResourceError:
    return ResourceError(
        f"the sandbox root is refused: {line.removeprefix('refused ')}",
        remedy="configure another root, a directory of this account's own",
    )


def _prepare(dest: Path) -> None:
    """See that `dest` can be written before anything is asked for, and remove what a killed fetch left there."""
    dest.mkdir(parents=True, exist_ok=True)
    sweep(dest)
