"""Liars about F: what comes back."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from intercede.core import (
    BulkResult,
    CopyVars,
    FailureCode,
    JobID,
    JobOutput,
    JobStatus,
    Submission,
    SubmissionSpec,
)
from intercede.fake import FakeBackend
from intercede.fake._content import Content
from intercede.fake._faults import Trouble
from intercede.fake._output import Gathered, Limits, select, write_output
from intercede.fake._payload import Kind
from intercede.fake._site import FakeJob

from ._honest import Honest, lie


class GathersOtherwise(Honest):
    """Changes what is fetched."""

    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        """What is fetched instead."""
        return gathered

    def _gathered(self, job: FakeJob, now: float) -> Gathered:
        return self.changed(super()._gathered(job, now), job, now)


def _place(backend: Honest, job_id: JobID, dest: Path) -> Path | None:
    """Where the output of a job goes that there is."""
    found = backend.site.look(job_id, backend.resource)
    return dest / found[0].submission / str(found[0].copy) if found else None


def _streams(gathered: Gathered, job: FakeJob) -> tuple[str, str]:
    return job.spec.stdout or "stdout", job.spec.stderr or "stderr"


# ---------------------------------------------------------------- F1


@lie("F1", "shows each job of a bulk the standard output of the one before", "S1 S4 S5")
class PreviousStdout(Honest):
    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        result = await super().fetch_output(ids, dest)
        texts = [o.stdout.read_bytes() if o.stdout else b"" for o in result.values()]
        for output, text in zip(list(result.values())[1:], texts, strict=False):
            if output.stdout:
                output.stdout.write_bytes(text)
        return result


@lie("F1", "reads output as text, and leaves out what is none", "S4 S5")
class ReadsText(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        return evolve(
            gathered,
            streams={name: _as_text(content) for name, content in gathered.streams.items()},
            members={name: _as_text(content) for name, content in gathered.members.items()},
        )


def _as_text(content: Content) -> Content:
    if content.size > 2**20:
        return content
    return Content.of(bytes(content).decode(errors="ignore").encode())


@lie("F1", "lets standard error run into standard output")
class MixesStreams(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        out, err = _streams(gathered, job)
        if out not in gathered.streams:
            return gathered
        streams = gathered.streams
        return evolve(gathered, streams={**streams, out: streams[out] + streams[err]})


@lie("F1", "leaves the scheduler's log out of the manifest", "F3 F4 F6")
class ForgetsTheLog(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        return evolve(await super()._fetch(job_id, dest, trouble), log=None)


@lie("F1", "gives no path for a stream that is empty")
class NoEmptyStreams(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.stderr is None or output.stderr.stat().st_size:
            return output
        output.stderr.unlink()
        return evolve(output, stderr=None)


@lie("F1", "calls the streams what it always calls them")
class FixedStreamNames(GathersOtherwise):
    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        return await super().submit(evolve(spec, stdout=None, stderr=None), copies)


@lie("F1", "leaves out what may not be read, and says nothing")
class SilentlyShut(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        return evolve(gathered, shut=())


@lie("F1", "brings no files of a job that failed")
class NoFilesOfTheFailed(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        failed = job.status(now) is JobStatus.FAILED
        return evolve(gathered, members={}) if failed else gathered


@lie("F1", "brings no files of a job that was killed")
class NoFilesOfTheKilled(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        killed = job.status(now) is JobStatus.CANCELLED
        return evolve(gathered, members={}) if killed else gathered


class LosesNames(GathersOtherwise):
    """Brings no files with some signs in their names."""

    signs = ""

    def loses(self, job: FakeJob) -> bool:
        """Whether it does so with this job."""
        return True

    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        lost = {name for name in gathered.members if set(name) & set(self.signs)}
        kept = {name: c for name, c in gathered.members.items() if name not in lost}
        return evolve(gathered, members=kept) if self.loses(job) else gathered


@lie("F1", "takes a declared name for words of the shell")
class SplitsNames(LosesNames):
    signs = "'\"\n"

    def loses(self, job: FakeJob) -> bool:
        return bool(job.spec.outputs.members)


@lie("F1", "reads a listing of everything line by line")
class SplitsListings(LosesNames):
    signs = "\n"

    def loses(self, job: FakeJob) -> bool:
        return job.spec.outputs.everything


@lie("F1", "opens files as text, where CR LF is one newline")
class OpensAsText(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        small = {n: bytes(c) for n, c in gathered.members.items() if c.size < 2**20}
        read = {n: Content.of(text.replace(b"\r", b"\n")) for n, text in small.items()}
        return evolve(gathered, members={**gathered.members, **read})


@lie("F1", "unpacks all fetches of a job at the same place")
class SharesItsScratch(Honest):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # passed on
        self._fetching: dict[JobID, int] = {}

    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        busy = self._fetching.get(job_id, 0)
        self._fetching[job_id] = busy + 1
        try:
            output = await super()._fetch(job_id, dest, trouble)
        finally:
            self._fetching[job_id] -= 1
        return evolve(output, files=dict(list(output.files.items())[busy:]))


# ---------------------------------------------------------------- F2


class Selects(Honest):
    """Selects other files than were asked for."""

    def wanted(self, names: set[str], pattern: str) -> set[str]:
        """What a pattern selects besides."""
        return set()

    def _gathered(self, job: FakeJob, now: float) -> Gathered:
        gathered = super()._gathered(job, now)
        files = job.progress(now).files
        plain = {n for n, e in files.items() if e.kind is Kind.FILE} - job.secrets
        plain -= {*job.program.files, *gathered.shut}
        more = set[str]().union(
            *(self.wanted(plain, member.pattern) for member in job.spec.outputs.members)
        )
        members = {**gathered.members, **{name: files[name].content for name in more}}
        return evolve(gathered, members=members)


@lie("F2", "lets a star cross a slash, as fnmatch does")
class StarCrossesSlashes(Selects):
    def wanted(self, names: set[str], pattern: str) -> set[str]:
        return {name for name in names if "*" in pattern and fnmatch.fnmatchcase(name, pattern)}


@lie("F2", "does not mind capital letters in patterns")
class PatternsInAnyCase(Selects):
    def wanted(self, names: set[str], pattern: str) -> set[str]:
        return {n for n in names if n.lower() == pattern.lower()}


@lie("F2", "does not list what is declared and absent")
class HidesTheMissing(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        return evolve(gathered, missing=())


@lie("F2", "brings what was not declared too", "F1 F4")
class BringsTheRest(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        if not gathered.members or job.spec.outputs.everything:
            return gathered
        files = job.progress(now).files
        rest = {
            name: entry.content
            for name, entry in files.items()
            if entry.kind is Kind.FILE and name not in job.program.files and name.count("/") < 1
        }
        return evolve(gathered, members={**gathered.members, **rest})


@lie("F2", "brings what begins with a declared name")
class DeclaredIsAPrefix(Selects):
    def wanted(self, names: set[str], pattern: str) -> set[str]:
        plain = not set(pattern) & set("*?[/")
        return {name for name in names if plain and name.startswith(pattern) and "/" not in name}


@lie("F2", "brings a file once for each pattern that selects it, under another name")
class BringsItTwice(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        patterns = [member.pattern for member in job.spec.outputs.members]
        twice = {
            f"{name}.1": content
            for name, content in gathered.members.items()
            if sum(fnmatch.fnmatchcase(name, f"{p}*" if p[-1] == "/" else p) for p in patterns) > 1
        }
        return evolve(gathered, members={**gathered.members, **twice})


@lie("F2", "reads the first page of a listing of 256 names, and no other")
class ListsOnePage(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        return evolve(gathered, members=dict(list(gathered.members.items())[:256]))


@lie("F2", "leaves out names with a leading dot when everything was asked for", "F1 F8")
class HidesDots(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        if not job.spec.outputs.everything:
            return gathered
        shown = {n: c for n, c in gathered.members.items() if "/." not in f"/{n}"}
        return evolve(gathered, members=shown)


# ---------------------------------------------------------------- F3


@lie("F3", "leaves behind what had come when a limit was met")
class LeavesDebris(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.failure and output.failure.code is FailureCode.LIMIT:
            place = _place(self, job_id, dest)
            assert place is not None
            place.mkdir(parents=True)
            (place / "partial").write_bytes(b"so far")
        return output


@lie("F3", "fails the whole bulk when one job meets a limit")
class LimitFailsAll(Honest):
    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        result = await super().fetch_output(ids, dest)
        limits = [f for f in result.failures.values() if f.code is FailureCode.LIMIT]
        if not limits:
            return result
        for output in result.values():
            if output.log:
                shutil.rmtree(output.log.parent)
        return BulkResult(
            dict.fromkeys(result, JobOutput(failure=limits[0])), dict.fromkeys(result, limits[0])
        )


@lie("F3", "has no limit on the number of files")
class CountsNoFiles(Honest):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # passed on
        self._limits = Limits(self._config.output_max_bytes, 10**9)


# ---------------------------------------------------------------- F4


@lie("F4", "leaves out what is not safe, and says nothing")
class SilentlySafe(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.failure and output.failure.code is FailureCode.UNSAFE:
            return evolve(output, failure=None)
        return output


@lie("F4", "unpacks links as links")
class UnpacksLinks(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.log is None:
            return output
        for name, entry in self.site._jobs[job_id].progress(self.site.clock.now()).files.items():
            if entry.kind is Kind.LINK:
                place = output.log.parent / "work" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(entry.target)
        return output


@lie("F4", "follows links when it reads on the host")
class FollowsLinks(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.log is None:
            return output
        more = {}
        for name, entry in self.site._jobs[job_id].progress(self.site.clock.now()).files.items():
            treasure = Path(entry.target) / "treasure"
            if entry.kind is Kind.LINK and entry.target.startswith("/") and treasure.is_file():
                place = output.log.parent / "work" / name / "treasure"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(treasure, place)
                more[f"{name}/treasure"] = place
        return evolve(output, files={**output.files, **more})


@lie("F4", "looks whether a declared name is a link, and not whether its directory is one")
class FollowsDirectories(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.log is None:
            return output
        job = self.site._jobs[job_id]
        files, more = job.progress(self.site.clock.now()).files, {}
        for member in job.spec.outputs.members:
            directory, _, name = member.pattern.partition("/")
            entry = files.get(directory)
            there = Path(entry.target, name) if entry and entry.kind is Kind.LINK and name else None
            if there and there.is_file():
                more[member.pattern] = output.log.with_name(name)
                shutil.copy(there, more[member.pattern])
        return evolve(output, files={**output.files, **more})


@lie("F4", "fails every job of a bulk in which one has an unsafe member")
class UnsafeFailsAll(Honest):
    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        result = await super().fetch_output(ids, dest)
        unsafe = [f for f in result.failures.values() if f.code is FailureCode.UNSAFE]
        return BulkResult(dict(result), dict.fromkeys(result, unsafe[0])) if unsafe else result


@lie("F4", "writes through a link that lies at dest")
class WritesThroughDest(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        place = _place(self, job_id, dest)
        target = place.resolve() if place and place.is_symlink() else None
        output = await super()._fetch(job_id, dest, trouble)
        if target and output.stdout:
            shutil.copy(output.stdout, target / "stdout")
        return output


@lie("F4", "leaves out a file whose other name is not fetched")
class LosesHardLinks(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        verbs = job.spec.arguments
        names = {(verbs[at + 1], verbs[at + 2]) for at, v in enumerate(verbs) if v == "hardlink"}
        lost = {link for link, target in names if target not in gathered.members}
        return evolve(
            gathered, members={n: c for n, c in gathered.members.items() if n not in lost}
        )


@lie("F4", "unpacks a second name of a file as a second name")
class UnpacksHardLinks(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if {"a", "b"} <= output.files.keys():
            output.files["b"].unlink()
            output.files["b"].hardlink_to(output.files["a"])
        return output


# ---------------------------------------------------------------- F5 to F9


@lie("F5", "removes the output once it was fetched, and says that it does not")
class DestroysSecretly(GathersOtherwise):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # passed on
        self._gone: set[JobID] = set()

    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        return evolve(gathered, members={}) if job.id in self._gone else gathered

    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        self._gone.add(job_id)
        return output


@lie("F5", "does not send again what it has sent, wherever that was put")
class SendsWhatIsNew(DestroysSecretly):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        if (place := _place(self, job_id, dest)) and place.is_dir():
            self._gone.discard(job_id)
        return await super()._fetch(job_id, dest, trouble)


@lie("F5", "unpacks over what an earlier fetch has brought")
class UnpacksOver(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        place = _place(self, job_id, dest)
        there = list((place / "work").glob("*")) if place else []
        output = await super()._fetch(job_id, dest, trouble)
        for path in there:
            if path.name == "stray" and path.parent.is_dir():
                path.write_bytes(b"")
        return output


@lie("F6", "brings what there is of a job that still runs")
class BringsTheHalf(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        output = await super()._fetch(job_id, dest, trouble)
        if output.failure is None or output.failure.code is not FailureCode.NOT_FINISHED:
            return output
        found = self._found(job_id, trouble)
        assert isinstance(found, tuple)
        job, now = found
        return write_output(
            dest,
            f"{job.submission}/{job.copy}",
            self._gathered(job, now),
            *_streams(Gathered(), job),
            "log",
        )


@lie("F6", "says of a job that it does not know that its output is empty", "T2 P3")
class UnknownIsEmpty(Honest):
    async def fetch_output(self, ids: Sequence[JobID], dest: Path) -> BulkResult[JobOutput]:
        result = await super().fetch_output(ids, dest)
        unknown = {job for job, f in result.failures.items() if f.code is FailureCode.NO_SUCH_JOB}
        return BulkResult(
            {**result, **dict.fromkeys(unknown, JobOutput())},
            {job: f for job, f in result.failures.items() if job not in unknown},
        )


@lie("F7", "collects a file in memory before it writes it")
class ReadsWholeFiles(GathersOtherwise):
    def changed(self, gathered: Gathered, job: FakeJob, now: float) -> Gathered:
        members = {name: Content.of(bytes(c)) for name, c in gathered.members.items()}
        return evolve(gathered, members=members)


@lie("F7", "makes the archive of the inputs in memory")
class ArchivesInMemory(Honest):
    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        sources = [Path(ref.source) for ref in spec.inputs if ref.source is not None]
        sizes = [path.stat().st_size for path in sources if path.is_file()]
        archive = bytearray(sum(sizes))
        submission = await super().submit(spec, copies)
        archive.clear()
        return submission


class ReturnsMore(Honest):
    """Returns what nobody should get back."""

    def staged(self, job: FakeJob) -> frozenset[str]:
        """What counts as put there."""
        return frozenset(job.program.files)

    def secret(self, job: FakeJob) -> frozenset[str]:
        """What counts as secret."""
        return job.secrets

    def _gathered(self, job: FakeJob, now: float) -> Gathered:
        gathered = super()._gathered(job, now)
        return select(
            job.progress(now).files,
            job.spec.outputs,
            staged=self.staged(job),
            secrets=self.secret(job),
            streams=gathered.streams,
        )


@lie("F8", "returns the inputs and the executable with everything", "F1 F2 F3 F4 F6 F9")
class ReturnsInputs(ReturnsMore):
    def staged(self, job: FakeJob) -> frozenset[str]:
        return frozenset()


@lie("F8", "returns a secret that a pattern matches")
class ReturnsSecrets(ReturnsMore):
    def secret(self, job: FakeJob) -> frozenset[str]:
        return frozenset() if job.spec.outputs.members else job.secrets


@lie("F8", "returns secrets with everything")
class ReturnsSecretsToo(ReturnsMore):
    def secret(self, job: FakeJob) -> frozenset[str]:
        return frozenset() if job.spec.outputs.everything else job.secrets

    def staged(self, job: FakeJob) -> frozenset[str]:
        return super().staged(job) - job.secrets


@lie("F9", "takes the end of the stream for the end of the output")
class BelievesTheEnd(Honest):
    async def _fetch(self, job_id: JobID, dest: Path, trouble: Trouble) -> JobOutput:
        return await FakeBackend._fetch(self, job_id, dest, trouble)
