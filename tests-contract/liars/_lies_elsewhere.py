"""Liars that only another process finds out: they are made of real parts, with real sandboxes on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.core import (
    BulkResult,
    CopyVars,
    Failure,
    FailureCode,
    JobHandle,
    JobID,
    JobStatus,
    StatusMap,
    Submission,
    SubmissionSpec,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler
from intercede.transport.local import LocalTransport

from ._honest import LiarConfig, lie

#: What this process has submitted or found, by submission, and under which tags.
_SUBMISSIONS: Final[set[str]] = set()
_TAGS: Final[set[str | None]] = set()


class OnThisMachine(BatchBackend):
    """Local processes in sandboxes; and notes what it submits and finds."""

    def __init__(self, config: LiarConfig, resource: str) -> None:
        super().__init__(
            BatchConfig(root=config.root),
            resource,
            LocalTransport(),
            DirectScheduler(DirectConfig(slots=100)),
        )

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        _TAGS.add(spec.tag)
        submission = await super().submit(spec, copies)
        _SUBMISSIONS.add(submission.id)
        return submission

    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        found = await super().find(tag)
        _SUBMISSIONS.update(handle.submission for handle in found)
        return found


@lie("S2", "knows the jobs that this process has submitted or found, and no others")
class KnowsItsOwn(OnThisMachine):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        strange = [
            job for job in seen if job.count("/") > 1 and job.split("/")[1] not in _SUBMISSIONS
        ]
        failure = Failure(FailureCode.NO_SUCH_JOB, "it was not submitted here")
        return BulkResult(
            {**seen, **dict.fromkeys(strange, JobStatus.UNKNOWN)},
            {**seen.failures, **dict.fromkeys(strange, failure)},
        )


@lie("S2", "finds the tags that this process has submitted under, and no others", "S7")
class FindsItsOwn(OnThisMachine):
    async def find(self, tag: str) -> tuple[JobHandle, ...]:
        return await super().find(tag) if tag in _TAGS else ()
