"""Ctrl-C: it cancels the call it meets, and leaves the backend usable."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Start = Callable[[str], Any]


def test_ctrl_c_cancels_the_call_and_the_backend_stays_usable(start: Start) -> None:
    program = start("""
        with facade() as ce:
            try:
                ce.counts()
            except KeyboardInterrupt:
                say("interrupted")
            say(len(ce.status([])))
    """)
    program.until("begun")
    begun = time.monotonic()
    program.interrupt()

    assert program.end() == (0, "")
    assert program.said == ["begun", "cleaned", "interrupted", "0", "closed"]
    assert time.monotonic() - begun < 5


def test_the_caller_goes_on_when_the_call_has_cleaned_up(start: Start) -> None:
    program = start("""
        class Tidy(Slow):
            async def cleaning(self):
                await anyio.sleep(0.5)
        ce = facade(Tidy)
        try:
            ce.counts()
        except KeyboardInterrupt:
            say("interrupted")
    """)
    program.until("begun")
    program.interrupt()

    assert program.end() == (0, "")
    assert program.said == ["begun", "cleaned", "interrupted", "closed"]


def test_a_second_ctrl_c_does_not_wait_for_the_cleaning_up(start: Start) -> None:
    program = start("""
        class Tidy(Slow):
            async def cleaning(self):
                say("cleaning")
                await anyio.sleep(2)
        ce = facade(Tidy)
        try:
            ce.counts()
        except KeyboardInterrupt:
            say("interrupted")
        say(len(ce.status([])))
    """)
    program.until("begun")
    program.interrupt()
    program.until("cleaning")
    time.sleep(0.2)  # into the wait
    program.interrupt()

    assert program.end() == (0, "")
    assert program.said == ["begun", "cleaning", "interrupted", "0", "cleaned", "closed"]


def test_the_wait_for_the_cleaning_up_is_bounded(start: Start) -> None:
    program = start("""
        class Untidy(Slow):
            async def cleaning(self):
                await anyio.sleep(100)
        sync._loop._BROKEN_OFF_S = sync._loop._END_S = 0.5
        ce = facade(Untidy)
        try:
            ce.counts()
        except KeyboardInterrupt:
            say("interrupted")
    """)
    program.until("begun")
    program.interrupt()

    assert program.end(10) == (0, "")
    assert program.said == ["begun", "interrupted"]


def test_a_loop_that_is_stuck_does_not_keep_ctrl_c_from_the_caller(start: Start) -> None:
    program = start("""
        class Stuck(FakeBackend):
            async def counts(self):
                say("begun")
                time.sleep(100)
        sync._loop._BROKEN_OFF_S = sync._loop._END_S = 0.5
        ce = facade(Stuck)
        for call in (ce.counts, lambda: ce.status([])):
            try:
                call()
            except KeyboardInterrupt:
                say("interrupted")
    """)
    program.until("begun")
    program.interrupt()
    program.until("interrupted")
    time.sleep(0.2)  # into the second call, which the loop cannot even begin
    program.interrupt()

    assert program.end(10) == (0, "")
    assert program.said == ["begun", "interrupted", "interrupted"]


def test_closing_goes_on_and_is_waited_for(start: Start) -> None:
    program = start("""
        class Leisurely(FakeBackend):
            async def aclose(self):
                say("closing")
                await anyio.sleep(1)
                say("closed")
        try:
            with facade(Leisurely) as ce:
                pass
        except KeyboardInterrupt:
            say("interrupted")
    """)
    program.until("closing")
    time.sleep(0.2)  # into the wait
    program.interrupt()

    assert program.end() == (0, "")
    assert program.said == ["closing", "closed", "interrupted"]


def test_a_second_ctrl_c_does_not_wait_for_closing_and_the_end_of_the_program_does(
    start: Start,
) -> None:
    program = start("""
        class Leisurely(FakeBackend):
            async def aclose(self):
                say("closing")
                await anyio.sleep(2)
                say("closed")
        try:
            with facade(Leisurely) as ce:
                pass
        except KeyboardInterrupt:
            say("interrupted")
    """)
    program.until("closing")
    for _ in range(2):
        time.sleep(0.2)  # into the wait
        program.interrupt()

    assert program.end() == (0, "")
    assert program.said == ["closing", "interrupted", "closed"]


def test_whatever_a_signal_handler_raises_cancels_the_call(start: Start) -> None:
    program = start("""
        def expired(*_):
            raise TimeoutError
        signal.signal(signal.SIGALRM, expired)
        ce = facade()
        signal.setitimer(signal.ITIMER_REAL, 1)
        try:
            ce.counts()
        except TimeoutError:
            say("timed out")
    """)

    assert program.end() == (0, "")
    assert program.said == ["begun", "cleaned", "timed out", "closed"]


def test_ctrl_c_is_the_main_threads_and_no_other_call_is_cancelled(start: Start) -> None:
    program = start("""
        class Some(Slow):
            async def find(self, tag):
                await anyio.sleep(1)
                return ()
        ce = facade(Some)
        other = in_thread(lambda: say("found", ce.find("x")))
        try:
            ce.counts()
        except KeyboardInterrupt:
            say("interrupted")
        other.join()
    """)
    program.until("begun")
    program.interrupt()

    assert program.end() == (0, "")
    assert program.said == ["begun", "cleaned", "interrupted", "found ()", "closed"]


def test_real_commands_are_ended_and_real_jobs_go_on(start: Start) -> None:
    """Ten times Ctrl-C into calls that each run a process here: the job and the backend do not mind, and no process is left."""
    program = start("""
        from pathlib import Path
        name = f"interrupted-{os.getpid()}"
        with sync.backend({**LOCAL, "name": name}) as ce:
            [job] = [h.id for h in ce.submit(core.SubmissionSpec("sleep", ["4"], resident=True)).handles]
            times = 0
            while times < 10:
                try:
                    say("asking")
                    while True:
                        ce.status([job])
                except KeyboardInterrupt:
                    times += 1
                    say("interrupted")
            while not ce.status([job])[job].is_finished:
                time.sleep(0.1)
            say(ce.status([job])[job])
            ce.purge([job]).raise_for_failures()
            children = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
            say("children:", *children)
    """)
    for _ in range(10):
        program.until("asking")
        time.sleep(0.05)
        program.interrupt()
        program.until("interrupted")

    assert program.end(60) == (0, "")
    assert program.said[-2] == "successful"
    assert program.said[-1].split() == ["children:"]
