"""Who writes what a fetch brings: a thread, or a porter once that is worth it.

Python runs one thread at a time: while a thread writes files by the thousands, the loop, which has to decrypt them, waits for it, and so
does whatever else the program does. A porter is a process, which costs some 0.3 s to start and 30 MiB to keep, more than most fetches are
worth. So the first one that brings many files starts it, for those that follow; it ends with the backend.
"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, Self

import anyio
import anyio.abc
import anyio.to_thread
from attrs import evolve

from intercede.core import ResourceError
from intercede.toolkit import Limits, sweep, to_its_end

from ._fetching import Came, Fetched, Fetching
from ._porter import FETCHED, FREED, HEAD, READY, SLOT, SLOTS, Piece, Receive

__all__ = ["Porters", "Receiver"]

#: So many files are many.
_MANY: Final = 1_000
#: How long a porter may take to be there, once somebody waits for it.
_START_S: Final = 5.0
#: How long it may be silent when an answer is due: longer than any file system takes for what a slot holds.
_PATIENCE_S: Final = 600.0
#: There is a Python to start, and memory without a name to have in common.
_POSSIBLE: Final = bool(sys.executable) and hasattr(os, "memfd_create")
#: It finds its modules where this process does, and nowhere before that.
_PROGRAM: Final = """\
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from intercede.backend.batch._porter import serve
serve({})
"""


class Receiver(Protocol):
    """Takes one stream; see `Fetching`."""

    async def feed(self, chunk: bytes) -> Mapping[str, Came]:
        """Go on. Returns the news, though not always of this chunk; see `Fetching.news`."""

    async def finish(self) -> Fetched:
        """The stream has ended: what was fetched, and the rest of the news."""


class _Thread:
    """Takes a stream in a thread."""

    def __init__(self, fetching: Fetching) -> None:
        self._fetching = fetching

    async def feed(self, chunk: bytes) -> Mapping[str, Came]:
        await anyio.to_thread.run_sync(self._fetching.feed, chunk)
        return self._fetching.news()

    async def finish(self) -> Fetched:
        return await anyio.to_thread.run_sync(self._fetching.finish)


@contextmanager
def _lost() -> Iterator[None]:
    """That it has ended, or might as well have, as an error."""
    try:
        yield
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        raise ResourceError(
            "the process that writes the output here has ended",
            remedy="fetch again; if it was the kernel that ended it, this machine has too little memory",
        ) from None


class _Porter:
    """Carries one stream after the other, in a process of its own."""

    def __init__(self, process: anyio.abc.Process, memory: mmap.mmap) -> None:
        self._process = process
        self._memory = memory
        self._free = list(range(SLOTS))
        self._heard = bytearray()
        self._news: dict[str, Came] = {}
        self._is_ready = False

    @classmethod
    async def start(cls) -> Self:
        """Do not wait until it is ready.

        Raises:
            OSError, ResourceError: There can be none.
        """
        descriptor = os.memfd_create("intercede")
        try:
            os.ftruncate(descriptor, SLOTS * SLOT)
            process = await anyio.open_process(
                [sys.executable, "-I", "-c", _PROGRAM.format(descriptor)],
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
                pass_fds=[descriptor],
            )
            porter = cls(process, mmap.mmap(descriptor, SLOTS * SLOT))
        finally:
            os.close(descriptor)
        try:
            await porter.tell(sys.path)
        except BaseException:
            await porter.end()
            raise
        return porter

    async def is_ready(self) -> bool:
        """Wait for it; False: there is none."""
        if self._is_ready:
            return True
        try:
            with anyio.fail_after(_START_S):
                self._is_ready = await self._exactly(HEAD.size) == HEAD.pack(READY, 0, 0)
        except (ResourceError, TimeoutError):
            return False
        return self._is_ready

    async def feed(self, chunk: bytes) -> Mapping[str, Came]:
        for start in range(0, len(chunk), SLOT):
            piece = chunk[start : start + SLOT]
            while not self._free:
                await self._hear()
            slot = self._free.pop()
            self._memory[slot * SLOT : slot * SLOT + len(piece)] = piece
            await self.tell(Piece(slot, len(piece)))
        news, self._news = self._news, {}
        return news

    async def finish(self) -> Fetched:
        await self.tell(None)
        while (fetched := await self._hear()) is None:
            pass
        news, self._news = self._news, {}
        return evolve(fetched, news=news | dict(fetched.news))

    async def end(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await to_its_end(self._process.aclose())
        self._memory.close()

    async def tell(self, request: object) -> None:
        """Say what to do next."""
        assert self._process.stdin is not None
        with _lost():
            await self._process.stdin.send(pickle.dumps(request))

    async def _hear(self) -> Fetched | None:
        """Its next answer: that a slot is free again, with the news, or what was fetched."""
        kind, slot, size = HEAD.unpack(await self._exactly(HEAD.size))
        said = pickle.loads(await self._exactly(size))  # noqa: S301 - from a process of our own
        if kind == FREED:
            self._free.append(slot)
            self._news |= said
            return None
        assert kind == FETCHED
        assert isinstance(said, Fetched)
        return said

    async def _exactly(self, size: int) -> bytes:
        assert self._process.stdout is not None
        while len(self._heard) < size:
            with _lost(), anyio.fail_after(_PATIENCE_S):
                self._heard += await self._process.stdout.receive()
        heard = bytes(self._heard[:size])
        del self._heard[:size]
        return heard


class Porters:
    """Those of one backend."""

    def __init__(self) -> None:
        #: None while somebody has it, too.
        self._idle: _Porter | None = None
        self._started = False
        self._closed = False

    @asynccontextmanager
    async def receiving(
        self, nonce: str, dest: Path, jobs: Set[str], limits: Limits, *, is_tar: bool
    ) -> AsyncIterator[Receiver]:
        """Take a stream; see `Fetching`. Left without `finish`, nothing stays of what was not complete.

        Raises:
            ResourceError: The porter has ended.
        """
        # A porter has its own idea of the current directory, and asking for ours blocks nothing.
        request = Receive(nonce, dest.absolute(), jobs, limits, is_tar)  # noqa: ASYNC240
        porter, self._idle = self._idle, None
        try:
            if porter is not None and await porter.is_ready():
                await porter.tell(request)
                yield porter
                await self._keep(porter)
                return
        except BaseException:
            if porter is not None:
                self._started = False
                await porter.end()
                await to_its_end(anyio.to_thread.run_sync(sweep, dest))
            raise
        if porter is not None:
            await porter.end()
        fetching = request.fetching()
        try:
            yield _Thread(fetching)
        except BaseException:
            await to_its_end(anyio.to_thread.run_sync(fetching.finish))
            raise

    async def _keep(self, porter: _Porter) -> None:
        """It is nobody's again."""
        if self._closed:
            await porter.end()
        else:
            self._idle = porter

    async def brought(self, files: int) -> None:
        """A fetch has brought so many files: if they were many, be ready for more."""
        if files < _MANY or self._started or self._closed or not _POSSIBLE:
            return
        self._started = True
        try:
            await self._keep(await _Porter.start())
        except (OSError, ResourceError):
            pass  # a thread will do
        except BaseException:
            self._started = False  # the next one may try
            raise

    async def aclose(self) -> None:
        """End the porter, now or when it is done."""
        self._closed = True
        porter, self._idle = self._idle, None
        if porter is not None:
            await porter.end()
