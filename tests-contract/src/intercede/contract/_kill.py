"""Rules K1 and K2: a kill ends all of a job and nothing else, and says what was seen."""

from __future__ import annotations

import asyncio
import os

from intercede.core import Discoverable, FailureCode, JobID, JobStatus

from ._bench import Bench, Rules
from ._verdict import rule

__all__ = ["KillRules"]


class KillRules(Rules):
    """K: kill."""

    @rule("K1")
    async def test_a_running_job_ends_cancelled(self, bench: Bench) -> None:
        job = await bench.start_one("sleep", bench.forever)
        await bench.until([job], JobStatus.RUNNING)
        outcome = (await bench.cancellable.kill([job]))[job]
        assert (outcome.ok, outcome.failure) == (True, None)
        await bench.over({job: outcome})
        assert (await bench.backend.status([job]))[job] == JobStatus.CANCELLED

    @rule("K1")
    async def test_a_pending_job_ends_cancelled_and_never_starts(self, bench: Bench) -> None:
        _ = bench.cancellable
        narrow = await bench.narrow()
        first = await narrow.start_one("sleep", narrow.forever)
        await narrow.until([first], JobStatus.RUNNING)
        waiting = await narrow.start_one("echo", "I ran", "write", "ran", "x", keep=["ran"])
        assert (await narrow.backend.status([waiting]))[waiting] == JobStatus.PENDING
        await narrow.killed([waiting])
        await narrow.killed([first])
        after = await narrow.finish_one()
        seen = await narrow.backend.status([first, waiting, after])
        assert [seen[job] for job in (first, waiting, after)] == [
            JobStatus.CANCELLED,
            JobStatus.CANCELLED,
            JobStatus.SUCCESSFUL,
        ]

    @rule("K1")
    async def test_all_its_processes_end_also_in_other_sessions_and_deaf_to_term(
        self, bench: Bench
    ) -> None:
        probe = bench.probe
        marks = [f"kill-{os.urandom(8).hex()}" for _ in range(2)]
        doomed, bystander = [
            await bench.start_one(
                "trap", "spawn", bench.forever, "spawn", bench.forever, "sleep", bench.forever,
                environment={"CONTRACT_MARK": mark},
            )
            for mark in marks
        ]  # fmt: skip
        await bench.until([doomed, bystander], JobStatus.RUNNING)
        for mark in marks:
            await _sleeping(bench, mark, 3)
        await bench.killed([doomed])
        assert await probe.processes(marks[0]) == []
        await _sleeping(bench, marks[1], 3)
        assert (await bench.backend.status([doomed, bystander]))[doomed] == JobStatus.CANCELLED

    @rule("K1")
    async def test_a_payload_deaf_to_term_ends_cancelled(self, bench: Bench) -> None:
        job = await bench.start_one("trap", "sleep", bench.forever)
        await bench.until([job], JobStatus.RUNNING)
        await bench.killed([job])
        assert (await bench.backend.status([job]))[job] == JobStatus.CANCELLED

    @rule("K1")
    async def test_its_siblings_live_on(self, bench: Bench) -> None:
        _ = bench.cancellable
        ids = await bench.start("sleep", bench.a_while, copies=3)
        others = await bench.start("sleep", bench.a_while)
        await bench.killed([ids[1]])
        seen = await bench.until([ids[0], ids[2], *others])
        assert set(seen.values()) == {JobStatus.SUCCESSFUL}

    @rule("K1")
    async def test_twenty_jobs_are_killed_in_one_call_right_after_their_submit(
        self, bench: Bench
    ) -> None:
        _ = bench.cancellable
        ids = await bench.start("sleep", bench.forever, copies=20)
        await bench.killed(ids)
        assert set((await bench.backend.status(ids)).values()) == {JobStatus.CANCELLED}

    @rule("K2")
    async def test_a_finished_job_is_a_success_with_a_note_and_keeps_its_status(
        self, bench: Bench
    ) -> None:
        _ = bench.cancellable
        ids = await bench.start_each(("exit", "0"), ("exit", "3"))
        before = await bench.until(ids)
        for outcome in (await bench.cancellable.kill(ids)).values():
            assert outcome.ok and outcome.note
        assert dict(await bench.backend.status(ids)) == before

    @rule("K2")
    async def test_killing_twice_is_a_success(self, bench: Bench) -> None:
        job = await bench.start_one("sleep", bench.forever)
        await bench.killed([job])
        again = (await bench.cancellable.kill([job]))[job]
        assert again.ok and again.note

    @rule("K2")
    async def test_kills_at_the_same_time_agree(self, bench: Bench) -> None:
        # Some have begun and some are about to: a signal may meet the start, the payload, or what writes down its end.
        ids = await bench.start("sleep", bench.forever, copies=5)
        await bench.until(ids[:1], JobStatus.RUNNING)
        ids += await bench.start("sleep", bench.forever, copies=5)
        answers = await asyncio.gather(*(bench.cancellable.kill(ids) for _ in range(5)))
        assert [answer[job].ok for answer in answers for job in ids] == [True] * 50
        await bench.over(dict(answers[0]))
        assert set((await bench.backend.status(ids)).values()) == {JobStatus.CANCELLED}

    @rule("K2")
    async def test_unknown_jobs_are_failures_and_do_not_save_the_others(self, bench: Bench) -> None:
        job = await bench.start_one("sleep", bench.forever)
        resource, submission, *_ = job.split("/")
        unknown = [JobID("nobody/nothing/0"), JobID(f"{resource}/{submission}/99")]
        result = await bench.cancellable.kill([unknown[0], job, unknown[1]])
        assert {at: failure.code for at, failure in result.failures.items()} == dict.fromkeys(
            unknown, FailureCode.NO_SUCH_JOB
        )
        assert [result[at].ok for at in (unknown[0], job, unknown[1])] == [False, True, False]
        await bench.over({job: result[job]})
        assert (await bench.backend.status([job]))[job] == JobStatus.CANCELLED

    @rule("K2")
    async def test_a_killed_job_is_still_there_until_it_is_purged(self, bench: Bench) -> None:
        job = await bench.start_one("sleep", bench.forever)
        await bench.killed([job])
        if isinstance(bench.backend, Discoverable):
            assert [handle.id for handle in await bench.backend.find(bench.tag)] == [job]
        assert (await bench.backend.status([job]))[job] == JobStatus.CANCELLED


async def _sleeping(bench: Bench, mark: str, count: int) -> None:
    """Wait until so many of the payload's sleeps are seen on the host."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(bench.resource.patience_s):
            while len(seen) != count:
                seen = [line for line in await bench.probe.processes(mark) if ": sleep " in line]
                await asyncio.sleep(bench.resource.poll_s)
    except TimeoutError:
        raise AssertionError(f"expected {count} sleeping processes, saw {seen}") from None
