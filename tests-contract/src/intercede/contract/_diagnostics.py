"""Rule D1: what a job says while it runs, and why it does not."""

from __future__ import annotations

import asyncio
from typing import Final

from intercede.core import Diagnostics, FailureCode, JobID, JobStatus

from ._bench import Bench, Rules
from ._verdict import rule

__all__ = ["DiagnosticsRules"]

#: More than anybody would call a tail.
_LONG: Final = 5_000_000
_TAIL_MAX: Final = 1_100_000


class DiagnosticsRules(Rules):
    """D: diagnostics."""

    @rule("D1")
    async def test_a_running_job_shows_its_output_so_far_as_often_as_one_looks(
        self, bench: Bench
    ) -> None:
        diagnostician = bench.diagnostician
        job = await bench.start_one("echo", "out", "err", "bad", "sleep", bench.forever)
        first = await _once(bench, job, b"out\n", b"bad\n")
        for _ in range(3):
            again = (await diagnostician.diagnostics([job]))[job]
            assert (again.stdout_tail, again.stderr_tail) == (b"out\n", b"bad\n")
            assert (await bench.backend.status([job]))[job] == JobStatus.RUNNING
            assert again.truncated is False
        assert first.truncated is False

    @rule("D1")
    async def test_tails_are_bounded_and_say_so(self, bench: Bench) -> None:
        diagnostician = bench.diagnostician
        job = await bench.finish_one("fill", "f", str(_LONG), "cat", "f", "echo", "the end")
        seen = (await diagnostician.diagnostics([job]))[job]
        assert seen.truncated is True
        assert 0 < len(seen.stdout_tail) < _TAIL_MAX
        assert seen.stdout_tail.endswith(b"\0the end\n")

    @rule("D1")
    async def test_a_finished_job_shows_its_output_too(self, bench: Bench) -> None:
        diagnostician = bench.diagnostician
        job = await bench.finish_one("echo", "out", "exit", "3")
        seen = (await diagnostician.diagnostics([job]))[job]
        assert (seen.stdout_tail, seen.stderr_tail) == (b"out\n", b"")

    @rule("D1")
    async def test_a_job_that_has_not_started_says_why(self, bench: Bench) -> None:
        _ = bench.diagnostician
        narrow = await bench.narrow()
        first = await narrow.start_one("sleep", narrow.forever)
        await narrow.until([first], JobStatus.RUNNING)
        waiting = await narrow.start_one("echo", "x")
        seen = (await narrow.diagnostician.diagnostics([waiting]))[waiting]
        assert (seen.stdout_tail, seen.stderr_tail) == (b"", b"")
        assert seen.log_tail.strip()

    @rule("D1")
    async def test_an_unknown_job_is_a_failure_and_the_others_are_shown(self, bench: Bench) -> None:
        diagnostician = bench.diagnostician
        job = await bench.finish_one("echo", "x")
        unknown = JobID("nobody/nothing/0")
        result = await diagnostician.diagnostics([unknown, job])
        assert result.failures[unknown].code == FailureCode.NO_SUCH_JOB
        assert result[job].stdout_tail == b"x\n"


async def _once(bench: Bench, job: JobID, stdout: bytes, stderr: bytes) -> Diagnostics:
    """What is seen when the payload has come so far."""
    await bench.until([job], JobStatus.RUNNING)
    seen = Diagnostics()
    try:
        async with asyncio.timeout(bench.resource.patience_s):
            while (seen.stdout_tail, seen.stderr_tail) != (stdout, stderr):
                seen = (await bench.diagnostician.diagnostics([job]))[job]
                await asyncio.sleep(bench.resource.poll_s)
    except TimeoutError:
        raise AssertionError(f"expected {stdout!r} and {stderr!r}, saw {seen}") from None
    return seen
