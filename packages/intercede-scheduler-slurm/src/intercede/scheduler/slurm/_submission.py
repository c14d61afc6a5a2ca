"""How copies are submitted: as arrays, each in one sbatch, from one program that says of each what came of it.

An array's tasks have numbers below MaxArraySize: each array begins with task 0 and has its own first copy, which its comment tells together
with the mark. A single copy is a plain job. The runner gets the copy's number; arguments, environment and secrets never come near sbatch.

The program itself finds out what came of an sbatch that did not say: it looks the job up by name and comment for a while. What is not found
then may still come, and is called uncertain, not failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from intercede.core import (
    Command,
    Facts,
    Failure,
    FailureCode,
    ResourceError,
    Results,
    SpecRefused,
    StagedBatch,
)
from intercede.toolkit import quote

from ._answer import read_answer
from ._config import SlurmConfig
from ._programs import NAME, PRELUDE
from ._refusals import ACCOUNTS, REFUSALS, find_refusal

__all__ = ["read_submit", "submit_commands"]

_JOB: Final = re.compile(r"([1-9][0-9]{0,9})(?:;[\w.-]+)?")
#: The first copy of a chunk and a range of its tasks.
_SPAN: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,9})(?:-([0-9]{1,9}))?")
_PREFIX: Final = re.compile(r"^(?:\S*sbatch: )?(?:error: )?")
#: How long the arrays of one command may be as text, in bytes: a command line has limits.
_CHUNKS_SIZE: Final = 48_000
#: A chunk's list of tasks has at most so many ranges.
_RANGES: Final = 1000
#: Only submissions of more than this part of what the cluster holds ask first whether there is room.
_LARGE: Final = 10
_TIMEOUT_S: Final = 300.0

_CASES: Final = " | ".join(f"*{quote(refusal.words)}*" for refusal in REFUSALS)
_ACCOUNT_CASES: Final = " | ".join(f"*{quote(words)}*" for words in ACCOUNTS)

#: Arguments: MaxJobCount or 0, chunks (FIRST:COUNT:TASKS, without TASKS for a plain job), the name, the mark, and sbatch's own. The
#: job's script comes on standard input.
_PROGRAM: Final = (
    PRELUDE
    + r"""
limit=$1 chunks=$2 name=$3 mark=$4
shift 4
script=
while IFS= read -r line; do script="$script$line
"; done
look_up() {
  tries=0 found=
  while [ "$tries" -lt 12 ]; do
    [ "$tries" -eq 0 ] || sleep 5
    found=$(ask squeue --me -t all -n "$name" -o "$nonce|found|%F|%k|$nonce" |
      awk -F'|' -v n="$nonce" -v c="$mark:$first" '$1 == n && $2 == "found" && $4 == c && $5 == n' | sort -u)
    [ -z "$found" ] || break
    tries=$((tries + 1))
  done
  [ -z "$found" ] || printf '%s\n' "$found"
}
look_at_accounts() {
  ask sacctmgr -n -P show assoc where user="$(id -un)" format=account,partition,qos,maxsubmitjobs |
    sed "s/.*/$nonce|assoc|&|$nonce/"
  ask sacctmgr -n -P show qos format=name,maxsubmitjobsperuser,maxsubmitjobsperaccount,grpsubmitjobs |
    sed "s/.*/$nonce|qos|&|$nonce/"
}
for chunk in $chunks; do
  first=${chunk%%:*} tasks=${chunk#*:}
  count=${tasks%%:*} tasks=${tasks#*:}
  cut=
  if [ "$limit" -gt 0 ]; then
    # sbatch would wait for room for 120 s (all versions). Ended jobs count for MinJobAge.
    held=$(ask squeue -h -r -t all -o x | wc -l)
    room=$((limit - 1 - held))
    if [ "$room" -lt "$count" ]; then
      cut=yes
      row room "$first" "$count" "$((held))" "$limit"
      case $tasks in ''|*,*) break;; esac
      [ "$room" -gt 0 ] || break
      tasks=0-$((room - 1))
    fi
  fi
  # Line by line and by the shell itself: a process for each question would take longer than sbatch.
  answer=$(
    {
      {
        printf '%s' "${script%%first=0*}first=$first${script#*first=0}" |
          clean ${TZ:+TZ="$TZ"} ${INTERCEDE_LOCALE:+LANG="$INTERCEDE_LOCALE"} \
            sbatch --parsable --job-name="$name" --comment="$mark:$first" ${tasks:+--array="$tasks"} "$@"
        echo "code $?"
      } 2>&1 >&5 | while IFS= read -r line || [ -n "$line" ]; do printf 'said %s\n' "$line"; done
    } 5>&1
  )
  code= job= ids=0 said=
  set -f
  IFS='
'
  for line in $answer; do
    case $line in
      'said '*)
        said="$said$nonce|said|${line#said }|$nonce
