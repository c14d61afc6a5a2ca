"""What a consumer writes: abilities are asked for, and known from there on."""

from pathlib import Path

from intercede.core import BearerToken, CredentialRequirements, JobID, StatusMap, SubmissionSpec
from intercede.fake import FakeBackend
from intercede.sync import (
    Cancellable,
    CredentialProvider,
    JobBackend,
    Loop,
    Monitor,
    OutputRetriever,
    backend,
    synchronous,
)


def statuses(ce: Monitor, ids: list[JobID]) -> StatusMap:
    return ce.status(ids)


def everything(ce: JobBackend, ids: list[JobID]) -> bool:
    if isinstance(ce, Cancellable):
        ce.kill(ids).raise_for_failures()
    if isinstance(ce, OutputRetriever):
        paths: list[Path | None] = [
            output.stdout for output in ce.fetch_output(ids, Path()).values()
        ]
        return ce.destructive and bool(paths)
    return False


def token(credentials: CredentialProvider) -> str | None:
    found = credentials.get(CredentialRequirements("x", [BearerToken])).get(BearerToken)
    return found.value if found else None


async def twice(number: int) -> int:
    return 2 * number


with Loop() as loop, backend({"type": "fake"}, loop=loop) as ce:
    number: int = loop.call(twice, 21)
    handles = ce.submit(SubmissionSpec("true", resident=True)).handles
    everything(ce, [handle.id for handle in handles])

with synchronous(FakeBackend()) as other:
    statuses(other, [])
