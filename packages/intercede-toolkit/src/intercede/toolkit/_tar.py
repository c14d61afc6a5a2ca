"""Tar streams, read and written without I/O.

Bytes in, events out: nothing here touches a file system, and `tarfile`'s own `extract` is never used, since it follows what a hostile
archive says. `tarfile` also ends without error where a stream was cut between two members; here `TarReader.ended` tells.

What is read: ustar, GNU (long names, base-256 sizes) and pax. What is written: GNU, which every tar at a resource reads.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from attrs import frozen

__all__ = [
    "TAR_END",
    "ArchiveEnd",
    "MemberEnd",
    "TarData",
    "TarError",
    "TarEvent",
    "TarKind",
    "TarMember",
    "TarReader",
    "TarTrailing",
    "tar_header",
    "tar_padding",
]

_BLOCK: Final = tarfile.BLOCKSIZE
_ZERO_BLOCK: Final = bytes(_BLOCK)
#: A name is at most 4,096 bytes where Linux has a say; 1 MiB leaves room for access lists and the like.
_EXTENSION_MAX: Final = 2**20
#: What a file offset can be.
_SIZE_MAX: Final = 2**63 - 1
#: The header of a file or directory as most have it, its numbers digits and then a blank or a NUL byte: name, the owner's digit of the
#: mode, size, checksum, type; no prefix.
_PLAIN: Final = re.compile(
    rb"(?=([^\0]{1,100})).{104}([0-7])[0-7]{2}[ \0].{16}([0-7]{11})[ \0].{12}([0-7]{6})[ \0]{2}([05]).{188}\0",
    re.DOTALL,
)
#: Of the owner's digits those that let him execute it.
_EXECUTES: Final = frozenset({b"1", b"3", b"5", b"7"})
#: Owner and group.
_NOBODY: Final = b"0000000\0" * 2
#: After the type: no link, the magic, and no more.
_REST: Final = (bytes(100) + tarfile.GNU_MAGIC).ljust(_BLOCK - 157, b"\0")
_NAME_SIZE: Final = 100
_OCTAL_MAX: Final = 8**11 - 1
_EXECUTABLE: Final = 0o100
_CHECKSUM_AT: Final = 148
_TYPE_AT: Final = 156
#: What the checksum counts itself as.
_BLANKS: Final = 8 * ord(" ")

#: What ends an archive.
TAR_END: Final = _ZERO_BLOCK * 2


class TarError(ValueError):
    """This is not a tar stream."""


class TarKind(Enum):
    """What a member is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    OTHER = "other"
    """A device, a FIFO, a sparse file, or something unheard of."""


#: To look up an enum's member takes as long as a check, in Python 3.11.
_FILE: Final = TarKind.FILE
_DIRECTORY: Final = TarKind.DIRECTORY

