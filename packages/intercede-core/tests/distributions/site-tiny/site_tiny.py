"""A complete backend: every job succeeds at once. All that the contract asks of a resource fits on one page."""

from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Self

from attrs import field, frozen

from intercede.core import (
    BulkResult,
    ClosedError,
    CopyVars,
    CredentialProvider,
    Failure,
    FailureCode,
    JobHandle,
    JobID,
    JobStatus,
    StatusMap,
    Submission,
    SubmissionSpec,
    distinct_ids,
    expand_copies,
)
from intercede.core.registry import BackendPlugin, describe


@frozen
class TinyConfig:
    size: int = field(default=10, metadata=describe("Jobs it takes", unit="jobs"))


class TinyBackend:
    def __init__(self, config: TinyConfig, name: str, _: CredentialProvider | None) -> None:
        self.config, self.name, self.closed = config, name, False
        self.jobs: dict[JobID, JobHandle] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self.closed = True

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        if self.closed:
            raise ClosedError("closed", resource=self.name, operation="submit")
        sub, now = token_hex(8), datetime.now(UTC)
        handles = [
            JobHandle(JobID(f"{self.name}/{sub}/{n}"), "tiny", self.name, sub, n, now, spec.tag)
            for n in range(len(expand_copies(copies)))
        ]
        self.jobs |= {handle.id: handle for handle in handles}
        return Submission(sub, handles)

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        asked = distinct_ids(ids)
        unknown = [job for job in asked if job not in self.jobs]
        return BulkResult(
            {job: JobStatus.UNKNOWN if job in unknown else JobStatus.SUCCESSFUL for job in asked},
            {job: Failure(FailureCode.NO_SUCH_JOB, "not here") for job in unknown},
        )


plugin = BackendPlugin(TinyConfig, TinyBackend, "every job succeeds at once")
