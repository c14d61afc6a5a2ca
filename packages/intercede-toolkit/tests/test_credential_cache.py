"""Freshness: one question for any number of waiting tasks, asked again in time, and no task left behind."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Self

import anyio
import pytest

from intercede.core import (
    AuthenticationError,
    BearerToken,
    Credential,
    CredentialRequirements,
    CredentialSet,
    Password,
    Unreachable,
)
from intercede.toolkit import CredentialCache

NEEDS = CredentialRequirements("site", frozenset({BearerToken}))


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Provider:
    """Answers with numbered tokens, when it is let."""

    def __init__(self, clock: Clock, lifetime_s: float | None = 3600) -> None:
        self.clock = clock
        self.lifetime_s = lifetime_s
        self.asked = 0
        self.cancelled = 0
        self.may_answer = anyio.Event()
        self.may_answer.set()
        self.error: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        raise AssertionError("a backend never closes a provider")

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        assert requirements is NEEDS
        self.asked += 1
        number = self.asked
        try:
            await self.may_answer.wait()
        except BaseException:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        expires_at = None
        if self.lifetime_s is not None:
            expires_at = self.clock() + timedelta(seconds=self.lifetime_s)
        return CredentialSet([BearerToken(value=f"token-{number}", expires_at=expires_at)])


def value(credentials: CredentialSet) -> str:
    token = credentials.get(BearerToken)
    assert token is not None
    return token.value


@contextmanager
def no_task_left() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() == before


async def test_what_is_fresh_is_not_asked_for_again() -> None:
    clock = Clock()
    provider = Provider(clock)
    cache = CredentialCache(provider, NEEDS, margin_s=60, clock=clock)

    assert value(await cache.get()) == "token-1"
    clock.advance(3539)
    assert value(await cache.get()) == "token-1"
    clock.advance(1)
    assert value(await cache.get()) == "token-2"
    assert provider.asked == 2


async def test_what_never_expires_is_asked_for_once() -> None:
    clock = Clock()
    provider = Provider(clock, lifetime_s=None)
    cache = CredentialCache(provider, NEEDS, clock=clock)

    await cache.get()
    clock.advance(10**9)
    await cache.get()

    assert provider.asked == 1


async def test_what_lives_shorter_than_the_margin_is_handed_out_and_asked_for_each_time() -> None:
    clock = Clock()
    provider = Provider(clock, lifetime_s=30)
    cache = CredentialCache(provider, NEEDS, margin_s=60, clock=clock)

    assert value(await cache.get()) == "token-1"
    assert value(await cache.get()) == "token-2"


async def test_what_was_invalidated_is_asked_for_again() -> None:
    provider = Provider(Clock())
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)
    await cache.get()

    cache.invalidate()

    assert value(await cache.get()) == "token-2"


async def test_an_answer_to_a_question_from_before_the_invalidation_is_not_kept() -> None:
    provider = Provider(Clock())
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)
    provider.may_answer = anyio.Event()
    with no_task_left():
        first = asyncio.create_task(cache.get())
        await anyio.wait_all_tasks_blocked()

        cache.invalidate()
        second = asyncio.create_task(cache.get())
        await anyio.wait_all_tasks_blocked()
        provider.may_answer.set()

        assert {value(await first), value(await second)} == {"token-1", "token-2"}
        assert value(await cache.get()) == "token-2"


async def test_any_number_of_waiting_tasks_ask_once() -> None:
    provider = Provider(Clock())
    provider.may_answer = anyio.Event()
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with no_task_left():
        waiting = [asyncio.create_task(cache.get()) for _ in range(100)]
        await anyio.wait_all_tasks_blocked()
        provider.may_answer.set()
        answers = await asyncio.gather(*waiting)

    assert {value(answer) for answer in answers} == {"token-1"}
    assert provider.asked == 1


@pytest.mark.parametrize("victim", [0, 1, 9])
async def test_cancelling_one_waiter_does_not_fail_the_others(victim: int) -> None:
    provider = Provider(Clock())
    provider.may_answer = anyio.Event()
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with no_task_left():
        waiting = [asyncio.create_task(cache.get()) for _ in range(10)]
        await anyio.wait_all_tasks_blocked()
        waiting[victim].cancel()
        await anyio.wait_all_tasks_blocked()
        provider.may_answer.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)

    for number, answer in enumerate(answers):
        if number == victim:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert isinstance(answer, CredentialSet)
    assert provider.asked == (2 if victim == 0 else 1)
    assert value(await cache.get()) == f"token-{provider.asked}"


async def test_cancelling_all_waiters_one_after_the_other_leaves_the_cache_usable() -> None:
    provider = Provider(Clock())
    provider.may_answer = anyio.Event()
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with no_task_left():
        waiting = [asyncio.create_task(cache.get()) for _ in range(5)]
        for task in waiting:
            await anyio.wait_all_tasks_blocked()
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert provider.asked == provider.cancelled == 5

        provider.may_answer.set()
        assert value(await cache.get()) == "token-6"


async def test_an_error_goes_to_all_who_wait_and_is_not_kept() -> None:
    provider = Provider(Clock())
    provider.may_answer = anyio.Event()
    provider.error = Unreachable("nobody answers", resource="vault", remedy="start it")
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with no_task_left():
        waiting = [asyncio.create_task(cache.get()) for _ in range(5)]
        await anyio.wait_all_tasks_blocked()
        provider.may_answer.set()
        errors = await asyncio.gather(*waiting, return_exceptions=True)

    assert provider.asked == 1
    assert len({id(error) for error in errors}) == 5, "each has a traceback of its own"
    for error in errors:
        assert isinstance(error, Unreachable)
        assert str(error) == "vault: nobody answers; start it"

    provider.error = None
    assert value(await cache.get()) == "token-2"


async def test_an_error_of_another_kind_becomes_one_of_ours_with_its_cause() -> None:
    provider = Provider(Clock())
    provider.error = OSError("s3cr3t")
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with pytest.raises(AuthenticationError, match="provider failed: OSError") as failed:
        await cache.get()

    assert failed.value.__cause__ is provider.error
    assert failed.value.resource == "site"
    assert "s3cr3t" not in str(failed.value)


async def test_a_provider_that_does_not_answer_is_given_up() -> None:
    provider = Provider(Clock())
    provider.may_answer = anyio.Event()
    cache = CredentialCache(provider, NEEDS, timeout_s=0.02, clock=provider.clock)

    with no_task_left():
        waiting = [asyncio.create_task(cache.get()) for _ in range(3)]
        errors = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(
        isinstance(error, AuthenticationError) and "no answer within 0.02 s" in str(error)
        for error in errors
    )
    assert provider.asked == provider.cancelled == 1
    provider.may_answer.set()
    assert value(await cache.get()) == "token-2"


async def test_a_time_out_of_the_providers_own_is_its_error() -> None:
    provider = Provider(Clock())
    provider.error = TimeoutError()
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with pytest.raises(AuthenticationError, match="provider failed: TimeoutError"):
        await cache.get()


class Lacking(Provider):
    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        return CredentialSet([Password(value="p")])


async def test_a_provider_that_leaves_out_a_kind_is_told_apart_from_a_good_one() -> None:
    cache = CredentialCache(Lacking(Clock()), NEEDS)

    with pytest.raises(AuthenticationError, match=r"site: .*BearerToken.*; use a provider that"):
        await cache.get()


async def test_a_provider_that_gives_what_has_expired_is_told_apart_from_a_good_one() -> None:
    provider = Provider(Clock(), lifetime_s=-1)
    cache = CredentialCache(provider, NEEDS, clock=provider.clock)

    with pytest.raises(AuthenticationError, match="BearerToken expired at 2029-12-31 23:59:59 UTC"):
        await cache.get()


async def test_without_a_provider_the_kind_and_the_remedy_are_named() -> None:
    with pytest.raises(AuthenticationError, match=r"BearerToken.*; pass a credential provider"):
        await CredentialCache(None, NEEDS).get()


async def test_where_nothing_is_needed_nobody_is_asked() -> None:
    nothing: frozenset[type[Credential]] = frozenset()
    for provider in (None, Provider(Clock())):
        cache = CredentialCache(provider, CredentialRequirements("site", nothing))
        assert (await cache.get()).expires_at is None
    assert provider is not None
    assert provider.asked == 0
