"""`intercede-contract RESOURCE.toml [pytest options]`: the suite, with no code at all.

The tests are collected from a generated module of ten lines, the same that a person would write, in a directory of its own: so nothing of
the project in whose directory the command happens to be called takes part, neither its conftest.py nor its configuration.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from intercede.core import ConfigurationError, InterCEdeError

__all__ = ["main"]

_USAGE = "usage: intercede-contract RESOURCE.toml [pytest options]"

_MODULE = '''\
"""The contract suite, for one resource."""

from intercede.contract import {contract}, {resource}


class TestContract({contract}):
    resource = {resource}.from_toml({path!r})
'''

#: What a description may be of, by its key `contract`: the rules, and the class that reads it.
_CONTRACTS: Final = {
    "backend": ("BackendContract", "Resource"),
    "transport": ("TransportContract", "TransportResource"),
    "scheduler": ("SchedulerContract", "SchedulerResource"),
}

_SETTINGS = "[pytest]\n"


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
    try:
        module = _module(description)
    except InterCEdeError as error:
        print(f"intercede-contract: {error}", file=sys.stderr)
        return 4
    return _run(module, arguments[1:])


def _module(description: Path) -> str:
    """The test module that a person would write for this description.

    Raises:
        ConfigurationError: The description makes no sense.
    """
    import intercede.contract

    try:
        kind = tomllib.loads(description.read_text("utf-8")).get("contract", "backend")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{description} cannot be read: {error}", operation="contract"
        ) from None
    if kind not in _CONTRACTS:
        raise ConfigurationError(
            "no such contract", path="contract", value=kind, candidates=list(_CONTRACTS)
        )
    contract, resource = _CONTRACTS[kind]
    getattr(intercede.contract, resource).from_toml(description)
    return _MODULE.format(contract=contract, resource=resource, path=str(description))


def _run(text: str, options: Sequence[str]) -> int:
    import pytest

    from .plugin import NAME

    # What ends a run from outside ends it as Ctrl-C does: with its jobs.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="intercede-contract-") as folder:
        module = Path(folder, "test_contract.py")
        module.write_text(text, "utf-8")
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
                    # What the suite does not use, where it is there.
                    *("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:anyio"),
                    "-rN",
                    # This module has imported the package already. The assertions are in others.
                    "-W",
                    "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
                    str(module),
                    *options,
                ]
            )
        )
