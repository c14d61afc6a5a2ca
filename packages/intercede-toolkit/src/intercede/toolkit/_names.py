"""Names of files from a source that nobody trusts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = [
    "NAME_MAX",
    "NO_NAMES",
    "PATH_MAX",
    "Name",
    "Unsafe",
    "check_name",
    "check_part",
    "directories_of",
    "encoded",
    "text_of",
]

#: NAME_MAX and PATH_MAX of Linux, in bytes; the latter counts the NUL byte.
NAME_MAX: Final = 255
PATH_MAX: Final = 4096
#: Far beyond any result seen, and well within what `shutil.rmtree` can remove again (it recurses).
_DEPTH_MAX: Final = 100

#: What stands between slashes and means nothing.
NO_NAMES: Final = (b"", b".")

#: A name that was checked: its components with one "/" between them, as bytes, so that the encoding of file names has no say. The
#: job's directory itself is b"".
Name = bytes


class Unsafe(Exception):
    """A member that must be left out; the message is its reason."""


def directories_of(name: Name) -> Iterator[Name]:
    """Those it lies in, the uppermost first."""
    at = name.find(b"/")
    while at >= 0:
        yield name[:at]
        at = name.find(b"/", at + 1)


def check_name(name: bytes) -> Name:
    """A relative name that stays where it is put.

    Raises:
        Unsafe: It does not, or no file can have it.
    """
    if name.startswith(b"/"):
        raise Unsafe("its name is absolute")
    parts = name.split(b"/")
    if b"" in parts or b"." in parts:
        parts = [part for part in parts if part not in NO_NAMES]
        if not parts:
            raise Unsafe("its name is empty")
    if len(parts) > _DEPTH_MAX:
        raise Unsafe(f"it is deeper than {_DEPTH_MAX} directories")
    for part in parts:
        check_part(part)
    return b"/".join(parts)


def check_part(part: bytes) -> None:
    """See that a file can have it as a component of its name.

    Raises:
        Unsafe: None can.
    """
    if part == b"..":
        raise Unsafe("its name has '..'")
    if b"\0" in part:
        raise Unsafe("its name has a NUL byte")
    if len(part) > NAME_MAX:
        raise Unsafe(f"a part of its name is longer than {NAME_MAX} bytes")


def encoded(text: str) -> bytes:
    """The bytes that a text stands for, as the source wrote it.

    Raises:
        Unsafe: There are none.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Unsafe(f"{text!r} has a surrogate that stands for no byte") from None


def text_of(name: bytes) -> str:
    """A name as the source wrote it."""
    return name.decode("utf-8", "surrogateescape")
