"""One job's files, written from a source that nobody trusts.

Everything goes into a private directory beneath `dest` and appears under its own name in one rename, so that a result is there whole or
not at all (F1, F3). Every directory on the way there is opened without following links, everything in it is made anew, and no link is ever
made: what leaves the directory by its name or by its target is refused, that member alone (F4). Nothing is kept in memory but the names
(F7).

Synchronous: call it in a thread. One thread at a time.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from attrs import field, frozen

from intercede.core import InterCEdeError, ResourceError

from ._destination import Destination
from ._names import (
    NAME_MAX,
    NO_NAMES,
    PATH_MAX,
    Name,
    Unsafe,
    check_name,
    check_part,
    directories_of,
    encoded,
    text_of,
)

__all__ = ["CommittedOutput", "FileSink", "LimitExceeded", "Limits", "file_paths"]

_COPY_CHUNK: Final = 2**20
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: How a file system says that it cannot hold a name beside those of the same job: some do not tell upper from lower case, some
#: take fewer bytes or not all of them.
_CANNOT_HOLD: Final = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
)


@frozen
class Limits:
    """How much one job may bring. None: any amount.

    Attributes:
        max_bytes: In all its members together; links count with what they are copied from.
        max_files: Members, refused ones included.
        max_seconds: From the making of the sink to its commit.

    Raises:
        ValueError: One of them is not positive.
    """

    max_bytes: int | None = None
    max_files: int | None = None
    max_seconds: float | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("max_bytes", "max_files", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, not {value}")


class LimitExceeded(InterCEdeError):
    """One job brought more than it may.

    Attributes:
        limit: The name of the limit, as in `Limits`.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(f"{limit}: {message}", remedy=f"raise {limit}, or declare fewer outputs")
        self.limit = limit


@frozen
class CommittedOutput:
    """What is there now.

    Attributes:
        dest: Where sinks put their jobs.
        place: Where in it this job's directory is.
        names: The members' names, without "./" and the like.
        refused: By the member's name: why it was left out.
    """

    dest: Path
    place: str
    names: tuple[str, ...]
    refused: Mapping[str, str] = field(hash=False)

    @property
    def path(self) -> Path:
        """The job's directory."""
        return self.dest / self.place

    @property
    def files(self) -> Mapping[str, Path]:
        """By the member's name: where it lies."""
        return file_paths(self.path, self.names)


