"""The commands that a pretend host knows. Pure: a command in, its ending out.

    true, false      exit code 0 and 1            cat              stdin to stdout
    echo A B ...     the words and a newline      args A B ...     each argument and a NUL
    exit CODE        ends with it                 kill NUMBER      ends by that signal
    sleep SECONDS                                 yes BYTES        that many bytes of "y" and newline

Anything else is exit code 127, as a shell would have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import field, frozen

from intercede.core import Command

from ._content import Content, encoded

__all__ = ["Ending", "ending_of"]

_NOT_FOUND: Final = 127
_MISUSED: Final = 2


@frozen
class Ending:
    """How a command ends, and after how many seconds."""

    returncode: int = 0
    stdout: Content = field(factory=Content)
    stderr: bytes = b""
    seconds: float = 0.0


def ending_of(command: Command) -> Ending:
    """What becomes of a command."""
    program, *words = command.argv
    if program not in _COMMANDS:
        return Ending(_NOT_FOUND, stderr=encoded(f"{program}: not found\n"))
    try:
        return _COMMANDS[program](command, words)
    except (ValueError, IndexError):
        return Ending(_MISUSED, stderr=encoded(f"{program}: not understood: {' '.join(words)}\n"))


def _echo(command: Command, words: list[str]) -> Ending:
    return Ending(stdout=Content.of(encoded(" ".join(words)) + b"\n"))


def _args(command: Command, words: list[str]) -> Ending:
    return Ending(stdout=Content.of(b"".join(encoded(word) + b"\0" for word in words)))


#: What each does with its words.
_COMMANDS: Final[Mapping[str, Callable[[Command, list[str]], Ending]]] = {
    "true": lambda command, words: Ending(0),
    "false": lambda command, words: Ending(1),
    "cat": lambda command, words: Ending(stdout=Content.of(command.stdin)),
    "echo": _echo,
    "args": _args,
    "exit": lambda command, words: Ending(int(words[0]) % 256),
    "kill": lambda command, words: Ending(-int(words[0])),
    "sleep": lambda command, words: Ending(seconds=float(words[0])),
    "yes": lambda command, words: Ending(stdout=Content.repeated(b"y\n", int(words[0]))),
}
