"""`python -m liars.mutate`: is each test of the suite needed?

First every liar is run, with the tests of the rule that it breaks. A liar that one of them catches, and no other, is that test's witness.
Then each test that has one has its body taken out, and its witness is run again: it must no longer be caught, and that must be noticed.
A test without a witness is needed by none of the liars: others catch all that it catches, or it catches nothing.

    python -m liars.mutate -n 2             some minutes, in two processes
    python -m liars.mutate --only purge     only tests in whose name this occurs
    python -m liars.mutate --family X       only tests of rules of this letter

The exit code is 1 if a test is not needed, or its witness is still caught when it is empty.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

from ._running import Found, parallel, problems, run
from ._table import LIARS, TESTS

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run, mutate, run again and report."""
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="liars.mutate", description="Is each test needed?")
    parser.add_argument("--only", default="", help="only tests in whose name this occurs")
    parser.add_argument("--family", action="append", default=[], help="only tests of this letter")
    parser.add_argument("-n", metavar="N", help="in so many processes")
    chosen = parser.parse_args(argv[:at])
    options = [*argv[at + 1 :], *parallel(chosen.n)]
    tests = {
        name: rules
        for name, rules in TESTS.items()
        if chosen.only in name and (not chosen.family or {r[0] for r in rules} & {*chosen.family})
    }
    rules = {rule for rules in tests.values() for rule in rules}
    names = [name for name, liar in LIARS.items() if liar.rule in rules and not liar.unobserved]
    witness, catches = _witnesses(run(names, own=True, options=options))
    emptied = {liar: test for test, liar in witness.items() if test in tests}
    again = run(list(emptied), own=True, options=options, emptied=emptied)
    survived = {test: liar for liar, test in emptied.items() if _survives(liar, again[liar])}
    idle = sorted(test for test in tests if test not in witness)
    print(f"{len(tests)} tests, {len(names)} liars")
    print(
        f"{len(emptied) - len(survived)} tests are needed: emptied, their liar is not caught, and that is noticed"
    )
    for test, liar in sorted(survived.items()):
        print(f"  NOT NOTICED {test}: {liar}")
    print(f"{len(idle)} tests are not needed")
    for test in idle:
        others = ", ".join(sorted(catches[test]))
        why = f"others catch {others} too" if others else "it catches no liar"
        print(f"  {' '.join(tests[test])}: {test}: {why}")
    return 1 if survived or idle else 0


def _survives(name: str, found: Found) -> bool:
    """A liar is still caught, or nobody is told that it is not."""
    return bool(found.caught_by(LIARS[name].rule)) or not problems(name, found, everything=False)


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
