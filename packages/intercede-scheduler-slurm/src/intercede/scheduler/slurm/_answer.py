"""How an answer is told from what others may have put into it.

A job's name may hold anything, also newlines and rows that look like ours. So each of our programs makes a random word on the host, the
nonce, and prints it first; a row of Slurm's answer is believed if it begins and ends with it (`squeue -o "NONCE|%i|...|NONCE"`), and the
answer if it has the header that Slurm prints and a last row in which the program says how the command ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import field, frozen

from intercede.core import CommandResult, ResourceError

__all__ = ["Answer", "read_answer"]

_FIRST: Final = re.compile(r"slurm ([0-9a-f.-]{8,64})")


@frozen
class Answer:
    """What one of our programs printed.

    Attributes:
        nonce: Its random word.
        rows: The fields between the nonces, one at least, of each row that has both.
        torn: The fields of each line that begins with the nonce and does not end with it.
        plain: The lines without it.
        ends: How the commands ended, by their name: the worst exit code of each.
        said: What was said on standard error.
    """

    nonce: str
    rows: list[list[str]] = field(factory=list)
    torn: list[list[str]] = field(factory=list)
    plain: list[str] = field(factory=list)
    ends: dict[str, int] = field(factory=dict)
    said: str = ""

    def check(self, program: str) -> None:
        """Do nothing if this command came to a good end.

        Raises:
            ResourceError: It did not, or nothing is known of it.
        """
        code = self.ends.get(program)
        if code is None:
            raise ResourceError(f"the answer of {program} does not come to its end", said=self.said)
        if code != 0:
            raise ResourceError(f"{program} failed (exit code {code})", said=self.said)


def read_answer(results: Sequence[CommandResult]) -> Answer:
    """Cut an answer into rows.

    Raises:
        ResourceError: It is not one of our programs that spoke, or it was cut.
    """
    if not results:
        raise ResourceError("there is no answer")
    result = results[0]
    text = result.stdout.decode(errors="replace")
    said = (result.stderr or result.stdout).decode(errors="replace").strip()
    first, *lines = text.split("\n")
    match = _FIRST.fullmatch(first)
    if match is None or lines[-1:] != [""]:
        raise ResourceError(
            f"the answer is not, or not all, that of our program (exit code {result.returncode})",
            said=said,
        )
    nonce = match[1]
    answer = Answer(nonce, said=result.stderr.decode(errors="replace").strip())
    for line in lines[:-1]:
        head, *fields = line.split("|")
        if head != nonce:
            answer.plain.append(line)
        elif len(fields) < 2 or fields[-1] != nonce:
            answer.torn.append(fields)
        elif fields[0] == "end" and len(fields) == 4 and _is_code(fields[2]):
            answer.ends[fields[1]] = max(int(fields[2]), answer.ends.get(fields[1], 0))
        else:
            answer.rows.append(fields[:-1])
    return answer


def _is_code(text: str) -> bool:
    return re.fullmatch("[0-9]{1,3}", text) is not None