"
        ;;
      'code '*) code=${line#code };;
      *)
        # A site's own sbatch may greet: of what it prints, the one line that is an id counts.
        id=${line%%";"*}
        case $id in ''|0*|*[!0-9]*) continue;; esac
        case ${line#"$id"} in *[!A-Za-z0-9._";"-]*|";"*";"*) continue;; esac
        job=$line ids=$((ids + 1))
        ;;
    esac
  done
  unset IFS
  set +f
  [ "$ids" -eq 1 ] || job=
  row chunk "$first" "$tasks" "$code" "$job"
  printf '%s' "$said"
  found=
  if [ "$code" = 0 ] && [ -n "$job" ]; then
    [ -z "$cut" ] || break
    continue
  fi
  case $code:$answer in
    0:*) look_up;;
    CASES) ;;
    *) look_up;;
  esac
  case $answer in ACCOUNTS) look_at_accounts;; esac
  [ -z "$cut" ] && [ -n "$found" ] || break
done
row end submit 0
""".replace("ACCOUNTS", _ACCOUNT_CASES).replace("CASES", _CASES)
)

_SCRIPT: Final = """\
#!/bin/sh
# Submission {submission} of interCEde.
first=0
exec {launcher}sh {runner} "$((first + ${{SLURM_ARRAY_TASK_ID:-0}}))"
"""


# ---------------------------------------------------------------- what is said


@frozen
class _Chunk:
    """Copies that are submitted together.

    Attributes:
        first: The copy of task 0.
        tasks: Ranges of tasks, first and last; empty for a plain job.
        count: How many copies.
    """

    first: int
    tasks: tuple[tuple[int, int], ...]
    count: int

    @property
    def word(self) -> str:
        """As the program reads it."""
        tasks = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in self.tasks)
        return f"{self.first}:{self.count}:{tasks}"


def submit_commands(config: SlurmConfig, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
    """One command; several only if there are too many arrays for a command line.

    Raises:
        SpecRefused: More copies than the cluster can ever hold.
    """
    size, most = int(facts.get("max_array_size", 1)), int(facts.get("max_job_count", 0))
    if most and len(batch.copies) > most:
        raise SpecRefused(
            "copies",
            f"{len(batch.copies)} are more than the cluster's MaxJobCount of {most}",
            remedy="submit them in parts, as others end",
        )
    limit = most if len(batch.copies) * _LARGE > most else 0
    options = _options(config, batch, facts)
    launcher = "".join(
        f"{quote(word.replace('{image}', batch.spec.container or '').replace('{directory}', batch.directory))} "
        for word in (config.container_launcher if batch.spec.container is not None else ())
    )
    script = _SCRIPT.format(
        submission=batch.submission, launcher=launcher, runner=quote(batch.runner)
    )
    return [
        Command(
            (
                *("sh", "-c", _PROGRAM, "sbatch", str(limit), words, NAME + batch.submission),
                *(batch.mark, *options),
            ),
            stdin=script.encode("utf-8", "surrogateescape"),
            timeout_s=_TIMEOUT_S,
        )
        for words in _packed(_chunks(batch.copies, max(size, 1)))
    ]


def _chunks(copies: Sequence[int], size: int) -> Iterator[_Chunk]:
    """Copies, ascending, in arrays of tasks below `size`."""
    ranges: list[list[int]] = []
    first = count = 0
    for copy in sorted(copies):
        if ranges and (copy - first >= size or len(ranges) == _RANGES):
            yield _chunk(first, ranges, count)
            ranges = []
        if not ranges:
            first, count = copy, 0
        count += 1
        if ranges and copy - first == ranges[-1][1] + 1:
            ranges[-1][1] += 1
        else:
            ranges.append([copy - first, copy - first])
    if ranges:
        yield _chunk(first, ranges, count)


def _chunk(first: int, ranges: Sequence[Sequence[int]], count: int) -> _Chunk:
    return _Chunk(first, () if count == 1 else tuple((a, b) for a, b in ranges), count)


def _packed(chunks: Iterator[_Chunk]) -> Iterator[str]:
    """The words of chunks, as many together as fit a command line."""
    words: list[str] = []
    size = 0
    for chunk in chunks:
        word = chunk.word
        if words and size + len(word) >= _CHUNKS_SIZE:
            yield " ".join(words)
            words, size = [], 0
        words.append(word)
        size += len(word) + 1
    yield " ".join(words)


def _options(config: SlurmConfig, batch: StagedBatch, facts: Facts) -> list[str]:
    """sbatch's options, but for those that the program gives itself."""
    asked = batch.spec.resources
    gres = [f"gpu:{config.gpu_type}:{asked.gpus}" if config.gpu_type else f"gpu:{asked.gpus}"]
    gres = [*(gres if asked.gpus else ()), *((config.gres,) if config.gres else ())]
    container = batch.spec.container if not config.container_launcher else None
    minutes = None if asked.wall_time_s is None else -(-asked.wall_time_s // 60)
    values: tuple[tuple[str, str | int | None], ...] = (
        ("chdir", batch.directory),
        ("output", "/dev/null"),
        ("nodes", asked.nodes),
        ("ntasks-per-node", 1),
        ("cpus-per-task", asked.cpus),
        ("mem", None if asked.memory_mb is None else f"{asked.memory_mb}M"),
        ("time", minutes),
        ("gres", ",".join(gres) or None),
        ("partition", asked.queue or config.queue),
        ("account", config.account),
        ("qos", config.qos),
        ("constraint", config.constraint),
        ("reservation", config.reservation),
        ("container", container),
    )
    given = [f"--{name}={value}" for name, value in values if value is not None]
    flags = ["--no-requeue", *(["--exclusive"] if asked.whole_node else [])]
    return [*flags, *given, *config.options]


# ---------------------------------------------------------------- what is answered


@frozen
class _Said:
    """What the program told of one chunk.

    Attributes:
        copies: Its copies.
        is_array: They are tasks of an array.
        first: The copy of task 0.
        code: sbatch's exit code.
        job: What sbatch printed.
        words: What it said on standard error.
        found: Jobs that were found by looking up.
    """

    copies: tuple[int, ...]
    is_array: bool
    first: int
    code: str
    job: str
    words: list[str] = field(factory=list)
    found: list[str] = field(factory=list)


def read_submit(
    config: SlurmConfig, batch: StagedBatch, results: Results
) -> Mapping[int, str | Failure]:
    """The native id of each copy, or why it has none.

    Raises:
        ResourceError: Of some copies it is not known whether Slurm has them.
    """
    natives: dict[int, str | Failure] = {}
    for result in results:
        natives |= _read_command(config, batch, [result])
    missing = [copy for copy in batch.copies if copy not in natives]
    if missing:
        failure = next((n for n in natives.values() if isinstance(n, Failure)), None)
        if failure is None:
            raise ResourceError(f"the answer tells nothing of {len(missing)} copies")
        # The program ends at the first refusal: the next one would be the same.
        why = f"not tried, since another copy was refused: {failure.message}"
        natives |= dict.fromkeys(missing, Failure(failure.code, why))
    return natives


def _read_command(
    config: SlurmConfig, batch: StagedBatch, results: Results
) -> dict[int, str | Failure]:
    answer = read_answer(results)
    answer.check("submit")
    chunks: list[_Said] = []
    left: dict[int, Failure] = {}
    accounts: list[str] = []
    for row in answer.rows:
        if row[0] == "chunk" and len(row) == 5:
            chunks.append(_said(batch, row))
        elif row[0] == "room" and len(row) == 5:
            left |= _no_room(batch, row)
        elif row[0] in ("assoc", "qos"):
            accounts.append("|".join(row))
        elif chunks and row[0] == "said":
            chunks[-1].words.append("|".join(row[1:]))
        elif chunks and row[0] == "found" and len(row) == 3:
            chunks[-1].found.append(row[1])
    natives: dict[int, str | Failure] = dict(left)
    for chunk in chunks:
        job = _job(chunk)
        if job is None:
            failure = _refused(config, batch, chunk, accounts)
            natives |= dict.fromkeys(chunk.copies, failure)
        else:
            natives |= {
                copy: f"{job}_{copy - chunk.first}" if chunk.is_array else job
                for copy in chunk.copies
            }
    return natives


def _said(batch: StagedBatch, row: Sequence[str]) -> _Said:
    _, first, tasks, code, job = row
    wanted = set(batch.copies)
    copies: list[int] = []
    for part in tasks.split(",") if tasks else ["0"]:
        span = _SPAN.fullmatch(f"{first}:{part}")
        if span is None or len(copies) > len(wanted):
            raise ResourceError(f"the answer names no copies: {first[:20]!r} {tasks[:40]!r}")
        begin, last = int(span[2]), int(span[3] or span[2])
        every = range(begin, min(last, begin + max(wanted)) + 1)
        copies += [int(first) + task for task in every if int(first) + task in wanted]
    return _Said(tuple(copies), bool(tasks), int(first), code, job)


def _no_room(batch: StagedBatch, row: Sequence[str]) -> dict[int, Failure]:
    """The copies from this chunk on; those that were submitted all the same are told of later."""
    _, first, _, held, limit = row
    if not re.fullmatch("[0-9]{1,9}", first):
        return {}
    failure = Failure(
        FailureCode.LIMIT,
        f"copies={len(batch.copies)} do not fit beneath the cluster's MaxJobCount={limit[:12]}: it holds {held[:12]} jobs"
        " already; submit fewer, or later",
    )
    return {copy: failure for copy in batch.copies if copy >= int(first)}


def _job(chunk: _Said) -> str | None:
    """The job's id; None: it was certainly refused.

    Raises:
        ResourceError: Neither is certain.
    """
    printed = _JOB.fullmatch(chunk.job)
    if chunk.code == "0" and printed:
        return printed[1]
    found = sorted({job for job in chunk.found if _JOB.fullmatch(job)})
    if len(found) == 1:
        return found[0]
    said = "\n".join(chunk.words)
    if found:
        raise ResourceError(f"Slurm has {' and '.join(found)} for the same copies", said=said)
    if chunk.code != "0" and find_refusal(said) is not None:
        return None
    raise ResourceError(
        f"sbatch ended with {chunk.code[:12]!r} and did not say whether Slurm has the job;"
        " it was looked up and not found",
        said=said or chunk.job[:200],
    )


def _refused(
    config: SlurmConfig, batch: StagedBatch, chunk: _Said, accounts: Sequence[str]
) -> Failure:
    said = "\n".join(chunk.words)
    refusal = find_refusal(said)
    assert refusal is not None
    asked = batch.spec.resources
    values: Mapping[str, object] = {
        "copies": len(batch.copies),
        "resources.queue": asked.queue or config.queue or "(the default)",
        "resources.memory_mb": asked.memory_mb,
        "resources.cpus": asked.cpus,
        "resources.nodes": asked.nodes,
        "resources.gpus": asked.gpus,
        "resources.wall_time_s": asked.wall_time_s,
        "account": config.account or "(the default)",
        "qos": config.qos or "(the default)",
        "constraint": config.constraint,
        "reservation": config.reservation,
        "gres": config.gres,
        "options": " ".join(config.options),
        "container": batch.spec.container,
    }
    field = refusal.field
    if field == "resources.gpus" and not asked.gpus:
        field = "gres"
    named = f"{field}={values[field]}" if field in values else ""
    if field == "copies" and config.qos:
        named = f"{named}, qos={config.qos}"
    words = "; ".join(_PREFIX.sub("", line) for line in chunk.words)
    message = f"{named}: {words[:500]}" if named else words[:500]
    return Failure(refusal.code, message + _known(field, config, accounts))


def _known(refused: str, config: SlurmConfig, accounts: Sequence[str]) -> str:
    """What the cluster's accounts tell about it: what there is, or the limit."""
    rows = [line.split("|") for line in accounts]
    if refused == "account":
        names = sorted({row[1] for row in rows if row[0] == "assoc" and len(row) > 1 and row[1]})
        return f"; this user has: {', '.join(names) or 'none'}" if rows else ""
    if refused == "qos":
        allowed = {row[3] for row in rows if row[0] == "assoc" and len(row) > 3}
        return f"; this user has: {', '.join(sorted(allowed))}" if allowed else ""
    if refused != "copies":
        return ""
    limits = []
    for row in rows:
        if row[0] == "qos" and len(row) == 5:
            titles = ("MaxSubmitJobsPerUser", "MaxSubmitJobsPerAccount", "GrpSubmitJobs")
            limits += [
                f"{title}={value} of QOS {row[1]!r}"
                for title, value in zip(titles, row[2:], strict=True)
                if value and (config.qos is None or row[1] == config.qos)
            ]
        elif row[0] == "assoc" and len(row) == 5 and row[4]:
            limits.append(f"MaxSubmitJobs={row[4]} of account {row[1]!r}")
    return f"; limits: {', '.join(limits)}" if limits else ""
