"""Where the keys and passwords of running stacks are: in a folder of the user's own, never in the repository."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["folder_of", "folders", "fresh_folder", "locked", "remove_folder", "write_private"]


def _root() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base, "intercede-stacks")


def folder_of(stack: str) -> Path:
    """What belongs to this start of a stack."""
    return _root() / stack


def folders() -> list[str]:
    """The stacks that have a folder."""
    return sorted(place.name for place in _root().glob("*") if place.is_dir())


def fresh_folder(stack: str) -> Path:
    """An empty folder for a stack that is about to start."""
    remove_folder(stack)
    folder = folder_of(stack)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def remove_folder(stack: str) -> None:
    """Remove what an earlier start has left."""
    shutil.rmtree(folder_of(stack), ignore_errors=True)


def write_private(path: Path, content: str) -> Path:
    """Write a file that only we can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    return path


@contextmanager
def locked() -> Iterator[None]:
    """Nobody else starts or stops stacks of this user meanwhile."""
    root = _root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
