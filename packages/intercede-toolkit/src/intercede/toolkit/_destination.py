"""Where the results of jobs appear, each as a whole."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from ._names import PATH_MAX, Name
from ._private import private_name, remove

__all__ = ["Destination"]

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: How a rename says that an older result is in its place: a directory, or a file.
_IN_THE_WAY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})
#: Each round is lost only to another fetch of the same job that was faster.
_RENAME_ATTEMPTS: Final = 100


class Destination:
    """A directory in which sinks put the results of their jobs.

    What is not complete lies in a private directory beneath it, which goes when this is closed; what a process that was killed has left
    there goes with `sweep`.

        with Destination(dest) as destination:
            for job in jobs:
                with FileSink(destination, job, limits) as sink:
                    ...

    It holds two descriptors, one of the directory that the last result went to: if somebody moves that elsewhere meanwhile, the results that
    follow into it go with it. Synchronous; one thread at a time.

    Args:
        path: Made if absent. A later chdir does not move it.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._given = path
        self._path = os.fsencode(path.absolute())
        self._private = self._path + b"/" + private_name()
        try:
            os.mkdir(self._private, 0o700)  # noqa: PTH102 - bytes
        except FileNotFoundError:
            path.mkdir(parents=True, exist_ok=True)
            os.mkdir(self._private, 0o700)  # noqa: PTH102 - bytes
        try:
            self._descriptor = os.open(self._private, _OPEN_DIRECTORY)
        except BaseException:
            os.rmdir(self._private)  # noqa: PTH106 - bytes
            raise
        self._made = 0
        #: What the results of one submission lie in, open, and where that is.
        self._parent: int | None = None
        self._above: Name = b""
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Where it is, as it was given."""
        return self._given

    @property
    def descriptor(self) -> int:
        """Of the private directory. Nobody but this process puts anything there, so there are no links in it."""
        return self._descriptor

    def room(self, place: Name) -> int:
        """How many bytes the name of a file beneath this place may have."""
        return PATH_MAX - len(self._path) - len(place) - len(b"//\0")

    def make(self) -> Name:
        """A new directory in the private one, mode 0700. Returns its name.

        Raises:
            OSError: It cannot be made.
        """
        self._made += 1
        name = b"%d" % self._made
        os.mkdir(name, 0o700, dir_fd=self._descriptor)
        return name

    def remove(self, name: Name) -> None:
        """Remove such a directory with all that is in it."""
        remove(name, self._descriptor)

    def put_in_place(self, name: Name, place: Name) -> None:
        """Put such a directory where it is looked for, in place of an older result. Links on the way there are not followed.

        Raises:
            OSError: It cannot be put there; an older result is still there.
        """
        above, _, last = place.rpartition(b"/")
        if self._parent is not None and above == self._above:
            try:
                self._replace(name, last, self._parent)
            except FileNotFoundError:
                pass  # somebody has removed that directory since
            else:
                return
        self._replace(name, last, self._open(above))

    def close(self) -> None:
        """Remove every trace of what was not put in place. Again: nothing."""
        if self._is_open:
            self._is_open = False
            self._close_parent()
            os.close(self._descriptor)
            remove(self._private)

    def _open(self, above: Name) -> int:
        self._close_parent()
        first, *others = (above or b".").split(b"/")
        parent = _open_beneath(None, self._path + b"/" + first)
        try:
            for part in others:
                beneath = _open_beneath(parent, part)
                os.close(parent)
                parent = beneath
        except BaseException:
            os.close(parent)
            raise
        self._parent, self._above = parent, above
        return parent

    def _close_parent(self) -> None:
        if self._parent is not None:
            parent, self._parent = self._parent, None
            os.close(parent)

    def _replace(self, source: Name, name: Name, parent: int) -> None:
        """Rename, and move what was there aside until it has succeeded. A directory cannot be renamed over one that is not empty."""
        if self._renamed(source, name, parent):
            return
        aside = source + b".older"
        try:
            for _ in range(_RENAME_ATTEMPTS):
                self.remove(aside)
                with suppress(FileNotFoundError):
                    os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=self._descriptor)
                if self._renamed(source, name, parent):
                    return
            raise FileExistsError(
                errno.EEXIST, "others keep putting results there", os.fsdecode(name)
            )
        except BaseException:
            with suppress(OSError):
                os.rename(aside, name, src_dir_fd=self._descriptor, dst_dir_fd=parent)
            raise
        finally:
            self.remove(aside)

    def _renamed(self, source: Name, name: Name, parent: int) -> bool:
        """False: something is in the way."""
        try:
            os.rename(source, name, src_dir_fd=self._descriptor, dst_dir_fd=parent)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            return False
        return True


def _open_beneath(descriptor: int | None, part: bytes) -> int:
    """From one open directory to one beneath it, made if it is not there.

    Args:
        descriptor: Of the upper one; None: its path is part of the name.
        part: The name of the lower one.
    """
    try:
        return os.open(part, _OPEN_DIRECTORY, dir_fd=descriptor)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(part, 0o777, dir_fd=descriptor)
    return os.open(part, _OPEN_DIRECTORY, dir_fd=descriptor)
