"""Many threads on one backend, many calls, and nothing that grows."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import BuiltinMethodType, MethodType
from typing import Final

import anyio
import pytest

from intercede import sync
from intercede.core import ClosedError, JobCounts, SubmissionSpec
from intercede.fake import FakeBackend, FakeConfig

THREADS: Final = 50
CALLS: Final = 10_000
#: Each of these calls runs a process. With all `CALLS` it takes minutes.
LOCAL_CALLS: Final = int(os.environ.get("INTERCEDE_SYNC_LOCAL_CALLS", "300"))

_METHODS: Final = (BuiltinMethodType, MethodType)

#: How much of each may have been added: 1 object for 50 calls would be more.
_MOST: Final = {"threads": 0, "descriptors": 0, "children": 0, "objects": 199, "KiB": 4095}


def _held() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "children": sum(
            len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children")
        ),
        # Bound methods aside: coverage keeps five for every thread that there ever was, and on Python 3.11 each child process has one.
        "objects": sum(not isinstance(each, _METHODS) for each in gc.get_objects()),
        "KiB": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    }


@contextmanager
def _nothing_grows() -> Iterator[None]:
    """Fail if the block leaves more behind than there was, and than `_MOST`."""
    before = _held()
    yield
    # What has just ended is let go of by its threads and its loop, a moment later where the machine is busy.
    deadline = time.monotonic() + 20
    while True:
        after = _held()
        grown = {name: after[name] - before[name] for name in before}
        if not (too_much := {name: grown[name] for name in _MOST if grown[name] > _MOST[name]}):
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"grown: {too_much}, of {grown}")
        time.sleep(0.1)


def _by_all(calls: int, call: Callable[[int], object]) -> None:
    """Make so many calls from 50 threads that begin together."""
    together = threading.Barrier(THREADS)

    def work(number: int) -> None:
        together.wait(60)
        for turn in range(number, calls, THREADS):
            call(turn)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, number) for number in range(THREADS)]:
            done.result(600)


def test_fifty_threads_make_ten_thousand_calls_and_nothing_grows() -> None:
    with sync.backend({"type": "fake", "speed": 100_000.0}) as ce:
        assert isinstance(ce, sync.SupportsDetails) and isinstance(ce, sync.LoadReporter)
        copies = ce.submit(SubmissionSpec("sleep", ["1"], resident=True), copies=THREADS)
        ids = [handle.id for handle in copies.handles]
        counts, details = ce.counts, ce.details

        def call(turn: int) -> None:
            job = ids[turn % THREADS]
            if turn % 3 == 0:
                assert list(ce.status([job])) == [job]
            elif turn % 3 == 1:
                assert list(details([job])) == [job]
            else:
                assert isinstance(counts(), JobCounts)

        _by_all(1000, call)
        with _nothing_grows():
            _by_all(CALLS, call)


def test_fifty_threads_on_this_machine_and_nothing_grows() -> None:
    with sync.backend({"transport": "local", "scheduler": "direct", "name": "threads"}) as ce:
        assert isinstance(ce, sync.Purgeable) and isinstance(ce, sync.Cancellable)
        copies = ce.submit(SubmissionSpec("sleep", ["600"], resident=True), copies=4)
        ids = [handle.id for handle in copies.handles]

        def call(turn: int) -> None:
            [status] = ce.status([ids[turn % 4]]).values()
            assert status.name in ("PENDING", "RUNNING")

        # It takes up to 2,000 calls until the allocator has what fifty threads need; from then on nothing is added.
        _by_all(max(100, LOCAL_CALLS // 5), call)
        with _nothing_grows():
            _by_all(LOCAL_CALLS, call)
        ce.kill(ids).raise_for_failures()
        ce.purge(ids).raise_for_failures()


def test_calls_that_fail_leave_nothing_behind() -> None:
    def call(turn: int) -> None:
        with pytest.raises(TypeError):
            ce.status("a bare string")  # type: ignore[arg-type]  # what is tested

    with sync.backend({"type": "fake"}) as ce:
        _by_all(500, call)
        with _nothing_grows():
            _by_all(2000, call)


def test_backends_that_come_and_go_leave_nothing_behind() -> None:
    def call(turn: int) -> None:
        with sync.backend({"type": "fake", "without": ["kill"]}) as ce:
            ce.status([])

    _by_all(100, call)
    with _nothing_grows():
        _by_all(1000, call)


def test_loops_that_come_and_go_leave_nothing_behind() -> None:
    def come_and_go() -> None:
        with sync.Loop() as loop, sync.backend({"type": "fake"}, loop=loop) as ce:
            ce.status([])

    come_and_go()
    with _nothing_grows():
        for _ in range(20):
            come_and_go()


def test_calls_wait_for_each_other_in_one_thread_of_the_loop_only() -> None:
    """Fifty calls of 0.2 s each: side by side, in the one loop."""
    seen: set[int] = set()

    class Slow(FakeBackend):
        async def counts(self) -> JobCounts:
            seen.add(threading.get_ident())
            await anyio.sleep(0.2)
            return JobCounts(0, 0)

    with sync.synchronous(Slow(FakeConfig(), "slow")) as ce:
        assert isinstance(ce, sync.LoadReporter)
        counts = ce.counts
        begun = time.monotonic()
        _by_all(THREADS, lambda _: counts())
        assert time.monotonic() - begun < 5  # one after the other they take 10

    assert len(seen) == 1
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("turn", range(5))
def test_a_loop_that_is_closed_under_its_callers_keeps_none_of_them(turn: int) -> None:
    loop = sync.Loop()
    ce = sync.backend({"type": "fake"}, loop=loop)
    ce.status([])

    def call_until_closed() -> str:
        while True:
            try:
                ce.status([])
            except ClosedError as error:
                return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        told = [pool.submit(call_until_closed) for _ in range(THREADS)]
        time.sleep(0.05 * turn)
        loop.close()
        assert all("event loop was closed" in each.result(30) for each in told)
