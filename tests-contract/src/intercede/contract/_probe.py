"""Looking at the host where the jobs run, past the backend.

Rules about processes, leaks and "nowhere else" cannot be decided by asking the backend that is on trial. A site that can run something on
the host provides a `Probe`; without one these rules are "not observed". `LocalProbe` is for resources whose host is this machine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from intercede.core import JobHandle

__all__ = ["LocalProbe", "Probe", "own_children", "own_descriptors"]

#: Processes that have ended and wait to be collected are not processes any more.
_DEAD_STATES = frozenset("ZXx")


@runtime_checkable
class Probe(Protocol):
    """What the suite asks of the host. Paths are paths of the host."""

    async def processes(self, marker: str) -> Sequence[str]:
        """The living processes in whose arguments or environment the marker occurs, described for people."""
        ...

    async def exposed(self, needle: bytes) -> Sequence[str]:
        """Where another account, or a log, would show these bytes now: argv, environments, files that others can read."""
        ...

    async def sandbox(self, handle: JobHandle) -> str | None:
        """The directory that this job's copy has at the resource; None if there is none."""
        ...

    async def read(self, path: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        ...

    async def write(self, path: str, content: bytes) -> None:
        """Write a file as the payload's account would. Parents are made."""
        ...

    async def replace_by_link(self, path: str, target: str) -> None:
        """Put a symbolic link where the directory `path` is, as the payload's account could; its content is lost."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a file, a link or a directory with all that is in it; nothing if it is not there."""
        ...

    async def scratch(self) -> str:
        """A directory of the host, outside all sandboxes, in which the payload's account may write."""
        ...


class LocalProbe:
    """The probe for this machine, by way of /proc.

    Args:
        root: The directory beneath which the backend keeps `<submission>/<copy>`.
        logs: Further files or directories where something might be written, searched in full.
    """

    def __init__(self, root: str | Path, logs: Sequence[str | Path] = ()) -> None:
        self._root = Path(root)
        self._logs = tuple(Path(log) for log in logs)

    async def processes(self, marker: str) -> Sequence[str]:
        """See `Probe`."""
        return await asyncio.to_thread(self._processes, marker.encode())

    def _processes(self, needle: bytes) -> Sequence[str]:
        return [
            f"{process.name}: {_argv(process).decode(errors='replace')[:200]}"
            for process in _living()
            if needle in _argv(process) or needle in _bytes(process / "environ")
        ]

    async def exposed(self, needle: bytes) -> Sequence[str]:
        """See `Probe`."""
        return await asyncio.to_thread(self._exposed, needle)

    def _exposed(self, needle: bytes) -> Sequence[str]:
        places = [
            f"{kind} of process {process.name}: {_argv(process).decode(errors='replace')[:200]}"
            for process in _living()
            for kind in ("cmdline", "environ")
            if needle in _bytes(process / kind)
        ]
        if _open_to_others(self._root):
            places += [
                f"readable by others: {file}"
                for file in _files(self._root, others_only=True)
                if needle in _bytes(file)
            ]
        places += [
            f"log: {file}"
            for log in self._logs
            for file in _files(log, others_only=False)
            if needle in _bytes(file)
        ]
        return places

    async def sandbox(self, handle: JobHandle) -> str | None:
        """See `Probe`."""
        place = self._root / handle.submission / str(handle.copy)
        return str(place) if await asyncio.to_thread(place.is_dir) else None

    async def read(self, path: str) -> bytes | None:
        """See `Probe`."""
        return await asyncio.to_thread(_read, Path(path))

    async def write(self, path: str, content: bytes) -> None:
        """See `Probe`."""
        await asyncio.to_thread(_write, Path(path), content)

    async def replace_by_link(self, path: str, target: str) -> None:
        """See `Probe`."""
        await asyncio.to_thread(_replace_by_link, Path(path), target)

    async def remove(self, path: str) -> None:
        """See `Probe`."""
        await asyncio.to_thread(_remove, Path(path))

    async def scratch(self) -> str:
        """See `Probe`."""
        return tempfile.gettempdir()


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _replace_by_link(place: Path, target: str) -> None:
    shutil.rmtree(place)
    place.symlink_to(target)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _living() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        state = _bytes(process / "stat").rpartition(b")")[2].split()
        if state and state[0].decode() not in _DEAD_STATES:
            yield process


def _bytes(path: Path) -> bytes:
    """A file's bytes; none if it has gone, or is not ours to read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _argv(process: Path) -> bytes:
    return _bytes(process / "cmdline").replace(b"\0", b" ")


def _open_to_others(directory: Path) -> bool:
    """Whether another account could come to this directory at all."""
    try:
        return all(
            place.stat().st_mode & stat.S_IXOTH
            for place in (directory, *directory.resolve().parents)
        )
    except OSError:
        return False


def _files(place: Path, *, others_only: bool) -> Iterator[Path]:
    """The regular files beneath a place; with `others_only` those that another account could read."""
    if place.is_file():
        yield place
    for folder, names, files in os.walk(place):
        if others_only:
            names[:] = [name for name in names if _mode(Path(folder, name)) & stat.S_IXOTH]
        for name in files:
            mode = _mode(Path(folder, name))
            if stat.S_ISREG(mode) and (not others_only or mode & stat.S_IROTH):
                yield Path(folder, name)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def own_descriptors() -> dict[str, str] | None:
    """The open descriptors of this process; None where the system does not tell."""
    place = Path("/proc/self/fd")
    if not place.is_dir():
        return None
    found = {}
    for entry in os.listdir(place):  # noqa: PTH208  # iterdir holds a descriptor of its own meanwhile
        try:
            found[entry] = os.readlink(place / entry)  # noqa: PTH115  # not every target is a path
        except OSError:
            continue
    return found


def own_children() -> list[str] | None:
    """The living child processes of this process; None where the system does not tell."""
    if not Path("/proc/self/stat").exists():
        return None
    parent = str(os.getpid()).encode()
    return [
        f"{process.name}: {_argv(process).decode(errors='replace')[:200]}"
        for process in _living()
        if _bytes(process / "stat").rpartition(b")")[2].split()[1:2] == [parent]
    ]
