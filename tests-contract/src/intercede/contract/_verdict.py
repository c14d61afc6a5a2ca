"""How a test of the suite says which rule it tests, and that it could not be decided.

Rules travel as an attribute of the test, not as a mark of pytest: a mark must be registered before collection, and a stranger's project
that runs with `--strict-markers` would have to know of ours.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar, cast

import pytest

from ._rules import RULES, RULES_ATTRIBUTE, Verdict

__all__ = ["not_observed", "not_offered", "rule"]

F = TypeVar("F", bound=Callable[..., Any])


def rule(*names: str) -> Callable[[F], F]:
    """Declare which rules a test tests; an asynchronous one also gets its loop scope and an end to its patience.

    Args:
        names: Letters of `RULES`.

    Raises:
        KeyError: There is no such rule.
    """
    for name in names:
        RULES[name]

    def declare(test: F) -> F:
        marked: Any = test
        if inspect.iscoroutinefunction(test):
            marked = pytest.mark.asyncio(loop_scope="function")(_with_an_end(test))
        setattr(marked, RULES_ATTRIBUTE, names)
        return cast("F", marked)

    return declare


def _with_an_end(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def timed(self: Any, *args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(self.resource.test_limit_s):
            await test(self, *args, **kwargs)

    return timed


def not_offered(ability: str) -> NoReturn:
    """End the test: the backend does not have this ability, and says so."""
    pytest.skip(f"{Verdict.NOT_OFFERED}: {ability}")


def not_observed(need: str) -> NoReturn:
    """End the test: whether the rule holds cannot be seen here without `need`."""
    pytest.skip(f"{Verdict.NOT_OBSERVED}: needs {need}")
