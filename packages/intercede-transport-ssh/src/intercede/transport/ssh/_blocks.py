"""Which parts of a file are still to be copied. Pure.

Parts travel side by side and arrive in any order, so that after a lost connection a length says nothing: what counts is which of them
were confirmed.
"""

from __future__ import annotations

from attrs import frozen

__all__ = ["Block", "Blocks"]


@frozen
class Block:
    """A part of a file."""

    offset: int
    size: int


class Blocks:
    """The parts of one file, each taken, and then confirmed or given back.

    Args:
        size: Of the file.
        block: Of a part.
    """

    def __init__(self, size: int, block: int) -> None:
        self._size = size
        self._block = block
        self._next = 0
        self._again: list[Block] = []
        self._taken: set[Block] = set()

    @property
    def complete(self) -> bool:
        """All of them are confirmed."""
        return self._next >= self._size and not self._again and not self._taken

    def take(self) -> Block | None:
        """A part that nobody is at; None if there is none."""
        if self._again:
            block = self._again.pop()
        elif self._next < self._size:
            block = Block(self._next, min(self._block, self._size - self._next))
            self._next += block.size
        else:
            return None
        self._taken.add(block)
        return block

    def confirm(self, block: Block) -> None:
        """It is there."""
        self._taken.remove(block)

    def give_back(self) -> None:
        """The connection was lost: what was taken and not confirmed is to be copied again."""
        self._again.extend(sorted(self._taken, key=lambda block: -block.offset))
        self._taken.clear()
