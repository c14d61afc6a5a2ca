"""What of a pretend work directory is fetched, and how it comes to the caller's disk.

Selecting is pure. Writing happens in a private directory beneath `dest`, which is renamed when it is whole (F3), so that a job's
directory is there completely or not at all.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen

from intercede.core import Failure, FailureCode, JobOutput, OutputSpec

from ._content import Content, encoded
from ._payload import Entry, Kind, resolved

__all__ = ["Gathered", "Limits", "over_limit", "select", "write_output"]

#: How many refused members a message names.
_SHOWN: Final = 5
#: Another fetch of the same job may put its directory in place between our two renames.
_RENAMES: Final = 10


@frozen
class Limits:
    """How much one job's output may be."""

    max_bytes: int
    max_files: int


@frozen
class Gathered:
    """One job's output, not yet written.

    Attributes:
        streams: stdout, stderr and log, by the names they get.
        members: The payload's files, by name.
        refused: What is not fetched, and why, by name.
        shut: What may not be read.
        missing: Patterns that matched nothing.
    """

    streams: Mapping[str, Content] = field(factory=dict)
    members: Mapping[str, Content] = field(factory=dict)
    refused: Mapping[str, str] = field(factory=dict)
    shut: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """All of it, in bytes."""
        return sum(content.size for content in (*self.streams.values(), *self.members.values()))


# ---------------------------------------------------------------- selecting


def select(
    files: Mapping[str, Entry],
    outputs: OutputSpec,
    *,
    staged: frozenset[str],
    secrets: frozenset[str],
    streams: Mapping[str, Content],
) -> Gathered:
    """What the specification asks for.

    Args:
        files: The work directory.
        outputs: Names, patterns, or everything.
        staged: Names that were put there: not part of "everything".
        secrets: Names that never leave.
        streams: What is fetched in any case.
    """
    wanted: set[str] = set()
    missing = []
    for member in outputs.members:
        matching = _matching(files, member.pattern) - secrets
        wanted |= matching
        if not matching:
            missing.append(member.pattern)
    if outputs.everything:
        wanted |= set(files) - staged - secrets
    shut = {name for name in wanted if _is_shut(files, name)}
    wanted -= shut
    members = {
        name: files[name].content
        for name in sorted(wanted, key=encoded)
        if files[name].kind is Kind.FILE
    }
    refused = {}
    for name in sorted(wanted, key=encoded):
        if files[name].kind is Kind.FIFO:
            refused[name] = "a FIFO"
        if files[name].kind is Kind.LINK:
            target = resolved(files, name)
            if target is not None and target in wanted and files[target].kind is Kind.FILE:
                members[name] = files[target].content
            else:
                refused[name] = f"a link to {files[name].target}, which is not fetched"
    return Gathered(streams, members, refused, tuple(sorted(shut, key=encoded)), tuple(missing))


def _is_shut(files: Mapping[str, Entry], name: str) -> bool:
    """It may not be opened, or a directory above it."""
    return files[name].mode == 0 or ("/" in name and _is_shut(files, posixpath.dirname(name)))


def _matching(files: Mapping[str, Entry], pattern: str) -> set[str]:
    """The names that a pattern selects; for a tree the directories too, so that an empty one is not missing."""
    is_tree = pattern.endswith("/")
    expression = _expression(pattern.removesuffix("/"))
    tops = {name for name in files if expression.fullmatch(encoded(name))}
    if not is_tree:
        return {name for name in tops if files[name].kind is not Kind.DIRECTORY}
    roots = {name for name in tops if files[name].kind in (Kind.DIRECTORY, Kind.LINK)}
    prefixes = tuple(f"{root}/" for root in roots)
    return roots | {name for name in files if name.startswith(prefixes)}


def _expression(pattern: str) -> re.Pattern[bytes]:
    """Matching is by bytes; no sign crosses "/"; a leading dot is matched only by a dot."""
    parts = [_part(encoded(part)) for part in pattern.split("/")]
    return re.compile(b"/".join(parts), re.DOTALL)


