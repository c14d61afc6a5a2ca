"""What goes into a sandbox, as one stream: a tar archive or, for a host without tar, the bytes of the files and shell text that tells them
apart.

Sources are looked at before anything is sent, and read while it is sent; a source that changed meanwhile fails the submission, so that
a payload never starts with half an input.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import anyio.to_thread
from attrs import field, frozen

from intercede.core import CopyVars, SpecRefused, SubmissionSpec
from intercede.toolkit import TAR_END, TarKind, copy_variables, tar_header, tar_padding

from ._plain import unpack

__all__ = ["Source", "collect_sources", "generated_files", "plain_unpack", "tar_stream"]

#: What is yielded at once, about; a file that is larger is read in such pieces.
_CHUNK: Final = 2**20
#: What is read of small files in one turn of a thread: a turn takes longer than to read one of them, but it cannot be cancelled.
_TURN: Final = 2**20
#: What a file counts for beside its size: opening it takes as long as reading so much, and longer where the files are another machine's.
_OPENING: Final = 2**12


class Source(NamedTuple):  # made faster than a class of attrs', and there are thousands
    """A local file to send.

    Attributes:
        field: The specification's field it comes from, for messages.
        name: Its name in the work directory.
        path: Where it is.
        size: How many bytes it had when it was looked at.
        executable: Whether it gets an execute bit.
    """

    field: str
    name: str
    path: str
    size: int
    executable: bool

    @property
    def mode(self) -> int:
        """The permission bits it gets."""
        return 0o700 if self.executable else 0o600


def collect_sources(spec: SubmissionSpec) -> tuple[list[Source], list[str]]:
    """Look at everything local that the specification names. Blocking: call it in a thread.

    Returns:
        The files, and the directories (by name in the work directory).

    Raises:
        SpecRefused: Something is missing, unreadable, or not a file or directory; names the field.
    """
    found = _Found()
    if spec.executable_name is not None:
        path = str(Path(spec.executable))
        status = _look_at("executable", path)
        if not stat.S_ISREG(status.st_mode):
            raise SpecRefused("executable", f"{spec.executable!r} is not a file")
        found.files.append(Source("executable", spec.executable_name, path, status.st_size, True))
    for index, ref in enumerate(spec.inputs):
        if ref.source is None:
            continue
        path = str(Path(ref.source))
        found.add(f"inputs[{index}].source", ref.name, path, executable=ref.executable)
    return found.files, found.directories


@frozen
class _Found:
    """What a specification names.

    Attributes:
        files: The files.
        directories: By name.
    """

    files: list[Source] = field(factory=list)
    directories: list[str] = field(factory=list)

    def add(
        self,
        where: str,
        name: str,
        path: str,
        above: tuple[tuple[int, int], ...] = (),
        *,
        executable: bool,
    ) -> None:
        """Add a file, or a directory and all beneath it. Links are followed: what they point to is what is meant.

        Args:
            where: The specification's field.
            name: In the work directory.
            path: Here.
            above: The directories that it is reached through.
            executable: Whether files get an execute bit that have none here.
        """
        status = _look_at(where, path)
        mode = status.st_mode
        if not stat.S_ISDIR(mode):
            executable = executable or bool(mode & 0o100)
            self.files.append(Source(where, name, path, status.st_size, executable))
            return
        self.directories.append(name)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise SpecRefused(where, f"{path!r} links to a directory above it")
        above = (*above, identity)
        try:
            children = sorted(os.listdir(path))  # noqa: PTH208 - names only
        except OSError as error:
            raise SpecRefused(where, f"{path!r}: {error.strerror}") from None
        for child in children:
            self.add(where, f"{name}/{child}", f"{path}/{child}", above, executable=executable)


def _look_at(where: str, path: str) -> os.stat_result:
    try:
        # Not with a Path: for thousands of files making those takes as long as looking.
        status = os.stat(path)  # noqa: PTH116
        mode = status.st_mode
        if stat.S_ISREG(mode):
            # Its owner and mode do not tell: where files are another machine's, root may be nobody.
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        elif not stat.S_ISDIR(mode):
            raise SpecRefused(where, f"{path!r} is neither a file nor a directory")
    except OSError as error:
        raise SpecRefused(
            where, f"{path!r}: {error.strerror}", remedy="give a file that can be read"
        ) from None
    return status


def generated_files(
    spec: SubmissionSpec,
    variants: Sequence[CopyVars],
    *,
    runner: bytes,
    meta: bytes,
    select: bytes,
) -> dict[str, tuple[bytes, int]]:
    """What the sandbox gets besides the sources: content and mode, by name."""
    files: dict[str, tuple[bytes, int]] = {
        "meta": (meta, 0o600),
        "select": (select, 0o600),
        "runner": (runner, 0o700),
    }
    for ref in spec.inputs:
        if ref.content is not None:
            files[f"inputs/{ref.name}"] = (ref.content, 0o700 if ref.executable else 0o600)
    variables = copy_variables(variant.environment for variant in variants)
    files.update((name, (content, 0o600)) for name, content in variables.items())
    for copy, variant in enumerate(variants):
        for name, content in variant.secrets.items():
            files[f"{copy}/work/{name}"] = (content, 0o600)
    return files


async def tar_stream(
    sources: Sequence[Source],
    directories: Sequence[str],
    generated: Mapping[str, tuple[bytes, int]],
    end_mark: str,
    *,
    tarred: bool = True,
) -> AsyncIterator[bytes]:
    """All of it, ending with a file that proves that nothing is missing.

    Args:
        sources: Local files.
        directories: By name.
        generated: Content and mode, by name.
        end_mark: What the last file holds.
        tarred: As a tar archive; otherwise only the bytes of the files.

    Raises:
        SpecRefused: A source changed, or can no longer be read.
    """
    header, padding = (tar_header, tar_padding) if tarred else (_no_header, _no_padding)
    pieces = _Pieces()
    for name in directories:
        pieces.add(header(f"inputs/{name}", 0, mode=0o700, kind=TarKind.DIRECTORY))
    for name, (content, mode) in generated.items():
        pieces.add(header(name, len(content), mode=mode), content, padding(len(content)))
        if pieces.size > _CHUNK:
            yield pieces.taken()
    for several in _by_turns(sources):
        source = several[0]
        if source.size > _CHUNK:
            pieces.add(header(f"inputs/{source.name}", source.size, mode=source.mode))
            yield pieces.taken()
            async for chunk in _read_large(source):
                yield chunk
            pieces.add(padding(source.size))
            continue
        contents = await anyio.to_thread.run_sync(_read_whole, several)
        for source, content in zip(several, contents, strict=True):
            head = header(f"inputs/{source.name}", source.size, mode=source.mode)
            pieces.add(head, content, padding(source.size))
        if pieces.size > _CHUNK:
            yield pieces.taken()
    last = _end_content(end_mark)
    pieces.add(header("complete", len(last), mode=0o600), last, padding(len(last)))
    yield pieces.taken() + (TAR_END if tarred else b"")


class _Pieces:
    """Bytes that are handed on together, put together once.

    Attributes:
        size: How many they are.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, *pieces: bytes) -> None:
        """Put them behind what is there."""
        self._pieces += pieces
        self.size += sum(map(len, pieces))

    def taken(self) -> bytes:
        """All of it; nothing stays."""
        joined = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return joined


