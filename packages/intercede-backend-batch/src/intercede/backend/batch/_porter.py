"""What a porter does: a process of our own that takes the streams of fetches to the files of their jobs, one stream after the other.

It is told what to do on its standard input, by pickles; the streams lie in memory that both processes have. Each of its answers is a head,
and what the head tells of. When its input ends, so does it, and leaves nothing behind that was begun.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple

from intercede.toolkit import Limits, TarReader

from ._fetching import Fetched, Fetching
from ._plain import PlainReader

__all__ = ["FETCHED", "FREED", "HEAD", "READY", "SLOT", "SLOTS", "Piece", "Receive", "serve"]

#: The memory in common, in pieces: one is filled while the other is read.
SLOTS: Final = 2
SLOT: Final = 2**20
#: The head of an answer: of which kind it is, and a number.
HEAD: Final = struct.Struct(">BI")
#: It can begin.
READY: Final = 0
#: A slot was read; its number.
FREED: Final = 1
#: A stream was taken to its end; how many bytes follow, a pickle of what was fetched.
FETCHED: Final = 2


class Receive(NamedTuple):
    """A stream comes, in `Piece` and to its end in None; see `Fetching`.

    Attributes:
        nonce: The random word of the script that sends it.
        dest: Where the jobs' directories go, absolute.
        limits: For each job.
        is_tar: Its archive is tar's.
    """

    nonce: str
    dest: Path
    limits: Limits
    is_tar: bool

    def fetching(self) -> Fetching:
        """What takes it."""
        reader = TarReader() if self.is_tar else PlainReader()
        return Fetching(self.nonce, self.dest, self.limits, reader)


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
            fetched = pickle.dumps(_receive(request, memory))
            _answer(FETCHED, len(fetched), fetched)
    except (EOFError, BrokenPipeError):
        pass  # whoever started this process is gone


def _receive(request: Receive, memory: mmap.mmap) -> Fetched:
    fetching = request.fetching()
    try:
        while isinstance(piece := _told(), Piece):
            at = piece.slot * SLOT
            fetching.feed(memory[at : at + piece.size])
            _answer(FREED, piece.slot)
    finally:
        fetched = fetching.finish()
    return fetched


def _told() -> object:
    return pickle.load(sys.stdin.buffer)  # noqa: S301 - from whoever started this process


def _answer(kind: int, number: int = 0, rest: bytes = b"") -> None:
    sys.stdout.buffer.write(HEAD.pack(kind, number) + rest)
    sys.stdout.buffer.flush()
