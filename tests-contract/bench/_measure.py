"""Sides that take turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio.to_thread
from attrs import field, frozen

__all__ = ["Case", "Row", "Side", "chart", "measure", "table"]

#: Of work that is done in no time a few turns say little: it has up to so many times as many of them, until all together took so long.
_MORE: Final = 10
_ENOUGH_S: Final = 10.0


@frozen
class Side:
    """One way to do the work.

    Attributes:
        name: Who does it.
        run: Does it; is what is timed.
        verify: Raises unless the work was done, and makes room for the next turn.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    verify: Callable[[], Awaitable[None]]


@frozen
class Case:
    """A piece of work, and who does it.

    Attributes:
        name: What is done.
        ours: How interCEde does it.
        others: What it is compared with.
    """

    name: str
    ours: Side
    others: Sequence[Side]


@frozen
class Row:
    """What came of a case.

    Attributes:
        case: Its name.
        seconds: By side, ours first, one number a turn.
    """

    case: str
    seconds: dict[str, list[float]] = field(factory=dict)

    @property
    def turns(self) -> int:
        """How many each side had."""
        return min(map(len, self.seconds.values()))

    def medians(self) -> dict[str, float]:
        """By side."""
        return {side: statistics.median(taken) for side, taken in self.seconds.items()}

    def ratios(self) -> dict[str, float]:
        """For each of the others, how many times its seconds ours take."""
        ours, *_ = (medians := self.medians()).values()
        return {side: ours / taken for side, taken in list(medians.items())[1:]}


async def measure(case: Case, rounds: int, tell: Callable[[str], None]) -> Row:
    """Let the sides take turns, in an order that is reversed each time.

    Each turn begins with nothing left to be written to the disk: else a side pays for what the one before it wrote.

    Args:
        case: What to measure.
        rounds: How many turns each side has, at least.
        tell: Is told of each turn.
    """
    sides = [case.ours, *case.others]
    row = Row(case.name, {side.name: [] for side in sides})
    for turn in range(rounds * _MORE):
        if turn >= rounds and sum(map(sum, row.seconds.values())) >= _ENOUGH_S:
            break
        for side in sides if turn % 2 == 0 else reversed(sides):
            await anyio.to_thread.run_sync(os.sync)
            began = time.perf_counter()
            await side.run()
            took = time.perf_counter() - began
            await side.verify()
            row.seconds[side.name].append(took)
            tell(f"{case.name}: {side.name}: {took:.2f} s")
    return row


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown: medians, how ours compares with each of the others, and of how many turns."""
    lines = [
        "| what | interCEde | beside it | ours : theirs | turns |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ours, *others = row.medians().items()
        theirs = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in others)
        ratios = ", ".join(f"{ratio:.2f}" for ratio in row.ratios().values())
        lines.append(f"| {row.case} | {ours[1]:.2f} s | {theirs} | {ratios} | {row.turns} |")
    return "".join(f"{line}\n" for line in lines)


def chart(rows: Sequence[Row]) -> str:
    """How ours compares with the first of the others, as a plot (Mermaid's xychart): bars, and a line at 1."""
    ratios = [next(iter(row.ratios().values())) for row in rows]
    names = ", ".join(f'"{row.case}"' for row in rows)
    bars = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    level = ", ".join("1" for _ in rows)
    return (
        "```mermaid\nxychart-beta\n"
        f"    x-axis [{names}]\n"
        f'    y-axis "seconds, ours : theirs" 0 --> {max(2.0, *ratios):.1f}\n'
        f"    bar [{bars}]\n"
        f"    line [{level}]\n```\n"
    )
