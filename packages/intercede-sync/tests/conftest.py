"""Programs of their own, for what happens at exit, after `fork` and on Ctrl-C: every warning is an error there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

#: What every program begins with: a backend whose `counts` lasts, and says when it has begun and ended.
HEAD = """\
import os, signal, sys, threading, time
import anyio
from intercede import core, sync
from intercede.fake import FakeBackend, FakeConfig

MAIN = os.getpid()
LOCAL = {"transport": "local", "scheduler": "direct"}

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Slow(FakeBackend):
    async def counts(self):
        say("begun")
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await self.cleaning()
            say("cleaned" if os.getpid() == MAIN else "CLEANED IN THE CHILD")

    async def cleaning(self):
        pass

    async def aclose(self):
        await super().aclose()
        say("closed")

def facade(kind=Slow, **more):
    return sync.synchronous(kind(FakeConfig(), "slow"), **more)

def in_thread(work, **more):
    thread = threading.Thread(target=work, **more)
    thread.start()
    return thread
"""

#: Python 3.12 warns of every `fork` in a program with threads.
_WARNINGS = ["-W", "error", "-W", "ignore::DeprecationWarning"]


class Program:
    """A program that runs."""

    def __init__(self, text: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *_WARNINGS, "-c", HEAD + textwrap.dedent(text)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []

    def until(self, line: str) -> None:
        """Read what it says up to this line."""
        assert self._process.stdout is not None
        watch = threading.Timer(60, self.kill)
        watch.start()
        for said in self._process.stdout:
            self.said.append(said.rstrip("\n"))
            if self.said[-1] == line:
                break
        watch.cancel()
        if line not in self.said[-1:]:
            pytest.fail(f"it never said {line!r}: {self.said}, {self.end()}")

    def interrupt(self) -> None:
        """As a terminal does, to all of its processes."""
        os.killpg(self._process.pid, signal.SIGINT)

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Wait so long at most; the exit code, and what it said on stderr."""
        out, err = self._process.communicate(timeout=seconds)
        self.said += out.splitlines()
        return self._process.returncode, err

    def kill(self) -> None:
        """End it, and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and let go of it."""
        self.kill()
        self._process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[[str], Program]]:
    """Start a program; ended with the test."""
    begun: list[Program] = []

    def run(text: str) -> Program:
        begun.append(Program(text))
        return begun[-1]

    yield run
    for program in begun:
        program.close()
