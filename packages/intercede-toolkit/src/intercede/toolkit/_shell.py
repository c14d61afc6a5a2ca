"""How commands travel: POSIX shell text that survives any login shell.

One constant command line starts everything, `sh -c 'eval "$(dd bs=1 count=N 2>/dev/null)"'`; what varies follows on standard input: a
first stage of exactly N bytes, then the script it reads in one piece, then what the caller streams. Nothing of it is seen by a login shell,
by `ps`, or by the limit on the length of a command line. (`sh -s` would not do: dash reads ahead and runs the data.)

A connection may break under any of it. A script that did not arrive whole runs nothing, and its commands' inputs are within it.

What comes back is cut into frames by a random word, so that neither a noisy profile nor a command's own output can be taken for one.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence

from attrs import field, frozen

from intercede.core import Command, CommandResult, ResourceError

__all__ = ["Frames", "Script", "print_data", "quote", "quote_pattern"]

#: Defines `take`, which reads exactly $1 bytes of standard input however they arrive, and reads the script with it. GNU and BusyBox dd
#: know fullblock; others read byte by byte.
_FIRST_STAGE = (
    "if dd if=/dev/null iflag=fullblock 2>/dev/null;"
    ' then take() { dd "bs=$1" count=1 iflag=fullblock 2>/dev/null; };'
    ' else take() { dd bs=1 "count=$1" 2>/dev/null; }; fi;'
    ' eval "$(take {size:012d})"'
)
_FIRST_STAGE_SIZE = len(_FIRST_STAGE.replace("{size:012d}", "0" * 12))

#: The exit code at the end of a frame; an answer that was cut may lack it.
_CODE = re.compile("[0-9]{1,3}")

#: What every script begins with: nothing of the account's profile may change what the tools do.
_PRELUDE = """\
# The account's own locale, for payloads; ours is C, in which a byte is a character and a message is in English.
INTERCEDE_LOCALE=${LC_ALL:-${LANG:-}}; LC_ALL=C; export INTERCEDE_LOCALE LC_ALL
unset CDPATH ENV BASH_ENV TAR_OPTIONS GREP_OPTIONS POSIXLY_CORRECT
umask 077
exec 3>&1
frame() { printf '\\n%s %s\\n' "$nonce" "$*"; }
"""

#: `framed LABEL COMMAND...`: runs a command on our input; its stdout passes through, its stderr is kept in a variable.
_FRAMED = """\
framed() {
  label=$1; shift
  frame begin "$label"
  said=$("$@" 2>&1 >&3 3>&-)
  code=$?
  frame end "$label" "$code"
  printf '%s' "$said"
}
"""

#: How long one word of a command is at most, in bytes: Linux takes 128 KiB, and a shell's `printf` may be a program.
_PIECE = 2**15


def quote(text: str) -> str:
    """One word of a POSIX shell, whatever the text holds (bytes 1 to 255, as Python carries them)."""
    return shlex.quote(text)


def print_data(data: bytes) -> str:
    """Shell text that prints these bytes, whatever they are.

    Data travels within the script: what follows it may be cut on its way, and a command would take the part for the whole.
    """
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    return "{ " + "".join(f"printf %b {_escaped(piece)}; " for piece in pieces) + ":; }"


def _escaped(piece: bytes) -> str:
    text = piece.replace(b"\\", b"\\\\").replace(b"\0", b"\\0000")
    return quote(text.decode("utf-8", "surrogateescape"))


def quote_pattern(pattern: str) -> str:
    """A pattern with `*`, `?`, `[...]` as shell text that expands to what it matches, and in which all else stands for itself."""
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char in "*?":
            parts.append(char)
            index += 1
        elif char == "[":
            end = pattern.index("]", index + 2 + (pattern[index + 1] == "!"))
            parts.append(_quote_bracket(pattern[index + 1 : end]))
            index = end + 1
        else:
            plain = index
            while index < len(pattern) and pattern[index] not in "*?[":
                index += 1
            parts.append(quote(pattern[plain:index]))
    return "".join(parts)


def _quote_bracket(content: str) -> str:
    negated = content.startswith("!")
    body = content[1:] if negated else content
    if not negated and body.startswith("^") and body[1:2] != "-":
        # In first place some shells (BusyBox) take it for "!", quoted or not.
        body = body[1:] + "^"
    if body == "^":
        return quote("^") if not negated else "[!'^']"
    # Within brackets only "-" and a leading "!" keep their meaning; the rest is quoted one by one.
    quoted = "".join("-" if char == "-" else quote(char) for char in body)
    return f"[{'!' if negated else ''}{quoted}]"


@frozen
class Frames:
    """The answer of a script, cut where it said so.

    Attributes:
        results: Of the commands run with `Script.run`, by label.
        lines: What the script itself printed between them, by line.
        ended: The script reached its end mark: nothing is missing.
    """

    results: dict[str, CommandResult] = field(factory=dict)
    lines: list[str] = field(factory=list)
    ended: bool = False

    def commands(self, prefix: str, count: int) -> list[CommandResult]:
        """The results of a series of commands run by `Script.run_all`.

        Raises:
            ResourceError: One of them is not there.
        """
        missing = [n for n in range(count) if f"{prefix}{n}" not in self.results]
        if missing:
            raise ResourceError(f"the answer ends before command {prefix}{missing[0]}")
        return [self.results[f"{prefix}{n}"] for n in range(count)]


class Script:
    """A shell script in the making.

    Lines are shell text in the order in which they were added; `$nonce` is the random word. It runs as a whole or not at all. What the
    transport sends after it is its standard input.
    """

    def __init__(self) -> None:
        self.nonce = secrets.token_hex(16)
        self._text: list[str] = []

    def add(self, text: str) -> None:
        """Append shell text."""
        self._text.append(text)

    def run(self, label: str, command: Command) -> None:
        """Append a command whose result shall come back framed; the label has no spaces."""
        words = " ".join(quote(word) for word in command.argv)
        if command.stdin:
            self.add(f"{print_data(command.stdin)} 2>/dev/null | framed {label} {words}")
        else:
            self.add(f"framed {label} {words} </dev/null")

    def run_all(self, prefix: str, commands: Sequence[Command]) -> None:
        """Append commands labelled `<prefix>0`, `<prefix>1`, ..."""
        for number, command in enumerate(commands):
            self.run(f"{prefix}{number}", command)

    def command(self, *, timeout_s: float, max_output: int = 64 * 2**20) -> Command:
        """The command that carries all of it."""
        lines = [f"nonce={self.nonce}", _PRELUDE + _FRAMED, *self._text, "frame ended"]
        # One compound command, so that a script that was cut on its way is a syntax error and runs nothing: of "rm -rf a/b" nobody
        # may run "rm -rf a".
        text = "\n".join(["{", *lines, "}"])
        script = text.encode("utf-8", "surrogateescape")
        first = _FIRST_STAGE.replace("{size:012d}", f"{len(script):012d}").encode()
        return Command(
            argv=("sh", "-c", f'eval "$(dd bs=1 count={_FIRST_STAGE_SIZE} 2>/dev/null)"'),
            stdin=first + script,
            timeout_s=timeout_s,
            max_output=max_output,
        )

    def parse(self, answer: bytes) -> Frames:
        """Cut the answer. What stands before the first frame (a noisy profile) is left out."""
        results: dict[str, CommandResult] = {}
        lines: list[str] = []
        ended = False
        pieces = answer.split(b"\n" + self.nonce.encode() + b" ")
        output = b""
        for piece in pieces[1:]:
            head, whole, body = piece.partition(b"\n")
            if not whole:
                continue  # the answer was cut here
            words = head.decode("ascii", "replace").split(" ")
            if words[0] == "begin":
                output = body
            elif words[0] == "end" and len(words) == 3 and _CODE.fullmatch(words[2]):
                results[words[1]] = CommandResult(int(words[2]), output, body)
            elif words[0] == "say" and body:
                # Not splitlines(): what a job wrote may hold other characters that end a line there.
                text = body.decode("utf-8", "surrogateescape")
                lines.extend(text.removesuffix("\n").split("\n"))
            elif words[0] == "ended":
                ended = True
        return Frames(results, lines, ended)
