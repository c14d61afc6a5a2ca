"""A backend in one piece: jobs are plain processes of this account on this machine.

A backend has submit, status, open and close; every further method is an ability, and one that cannot be honoured is simply not there. The
rules for each are in the docstrings of `intercede.core`. All that is known of a job lies in its directory:

    <directory>/<resource>/<submission>/<copy>/
        job.json         its handle, and what to keep of its output
        inputs/          what it is given, until it starts
        work/            where the payload runs
        run              the script that runs it
        stdout, stderr
        began            exists from when it started
        end              how it ended; the first to make it is right, be it the job or a kill

Which processes are a job's is seen by a variable in their environment, which no payload can take from its children by accident.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self, TypeVar

from attrs import evolve, field, frozen

from intercede.core import (
    BulkResult,
    ClosedError,
    CopyVars,
    CredentialProvider,
    Diagnostics,
    Failure,
    FailureCode,
    InterCEdeError,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OpOutcome,
    ResourceError,
    StatusMap,
    Submission,
    SubmissionSpec,
    distinct_ids,
    expand_copies,
    from_json,
    to_json,
)
from intercede.core.registry import BackendPlugin, describe

from .output import Keep, Limits, fetch
from .staging import check, script, stage

__all__ = ["PlainBackend", "PlainConfig", "plugin"]

T = TypeVar("T")
V = TypeVar("V")

#: Names that begin so are reserved: no specification can set it.
_MARKER: Final = "INTERCEDE_PLAIN_JOB"
_COPY_OF: Final = re.compile(r"(?P<submission>[0-9a-f]{32})/(?P<copy>0|[1-9][0-9]{0,8})")
#: Starts every copy, each in a session of its own, and leaves: nobody has to wait for them.
_START: Final = f"""
marker=$1
shift
for copy; do
  {_MARKER}=$marker/$copy setsid sh "$copy/run" </dev/null >/dev/null 2>&1 &
