"""`intercede-contract RESOURCE.toml [pytest options]`: the suite, with no code at all.

The tests are collected from a generated module of ten lines, the same that a person would write, in a directory of its own: so nothing of
the project in whose directory the command happens to be called takes part, neither its conftest.py nor its configuration.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from intercede.core import InterCEdeError

__all__ = ["main"]

_USAGE = "usage: intercede-contract RESOURCE.toml [pytest options]"

_MODULE = '''\
"""The contract suite, for one resource."""

from intercede.contract import BackendContract, Resource


class TestContract(BackendContract):
    resource = Resource.from_toml({path!r})
'''

_SETTINGS = """\
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = strict
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite.

    Args:
        argv: The description of the resource, then options of pytest.

    Returns:
        pytest's exit code; 4, its code for wrong usage, if the description cannot be read.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0].startswith("-"):
        print(_USAGE, file=sys.stdout if {"-h", "--help"} & set(arguments) else sys.stderr)
        return 0 if {"-h", "--help"} & set(arguments) else 4
    description = Path(arguments[0]).absolute()
    from ._resource import Resource

    try:
        Resource.from_toml(description)
    except InterCEdeError as error:
        print(f"intercede-contract: {error}", file=sys.stderr)
        return 4
    return _run(description, arguments[1:])


def _run(description: Path, options: Sequence[str]) -> int:
    import pytest

    from .plugin import NAME

    with tempfile.TemporaryDirectory(prefix="intercede-contract-") as folder:
        module = Path(folder, "test_contract.py")
        module.write_text(_MODULE.format(path=str(description)), "utf-8")
        settings = Path(folder, "pytest.ini")
        settings.write_text(_SETTINGS, "utf-8")
        return int(
            pytest.main(
                [
                    f"--config-file={settings}",
                    f"--rootdir={folder}",
                    "--import-mode=importlib",
                    "-p",
                    NAME,
                    "-p",
                    "no:cacheprovider",
                    "-rN",
                    # This module has imported the package already. The assertions are in others.
                    "-W",
                    "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
                    str(module),
                    *options,
                ]
            )
        )
