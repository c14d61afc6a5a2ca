"""What a pretend job does.

An executable called `payload.sh` is not run but read: its arguments are verbs with their operands, carried out in order in a pretend
work directory. Any other executable succeeds at once with empty output. Pure: the same program has done the same after the same time,
so a job's output while it runs is computed when somebody asks.

    echo TEXT         TEXT and a newline to stdout         err TEXT         the same to stderr
    args A B ...      every remaining argument, each       env NAME         "=VALUE" or "unset", and a NUL
                      followed by a NUL                    cat FILE         to stdout
    write FILE TEXT   without a newline; parents are made  fill FILE BYTES  zeros
    many DIR COUNT    DIR/f0 ..., each holding its number  mode FILE        its permission bits, octal
    ls                all names beneath, by bytes          sleep SECONDS
    exit CODE                                              signal NUMBER    dies by it
    symlink NAME TARGET, hardlink NAME TARGET, fifo NAME   trap             TERM is ignored from now on
    shut NAME         all rights to it are taken away      spawn SECONDS    a child in a session of its own

It is the payload of the contract suite, where the same verbs are a shell script. Reaching the end is exit 0; an unknown verb, or one without its operands, is exit 64; a file that cannot be used is exit 1.
"""

from __future__ import annotations

import math
import posixpath
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Final

from attrs import evolve, field, frozen

from ._content import Content, encoded

__all__ = ["PAYLOAD", "Entry", "Kind", "Program", "Progress", "made", "perform", "resolved"]

#: The file name of an executable whose arguments are verbs.
PAYLOAD: Final = "payload.sh"

_UNKNOWN_VERB: Final = 64
_CANNOT: Final = 1
#: As many links as Linux follows before it says ELOOP (path_resolution(7)).
_MAX_LINKS: Final = 40
_NEW_FILE: Final = 0o600
_SIGNALS: Final = range(1, 65)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Kind(Enum):
    """What a name in the work directory stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    FIFO = "fifo"


@frozen
class Entry:
    """One name in the work directory."""

    kind: Kind
    content: Content = field(factory=Content)
    mode: int = _NEW_FILE
    target: str = ""


@frozen
class Program:
    """What a job runs, with all that lies ready for it.

    Attributes:
        name: The file name of the executable.
        arguments: Its arguments.
        environment: Its variables.
        files: The work directory at the start, by relative name; parents included.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, Entry]


@frozen
class Progress:
    """What a program has done after some time.

    Attributes:
        stdout: So far.
        stderr: So far.
        files: The work directory.
        children: When each child was born and when it dies, in seconds since the start.
        sleeping: How long the sleep lasts that it is in; None once it ended.
        duration: After how many seconds it ended; None while it runs.
        exit_code: Once it ended by itself.
        signal: Once it died by one.
    """

    stdout: Content = field(factory=Content)
    stderr: Content = field(factory=Content)
    files: Mapping[str, Entry] = field(factory=dict)
    children: tuple[tuple[float, float], ...] = ()
    sleeping: float | None = None
    duration: float | None = None
    exit_code: int | None = None
    signal: int | None = None


def perform(program: Program, seconds: float = math.inf) -> Progress:
    """What the program has done when it has run for so many seconds."""
    running = _Running(program)
    if program.name != PAYLOAD:
        return running.so_far(exit_code=0)
    words = iter(program.arguments)
    for verb in words:
        if verb not in _VERBS:
            running.say(f"{PAYLOAD}: unknown verb: {verb}")
            return running.so_far(exit_code=_UNKNOWN_VERB)
        arity, act = _VERBS[verb]
        operands = list(_taken(words, arity))
        if arity is not None and len(operands) < arity:
            running.say(f"{PAYLOAD}: {verb}: {arity} operands are needed")
            return running.so_far(exit_code=_UNKNOWN_VERB)
        try:
            act(running, *operands)
        except _Exit as ending:
            return running.so_far(exit_code=ending.exit_code, signal=ending.signal)
        except ValueError:
            running.say(f"{PAYLOAD}: {verb}: not understood: {' '.join(operands)}")
            return running.so_far(exit_code=_UNKNOWN_VERB)
        if running.elapsed > seconds:
            return running.so_far(ended=False)
    return running.so_far(exit_code=0)


