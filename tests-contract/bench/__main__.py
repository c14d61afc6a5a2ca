"""`python -m bench NAME`: run a benchmark and print its table.

python -m bench ssh                       files over SSH, beside tar and sftp
python -m bench gigabit                   the same over a network of 1 Gbit/s
python -m bench slurm                     a cluster's work, beside Slurm's own commands
python -m bench dirac                     DIRAC's pilots, beside DIRAC's own SSH element; where DIRAC is installed
python -m bench ssh --rounds 5 --write    also write the table and the plot into docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio

from . import _dirac, _network, _slurm, _ssh
from ._measure import Row, chart, table

_PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
_RESULTS = Path(__file__).parents[2] / "results"
_BENCHMARKS: dict[str, Callable[[int, Callable[[str], None]], Awaitable[Sequence[Row]]]] = {
    "dirac": _dirac.rows,
    "gigabit": _ssh.rows,
    "slurm": _slurm.rows,
    "ssh": _ssh.rows,
}


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure beside other tools.")
    parser.add_argument("name", choices=_BENCHMARKS)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side, at least")
    parser.add_argument("--write", action="store_true", help="write table and plot into the docs")
    chosen = parser.parse_args(argv)
    if chosen.name == "gigabit":
        _network.go_on_within(argv)
    rows = anyio.run(
        _BENCHMARKS[chosen.name], chosen.rounds, lambda text: print(text, file=sys.stderr)
    )
    said = table(rows)
    print(said)
    _RESULTS.mkdir(exist_ok=True)
    seconds = {row.case: row.seconds for row in rows}
    (_RESULTS / f"bench-{chosen.name}.json").write_text(json.dumps(seconds, indent=1))
    if chosen.write:
        _write(chosen.name, f"{said}\n{chart(rows)}")
    return 0


def _write(name: str, said: str) -> None:
    """Put table and plot where the page has a place for them."""
    when = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, medians"
    place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    page = _PAGE.read_text("utf-8")
    _PAGE.write_text(place.sub(lambda m: f"{m[1]}\n{said}\n({when})\n\n{m[2]}", page), "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