def file_paths(directory: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the files of a job lie. For thousands it takes some hundredths of a second.

    Args:
        directory: The job's, as `CommittedOutput.path`.
        names: As `CommittedOutput.names`.

    Returns:
        By name.
    """
    files: dict[str, Path] = {}
    #: By directory: a path is soonest made from that of what it lies in.
    folders = {"": directory}
    for name in names:
        # ASCII is the same under whatever encoding of file names.
        lies = name if name.isascii() else os.fsdecode(encoded(name))
        folder, _, last = lies.rpartition("/")
        if folder not in folders:
            folders[folder] = directory / folder
        files[name] = folders[folder] / last
    return files


#: Where a sink is. FAILED while something is done: what was begun and broke off can no longer be told from what is whole, and is not to be
#: committed. (No enum: to look up a member of one takes as long as a check, in Python 3.11, and a small file needs ten.)
_OPEN: Final = "open"
_WITHIN: Final = "within a member"
_FAILED: Final = "failed"
_COMMITTED: Final = "committed"
_DISCARDED: Final = "discarded"

#: A file's size, and whether it is executable.
_Received = tuple[int, bool]


@frozen
class _Link:
    target: str
    symbolic: bool


class FileSink:
    """Where one job's files go.

    Leaving the block without `commit` discards everything; so does an error, after which nothing but `discard` works.

        with FileSink(dest, "<submission>/<copy>", limits) as sink:
            sink.put("a.csv", b"1,2")
            output = sink.commit()

    A member is refused when its name leaves the directory, has a component over 255 bytes or is deeper than 100 directories; when it is
    a file where there is a directory, or the reverse; when its name came before (the first is kept). A refused member is swallowed:
    `write` and `end` go on as if nothing were wrong, and the other members arrive.

    Files have mode 0600, or 0700 where executable; directories 0700. Directories without a file in them do not appear.

    Between members it holds no descriptor but those of its `Destination`.

    Args:
        dest: Made if absent. A `Destination` serves the sinks of many jobs, for two thirds of what each takes alone; it has to be open as
            long as they are.
        place: Where in `dest` the job's directory will be; an older one is replaced.
        limits: What the job may bring.
        clock: Seconds, for `max_seconds`.

    Raises:
        ValueError: `place` leaves `dest`.
        OSError: `dest` cannot be written.
    """

    def __init__(
        self,
        dest: Path | Destination,
        place: str,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._place = check_name(encoded(place))
        except Unsafe as error:
            raise ValueError(f"place {place!r}: {error}") from None
        self._limits = limits or Limits()
        self._clock = clock
        self._started = clock()
        self._state: str = _OPEN
        self._output: CommittedOutput | None = None

        self._files: dict[Name, _Received] = {}
        #: Those that were made.
        self._directories: set[Name] = {b""}
        self._links: dict[Name, _Link] = {}
        self._refused: dict[str, str] = {}
        self._bytes = 0
        self._members = 0

        #: The member that has begun, and how many of its bytes are to come.
        self._member = ""
        self._missing = 0
        self._descriptor: int | None = None

        self._is_alone = isinstance(dest, Path)
        self._dest = Destination(dest) if isinstance(dest, Path) else dest
        self._room = self._dest.room(self._place)
        try:
            self._private = self._dest.make()
        except BaseException:
            self._leave()
            raise
        self._prefix = self._private + b"/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def put(self, name: str, data: bytes | memoryview, executable: bool = False) -> None:
        """A regular file, all of it at once.

        Args:
            name: Relative to the job's directory; untrusted.
            data: What is in it.
            executable: Whether it gets an execute bit.

        Raises:
            LimitExceeded: With it the job has too much.
            OSError: It cannot be written.
        """
        self._go_on_from(_OPEN)
        self._descriptor = self._open_new(name, len(data), executable)
        if self._descriptor is not None:
            _write_all(self._descriptor, data)
            self._close()
        self._state = _OPEN

    def begin(self, name: str, size: int, executable: bool = False) -> None:
        """A regular file follows, in pieces.

        Args:
            name: Relative to the job's directory; untrusted.
            size: How many bytes.
            executable: Whether it gets an execute bit.

        Raises:
            LimitExceeded: With it the job has too much.
            OSError: It cannot be made.
        """
        if size < 0:
            raise ValueError(f"not a size: {size}")
        self._go_on_from(_OPEN)
        self._member, self._missing = name, size
        self._descriptor = self._open_new(name, size, executable)
        self._state = _WITHIN

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes of the member.

        Raises:
            ResourceError: They are more than were announced.
            LimitExceeded: It takes too long.
            OSError: They cannot be written.
        """
        self._go_on_from(_WITHIN)
        self._check_time()
        if len(data) > self._missing:
            raise ResourceError(f"{self._member!r}: more bytes came than were announced")
        self._missing -= len(data)
        if self._descriptor is not None:
            _write_all(self._descriptor, data)
        self._state = _WITHIN

    def end(self) -> None:
        """The member is complete.

        Raises:
            ResourceError: It is not: fewer bytes came than were announced.
            OSError: It could not be written.
        """
        self._go_on_from(_WITHIN)
        if self._missing:
            raise ResourceError(
                f"{self._member!r}: {self._missing} bytes fewer came than were announced"
            )
        self._close()
        self._state = _OPEN

    def link(self, name: str, target: str, *, symbolic: bool) -> None:
        """A link. At the commit it becomes a copy of the regular file of this job it points to; if it points elsewhere, it is refused.

        Args:
            name: Relative to the job's directory; untrusted.
            target: Relative to the link's own directory if symbolic, to the job's directory otherwise; untrusted.
            symbolic: Which of the two.

        Raises:
            LimitExceeded: With it the job has too much.
        """
        self._go_on_from(_OPEN)
        self._count(1, 0)
        try:
            checked = self._check_new(name)
            if len(target) > PATH_MAX:
                raise Unsafe("a link to a name longer than the file system's limit")
        except Unsafe as error:
            self._leave_out(name, str(error))
        else:
            self._links[checked] = _Link(target, symbolic)
        self._state = _OPEN

    def refuse(self, name: str, reason: str) -> None:
        """A member that is left out for a reason of the caller's. The first reason for a name is kept.

        Args:
            name: Untrusted.
            reason: For people.

        Raises:
            LimitExceeded: With it the job has too much.
        """
        self._go_on_from(_OPEN)
        self._count(1, 0)
        self._leave_out(name, reason)
        self._state = _OPEN

    def commit(self) -> CommittedOutput:
        """Put the job's directory in its place, as a whole, and replace an older one. Again: the same answer.

        Raises:
            LimitExceeded: With the copies that links become the job has too much.
            OSError: It cannot be put there; an older result is still there.
        """
        if self._output is not None:
            return self._output
        self._go_on_from(_OPEN)
        for name, link in self._links.items():
            self._copy_link(name, link)
        self._check_time()
        self._dest.put_in_place(self._private, self._place)
        self._state = _COMMITTED
        self._output = CommittedOutput(
            self._dest.path,
            os.fsdecode(self._place),
            tuple(map(text_of, self._files)),
            dict(self._refused),
        )
        self._leave()
        return self._output

    def discard(self) -> None:
        """Remove every trace, unless it has been committed. Again: nothing."""
        if self._state in (_COMMITTED, _DISCARDED):
            return
        self._state = _DISCARDED
        with suppress(
            OSError
        ):  # such as a full disk, told late; the descriptor is closed all the same
            self._close()
        self._dest.remove(self._private)
        self._leave()

    def _leave(self) -> None:
        if self._is_alone:
            self._dest.close()

    # What may be called when

    def _go_on_from(self, state: str) -> None:
        """See that it is there; until what is begun has succeeded, it has failed."""
        if self._state != state:
            if self._state == _WITHIN:
                raise RuntimeError(f"member {self._member!r} has not ended")
            if self._state == _OPEN:
                raise RuntimeError("no member has begun")
            raise RuntimeError(f"the sink is {self._state}")
        self._state = _FAILED

    # Limits

    def _count(self, members: int, size: int) -> None:
        self._members += members
        self._bytes += size
        limits = self._limits
        if limits.max_files is not None and self._members > limits.max_files:
            raise LimitExceeded("max_files", f"more than {limits.max_files} files")
        if limits.max_bytes is not None and self._bytes > limits.max_bytes:
            raise LimitExceeded("max_bytes", f"more than {limits.max_bytes} bytes")
        self._check_time()

    def _check_time(self) -> None:
        allowed = self._limits.max_seconds
        if allowed is not None and self._clock() - self._started > allowed:
            raise LimitExceeded("max_seconds", f"it takes longer than {allowed:g} s")

    # Names

    def _check_new(self, text: str) -> Name:
        """The name, unless something of this job stands in its way."""
        name = encoded(text)
        folder, slash, last = name.rpartition(b"/")
        if folder in self._directories and last not in NO_NAMES and (folder or not slash):
            # Its directory was checked and made for another file, as most are.
            check_part(last)
        else:
            name = check_name(name)
            for above in directories_of(name):
                if above in self._files or above in self._links:
                    raise Unsafe("a part of its path is a file")
        if name in self._files or name in self._links:
            raise Unsafe("a member of this name came before; the first was kept")
        if name in self._directories:
            raise Unsafe("there is a directory of this name")
        if len(name) > self._room:
            raise Unsafe("its path is longer than the file system's limit")
        return name

    def _leave_out(self, name: str, reason: str) -> None:
        shown = name if len(name) < PATH_MAX else f"{name[:NAME_MAX]}..."
        self._refused.setdefault(shown, reason)

    # Files

    def _open_new(self, name: str, size: int, executable: bool) -> int | None:
        """The next member's file, open for writing; None: it is left out."""
        self._count(1, size)
        try:
            checked = self._check_new(name)
            descriptor = self._create(checked, executable)
        except Unsafe as error:
            self._leave_out(name, str(error))
            return None
        self._files[checked] = size, executable
        return descriptor

    def _create(self, name: Name, executable: bool) -> int:
        """A new file, open for writing, and the directories it lies in.

        They are in the private directory, where nobody puts links.
        """
        mode = 0o700 if executable else 0o600
        try:
            if name.rpartition(b"/")[0] not in self._directories:
                self._make_directories(name)
            return os.open(self._prefix + name, _CREATE_FILE, mode, dir_fd=self._dest.descriptor)
        except OSError as error:
            if error.errno not in _CANNOT_HOLD:
                raise
            raise Unsafe(
                f"the file system cannot hold it beside the others: {error.strerror}"
            ) from None

    def _make_directories(self, name: Name) -> None:
        for folder in directories_of(name):
            if folder not in self._directories:
                # One of two names that the file system takes for the same is there already.
                with suppress(FileExistsError):
                    os.mkdir(self._prefix + folder, 0o700, dir_fd=self._dest.descriptor)
                self._directories.add(folder)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    # Links

    def _copy_link(self, name: Name, link: _Link) -> None:
        try:
            target = _resolve(name, link)
            original = self._files.get(target)
            if original is None or target in self._links:
                raise Unsafe(f"a link to {link.target!r}, which is no regular file of this job")
            size, executable = original
            self._count(0, size)
            self._descriptor = self._create(name, executable)
        except Unsafe as error:
            self._leave_out(text_of(name), str(error))
            return
        self._copy_from(target, self._descriptor)
        self._close()
        self._files[name] = original

    def _copy_from(self, target: Name, copy: int) -> None:
        source = os.open(self._prefix + target, _OPEN_FILE, dir_fd=self._dest.descriptor)
        try:
            while chunk := os.read(source, _COPY_CHUNK):
                self._check_time()
                _write_all(copy, chunk)
        finally:
            os.close(source)


def _resolve(name: Name, link: _Link) -> Name:
    """What a link names, by the letter: nothing is looked up."""
    if link.target.startswith("/"):
        raise Unsafe(f"a link to {link.target!r}, outside of the job's directory")
    reached = name.split(b"/")[:-1] if link.symbolic else []
    for part in encoded(link.target).split(b"/"):
        if part == b"..":
            if not reached:
                raise Unsafe(f"a link to {link.target!r}, outside of the job's directory")
            reached.pop()
        elif part not in NO_NAMES:
            reached.append(part)
    return b"/".join(reached)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    written = os.write(descriptor, data) if data else 0
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
