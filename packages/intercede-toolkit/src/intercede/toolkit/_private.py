"""Directories that a process has for itself beneath one where results go, and what becomes of those whose process was killed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["private_name", "remove", "sweep"]

#: Whose a private directory is: machine, process id, the process's start time; then random.
_PRIVATE: Final = re.compile(
    r"\.intercede-(?P<machine>[0-9a-f]{12})-(?P<pid>[0-9]{1,9})-(?P<start>[0-9]{1,20})-[0-9a-f]{16}"
)
#: After this long, what a process of another machine left is nobody's: no fetch takes so long.
_FOREIGN_AGE_S: Final = 7 * 86_400
_START_UNKNOWN: Final = "0"


def remove(path: bytes, descriptor: int | None = None) -> None:
    """Remove a directory with all beneath it, or whatever else it is. What cannot be removed stays, for `sweep` to try again.

    Args:
        path: Where it is.
        descriptor: Of the directory that a relative path begins at; None: the current one.
    """
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(path, dir_fd=descriptor).st_mode):
            shutil.rmtree(path, ignore_errors=True, dir_fd=descriptor)
        else:
            os.unlink(path, dir_fd=descriptor)


def sweep(dest: Path) -> None:
    """Remove what fetches that were killed have left in `dest`.

    A private directory carries in its name which process of which machine made it. It is removed if it is ours and that process is gone;
    if it is another machine's, or from before this one was started, after a week.

    Args:
        dest: Where sinks were; may be absent.

    Raises:
        OSError: It cannot be read.
    """
    try:
        names = os.listdir(os.fsencode(dest))  # noqa: PTH208 - bytes
    except FileNotFoundError:
        return
    for name in names:
        owner = _PRIVATE.fullmatch(os.fsdecode(name))
        path = os.fsencode(dest) + b"/" + name
        if owner is not None and _is_stale(path, owner):
            remove(path)


def _is_stale(path: bytes, owner: re.Match[str]) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    if status.st_uid != os.geteuid():
        return False
    if owner["machine"] != _machine():
        return time.time() - status.st_mtime > _FOREIGN_AGE_S
    start = _start_of(int(owner["pid"]))
    if start is None:
        return True
    return _START_UNKNOWN not in (start, owner["start"]) and start != owner["start"]


def private_name() -> bytes:
    """A new one, by which `sweep` knows whose it is."""
    return f"{_private_prefix(os.getpid())}{secrets.token_hex(8)}".encode()


@cache  # by the process id: a forked child has its own
def _private_prefix(pid: int) -> str:
    return f".intercede-{_machine()}-{pid}-{_start_of(pid) or _START_UNKNOWN}-"


@cache
def _machine() -> str:
    """Where process ids mean the same: one start of one kernel, and in it one namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path
    except OSError:
        boot, namespace = socket.gethostname(), ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:12]


def _start_of(pid: int) -> str | None:
    """When a process started, in the kernel's own measure; None: there is none."""
    try:
        # proc(5): the 22nd field; the second is the command in parentheses, with whatever it is called.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[19].decode()
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return _START_UNKNOWN
