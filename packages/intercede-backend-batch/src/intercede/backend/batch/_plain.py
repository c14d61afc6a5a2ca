"""The files of a sandbox, sent and received by the shell itself, for hosts whose tar will not do.

To the host goes shell text that says, file by file, how many of the bytes that follow it are whose. From it comes, per member,

    KIND SIZE NAME-LENGTH TARGET-LENGTH, newline, NAME, TARGET, and SIZE bytes

with the kinds of `_KINDS`. Lengths count bytes (in the C locale, which every script sets), so that no name can end early. It takes some
processes per file where tar takes none, and as many round trips: one.

Bytes in, the events of a tar stream out: nothing here touches a file system.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

from intercede.toolkit import (
    ArchiveEnd,
    MemberEnd,
    TarData,
    TarError,
    TarEvent,
    TarKind,
    TarMember,
    TarTrailing,
    quote,
)

__all__ = ["PACK", "PlainReader", "Unread", "unpack"]

#: How one member is announced. What is not a regular file, a link or the job's directory is "o"; "u" could not be read, and why is in the
#: target's place; "e" is the end.
_KINDS: Final = {
    "f": TarKind.FILE,
    "x": TarKind.FILE,
    "l": TarKind.SYMLINK,
    "d": TarKind.DIRECTORY,
    "o": TarKind.OTHER,
}
_HEAD: Final = re.compile(rb"([fxldoue]) ([0-9]{1,18}) ([0-9]{1,6}) ([0-9]{1,6})\n")
_HEAD_MAX: Final = 36

#: Sends the members whose names are the arguments. A file's bytes are as many as were announced, whatever becomes of it meanwhile: what
#: is missing is filled with zeros and told.
_SEND: Final = r"""
exec </dev/null
member() { printf '%s %s %s %s\n%s%s' "$1" "$2" "${#f}" "${#3}" "$f" "$3"; }
for f; do
  if [ -h "$f" ]; then target=$(readlink "$f"; echo .); member l 0 "${target%??}"
  elif [ -d "$f" ]; then member d 0 ""
  elif [ ! -f "$f" ] && [ -e "$f" ]; then member o 0 ""
  elif size=$(wc -c 2>/dev/null < "$f") 2>/dev/null; then
    size=$((size)) kind=f
    [ ! -x "$f" ] || kind=x
    member "$kind" "$size" ""
    if [ "$size" -gt 0 ]; then
      cat "$f" /dev/zero 2>/dev/null | head -c "$size"
      now=$(wc -c 2>/dev/null < "$f") 2>/dev/null
      [ "$((now))" -eq "$size" ] || member u 0 "it changed while it was read"
    fi
  else member u 0 "it cannot be opened"
  fi
done
"""
#: Sends the members whose names come on its input, each with a NUL.
PACK: Final = f"xargs -0 sh -c {quote(_SEND)} plain && printf 'e 0 0 0\\n'"

#: `store SIZE MODE NAME`: writes so many bytes of the input to a file.
_STORE: Final = """\
if dd if=/dev/null iflag=fullblock 2>/dev/null; then
  blocks() {
    [ "$1" -lt 1048576 ] || dd bs=1048576 "count=$(($1 / 1048576))" iflag=fullblock || return
    [ "$(($1 % 1048576))" -eq 0 ] || dd "bs=$(($1 % 1048576))" count=1 iflag=fullblock
  }
else
  blocks() { dd bs=1 "count=$1"; }
fi
store() {
  if [ "$1" -eq 0 ]; then true > "$3"
  else words=$(blocks "$1" 2>&1 > "$3")
  fi || { printf '%s\\n' "$words" | sed -n '/^dd: /p'; return 1; }
  [ "$2" = 600 ] || chmod "$2" "$3"
}
"""
#: How many directories one `mkdir` makes: a command line has a limit, and a name may have 4,096 bytes.
_DIRECTORIES_AT_ONCE: Final = 20


def unpack(directories: Iterable[str], files: Sequence[tuple[str, int, int]]) -> str:
    """Shell text that makes the directories and then, of the input, the files; it fails where one cannot be made.

    Whether the input was whole is for the last file to tell: at its end the rest is empty.

    Args:
        directories: By name.
        files: Name, size and mode, in the order in which their bytes come.
    """
    above = {name.rpartition("/")[0]: None for name, _, _ in files} | dict.fromkeys(directories)
    made = [name for name in above if name]
    lines = [
        f"mkdir -p {' '.join(map(quote, made[start : start + _DIRECTORIES_AT_ONCE]))} || return 1"
        for start in range(0, len(made), _DIRECTORIES_AT_ONCE)
    ]
    lines += [f"store {size} {mode:o} {quote(name)} || return 1" for name, size, mode in files]
    # In a function the text is parsed before any of it reads the input.
    return f"{_STORE}unpack() {{\n" + "\n".join(lines) + "\n}\nunpack"


@frozen
class Unread:
    """A member, or the rest of one, could not be read on the host."""

    name: str
    reason: str


class PlainReader:
    """Reads a stream, however it is cut into chunks, as `TarReader` does."""

    def __init__(self) -> None:
        #: The announcement that is being collected.
        self._head = bytearray()
        #: Of the member's data.
        self._missing = 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """True once the end has come."""
        return self._ended

    def feed(self, data: bytes) -> list[TarEvent | Unread]:
        """Go on reading.

        Raises:
            TarError: What comes is no announcement.
        """
        events: list[TarEvent | Unread] = []
        view = memoryview(data)
        while view:
            if self._ended:
                events.append(TarTrailing(bytes(view)))
                break
            view = self._read_data(view, events) if self._missing else self._read_head(view, events)
        return events

    def _read_data(self, view: memoryview, events: list[TarEvent | Unread]) -> memoryview:
        piece = view[: self._missing]
        self._missing -= len(piece)
        events.append(TarData(piece))
        if not self._missing:
            events.append(MemberEnd())
        return view[len(piece) :]

    def _read_head(self, view: memoryview, events: list[TarEvent | Unread]) -> memoryview:
        before = len(self._head)
        line = self._head.find(b"\n") + 1
        if not line:
            self._head += view[: _HEAD_MAX - before]
            line = self._head.find(b"\n") + 1
            if not line and len(self._head) == _HEAD_MAX:
                raise TarError("what comes is no announcement of a member")
            if not line:
                return view[len(self._head) - before :]
        match = _HEAD.fullmatch(self._head, 0, line)
        if match is None:
            raise TarError("what comes is no announcement of a member")
        whole = line + int(match[3]) + int(match[4])
        if len(self._head) < whole:
            self._head += view[len(self._head) - before : whole - before]
        if len(self._head) < whole:
            return view[len(view) :]
        name_ends = line + int(match[3])
        self._begin(
            match[1].decode(),
            int(match[2]),
            _text(self._head[line:name_ends]),
            _text(self._head[name_ends:whole]),
            events,
        )
        self._head.clear()
        return view[whole - before :]

    def _begin(
        self, kind: str, size: int, name: str, target: str, events: list[TarEvent | Unread]
    ) -> None:
        if kind == "e":
            self._ended = True
            events.append(ArchiveEnd())
        elif kind == "u":
            events.append(Unread(name, target))
        else:
            self._missing = size
            events.append(TarMember(name, _KINDS[kind], size, target, executable=kind == "x"))
            if not size:
                events.append(MemberEnd())


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "surrogateescape")
