"""Holding what comes in by a stack to the contract suite, one run of pytest for each stack."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from ._errors import StackError
from ._manifest import Stack

__all__ = ["VERDICTS", "Found", "held", "table"]

#: In the order of the summary's columns.
VERDICTS: Final = ("passed", "failed", "not offered", "not observed", "skipped")
_HERE: Final = Path(__file__).resolve().parents[1]
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
        module = folder / "test_stack.py"
        classes = [_CLASSES[contract].format(name=stack.id) for contract in stack.contracts]
        module.write_text("".join([_MODULE, *classes]))
        (folder / "pytest.ini").write_text(_SETTINGS + f"pythonpath = {_HERE}\n")
        report = folder / "report.json"
        code = subprocess.run(
            [
                *(sys.executable, "-m", "pytest"),
                *("-p", "intercede.contract.plugin", "-p", "no:cacheprovider"),
                *("-p", "no:asyncio", "-p", "no:anyio"),
                f"--config-file={folder / 'pytest.ini'}",
                f"--rootdir={folder}",
                f"--basetemp={folder / 'tmp'}",
                "--import-mode=importlib",
                f"--report-json={report}",
                "-q",
                str(module),
                *options,
            ],
            check=False,
        ).returncode
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
