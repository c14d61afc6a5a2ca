"""The guard: whoever holds something to the contract runs every standard test as it stands, or says why not.

A subclass says so in `reasons`, by the test's name. What is dropped or overridden is seen when the class is made; what is skipped, by
whatever means, when it runs (`plugin`). A reason counts as "skipped" for the rules of its test: they were not seen to hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import ClassVar

from ._rules import RULES_ATTRIBUTE

__all__ = ["Guarded", "contract_of", "standard_tests"]


class Guarded:
    """A base of each contract, directly; whatever derives from the contract is watched.

    Attributes:
        reasons: By the name of a standard test: why it is dropped, overridden or skipped here.
        reasons_by_rule: The same with the rules of each test, as the report takes it.
    """

    reasons: ClassVar[Mapping[str, str]] = {}
    reasons_by_rule: ClassVar[Mapping[str, tuple[tuple[str, ...], str]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Guarded in cls.__bases__:
            return
        contract = contract_of(cls)
        standard = standard_tests(contract)
        changed = {name: how for name in sorted(standard) if (how := _change(cls, contract, name))}
        silent = [f"{name} ({how})" for name, how in changed.items() if not _reason(cls, name)]
        if silent:
            raise TypeError(
                f"{cls.__name__} does not run every test of {contract.__name__} as it stands: {', '.join(silent)}; "
                'state why, as in `reasons = {"<test>": "<why>"}`'
            )
        unknown = sorted(set(cls.reasons) - set(standard))
        if unknown:
            raise TypeError(
                f"{cls.__name__} gives reasons for what is no test of {contract.__name__}: {', '.join(unknown)}"
            )
        cls.reasons_by_rule = {
            name: (
                standard[name],
                f"{name}{f' ({changed[name]})' if name in changed else ''}: {why}",
            )
            for name, why in cls.reasons.items()
        }


def contract_of(cls: type) -> type:
    """What a class that holds something to a contract derives from; itself, if it is none of those."""
    return next((base for base in cls.__mro__ if Guarded in base.__bases__), cls)


def standard_tests(contract: type) -> dict[str, tuple[str, ...]]:
    """Every test of a contract, with its rules."""
    return {
        name: getattr(getattr(contract, name), RULES_ATTRIBUTE, ())
        for name in dir(contract)
        if name.startswith("test")
    }


def _change(cls: type, contract: type, name: str) -> str:
    """What a class made of a standard test, in a word; "" if it left it alone."""
    mine = inspect.getattr_static(cls, name)
    if mine is inspect.getattr_static(contract, name):
        return ""
    return "overridden" if callable(mine) else "dropped"


def _reason(cls: type[Guarded], name: str) -> str:
    return str(cls.reasons.get(name) or "").strip()