def _taken(words: Iterator[str], count: int | None) -> Iterator[str]:
    """The next `count` words, or all of them."""
    if count == 0:
        return
    for taken, word in enumerate(words, 1):
        yield word
        if taken == count:
            return


def resolved(files: Mapping[str, Entry], name: str, links: int = 0) -> str | None:
    """The place that a name leads to, all links followed; None if that is outside, or nowhere."""
    if name.startswith("/") or links > _MAX_LINKS:
        return None
    parts: list[str] = []
    rest = name.split("/")
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
            continue
        entry = files.get("/".join([*parts, part]))
        if entry is not None and entry.kind is Kind.LINK:
            if entry.target.startswith("/"):
                return None
            return resolved(files, "/".join([*parts, entry.target, *rest]), links + 1)
        parts.append(part)
    return "/".join(parts) or None


def made(files: dict[str, Entry], name: str, entry: Entry) -> bool:
    """Put an entry where nothing else of another kind is, making its parents; False if that cannot be."""
    parent = posixpath.dirname(name)
    missing = []
    while parent and parent not in files:
        missing.append(parent)
        parent = posixpath.dirname(parent)
    if parent and files[parent].kind is not Kind.DIRECTORY:
        return False
    if name in files and files[name].kind is not entry.kind:
        return False
    for directory in missing:
        files[directory] = Entry(Kind.DIRECTORY, mode=0o700)
    files[name] = entry
    return True


class _Exit(Exception):
    """An ending, not an error."""

    def __init__(self, exit_code: int | None = None, signal: int | None = None) -> None:
        super().__init__()
        self.exit_code = exit_code
        self.signal = signal


