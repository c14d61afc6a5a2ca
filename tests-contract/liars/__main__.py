"""`python -m liars`: hold the suite to its liars.

    python -m liars -n 2            each liar, with the tests of its rule's family, and the honest ones with all; in two processes
    python -m liars --all           each with all tests: 5 to 10 s a liar about backends
    python -m liars NAME...         these
    python -m liars --family F      those that break a rule of this letter
    python -m liars --part 2/10     the second tenth of them

Further options go to pytest, after `--`: `-- --maxfail=1`. The exit code is 1 if a liar was not caught by an assertion of the rule that it
breaks, or if other rules failed than it declares. A liar who would tell the truth on this machine (one about csh, where there is none) is
not observed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ._running import parallel, problems, run
from ._table import HONESTS, LIARS


def main(argv: list[str]) -> int:
    """Run and judge."""
    argv, _, options = _split(argv)
    parser = argparse.ArgumentParser(prog="liars", description="Hold the suite to its liars.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which liars; none: all")
    parser.add_argument("--all", action="store_true", help="all tests, not only the family's")
    parser.add_argument("--family", action="append", default=[], help="liars about this letter")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("-n", metavar="N", help="in so many processes")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="the K-th of N parts")
    chosen = parser.parse_args(argv)
    names = chosen.names or [
        name for name, liar in LIARS.items() if not chosen.family or liar.rule[0] in chosen.family
    ]
    if not chosen.names and not chosen.family:
        names = [*HONESTS, *names]
    part, _, parts = chosen.part.partition("/")
    names = names[int(part) - 1 :: int(parts)]
    unknown = sorted(set(names) - {*HONESTS, *LIARS})
    if unknown:
        parser.error(f"no such liar: {', '.join(unknown)}; there are: {', '.join(LIARS)}")
    for name in [name for name in names if name in LIARS and LIARS[name].unobserved]:
        names.remove(name)
        print(f"{LIARS[name].rule:<3} {name:<26} not observed {LIARS[name].unobserved}")
    found = run(names, everything=chosen.all, options=[*options, *parallel(chosen.n)])
    wrong = {name: problems(name, found[name], everything=chosen.all) for name in names}
    for name in names:
        rule = LIARS[name].rule if name in LIARS else "-"
        failed, passed = len(found[name].failed), len(found[name].passed)
        verdict = "as declared" if not wrong[name] else "WRONG"
        print(
            f"{rule:<3} {name:<26} {verdict:<12} {failed:3} tests failed,"
            f" {passed:3} passed, {found[name].seconds:5.1f} s: {' '.join(sorted(found[name].rules))}"
        )
        for text in wrong[name]:
            print(f"      {text}")
    if chosen.json:
        table = {
            name: {"failed": found[name].failed, "passed": sorted(found[name].passed)}
            for name in names
        }
        chosen.json.write_text(json.dumps(table, indent=1))
    return 1 if any(wrong.values()) else 0


def _split(argv: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in argv:
        return argv, "", []
    at = argv.index("--")
    return argv[:at], "--", argv[at + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
