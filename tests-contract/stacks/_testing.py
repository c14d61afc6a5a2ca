"""Holding what comes in by a stack to the contract suite, one run of pytest for each stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from attrs import frozen

from ._engine import Engine
from ._errors import StackError
from ._inside import PLACE, installed
from ._life import Running
from ._manifest import Stack

__all__ = ["VERDICTS", "Found", "checked", "checks", "held", "held_inside", "table"]

#: In the order of the summary's columns.
VERDICTS: Final = ("passed", "failed", "not offered", "not observed", "skipped")
_HERE: Final = Path(__file__).resolve().parents[1]
#: Where a run in a container has its files, and what they are called.
_INSIDE: Final = "/run/suite"
_TESTS: Final = "test_stack.py"
_CONFIG: Final = "pytest.ini"
_REPORT: Final = "report.json"
_MODULE: Final = '''\
"""The contract suite on a stack."""

from intercede.contract import BackendContract, TransportContract
from stacks import _suite
'''
_CLASSES: Final = {
    "transport": """

class TestTransport(TransportContract):
    resource = _suite.transport({name!r})
""",
    "backend": """

class TestBackend(BackendContract):
    resource = _suite.backend({name!r})
""",
}
_SETTINGS: Final = """\
[pytest]
faulthandler_timeout = 600
faulthandler_exit_on_timeout = true
"""
#: What only one scheduler has is tested by the folder of its name, over and above the suite.
_CHECKS: Final = Path(__file__).with_name("tests")
_CHECK_SETTINGS: Final = f"""\
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = auto
consider_namespace_packages = true
faulthandler_timeout = 900
faulthandler_exit_on_timeout = true
pythonpath = {_HERE}
"""
Say = Callable[[str], None]


@frozen
class Found:
    """What the suite found on one stack.

    Attributes:
        stack: Its id.
        tests: How many tests came to each verdict.
        code: pytest's exit code.
        seconds: How long it took.
    """

    stack: str
    tests: Counter[str]
    code: int
    seconds: float


def held(stack: Stack, options: Sequence[str]) -> Found:
    """Run the suite on a stack that is up.

    Args:
        stack: Which.
        options: Options of pytest.

    Raises:
        StackError: pytest ended without a report.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="intercede-stacks-") as place:
        folder = Path(place)
        _write(folder, stack, "_suite", _HERE)
        command = _pytest(sys.executable, str(folder), options)
        code = subprocess.run(command, check=False).returncode
        return _found(stack, folder, code, begun)


def held_inside(engine: Engine, there: Running, options: Sequence[str], say: Say) -> Found:
    """Run the suite in the container of a stack that is up, as its account.

    Args:
        engine: Who runs it.
        there: Which.
        options: Options of pytest.
        say: Told of what takes long.

    Raises:
        StackError: It cannot be brought there, or pytest ended without a report.
    """
    begun = time.monotonic()
    stack, name = there.stack, there.container
    installed(engine, there, say)
    with tempfile.TemporaryDirectory(prefix="intercede-stacks-") as place:
        folder = Path(place, "run")
        folder.mkdir()
        _write(folder, stack, "_within", Path(PLACE))
        engine.run("exec", name, "rm", "-rf", _INSIDE)
        engine.run("cp", str(folder), f"{name}:{_INSIDE}")
        engine.run("exec", name, "chown", "-R", stack.account, _INSIDE)
        user = ("exec", "--user", stack.account, "--workdir", _INSIDE)
        command = _pytest(f"{PLACE}/venv/bin/python", _INSIDE, options)
        code = subprocess.run([*engine.command, *user, name, *command], check=False).returncode
        if engine.tries("exec", name, "test", "-e", f"{_INSIDE}/{_REPORT}"):
            engine.run("cp", f"{name}:{_INSIDE}/{_REPORT}", str(folder))
        return _found(stack, folder, code, begun)


def checks(stack: Stack) -> Path | None:
    """The tests of what only the stack's scheduler has; None: there are none, or the suite runs inside."""
    place = _CHECKS / str(stack.scheduler.get("type"))
    return place if place.is_dir() and not stack.inside else None


def checked(stack: Stack, options: Sequence[str]) -> Found:
    """Run the tests of its scheduler on a stack that is up, one at a time: they kill its daemons.

    Args:
        stack: One that has some.
        options: Options of pytest.

    Raises:
        StackError: pytest ended without a report.
    """
    begun, place = time.monotonic(), checks(stack)
    assert place is not None
    with tempfile.TemporaryDirectory(prefix="intercede-stacks-") as made:
        config, report = Path(made, _CONFIG), Path(made, "report.xml")
        config.write_text(_CHECK_SETTINGS)
        command = [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"),
            *(f"--config-file={config}", f"--rootdir={_HERE}", f"--basetemp={made}/basetemp"),
            *("--import-mode=importlib", f"--junit-xml={report}", str(place)),
            *options,
        ]
        env = {**os.environ, "INTERCEDE_STACK": stack.id}
        code = subprocess.run(command, env=env, check=False).returncode
        name = f"{stack.id}, {place.name} itself"
        if not report.exists():
            raise StackError(f"{name}: pytest ended with exit code {code} and no report")
        cases = ElementTree.parse(report).iter("testcase")  # noqa: S314 - our own
        tests = Counter(_verdict(case) for case in cases)
        return Found(name, tests, code, time.monotonic() - begun)


def _verdict(case: ElementTree.Element) -> str:
    tags = {child.tag for child in case}
    if tags & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in tags else "passed"


def _write(folder: Path, stack: Stack, module: str, path: Path) -> None:
    """Write what pytest is to run and how, with the stacks' modules beneath the path."""
    classes = [_CLASSES[contract].format(name=stack.id) for contract in stack.contracts]
    text = "".join([_MODULE, *classes]).replace("_suite", module)
    (folder / _TESTS).write_text(text)
    (folder / _CONFIG).write_text(_SETTINGS + f"pythonpath = {path}\n")


def _pytest(python: str, folder: str, options: Sequence[str]) -> list[str]:
    return [
        *(python, "-m", "pytest"),
        *("-p", "intercede.contract.plugin", "-p", "no:cacheprovider"),
        *("-p", "no:asyncio", "-p", "no:anyio"),
        f"--config-file={folder}/{_CONFIG}",
        f"--rootdir={folder}",
        f"--basetemp={folder}/basetemp",
        "--import-mode=importlib",
        f"--report-json={folder}/{_REPORT}",
        "-q",
        f"{folder}/{_TESTS}",
        *options,
    ]


def _found(stack: Stack, folder: Path, code: int, begun: float) -> Found:
    report = folder / _REPORT
    if not report.exists():
        raise StackError(f"{stack.id}: pytest ended with exit code {code} and no report")
    resources = json.loads(report.read_text())["resources"].values()
    tests = Counter(test["verdict"] for one in resources for test in one["tests"])
    return Found(stack.id, tests, code, time.monotonic() - begun)


def table(all_found: Iterable[Found]) -> list[str]:
    """A line for each stack."""
    rows = [
        (
            one.stack,
            *(str(one.tests[verdict]) for verdict in VERDICTS),
            f"{one.seconds:.0f} s" if one.tests else "did not run",
        )
        for one in all_found
    ]
    rows.insert(0, ("stack", *VERDICTS, "took"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
