"""Which jobs a command is about.

Ids come from the command line, from stdin (`-`: an id or a JSON handle per line, as `submit` and `find` print them), or from the
resource itself, by tag. The first part of an id names its resource in the configuration.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from intercede.core import JobID

from ._exits import UsageError
from ._screen import Screen

__all__ = ["STDIN", "by_resource", "read_ids"]

#: In the place of an id.
STDIN: Final = "-"


def read_ids(given: Sequence[str], screen: Screen) -> list[str]:
    """The ids that were named, in their order; each once.

    Raises:
        UsageError: stdin has a line that is neither an id nor a handle, or nothing at all.
    """
    ids: list[str] = []
    for word in given:
        ids.extend(_from_stdin(screen) if word == STDIN else [word])
    return list(dict.fromkeys(ids))


def _from_stdin(screen: Screen) -> list[str]:
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    ids: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        word = line.strip()
        if word:
            ids.extend(_from_object(word, number, screen) if word.startswith("{") else [word])
    if not ids:
        raise UsageError("standard input names no job", remedy="give an id or a handle per line")
    return ids


def _from_object(line: str, number: int, screen: Screen) -> list[str]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"line {number} of standard input is not JSON: {error}") from None
    if isinstance(value.get("error"), dict):  # from a command before us in the pipe
        screen.note(f"standard input carries an error: {value['error'].get('message')}")
        return []
    job = value.get("id")
    if not isinstance(job, str):
        raise UsageError(f"line {number} of standard input is no handle: it has no 'id'")
    return [job]


def by_resource(ids: Sequence[JobID]) -> Mapping[str, list[JobID]]:
    """The ids by the name of their resource."""
    grouped: dict[str, list[JobID]] = {}
    for job in ids:
        grouped.setdefault(job.partition("/")[0], []).append(job)
    return grouped
