"""What is brought back from a job's directory. The payload has written there: nothing in it is trusted."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from attrs import asdict, field, frozen

from intercede.core import CopyVars, Failure, FailureCode, JobOutput, SubmissionSpec

__all__ = ["Keep", "Limits", "fetch"]

_CHUNK = 256 * 1024


@frozen
class Limits:
    """How much one job may bring back."""

    bytes: int
    files: int
    seconds: float


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Keep:
    """What of a job's output to keep, written down when it is submitted."""

    stdout: str
    stderr: str
    patterns: tuple[str, ...] = field(converter=_texts)
    everything: bool
    given: tuple[str, ...] = field(converter=_texts)
    secrets: tuple[str, ...] = field(converter=_texts)

    @classmethod
    def of(cls, spec: SubmissionSpec, variant: CopyVars) -> Self:
        """What a specification says of it."""
        given = [ref.name for ref in spec.inputs if ref.source is None]
        for ref in spec.inputs:
            if ref.source is not None:
                given += [f"{ref.name}/{name}" for name in _names(Path(ref.source))] or [ref.name]
        if spec.executable_name is not None:
            given.append(spec.executable_name)
        return cls(
            stdout=spec.stdout or "stdout",
            stderr=spec.stderr or "stderr",
            patterns=(member.pattern for member in spec.outputs.members),
            everything=spec.outputs.everything,
            given=given,
            secrets=variant.secrets,
        )

    def as_json(self) -> dict[str, Any]:
        """For `job.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Self:
        """From `job.json`."""
        return cls(**table)


class _OverLimit(Exception):
    pass


class _Copier:
    """Copies files until a limit is reached."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0
        self._files = 0
        self._until = time.monotonic() + limits.seconds

    def copy(self, source: Path, target: Path) -> None:
        self._files += 1
        if self._files > self._limits.files:
            raise _OverLimit(f"more than {self._limits.files} files")
        target.parent.mkdir(parents=True, exist_ok=True)
        # A link that has taken the place of the file since it was looked at is not followed, and a FIFO does not block.
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as reader, target.open("xb") as writer:
            while chunk := reader.read(_CHUNK):
                self._bytes += len(chunk)
                if self._bytes > self._limits.bytes:
                    raise _OverLimit(f"more than {self._limits.bytes} bytes")
                if time.monotonic() > self._until:
                    raise _OverLimit(f"more than {self._limits.seconds:g} s")
                writer.write(chunk)


def fetch(place: Path, keep: Keep, target: Path, limits: Limits) -> JobOutput:
    """Copy one job's output to `target`, which appears whole or not at all.

    Raises:
        OSError: It cannot be written there.
    """
    dest = target.parent.parent
    dest.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".fetching-", dir=dest))
    copier = _Copier(limits)
    try:
        for name, wanted in (("stdout", keep.stdout), ("stderr", keep.stderr)):
            if (place / name).is_file():
                copier.copy(place / name, new / wanted)
            else:
                (new / wanted).touch()  # it was killed before it began
        chosen = _choose(place / "work", keep)
        for name, source in chosen.files.items():
            copier.copy(source, new / "work" / name)
        _replace(new, target)
    except _OverLimit as limit:
        return JobOutput(
            failure=Failure(FailureCode.LIMIT, f"the output has {limit}; raise the limit")
        )
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return JobOutput(
        stdout=target / keep.stdout,
        stderr=target / keep.stderr,
        files={name: target / "work" / name for name in chosen.files},
        missing=chosen.missing,
        failure=chosen.failure,
    )


@frozen
class _Chosen:
    """What to copy, by name; the patterns that match nothing; and what matches and is no plain file inside, or may not be opened."""

    files: dict[str, Path]
    missing: list[str]
    unsafe: list[str]
    closed: list[str]

    @property
    def failure(self) -> Failure | None:
        if self.unsafe:
            return Failure(FailureCode.UNSAFE, f"{self.unsafe[0]!r} is no plain file; left out")
        if self.closed:
            return Failure(FailureCode.FAILED, f"{self.closed[0]!r} may not be opened; left out")
        return None


def _choose(work: Path, keep: Keep) -> _Chosen:
    closed: list[str] = []
    names = [name for name in _names(work, closed) if name not in keep.secrets]
    closed = [
        folder
        for folder in closed
        if keep.everything or any(_may_match_in(folder, pattern) for pattern in keep.patterns)
    ]
    wanted = [name for name in names if keep.everything and name not in keep.given]
    missing = []
    for pattern in keep.patterns:
        matching = [name for name in names if _matches(pattern, name)]
        wanted += matching
        if not matching:
            missing.append(pattern)
    files: dict[str, Path] = {}
    unsafe = []
    inside = work.resolve()
    for name in dict.fromkeys(wanted):
        source = (work / name).resolve()  # a link to a file inside comes back as a copy
        within = source.is_relative_to(inside)
        secret = within and str(source.relative_to(inside)) in keep.secrets
        if not within or secret or not stat.S_ISREG(_mode(source)):
            unsafe.append(name)
        elif not os.access(source, os.R_OK):
            closed.append(name)
        else:
            files[name] = source
    return _Chosen(files, missing, unsafe, closed)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _names(work: Path, closed: list[str] | None = None) -> Iterator[str]:
    """Everything beneath that is not a directory, by its name relative to there. No link is followed.

    Args:
        work: Where to look.
        closed: Gets the directories that may not be opened.
    """

    def note(error: OSError) -> None:
        if closed is not None:
            closed.append(str(Path(error.filename).relative_to(work)))

    for folder, directories, files in os.walk(work, onerror=note):
        links = [name for name in directories if Path(folder, name).is_symlink()]
        for name in (*links, *files):
            yield str(Path(folder, name).relative_to(work))


def _matches(pattern: str, name: str) -> bool:
    """As `OutputMember` says: segment by segment, by bytes, names that begin with "." only where the pattern does."""
    whole_tree = pattern.endswith("/")
    segments, parts = pattern.removesuffix("/").split("/"), name.split("/")
    if whole_tree:
        if len(parts) <= len(segments):
            return False
    elif len(parts) != len(segments):
        return False
    return _begins_alike(segments, parts)


def _may_match_in(folder: str, pattern: str) -> bool:
    """Whether what lies in a folder might match."""
    segments, parts = pattern.removesuffix("/").split("/"), folder.split("/")
    is_above = len(parts) < len(segments) or pattern.endswith("/")
    return folder == "." or (is_above and _begins_alike(segments, parts))


def _begins_alike(segments: Sequence[str], parts: Sequence[str]) -> bool:
    return all(
        (not part.startswith(".") or segment.startswith("."))
        and fnmatchcase(os.fsencode(part), os.fsencode(segment))
        for segment, part in zip(segments, parts, strict=False)
    )


def _replace(new: Path, target: Path) -> None:
    """Put a directory where an older one, or a link, may be. Another fetch may be doing the same."""
    target.parent.mkdir(exist_ok=True)
    while True:
        if target.is_symlink():
            target.unlink(missing_ok=True)
        try:
            new.rename(target)
            return
        except OSError:
            if not target.is_dir():
                raise
        with suppress(FileNotFoundError):
            old = target.rename(f"{new}.old")
            shutil.rmtree(old, ignore_errors=True)
