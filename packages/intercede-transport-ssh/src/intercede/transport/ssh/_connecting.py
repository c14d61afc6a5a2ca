"""One connection for all: made at the first use, shared, and made again at the next use after it was lost.

Whoever comes first connects, in its own task; the others wait for the same. If the first is cancelled, the next one connects. So nothing
runs between calls.
"""

from __future__ import annotations

import asyncio
import copy
import getpass
import random
from typing import Final

import anyio
from attrs import define, field

from intercede.core import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    CredentialProvider,
    InterCEdeError,
    Unreachable,
)

from ._config import SSHConfig
from ._limiter import Limiter
from ._link import Link
from ._login import Login
from ._route import Attempt, Hop, Passing, resolved

__all__ = ["Connecting"]

#: Between attempts, in seconds, each time twice as long, and each somewhat more or less so that many clients do not come at once.
_PAUSE_S: Final = 0.2
_PAUSE_MAX_S: Final = 5.0
#: How often a host that was never reached may close the connection before we are let in.
_FIRST_ATTEMPTS: Final = 3
_CLOSING_S: Final = 2.0


@define
class _Flight:
    """An attempt to connect that others wait for."""

    over: asyncio.Event = field(factory=asyncio.Event)
    error: InterCEdeError | None = None


class Connecting:
    """Keeps the connection.

    Args:
        config: What the user wrote.
        provider: Whom to ask for credentials.
    """

    def __init__(self, config: SSHConfig, provider: CredentialProvider | None) -> None:
        self._config = config
        self._provider = provider
        self._login: Login | None = None
        self._hops: tuple[Hop, ...] = ()
        self._link: Link | None = None
        #: Those that take no more sessions and have some left.
        self._former: set[Link] = set()
        self._flight: _Flight | None = None
        self._reached = False
        self._closed = False
        self._trying = config.host

    @property
    def where(self) -> str:
        """The host, for people."""
        return self._hops[-1].where if self._hops else self._config.host

    async def link(self) -> Link:
        """The connection, made if it is not there.

        Raises:
            Unreachable, HostKeyError, AuthenticationError, ConfigurationError: It cannot be made.
        """
        while True:
            link = self._link
            if link is not None and link.usable:
                return link
            flight = self._flight
            if flight is None:
                return await self._connect()
            await flight.over.wait()
            if flight.error is not None:
                # An error collects the traceback of each task that raises it: each gets its own.
                raise copy.copy(flight.error) from None

    async def aclose(self) -> None:
        """Close, within a bounded time, also if the host does not answer."""
        self._closed = True
        links = [*self._former, *([self._link] if self._link else [])]
        for link in links:
            link.close()
        with anyio.move_on_after(_CLOSING_S, shield=True):
            for link in links:
                await link.wait_closed()
        self._former.clear()
        self._link = None

    async def _connect(self) -> Link:
        flight = self._flight = _Flight()
        try:
            link = await self._connected()
        except InterCEdeError as error:
            flight.error = error
            raise
        finally:
            self._flight = None
            flight.over.set()
        return link

    async def _connected(self) -> Link:
        timeout_s = self._config.connect_timeout_s
        last: Unreachable | None = None
        with anyio.move_on_after(timeout_s):
            attempts = 0
            pause = _PAUSE_S
            while True:
                try:
                    return await self._attempt()
                except Passing as passing:
                    last = passing.error
                    attempts += 1
                    final = passing.known or attempts >= _FIRST_ATTEMPTS
                    if final and not self._reached:
                        break
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
                pause = min(2 * pause, _PAUSE_MAX_S)
        raise last or Unreachable(
            f"{self._trying}: no answer within {timeout_s:g} s",
            remedy="see whether host and port are right, and whether it is up",
        )

    async def _attempt(self) -> Link:
        """Connect. What was refused is asked for anew once, since the provider may have something newer."""
        if not self._hops:
            self._hops = await resolved(self._config, _ourselves())
        if self._login is None:
            self._login = Login(self._config.auth, self.where, self._provider)
        try:
            return await self._logged_in(self._login)
        except AuthenticationError:
            if not (self._login.refused() and self._reached):
                raise
        return await self._logged_in(self._login)

    async def _logged_in(self, login: Login) -> Link:
        self._trying = self.where
        offer = await login.offer()
        limiter = Limiter(self._config.max_sessions)
        if self._link is not None:
            limiter = Limiter(self._config.max_sessions, self._link.limiter.limit)
        links: list[Link] = []

        def lost() -> None:
            for link in links:
                link.lost()

        try:
            connections = await Attempt(
                hops=self._hops,
                config=self._config,
                offer=offer,
                on_lost=lost,
                reports=self._report,
            ).connect()
        finally:
            offer.close()
        link = Link(connections, self.where, limiter, self._config.idle_timeout_s)
        links.append(link)
        if self._closed:
            link.close()
            raise ClosedError("the SSH transport was closed while it connected")
        if any(connection.is_closed() for connection in connections):
            link.lost()
        self._keep(link)
        return link

    def _keep(self, link: Link) -> None:
        if self._link is not None:
            self._former = {former for former in self._former if former.open}
            self._former.add(self._link)
        self._link = link
        self._reached = True

    def _report(self, where: str) -> None:
        self._trying = where


def _ourselves() -> str:
    """The account that we have here. asyncssh needs to know it, also where it is not used."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigurationError(
            "this process's account has no name here", remedy="set LOGNAME in the environment"
        ) from None
