"""Write the tables of options in docs/configuration.md anew, from the plugins' configuration classes.

python docs/options.py           writes them
python docs/options.py --check   writes nothing; ends with 1 if they are stale
"""

import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from intercede.core import registry

__all__ = ["main", "rendered"]

PAGE = Path(__file__).with_name("configuration.md")
_TABLE = re.compile(r"(<!-- options: (\w+)\.(\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str) -> str:
    """The page with every table as the installed plugins have it."""
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found[2], found[3])}{found[4]}", page)


def _table(group: str, name: str) -> str:
    options = registry.options(registry.load(group, name).config)
    if not options:
        return "\nIt has no options.\n\n"
    rows = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| {' | '.join(map(_cell, _row(option)))} |" for option in options]
    return "\n" + "\n".join(rows) + "\n\n"


def _row(option: registry.Option) -> Sequence[str]:
    unit = f" ({option.unit})" if option.unit else ""
    default = "required" if option.default is None else f"`{option.default}`"
    return f"`{option.name}`", f"`{option.type}`", default, html.escape(f"{option.help}{unit}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
