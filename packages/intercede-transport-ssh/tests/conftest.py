"""This machine's own sshd, for the tests of one module, and transports to it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from stacks.sshd import Sshd

from intercede.core import CredentialProvider, Transport, registry


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Transport]]:
    """Makes transports to an sshd, which are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(
            sshd: Sshd, credentials: CredentialProvider | None = None, **more: Any
        ) -> Transport:
            config = {**sshd.config, **more}
            made = registry.transport(config, credentials or sshd.credentials())
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
def transport(sshd: Sshd, opened: Callable[..., Transport]) -> Transport:
    return opened(sshd)
