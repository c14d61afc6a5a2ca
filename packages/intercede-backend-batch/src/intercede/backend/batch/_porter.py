"""What a porter does: a process of our own that takes the streams of fetches to the files of their jobs, one stream after the other.

It is told what to do on its standard input, by pickles; the streams lie in memory that both processes have. Each of its answers is a head,
and what the head tells of. When its input ends, so does it, and leaves nothing behind that was begun.
"""

from __future__ import annotations

import gc
import mmap
import pickle
import struct
import sys
from collections.abc import Set
from pathlib import Path
from typing import Final, NamedTuple

from intercede.toolkit import Limits, TarReader

from ._fetching import Fetching
from ._plain import PlainReader

__all__ = ["FETCHED", "FREED", "HEAD", "READY", "SLOT", "SLOTS", "Piece", "Receive", "serve"]

#: The memory in common, in pieces: one is filled while the other is read.
SLOTS: Final = 2
SLOT: Final = 2**20
#: The head of an answer: of which kind it is, of which slot, and how many bytes follow, a pickle.
HEAD: Final = struct.Struct(">BBI")
#: It can begin; nothing follows.
READY: Final = 0
#: A slot was read; the news.
FREED: Final = 1
#: A stream was taken to its end; what was fetched.
FETCHED: Final = 2


class Receive(NamedTuple):
    """A stream comes, in `Piece` and to its end in None; see `Fetching`.

    Attributes:
        nonce: The random word of the script that sends it.
        dest: Where the jobs' directories go, absolute.
        jobs: Those asked for.
        limits: For each job.
        is_tar: Its archive is tar's.
    """

    nonce: str
    dest: Path
    jobs: Set[str]
    limits: Limits
    is_tar: bool

    def fetching(self) -> Fetching:
        """What takes it."""
        reader = TarReader() if self.is_tar else PlainReader()
        return Fetching(self.nonce, self.dest, self.jobs, self.limits, reader)


class Piece(NamedTuple):
    """The stream goes on.

    Attributes:
        slot: Where.
        size: How many bytes.
    """

    slot: int
    size: int


def serve(descriptor: int) -> None:
    """Do what the standard input says, until it ends.

    Args:
        descriptor: Of the memory in common.
    """
    memory = mmap.mmap(descriptor, SLOTS * SLOT)
    try:
        _answer(READY)
        while True:
            request = _told()
            assert isinstance(request, Receive)
            _receive(request, memory)
    except (EOFError, BrokenPipeError):
        pass  # whoever started this process is gone


def _receive(request: Receive, memory: mmap.mmap) -> None:
    fetching = request.fetching()
    gc.disable()  # none of the thousands of things that a stream brings refers to itself
    try:
        while isinstance(piece := _told(), Piece):
            at = piece.slot * SLOT
            fetching.feed(memory[at : at + piece.size])
            _answer(FREED, piece.slot, pickle.dumps(fetching.news()))
    finally:
        fetched = fetching.finish()
        gc.enable()
    _answer(FETCHED, follows=pickle.dumps(fetched))


def _told() -> object:
    return pickle.load(sys.stdin.buffer)  # noqa: S301 - from whoever started this process


def _answer(kind: int, slot: int = 0, follows: bytes = b"") -> None:
    sys.stdout.buffer.write(HEAD.pack(kind, slot, len(follows)) + follows)
    sys.stdout.buffer.flush()