def _part(pattern: bytes) -> bytes:
    expression = b"" if pattern.startswith(b".") else rb"(?!\.)"
    at = 0
    while at < len(pattern):
        sign = pattern[at : at + 1]
        at += 1
        if sign == b"*":
            expression += b"[^/]*"
        elif sign == b"?":
            expression += b"[^/]"
        elif sign == b"[":
            negated = pattern[at : at + 1] == b"!"
            first = at + negated
            end = pattern.index(b"]", first + 1)
            expression += _bracket(pattern[first:end], negated=negated)
            at = end + 1
        else:
            expression += re.escape(sign)
    return expression


def _bracket(inside: bytes, *, negated: bool) -> bytes:
    """One byte out of a set; a range that ends before it begins holds nothing."""
    allowed: set[int] = set()
    at = 0
    while at < len(inside):
        if at + 2 < len(inside) and inside[at + 1 : at + 2] == b"-":
            allowed.update(range(inside[at], inside[at + 2] + 1))
            at += 3
        else:
            allowed.add(inside[at])
            at += 1
    chosen = (set(range(256)) - allowed if negated else allowed) - {ord("/")}
    if not chosen:
        return rb"(?!)"
    return b"[" + b"".join(rb"\x%02x" % byte for byte in sorted(chosen)) + b"]"


# ---------------------------------------------------------------- writing


def over_limit(gathered: Gathered, limits: Limits) -> Failure | None:
    """Why this is too much, if it is."""
    if gathered.size > limits.max_bytes:
        message = (
            f"the output has {gathered.size} bytes, more than output_max_bytes={limits.max_bytes}"
        )
    elif len(gathered.members) > limits.max_files:
        message = (
            f"the output has {len(gathered.members)} files,"
            f" more than output_max_files={limits.max_files}"
        )
    else:
        return None
    return Failure(FailureCode.LIMIT, f"{message}; raise the limit, or keep less")


def write_output(
    dest: Path, place: str, gathered: Gathered, stdout: str, stderr: str, log: str
) -> JobOutput:
    """Write one job's output to `dest/place`, whole or not at all.

    Args:
        dest: The caller's directory; exists.
        place: `<submission>/<copy>`.
        gathered: What to write.
        stdout: The name of standard output among the streams.
        stderr: Likewise.
        log: Likewise.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    private = Path(tempfile.mkdtemp(prefix=".fetching-", dir=dest))
    try:
        whole = private / "new"
        for name, content in gathered.streams.items():
            _write(whole / name, content)
        for name, content in gathered.members.items():
            _write(whole / "work" / name, content)
        final = dest / place
        final.parent.mkdir(exist_ok=True)
        _put_in_place(whole, final, private / "old")
    finally:
        shutil.rmtree(private, ignore_errors=True)

    def path_of(name: str) -> Path | None:
        return final / name if name in gathered.streams else None

    return JobOutput(
        stdout=path_of(stdout),
        stderr=path_of(stderr),
        log=path_of(log),
        files={name: final / "work" / name for name in gathered.members},
        missing=gathered.missing,
        failure=_left_out(gathered.refused, gathered.shut),
    )


def _left_out(refused: Mapping[str, str], shut: Sequence[str]) -> Failure | None:
    if refused:
        shown = ", ".join(f"{name!r} is {why}" for name, why in list(refused.items())[:_SHOWN])
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        return Failure(FailureCode.UNSAFE, f"left out: {shown}{more}; fetch plain files only")
    if shut:
        return Failure(FailureCode.FAILED, f"not all could be read: {shut[0]!r} may not be opened")
    return None


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in content.chunks():
            file.write(chunk)


def _put_in_place(whole: Path, final: Path, aside: Path) -> None:
    for attempt in range(_RENAMES):
        try:
            whole.rename(final)
        except OSError:
            if attempt + 1 == _RENAMES or not os.path.lexists(final):
                raise
            with contextlib.suppress(FileNotFoundError):
                final.rename(aside.with_name(f"{aside.name}{attempt}"))
        else:
            return
