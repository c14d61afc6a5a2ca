"""Run flepimop2's commands as jobs of interCEde: on this machine, or on a cluster over SSH.

    job:
      cluster:
        module: intercede
        resource: {transport: {type: ssh, host: login.example.org}, scheduler: slurm, name: cluster}
        key: ~/.ssh/id_ed25519

The configuration file travels with the job, so nothing need be shared with the resource but the program itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flepimop2.job.abc import JobABC, JobDryRun, JobHandle, JobStatus, JobStatusResult
from pydantic import Field

from intercede import core, sync
from intercede.core import FailureCode, JobID, PartialFailure
from intercede.toolkit import FileCredentials

if TYPE_CHECKING:
    from flepimop2.cli import CliCommand

__all__ = ["InterCEdeJob"]

#: flepimop2 knows no job that is held, or that was killed.
STATUSES: Final[Mapping[core.JobStatus, JobStatus]] = {
    core.JobStatus.PENDING: JobStatus.PENDING,
    core.JobStatus.HELD: JobStatus.PENDING,
    core.JobStatus.RUNNING: JobStatus.RUNNING,
    core.JobStatus.SUCCESSFUL: JobStatus.SUCCESSFUL,
    core.JobStatus.FAILED: JobStatus.FAILED,
    core.JobStatus.CANCELLED: JobStatus.FAILED,
    core.JobStatus.FINISHED_UNKNOWN: JobStatus.FINISHED_UNKNOWN,
}


class InterCEdeJob(JobABC, module="intercede"):
    """A place where commands run.

    Attributes:
        resource: What interCEde's registry is given.
        program: How flepimop2 is called there.
        key: A file with the SSH key, where the transport wants one.
    """

    resource: dict[str, Any]
    program: list[str] = Field(default=["flepimop2"], min_length=1)
    key: str | None = None

    def _backend(self) -> sync.JobBackend:
        keys = FileCredentials({core.SSHKey: self.key}) if self.key else None
        return sync.backend(self.resource, keys)

    def _submit(self, command: CliCommand, *, dry_run: bool = False) -> JobHandle | JobDryRun:
        spec = self._spec(command)
        with self._backend() as ce:
            if dry_run:
                assert isinstance(ce, sync.SupportsDryRun), f"{ce} has no dry run"
                shown = ce.dry_run(spec)
                files = {f"file {name}": f"{len(text)} bytes" for name, text in shown.files.items()}
                return JobDryRun(command=shown.command, details={**shown.details, **files})
            try:
                made = ce.submit(spec)
                made.raise_for_failures()
                (handle,) = made.handles
            except core.SubmitUncertain as uncertain:  # its status will tell
                (handle,) = uncertain.handles
        return JobHandle(
            job_id=handle.id,
            backend="intercede",
            submitted_at=handle.submitted_at,
            metadata=json.loads(core.to_json(handle)),
        )

    def _spec(self, command: CliCommand) -> core.SubmissionSpec:
        words = [*self.program, command.command_name(), *command.to_argv()]
        inputs = []
        if (config := command.config) is not None:
            there = os.fspath(config.absolute())
            words = [config.name if word == there else word for word in words]
            inputs.append(core.FileRef(config.name, source=config))
        return core.SubmissionSpec(
            words[0],
            words[1:],
            resident=True,
            inputs=inputs,
            outputs=core.OutputSpec(everything=True),
        )

    def _status(self, handle: JobHandle) -> JobStatusResult:
        job = JobID(handle.job_id)
        with self._backend() as ce:
            assert isinstance(ce, sync.SupportsDetails), f"{ce} tells no details"
            answers = ce.details([job])
        status, detail = self._read(answers, job)
        return JobStatusResult(**handle.model_dump(), status=status, detail=detail)

    @staticmethod
    def _read(
        answers: core.BulkResult[core.JobDetails], job: JobID
    ) -> tuple[JobStatus, dict[str, Any]]:
        failure = answers.failures.get(job)
        if failure is None:
            told = core.unstructure(answers[job])
            known = {key: value for key, value in told.items() if value is not None}
            return STATUSES[answers[job].status], known
        if failure.code is FailureCode.NO_SUCH_JOB:  # only what has ended can be purged
            return JobStatus.FINISHED_UNKNOWN, {"reason": failure.message}
        raise PartialFailure({job: failure})
