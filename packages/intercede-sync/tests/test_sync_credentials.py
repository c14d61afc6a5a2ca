"""Providers of credentials: asynchronous, synchronous, or a facade; opened and closed by the consumer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Self

import pytest
from attrs import frozen

from intercede import core, sync
from intercede.core import BearerToken, CredentialRequirements, CredentialSet
from intercede.core import registry as core_registry
from intercede.fake import FakeBackend, FakeConfig

NEEDS = CredentialRequirements("fake", [BearerToken])
TOKEN = CredentialSet([BearerToken(value="x")])


@frozen
class _Asking:
    """A plugin's configuration."""


class _AskingBackend(FakeBackend):
    """Asks for credentials in `find`."""

    credentials: core.CredentialProvider | None = None

    async def find(self, tag: str) -> tuple[core.JobHandle, ...]:
        assert self.credentials is not None
        assert (await self.credentials.get(NEEDS)).get(BearerToken) is not None
        return ()


def _make(
    config: _Asking, name: str, credentials: core.CredentialProvider | None
) -> core.JobBackend:
    backend = _AskingBackend(FakeConfig(), name)
    backend.credentials = credentials
    return backend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., sync.Discoverable]]:
    """Makes backends that ask their provider; closed with the test."""
    plugin = core_registry.BackendPlugin(config=_Asking, make=_make)
    monkeypatch.setattr(
        core_registry,
        "_looked_up",
        lambda *_: (core_registry.PluginInfo("asking", "backends", "here", "1", "here"), plugin),
    )

    def make(
        credentials: core.CredentialProvider | sync.CredentialProvider | None,
        loop: sync.Loop | None = None,
    ) -> sync.Discoverable:
        made = sync.backend({"type": "asking"}, credentials, loop=loop)
        stack.callback(made.close)
        assert isinstance(made, sync.Discoverable)
        return made

    with ExitStack() as stack:
        yield make


class Asynchronous:
    """Remembers where it was opened, asked and closed."""

    def __init__(self) -> None:
        self.threads: list[tuple[str, int]] = []

    def _here(self, what: str) -> None:
        self.threads.append((what, threading.get_ident()))

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self._here("asked")
        return TOKEN

    async def __aenter__(self) -> Self:
        self._here("opened")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._here("closed")


class Synchronous:
    """Likewise."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self.threads.append(threading.get_ident())
        return TOKEN

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        raise AssertionError("it is the consumer who closes it")


def test_an_asynchronous_provider_is_opened_asked_and_closed_in_the_loop(
    backend: Callable[..., sync.Discoverable],
) -> None:
    provider = Asynchronous()
    with sync.synchronous(provider) as credentials:
        backend(credentials).find("tag")
        assert credentials.get(NEEDS) is TOKEN

    assert [what for what, _ in provider.threads] == ["opened", "asked", "asked", "closed"]
    assert len({thread for _, thread in provider.threads} - {threading.get_ident()}) == 1
    with pytest.raises(core.ClosedError, match="get: it is closed"):
        credentials.get(NEEDS)


def test_a_backend_in_another_loop_asks_the_provider_in_its_own(
    backend: Callable[..., sync.Discoverable],
) -> None:
    provider = Asynchronous()
    with sync.Loop() as loop, sync.synchronous(provider) as credentials:
        backend(credentials, loop).find("tag")

    assert [what for what, _ in provider.threads] == ["opened", "asked", "closed"]
    assert len({thread for _, thread in provider.threads}) == 1


def test_a_provider_that_was_closed_is_not_asked(
    backend: Callable[..., sync.Discoverable],
) -> None:
    with sync.synchronous(Asynchronous()) as credentials:
        ce = backend(credentials)
    with pytest.raises(core.ClosedError, match="get: it is closed"):
        ce.find("tag")


def test_an_asynchronous_provider_needs_no_facade(
    backend: Callable[..., sync.Discoverable],
) -> None:
    provider = Asynchronous()
    backend(provider).find("tag")
    assert [what for what, _ in provider.threads] == ["asked"]


def test_a_synchronous_provider_is_asked_in_a_thread_beside_the_loop(
    backend: Callable[..., sync.Discoverable],
) -> None:
    async def thread() -> int:
        return threading.get_ident()

    provider = Synchronous()
    with sync.Loop() as loop:
        backend(provider, loop).find("tag")
        assert not {loop.call(thread), threading.get_ident()} & set(provider.threads)
    assert len(provider.threads) == 1


def test_an_error_of_a_synchronous_provider_is_the_callers(
    backend: Callable[..., sync.Discoverable],
) -> None:
    class Without(Synchronous):
        def get(self, requirements: CredentialRequirements) -> CredentialSet:
            raise core.AuthenticationError("no token")

    with pytest.raises(core.AuthenticationError, match="no token"):
        backend(Without()).find("tag")
