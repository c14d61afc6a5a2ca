"""Rules P1 to P4: a purge removes one finished job, wholly, and nothing else."""

from __future__ import annotations

import asyncio

from intercede.core import Discoverable, FailureCode, JobID, JobStatus, LoadReporter

from ._bench import Bench, Rules
from ._status import bulk_calls
from ._verdict import rule

__all__ = ["PurgeRules"]


class PurgeRules(Rules):
    """P: purge."""

    @rule("P1")
    async def test_a_purge_removes_that_job_and_leaves_its_siblings(self, bench: Bench) -> None:
        purger = bench.purger
        ids = await bench.finish("echo", "still here", copies=12)
        (other,) = await bench.finish("echo", "still here")
        (await purger.purge([ids[1]])).raise_for_failures()
        kept = [job for job in ids if job != ids[1]] + [other]
        seen = await bench.backend.status([ids[1], *kept])
        assert seen[ids[1]] == JobStatus.UNKNOWN
        assert {seen[job] for job in kept} == {JobStatus.SUCCESSFUL}
        result = await bench.fetch(kept)
        result.raise_for_failures()
        texts = {path.read_bytes() for o in result.values() if (path := o.stdout) is not None}
        assert texts == {b"still here\n"}

    @rule("P1")
    async def test_nothing_of_it_stays_on_the_host(self, bench: Bench) -> None:
        probe, purger = bench.probe, bench.purger
        gone, kept = await bench.finish("many", "d/e", "5", copies=2)
        place = await probe.sandbox(bench.handle(gone))
        assert place is not None
        (await purger.purge([gone])).raise_for_failures()
        assert await probe.sandbox(bench.handle(gone)) is None
        assert await probe.sandbox(bench.handle(kept)) is not None

    @rule("P1")
    async def test_a_link_in_the_work_directory_is_removed_and_not_followed(
        self, bench: Bench
    ) -> None:
        probe, purger = bench.probe, bench.purger
        victim = await bench.place_on_the_host()
        await probe.write(f"{victim}/treasure", b"treasure")
        job = await bench.finish_one("symlink", "link", victim)
        (await purger.purge([job])).raise_for_failures()
        assert await probe.read(f"{victim}/treasure") == b"treasure"

    @rule("P1")
    async def test_a_sandbox_that_became_a_link_does_not_lead_a_purge_away(
        self, bench: Bench
    ) -> None:
        probe, purger = bench.probe, bench.purger
        mine, neighbour = await bench.finish("echo", "x", copies=2)
        place = await probe.sandbox(bench.handle(mine))
        theirs = await probe.sandbox(bench.handle(neighbour))
        assert place is not None and theirs is not None
        await probe.replace_by_link(place, theirs)
        try:
            await purger.purge([mine])
        finally:
            await probe.remove(place)
        assert await probe.sandbox(bench.handle(neighbour)) is not None
        assert (await bench.backend.status([neighbour]))[neighbour] == JobStatus.SUCCESSFUL
        output = await bench.fetch_one(neighbour)
        assert output.stdout is not None and output.stdout.read_bytes() == b"x\n"

    @rule("P2")
    async def test_purging_twice_is_harmless(self, bench: Bench) -> None:
        purger = bench.purger
        gone, kept = await bench.finish(copies=2)
        await purger.purge([gone])
        again = (await purger.purge([gone]))[gone]
        assert again.failure is None or again.failure.code == FailureCode.NO_SUCH_JOB
        assert (await bench.backend.status([kept]))[kept] == JobStatus.SUCCESSFUL

    @rule("P2")
    async def test_purges_at_the_same_time_are_harmless(self, bench: Bench) -> None:
        purger = bench.purger
        ids = await bench.finish(copies=4)
        answers = await asyncio.gather(*(purger.purge(ids[:3]) for _ in range(4)))
        codes = {failure.code for answer in answers for failure in answer.failures.values()}
        assert codes <= {FailureCode.NO_SUCH_JOB}
        seen = await bench.backend.status(ids)
        assert [seen[job] for job in ids] == [JobStatus.UNKNOWN] * 3 + [JobStatus.SUCCESSFUL]

    @rule("P3")
    async def test_a_purged_job_is_no_such_job_to_every_call(self, bench: Bench) -> None:
        purger = bench.purger
        ids = await bench.finish(copies=2)
        (await purger.purge(ids)).raise_for_failures()
        every = bulk_calls(bench.backend, bench)
        every.pop("purge")
        for name, call in every.items():
            codes = {failure.code for failure in (await call(ids)).failures.values()}
            assert codes == {FailureCode.NO_SUCH_JOB}, name
        fresh = await bench.opened()
        assert set((await fresh.status(ids)).values()) == {JobStatus.UNKNOWN}
        if isinstance(bench.backend, Discoverable):
            assert await bench.backend.find(bench.tag) == ()

    @rule("P4")
    async def test_a_running_job_is_refused_and_runs_on(self, bench: Bench) -> None:
        purger = bench.purger
        job = await bench.start_one("sleep", bench.a_while, "echo", "unharmed")
        await bench.until([job], JobStatus.RUNNING, JobStatus.PENDING)
        outcome = (await purger.purge([job]))[job]
        assert outcome.failure is not None
        assert outcome.failure.code == FailureCode.NOT_FINISHED
        await bench.until([job], JobStatus.SUCCESSFUL)
        output = await bench.fetch_one(job)
        assert output.stdout is not None and output.stdout.read_bytes() == b"unharmed\n"

    @rule("P4")
    async def test_a_pending_job_is_refused_and_stays(self, bench: Bench) -> None:
        _ = bench.purger
        narrow = await bench.narrow()
        ids = await narrow.start("sleep", narrow.forever, copies=3)
        codes = {f.code for f in (await narrow.purger.purge(ids)).failures.values()}
        assert codes == {FailureCode.NOT_FINISHED}
        assert JobStatus.UNKNOWN not in (await narrow.backend.status(ids)).values()
        if isinstance(narrow.backend, LoadReporter):
            counts = await narrow.backend.counts()
            assert counts.running + counts.waiting == 3

    @rule("P4")
    async def test_a_refused_job_does_not_save_the_others(self, bench: Bench) -> None:
        purger = bench.purger
        done = await bench.finish_one()
        running = await bench.start_one("sleep", bench.forever)
        unknown = JobID("nobody/nothing/0")
        result = await purger.purge([running, unknown, done])
        assert [result[job].ok for job in (running, unknown, done)] == [False, False, True]
        assert (await bench.backend.status([done]))[done] == JobStatus.UNKNOWN
