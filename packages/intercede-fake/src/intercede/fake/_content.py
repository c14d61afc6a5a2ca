"""The content of a pretend file: a gigabyte of zeros is kept as "a zero, so many times" (F7)."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field, frozen

__all__ = ["Content", "encoded"]

_CHUNK = 1 << 20


def encoded(text: str) -> bytes:
    """The bytes of an argument or a name, undecodable ones as Python carries them (PEP 383)."""
    return text.encode("utf-8", "surrogateescape")


@frozen
class Content:
    """Bytes that do not change.

    Attributes:
        runs: In order: a pattern, and how often it comes.
    """

    runs: tuple[tuple[bytes, int], ...] = field(default=())

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Exactly these bytes."""
        return cls(((data, 1),)) if data else cls()

    @classmethod
    def repeated(cls, pattern: bytes, size: int) -> Content:
        """`size` bytes of the pattern, again and again; the last one may be cut."""
        times, rest = divmod(size, len(pattern))
        runs = ((pattern, times), (pattern[:rest], 1))
        return cls(tuple((part, count) for part, count in runs if part and count))

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(len(pattern) * times for pattern, times in self.runs)

    def __add__(self, other: Content) -> Content:
        return Content(self.runs + other.runs)

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """All bytes in order, at most about 1 MiB at a time unless a single pattern is longer."""
        for pattern, times in self.runs:
            at_once = max(1, _CHUNK // len(pattern))
            block = pattern * min(at_once, times)
            for _ in range(times // at_once):
                yield block
            rest = times % at_once
            if rest:
                yield pattern * rest

    def tail(self, length: int) -> bytes:
        """The last bytes, at most `length` of them."""
        parts: list[bytes] = []
        missing = length
        for pattern, times in reversed(self.runs):
            if missing <= 0:
                break
            part = pattern * min(times, -(-missing // len(pattern)))
            parts.append(part[-missing:])
            missing -= len(parts[-1])
        return b"".join(reversed(parts))
