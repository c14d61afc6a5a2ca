"""Copies of single files, whole or not at all, that go on where a lost connection left them.

A file is written under another name beside its place, and gets its name when all of it is there. After a loss the connection is made anew
and what was not confirmed is copied again; only a copy that does not advance is given up.
"""

from __future__ import annotations

import os
import posixpath
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from intercede.core import Command, CommandResult, ConnectionLost, InterCEdeError, ResourceError
from intercede.toolkit import to_its_end

from ._blocks import Block, Blocks
from ._connecting import Connecting
from ._files import Files, SFTPFiles, ShellFiles
from ._link import Link, LinkLost

__all__ = ["Copying"]

#: How often the connection may be lost without any part having arrived in between.
_LOSSES: Final = 4
#: How long removing what was given up may take: a host that is busy, or far, may have to be asked for a session or even connected to first.
_REMOVE_S: Final = 10.0
_HOME_TIMEOUT_S: Final = 60.0


class Copying:
    """Copies files.

    Args:
        connecting: The connection.
        link: It, ready to be used.
        run: Runs a command at the host.
    """

    def __init__(
        self,
        connecting: Connecting,
        link: Callable[[], Awaitable[Link]],
        run: Callable[[Command], Awaitable[CommandResult]],
    ) -> None:
        self._connecting = connecting
        self._link = link
        self._run = run
        self._has_sftp = True
        self._home = ""

    async def put(self, local: Path, remote: str) -> None:
        """Copy a file to the host."""
        path = await self._absolute(remote)
        folder, name = posixpath.split(path)
        temporary = posixpath.join(folder, f".{name[:64]}.{secrets.token_hex(8)}")
        source = await anyio.to_thread.run_sync(os.open, local, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = (await anyio.to_thread.run_sync(os.fstat, source)).st_size

            async def write(files: Files, block: Block) -> None:
                data = await anyio.to_thread.run_sync(os.pread, source, block.size, block.offset)
                if len(data) != block.size:
                    raise ResourceError(f"{local}: it changed while it was copied")
                await files.write(temporary, block.offset, data)

            async def finish(files: Files) -> None:
                if not size:
                    await files.write(temporary, 0, b"")
                await files.finish(temporary, path, size)

            try:
                await self._copy(size, write, finish)
            except BaseException:
                await to_its_end(self._give_up(temporary))
                raise
        finally:
            os.close(source)

    async def get(self, remote: str, local: Path) -> None:
        """Copy a file from the host."""
        path = await self._absolute(remote)
        async with self._files() as files:
            size = await files.size(path)
        target, temporary = tempfile.mkstemp(prefix=f".{local.name[:64]}.", dir=local.parent)
        try:

            async def read(files: Files, block: Block) -> None:
                data = await files.read(path, block.offset, block.size)
                if len(data) != block.size:
                    raise ResourceError(f"{self._where}: {path}: it changed while it was copied")
                await anyio.to_thread.run_sync(os.pwrite, target, data, block.offset)

            async def finish(files: Files) -> None:
                """Nothing is left to do at the host."""

            await self._copy(size, read, finish)
            await anyio.to_thread.run_sync(os.replace, temporary, local)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        finally:
            os.close(target)

    @property
    def _where(self) -> str:
        return self._connecting.where

    async def _absolute(self, path: str) -> str:
        """SFTP may begin elsewhere than in the home directory; so may a shell, but it knows where that is."""
        if path.startswith("/"):
            return path
        if not self._home:
            pwd = Command(("sh", "-c", "pwd"), timeout_s=_HOME_TIMEOUT_S)
            said = await self._run(pwd)
            self._home = os.fsdecode(said.stdout.removesuffix(b"\n"))
        return posixpath.join(self._home, path)

    async def _copy(
        self,
        size: int,
        move: Callable[[Files, Block], Awaitable[None]],
        finish: Callable[[Files], Awaitable[None]],
    ) -> None:
        """Move all parts, several at once, over as many connections as it takes."""
        blocks: Blocks | None = None
        losses = 0

        async def work(files: Files, blocks: Blocks) -> None:
            nonlocal losses
            while block := blocks.take():
                await move(files, block)
                blocks.confirm(block)
                losses = 0

        while True:
            try:
                async with self._files() as files:
                    if blocks is None:
                        blocks = Blocks(size, files.block)
                    blocks.give_back()
                    if block := blocks.take():  # alone, so that the file is opened once
                        await move(files, block)
                        blocks.confirm(block)
                    await _together(work, files, blocks, files.at_once)
                    await finish(files)
                    return
            except ConnectionLost:
                losses += 1
                if losses > _LOSSES:
                    raise

    async def _give_up(self, temporary: str) -> None:
        with suppress(InterCEdeError), anyio.move_on_after(_REMOVE_S):
            async with self._files() as files:
                await files.remove(temporary)

    @asynccontextmanager
    async def _files(self) -> AsyncIterator[Files]:
        """The host's files, over the connection as it is now."""
        link = await self._link()
        while self._has_sftp:
            try:
                client = await link.sftp()
            except LinkLost:
                link = await self._link()
                continue
            if client is None:
                self._has_sftp = False
                break
            try:
                yield SFTPFiles(client, self._where)
            finally:
                await to_its_end(link.leave_sftp())
            return
        yield ShellFiles(self._run, self._where)


async def _together(
    work: Callable[[Files, Blocks], Coroutine[Any, Any, None]],
    files: Files,
    blocks: Blocks,
    count: int,
) -> None:
    """Several at the same work; the first error ends all."""
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(work, files, blocks)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
