"""A pytest plugin for the runs of liars: chooses the tests, and notes how each failed."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Final

import pytest

from intercede.contract._rules import RULES_ATTRIBUTE

__all__ = ["ASSERTION", "FAILURE_PROPERTY", "LIAR_PROPERTY", "RULE_PROPERTY", "TEST_PROPERTY"]

#: The class of tests, which is named for the liar.
LIAR_PROPERTY: Final = "liars_liar"
#: Which test it is, without its parameters.
TEST_PROPERTY: Final = "liars_test"
#: A rule that it tests.
RULE_PROPERTY: Final = "liars_rule"
#: How it failed.
FAILURE_PROPERTY: Final = "liars_failure"
#: It failed by an assertion of its own, and not because it waited in vain.
ASSERTION: Final = "assertion"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of other families, where the class of tests names families; and empty the one that it names."""
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        assert isinstance(item, pytest.Function)
        families = getattr(item.cls, "families", None)
        rules = getattr(item.function, RULES_ATTRIBUTE, ())
        fits = not families or any(rule.startswith(families) for rule in rules)
        (chosen if fits else others).append(item)
        if item.originalname == getattr(item.cls, "emptied", None):
            item.obj = _empty
    items[:] = chosen
    config.hook.pytest_deselected(items=others)


def _empty(**_: object) -> None:
    """A test without a body."""


# The suite's own plugin sets the properties of a report anew: this one is around it.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note in the report, which may travel to another process, what failed and how."""
    report = yield
    assert isinstance(item, pytest.Function) and item.cls is not None
    rules = getattr(item.function, RULES_ATTRIBUTE, ())
    report.user_properties += [
        (LIAR_PROPERTY, item.cls.__name__),
        (TEST_PROPERTY, item.originalname),
        *((RULE_PROPERTY, rule) for rule in rules),
    ]
    if report.failed and call.excinfo is not None:
        report.user_properties.append((FAILURE_PROPERTY, _kind(item, call)))
    return report


def _kind(item: pytest.Function, call: pytest.CallInfo[None]) -> str:
    assert call.excinfo is not None
    name = call.excinfo.type.__name__
    if call.when != "call":
        return f"{call.when}: {name}: {call.excinfo.value}"[:200]
    assert item.cls is not None
    waited = call.duration >= getattr(item.cls.resource, "patience_s", math.inf)
    if waited and (" within " in str(call.excinfo.value) or name == "TimeoutError"):
        return f"it took {call.duration:.1f} s: {name}"
    if issubclass(call.excinfo.type, (AssertionError, pytest.fail.Exception)):
        return ASSERTION
    return f"{name}: {call.excinfo.value}"[:200]
