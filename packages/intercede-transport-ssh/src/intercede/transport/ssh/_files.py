"""Files of the host: through SFTP, and where there is none, through the commands that every host has.

Both do a part of a file at a time, and doing it twice is harmless, so that a copy can go on after the connection was lost.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol, cast

import asyncssh
from asyncssh.constants import FXF_CREAT, FXF_READ, FXF_WRITE

from intercede.core import Command, CommandResult, ConnectionLost, ResourceError

__all__ = ["Files", "SFTPFiles", "ShellFiles"]

#: What a request may carry if the server does not tell, and at most.
_REQUEST: Final = 32 * 1024
_REQUEST_MAX: Final = 256 * 1024
#: What is under way at once.
_UNDER_WAY: Final = 8 * 2**20
_REQUESTS_MAX: Final = 64
#: Of a file for the shell, where each part is a command.
_SHELL_BLOCK: Final = 4 * 2**20
_SHELL_TIMEOUT_S: Final = 600.0


class Files(Protocol):
    """Files of the host. A path is absolute.

    Raises, from every method: ConnectionLost; ResourceError if the host says no.
    """

    @property
    def block(self) -> int:
        """How large a part may be."""
        ...

    @property
    def at_once(self) -> int:
        """How many parts may be under way."""
        ...

    async def size(self, path: str) -> int:
        """How long a regular file is."""
        ...

    async def read(self, path: str, offset: int, size: int) -> bytes:
        """A part of a file; less only at its end."""
        ...

    async def write(self, path: str, offset: int, data: bytes) -> None:
        """Write a part; the file is made if it is not there, for nobody but us."""
        ...

    async def finish(self, temporary: str, path: str, size: int) -> None:
        """Give a complete file its name."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        ...


