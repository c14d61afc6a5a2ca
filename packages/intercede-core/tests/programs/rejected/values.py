"""What cannot be built at run time is not let through before."""

from intercede.core import (
    BearerToken,
    BulkResult,
    CredentialSet,
    FileRef,
    JobBackend,
    JobHandle,
    JobStatus,
    OutputSpec,
    Resources,
    StatusMap,
    Submission,
    SubmissionSpec,
)

spec = SubmissionSpec("x", argments=["a"])  # E: call-arg
SubmissionSpec(5)  # E: arg-type
SubmissionSpec("x", inputs=["a"])  # E: list-item
SubmissionSpec("x", resources={"cpus": 1})  # E: arg-type
SubmissionSpec("x", environment={"A": 1})  # E: dict-item
FileRef("a", content="text")  # E: arg-type
Resources(cpus="2")  # E: arg-type
OutputSpec([5])  # E: list-item
SubmissionSpec("x").tag = "y"  # E: misc
Submission("s", [5])  # E: list-item


async def ask(ce: JobBackend, handle: JobHandle) -> None:
    await ce.status("r/s/0")  # E: arg-type
    await ce.status(["r/s/0"])  # E: list-item
    await ce.status([handle])  # E: list-item
    await ce.submit("x")  # E: arg-type
    await ce.submit(SubmissionSpec("x"), copies="2")  # E: arg-type
    ce.status([handle.id]).values()  # E: attr-defined


def read(statuses: StatusMap, credentials: CredentialSet) -> str:
    wrong: BulkResult[int] = statuses  # E: assignment
    if statuses[5] is JobStatus.FAILED:  # E: index
        print(wrong)
    return credentials.get(BearerToken).value  # E: union-attr