def plain_unpack(
    sources: Sequence[Source],
    directories: Sequence[str],
    generated: Mapping[str, tuple[bytes, int]],
    end_mark: str,
) -> str:
    """The shell text that makes the files again, of the same stream not `tarred`."""
    return unpack(
        [f"inputs/{name}" for name in directories],
        [
            *((name, len(content), mode) for name, (content, mode) in generated.items()),
            *((f"inputs/{source.name}", source.size, source.mode) for source in sources),
            ("complete", len(_end_content(end_mark)), 0o600),
        ],
    )


def _end_content(end_mark: str) -> bytes:
    return f"{end_mark}\n".encode()


def _no_header(name: str, size: int, *, mode: int, kind: TarKind = TarKind.FILE) -> bytes:
    return b""


def _no_padding(size: int) -> bytes:
    return b""


def _changed(source: Source) -> SpecRefused:
    return SpecRefused(
        source.field,
        f"{source.path!r} changed while it was read",
        remedy="submit when nobody writes to it",
    )


def _by_turns(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    """As many as are read in one turn, in their order; a large one alone."""
    turn: list[Source] = []
    size = 0
    for source in sources:
        size += source.size + _OPENING
        if turn and size > _TURN:
            yield turn
            turn, size = [], source.size + _OPENING
        turn.append(source)
    if turn:
        yield turn


def _read_whole(sources: Sequence[Source]) -> list[bytes]:
    return [_read_one(source) for source in sources]


def _read_one(source: Source) -> bytes:
    try:
        # Without a file object: for thousands of files making those takes as long as reading.
        file = _opened(source.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(file, source.size + 1)
            while len(content) < source.size and (more := os.read(file, source.size)):
                content += more
        finally:
            os.close(file)
    except OSError as error:
        raise SpecRefused(source.field, f"{source.path!r}: {error.strerror}") from None
    if len(content) != source.size:
        raise _changed(source)
    return content


def _opened(path: str, flags: int) -> int:
    """Not blocking: what was a file when it was looked at may have become a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


async def _read_large(source: Source) -> AsyncIterator[bytes]:
    try:
        async with await anyio.open_file(source.path, "rb", opener=_opened) as file:
            missing = source.size
            while missing:
                chunk = await file.read(min(missing, _CHUNK))
                if not chunk:
                    raise _changed(source)
                missing -= len(chunk)
                yield chunk
            if await file.read(1):
                raise _changed(source)
    except OSError as error:
        raise SpecRefused(source.field, f"{source.path!r}: {error.strerror}") from None
