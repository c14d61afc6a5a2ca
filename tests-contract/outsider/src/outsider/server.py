"""The other end of the transport: runs what it is sent through a Unix socket. For tests; it asks nobody who he is.

    python -m outsider.server SOCKET

One connection carries one command. Both directions are frames: a letter, the length in 4 bytes, so many bytes.

    (`argv`: each argument in base64, with a space between)

    to the server      r  what to run: a JSON object of `name` and `argv`       i  input; an empty one is its end
                       e  end the command of this name                          (answered with an empty `e` when it is over)
    to the client      o  stdout     e  stderr     x  the exit status, in decimal
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["MAX_FRAME", "frame", "read_frame", "serve"]

MAX_FRAME = 64 * 1024
_GRACE_S = 1.0


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """A frame, ready to be sent."""
    return kind + struct.pack("!I", len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next frame.

    Raises:
        EOFError, OSError: The other side has gone.
    """
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0])


class _Server:
    def __init__(self) -> None:
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._ended: set[str] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(EOFError, OSError):
            kind, content = await read_frame(reader)
            if kind == b"r":
                await self._run(json.loads(content), reader, writer)
                # Closed while input still comes, the socket would be reset, and what we said lost with it: the client hangs up.
                while await reader.read(MAX_FRAME):
                    pass
            elif kind == b"e":
                await self._end(content.decode())
                writer.write(frame(b"e"))
                await writer.drain()
        writer.close()

    async def _run(
        self, wanted: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name, argv = wanted["name"], list(map(base64.b64decode, wanted["argv"].split(" ")))
        if name in self._ended:
            return
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=Path.home(),
                start_new_session=True,
            )
        except OSError as error:
            # As a shell would say it.
            writer.write(frame(b"e", f"{error}\n".encode()) + frame(b"x", b"127"))
            await writer.drain()
            return
        self._running[name] = child
        feeding = asyncio.create_task(self._feed(name, reader, child))
        try:
            assert child.stdout is not None and child.stderr is not None
            await asyncio.gather(
                _copy(child.stdout, b"o", writer), _copy(child.stderr, b"e", writer)
            )
            code = await child.wait()
            writer.write(frame(b"x", str(code).encode()))
            await writer.drain()
        finally:
            # Whatever happened here, an unfinished command does not outlive its connection.
            if child.returncode is None:
                await self._end(name)
            del self._running[name]
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding

    async def _feed(
        self, name: str, reader: asyncio.StreamReader, child: asyncio.subprocess.Process
    ) -> None:
        assert child.stdin is not None
        try:
            while True:
                _, content = await read_frame(reader)
                if not content:
                    child.stdin.close()
                elif not child.stdin.is_closing():
                    with suppress(OSError):  # a command need not read its input
                        child.stdin.write(content)
                        await child.stdin.drain()
        except (EOFError, OSError):
            await self._end(name)

    async def _end(self, name: str) -> None:
        """End a command with all of its session's processes, and return when that has happened."""
        self._ended.add(name)
        child = self._running.get(name)
        if child is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _GRACE_S)


async def _copy(source: asyncio.StreamReader, kind: bytes, writer: asyncio.StreamWriter) -> None:
    """Hand on what the command prints, no faster than the client takes it."""
    while content := await source.read(MAX_FRAME):
        writer.write(frame(kind, content))
        await writer.drain()


async def serve(path: str) -> None:
    """Serve until cancelled."""
    server = await asyncio.start_unix_server(_Server().connected, path)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
