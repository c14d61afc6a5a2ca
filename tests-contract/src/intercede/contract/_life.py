"""Rules L1 to L6: how a backend is made, shared, interrupted and closed."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from intercede.core import (
    Cancellable,
    ClosedError,
    Discoverable,
    FailureCode,
    JobBackend,
    JobID,
    JobStatus,
    LoadReporter,
    OutputRetriever,
    Purgeable,
    StatusMap,
    SupportsDetails,
    SupportsDryRun,
    SupportsLiveDiagnostics,
    registry,
)

from ._bench import Bench, Rules
from ._probe import own_children, own_descriptors
from ._verdict import not_observed, rule
from ._watch import io_watched

__all__ = ["LifeRules"]

#: After which fractions of a call's usual time it is cancelled.
_MOMENTS = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9)

Call = Callable[[], Coroutine[Any, Any, object]]


def calls(backend: JobBackend, ids: list[JobID], bench: Bench) -> dict[str, Call]:
    """Every method that this backend has and that takes no job's life, ready to be called."""
    found: dict[str, Call] = {"status": lambda: backend.status(ids)}
    if isinstance(backend, SupportsDetails):
        found["details"] = lambda: backend.details(ids)
    if isinstance(backend, SupportsLiveDiagnostics):
        found["diagnostics"] = lambda: backend.diagnostics(ids)
    if isinstance(backend, LoadReporter):
        found["counts"] = backend.counts
    if isinstance(backend, Discoverable):
        found["find"] = lambda: backend.find(bench.tag)
    if isinstance(backend, OutputRetriever):
        found["fetch_output"] = lambda: backend.fetch_output(ids, bench.scratch / "cancelled")
    if isinstance(backend, SupportsDryRun):
        found["dry_run"] = lambda: backend.dry_run(bench.spec())
    return found


def lethal_calls(backend: JobBackend, ids: list[JobID], bench: Bench) -> dict[str, Call]:
    """The other methods."""
    found: dict[str, Call] = {"submit": lambda: bench.submit(bench.spec(), backend=backend)}
    if isinstance(backend, Cancellable):
        found["kill"] = lambda: backend.kill(ids)
    if isinstance(backend, Purgeable):
        found["purge"] = lambda: backend.purge(ids)
    return found


async def cancelled(call: Call, after_s: float, patience_s: float) -> None:
    """Begin a call, cancel it, and expect it to end."""
    task = asyncio.create_task(call())
    await asyncio.sleep(after_s)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=patience_s)
    assert done, f"expected a cancelled call to end within {patience_s:.0f} s: {task}"
    if not task.cancelled():
        task.exception()


