"""How a test of the suite says which rule it tests, and that it could not be decided.

Rules travel as an attribute of the test, not as a mark of pytest: a mark must be registered before collection, and a stranger's project
that runs with `--strict-markers` would have to know of ours. Likewise asynchronous tests bring their own loop: a plugin that would run
them has modes, marks and scopes, which are the project's.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NoReturn, TypeVar, cast

import pytest

from ._rules import RULES, RULES_ATTRIBUTE, Verdict

__all__ = ["not_observed", "not_offered", "rule"]

F = TypeVar("F", bound=Callable[..., Any])


def rule(*names: str) -> Callable[[F], F]:
    """Declare which rules a test tests; an asynchronous one also gets a loop of its own, and an end to its patience.

    Args:
        names: Letters of `RULES`.

    Raises:
        KeyError: There is no such rule.
    """
    for name in names:
        RULES[name]

    def declare(test: F) -> F:
        marked: Any = _in_a_loop(test) if inspect.iscoroutinefunction(test) else test
        setattr(marked, RULES_ATTRIBUTE, names)
        return cast("F", marked)

    return declare


def _in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test as a plain function, that no plugin takes for its own. What it is given and can be opened is open while it runs."""

    @functools.wraps(test)
    def run(self: Any, **given: Any) -> None:
        __tracebackhide__ = True
        # A loop that is made so is nobody else's current loop.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(
                _opened_for(functools.partial(test, self), self.resource.test_limit_s, given)
            )

    return run


async def _opened_for(
    test: Callable[..., Awaitable[None]], limit_s: float, given: Mapping[str, Any]
) -> None:
    stack = AsyncExitStack()
    try:
        opened = {
            name: await stack.enter_async_context(thing)
            if isinstance(thing, AbstractAsyncContextManager)
            else thing
            for name, thing in given.items()
        }
        async with asyncio.timeout(limit_s):
            await test(**opened)
    except (Exception, pytest.fail.Exception) as error:
        try:
            await stack.aclose()
        except Exception as another:  # the test's own failure is what has to be told
            error.add_note(f"clearing up failed, too: {another!r}")
        raise
    except BaseException:  # not decided, or interrupted
        await stack.aclose()
        raise
    await stack.aclose()


def not_offered(ability: str) -> NoReturn:
    """End the test: the backend does not have this ability, and says so."""
    pytest.skip(f"{Verdict.NOT_OFFERED}: {ability}")


def not_observed(need: str) -> NoReturn:
    """End the test: whether the rule holds cannot be seen here without `need`."""
    pytest.skip(f"{Verdict.NOT_OBSERVED}: needs {need}")
