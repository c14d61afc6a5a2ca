"""How a command travels, and where its output begins. Pure: text and bytes in, bytes out.

sshd hands one line to the account's login shell, whichever that is. It is always the same line, and means the same to all of them: become
`sh`, read so many bytes of standard input, run them. What differs follows on standard input: the script, which names the command, and
then the command's own input. (Not `sh -s`: dash reads ahead and runs the data.)

The script is one compound command, so that one that was cut anywhere is a syntax error and runs nothing. It says a random word on both
streams before it becomes the command; what stands before that word is a profile's and is dropped. If nobody hears it any more, it does not
become the command.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from intercede.toolkit import quote

__all__ = ["COMMAND_LINE", "Opening", "Remote", "framed", "new_word", "read_remote"]

#: What `dd` reads byte by byte: enough for most scripts, and little enough to take no time.
_FIRST: Final = 512
COMMAND_LINE: Final = f"exec sh -c 'eval \"$(dd bs=1 count={_FIRST} 2>/dev/null)\"'"
#: A script that is longer is read by this one, in one piece where dd knows how (GNU, BusyBox), else byte by byte.
_LONGER: Final = '{{ eval "$(dd bs={size} count=1 iflag=fullblock 2>/dev/null || dd bs=1 count={size} 2>/dev/null)"; }}'
#: csh leaves its copies of the three streams open to what it becomes: a daemon that had one would hold the session for ever.
#: The start time in /proc tells the process from a later one of the same number; where there is no /proc there is none.
_SCRIPT: Final = (
    "{{ _ce=; read -r _ce </proc/$$/stat || :; cd || {{ printf '{word} home\\n'; exit 1; }};"
    " printf '{word} %s %s\\n' $$ \"$_ce\" && printf '{word}\\n' >&2 || exit 1; unset _ce;"
    " exec {argv} 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; }}"
)
#: The line after the word is short; a longer one is not ours.
_LINE_MAX: Final = 1024


def new_word() -> str:
    """A word that no profile prints."""
    return secrets.token_hex(16)


def framed(argv: Sequence[str], word: str) -> bytes:
    """The script that becomes the command, as it goes before the command's input.

    Args:
        argv: The program and its arguments; bytes 1 to 255 arrive as they are.
        word: From `new_word`.
    """
    text = _SCRIPT.format(word=word, argv=" ".join(quote(argument) for argument in argv))
    script = text.encode("utf-8", "surrogateescape")
    if len(script) <= _FIRST:
        return script.ljust(_FIRST, b"\n")
    return _LONGER.format(size=len(script)).encode().ljust(_FIRST, b"\n") + script


class Remote:
    """A process of the host.

    Attributes:
        pid: Its number, and its group's, since sshd starts each command in a session of its own.
        start: When it started, in the host's own measure; "" if that is not known.
    """

    __slots__ = ("pid", "start")

    def __init__(self, pid: int, start: str) -> None:
        self.pid = pid
        self.start = start


def read_remote(line: str) -> Remote | None:
    """What the script said of its process; None if it said that there is no home directory, or nothing that can be read."""
    pid, _, stat = line.partition(" ")
    if not (pid.isascii() and pid.isdigit()):
        return None
    # proc(5): the 22nd field; the second is the command in parentheses, with whatever it is called.
    fields = stat.rpartition(")")[2].split()
    start = fields[19] if len(fields) > 19 and fields[19].isdigit() else ""
    return Remote(int(pid), start)


class Opening:
    """Finds where a command's own output begins in one of its streams.

    Args:
        word: What stands there.

    Attributes:
        line: What follows the word on its line; None until it has come.
        before: The last bytes before the word, for a message if it never comes.
        dropped: How many bytes came before the word.
    """

    _KEPT = 2048

    def __init__(self, word: str) -> None:
        self._word = word.encode()
        self._held = b""
        self._found = False
        self.line: str | None = None
        self.before = b""
        self.dropped = 0

    def feed(self, data: bytes) -> bytes:
        """Take what has come; return what of it is the command's own."""
        if self.line is not None:
            return data
        held = self._held + data
        if not self._found:
            place = held.find(self._word)
            if place < 0:
                # The word may have come in part.
                keep = len(self._word) - 1
                self._drop(held[:-keep])
                self._held = held[-keep:]
                return b""
            self._drop(held[:place])
            self._found = True
            held = held[place + len(self._word) :]
        line, end, rest = held.partition(b"\n")
        if not end and len(held) <= _LINE_MAX:
            self._held = held
            return b""
        self._held = b""
        self.line = line[:_LINE_MAX].decode("ascii", "replace").strip()
        return rest

    def _drop(self, data: bytes) -> None:
        self.dropped += len(data)
        self.before = (self.before + data)[-self._KEPT :]

    @property
    def said(self) -> bytes:
        """Everything that came and was not the command's, the last of it."""
        return (self.before + (b"" if self._found else self._held))[-self._KEPT :]
