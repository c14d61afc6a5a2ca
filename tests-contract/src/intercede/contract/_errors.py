"""Rules E1 and E2: errors that a person can act on, and no secret anywhere."""

from __future__ import annotations

import logging
import os
import pickle
import traceback
import warnings
from pathlib import Path

import pytest

from intercede.core import (
    ClosedError,
    CopyVars,
    FailureCode,
    FileRef,
    InterCEdeError,
    JobID,
    ResourceError,
    SpecRefused,
    SubmissionSpec,
    SupportsDryRun,
    TransportError,
)

from ._bench import Bench, Rules
from ._life import calls, lethal_calls
from ._verdict import not_observed, rule

__all__ = ["ErrorRules"]


class ErrorRules(Rules):
    """E: errors."""

    @rule("E1")
    async def test_a_refusal_names_resource_operation_field_and_remedy(self, bench: Bench) -> None:
        name = (await bench.submit(bench.spec())).handles[0].resource
        with pytest.raises(SpecRefused) as caught:
            await bench.submit(bench.spec(executable=bench.scratch / "absent.sh"))
        refused = caught.value
        assert (refused.resource, refused.operation, refused.field) == (
            name,
            "submit",
            "executable",
        )
        assert refused.remedy and "absent.sh" in str(refused)

    @rule("E1")
    async def test_use_after_close_names_resource_and_remedy(self, bench: Bench) -> None:
        name = (await bench.submit(bench.spec())).handles[0].resource
        backend = bench.made()
        await backend.aclose()
        with pytest.raises(ClosedError) as caught:
            await backend.status([JobID("nobody/nothing/0")])
        assert (caught.value.resource, bool(caught.value.remedy)) == (name, True)

    @rule("E1")
    async def test_what_fails_for_all_raises_and_names_resource_operation_and_remedy(
        self, bench: Bench
    ) -> None:
        handle = (await bench.submit(bench.spec())).handles[0]
        try:
            async with bench.faults.unreachable(bench.config) as backend:
                every = {
                    **calls(backend, [handle.id], bench),
                    **lethal_calls(backend, [handle.id], bench),
                }
                every.pop("dry_run", None)
                for name, call in every.items():
                    with pytest.raises((TransportError, ResourceError)) as caught:
                        await call()
                    assert (caught.value.resource, bool(caught.value.operation)) == (
                        handle.resource,
                        True,
                    ), name
                    assert caught.value.remedy, name
        except LookupError as lacking:
            not_observed(f"a resource that does not answer ({lacking})")

    @rule("E1")
    async def test_a_failure_of_one_job_has_a_code_and_words(self, bench: Bench) -> None:
        unknown = JobID("nobody/nothing/0")
        failure = (await bench.backend.status([unknown])).failures[unknown]
        assert failure.code == FailureCode.NO_SUCH_JOB
        assert len(failure.message) > 5

    @rule("E1")
    async def test_a_dest_that_cannot_be_written_is_an_os_error(self, bench: Bench) -> None:
        job = await bench.finish_one()
        blocked = bench.scratch / "file"
        blocked.write_bytes(b"not a directory")
        with pytest.raises(OSError):
            await bench.fetch([job], blocked / "dest")
        assert blocked.read_bytes() == b"not a directory"
        await bench.fetch_one(job)

    @rule("E1")
    async def test_errors_survive_pickling(self, bench: Bench) -> None:
        with pytest.raises(SpecRefused) as caught:
            await bench.submit(bench.spec(), 0)
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own, just made
        assert (type(again), str(again), again.field) == (
            SpecRefused,
            str(caught.value),
            caught.value.field,
        )

    @rule("E2")
    async def test_no_secret_in_logs_warnings_errors_or_tracebacks(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret = f"s3cr3t{os.urandom(8).hex()}"
        copies = [CopyVars(secrets={"key": secret.encode()})]
        told: list[str] = []
        with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            ids = await bench.finish("cat", "key", copies=copies)
            for spec in (
                bench.spec(executable=bench.scratch / "absent.sh"),
                bench.spec(inputs=[FileRef("key", content=secret.encode())]),
                bench.spec(inputs=[FileRef("x", source=str(bench.scratch / "absent"))]),
            ):
                told += await _said_of_refusal(bench, spec, copies)
            await bench.backend.status(ids)
        told += [record.getMessage() for record in caplog.records]
        told += [str(warning.message) for warning in warned]
        assert [text for text in told if secret in text] == []

    @rule("E2")
    async def test_no_secret_in_the_log_that_is_fetched(self, bench: Bench) -> None:
        secret = f"s3cr3t{os.urandom(8).hex()}"
        (job,) = await bench.finish(
            "sleep", "0", copies=[CopyVars(secrets={"key": secret.encode()})]
        )
        output = await bench.fetch_one(job)
        fetched: list[Path] = [*output.files.values()]
        fetched += [path for path in (output.stdout, output.stderr, output.log) if path]
        assert [path for path in fetched if secret.encode() in path.read_bytes()] == []


async def _said_of_refusal(bench: Bench, spec: SubmissionSpec, copies: list[CopyVars]) -> list[str]:
    """All that an error says, in every way in which it may be printed."""
    told = []
    try:
        await bench.submit(spec, copies)
    except InterCEdeError as error:
        told += [
            repr(error),
            str(error),
            repr(vars(error)),
            "".join(traceback.format_exception(error)),
        ]
    if isinstance(bench.backend, SupportsDryRun):
        try:
            told.append(repr(await bench.backend.dry_run(spec, copies)))
        except InterCEdeError as error:
            told += [repr(error), str(error)]
    return told
