"""Making a backend from its configuration, with credentials from either side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import anyio.to_thread

from intercede import core
from intercede.core import CredentialRequirements, CredentialSet, registry

from ._facade import Facade, synchronous, within
from ._loop import SHARED, Loop
from ._protocols import CredentialProvider, JobBackend

__all__ = ["backend"]


def backend(
    config: Mapping[str, object],
    credentials: core.CredentialProvider | CredentialProvider | None = None,
    *,
    policy: registry.Policy | None = None,
    loop: Loop | None = None,
) -> JobBackend:
    """The backend that a configuration describes, not yet connected: `intercede.core.registry.backend` without an event loop.

    Args:
        config: As there.
        credentials: The caller's provider, opened and closed by the caller. A synchronous one is asked in a thread of its own.
        policy: As there.
        loop: Where the backend shall live; None: in the loop that all share.

    Returns:
        An object with exactly the abilities of this combination, to be used in `with`.

    Raises:
        ConfigurationError, PluginError: As there.
    """
    loop = loop or SHARED
    if credentials is None or isinstance(credentials, core.CredentialProvider):
        provider = credentials
    else:
        provider = _Asked(credentials, loop)
    return synchronous(registry.backend(config, provider, policy=policy), loop=loop)


class _Asked:
    """A synchronous provider as a backend wants it: asynchronous, and open already."""

    def __init__(self, provider: CredentialProvider, loop: Loop) -> None:
        self._provider = provider
        self._loop = loop

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        if isinstance(self._provider, Facade) and (it := within(self._provider, self._loop)):
            found: CredentialSet = await it.get(requirements)
            return found
        return await anyio.to_thread.run_sync(self._provider.get, requirements)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """It is the consumer who closes it."""
