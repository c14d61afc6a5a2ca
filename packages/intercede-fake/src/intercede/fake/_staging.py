"""What a submit reads of the caller's files, all of it before anything is recorded (S3, S6)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from intercede.core import CopyVars, FileRef, SpecRefused, SubmissionSpec

from ._content import Content
from ._payload import Entry, Kind, Program, made

__all__ = ["read_sandbox", "with_secrets"]

_PRIVATE = 0o600
_EXECUTABLE = 0o700


def read_sandbox(spec: SubmissionSpec) -> dict[str, Entry]:
    """The work directory that all copies share.

    Raises:
        SpecRefused: A file cannot be read; names the field.
    """
    files: dict[str, Entry] = {}
    if spec.executable_name is not None:
        content = _read("executable", Path(spec.executable))
        files[spec.executable_name] = Entry(Kind.FILE, content, _EXECUTABLE)
    for index, ref in enumerate(spec.inputs):
        field = f"inputs[{index}]"
        for name, entry in _entries(field, ref).items():
            if not made(files, name, entry):
                raise SpecRefused(f"{field}.name", f"{name!r} is taken by another input")
    return files


def with_secrets(
    spec: SubmissionSpec, shared: Mapping[str, Entry], copy: int, variables: CopyVars
) -> Program:
    """What one copy runs.

    Raises:
        SpecRefused: A secret has the name of something else.
    """
    files = dict(shared)
    for name, content in variables.secrets.items():
        entry = Entry(Kind.FILE, Content.of(content), _PRIVATE)
        if name in files or not made(files, name, entry):
            raise SpecRefused(
                f"copies[{copy}].secrets",
                f"{name!r} is the name of another file",
                remedy="give each its own name",
            )
    return Program(
        name=spec.executable.rpartition("/")[2],
        arguments=spec.arguments,
        environment={**spec.environment, **variables.environment},
        files=files,
    )


def _entries(field: str, ref: FileRef) -> dict[str, Entry]:
    if ref.content is not None:
        return {ref.name: _file(Content.of(ref.content), ref.executable)}
    assert ref.source is not None
    source = Path(ref.source)
    if not source.is_dir():
        return {ref.name: _file(_read(f"{field}.source", source), ref.executable)}
    entries = {ref.name: Entry(Kind.DIRECTORY, mode=_EXECUTABLE)}
    for path in _tree(f"{field}.source", source):
        name = f"{ref.name}/{path.relative_to(source)}"
        if path.is_dir():
            entries[name] = Entry(Kind.DIRECTORY, mode=_EXECUTABLE)
        else:
            entries[name] = _file(_read(f"{field}.source", path), os.access(path, os.X_OK))
    return entries


def _tree(field: str, directory: Path) -> list[Path]:
    """All names beneath, parents first. Links to directories are refused: they may lead back here."""
    found: list[Path] = []
    try:
        for path in sorted(directory.iterdir()):
            if path.is_symlink() and path.is_dir():
                raise SpecRefused(
                    field, f"{path} is a link to a directory", remedy="give the directory itself"
                )
            found.append(path)
            if path.is_dir():
                found.extend(_tree(field, path))
    except OSError as error:
        raise _unreadable(field, directory, error) from None
    return found


def _file(content: Content, executable: bool) -> Entry:
    return Entry(Kind.FILE, content, _EXECUTABLE if executable else _PRIVATE)


def _read(field: str, path: Path) -> Content:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SpecRefused(field, f"{path} is not a regular file", remedy="give a file")
        return Content.of(path.read_bytes())
    except OSError as error:
        raise _unreadable(field, path, error) from None


def _unreadable(field: str, path: Path, error: OSError) -> SpecRefused:
    return SpecRefused(
        field,
        f"{str(path)!r} cannot be read: {error.strerror}",
        remedy="give a path that can be read from here",
    )
