"""I/O is seen where it is done, and nobody else's is."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import anyio.to_thread
import pytest

from intercede.contract import BackendContract, Resource
from intercede.contract._watch import io_watched
from intercede.core import registry

NULL = Path(os.devnull)


@contextmanager
def busy_elsewhere() -> Iterator[None]:
    """Somebody else's thread that reads and writes and starts threads all the time."""
    done, busy = threading.Event(), threading.Event()

    def work() -> None:
        while not done.is_set():
            NULL.read_bytes()
            short = threading.Thread(target=NULL.read_bytes)
            short.start()
            short.join()
            busy.set()

    thread = threading.Thread(target=work)
    thread.start()
    busy.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "deed", [NULL.read_bytes, Path("/no/such/folder").rmdir, lambda: os.system(":")]
)
def test_what_this_thread_does_is_seen(deed: Callable[[], object]) -> None:
    with io_watched() as seen, suppress(OSError):
        deed()
    assert len(seen) == 1


def test_what_other_threads_do_is_not() -> None:
    with busy_elsewhere(), io_watched() as seen:
        threading.Event().wait(0.05)
    assert seen == []


def test_a_thread_that_is_started_counts_and_what_it_does_is_seen() -> None:
    with io_watched() as seen:
        thread = threading.Thread(target=NULL.read_bytes)
        thread.start()
        thread.join()
    started, read = seen
    assert started.startswith("a thread is started: ")
    assert read.startswith("open(")


def test_where_threads_may_be_started_what_they_do_is_seen_all_the_same() -> None:
    with io_watched(threads=False) as seen:
        for target in (NULL.read_bytes, lambda: None):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert [event.partition("(")[0] for event in seen] == ["open"]


def test_work_that_is_handed_to_an_idle_thread_is_seen() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with io_watched() as counted:
            assert pool.submit(int).result() == 0
        with io_watched(threads=False) as seen:
            pool.submit(NULL.read_bytes).result()
            pool.submit(int).result()
        with io_watched() as after:
            pass
        pool.submit(NULL.read_bytes).result()
    assert [event.partition(":")[0] for event in counted] == ["work is handed to a pool of threads"]
    assert [event.partition("(")[0] for event in seen] == ["open"]
    assert after == []


async def test_what_a_loop_has_idle_threads_do_is_seen() -> None:
    loop = asyncio.get_running_loop()
    ways: list[Callable[[Callable[[], object]], object]] = [
        asyncio.to_thread,
        anyio.to_thread.run_sync,
        lambda work: loop.run_in_executor(None, work),
    ]
    for way in ways:
        await way(int)  # type: ignore[misc]  # all of them can be awaited
        with io_watched(threads=False) as seen:
            await way(int)  # type: ignore[misc]
            assert seen == []
            await way(NULL.read_bytes)  # type: ignore[misc]
        assert [event.partition("(")[0] for event in seen] == ["open"]


def test_threads_and_pools_are_left_as_they_were() -> None:
    before = threading.Thread.start, ThreadPoolExecutor.submit
    with io_watched():
        pass
    assert before == (threading.Thread.start, ThreadPoolExecutor.submit)


def test_a_module_that_is_imported_and_compiled_is_no_io(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_seen_before.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    with io_watched() as seen:
        assert import_module("never_seen_before").X == 1
    assert (tmp_path / "__pycache__").exists()
    assert seen == []


def test_garbage_of_others_is_not_collected_meanwhile(tmp_path: Path) -> None:
    class Left:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            NULL.read_bytes()

    gc.collect()
    Left()
    with io_watched() as seen:
        assert len([[[]] for _ in range(100_000)]) == 100_000
    assert seen == []
    assert gc.isenabled()


def test_l1_holds_while_others_work_and_a_folder_of_the_path_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "gone")
    config = {"type": "fake", "site": "watched"}

    class Mine(BackendContract):
        resource = Resource(config=config)

    registry.backend(config)
    with busy_elsewhere():
        Mine().test_a_backend_is_made_without_io_and_without_an_event_loop()
