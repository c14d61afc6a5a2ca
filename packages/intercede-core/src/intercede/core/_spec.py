"""What is submitted, and the handles that come back.

A specification that makes no sense cannot be built: constructors raise `SpecRefused`, naming the field. Whether a resource can honour
it is checked by the resource.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from attrs import Attribute, field, frozen

from ._errors import PartialFailure, SpecRefused
from ._fields import flag, instance, many, optional, table, text, whole_number
from ._jobs import Failure, JobID, as_utc

__all__ = [
    "CopyVars",
    "FileRef",
    "JobHandle",
    "OutputMember",
    "OutputSpec",
    "Resources",
    "Submission",
    "SubmissionSpec",
    "expand_copies",
]

#: POSIX, "Environment Variable Definition": what every shell can export.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: NAME_MAX on the file systems in use, in bytes.
_NAME_MAX = 255
#: The names beside `work` in a copy's sandbox, which a renamed stdout or stderr must not take.
_RESERVED = frozenset({"work", "log"})
_TAG_MAX = 255


def _encoded(text: str) -> bytes:
    """The bytes of a name or value: UTF-8, with undecodable bytes as Python carries them (PEP 383)."""
    return text.encode("utf-8", "surrogateescape")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise SpecRefused(name, f"{value!r} contains a NUL byte", remedy="remove it")
    try:
        _encoded(value)
    except UnicodeEncodeError:
        raise SpecRefused(
            name,
            f"{value!r} contains a surrogate that stands for no byte",
            remedy="decode bytes with errors='surrogateescape'",
        ) from None


def _check_name(name: str, value: object) -> None:
    """Refuse what would leave the sandbox (S8)."""
    _check_text(name, value)
    assert isinstance(value, str)
    parts = value.split("/")
    if not value or "" in parts or "." in parts or ".." in parts:
        raise SpecRefused(
            name,
            f"{value!r} is not a plain relative name",
            remedy="name a place inside the work directory, without '.', '..', '//' or a leading '/'",
        )
    if any(len(_encoded(part)) > _NAME_MAX for part in parts):
        raise SpecRefused(name, f"a part of {value[:40]!r}... is longer than {_NAME_MAX} bytes")


def _check_variables(name: str, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        if not _VARIABLE.fullmatch(key):
            raise SpecRefused(
                name,
                f"{key!r} is not a variable name",
                remedy="use letters, digits and '_', not beginning with a digit",
            )
        if key.startswith("INTERCEDE_"):
            raise SpecRefused(name, f"{key!r} is reserved", remedy="choose another name")
        _check_text(f"{name}[{key}]", value)


def _path(value: str | os.PathLike[str]) -> str:
    return os.fspath(value)


def _optional_path(value: str | os.PathLike[str] | None) -> str | None:
    return None if value is None else os.fspath(value)


def _environment(values: Mapping[str, str]) -> Mapping[str, str]:
    return table(str, values, "environment")


def _secrets(values: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return table(bytes, values, "secrets")


def _metadata(values: Mapping[str, str]) -> Mapping[str, str]:
    return table(str, values, "metadata")


def _arguments(values: Iterable[str]) -> tuple[str, ...]:
    return many(str, values, "arguments")


def _inputs(values: Iterable[FileRef]) -> tuple[FileRef, ...]:
    return many(FileRef, values, "inputs")


def _members(values: Iterable[OutputMember | str]) -> tuple[OutputMember, ...]:
    items: tuple[OutputMember | str, ...] = many(object, values, "outputs.members")
    members = (OutputMember(item) if isinstance(item, str) else item for item in items)
    return many(OutputMember, members, "outputs.members")


@frozen
class FileRef:
    """A file or directory of the sandbox, and where it comes from.

    Attributes:
        name: Where it goes, relative to the work directory.
        source: A path of the caller's, a file or a directory. Read before `submit` returns, never later (S3).
        url: Fetched by the resource itself, where the resource can.
        content: The bytes themselves.
        executable: The file gets an execute bit.

    Raises:
        SpecRefused: The name leaves the work directory, or there is not exactly one origin.
    """

    name: str = field()
    source: str | None = field(default=None, converter=_optional_path)
    url: str | None = field(default=None, validator=optional(instance(str, empty=False)))
    content: bytes | None = field(default=None, repr=False, validator=optional(instance(bytes)))
    executable: bool = field(default=False, validator=flag)

    @name.validator
    def _name_stays_inside(self, attribute: Attribute[str], value: str) -> None:
        _check_name("inputs.name", value)

    def __attrs_post_init__(self) -> None:
        origins = [kind for kind in ("source", "url", "content") if getattr(self, kind) is not None]
        if len(origins) != 1:
            raise SpecRefused(
                f"inputs[{self.name}]",
                f"it has {' and '.join(origins) or 'no origin'}",
                remedy="give exactly one of source, url, content",
            )
        if self.source is not None:
            _check_text(f"inputs[{self.name}].source", self.source)
            if not self.source:
                raise SpecRefused(f"inputs[{self.name}].source", "it is empty")


@frozen
class OutputMember:
    """What to keep of the work directory.

    Attributes:
        pattern: A name, or a pattern with `*`, `?` and `[a-z]`, `[!a-z]`; none of them crosses "/" and a name that begins with "."
            is matched only by a pattern that does. Matching is by bytes. A trailing "/" means a directory with all beneath it.
        destination: A URL the resource uploads to; None: kept for `fetch_output`.

    Raises:
        SpecRefused: The pattern leaves the work directory, or has a bracket that is not closed.
    """

    pattern: str = field()
    destination: str | None = field(default=None, validator=optional(instance(str, empty=False)))

    @pattern.validator
    def _pattern_stays_inside(self, attribute: Attribute[str], value: str) -> None:
        text(self, attribute, value)
        _check_name("outputs", value.removesuffix("/"))
        start = value.find("[")
        while start >= 0:
            first = start + (2 if value.startswith("[!", start) else 1)
            end = value.find("]", first + 1)  # a "]" that comes first stands for itself
            if end < 0 or "/" in value[start:end]:
                raise SpecRefused(
                    "outputs",
                    f"{value!r} has a '[' that is not closed",
                    remedy="close it, or write [[] for a plain '['",
                )
            start = value.find("[", end)


@frozen
class OutputSpec:
    """What to keep of the work directory when the job has ended. stdout and stderr are kept in any case.

    Attributes:
        members: Names and patterns; a plain string becomes an `OutputMember`.
        everything: All regular files beneath the work directory, never the inputs, the executable or secrets.
    """

    members: tuple[OutputMember, ...] = field(default=(), converter=_members)
    everything: bool = field(default=False, validator=flag)


@frozen
class Resources:
    """What one copy needs.

    Attributes:
        cpus: Cores.
        memory_mb: Memory in MiB, for all cores together; None: the resource's default.
        wall_time_s: Seconds of real time; None: the resource's default.
        gpus: Accelerators.
        nodes: Hosts.
        whole_node: Nobody else on those hosts.
        queue: Queue or partition; None: the configured or the resource's default.

    Raises:
        SpecRefused: A number is not in its range.
    """

    cpus: int = field(default=1)
    memory_mb: int | None = field(default=None)
    wall_time_s: int | None = field(default=None)
    gpus: int = field(default=0)
    nodes: int = field(default=1)
    whole_node: bool = field(default=False, validator=flag)
    queue: str | None = None

    def __attrs_post_init__(self) -> None:
        for name, least in (
            ("cpus", 1),
            ("memory_mb", 1),
            ("wall_time_s", 1),
            ("gpus", 0),
            ("nodes", 1),
        ):
            value = getattr(self, name)
            if value is None and name in ("memory_mb", "wall_time_s"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"resources.{name} must be an int, not {type(value).__name__}")
            if value < least:
                raise SpecRefused(
                    f"resources.{name}", f"{value} is too small", remedy=f"give at least {least}"
                )
        if self.queue is not None:
            _check_text("resources.queue", self.queue)
            if not self.queue:
                raise SpecRefused(
                    "resources.queue", "it is empty", remedy="leave it out for the default"
                )


@frozen
class CopyVars:
    """What differs between the copies of one specification.

    Attributes:
        environment: Added to the specification's, and stronger. Readable by the site.
        secrets: Files of mode 0600 in this copy's work directory, by name. They are sent in the staging stream, never in argv,
            environment or the scheduler, and never come back with the output.

    Raises:
        SpecRefused: A variable or file name is not acceptable.
    """

    environment: Mapping[str, str] = field(factory=dict, converter=_environment, hash=False)
    secrets: Mapping[str, bytes] = field(factory=dict, converter=_secrets, repr=False, hash=False)

    def __attrs_post_init__(self) -> None:
        _check_variables("copies.environment", self.environment)
        for name in self.secrets:
            _check_name("copies.secrets", name)


@frozen
class SubmissionSpec:
    """One program with its sandbox, to be run as any number of copies.

    Attributes:
        executable: A local file, staged into the work directory and run there as `./<its name>`; with `resident` a program that is
            already on the resource: a path, or a name looked up on its PATH.
        arguments: Arrive byte for byte (S4).
        inputs: Put into the work directory of every copy.
        outputs: What `fetch_output` brings back besides stdout and stderr.
        resources: What one copy needs.
        environment: Set for the payload, byte for byte. Readable by the site.
        resident: The executable is not staged.
        stdout: The name that standard output gets when fetched; None: "stdout".
        stderr: Likewise; None: "stderr".
        container: An image to run in, where the resource can.
        tag: The caller's own mark, 1 to 255 printable characters, for `find` (S7).

    Raises:
        SpecRefused: A field makes no sense; names the field.
        TypeError: A field is of the wrong type.
    """

    executable: str = field(converter=_path)
    arguments: tuple[str, ...] = field(default=(), converter=_arguments)
    inputs: tuple[FileRef, ...] = field(default=(), converter=_inputs)
    outputs: OutputSpec = field(factory=OutputSpec, validator=instance(OutputSpec))
    resources: Resources = field(factory=Resources, validator=instance(Resources))
    environment: Mapping[str, str] = field(factory=dict, converter=_environment, hash=False)
    resident: bool = field(default=False, validator=flag)
    stdout: str | None = None
    stderr: str | None = None
    container: str | None = None
    tag: str | None = None

    @property
    def executable_name(self) -> str | None:
        """The name of the staged executable in the work directory; None if it is resident."""
        return None if self.resident else self.executable.rpartition("/")[2]

    def __attrs_post_init__(self) -> None:
        self._check_executable()
        for index, argument in enumerate(self.arguments):
            _check_text(f"arguments[{index}]", argument)
        self._check_inputs()
        _check_variables("environment", self.environment)
        self._check_streams()
        if self.container is not None:
            _check_text("container", self.container)
            if not self.container:
                raise SpecRefused("container", "it is empty", remedy="leave it out for none")
        if self.tag is not None:
            _check_text("tag", self.tag)
            if not 1 <= len(self.tag) <= _TAG_MAX or not self.tag.isprintable():
                raise SpecRefused(
                    "tag", f"{self.tag[:40]!r} is not 1 to {_TAG_MAX} printable characters"
                )

    def _check_executable(self) -> None:
        _check_text("executable", self.executable)
        if not self.executable or self.executable.endswith("/"):
            raise SpecRefused("executable", f"{self.executable!r} names no file")
        if self.executable_name in (".", ".."):
            raise SpecRefused("executable", f"{self.executable!r} names no file")

    def _check_inputs(self) -> None:
        taken = {} if self.executable_name is None else {self.executable_name: "the executable"}
        for index, ref in enumerate(self.inputs):
            if ref.name in taken:
                raise SpecRefused(
                    f"inputs[{index}].name",
                    f"{ref.name!r} is also {taken[ref.name]}",
                    remedy="give each its own name",
                )
            taken[ref.name] = f"inputs[{index}]"
        for index, ref in enumerate(self.inputs):
            parent = ref.name
            while "/" in parent:
                parent = parent.rpartition("/")[0]
                if parent in taken:
                    raise SpecRefused(
                        f"inputs[{index}].name", f"{ref.name!r} lies beneath {taken[parent]}"
                    )

    def _check_streams(self) -> None:
        names = {
            "stdout": "stdout" if self.stdout is None else self.stdout,
            "stderr": "stderr" if self.stderr is None else self.stderr,
        }
        for name, value in names.items():
            _check_name(name, value)
            if "/" in value or value in _RESERVED:
                raise SpecRefused(
                    name, f"{value!r} is not free", remedy="use a plain name, not work or log"
                )
        if names["stdout"] == names["stderr"]:
            raise SpecRefused("stderr", "it has the name of stdout", remedy="choose another")


def expand_copies(copies: int | Sequence[CopyVars]) -> tuple[CopyVars, ...]:
    """What `submit` was asked for: one `CopyVars` per copy.

    Raises:
        SpecRefused: There are none.
        TypeError: Neither a number nor a sequence of `CopyVars`.
    """
    if isinstance(copies, int) and not isinstance(copies, bool):
        variants = (CopyVars(),) * max(copies, 0)
    elif isinstance(copies, bool) or not isinstance(copies, Sequence):
        raise TypeError(
            f"copies must be a number or a sequence of CopyVars, not {type(copies).__name__}"
        )
    else:
        variants = many(CopyVars, copies, "copies")
    if not variants:
        raise SpecRefused("copies", f"{copies!r} asks for no job", remedy="give at least 1")
    return variants


@frozen
class JobHandle:
    """A job that was submitted: all that is needed to find it again, also in another process.

    Attributes:
        id: For every later call.
        backend: The type of the backend, as in the configuration.
        resource: The configuration's name for the resource.
        submission: Shared by all copies of one submit.
        copy: 0, 1, 2, ...
        submitted_at: UTC.
        tag: The caller's mark.
        metadata: Whatever else the backend tells, for people.

    Raises:
        ValueError: A name is empty, `copy` is negative, or `submitted_at` has no time zone.
        TypeError: A field is of the wrong type.
    """

    id: JobID = field(validator=instance(str, empty=False))
    backend: str = field(validator=instance(str, empty=False))
    resource: str = field(validator=instance(str, empty=False))
    submission: str = field(validator=instance(str, empty=False))
    copy: int = field(validator=whole_number(0))
    submitted_at: datetime = field(converter=as_utc)
    tag: str | None = field(default=None, validator=optional(text))
    metadata: Mapping[str, str] = field(factory=dict, converter=_metadata, hash=False)


def _handles(values: Iterable[JobHandle]) -> tuple[JobHandle, ...]:
    return many(JobHandle, values, "handles")


def _failures(values: Mapping[int, Failure]) -> Mapping[int, Failure]:
    many(int, values, "the keys of failures")
    many(Failure, values.values(), "failures")
    if min(values, default=0) < 0:
        raise ValueError(f"failures has a copy below 0: {min(values)}")
    return dict(values)


@frozen
class Submission:
    """The answer of `submit`: every copy is in `handles` or in `failures`, once (S1).

    Attributes:
        id: Also the name of the sandbox.
        handles: In copy order.
        failures: By copy.

    Raises:
        ValueError: A copy is in both, twice, or the handles are out of order or another submission's.
    """

    id: str = field(validator=instance(str, empty=False))
    handles: tuple[JobHandle, ...] = field(converter=_handles)
    failures: Mapping[int, Failure] = field(factory=dict, converter=_failures, hash=False)

    def __attrs_post_init__(self) -> None:
        copies = [handle.copy for handle in self.handles]
        if copies != sorted(set(copies)):
            raise ValueError("handles must be in copy order, one per copy")
        both = sorted(set(copies) & set(self.failures))
        if both:
            raise ValueError(f"copies {both[:5]} have a handle and a failure")
        strangers = [handle.id for handle in self.handles if handle.submission != self.id]
        if strangers:
            raise ValueError(f"handles of another submission: {strangers[:3]}")

    def raise_for_failures(self) -> None:
        """Do nothing if every copy was submitted.

        Raises:
            PartialFailure: At least one copy was not.
        """
        if self.failures:
            raise PartialFailure(self.failures)
