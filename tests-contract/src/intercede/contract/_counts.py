"""Rule C1: counts that a provisioning loop can trust."""

from __future__ import annotations

import asyncio

from intercede.core import JobStatus

from ._bench import Bench, Rules
from ._verdict import rule

__all__ = ["CountRules"]


class CountRules(Rules):
    """C: counts. Each test has a resource name of its own, so that it counts only what it submitted."""

    @rule("C1")
    async def test_nothing_submitted_is_nothing_counted(self, bench: Bench) -> None:
        _ = bench.reporter
        assert await _counted(await bench.renamed()) == 0

    @rule("C1")
    async def test_every_unfinished_copy_counts_from_the_moment_submit_returns(
        self, bench: Bench
    ) -> None:
        _ = bench.reporter
        alone = await bench.renamed()
        await alone.start("sleep", alone.forever, copies=3)
        assert await _counted(alone) == 3
        await alone.start("sleep", alone.forever, copies=2)
        assert await _counted(alone) == 5

    @rule("C1")
    async def test_a_running_job_counts_as_running(self, bench: Bench) -> None:
        _ = bench.reporter
        alone = await bench.renamed()
        job = await alone.start_one("sleep", alone.forever)
        await alone.until([job], JobStatus.RUNNING)
        counts = await alone.reporter.counts()
        assert (counts.running, counts.waiting) == (1, 0)

    @rule("C1")
    async def test_finished_jobs_do_not_count(self, bench: Bench) -> None:
        _ = bench.reporter
        alone = await bench.renamed()
        await alone.until(await alone.start_each(("exit", "0"), ("exit", "3")))
        assert await _counted(alone) == 0

    @rule("C1")
    async def test_a_killed_job_no_longer_counts(self, bench: Bench) -> None:
        _ = bench.reporter, bench.cancellable
        alone = await bench.renamed()
        ids = await alone.start("sleep", alone.forever, copies=3)
        await alone.killed(ids[:2])
        assert await _counted(alone) == 1

    @rule("C1")
    async def test_the_jobs_of_another_resource_name_do_not_count(self, bench: Bench) -> None:
        _ = bench.reporter
        mine, other = await bench.renamed(), await bench.renamed()
        await other.start("sleep", other.forever, copies=2)
        await bench.start("sleep", bench.forever)
        assert (await _counted(mine), await _counted(other)) == (0, 2)

    @rule("C1")
    async def test_waiting_jobs_count_as_waiting(self, bench: Bench) -> None:
        _ = bench.reporter
        narrow = await bench.narrow()
        first = await narrow.start_one("sleep", narrow.forever)
        await narrow.until([first], JobStatus.RUNNING)
        await narrow.start("sleep", narrow.forever, copies=4)
        counts = await narrow.reporter.counts()
        assert (counts.running, counts.waiting) == (1, 4)

    @rule("C1")
    async def test_waiting_jobs_start_when_there_is_room(self, bench: Bench) -> None:
        _ = bench.reporter
        narrow = await bench.narrow()
        ids = await narrow.start("sleep", narrow.resource.payload_seconds(0.1), copies=4)
        most = 0
        async with asyncio.timeout(narrow.resource.patience_s):
            while await _counted(narrow):
                most = max(most, (await narrow.reporter.counts()).running)
                await asyncio.sleep(narrow.resource.poll_s)
        assert most <= 1
        assert set((await narrow.backend.status(ids)).values()) == {JobStatus.SUCCESSFUL}


async def _counted(bench: Bench) -> int:
    counts = await bench.reporter.counts()
    return counts.running + counts.waiting
