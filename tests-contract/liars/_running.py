"""Running the suite on liars, and judging what it found."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import define, field

from ._honest import ROOT
from ._table import HONESTS, LIARS
from ._watching import (
    ASSERTION,
    FAILURE_PROPERTY,
    LIAR_PROPERTY,
    RULE_PROPERTY,
    TEST_PROPERTY,
)

__all__ = ["Found", "parallel", "problems", "run"]

_MODULE: Final = '''\
"""The suite on liars."""

from liars._table import contract_of, told_of

for name, (families, emptied) in {choice!r}.items():
    members = {{"resource": told_of(name), "families": families, "emptied": emptied}}
    globals()[f"Test{{name}}"] = type(f"Test{{name}}", (contract_of(name),), members)
'''
_SETTINGS: Final = "[pytest]\n"
#: Where this package is imported from.
HERE: Final = Path(__file__).resolve().parents[1]
#: As an installer would record it, so that the registry finds the liars.
_ENTRY_POINTS: Final = """\
[intercede.backends]
liar = liars:backend
[intercede.transports]
liar = liars:transport
[intercede.schedulers]
liar = liars:scheduler
"""
_METADATA: Final = "Metadata-Version: 2.1\nName: liars\nVersion: 0\n"


@define
class Found:
    """What the suite found at one liar.

    Attributes:
        passed: The tests that passed.
        failed: The tests that failed, how, and what rules they test.
        seconds: How long all of it took.
    """

    passed: set[str] = field(factory=set)
    failed: dict[str, tuple[str, tuple[str, ...]]] = field(factory=dict)
    seconds: float = 0.0

    @property
    def rules(self) -> set[str]:
        """The rules that failed."""
        return {rule for _, rules in self.failed.values() for rule in rules}

    def caught_by(self, rule: str) -> set[str]:
        """The tests of this rule whose own assertion failed."""
        return {
            test
            for test, (kind, rules) in self.failed.items()
            if kind == ASSERTION and rule in rules
        }


class Gatherer:
    """Gathers the reports of all processes."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = defaultdict(Found)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test came to."""
        properties: dict[str, list[str]] = defaultdict(list)
        for key, value in report.user_properties:
            properties[key].append(str(value))
        found = self.found[properties[LIAR_PROPERTY][0].removeprefix("Test")]
        found.seconds += report.duration
        test = properties[TEST_PROPERTY][0]
        if report.failed:
            kind = properties[FAILURE_PROPERTY][0]
            if found.failed.get(test, ("",))[0] != ASSERTION:
                found.failed[test] = (kind, tuple(properties[RULE_PROPERTY]))
        elif report.passed and report.when == "call":
            found.passed.add(test)


def run(
    names: Sequence[str],
    *,
    everything: bool = False,
    own: bool = False,
    options: Sequence[str] = (),
    emptied: Mapping[str, str] | None = None,
) -> dict[str, Found]:
    """Run the suite on these liars, in this process.

    Args:
        names: Which; those of `HONESTS` keep all rules, and are always held to all of them.
        everything: The whole suite, not only the tests of the rule's family.
        own: Only the tests of the very rule.
        options: More options of pytest.
        emptied: For a liar, the test whose body is taken out.
    """
    if not names:
        return {}

    def tried(name: str) -> tuple[str, ...] | None:
        if everything or name in HONESTS:
            return None
        return (LIARS[name].rule,) if own else LIARS[name].tried

    choice = {name: (tried(name), (emptied or {}).get(name)) for name in names}
    gatherer = Gatherer()
    before = os.environ.get("PYTHONPATH", "")
    with tempfile.TemporaryDirectory(
        prefix="intercede-liars-", ignore_cleanup_errors=True
    ) as folder:
        place = Path(folder)
        (place / "liars-0.dist-info").mkdir()
        (place / "liars-0.dist-info/entry_points.txt").write_text(_ENTRY_POINTS)
        (place / "liars-0.dist-info/METADATA").write_text(_METADATA)
        # Of a name of its own: pytest would take a module of the same name from an earlier run.
        module = place / f"test_{place.name.replace('-', '_')}.py"
        module.write_text(_MODULE.format(choice=choice))
        (place / "pytest.ini").write_text(_SETTINGS)
        os.environ[ROOT] = str(place / "sandboxes")
        # For other processes, which some liars are asked from.
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(HERE), *filter(None, [before])])
        sys.path.insert(0, folder)
        arguments: list[Any] = [
            f"--config-file={place / 'pytest.ini'}",
            f"--rootdir={folder}",
            "--import-mode=importlib",
            "--tb=short",
            "-q",
            *("-p", "intercede.contract.plugin", "-p", "liars._watching"),
            *("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:asyncio", "-p", "no:anyio"),
            f"--basetemp={place / 'tmp'}",
            str(module),
            *options,
        ]
        with (place / "said").open("w") as said, contextlib.redirect_stdout(said):
            code = pytest.main(arguments, plugins=[gatherer])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise RuntimeError(f"pytest ended with {code}:\n{(place / 'said').read_text()}")
        sys.path.remove(folder)
        os.environ["PYTHONPATH"] = before
    return {name: gatherer.found[name] for name in names}


def parallel(processes: str | None) -> list[str]:
    """The options that make pytest use so many processes; without a number, this one."""
    return [] if processes is None else ["-n", processes]


def problems(name: str, found: Found, *, everything: bool) -> list[str]:
    """What is not as it should be: a liar that is not caught by its own rule's assertion, or breaks more or less than it declares."""
    if name in HONESTS:
        return [f"{test}: {kind}" for test, (kind, _) in sorted(found.failed.items())]
    liar = LIARS[name]
    seen, wanted = found.rules, set(liar.breaks)
    if not everything:
        seen = {rule for rule in seen if rule[0] == liar.rule[0]}
        wanted = {rule for rule in wanted if rule[0] == liar.rule[0]}
    told = []
    own = {test: kind for test, (kind, rules) in found.failed.items() if liar.rule in rules}
    if not found.caught_by(liar.rule):
        told.append(f"no assertion of {liar.rule} caught it: {own or 'all of its tests passed'}")
    for rule in sorted(seen - wanted):
        tests = {test: kind for test, (kind, rules) in found.failed.items() if rule in rules}
        told.append(f"{rule} failed and is no declared neighbour: {json.dumps(tests)}")
    told += [f"{rule} is declared, and did not fail" for rule in sorted(wanted - seen)]
    return told
