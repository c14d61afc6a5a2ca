"""Liars about S: what is submitted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import evolve, fields, frozen

from intercede.core import (
    BulkResult,
    CopyVars,
    DryRun,
    Failure,
    FileRef,
    JobHandle,
    JobID,
    JobStatus,
    OpOutcome,
    Resources,
    SpecRefused,
    StatusMap,
    Submission,
    SubmissionSpec,
    SubmitUncertain,
)
from intercede.fake import PAYLOAD, FakeConfig
from intercede.fake._backend import _handle
from intercede.fake._faults import Operation
from intercede.fake._payload import Entry, Kind, Program
from intercede.fake._site import FakeJob
from intercede.fake._staging import read_sandbox

from ._honest import Honest, lie

Copies = int | Sequence[CopyVars]


@lie("S1", "drops the last copy of an array that has more than ten")
class DropsTheLastCopy(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        submission = await super().submit(spec, copies)
        if len(submission.handles) <= 10:
            return submission
        *kept, last = submission.handles
        self.site.remove(self.site._jobs[last.id])
        return evolve(submission, handles=tuple(kept))


@lie("S1", "takes two equal submits at the same time for one", "T5")
class MergesSubmits(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._under_way: dict[str, asyncio.Task[Submission]] = {}

    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        key = repr((spec, copies))
        if key not in self._under_way:
            self._under_way[key] = asyncio.create_task(super().submit(spec, copies))
        task = self._under_way[key]
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._under_way.pop(key, None)
        return task.result()


@frozen
class RicherHandle(JobHandle):
    """A handle of another class, which is therefore never equal to a plain one."""


def _richer(handle: JobHandle) -> JobHandle:
    return RicherHandle(**{a.name: getattr(handle, a.name) for a in fields(JobHandle)})


@lie("S2", "returns handles of a class of its own, which JSON does not bring back")
class RicherHandles(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        submission = await super().submit(spec, copies)
        return evolve(submission, handles=tuple(map(_richer, submission.handles)))

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        return tuple(map(_richer, await super().find(tag)))


@lie("S2", "calls a job failed whose end it has not seen itself", "L2 T4")
class TrustsItsOwnEyes(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._own: set[JobID] = set()

    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        submission = await super().submit(spec, copies)
        self._own.update(handle.id for handle in submission.handles)
        return submission

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        return BulkResult(
            {
                job: JobStatus.FAILED if at is JobStatus.SUCCESSFUL and job not in self._own else at
                for job, at in seen.items()
            },
            seen.failures,
        )


@frozen
class LateProgram(Program):
    """A program whose inputs are read when somebody needs them."""

    read: Callable[[], Mapping[str, Entry]] = dict

    def __getattribute__(self, name: str) -> object:
        return self.read() if name == "files" else super().__getattribute__(name)


class ReadsLate(Honest):
    """Reads what it was given when the job needs it."""

    def reads_late(self, source: Path) -> bool:
        """Whether this input is read late."""
        return True

    def lost(self, given: Mapping[str, Entry]) -> Mapping[str, Entry]:
        """What there is of the inputs when they are not there any more."""
        return {}

    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        submission = await super().submit(spec, copies)
        if not any(ref.source and self.reads_late(Path(ref.source)) for ref in spec.inputs):
            return submission
        for handle in submission.handles:
            job = self.site._jobs[handle.id]
            program, given = job.program, job.program.files

            def read(given: Mapping[str, Entry] = given) -> Mapping[str, Entry]:
                try:
                    return read_sandbox(spec)
                except SpecRefused:
                    return self.lost(given)

            job.program = LateProgram(
                program.name, program.arguments, program.environment, given, read=read
            )
            job._whole = None
        return submission


@lie("S3", "reads directories when the job needs them")
class ReadsTreesLate(ReadsLate):
    def reads_late(self, source: Path) -> bool:
        return source.is_dir()


@lie("S3", "keeps inputs open instead of copying them")
class KeepsInputsOpen(ReadsLate):
    def lost(self, given: Mapping[str, Entry]) -> Mapping[str, Entry]:
        return given


class ChangesTheSpec(Honest):
    """Submits something else than it was given."""

    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        """What is submitted instead."""
        return spec

    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        return await super().submit(self.changed(spec), copies)


@lie("S4", "loses empty arguments on the way through a shell")
class LosesEmptyArguments(ChangesTheSpec):
    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        return evolve(spec, arguments=tuple(filter(None, spec.arguments)))


@lie("S4", "cuts the command line where the kernel's page ends")
class CutsLongArguments(ChangesTheSpec):
    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        return evolve(spec, arguments=tuple(word[:65536] for word in spec.arguments))


@lie("S4", "loses the newline at the end of an environment value, as $(...) does")
class StripsEnvironment(ChangesTheSpec):
    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        stripped = {name: value.rstrip("\n") for name, value in spec.environment.items()}
        return evolve(spec, environment=stripped)


@lie("S4", "expands $$ in the variables of a copy")
class ExpandsCopyVariables(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        if not isinstance(copies, int):
            copies = [
                evolve(
                    variables,
                    environment={
                        name: value.replace("$$", "4711")
                        for name, value in variables.environment.items()
                    },
                )
                for variables in copies
            ]
        return await super().submit(spec, copies)


@lie("S1", "gives every copy the variables of the first", "S4 F1")
class SharesVariables(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        if not isinstance(copies, int) and copies:
            copies = [evolve(v, environment=copies[0].environment) for v in copies]
        return await super().submit(spec, copies)


@lie("S4", "runs an executable only if its execute bit is set here")
class NeedsTheExecuteBit(ChangesTheSpec):
    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        there = spec.resident or not os.path.isfile(spec.executable)  # noqa: PTH113  # as one does
        if there or os.access(spec.executable, os.X_OK):
            return spec
        return evolve(spec, arguments=("exit", "126"))


class ChangesThePrograms(Honest):
    """Puts something else in place than it was given."""

    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        """What runs instead."""
        return program

    async def _prepared(
        self, spec: SubmissionSpec, variants: Sequence[CopyVars], operation: Operation
    ) -> list[Program]:
        programs = await super()._prepared(spec, variants, operation)
        return [
            self.changed(program, spec, variables)
            for program, variables in zip(programs, variants, strict=True)
        ]


@lie("S4", "does not quote the name of the executable")
class UnquotedExecutable(ChangesThePrograms):
    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        if not set(program.name) & set(" '$%\n"):
            return program
        return evolve(program, name=PAYLOAD, arguments=("exit", "127"))


@lie("S4", "leaves out the empty directories of an input")
class LosesEmptyDirectories(ChangesThePrograms):
    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        files = {
            name: entry
            for name, entry in program.files.items()
            if entry.kind is not Kind.DIRECTORY
            or any(other.startswith(f"{name}/") for other in program.files)
        }
        return evolve(program, files=files)


@lie("S4", "loses the execute bit of inputs")
class LosesExecuteBits(ChangesThePrograms):
    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        plain = {ref.name for ref in spec.inputs}
        files = {
            name: evolve(entry, mode=0o600) if name in plain else entry
            for name, entry in program.files.items()
        }
        return evolve(program, files=files)


@lie("S4", "puts a question mark for the bytes of a name that are not UTF-8")
class GarblesNames(ChangesThePrograms):
    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        files = {
            name.encode("utf-8", "replace").decode(): entry for name, entry in program.files.items()
        }
        return evolve(program, files=files)


@lie("S5", "writes secrets as the umask has it")
class WorldReadableSecrets(ChangesThePrograms):
    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        files = {
            name: evolve(entry, mode=0o644) if name in variables.secrets else entry
            for name, entry in program.files.items()
        }
        return evolve(program, files=files)


@lie("S5", "hands secrets over in the environment", "E2")
class SecretsInEnvironment(ChangesThePrograms):
    def changed(self, program: Program, spec: SubmissionSpec, variables: CopyVars) -> Program:
        shown = {
            f"SECRET_{number}": value.decode("latin-1")
            for number, value in enumerate(variables.secrets.values())
        }
        return evolve(program, environment={**program.environment, **shown})


@lie("S5", "shows secrets in a dry run", "E2")
class RehearsesSecrets(Honest):
    async def dry_run(self, spec: SubmissionSpec, copies: Copies = 1) -> DryRun:
        rehearsal = await super().dry_run(spec, copies)
        shown = {
            f"{copy}/work/{name}": value
            for copy, variables in enumerate([] if isinstance(copies, int) else copies)
            for name, value in variables.secrets.items()
        }
        return evolve(rehearsal, files={**rehearsal.files, **shown})


@lie("S6", "ignores a container that it cannot run")
class IgnoresContainers(ChangesTheSpec):
    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        return evolve(spec, container=None)


@lie("S6", "takes the default queue for one that it does not know")
class IgnoresQueues(ChangesTheSpec):
    def changed(self, spec: SubmissionSpec) -> SubmissionSpec:
        return evolve(spec, resources=evolve(spec.resources, queue=None))


@lie("S6", "hears the scheduler's refusal only when everything was sent")
class SendsFirst(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        if spec.resources.cpus > self._config.max_cpus:
            await super().submit(evolve(spec, resources=Resources()), copies)
        return await super().submit(spec, copies)


@lie("S6", "names no field when it refuses", "E1 T3")
class NamesNoField(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        try:
            return await super().submit(spec, copies)
        except SpecRefused as refused:
            if not refused.field.startswith("executable"):
                raise
            raise SpecRefused("spec", "invalid", remedy="ask the site").at(
                self.resource, "submit"
            ) from None


@lie("S6", "submits nothing when it is asked for no copies, and says that all is well", "E1")
class SubmitsNothing(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        if not copies or copies == -1:
            return Submission("none", (), {})
        return await super().submit(spec, copies)


@lie("S6", "checks nothing in a dry run")
class RehearsesAnything(Honest):
    async def dry_run(self, spec: SubmissionSpec, copies: Copies = 1) -> DryRun:
        self._lifetime.check(Operation.DRY_RUN)
        return DryRun(command=spec.executable, files={}, details={})


@lie("S6", "stages the files in a dry run")
class RehearsesForReal(Honest):
    async def dry_run(self, spec: SubmissionSpec, copies: Copies = 1) -> DryRun:
        rehearsal = await super().dry_run(spec, copies)
        await self.submit(spec, copies)
        return rehearsal


# ---------------------------------------------------------------- S7


class Finds(Honest):
    """Finds other jobs than it should."""

    def matches(self, tag: str, job: FakeJob) -> bool:
        """Whether the job is found."""
        return job.spec.tag == tag and job.resource == self.resource

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        await super().find(tag)
        jobs = list(self.site._jobs.values())
        return tuple(_handle(job) for job in jobs if self.matches(tag, job))


@lie("S7", "finds every tag that begins with the one asked for")
class FindsByPrefix(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        return (job.spec.tag or "").startswith(tag) and job.resource == self.resource


@lie("S7", "finds tags in capital letters too")
class FindsInAnyCase(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        return (job.spec.tag or "").lower() == tag.lower() and job.resource == self.resource


@lie("S7", "strips the blanks of a tag")
class StripsTags(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        return job.spec.tag == tag.strip() and job.resource == self.resource


@lie("S7", "asks the queue alone, so that finished jobs are not found", "K2")
class FindsTheUnfinished(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        found = self.site.look(job.id, self.resource)
        done = found is None or found[0].status(found[1]).is_finished
        return super().matches(tag, job) and not done


@lie("S7", "finds the jobs of every resource name")
class FindsOfAll(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        return job.spec.tag == tag


@lie("S7", "finds nothing that was staged and not submitted")
class FindsTheSubmitted(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        return super().matches(tag, job) and not job.staged_only


@lie("S7", "still finds what it has purged", "P3")
class FindsThePurged(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._purged: list[JobHandle] = []

    def _purge(self, job: FakeJob, now: float) -> OpOutcome | Failure:
        outcome = super()._purge(job, now)
        if isinstance(outcome, OpOutcome):
            self._purged.append(_handle(job))
        return outcome

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        gone = [handle for handle in self._purged if handle.tag == tag]
        return (*await super().find(tag), *gone)


@lie("S7", "takes a tag for a pattern")
class FindsByPattern(Finds):
    def matches(self, tag: str, job: FakeJob) -> bool:
        return super().matches(tag, job) or (tag == "*" and job.resource == self.resource)


# ---------------------------------------------------------------- S8, S9


@lie("S8", "lets a secret take the place of an input")
class SecretsReplaceInputs(Honest):
    async def _prepared(
        self, spec: SubmissionSpec, variants: Sequence[CopyVars], operation: Operation
    ) -> list[Program]:
        taken = [spec.executable_name, *(ref.name for ref in spec.inputs)]
        kept = [
            evolve(
                variables,
                secrets={
                    name: value
                    for name, value in variables.secrets.items()
                    if name.split("/")[0] not in taken
                },
            )
            for variables in variants
        ]
        return await super()._prepared(spec, kept, operation)


@lie("S8", "copies an input directory with its links, through which the payload then writes")
class CopiesLinks(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        try:
            return await super().submit(spec, copies)
        except SpecRefused as refused:
            if "link to a directory" not in str(refused):
                raise
        for ref in spec.inputs:
            self._write_through(ref, spec.arguments)
        return await super().submit(evolve(spec, inputs=(), arguments=()), copies)

    def _write_through(self, ref: FileRef, verbs: Sequence[str]) -> None:
        """What the payload writes: this host is the pretend one's file system."""
        for verb, name, text in zip(verbs, verbs[1:], verbs[2:], strict=False):
            if verb == "write" and ref.source and name.startswith(f"{ref.name}/"):
                place = Path(ref.source, name.removeprefix(f"{ref.name}/"))
                if place.parent.is_symlink():
                    place.write_text(text)


@lie("S9", "submits again when the answer is lost", "S7")
class SubmitsAgain(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        try:
            return await super().submit(spec, copies)
        except SubmitUncertain:
            return await super().submit(spec, copies)


@lie("S9", "starts every job twice, and knows of one", "K1")
class StartsTwice(Honest):
    async def submit(self, spec: SubmissionSpec, copies: Copies = 1) -> Submission:
        submission = await super().submit(spec, copies)
        if self.site.slots is None:
            jobs = [self.site._jobs[handle.id] for handle in submission.handles]
            self.site.add(
                evolve(job, id=JobID(f"twin/{job.submission}/{job.copy}"), resource="twin")
                for job in jobs
            )
        return submission
