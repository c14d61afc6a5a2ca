"""Rules T1 to T6: what is said of a job is known, never guessed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest

from intercede.core import (
    BulkResult,
    Cancellable,
    Failure,
    FailureCode,
    JobBackend,
    JobID,
    JobStatus,
    OutputRetriever,
    Purgeable,
    ResourceError,
    SpecRefused,
    SupportsDetails,
    SupportsLiveDiagnostics,
    TransportError,
)

from ._bench import Bench, Rules
from ._verdict import not_observed, rule
from ._watch import io_watched

__all__ = ["ID_FORM", "StatusRules", "bulk_calls", "hostile_ids"]

Bulk = Callable[[list[JobID]], Awaitable[BulkResult[object]]]

#: Of a job id: resource, submission, copy and perhaps the scheduler's own.
ID_FORM: Final = re.compile(
    r"[A-Za-z0-9._:@+-]+/[A-Za-z0-9._:@+-]+/(0|[1-9][0-9]*)(/[A-Za-z0-9._:@+-]+)?"
)

EXITS: Final = (0, 1, 3, 127, 128, 137, 255)
SIGNALS: Final = (9, 15)


def bulk_calls(backend: JobBackend, bench: Bench) -> dict[str, Bulk]:
    """Every method of this backend that takes ids."""
    found: dict[str, Bulk] = {"status": backend.status}
    if isinstance(backend, SupportsDetails):
        found["details"] = backend.details
    if isinstance(backend, SupportsLiveDiagnostics):
        found["diagnostics"] = backend.diagnostics
    if isinstance(backend, OutputRetriever):
        retriever = backend
        found["fetch_output"] = lambda ids: retriever.fetch_output(ids, bench.scratch / "bulk")
    if isinstance(backend, Cancellable):
        found["kill"] = backend.kill
    if isinstance(backend, Purgeable):
        found["purge"] = backend.purge
    return found


def hostile_ids(real: JobID, pwned: str) -> list[JobID]:
    """Ids that are none, made from one that is.

    Args:
        real: The id of a job that exists.
        pwned: A file that a shell makes if one of them reaches it.
    """
    resource, submission, copy, *native = real.split("/")
    tail = "".join(f"/{part}" for part in native)
    head = f"{resource}/{submission}"
    names = [
        "",
        " ",
        "/",
        "//",
        "///",
        "\0",
        "x",
        resource,
        head,
        f"{head}/",
        f"/{real}",
        f"{real}/",
        f"{real}\n",
        f"\n{real}",
        f" {real}",
        f"{real} ",
        f"{real}\0",
        f"{real}/x/y",
        real.replace("/", "//"),
        f"{head}/{int(copy) + 1_000_000}{tail}",
        f"{head}/-{copy}{tail}",
        f"{head}/+{copy}{tail}",
        f"{head}/0{copy}{tail}",
        f"{head}/{copy}.0{tail}",
        f"{head}/x{tail}",
        f"{head}/..{tail}",
        f"{head}/.{tail}",
        f"{head}/{copy}/..",
        f"{head}/../{submission}/{copy}",
        f"{resource}/../{submission}/{copy}{tail}",
        f"{resource}/./{copy}{tail}",
        f"{resource}/../{copy}{tail}",
        f"{resource}/{submission}x/{copy}{tail}",
        f"{resource}/{submission[:-1]}/{copy}{tail}",
        f"{resource}/-rf/{copy}{tail}",
        f"{resource}/*/{copy}{tail}",
        f"{resource}/?{submission[1:]}/{copy}{tail}",
        f"{resource}/{'x' * 300}/{copy}{tail}",
        f"{resource}/{'x' * 100_000}/{copy}{tail}",
        f"{resource}x/{submission}/{copy}{tail}",
        f"../{submission}/{copy}{tail}",
        f"{head}/{copy}/$(touch {pwned})",
        f"{head}/$(touch {pwned})",
        f"{resource}/$(touch {pwned})/{copy}",
        f"{resource}/`touch {pwned}`/{copy}",
        f"{resource}/;touch {pwned};/{copy}",
        f"{head}/{copy}\ntouch {pwned}\n",
        f"{head}/{copy}/'\ntouch {pwned}\n'",
        f'{head}/{copy}/"; touch {pwned}; "',
        f"{head}/ünï☃{tail}",
        f"{head}/{copy}/\udcff",
        f"{head}/\ud800",
        f"{head}/٣{tail}",
        f"{head}/²{tail}",
    ]
    return [JobID(name) for name in dict.fromkeys(names) if name != real]


def _expect_unknown(result: BulkResult[object], ids: list[JobID], call: str) -> None:
    """Expect no-such-job for each; a purge may also succeed for an id of the right form, since nothing is left of that job (P2)."""
    codes = {job: failure.code for job, failure in result.failures.items()}
    wrong = {
        job[:80]: codes.get(job)
        for job in ids
        if codes.get(job) != FailureCode.NO_SUCH_JOB
        and not (call == "purge" and job not in codes and ID_FORM.fullmatch(job))
    }
    assert wrong == {}, f"{call}: expected no-such-job for each"


class StatusRules(Rules):
    """T: status."""

    # -------------------------------------------------------------- T1

    @rule("T1")
    async def test_every_id_gets_an_answer_once_and_in_order(self, bench: Bench) -> None:
        ids = await bench.finish(copies=3)
        resource, submission, *_ = ids[0].split("/")
        asked = [ids[2], JobID(f"{resource}/{submission}/77"), ids[0], ids[2], ids[1], ids[0]]
        for name, call in bulk_calls(bench.backend, bench).items():
            assert list(await call(asked)) == list(dict.fromkeys(asked)), name

    @rule("T1")
    async def test_an_empty_list_does_no_io(self, bench: Bench) -> None:
        async with bench.made() as backend:
            for name, call in bulk_calls(backend, bench).items():
                with io_watched(threads=False) as seen:
                    assert len(await call([])) == 0, name
                assert seen == [], name

    @rule("T1")
    async def test_a_bare_string_is_a_type_error(self, bench: Bench) -> None:
        job = await bench.start_one()
        for name, call in bulk_calls(bench.backend, bench).items():
            with pytest.raises(TypeError):
                await call(job)  # type: ignore[arg-type]  # this is the mistake
                pytest.fail(f"{name} took it")

    @rule("T1")
    async def test_a_thousand_ids_are_answered_in_one_call(self, bench: Bench) -> None:
        ids = await bench.finish(copies=2)
        resource = ids[0].split("/")[0]
        asked = [JobID(f"{resource}/{number:016x}/0") for number in range(1_000)]
        asked[500:500] = ids
        seen = await bench.backend.status(asked)
        assert list(seen) == asked
        assert [job for job, at in seen.items() if at != JobStatus.UNKNOWN] == ids

    # -------------------------------------------------------------- T2

    @rule("T2")
    async def test_hostile_ids_are_unknown_to_every_call(self, bench: Bench) -> None:
        real = await bench.finish_one()
        ids = hostile_ids(real, "pwned")
        for name, call in bulk_calls(bench.backend, bench).items():
            _expect_unknown(await call(ids), ids, name)
        assert (await bench.backend.status([real]))[real] == JobStatus.SUCCESSFUL

    @rule("T2")
    async def test_hostile_ids_reach_no_shell(self, bench: Bench) -> None:
        probe = bench.probe
        real = await bench.finish_one()
        pwned = await bench.place_on_the_host()
        ids = hostile_ids(real, pwned)
        for name, call in bulk_calls(bench.backend, bench).items():
            await call(ids)
            assert await probe.read(pwned) is None, name

    @rule("T2")
    async def test_ten_thousand_hostile_ids_do_not_hide_a_good_one(self, bench: Bench) -> None:
        real = await bench.finish_one()
        resource = real.split("/")[0]
        ids = [JobID(f"{resource}/$(exit)/{number}") for number in range(5_000)]
        ids += [JobID(f"{resource}/../{number}") for number in range(5_000)]
        seen = await bench.backend.status([*ids[:5_000], real, *ids[5_000:]])
        assert seen[real] == JobStatus.SUCCESSFUL
        _expect_unknown(seen, ids, "status")

    @rule("T2")
    async def test_the_id_of_another_resource_is_unknown(self, bench: Bench) -> None:
        job = await bench.finish_one()
        other = await bench.renamed()
        for name, call in bulk_calls(other.backend, bench).items():
            _expect_unknown(await call([job]), [job], name)
        assert (await bench.backend.status([job]))[job] == JobStatus.SUCCESSFUL

    @rule("T2")
    async def test_an_id_that_claims_this_resource_for_another_ones_job_is_unknown(
        self, bench: Bench
    ) -> None:
        other = await bench.renamed()
        job = await bench.finish_one()
        resource, _, rest = job.partition("/")
        name = (await other.start_one()).split("/")[0]
        assert name != resource
        forged = JobID(f"{name}/{rest}")
        for call_name, call in bulk_calls(other.backend, bench).items():
            _expect_unknown(await call([forged]), [forged], call_name)
        assert (await bench.backend.status([job]))[job] == JobStatus.SUCCESSFUL

    @rule("T2")
    async def test_unknown_is_never_finished(self, bench: Bench) -> None:
        seen = await bench.backend.status([JobID("nobody/nothing/0")])
        assert list(seen.values()) == [JobStatus.UNKNOWN]
        assert [type(failure) for failure in seen.failures.values()] == [Failure]

    # -------------------------------------------------------------- T3

    @rule("T3")
    async def test_exit_0_is_successful_and_every_other_exit_failed(self, bench: Bench) -> None:
        ids = await bench.start_each(*(("exit", str(code)) for code in EXITS))
        seen = await bench.until(ids)
        wrong = {
            f"exit {code}": f"reported as {seen[job]}"
            for code, job in zip(EXITS, ids, strict=True)
            if seen[job] != (JobStatus.FAILED if code else JobStatus.SUCCESSFUL)
        }
        assert wrong == {}, "expected exit 0 to be successful and every other exit to be failed"

    @rule("T3")
    async def test_a_signal_is_failed(self, bench: Bench) -> None:
        ids = await bench.start_each(*(("signal", str(number)) for number in SIGNALS))
        assert set((await bench.until(ids)).values()) == {JobStatus.FAILED}

    @rule("T3")
    async def test_our_kill_is_cancelled(self, bench: Bench) -> None:
        _ = bench.cancellable
        job = await bench.start_one("sleep", bench.forever)
        await bench.until([job], JobStatus.RUNNING)
        await bench.killed([job])
        await bench.until([job], JobStatus.CANCELLED)

    @rule("T3")
    async def test_details_tell_the_exit_code_exactly(self, bench: Bench) -> None:
        detailer = bench.detailer
        codes = [code for code in EXITS if code != 137]
        ids = await bench.start_each(*(("exit", str(code)) for code in codes))
        await bench.until(ids)
        details = await detailer.details(ids)
        wrong = {
            f"exit {code}": f"reported as exit {seen.exit_code}, signal {seen.signal}"
            for code, job in zip(codes, ids, strict=True)
            if ((seen := details[job]).exit_code, seen.signal) != (code, None)
        }
        assert wrong == {}, "expected the exit code of the payload, and no signal"

    @rule("T3")
    async def test_details_tell_the_signal(self, bench: Bench) -> None:
        detailer = bench.detailer
        ids = await bench.start_each(*(("signal", str(number)) for number in SIGNALS))
        await bench.until(ids)
        details = await detailer.details(ids)
        wrong = {
            f"signal {number}": f"reported as signal {details[job].signal}"
            for number, job in zip(SIGNALS, ids, strict=True)
            if details[job].signal != number
        }
        assert wrong == {}, "expected the signal that ended the payload"

    @rule("T3")
    async def test_details_agree_with_status_and_their_times_are_in_order(
        self, bench: Bench
    ) -> None:
        detailer = bench.detailer
        done = await bench.finish_one()
        running = await bench.start_one("sleep", bench.forever)
        await bench.until([running], JobStatus.RUNNING)
        details = await detailer.details([done, running])
        assert (details[done].status, details[running].status) == (
            JobStatus.SUCCESSFUL,
            JobStatus.RUNNING,
        )
        assert (details[running].exit_code, details[running].ended_at) == (None, None)
        began, ended = details[done].started_at, details[done].ended_at
        assert began is None or ended is None or began <= ended

    @rule("T3")
    async def test_a_resident_program_runs(self, bench: Bench) -> None:
        submission = await bench.submit(bench.spec(executable="true", resident=True))
        await bench.until([handle.id for handle in submission.handles], JobStatus.SUCCESSFUL)

    @rule("T3")
    async def test_a_resident_program_that_is_not_there_is_refused_or_failed(
        self, bench: Bench
    ) -> None:
        if "executable" not in bench.resource.absurd:
            not_observed("a resident program that it lacks (Resource.absurd)")
        absent = str(bench.resource.absurd["executable"])
        try:
            submission = await bench.submit(bench.spec(executable=absent, resident=True))
        except SpecRefused as refused:
            assert refused.field == "executable"
        else:
            await bench.until([handle.id for handle in submission.handles], JobStatus.FAILED)

    # -------------------------------------------------------------- T4

    @rule("T4")
    async def test_a_finished_status_never_changes(self, bench: Bench) -> None:
        ids = await bench.start_each(("exit", "0"), ("exit", "3"), ("signal", "9"))
        first = await bench.until(ids)
        others = bulk_calls(bench.backend, bench)
        others.pop("purge", None)
        for _ in range(3):
            for call in others.values():
                await call(ids)
                assert dict(await bench.backend.status(ids)) == first
        fresh = await bench.opened()
        assert dict(await fresh.status(ids)) == first

    @rule("T4")
    async def test_a_cancelled_job_stays_cancelled(self, bench: Bench) -> None:
        cancellable = bench.cancellable
        job = await bench.start_one("sleep", bench.forever)
        await bench.killed([job])
        await bench.until([job], JobStatus.CANCELLED)
        for _ in range(3):
            await cancellable.kill([job])
            assert (await bench.backend.status([job]))[job] == JobStatus.CANCELLED
        fresh = await bench.opened()
        assert (await fresh.status([job]))[job] == JobStatus.CANCELLED

    @rule("T4")
    async def test_many_polls_at_once_agree(self, bench: Bench) -> None:
        ids = await bench.finish(copies=3)
        seen = await asyncio.gather(*(bench.backend.status(ids) for _ in range(10)))
        assert {tuple(answer.values()) for answer in seen} == {(JobStatus.SUCCESSFUL,) * 3}

    # -------------------------------------------------------------- T5

    @rule("T5")
    async def test_jobs_in_every_state_are_told_apart_in_one_call(self, bench: Bench) -> None:
        purger, _ = bench.purger, bench.cancellable
        good, bad, gone = await bench.start_each(("exit", "0"), ("exit", "1"), ("exit", "0"))
        running, killed = await bench.start_each(*[("sleep", bench.forever)] * 2)
        await bench.until([good, bad, gone])
        await bench.until([running], JobStatus.RUNNING)
        await bench.killed([killed])
        (await purger.purge([gone])).raise_for_failures()
        ids = [good, gone, running, bad, killed]
        seen = await bench.backend.status(ids)
        assert [seen[job] for job in ids] == [
            JobStatus.SUCCESSFUL,
            JobStatus.UNKNOWN,
            JobStatus.RUNNING,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
        ]
        assert list(seen.failures) == [gone]

    @rule("T5")
    async def test_when_the_state_cannot_be_asked_no_job_is_finished(self, bench: Bench) -> None:
        alone = await bench.renamed()
        running = await alone.start_one("sleep", alone.forever)
        await alone.until([running], JobStatus.RUNNING)
        try:
            async with alone.faults.status_fails(alone.config) as backend:
                try:
                    seen = await backend.status([running])
                except (TransportError, ResourceError) as error:
                    assert str(error)
                else:
                    assert list(seen.values()) == [JobStatus.UNKNOWN]
                    assert seen.failures[running].code == FailureCode.NOT_NOW
        except LookupError as lacking:
            not_observed(f"a status that fails ({lacking})")
        assert (await alone.backend.status([running]))[running] == JobStatus.RUNNING

    @rule("T5")
    async def test_one_row_of_garbage_spoils_only_its_own_job(self, bench: Bench) -> None:
        ids = await bench.start("sleep", bench.forever, copies=3)
        await bench.until(ids, JobStatus.RUNNING)
        try:
            async with bench.faults.row_is_garbage(bench.config, bench.handle(ids[1])) as backend:
                seen = await backend.status(ids)
        except LookupError as lacking:
            not_observed(f"a row that cannot be read ({lacking})")
        assert (seen[ids[0]], seen[ids[2]]) == (JobStatus.RUNNING, JobStatus.RUNNING)
        assert not seen[ids[1]].is_finished
        if seen[ids[1]] == JobStatus.UNKNOWN:
            assert seen.failures[ids[1]].code == FailureCode.NOT_NOW

    # -------------------------------------------------------------- T6

    @rule("T6")
    async def test_an_id_with_the_native_part_of_another_job_does_not_show_that_job(
        self, bench: Bench
    ) -> None:
        done = await bench.finish_one()
        running = await bench.start_one("sleep", bench.forever)
        await bench.until([running], JobStatus.RUNNING)
        parts = running.split("/")
        if len(parts) < 4:
            not_observed("ids that carry the scheduler's own")
        forged = JobID("/".join([*done.split("/")[:3], parts[3]]))
        seen = (await bench.backend.status([forged]))[forged]
        assert seen in (JobStatus.UNKNOWN, JobStatus.SUCCESSFUL)
        if isinstance(bench.backend, Cancellable):
            await bench.backend.kill([forged])
            assert (await bench.backend.status([running]))[running] == JobStatus.RUNNING

    @rule("T6")
    async def test_a_native_id_that_was_given_to_another_job_is_not_ours(
        self, bench: Bench
    ) -> None:
        job = await bench.finish_one("exit", "3")
        running = await bench.start_one("sleep", bench.forever)
        await bench.until([running], JobStatus.RUNNING)
        was, now = bench.handle(job), bench.handle(running)
        try:
            async with bench.faults.id_reused(bench.config, was, now) as backend:
                seen: Mapping[JobID, JobStatus] = await backend.status([job])
                assert seen[job] == JobStatus.FAILED
                if isinstance(backend, Cancellable):
                    await backend.kill([job])
        except LookupError as lacking:
            not_observed(f"a native id that is given out twice ({lacking})")
        assert (await bench.backend.status([running]))[running] == JobStatus.RUNNING
