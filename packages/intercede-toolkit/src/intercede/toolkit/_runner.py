"""The script that runs a payload: one per submission, started by the scheduler with the copy's number.

    <submission>/runner                this script
    <submission>/inputs/               executable and inputs, once
    <submission>/vars/<n>              what differs for each of a hundred copies, if anything does
    <submission>/<copy>/work/          where the payload runs, with its own copies of the inputs
    <submission>/<copy>/start          who runs it: host, process, start time; written before the payload starts
    <submission>/<copy>/{stdout,stderr}
    <submission>/<copy>/cancel         our kill was here first
    <submission>/cancel                the same, for all copies
    <submission>/<copy>/exit           how it ended, in one line; written atomically, last

POSIX sh and usual tools only (cp, mv, mkdir, date, uname, env). Arguments and values are in the script, quoted: no scheduler sees them.

A shell reports exit code 137 and death by signal 9 in the same way. But it says "Killed" on its own stderr when a signal it was (seen
with dash, bash, BusyBox; not for INT and PIPE), and its own stderr is kept apart from the payload's: so the two can be told apart.

Schedulers send TERM to all of a job when its time is over, or somebody cancels it. A payload may trap that and end with exit code 0; the
runner, which is told too, writes down that it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import frozen

from intercede.core import SubmissionSpec

from ._shell import quote

__all__ = ["KILLED", "MARKER", "ExitRecord", "copy_variables", "parse_exit", "runner_script"]

#: The marker in the environment of every process of a job; its end keeps copy 1 from being a prefix of copy 10.
MARKER = "INTERCEDE_JOB"

#: So many copies have their variables in one file: few files to make, and little for each runner to read.
_TOGETHER: Final = 100

#: Shell text that defines `killed DIRECTORY`: our kill left its mark on the copy that has this directory, or on its whole submission.
KILLED = 'killed() { [ -e "$1/cancel" ] || [ -e "${1%/*}/cancel" ]; }'

_RUNNER = """\
#!/bin/sh
# Made by interCEde for one submission; runs the copy whose number is the argument.
unset CDPATH
umask 077
copy=$1
case $copy in ''|*[!0-9]*) echo "runner: no copy number: $copy" >&2; exit 64;; esac
cd {directory}/"$copy" || exit 71
# A copy starts once, whatever the scheduler does.
mkdir started 2>/dev/null || exit 75
killed() {{ [ -e cancel ] || [ -e ../cancel ]; }}
killed && exit 0
# The record of the end is written into room that was taken at the beginning: a full disk does not lose it.
printf '%-250s\\n' '' > exit.new
node=$(uname -n)
began=$(date +%s)
boot=; {{ read -r boot < /proc/sys/kernel/random/boot_id; }} 2>/dev/null
born=; {{ read -r born < /proc/$$/stat; }} 2>/dev/null
born=${{born##*) }}
set -- $born; shift 19 2>/dev/null && born=$1 || born=
printf '%s %s %s %s %s\\n' "$node" "${{boot:--}}" "$$" "${{born:--}}" "$began" > start.new
mv start.new start
exec 2>why
told=- lacking=
trap : HUP INT QUIT USR1 USR2 XCPU
trap told=TERM TERM
mkdir -p work 2>>stderr || lacking=yes
{inputs}killed && exit 0
set -- {environment}
vars=../vars/$((copy / {together}))
[ -f "$vars" ] && . "$vars"
if [ "$told" = TERM ]; then
  # The copying of inputs was told too, and they may be cut.
  code=143
elif [ -n "$lacking" ]; then
  echo "runner: work/ and its inputs are not complete; the payload was not started" >>stderr
  code=71
else
  (
    # Descriptor 9 may be a lock of whoever started us: the payload shall not keep it.
    cd work && exec >../stdout 2>../stderr </dev/null 9>&- || exit 71
    exec env "$@" {marker}={submission}."$copy;" INTERCEDE_COPY="$copy" sh -c 'exec "$@"' sh {command}
  )
  code=$?
fi
# What comes now comes too late; and it comes to all of a job, so also to the commands that are still needed.
trap '' HUP INT QUIT TERM USR1 USR2 XCPU
signal=-
case $code in
  129|1[3-8]?|19[0-2]) [ -s why ] && signal=$((code - 128));;
esac
# Who tells all of a job to end tells one process after the other: the payload may be dead before we hear of it.
[ "$signal" != 15 ] || told=TERM
cancelled=-; killed && cancelled=yes
limit=-; [ -e limit ] && limit=wall-time
printf '%-250s\\n' "code=$code signal=$signal cancelled=$cancelled limit=$limit told=$told began=$began ended=$(date +%s) node=$node end" 1<>exit.new
mv exit.new exit
exit "$code"
"""


def runner_script(spec: SubmissionSpec, *, directory: str, submission: str) -> bytes:
    """The runner of a submission.

    Args:
        spec: What to run.
        directory: The submission's absolute path on the host.
        submission: Its id, for the marker in the payload's environment.
    """
    name = spec.executable_name
    program = spec.executable if name is None else f"./{name}"
    has_inputs = bool(spec.inputs) or name is not None
    text = _RUNNER.format(
        directory=quote(directory),
        inputs=f"cp -R -p {quote(directory)}/inputs/. work/ 2>>stderr || lacking=yes\n"
        if has_inputs
        else "",
        environment=_assignments(spec.environment),
        together=_TOGETHER,
        marker=MARKER,
        submission=submission,
        command=" ".join(quote(word) for word in (program, *spec.arguments)),
    )
    return text.encode("utf-8", "surrogateescape")


def copy_variables(environments: Iterable[Mapping[str, str]]) -> Mapping[str, bytes]:
    """What the copies' environments add to the specification's: files of the submission's directory, by name.

    Args:
        environments: Of each copy, in their order.
    """
    texts: dict[str, str] = {}
    for copy, environment in enumerate(environments):
        if environment:
            name = f"vars/{copy // _TOGETHER}"
            mine = f'[ "$copy" != {copy} ] || set -- "$@" {_assignments(environment)}\n'
            texts[name] = texts.get(name, "") + mine
    return {name: text.encode("utf-8", "surrogateescape") for name, text in texts.items()}


def _assignments(environment: Mapping[str, str]) -> str:
    return " ".join(quote(f"{name}={value}") for name, value in environment.items())


@frozen
class ExitRecord:
    """How a payload ended, as its runner saw it.

    Attributes:
        code: Its exit code, or 128 and the signal's number.
        signal: The signal that ended it, where the shell could tell.
        cancelled: Our kill came before the end.
        limit: The limit that ended it.
        began: When it started; None: the command that tells was ended, as by a kill.
        ended: When it ended, or None.
        node: Where, or None.
        told: Its runner was told to end (TERM), by whomever, before it did.
    """

    code: int
    signal: int | None
    cancelled: bool
    limit: str | None
    began: datetime | None
    ended: datetime | None
    node: str | None
    told: bool = False


def parse_exit(line: str) -> ExitRecord | None:
    """Read an exit record. None if it is not one, or not whole: a payload may have written it."""
    words: Sequence[str] = line.split()
    if not words or words[-1] != "end":
        return None
    fields = dict(word.partition("=")[::2] for word in words[:-1])
    try:
        code = _bounded(fields["code"], 255)
        signal = None if fields["signal"] == "-" else _bounded(fields["signal"], 64)
        return ExitRecord(
            code=code,
            signal=signal,
            cancelled=fields["cancelled"] == "yes",
            limit=None if fields["limit"] == "-" else fields["limit"],
            began=_moment(fields["began"]),
            ended=_moment(fields["ended"]),
            node=fields["node"] or None,
            told=fields.get("told") == "TERM",  # runners of older versions do not say
        )
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def _moment(text: str) -> datetime | None:
    return datetime.fromtimestamp(_bounded(text, 2**40), UTC) if text else None


def _bounded(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) > most:
        raise ValueError(text)
    return int(text)