#: ustar's type flags and ours. What is not here is OTHER.
_KINDS: Final = {
    tarfile.REGTYPE: TarKind.FILE,
    tarfile.AREGTYPE: TarKind.FILE,
    tarfile.CONTTYPE: TarKind.FILE,
    tarfile.DIRTYPE: TarKind.DIRECTORY,
    tarfile.SYMTYPE: TarKind.SYMLINK,
    tarfile.LNKTYPE: TarKind.HARDLINK,
}
#: No data follows these, whatever their size field says.
_WITHOUT_DATA: Final = frozenset(
    {
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
    }
)
_PAX_NEXT: Final = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_EXTENSIONS: Final = _PAX_NEXT | {
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class _Header(NamedTuple):
    """What a header says of its member."""

    name: str
    size: int
    mode: int
    type: bytes
    link: str


class TarMember(NamedTuple):
    """A member begins.

    Attributes:
        name: As the stream has it, untrusted; undecodable bytes as Python carries them (PEP 383). A directory's has no "/" at its end.
        kind: What it is.
        size: How many bytes of data follow.
        target: What a link points to; "" for anything else.
        executable: Its owner may execute it.
        data: All of a file's data, if it came with the header, as that of small files does: a view into what was fed. Then neither `TarData`
            nor `MemberEnd` follows.
    """

    name: str
    kind: TarKind
    size: int
    target: str = ""
    executable: bool = False
    data: memoryview | None = None


class TarData(NamedTuple):
    """A piece of the member's data, never empty; a view into what was fed."""

    data: memoryview


@frozen
class MemberEnd:
    """The member is complete: all of its bytes have come."""


_MEMBER_END: Final = MemberEnd()
_NO_WORDS: Final[Mapping[str, str]] = {}


@frozen
class ArchiveEnd:
    """The archive is complete."""


@frozen
class TarTrailing:
    """What came after the archive and is not padding."""

    data: bytes


TarEvent = TarMember | TarData | MemberEnd | ArchiveEnd | TarTrailing


class TarReader:
    """Reads a stream, however it is cut into chunks.

    Memory is bounded by the chunks that are fed, whatever the sizes of the members.

        for chunk in stream:
            for event in reader.feed(chunk):
                ...
        if not reader.ended:
            ...  # the stream was cut
    """

    def __init__(self) -> None:
        self._step: Callable[[memoryview, list[TarEvent]], memoryview] = self._read_header
        #: Of the block or extension that is being collected.
        self._collected = bytearray()
        #: Of data, or of an extension's payload, that is still to come; padding likewise.
        self._remaining = 0
        self._padding = 0
        self._zero_blocks = 0
        #: What the extensions before a member say about it, and about all that follow.
        self._extension = b""
        self._next: dict[str, str] = {}
        self._all: dict[str, str] = {}
        self._ended = False

    @property
    def ended(self) -> bool:
        """True once the archive's end has come; False after the last byte of a stream that was cut, wherever that was."""
        return self._ended

    def feed(self, data: bytes) -> list[TarEvent]:
        """Go on reading.

        Args:
            data: The next bytes of the stream.

        Returns:
            What they brought.

        Raises:
            TarError: It is not a tar stream. The reader is of no use any more.
        """
        events: list[TarEvent] = []
        view = memoryview(data)
        try:
            while view:
                view = self._step(view, events)
        except TarError:
            self._step = self._fail
            raise
        return events

    def _fail(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        raise TarError("the stream was broken before")

    def _collect(self, view: memoryview, size: int) -> tuple[bytes | None, memoryview]:
        """The next `size` bytes as one, once they are all there, and what follows them."""
        if not self._collected and len(view) >= size:
            return bytes(view[:size]), view[size:]
        missing = size - len(self._collected)
        self._collected += view[:missing]
        if len(self._collected) < size:
            return None, view[missing:]
        whole = bytes(self._collected)
        self._collected = bytearray()
        return whole, view[missing:]

    def _read_header(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        if not (self._collected or self._zero_blocks or self._all or self._next):
            view = _take_plain(view, events)
        block, view = self._collect(view, _BLOCK)
        if block is None:
            return view
        if block == _ZERO_BLOCK:
            self._zero_block(events)
            return view
        if self._zero_blocks:
            raise TarError("a member follows an empty block")

        info = _parse_header(block)
        if info.type in _EXTENSIONS:
            if info.size > _EXTENSION_MAX:
                raise TarError(f"an extension of {info.size} bytes (at most {_EXTENSION_MAX})")
            self._extension = info.type
            self._expect(info.size)
            self._step = self._read_extension
            if not info.size:
                self._take_extension(b"")
            return view

        return self._begin_member(info, block, view, events)

    def _zero_block(self, events: list[TarEvent]) -> None:
        if self._next:
            raise TarError("an extension without a member")
        self._zero_blocks += 1
        if self._zero_blocks == 2:
            self._ended = True
            self._remaining = 0
            self._step = self._read_trailing_zeros
            events.append(ArchiveEnd())

    def _expect(self, size: int) -> None:
        self._remaining = size
        self._padding = -size % _BLOCK

    def _read_extension(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        payload, view = self._collect(view, self._remaining)
        if payload is not None:
            self._take_extension(payload)
        return view

    def _take_extension(self, payload: bytes) -> None:
        if self._extension == tarfile.GNUTYPE_LONGNAME:
            self._next["path"] = _text(payload.partition(b"\0")[0])
        elif self._extension == tarfile.GNUTYPE_LONGLINK:
            self._next["linkpath"] = _text(payload.partition(b"\0")[0])
        elif self._extension in _PAX_NEXT:
            self._next |= _parse_pax(payload)
        else:
            self._all |= _parse_pax(payload)
        self._step = self._skip_padding if self._padding else self._read_header

    def _begin_member(
        self, info: _Header, block: bytes, view: memoryview, events: list[TarEvent]
    ) -> memoryview:
        words: Mapping[str, str] = _NO_WORDS
        if self._all or self._next:
            words = self._all | self._next
            self._next = {}

        kind = _KINDS.get(info.type, TarKind.OTHER)
        if "sparse" in words:
            kind = TarKind.OTHER
        size = _parse_size(words["size"]) if "size" in words else info.size
        if info.type in _WITHOUT_DATA:
            size = 0
        name = words.get("path", info.name)
        if kind is TarKind.DIRECTORY:
            name = name.rstrip("/")
        is_link = kind in (TarKind.SYMLINK, TarKind.HARDLINK)
        target = words.get("linkpath", info.link) if is_link else ""
        executable = bool(info.mode & _EXECUTABLE)

        padded = size + -size % _BLOCK
        if kind is TarKind.FILE and len(view) >= padded:
            # Small files come whole, by the thousands.
            events.append(TarMember(name, kind, size, target, executable, view[:size]))
            self._step = self._read_header
            return view[padded:]
        events.append(TarMember(name, kind, size, target, executable))
        self._expect(size)
        self._step = self._read_data
        if info.type == tarfile.GNUTYPE_SPARSE and block[482]:
            self._step = self._skip_sparse_map
        elif not size:
            self._end_member(events)
        return view

    def _skip_sparse_map(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        """GNU's sparse header may go on in blocks of its own, each of which tells whether one more follows."""
        block, view = self._collect(view, _BLOCK)
        if block is not None and not block[504]:
            self._step = self._read_data
            if not self._remaining:
                self._end_member(events)
        return view

    def _read_data(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        piece = view[: self._remaining]
        self._remaining -= len(piece)
        events.append(TarData(piece))
        if not self._remaining:
            self._end_member(events)
        return view[len(piece) :]

    def _end_member(self, events: list[TarEvent]) -> None:
        events.append(_MEMBER_END)
        self._step = self._skip_padding if self._padding else self._read_header

    def _skip_padding(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        skipped = len(view[: self._padding])
        self._padding -= skipped
        if not self._padding:
            self._step = self._read_header
        return view[skipped:]

    def _read_trailing_zeros(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        """A tar fills its last record with empty blocks (GNU: to 10,240 bytes)."""
        rest = bytes(view).lstrip(b"\0")
        self._remaining = (self._remaining + len(view) - len(rest)) % _BLOCK
        if rest:
            # Zeros that share a block with something else are part of it.
            events.append(TarTrailing(bytes(self._remaining) + rest))
            self._step = self._read_trailing
        return view[len(view) :]

    def _read_trailing(self, view: memoryview, events: list[TarEvent]) -> memoryview:
        events.append(TarTrailing(bytes(view)))
        return view[len(view) :]


def _take_plain(view: memoryview, events: list[TarEvent]) -> memoryview:
    """Take what stands at the beginning and is whole and usual: small files, by the thousands, and directories. Returns the rest."""
    at, end = 0, len(view)
    while (data_at := at + _BLOCK) <= end:
        match = _PLAIN.match(view, at)
        if match is None:
            break
        encoded, owner, octal_size, checksum, type_flag = match.groups()
        if _sum(view[at : at + _CHECKSUM_AT], view[at + _TYPE_AT : data_at]) != int(checksum, 8):
            break
        name, executable = _text(encoded), owner in _EXECUTES
        if type_flag == tarfile.DIRTYPE:
            events.append(TarMember(name.rstrip("/"), _DIRECTORY, 0, "", executable))
            events.append(_MEMBER_END)
            at = data_at
            continue
        size = int(octal_size, 8)
        data_ends = data_at + size
        next_at = data_ends + -size % _BLOCK
        if next_at > end:
            break
        data = view[data_at:data_ends]
        events.append(TarMember(name, _FILE, size, "", executable, data))
        at = next_at
    return view[at:]


def _sum(before: bytes | memoryview, after: bytes | memoryview) -> int:
    """A header's checksum, modulo 65521, which no plain one's reaches: Adler-32 begins with 1, and is ten times as fast as `sum`.

    Args:
        before: What stands before the checksum itself, which counts as blanks.
        after: What stands behind it.
    """
    return (zlib.adler32(after, zlib.adler32(before)) & 0xFFFF) - 1 + _BLANKS


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _parse_header(block: bytes) -> _Header:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise TarError(f"not a tar header: {error}") from None
    if not 0 <= info.size <= _SIZE_MAX:
        raise TarError(f"a member of {info.size} bytes")
    return _Header(info.name, info.size, info.mode, info.type, info.linkname)


def _parse_size(text: str) -> int:
    # Bounded before conversion: Python refuses very long numbers, and slowly.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or int(text) > _SIZE_MAX:
        raise TarError("a size that is not a number")
    return int(text)


def _parse_pax(payload: bytes) -> dict[str, str]:
    """The records `<length> <keyword>=<value>\\n` that matter here (POSIX pax, "Extended Header")."""
    words: dict[str, str] = {}
    position = 0
    while position < len(payload):
        blank = payload.find(b" ", position, position + 8)
        digits = payload[position:blank] if blank > position else b""
        end = position + int(digits) if digits.isdigit() else -1
        if not blank < end <= len(payload) or payload[end - 1 : end] != b"\n":
            raise TarError("not a pax record")
        keyword, equals, value = payload[blank + 1 : end - 1].partition(b"=")
        if not keyword or not equals:
            raise TarError("not a pax record")
        if keyword in (b"path", b"linkpath", b"size"):
            words[keyword.decode()] = _text(value)
        elif keyword.startswith(b"GNU.sparse."):
            words["sparse"] = ""
        position = end
    return words


def tar_header(
    name: str, size: int, *, mode: int, kind: TarKind = TarKind.FILE, mtime: int = 0
) -> bytes:
    """What stands before a member's data. Owner and group are 0: whoever unpacks it owns it.

    Args:
        name: Relative to where it is unpacked; undecodable bytes as Python carries them.
        size: Of the data that follows, which `tar_padding` fills up; 0 for a directory.
        mode: The permission bits.
        kind: FILE or DIRECTORY.
        mtime: Seconds since 1970.

    Raises:
        ValueError: It cannot be written: the name is empty or has a NUL byte, the size is negative, or the kind is another.
    """
    if not name or "\0" in name:
        raise ValueError(f"not a member's name: {name!r}")
    if not 0 <= size <= _SIZE_MAX:
        raise ValueError(f"not a member's size: {size}")
    if kind is not _FILE and kind is not _DIRECTORY:
        raise ValueError(f"only files and directories are written, not {kind}")
    type_flag = tarfile.REGTYPE if kind is _FILE else tarfile.DIRTYPE
    path = name.encode("utf-8", "surrogateescape")
    if len(path) < _NAME_SIZE and size <= _OCTAL_MAX and 0 <= mtime <= _OCTAL_MAX:
        return _plain_header(path, size, mode, type_flag, mtime)
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = mode
    info.mtime = mtime
    info.type = type_flag
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _plain_header(path: bytes, size: int, mode: int, type_flag: bytes, mtime: int) -> bytes:
    """What `tarfile` would write, where all fits: of thousands of small files it would take more time than to send them."""
    if type_flag == tarfile.DIRTYPE and not path.endswith(b"/"):
        path += b"/"
    named = path.ljust(_NAME_SIZE, b"\0")
    begin = b"%b%07o\0%b%011o\0%011o\0" % (named, mode & 0o7777, _NOBODY, size, mtime)
    end = type_flag + _REST
    return b"%b%06o\0 %b" % (begin, _sum(begin, end), end)


def tar_padding(size: int) -> bytes:
    """What stands after a member's data of `size` bytes."""
    return bytes(-size % _BLOCK)