class SFTPFiles:
    """Files through SFTP.

    Args:
        client: asyncssh's.
        where: The host, for people.
    """

    def __init__(self, client: asyncssh.SFTPClient, where: str) -> None:
        self._client = client
        self._where = where
        self._open: dict[tuple[str, int], asyncssh.SFTPClientFile] = {}
        limits = client.limits
        told = [n for n in (limits.max_read_len, limits.max_write_len) if n]
        self._block = min([_REQUEST_MAX, *told]) if len(told) == 2 else _REQUEST

    @property
    def block(self) -> int:
        """See `Files`."""
        return self._block

    @property
    def at_once(self) -> int:
        """See `Files`."""
        return min(_REQUESTS_MAX, max(1, _UNDER_WAY // self._block))

    async def size(self, path: str) -> int:
        """See `Files`."""
        try:
            attributes = await self._client.stat(path)
        except (asyncssh.Error, OSError) as error:
            self._raise(error, path)
        if attributes.permissions is not None and not stat.S_ISREG(attributes.permissions):
            raise _not_a_file(self._where, path)
        return attributes.size or 0

    async def read(self, path: str, offset: int, size: int) -> bytes:
        """See `Files`."""
        pieces: list[bytes] = []
        try:
            file = await self._file(path, FXF_READ)
            while size:
                piece = cast(bytes, await file.read(size, offset))
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                size -= len(piece)
        except (asyncssh.Error, OSError) as error:
            self._raise(error, path)
        return b"".join(pieces)

    async def write(self, path: str, offset: int, data: bytes) -> None:
        """See `Files`."""
        try:
            file = await self._file(path, FXF_WRITE | FXF_CREAT)
            await file.write(data, offset)
        except (asyncssh.Error, OSError) as error:
            if await self._is_full(error, path):
                raise ResourceError(
                    f"{self._where}: {path}: the file system is full",
                    remedy="make room there",
                    said=str(error),
                ) from None
            self._raise(error, path)

    async def finish(self, temporary: str, path: str, size: int) -> None:
        """See `Files`."""
        await self._close()
        try:
            await self._client.posix_rename(temporary, path)
        except asyncssh.SFTPNoSuchFile as error:
            # An earlier attempt may have done it, and its answer was lost.
            if not await self._has(path, size):
                self._raise(error, path)
        except (asyncssh.Error, OSError) as error:
            self._raise(error, path)

    async def remove(self, path: str) -> None:
        """See `Files`."""
        await self._close()
        try:
            await self._client.remove(path)
        except asyncssh.SFTPNoSuchFile:
            pass
        except (asyncssh.Error, OSError) as error:
            self._raise(error, path)

    async def _file(self, path: str, flags: int) -> asyncssh.SFTPClientFile:
        file = self._open.get((path, flags))
        if file is None:
            # With a block size of 0 it sends one request at a time, and starts no tasks of its own.
            file = await self._client.open(
                path,
                flags,
                asyncssh.SFTPAttrs(permissions=0o600),
                encoding=None,
                block_size=0,
            )
            self._open[path, flags] = file
        return file

    async def _close(self) -> None:
        for file in self._open.values():
            try:
                await file.close()
            except (asyncssh.Error, OSError) as error:
                self._raise(error, "")
        self._open.clear()

    async def _has(self, path: str, size: int) -> bool:
        try:
            return await self.size(path) == size
        except ResourceError:
            return False

    async def _is_full(self, error: Exception, path: str) -> bool:
        """OpenSSH says of a full disk what it says of everything that it has no number for: "Failure"."""
        if isinstance(error, (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)):
            return True
        if not isinstance(error, asyncssh.SFTPFailure):
            return False
        try:
            return not (await self._client.statvfs(posixpath.dirname(path))).bavail
        except (asyncssh.Error, OSError):
            return False

    def _raise(self, error: Exception, path: str) -> NoReturn:
        lost = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError)
        if isinstance(error, (*lost, OSError)):
            raise ConnectionLost(
                f"{self._where}: the connection was lost while a file was copied",
                may_have_run=True,
                said=str(error),
            ) from None
        if isinstance(error, asyncssh.SFTPNoSuchFile):
            raise _absent(self._where, path) from None
        raise ResourceError(f"{self._where}: {path}: SFTP refuses it", said=str(error)) from None


class ShellFiles:
    """Files through `dd` and the like.

    Args:
        run: Runs a command at the host.
        where: The host, for people.
    """

    block = _SHELL_BLOCK
    at_once = 2

    def __init__(self, run: Callable[[Command], Awaitable[CommandResult]], where: str) -> None:
        self._run = run
        self._where = where

    async def size(self, path: str) -> int:
        """See `Files`."""
        text = 'if [ ! -e "$1" ]; then echo absent; elif [ -f "$1" ]; then wc -c <"$1"; else echo other; fi'
        answer = (await self._do(text, path)).decode("ascii", "replace").strip()
        if answer == "absent":
            raise _absent(self._where, path)
        if not answer.isdigit():
            raise _not_a_file(self._where, path)
        return int(answer)

    async def read(self, path: str, offset: int, size: int) -> bytes:
        """See `Files`."""
        text = 'dd if="$1" bs="$2" skip="$3" count=1'
        return (await self._do(text, path, str(self.block), str(offset // self.block)))[:size]

    async def write(self, path: str, offset: int, data: bytes) -> None:
        """See `Files`."""
        # Not `count=1`: what comes through a pipe comes in pieces, which follow one another from there.
        text = 'umask 077; dd of="$1" bs="$2" seek="$3" conv=notrunc'
        words = (str(self.block), str(offset // self.block))
        await self._do(text, path, *words, stdin=data)

    async def finish(self, temporary: str, path: str, size: int) -> None:
        """See `Files`."""
        text = (
            'if [ -d "$2" ]; then echo "it is a directory" >&2; exit 1; fi;'
            ' if [ ! -e "$1" ] && [ "$(wc -c <"$2")" -eq "$3" ]; then exit 0; fi;'
            ' if [ ! -e "$1" ] && [ "$3" -eq 0 ]; then umask 077; : >"$1"; fi;'
            ' if [ "$(wc -c <"$1")" -ne "$3" ]; then echo "its size is wrong" >&2; exit 1; fi;'
            ' mv -f "$1" "$2"'
        )
        await self._do(text, temporary, path, str(size))

    async def remove(self, path: str) -> None:
        """See `Files`."""
        await self._do('rm -f "$1"', path)

    async def _do(self, text: str, *words: str, stdin: bytes = b"") -> bytes:
        result = await self._run(
            Command(
                ("sh", "-c", text, "copy", *words),
                stdin=stdin,
                timeout_s=_SHELL_TIMEOUT_S,
                max_output=self.block + 1024,
            )
        )
        if result.returncode != 0:
            raise ResourceError(
                f"{self._where}: {words[0]}: it cannot be copied",
                said=result.stderr.decode("utf-8", "replace"),
            )
        return result.stdout


def _absent(where: str, path: str) -> ResourceError:
    return ResourceError(f"{where}: {path}: there is no such file")


def _not_a_file(where: str, path: str) -> ResourceError:
    return ResourceError(f"{where}: {path}: it is no regular file", remedy="copy what is in it")
