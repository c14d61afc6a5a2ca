"""The end of a program with open backends: nothing hangs, nothing is printed, everything is closed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[[str], Any]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("in_thread(lambda: ce.status([])).join()", 0),
        ("os.kill(os.getpid(), signal.SIGTERM)", 5),
    ],
)
def test_an_open_backend_is_closed(start: Start, end: str, code: int) -> None:
    program = start(f"""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        ce = facade()
        ce.status([])
        {end}
    """)

    assert program.end() == (code, "")
    assert program.said == ["closed"]


def test_a_backend_that_was_never_used_starts_no_thread(start: Start) -> None:
    program = start("""
        ce = facade()
        ce.close()
        say(threading.active_count())
    """)

    assert program.end() == (0, "")
    assert program.said == ["1"]


def test_jobs_of_an_open_backend_are_not_affected(start: Start) -> None:
    program = start("""
        ce = sync.backend({**LOCAL, "name": "exit"})
        [handle] = ce.submit(core.SubmissionSpec("sleep", ["1"], resident=True)).handles
        say(handle.id)
    """)
    assert program.end() == (0, "")

    again = start(f"""
        with sync.backend({{**LOCAL, "name": "exit"}}) as ce:
            while not (status := ce.status([{program.said[0]!r}])[{program.said[0]!r}]).is_finished:
                time.sleep(0.1)
            ce.purge([{program.said[0]!r}]).raise_for_failures()
            say(status)
    """)
    assert again.end() == (0, "")
    assert again.said == ["successful"]


def test_threads_that_outlive_the_main_one_lose_nothing(start: Start) -> None:
    program = start("""
        ce = facade()
        ce.status([])
        def work():
            time.sleep(0.5)
            say(len(ce.status([])))
        in_thread(work)
    """)

    assert program.end() == (0, "")
    assert program.said == ["0", "closed"]


def test_what_the_program_does_at_exit_finds_its_backends_open(start: Start) -> None:
    program = start("""
        import atexit
        ce = facade()
        atexit.register(lambda: say(len(ce.status([]))))
        ce.status([])
    """)

    assert program.end() == (0, "")
    assert program.said == ["0", "closed"]


def test_a_call_of_a_daemon_thread_is_broken_off_without_a_word(start: Start) -> None:
    program = start("""
        class Begun(Slow):
            async def counts(self):
                begun.set()
                await super().counts()
        begun = threading.Event()
        ce = facade(Begun)
        in_thread(ce.counts, daemon=True)
        begun.wait()
    """)

    assert program.end() == (0, "")
    assert program.said == ["begun", "cleaned", "closed"]


@pytest.mark.parametrize("held_up_by", ["await anyio.sleep(100)", "time.sleep(100)"])
def test_a_backend_that_does_not_close_holds_nobody_up(start: Start, held_up_by: str) -> None:
    program = start(f"""
        class Unclosable(FakeBackend):
            async def aclose(self):
                say("closing")
                with anyio.CancelScope(shield=True):
                    {held_up_by}
        sync._loop._END_S = 1
        ce, other = facade(Unclosable), facade()
        ce.status([]), other.status([])
    """)
    program.until("closing")
    begun = time.monotonic()

    assert program.end() == (0, "")
    assert time.monotonic() - begun < 10


def test_ctrl_c_ends_the_wait_for_a_backend_that_does_not_close(start: Start) -> None:
    program = start("""
        class Unclosable(FakeBackend):
            async def aclose(self):
                say("closing")
                await anyio.sleep(100)
        ce = facade(Unclosable)
        ce.status([])
    """)
    program.until("closing")
    time.sleep(0.2)  # into the wait
    begun = time.monotonic()
    program.interrupt()

    assert program.end() == (0, "")
    assert time.monotonic() - begun < 5


def test_an_error_in_closing_is_nobodys_any_more(start: Start) -> None:
    program = start("""
        class Broken(FakeBackend):
            async def aclose(self):
                raise OSError("broken")
        ce, other = facade(Broken), facade()
        ce.status([]), other.status([])
    """)

    assert program.end() == (0, "")
    assert program.said == ["closed"]


def test_an_open_provider_is_closed_too(start: Start) -> None:
    program = start("""
        class Provider:
            async def get(self, requirements):
                return core.CredentialSet()
            async def __aenter__(self):
                return self
            async def __aexit__(self, *exc):
                say("provider closed")
        provider = sync.synchronous(Provider())
        provider.__enter__()
    """)

    assert program.end() == (0, "")
    assert program.said == ["provider closed"]