class _Running:
    """A program on its way."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.stdout: list[Content] = []
        self.stderr: list[Content] = []
        self.files = dict(program.files)
        self.children: list[tuple[float, float]] = []
        self.elapsed = 0.0
        self.last_sleep = 0.0
        self.deaf = False

    def say(self, text: str) -> None:
        self.stderr.append(Content.of(encoded(text) + b"\n"))

    def fail(self, text: str) -> _Exit:
        self.say(f"{PAYLOAD}: {text}")
        return _Exit(_CANNOT)

    def so_far(
        self, *, ended: bool = True, exit_code: int | None = None, signal: int | None = None
    ) -> Progress:
        return Progress(
            stdout=_joined(self.stdout),
            stderr=_joined(self.stderr),
            files=self.files,
            children=tuple(self.children),
            sleeping=None if ended else self.last_sleep,
            duration=self.elapsed if ended else None,
            exit_code=exit_code,
            signal=signal,
        )

    def write(self, name: str, content: Content) -> None:
        """A regular file, whatever it held before."""
        place = resolved(self.files, name)
        old = None if place is None else self.files.get(place)
        mode = _NEW_FILE if old is None else old.mode
        if place is None or not made(self.files, place, Entry(Kind.FILE, content, mode)):
            raise self.fail(f"cannot write {name}")

    def make(self, name: str, entry: Entry) -> None:
        """A name that is not there yet, in a directory that is."""
        directory, _, last = name.rpartition("/")
        parent = resolved(self.files, directory) if directory else ""
        place = last if not parent else f"{parent}/{last}"
        absent = parent is None or (parent and parent not in self.files)
        if (
            absent
            or last in ("", ".", "..")
            or place in self.files
            or not made(self.files, place, entry)
        ):
            raise self.fail(f"cannot make {name}")

    def directory(self, name: str) -> None:
        """A directory with its parents, unless it is there."""
        place = resolved(self.files, name)
        if place is None or not made(self.files, place, Entry(Kind.DIRECTORY, mode=0o700)):
            raise self.fail(f"cannot make {name}")

    def get(self, name: str) -> Entry:
        place = resolved(self.files, name)
        entry = None if place is None else self.files.get(place)
        if entry is None:
            raise self.fail(f"cannot open {name}")
        return entry

    def regular(self, name: str) -> Entry:
        entry = self.get(name)
        if entry.kind is not Kind.FILE:
            raise self.fail(f"not a regular file: {name}")
        return entry


def _joined(parts: list[Content]) -> Content:
    return Content(tuple(run for part in parts for run in part.runs))


# ---------------------------------------------------------------- the verbs


def _echo(running: _Running, text: str) -> None:
    running.stdout.append(Content.of(encoded(text) + b"\n"))


def _err(running: _Running, text: str) -> None:
    running.say(text)


def _args(running: _Running, *arguments: str) -> None:
    running.stdout.extend(Content.of(encoded(argument) + b"\0") for argument in arguments)


def _env(running: _Running, name: str) -> None:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(name)
    value = running.program.environment.get(name)
    text = b"unset" if value is None else b"=" + encoded(value)
    running.stdout.append(Content.of(text + b"\0"))


def _write(running: _Running, name: str, text: str) -> None:
    running.write(name, Content.of(encoded(text)))


def _fill(running: _Running, name: str, size: str) -> None:
    running.write(name, Content.repeated(b"\0", _natural(size)))


def _many(running: _Running, directory: str, count: str) -> None:
    running.directory(directory)
    for number in range(_natural(count)):
        running.write(f"{directory}/f{number}", Content.of(b"%d\n" % number))


def _cat(running: _Running, name: str) -> None:
    running.stdout.append(running.regular(name).content)


def _mode(running: _Running, name: str) -> None:
    running.stdout.append(Content.of(b"%03o\n" % running.get(name).mode))


def _ls(running: _Running) -> None:
    names = sorted(map(encoded, running.files))
    running.stdout.append(Content.of(b"".join(name + b"\n" for name in names)))


def _sleep(running: _Running, seconds: str) -> None:
    running.last_sleep = _seconds(seconds)
    running.elapsed += running.last_sleep


def _exit(running: _Running, code: str) -> None:
    raise _Exit(exit_code=_natural(code) % 256)


def _signal(running: _Running, number: str) -> None:
    deadly = _natural(number)
    if deadly not in _SIGNALS:
        raise running.fail(f"no such signal: {number}")
    if not (running.deaf and deadly == signal.SIGTERM):
        raise _Exit(signal=deadly)


def _symlink(running: _Running, name: str, target: str) -> None:
    running.make(name, Entry(Kind.LINK, mode=0o777, target=target))


def _hardlink(running: _Running, name: str, target: str) -> None:
    running.make(name, running.regular(target))


def _fifo(running: _Running, name: str) -> None:
    running.make(name, Entry(Kind.FIFO))


def _shut(running: _Running, name: str) -> None:
    entry = running.get(name)
    place = resolved(running.files, name)
    assert place is not None
    running.files[place] = evolve(entry, mode=0)


def _spawn(running: _Running, seconds: str) -> None:
    running.children.append((running.elapsed, running.elapsed + _seconds(seconds)))


def _trap(running: _Running) -> None:
    """A kill of the fake ends what ignores TERM too, as a kill must (K1)."""
    running.deaf = True


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


#: How many operands each verb takes (None: all that remain), and what it does.
_VERBS: Final[Mapping[str, tuple[int | None, Callable[..., None]]]] = {
    "echo": (1, _echo),
    "err": (1, _err),
    "args": (None, _args),
    "env": (1, _env),
    "write": (2, _write),
    "fill": (2, _fill),
    "many": (2, _many),
    "cat": (1, _cat),
    "mode": (1, _mode),
    "ls": (0, _ls),
    "sleep": (1, _sleep),
    "exit": (1, _exit),
    "signal": (1, _signal),
    "symlink": (2, _symlink),
    "hardlink": (2, _hardlink),
    "fifo": (1, _fifo),
    "shut": (1, _shut),
    "spawn": (1, _spawn),
    "trap": (0, _trap),
}