class LifeRules(Rules):
    """L: life."""

    @rule("L1")
    def test_a_backend_is_made_without_io_and_without_an_event_loop(self) -> None:
        config = self.resource.config
        provider = self.resource.credentials() if self.resource.credentials else None

        def make_twice() -> list[str]:
            registry.backend(config, provider)  # which imports it
            with io_watched() as seen:
                registry.backend(config, provider)
            return seen

        with ThreadPoolExecutor(1) as elsewhere:
            assert elsewhere.submit(make_twice).result() == []

    @rule("L1")
    def test_a_backend_made_outside_a_loop_works_in_one(self, tmp_path: Path) -> None:
        if self.resource.credentials is not None:
            not_observed("a resource without credentials, which are made in the loop")
        backend = registry.backend(self.resource.config)

        async def use() -> int:
            async with backend:
                return len(await backend.status([JobID("nobody/nothing/0")]))

        with ThreadPoolExecutor(1) as elsewhere:
            assert elsewhere.submit(asyncio.run, use()).result() == 1

    @rule("L2")
    async def test_the_first_use_connects(self, bench: Bench) -> None:
        job = await bench.start_one()
        backend = bench.made()
        try:
            assert (await backend.status([job]))[job] is not JobStatus.UNKNOWN
        finally:
            await backend.aclose()

    @rule("L2")
    async def test_closing_twice_is_harmless(self, bench: Bench) -> None:
        backend = bench.made()
        await backend.status([JobID("nobody/nothing/0")])
        await backend.aclose()
        assert await _raised(backend.aclose) is None

    @rule("L2")
    async def test_closing_what_was_never_used_is_harmless(self, bench: Bench) -> None:
        backend = bench.made()
        await backend.aclose()
        assert await _raised(backend.aclose) is None

    @rule("L2")
    async def test_use_after_close_raises_closed_error(self, bench: Bench) -> None:
        job = await bench.start_one()
        async with bench.made() as backend:
            await backend.status([job])
        every = {**calls(backend, [job], bench), **lethal_calls(backend, [job], bench)}
        for name, call in every.items():
            with pytest.raises(ClosedError) as caught:
                await call()
            assert str(caught.value), name

    @rule("L2")
    async def test_a_closed_backend_does_not_open_again(self, bench: Bench) -> None:
        backend = bench.made()
        await backend.aclose()
        with pytest.raises(ClosedError):
            async with backend:
                pass

    @rule("L2")
    async def test_jobs_outlive_the_backend_that_submitted_them(self, bench: Bench) -> None:
        async with bench.made() as backend:
            submission = await bench.submit(bench.spec("sleep", bench.a_while), backend=backend)
        ids = [handle.id for handle in submission.handles]
        await bench.until(ids, JobStatus.SUCCESSFUL)

    @rule("L3")
    async def test_one_backend_serves_many_tasks(self, bench: Bench) -> None:
        async def one(number: int) -> tuple[int, JobStatus]:
            job = await bench.start_one("exit", str(number % 2))
            return number, (await bench.until([job]))[job]

        for number, status in await asyncio.gather(*map(one, range(20))):
            assert status == (JobStatus.FAILED if number % 2 else JobStatus.SUCCESSFUL)

    @rule("L4")
    async def test_a_cancelled_call_leaves_the_backend_usable(self, bench: Bench) -> None:
        job = await bench.finish_one("echo", "here")
        for name, call in calls(bench.backend, [job], bench).items():
            began = asyncio.get_running_loop().time()
            await call()
            usual = asyncio.get_running_loop().time() - began
            for moment in _MOMENTS:
                await cancelled(call, usual * moment, bench.resource.patience_s)
            async with asyncio.timeout(bench.resource.patience_s):
                await call()
            after = (await bench.backend.status([job]))[job]
            assert after == JobStatus.SUCCESSFUL, f"after cancelling {name}"

    @rule("L4", "S7")
    async def test_what_a_cancelled_submit_left_is_found_whole_and_can_be_cleared(
        self, bench: Bench
    ) -> None:
        finder = bench.finder
        began = asyncio.get_running_loop().time()
        await bench.start(copies=3)
        usual = asyncio.get_running_loop().time() - began
        for moment in _MOMENTS:
            tag = f"{bench.tag}-{moment}"
            spec = bench.spec("sleep", bench.forever, tag=tag)
            submit = partial(bench.backend.submit, spec, 3)
            await cancelled(submit, usual * moment, bench.resource.patience_s)
            found = await finder.find(tag)
            bench.adopt(found)
            assert [handle.copy for handle in found] in ([], [0, 1, 2])
            seen = await bench.backend.status([handle.id for handle in found])
            codes = {failure.code for failure in seen.failures.values()}
            assert codes <= {FailureCode.NOT_NOW}, seen

    @rule("L4")
    async def test_cancelled_calls_leak_no_task_child_or_descriptor(self, bench: Bench) -> None:
        if own_descriptors() is None:
            not_observed("a system with /proc")
        job = await bench.finish_one("echo", "here")
        every = {**calls(bench.backend, [job], bench), "submit": bench.start_one}
        patience_s = bench.resource.patience_s
        for call in every.values():
            await cancelled(call, 0.01, patience_s)
            await call()
        before = await _belongings()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", ResourceWarning)
            for call in every.values():
                for moment in (0.0, 0.001, 0.005, 0.02):
                    await cancelled(call, moment, patience_s)
            for kind, had in before.items():
                await _settled(kind, had, bench)
        assert [str(w.message) for w in warned if issubclass(w.category, ResourceWarning)] == []

    @rule("L5")
    async def test_it_may_be_closed_in_another_task(self, bench: Bench) -> None:
        backend = bench.made()
        job = await bench.start_one()

        async def begin() -> None:
            await backend.__aenter__()
            await backend.status([job])

        await asyncio.create_task(begin())
        await asyncio.create_task(_status(backend, job))
        await asyncio.create_task(backend.__aexit__(None, None, None))
        with pytest.raises(ClosedError):
            await backend.status([job])

    @rule("L5")
    async def test_another_event_loop_is_a_clear_error(self, bench: Bench) -> None:
        job = await bench.start_one()
        outcome: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(_status(bench.backend, job))
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join, bench.resource.patience_s)
        assert [type(error) for error in outcome] == [ClosedError]
        assert "loop" in str(outcome[0])
        assert job in await bench.backend.status([job])

    @rule("L6")
    async def test_cancelling_the_first_waiter_does_not_fail_the_others(self, bench: Bench) -> None:
        job = await bench.start_one()
        began = asyncio.get_running_loop().time()
        await _status(await bench.opened(), job)
        usual = asyncio.get_running_loop().time() - began
        for delay in (None, *(usual * moment for moment in _MOMENTS)):
            async with bench.made() as backend:
                first, *others = [asyncio.create_task(_status(backend, job)) for _ in range(5)]
                if delay is not None:
                    await asyncio.sleep(delay)
                first.cancel()
                async with asyncio.timeout(bench.resource.patience_s):
                    answers = await asyncio.gather(*others, return_exceptions=True)
                assert [type(answer).__name__ for answer in answers] == ["BulkResult"] * 4


async def _raised(call: Call) -> Exception | None:
    """What a call raises, if it does: so that a test can say that it must not."""
    try:
        await call()
    except Exception as error:
        return error
    return None


async def _status(backend: JobBackend, job: JobID) -> StatusMap:
    return await backend.status([job])


async def _belongings() -> dict[str, int]:
    """How many tasks, children and descriptors this process has."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "children": len(own_children() or ()),
        "descriptors": len(own_descriptors() or ()),
    }


async def _settled(kind: str, had: int, bench: Bench) -> None:
    """Expect no more of a kind than before, soon: what a cancelled call left running may take a moment to end."""
    has: dict[str, int] = {}
    try:
        async with asyncio.timeout(bench.resource.patience_s):
            while True:
                has = await _belongings()
                if has[kind] <= had:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    raise AssertionError(
        f"{kind}: {had} before, {has[kind]} after cancelled calls:"
        f" {asyncio.all_tasks()}, {own_children()}, {own_descriptors()}"
    )
