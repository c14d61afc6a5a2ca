"""`python -m liars.mutate`: is each test of the suite needed?

First every liar is run, with the tests of its rule's family. A liar that one test of its rule catches, and no other, is that test's
witness. Then each such test has its body taken out, one at a time, and its witness is run again: it must no longer be caught, and that
must be noticed. A test without a witness is listed: either others catch all that it catches, or no liar needs it.

    python -m liars.mutate                  about five minutes on two cores, with `-- -n 2`
    python -m liars.mutate --only purge     only tests in whose name this occurs
    python -m liars.mutate --family X       only tests of rules of this letter

The exit code is 1 if a witness is still caught when its test is empty.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

from ._running import Found, problems, run
from ._table import LIARS, TESTS

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run, mutate, run again and report."""
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="liars.mutate", description="Is each test needed?")
    parser.add_argument("--only", default="", help="only tests in whose name this occurs")
    parser.add_argument("--family", action="append", default=[], help="only tests of this letter")
    chosen, options = parser.parse_args(argv[:at]), argv[at + 1 :]
    tests = {
        name: rules
        for name, rules in TESTS.items()
        if chosen.only in name and (not chosen.family or {r[0] for r in rules} & {*chosen.family})
    }
    families = {rule[0] for rules in tests.values() for rule in rules}
    names = [name for name, liar in LIARS.items() if liar.rule[0] in families]
    found = run(names, everything=False, options=options)
    witness, catches = _witnesses(found)
    emptied = {liar: test for test, liar in witness.items() if test in tests}
    again = run(list(emptied), everything=False, options=options, emptied=emptied)
    survived = {
        test: liar
        for liar, test in emptied.items()
        if again[liar].caught_by(LIARS[liar].rule)
        or not problems(liar, again[liar], everything=False)
    }
    missed = {
        test: liar for test, liar in survived.items() if again[liar].caught_by(LIARS[liar].rule)
    }
    shared = sorted(test for test in tests if test in catches and test not in witness)
    idle = sorted(test for test in tests if test not in catches)
    print(f"{len(tests)} tests, {len(names)} liars")
    print(
        f"{len(emptied) - len(survived)} tests are needed: emptied, their liar is not caught, and that is noticed"
    )
    for test in sorted(survived):
        print(f"  NOT NOTICED {test}: {survived[test]}" + (" is still caught" * (test in missed)))
    print(f"{len(shared)} tests catch liars, and never one alone:")
    for test in shared:
        print(f"  {test}: {', '.join(sorted(catches[test]))}")
    print(f"{len(idle)} tests catch no liar of their own rules:")
    for test in idle:
        print(f"  {' '.join(tests[test])}: {test}")
    return 1 if survived else 0


def _witnesses(found: dict[str, Found]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """By test, a liar that it alone catches; and all liars that it catches."""
    witness: dict[str, str] = {}
    catches: dict[str, set[str]] = defaultdict(set)
    for name, seen in found.items():
        catching = seen.caught_by(LIARS[name].rule)
        for test in catching:
            catches[test].add(name)
        if len(catching) == 1:
            witness.setdefault(catching.pop(), name)
    return witness, catches


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
