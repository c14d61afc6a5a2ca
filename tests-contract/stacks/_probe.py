"""Looking into a container, past everything that is on trial, with nothing but a shell's tools on the other side.

Each look is one command in the container, as the account whose jobs run there. What is searched for never crosses: the container tells all
it has, framed by a random word, and the search is made here.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from intercede.core import JobHandle

__all__ = ["ShellProbe"]

_TIMEOUT_S: Final = 60.0
#: Processes that have ended and wait to be collected are not processes any more.
_DEAD_STATES: Final = frozenset(b"ZXx")
_MISSING: Final = 3

#: FRAME: of every process its stat, its arguments and, where it is ours, its environment.
_PROCESSES: Final = """
for process in /proc/[0-9]*; do
  printf '\\n%s%s\\n' "$1" "${process#/proc/}"
  cat "$process/stat" "$process/cmdline" "$process/environ" 2>/dev/null
done
:
"""
#: FRAME PLACE: every file beneath the place that another account could read, if it could come to the place at all.
_FILES: Final = """
place=$2
while [ "$place" != / ]; do
  [ -n "$(find "$place" -prune -perm -001 2>/dev/null)" ] || exit 0
  place=$(dirname "$place")
done
find "$2" -type d ! -perm -001 -prune -o -type f -perm -004 -exec sh -c '
  frame=$1; shift
  for file; do printf "\\n%s%s\\n" "$frame" "$file"; cat "$file"; done' sh "$1" {} +
:
"""


@frozen
class ShellProbe:
    """A probe for a host on which a shell can be run.

    Args:
        prefix: What runs the words that follow on the host, each as it is: `podman exec --interactive NAME`, or nothing at all.
        root: The directory beneath which the backend keeps `<submission>/<copy>`.
    """

    prefix: tuple[str, ...]
    root: str

    async def processes(self, marker: str) -> Sequence[str]:
        """See `Probe`."""
        return [
            f"{number}: {words[:200].decode(errors='replace')}"
            for number, words in await self._processes()
            if marker.encode() in words
        ]

    async def exposed(self, needle: bytes) -> Sequence[str]:
        """See `Probe`."""
        frame = secrets.token_hex(16)
        files = _framed(await self._run(_FILES, frame, self.root), frame)
        return [
            *(
                f"arguments or environment of process {number}: {words[:200].decode(errors='replace')}"
                for number, words in await self._processes()
                if needle in words
            ),
            *(f"readable by others: {path}" for path, content in files if needle in content),
        ]

    async def _processes(self) -> Sequence[tuple[str, bytes]]:
        """Each living process: its number, and its arguments and environment in a row."""
        frame = secrets.token_hex(16)
        found = []
        for number, content in _framed(await self._run(_PROCESSES, frame), frame):
            stat, _, words = content.partition(b"\n")
            state = stat.rpartition(b")")[2].split()[:1]
            if state and state[0][0] not in _DEAD_STATES:
                found.append((number, words.replace(b"\0", b" ")))
        return found

    async def sandbox(self, handle: JobHandle) -> str | None:
        """See `Probe`."""
        place = f"{self.root}/{handle.submission}/{handle.copy}"
        there = await self._asked(f'[ -d "$1" ] || exit {_MISSING}', place)
        return None if there is None else place

    async def read(self, path: str) -> bytes | None:
        """See `Probe`."""
        return await self._asked(f'[ -f "$1" ] || exit {_MISSING}; exec cat "$1"', path)

    async def write(self, path: str, content: bytes) -> None:
        """See `Probe`."""
        await self._run('mkdir -p "$(dirname "$1")" && exec cat > "$1"', path, stdin=content)

    async def replace_by_link(self, path: str, target: str) -> None:
        """See `Probe`."""
        await self._run('rm -r "$1" && exec ln -s "$2" "$1"', path, target)

    async def remove(self, path: str) -> None:
        """See `Probe`."""
        await self._run('exec rm -rf "$1"', path)

    async def scratch(self) -> str:
        """See `Probe`."""
        return "/tmp"  # noqa: S108  # the host's

    async def _run(self, script: str, *words: str, stdin: bytes = b"") -> bytes:
        """What the script prints; it must not fail."""
        said = await self._asked(script, *words, stdin=stdin)
        if said is None:
            raise FileNotFoundError(f"{words} on the host")
        return said

    async def _asked(self, script: str, *words: str, stdin: bytes = b"") -> bytes | None:
        """What the script prints; None if it says that there is no such thing."""
        command = [*self.prefix, "sh", "-c", script, "probe", *words]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                out, err = await process.communicate(stdin)
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode == _MISSING:
            return None
        if process.returncode != 0:
            words_said = err.decode(errors="replace").strip()
            raise RuntimeError(f"{self.prefix}: exit code {process.returncode}: {words_said}")
        return out


def _framed(said: bytes, frame: str) -> Iterator[tuple[str, bytes]]:
    """The parts of an answer: what the line with the frame named, and what followed."""
    for part in said.split(f"\n{frame}".encode())[1:]:
        name, _, content = part.partition(b"\n")
        yield os.fsdecode(name), content
