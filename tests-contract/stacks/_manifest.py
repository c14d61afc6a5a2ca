"""What stacks there are: stacks.toml, read.

A table of the manifest is a stack on one or more Debian suites; each suite makes a stack with an id of its own, `<table>-<suite>`, because
the suite is what decides the version of the daemons inside. `like` names another table, whose keys hold where this one says nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import cattrs
from attrs import field, frozen

from ._errors import StackError

__all__ = ["MANIFEST", "Stack", "chosen", "stacks"]

MANIFEST: Final = Path(__file__).with_name("stacks.toml")


@frozen(kw_only=True)
class Stack:
    """One stack: an image, how to run it, when it is ready, and what the suite is told of it.

    Attributes:
        id: Its name on the command line, in the names of its containers, and in the tables.
        summary: What it is good for.
        suite: The Debian suite that its image is made of.
        version: How the version that the daemon announces begins.
        recipe: The folder beneath `recipes/` with its Containerfile.
        way: How a client comes in: one of `stacks._ways.WAYS`.
        options: More options of `run`.
        ready: A command in the container that succeeds when the daemons are up; empty: the way in is enough.
        announces: A command in the container that prints which version its daemon is; empty: who answers at the way in says so.
        seconds: How long a trivial command or job takes, as seen by the suite.
        contracts: What the suite holds it to.
        inside: Whether the suite runs in its container, with the local transport; for backends only.
        scheduler: The scheduler's part of the backend's configuration; empty: the way in is a backend itself.
        narrow: The same where one job runs at a time; empty: there is no such thing.
        account: Whose login the suite uses for everything.
        logins: Further accounts, on which it tries rule X1.
        sshd: Lines of sshd_config, which come first and so win over the recipe's.
        sftp: Whether sshd offers SFTP.
        prepare: A script for the container, run as root before the daemons start.
        jumps: How many jump hosts stand before it; it listens where only the last of them can reach it.
    """

    id: str
    summary: str
    suite: str
    version: str
    recipe: str = "ssh"
    way: str = "ssh"
    options: tuple[str, ...] = ()
    ready: str = ""
    announces: str = ""
    seconds: float = 0.5
    contracts: tuple[str, ...] = ("transport", "backend")
    inside: bool = False
    scheduler: Mapping[str, Any] = field(factory=lambda: {"type": "direct", "slots": 100})
    narrow: Mapping[str, Any] = field(factory=lambda: {"type": "direct", "slots": 1})
    account: str = "bash"
    logins: tuple[str, ...] = ()
    sshd: tuple[str, ...] = ()
    sftp: bool = True
    prepare: str = ""
    jumps: int = 0


@cache
def stacks() -> Mapping[str, Stack]:
    """All stacks, by id, in the order of the manifest."""
    return read(MANIFEST.read_text("utf-8"))


def read(text: str) -> Mapping[str, Stack]:
    """The stacks of a manifest.

    Raises:
        StackError: A key that is not known, or a value of the wrong type.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, _text)
    found = {}
    tables = tomllib.loads(text)
    for name, own in tables.items():
        table = {**_shared(tables, name), **own}
        table.pop("like", None)
        versions = table.pop("versions", {})
        for suite, version in versions.items():
            values = {"id": f"{name}-{suite}", "suite": suite, "version": version, **table}
            values.update(table.get(suite, {}))
            try:
                stack = converter.structure(_without(values, versions), Stack)
            except cattrs.BaseValidationError as error:
                reasons = "; ".join(cattrs.transform_error(error))
                raise StackError(f"{MANIFEST.name}: {name}: {reasons}") from None
            found[stack.id] = stack
    return found


def _shared(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What another table says for this one too, but for what it says of single suites."""
    other = tables[name].get("like")
    if other is None:
        return {}
    if other not in tables:
        raise StackError(f"{MANIFEST.name}: {name}: like: there is no table {other!r}")
    return _without(tables[other], tables[other].get("versions", {}))


def _without(values: Mapping[str, Any], suites: Mapping[str, Any]) -> dict[str, Any]:
    """The values without the sub-tables that are of one suite."""
    return {key: value for key, value in values.items() if key not in suites}


def _text(value: object, _: type[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def chosen(ids: Sequence[str], *, everything: bool = False) -> list[Stack]:
    """The stacks with these ids, or all.

    Raises:
        StackError: There is no such stack, or none was named.
    """
    known = stacks()
    if everything:
        return list(known.values())
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise StackError(f"no such stack: {', '.join(unknown)}; there are: {', '.join(known)}")
    if not ids:
        raise StackError(f"name stacks, or --all; there are: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(ids)]
