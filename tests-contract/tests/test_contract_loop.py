"""A test of the suite runs in a loop of its own, with what it was given open, and closed again whatever becomes of it."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from intercede.contract import Resource
from intercede.contract._verdict import not_observed, rule

happened: list[str] = []


@asynccontextmanager
async def thing(*, breaks: bool = False) -> AsyncIterator[str]:
    happened.append("opened")
    yield "the thing"
    await asyncio.sleep(0)
    happened.append("closed")
    if breaks:
        raise OSError("it cannot be closed")


class Tests:
    resource = Resource(config={})

    @rule("T1")
    async def passes(self, bench: Any, plain: int) -> None:
        assert (bench, plain) == ("the thing", 7)

    @rule("T1")
    async def fails(self, bench: Any) -> None:
        pytest.fail("as it should")

    @rule("T1")
    async def is_not_observed(self, bench: Any) -> None:
        not_observed("eyes")

    @rule("T1")
    async def is_interrupted(self, bench: Any) -> None:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def nothing_has_happened() -> None:
    happened.clear()


def run(name: str, bench: AbstractAsyncContextManager[str], **given: object) -> None:
    getattr(Tests(), name)(bench=bench, **given)


def test_what_it_is_given_is_open_and_then_closed() -> None:
    run("passes", thing(), plain=7)
    assert happened == ["opened", "closed"]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("fails", pytest.fail.Exception),
        ("is_not_observed", pytest.skip.Exception),
        ("is_interrupted", KeyboardInterrupt),
    ],
)
def test_it_is_closed_whatever_comes(name: str, outcome: type[BaseException]) -> None:
    with pytest.raises(outcome):
        run(name, thing())
    assert happened == ["opened", "closed"]


@pytest.mark.parametrize("name", ["passes", "is_not_observed"])
def test_what_cannot_be_cleared_up_fails_the_test(name: str) -> None:
    given = {"plain": 7} if name == "passes" else {}
    with pytest.raises(OSError, match="it cannot be closed"):
        run(name, thing(breaks=True), **given)


def test_of_two_failures_the_tests_own_is_told_and_the_other_noted() -> None:
    with pytest.raises(pytest.fail.Exception, match="as it should") as caught:
        run("fails", thing(breaks=True))
    assert caught.value.__notes__ == [
        "clearing up failed, too: OSError('it cannot be closed')",
    ]


def test_it_is_no_coroutine_function_and_leaves_no_loop_behind() -> None:
    assert not inspect.iscoroutinefunction(Tests.passes)
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    try:
        run("passes", thing(), plain=7)
        assert asyncio.get_event_loop() is own
    finally:
        asyncio.set_event_loop(None)
        own.close()
