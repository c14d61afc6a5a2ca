"""`python -m stacks`: real daemons in containers, for the contract suite and for people.

    python -m stacks up ID...        start stacks and wait until they are ready
    python -m stacks down ID...      remove them, with their keys; images stay
    python -m stacks status          which there are, and which are up
    python -m stacks logs ID...      what their containers have said
    python -m stacks test ID...      hold what comes in by each stack to the contract suite; starts what is not up
    python -m stacks check ID...     break its daemons and look at every state that only its scheduler has, one test at a time; likewise

`--all` instead of ids means all stacks, `-n 2` two processes for the suite on one stack; after `--` come options of pytest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ._engine import Engine, find_engine
from ._errors import StackError
from ._life import bring_down, bring_up, left_over, logs, running
from ._manifest import Stack, chosen, stacks
from ._state import locked
from ._testing import Found, checked, checks, held, held_inside, table


def main(argv: Sequence[str]) -> int:
    """Do what is asked; return the exit code."""
    argv, options = _split(argv)
    parser = argparse.ArgumentParser(
        prog="stacks", description="Real daemons in containers.", allow_abbrev=False
    )
    parser.add_argument("do", choices=["up", "down", "status", "logs", "test", "check"])
    parser.add_argument("ids", nargs="*", metavar="ID", help="which stacks")
    parser.add_argument("--all", action="store_true", help="all stacks")
    parser.add_argument("-n", metavar="N", help="test: this many processes, or auto")
    asked = parser.parse_intermixed_args(argv)
    try:
        if asked.do == "status":
            return _status()
        engine = find_engine()
        if asked.do == "down" and asked.all:
            return _down(engine, left_over(engine))
        some = chosen(asked.ids, everything=asked.all)
        if asked.do == "down":
            return _down(engine, [stack.id for stack in some])
        if asked.do == "logs":
            return _logs(engine, some)
        if asked.do == "up":
            return _up(engine, some)
        if asked.do == "check":
            return _check(engine, some, options)
        workers = ["-n", asked.n] if asked.n else []
        return _test(engine, some, [*workers, *options])
    except StackError as error:
        print(f"stacks: {error}", file=sys.stderr)
        return 1


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is for us, and what is for pytest."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _up(engine: Engine, some: Sequence[Stack]) -> int:
    for stack in some:
        begun = time.monotonic()
        with locked():
            there = bring_up(engine, stack, _say)
        took = time.monotonic() - begun
        print(f"{stack.id}: up after {took:.1f} s, {there.announced}", flush=True)
        print(f"  ssh -F {there.folder}/ssh_config {stack.id}", flush=True)
    return 0


def _down(engine: Engine, ids: Sequence[str]) -> int:
    for name in ids:
        with locked():
            there = bring_down(engine, name)
        print(f"{name}: {'down' if there else 'was not up'}", flush=True)
    return 0


def _status() -> int:
    width = max(len(name) for name in stacks())
    for stack in stacks().values():
        try:
            there = running(stack)
        except StackError:
            where, announced = "-", f"({stack.version})"
        else:
            where, announced = f"127.0.0.1:{there.port}", there.announced.partition(" ")[0]
        print(f"{stack.id:<{width}}  {where:<15}  {announced:<22}  {stack.summary}")
    return 0


def _logs(engine: Engine, some: Sequence[Stack]) -> int:
    for stack in some:
        print("\n".join(logs(engine, stack)) or f"{stack.id} has no containers")
    return 0


def _test(engine: Engine, some: Sequence[Stack], options: Sequence[str]) -> int:
    def suite(stack: Stack) -> Found:
        if stack.inside:
            return held_inside(engine, running(stack), options, _say)
        return held(stack, options)

    return _each(engine, some, suite)


def _check(engine: Engine, some: Sequence[Stack], options: Sequence[str]) -> int:
    with_checks = [stack for stack in some if checks(stack)]
    if not with_checks:
        raise StackError("none of these stacks has tests of its own scheduler")
    return _each(engine, with_checks, lambda stack: checked(stack, options))


def _each(engine: Engine, some: Sequence[Stack], find: Callable[[Stack], Found]) -> int:
    all_found = []
    for stack in some:
        try:
            _up(engine, [stack])
            all_found.append(find(stack))
        except StackError as error:
            print(f"stacks: {error}", file=sys.stderr)
            all_found.append(Found(stack.id, Counter(), 1, 0.0))
    print("", *table(all_found), sep="\n")
    return 1 if any(found.code for found in all_found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