done
"""
_TERM_S: Final = 1.0
_KILL_S: Final = 10.0
_TAIL: Final = 64 * 1024
_NO_SUCH_JOB: Final = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")


@frozen
class PlainConfig:
    """The keys of the configuration."""

    directory: str = field(
        default="~/.outsider", metadata=describe("Where jobs live, on this machine")
    )
    output_max_bytes: int = field(
        default=10 * 2**30, metadata=describe("Largest output of one job", unit="bytes")
    )
    output_max_files: int = field(default=100_000, metadata=describe("Most files of one job"))
    output_max_s: float = field(
        default=3600.0, metadata=describe("Longest fetch of one job", unit="s")
    )


class PlainBackend:
    """Runs payloads as plain processes, all at once."""

    def __init__(
        self, config: PlainConfig, name: str, credentials: CredentialProvider | None = None
    ) -> None:
        # No I/O here, and no event loop (L1).
        self._name = name
        self._root = Path(config.directory).expanduser() / name
        self._limits = Limits(config.output_max_bytes, config.output_max_files, config.output_max_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    # ---------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        self._check("open")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to let go of; later use raises `ClosedError`."""
        self._closed = True

    def _check(self, operation: str) -> None:
        if self._closed:
            raise ClosedError(
                "it is closed", remedy="make a new one", resource=self._name, operation=operation
            )
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ClosedError(
                "it was first used in another event loop",
                remedy="make one per loop",
                resource=self._name,
                operation=operation,
            )

    async def _in_thread(self, operation: str, work: Callable[[], T]) -> T:
        """Do blocking work in a thread, wholly: one that is cancelled is waited for, so that nothing is left half-done (L4)."""
        self._check(operation)
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            with suppress(asyncio.CancelledError):
                task.exception()
            raise
        except InterCEdeError as error:
            raise error.at(self._name, operation) from error.__cause__

    async def _bulk(
        self,
        operation: str,
        ids: Sequence[JobID],
        one: Callable[[JobID, Path], V],
        failed: Callable[[Failure], V],
    ) -> BulkResult[V]:
        """Ask the same of every job: each gets an answer, whatever becomes of the others (T1, T2).

        Args:
            operation: For messages.
            ids: The jobs; nothing in them is trusted.
            one: The answer for a job and its directory; `_Failed` if there is none.
            failed: The answer for a job with a failure.
        """
        self._check(operation)
        wanted = distinct_ids(ids)
        if not wanted:
            return BulkResult({})

        def all_of_them() -> BulkResult[V]:
            answers: dict[JobID, V] = {}
            failures: dict[JobID, Failure] = {}
            for job in wanted:
                try:
                    answers[job] = one(job, self._place(job))
                except _Failed as error:
                    answers[job], failures[job] = failed(error.failure), error.failure
                except FileNotFoundError:  # purged, just now
                    answers[job], failures[job] = failed(_NO_SUCH_JOB), _NO_SUCH_JOB
            return BulkResult(answers, failures)

        return await self._in_thread(operation, all_of_them)

    def _place(self, job: JobID) -> Path:
        """The directory of a job. Only what this backend could have written gets as far as a path."""
        resource, _, rest = job.partition("/")
        found = _COPY_OF.fullmatch(rest)
        if resource != self._name or found is None:
            raise _Failed(_NO_SUCH_JOB)
        place = self._root / found["submission"] / found["copy"]
        if place.is_symlink() or not place.is_dir():
            raise _Failed(_NO_SUCH_JOB)
        return place

    # ---------------------------------------------------------------- what every backend has

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        """Stage the files, then start the copies."""
        return await self._in_thread("submit", lambda: self._submit(spec, copies))

    def _submit(self, spec: SubmissionSpec, copies: int | Sequence[CopyVars]) -> Submission:
        variants = expand_copies(copies)
        program = check(spec, variants)
        submission = uuid.uuid4().hex
        now = datetime.now(UTC)
        handles = [
            JobHandle(
                id=JobID(f"{self._name}/{submission}/{copy}"),
                backend="plain",
                resource=self._name,
                submission=submission,
                copy=copy,
                submitted_at=now,
                tag=spec.tag,
            )
            for copy in range(len(variants))
        ]
        new = self._root / f".{submission}"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for handle, variant in zip(handles, variants, strict=True):
                place = new / str(handle.copy)
                stage(spec, variant, place)
                lines = script(
                    spec, variant, program, place.parent.with_name(submission), handle.copy
                )
                (place / "run").write_bytes(lines)
                keep = Keep.of(spec, variant)
                (place / "job.json").write_text(
                    json.dumps({"handle": to_json(handle), "keep": keep.as_json()})
                )
            # It appears whole or not at all.
            new.rename(self._root / submission)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise ResourceError(
                f"the job could not be staged: {error}", remedy="mend the directory"
            ) from error
        names = [str(handle.copy) for handle in handles]
        marker = f"{self._name}/{submission}"
        started = subprocess.run(
            ["sh", "-c", _START, "sh", marker, *names],
            cwd=self._root / submission,
            env={name: os.environ[name] for name in ("HOME", "PATH", "USER") if name in os.environ},
            capture_output=True,
            check=False,
            # Ctrl-C at a terminal is for all of its processes, and would end this one when half of the copies are started.
            start_new_session=True,
        )
        if started.returncode:
            shutil.rmtree(self._root / submission, ignore_errors=True)
            raise ResourceError(
                "the jobs could not be started", said=started.stderr.decode(errors="replace")
            )
        return Submission(submission, handles)

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        """Where the jobs are."""
        living = functools.cache(_living)
        return await self._bulk(
            "status",
            ids,
            lambda job, place: _look(job, place, living).status,
            lambda _: JobStatus.UNKNOWN,
        )

    # ---------------------------------------------------------------- abilities

    async def details(self, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        """Status, exit code, signal, times and node."""
        living = functools.cache(_living)
        return await self._bulk(
            "details",
            ids,
            lambda job, place: _look(job, place, living),
            lambda _: JobDetails(JobStatus.UNKNOWN),
        )

    async def kill(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """End the jobs with all their processes."""

        def claim(job: JobID, place: Path) -> OpOutcome:
            if _look(job, place, living).status.is_finished:
                return OpOutcome(ok=True, note="it had ended already")
            # First of all, so that it is CANCELLED whatever its processes do next.
            _record(place, "cancelled")
            if _ending(place) != "cancelled":
                return OpOutcome(ok=True, note="it ended by itself just now")
            doomed.append(job)
            return OpOutcome(ok=True)

        living = functools.cache(_living)
        doomed: list[JobID] = []
        outcomes = await self._bulk("kill", ids, claim, _undone)
        left = await self._in_thread("kill", lambda: _end(doomed)) if doomed else set()
        if not left:
            return outcomes
        stubborn = Failure(FailureCode.NOT_NOW, "processes of it are still there; kill it again")
        return BulkResult(
            {**outcomes, **dict.fromkeys(left, _undone(stubborn))},
            {**outcomes.failures, **dict.fromkeys(left, stubborn)},
        )

    async def purge(self, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        """Remove the directories of finished jobs."""
        living = functools.cache(_living)

        def remove(job: JobID, place: Path) -> OpOutcome:
            if not _look(job, place, living).status.is_finished:
                raise _Failed(Failure(FailureCode.NOT_FINISHED, "it has not ended; kill it first"))
            # At once for everybody else; the rest may take its time.
            gone = place.rename(place.with_name(f".{uuid.uuid4().hex}"))
            shutil.rmtree(gone, ignore_errors=True)
            with suppress(OSError):
                place.parent.rmdir()  # the last copy takes the submission along
            return OpOutcome(ok=True)

        return await self._bulk("purge", ids, remove, _undone)

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        """The handles of a tag, from the directories themselves."""
        handles = await self._in_thread("find", self._handles)
        return tuple(handle for handle in handles if handle.tag == tag)

    def _handles(self) -> list[JobHandle]:
        found = []
        for place in (copy for submission in _entries(self._root) for copy in _entries(submission)):
            with suppress(FileNotFoundError, NotADirectoryError):
                text = (place / "job.json").read_text()
                found.append(from_json(JobHandle, json.loads(text)["handle"]))
        return sorted(
            found, key=lambda handle: (handle.submitted_at, handle.submission, handle.copy)
        )

    async def counts(self) -> JobCounts:
        """Unfinished jobs of this resource's name."""
        handles = await self._in_thread("counts", self._handles)
        seen = list((await self.status([handle.id for handle in handles])).values())
        return JobCounts(
            running=seen.count(JobStatus.RUNNING), waiting=seen.count(JobStatus.PENDING)
        )

    async def diagnostics(self, ids: Sequence[JobID]) -> BulkResult[Diagnostics]:
        """The last bytes of stdout and stderr."""

        def tails(job: JobID, place: Path) -> Diagnostics:
            (out, out_cut), (err, err_cut) = _tail(place / "stdout"), _tail(place / "stderr")
            why = b"" if (place / "began").exists() else b"not started yet\n"
            return Diagnostics(out, err, why, truncated=out_cut or err_cut)

        return await self._bulk("diagnostics", ids, tails, lambda _: Diagnostics())

    @property
    def destructive(self) -> bool:
        """False: what was fetched stays until it is purged."""
        return False

    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        """Copy the output of finished jobs."""
        living = functools.cache(_living)

        def bring(job: JobID, place: Path) -> JobOutput:
            if not _look(job, place, living).status.is_finished:
                raise _Failed(Failure(FailureCode.NOT_FINISHED, "it has not ended; ask again"))
            keep = Keep.from_json(json.loads((place / "job.json").read_text())["keep"])
            return fetch(place, keep, dest / place.parent.name / place.name, self._limits)

        result = await self._bulk(
            "fetch_output", ids, bring, lambda failure: JobOutput(failure=failure)
        )
        failures = {job: output.failure for job, output in result.items() if output.failure}
        return BulkResult(result, failures)


class _Failed(Exception):
    """What `_bulk` makes a job's failure of."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _undone(failure: Failure) -> OpOutcome:
    return OpOutcome(ok=False, failure=failure)


# -------------------------------------------------------------------- what is seen of a job


def _living() -> Mapping[str, Sequence[int]]:
    """The processes of all jobs, by job id."""
    found: dict[str, list[int]] = {}
    marker = f"{_MARKER}=".encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended, or is not ours
            for variable in (process / "environ").read_bytes().split(b"\0"):
                if variable.startswith(marker):
                    job = os.fsdecode(variable.removeprefix(marker))
                    found.setdefault(job, []).append(int(process.name))
    return found


def _entries(folder: Path) -> list[Path]:
    """What is in a directory; nothing if somebody has purged it just now (where `glob` would raise)."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _ending(place: Path) -> str | None:
    try:
        return (place / "end").read_text().strip()
    except FileNotFoundError:
        return None


def _record(place: Path, ending: str) -> None:
    """Record an end, unless there is one: `link` lets only the first one in, so that a finished status never changes (T4)."""
    new = place / f"end.{uuid.uuid4().hex}"
    new.write_text(f"{ending}\n")
    with suppress(FileExistsError):
        (place / "end").hardlink_to(new)
    new.unlink()


def _look(job: JobID, place: Path, living: Callable[[], Mapping[str, Sequence[int]]]) -> JobDetails:
    """All that is known of a job.

    Raises:
        FileNotFoundError: It has been purged meanwhile. What is not there proves nothing as long as the directory may be gone, too.
    """
    ending = _ending(place)
    began = _moment(place / "began")
    if ending is None and began is None:
        (place / "job.json").stat()
        return JobDetails(JobStatus.PENDING, reason="not started yet")
    # The second look is for those that began after the processes were listed.
    if (ending is None and (job in living() or job in _living())) or (
        ending == "cancelled" and began is not None and job in living()
    ):
        return JobDetails(JobStatus.RUNNING, started_at=began, node=platform.node())
    if ending is None:
        # It began, is no more, and unless it ended just now it did not say how: its runner was killed, or the machine went down.
        _record(place, "lost")
        ending = (place / "end").read_text().strip()
    word, _, number = ending.partition(" ")
    details = JobDetails(
        _ENDINGS.get(word, JobStatus.FINISHED_UNKNOWN),
        started_at=began,
        ended_at=_moment(place / "end"),
        node=platform.node(),
    )
    if word != "exit":
        return details
    code = int(number)
    if 128 < code <= 192:  # as a shell reports a signal
        return evolve(details, signal=code - 128)
    return evolve(
        details, status=JobStatus.FAILED if code else JobStatus.SUCCESSFUL, exit_code=code
    )


_ENDINGS: Final[Mapping[str, JobStatus]] = {
    "exit": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
    "lost": JobStatus.FINISHED_UNKNOWN,
}


def _moment(file: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def _end(jobs: Sequence[JobID]) -> set[JobID]:
    """End all processes of these jobs: TERM, and a little later KILL, until none is left. Returns the jobs that have some."""
    begun = time.monotonic()
    told: set[int] = set()
    while True:
        living = _living()
        left = {job for job in jobs if job in living}
        waited = time.monotonic() - begun
        if not left or waited > _KILL_S:
            return left
        for pid in (pid for job in left for pid in living[job]):
            with suppress(ProcessLookupError):
                if waited > _TERM_S:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in told:
                    told.add(pid)
                    os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)


def _tail(file: Path) -> tuple[bytes, bool]:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - _TAIL, 0))
            return stream.read(_TAIL), size > _TAIL
    except FileNotFoundError:
        return b"", False


plugin = BackendPlugin(PlainConfig, PlainBackend, summary="Plain processes on this machine")
