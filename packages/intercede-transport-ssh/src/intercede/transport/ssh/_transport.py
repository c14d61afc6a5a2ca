"""Commands on a host over one SSH connection, shared by all tasks.

Every command has a session of its own, of as many as the host grants; one that is refused has run nothing, so it waits and is tried again.
A command that may have run is never sent twice. Connecting has a time-out of its own; a command's begins when the connection is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import anyio

from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    CredentialProvider,
    OperationTimeout,
    Process,
    ResourceError,
)
from intercede.toolkit import Lifetime, sole, to_its_end

from ._config import SSHConfig
from ._connecting import Connecting
from ._copying import Copying
from ._ending import Ending
from ._link import Link, LinkLost
from ._session import Session

__all__ = ["SSHTransport"]

#: How much of a streamed command's stderr is kept, in bytes.
_STDERR_KEPT: Final = 64 * 1024
#: How often a command is begun anew on another connection after the one before was lost without having run it.
_BEGINNINGS: Final = 4


class SSHTransport:
    """Runs commands on a host, and copies files, over one connection that is made at the first use.

    Args:
        config: Which host, and how to log in.
        credentials: Where the key or the password comes from.
    """

    def __init__(self, config: SSHConfig, credentials: CredentialProvider | None = None) -> None:
        self._lifetime = Lifetime("the SSH transport")
        self._connecting = Connecting(config, credentials)
        self._ending = Ending(self._connecting)
        self._copying = Copying(self._connecting, self._link, self.run)
        self._running: set[Session] = set()

    def __repr__(self) -> str:
        return f"SSHTransport({self._connecting.where!r})"

    async def __aenter__(self) -> Self:
        self._lifetime.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what still runs, and close the connection. Later use raises `ClosedError`. Idempotent, and bounded in time."""
        if self._lifetime.close():
            for session in self._running:
                self._ending.end_at_once(session)
            await to_its_end(self._connecting.aclose())

    async def run(self, command: Command) -> CommandResult:
        """Run one command to its end.

        Raises:
            OperationTimeout: It took longer than `command.timeout_s`; it was ended.
            ResourceError: It printed more than `command.max_output`; it was ended. Or the account cannot run commands.
            ConnectionLost: Before its end was known.
            Unreachable, HostKeyError, AuthenticationError: There is no connection. It has not run.
        """
        stdout = bytearray()
        async with self.stream(command) as process:
            async for chunk in process.stdout:
                stdout += chunk
                if len(stdout) > command.max_output:
                    raise ResourceError(
                        f"{command.argv[0]} printed more than {command.max_output} bytes"
                    )
            result = await process.wait()
        return CommandResult(result.returncode, bytes(stdout), result.stderr)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        """Run one command, its output read as it comes.

        Raises:
            OperationTimeout: The block took longer than `command.timeout_s`; the command was ended.
        """
        link = await self._link()
        deadline = anyio.current_time() + command.timeout_s
        begun: list[tuple[Link, Session]] = []
        scope = anyio.CancelScope()
        try:
            with scope:
                scope.deadline = deadline
                await self._begin(link, command, begun)
                [(_, session)] = begun
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(session.feed, command.stdin, stdin)
                    yield session
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            for link, session in begun:
                await to_its_end(self._ending.end(link, session))
                self._running.discard(session)
        if scope.cancelled_caught:
            raise self._too_long(command, may_have_run=any(one.handed for _, one in begun))

    async def _begin(self, link: Link, command: Command, begun: list[tuple[Link, Session]]) -> None:
        """Start a command; on another connection if this one is lost before it was started."""
        stderr_kept = min(command.max_output, _STDERR_KEPT)
        for _ in range(_BEGINNINGS):

            def began(session: Session, link: Link = link) -> None:
                self._running.add(session)
                begun.append((link, session))

            try:
                await link.start(command.argv, stderr_kept, began)
            except LinkLost:
                link = await self._link()
            else:
                return
        raise ConnectionLost(
            f"{link.where}: the connection was lost {_BEGINNINGS} times before {command.argv[0]}"
            " was started",
            may_have_run=False,
            remedy="see its sshd's log",
        )

    async def _link(self) -> Link:
        self._lifetime.check()
        link = await self._connecting.link()
        await self._ending.resume(link)
        return link

    def _too_long(self, command: Command, *, may_have_run: bool) -> OperationTimeout:
        where, name, timeout_s = self._connecting.where, command.argv[0], command.timeout_s
        if may_have_run:
            return OperationTimeout(
                f"{where}: {name} did not end within {timeout_s:g} s", may_have_run=True
            )
        return OperationTimeout(
            f"{where}: there was no session for {name} within {timeout_s:g} s",
            may_have_run=False,
            remedy="the host allows too few at once (MaxSessions), or does not answer",
        )

    async def put(self, local: Path, remote: str) -> None:
        """Copy a file. It appears whole or not at all.

        Raises:
            OSError: The local file cannot be read.
            ResourceError: The host refuses it.
            ConnectionLost, Unreachable, HostKeyError, AuthenticationError: It could not be ended.
        """
        self._lifetime.check()
        await self._copying.put(local, remote)

    async def get(self, remote: str, local: Path) -> None:
        """Copy a file. It appears whole or not at all.

        Raises:
            OSError: The local file cannot be written.
            ResourceError: The host refuses it, or has no such file.
            ConnectionLost, Unreachable, HostKeyError, AuthenticationError: It could not be ended.
        """
        self._lifetime.check()
        await self._copying.get(remote, local)
