"""The jobs of a check: what they run, what comes of it, and what it means when something else came.

Two of them. The `brief` one says a word, writes a file and ends. The `sleeper` says a word and sleeps until it is killed: while it does
so, there is time to look at it. It ends by itself too, so that not even a check that is cut off leaves a job behind for ever.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from intercede.core import (
    Diagnostics,
    JobDetails,
    JobOutput,
    JobStatus,
    OutputSpec,
    SubmissionSpec,
)

from ._report import ending_text
from ._steps import Finding

__all__ = [
    "Probe",
    "check_fetched",
    "check_success",
    "probes",
    "state_of",
    "too_early",
    "unfinished",
    "unread",
    "words_of",
]

#: The verbs are those of the payload that the fake knows by this name.
_NAME: Final = "payload.sh"
_SCRIPT: Final = """\
#!/bin/sh
# A job of `intercede check`: its arguments are verbs, done in order.
set -e
while [ $# -gt 0 ]; do
  case $1 in
  echo) printf '%s\\n' "$2"; shift 2 ;;
  write) printf %s "$3" > "./$2"; shift 3 ;;
  sleep) sleep "$2"; shift 2 ;;
  *) exit 64 ;;
  esac
done
"""
_FILE: Final = "result.txt"
#: How long the sleeper sleeps at least, in seconds, if nobody ends it.
_NAP_S: Final = 60
#: How much of what a job said is shown, in characters; its end.
_SAID: Final = 1000


@frozen
class Probe:
    """One job of a check.

    Attributes:
        spec: What is submitted.
        word: What it says on stdout, and writes into its file.
    """

    spec: SubmissionSpec
    word: str


def probes(place: Path, tag: str, patience_s: float | None) -> tuple[Probe, Probe]:
    """The brief job and the sleeper. Their executable is written into the place, a directory here.

    Args:
        place: Where.
        tag: Of both.
        patience_s: How long it may take until the sleeper is killed; None: nobody can.
    """
    executable = place / _NAME
    executable.write_text(_SCRIPT)
    executable.chmod(0o700)
    nap_s = _NAP_S if patience_s is None else round(2 * patience_s) + _NAP_S

    def probe(more: Callable[[str], list[str]], outputs: list[str]) -> Probe:
        word = f"intercede-{secrets.token_hex(8)}"
        spec = SubmissionSpec(
            str(executable),
            arguments=["echo", word, *more(word)],
            outputs=OutputSpec(outputs),
            tag=tag,
        )
        return Probe(spec, word)

    return (
        probe(lambda word: ["write", _FILE, word], [_FILE]),
        probe(lambda word: ["sleep", str(nap_s)], []),
    )


# ---------------------------------------------------------------- what is wrong


def check_fetched(output: JobOutput, probe: Probe) -> str:
    """What the brief job wrote is here, byte for byte.

    Returns:
        How much came, in words.

    Raises:
        Finding: It is not, or something else is.
    """
    wanted = {"stdout": f"{probe.word}\n".encode(), _FILE: probe.word.encode()}
    paths = {"stdout": output.stdout, _FILE: output.files.get(_FILE)}
    for name, content in wanted.items():
        path = paths[name]
        if path is None:
            raise Finding(f"{name} did not come back", _LOST)
        found = path.read_bytes()
        if found != content:
            raise Finding(
                f"{name} came back with {_shown(found)} instead of {_shown(content)}", _LOST
            )
    more = sorted(set(output.files) - {_FILE})
    if more:
        raise Finding(f"files came back that the job did not write: {', '.join(more)}", _LOST)
    return f"2 files, {sum(map(len, wanted.values()))} bytes"


_LOST: Final = "see whether the nodes and the host share the file system of the sandboxes, and whether it is full"


def _shown(content: bytes) -> str:
    more = f"... ({len(content)} bytes)" if len(content) > 60 else ""
    return f"{content[:60]!r}{more}"


def check_success(details: JobDetails, said: Callable[[], str]) -> None:
    """Return if the brief job has ended well.

    Args:
        details: How it ended.
        said: What it and its scheduler have said; called only if it has not.

    Raises:
        Finding: It has not.
    """
    if details.status is not JobStatus.SUCCESSFUL:
        cause = f"the job that should end well has not: {ending_text(details)}"
        raise Finding(cause, _ENDINGS.get(details.status, _ENDED), said())


_ENDED: Final = (
    "look for what ends jobs there (limits on memory and time, a prologue or a node's health check that"
    " fails, an administrator's script), and at its node's log"
)
_ENDINGS: Final[Mapping[JobStatus, str]] = {
    JobStatus.FINISHED_UNKNOWN: "see whether the nodes and the host share the file system of the"
    " sandboxes, and how soon the host sees what nodes write",
}


def too_early(details: JobDetails, waited_s: float, said: str) -> Finding:
    """A job has ended that nobody of us has ended."""
    return Finding(
        f"the job that sleeps has ended {waited_s:.1f} s after its submission, and not by us:"
        f" {ending_text(details)}",
        _ENDINGS.get(details.status, _ENDED),
        said,
    )


def unfinished(details: JobDetails, waited_s: float, wanted: str, said: str) -> Finding:
    """A job has not come so far within the time."""
    return Finding(
        f"the job is not {wanted} after {waited_s:.0f} s: {state_of(details)}",
        _HELD if details.status is JobStatus.HELD else _WAITS,
        said,
    )


def unread(diagnostics: Diagnostics, wanted: bytes) -> Finding:
    """A running job has written something else than what can be read of it, if it can at all."""
    return Finding(
        f"the running job has written {_shown(wanted)}, and what can be read of it is"
        f" {_shown(diagnostics.stdout_tail)}",
        "see whether the nodes and the host share the file system of the sandboxes, and how soon the host"
        " sees what nodes write",
        words_of(diagnostics),
    )


def state_of(details: JobDetails) -> str:
    """Where a job is, and why: `pending, PENDING (Resources)`."""
    state = str(details.status)
    if details.native_state and details.native_state.lower() != state:
        state += f", {details.native_state}"
    return f"{state} ({details.reason})" if details.reason else state


_WAITS: Final = "see what that reason means at this resource, configure another queue, or give it longer with --timeout"
_HELD: Final = "see who holds jobs there, and have it released"


def words_of(diagnostics: Diagnostics) -> str:
    """The ends of what a job's scheduler and its shell said. On stdout is nothing but the word."""
    tails = (diagnostics.log_tail, diagnostics.stderr_tail)
    texts = (tail.decode("utf-8", "replace").strip()[-_SAID:] for tail in tails)
    return "\n".join(text for text in texts if text)
