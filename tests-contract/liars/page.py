"""Write the tables of docs/contract-rules.md anew, from the suite and the liars.

python -m liars.page           writes them
python -m liars.page --check   writes nothing; ends with 1 if they are stale
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from intercede.contract import RULES

from ._table import LIARS, TESTS

__all__ = ["main", "rendered"]

PAGE = Path(__file__).parents[2] / "docs/contract-rules.md"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str) -> str:
    """The page with fresh tables."""
    tables = {"rules": _rules, "liars": _liars}
    return _TABLE.sub(lambda found: f"{found[1]}\n{tables[found[2]]()}\n{found[3]}", page)


def _rules() -> str:
    rows = []
    for rule, meaning in RULES.items():
        tests = [_sentence(name) for name, rules in TESTS.items() if rule in rules]
        liars = [f"`{name}`" for name, liar in LIARS.items() if liar.rule == rule]
        if tests or liars:
            rows.append((rule, meaning, "<br>".join(tests), "<br>".join(liars)))
    return _table(("rule", "what it means", "tests", "liars"), rows)


def _liars() -> str:
    rows = [
        (f"`{name}`", liar.rule, liar.deed, " ".join(sorted(liar.neighbours)))
        for name, liar in LIARS.items()
    ]
    return _table(("liar", "breaks", "what it does", "and so also"), sorted(rows, key=_by_rule))


def _by_rule(row: Sequence[str]) -> int:
    return list(RULES).index(row[1])


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return "<br>".join(html.escape(part, quote=False) for part in text.split("<br>")).replace(
        "|", "\\|"
    )


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it; return the exit code."""
    page = PAGE.read_text(encoding="utf-8")
    fresh = rendered(page)
    if arguments == ["--check"]:
        return int(fresh != page)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
