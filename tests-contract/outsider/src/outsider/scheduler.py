"""A scheduler: a queue that is a directory of files.

A scheduler does no I/O. It says which commands to run and reads what they printed; interCEde stages the files, runs the commands through
any transport, exactly once, and keeps how each job ended. So this module is a shell program, and a few lines that speak and read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen, validators

from intercede.core import (
    Command,
    Facts,
    Failure,
    FailureCode,
    JobDetails,
    JobStatus,
    NativeJob,
    ResourceError,
    Results,
    SpecRefused,
    StagedBatch,
    SubmissionSpec,
)
from intercede.core.registry import SchedulerPlugin, describe

__all__ = ["SpoolConfig", "SpoolScheduler", "plugin"]

#: Commands run in the sandbox root, and `.spool` beneath it is the queue:
#:
#:     waiting/<id>  running/<id>   a job: its mark, its runner, its copy's number; a rename takes it from one to the other
#:     slots/<k>                    locked by the worker that fills slot k
#:
#: A worker locks a job before it renames it, so that only one can, and keeps the lock while the job runs. The kernel drops the locks of
#: the dead: nothing here is believed because a file says so.
PROGRAM = r"""
spool=.spool
slots=$1 verb=$2
shift 2

# The living processes of jobs ($1, a line each): a payload cannot leave its environment behind, whatever session it makes.
processes() {
  grep -alzxsF "$1" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do echo "$pid"; done
}

# A shared lock, so that two who look do not take each other for the worker.
held() { [ -e "$1" ] && ! flock -sn "$1" true; }

work() (
  slot=1
  while [ "$slot" -le "$slots" ]; do
    exec 9>>"$spool/slots/$slot"
    if ! flock -n 9; then slot=$((slot + 1)); continue; fi
    for job in "$spool"/waiting/*; do
      id=${job##*/}
      { exec 8<"$job"; } 2>/dev/null || continue
      if flock -n 8 && mv "$job" "$spool/running/$id" 2>/dev/null; then
        { read -r mark; read -r runner; read -r copy; } <"$spool/running/$id"
        env "SPOOL_JOB=$id" sh "$runner" "$copy" 8<&- 9>&-
        rm -f "$spool/running/$id"
      fi
      exec 8<&-
    done
    exec 9>&-
    # What arrived after we looked, and before the slot was free, would have nobody.
    set -- "$spool"/waiting/*
    [ -e "$1" ] || return 0
  done
)

# A worker outlives the command that starts it.
start_worker() {
  ( unset SPOOL_JOB; setsid sh -c 'program=$1; shift; eval "$program"' spool "$program" "$slots" work </dev/null >/dev/null 2>&1 & )
}

echo spool
case $verb in
probe)
  for tool in flock setsid grep; do command -v "$tool" >/dev/null || echo "lacks $tool"; done
  echo "cores $(getconf _NPROCESSORS_ONLN)"
  ;;
submit) # SUBMISSION MARK RUNNER COPY...
  submission=$1 mark=$2 runner=$3
  shift 3
  mkdir -p "$spool/slots" "$spool/waiting" "$spool/running"
  workers=0
  for copy; do
    id=$submission.$copy
    printf '%s\n' "$mark" "$runner" "$copy" >"$spool/new.$id" && mv "$spool/new.$id" "$spool/waiting/$id" && echo "$id"
  done
  for copy; do
    [ "$workers" -lt "$slots" ] || break
    workers=$((workers + 1))
    start_worker
  done
  ;;
status) # lines: ID
  wanted=
  while read -r id; do
    # In this order: a job goes from waiting to running and never back.
    if [ -e "$spool/waiting/$id" ]; then echo "$id waiting"; wanted=yes
    elif held "$spool/running/$id" || [ -n "$(processes "SPOOL_JOB=$id")" ]; then echo "$id running"
    else rm -f "$spool/running/$id"
    fi
  done
  [ -z "$wanted" ] || start_worker
  ;;
kill) # lines: ID
  # `read` leaves out a line without its end: whoever sends them may be killed in the middle of one.
  ids= marks= round=0
  while read -r id; do
    rm -f "$spool/waiting/$id"
    ids="$ids $id"
    marks="${marks}SPOOL_JOB=$id
"
  done
  marks=${marks%?}
  signal=TERM
  # Without a mark every process that has an empty variable would be found: an sshd has.
  while [ -n "$ids" ] && [ "$round" -lt 100 ]; do
    left=
    for id in $ids; do ! held "$spool/running/$id" || left=yes; done
    found=$(processes "$marks")
    [ -n "$found$left" ] || break
    [ "$round" -lt 10 ] || signal=KILL
    case $round in 0|[1-9]?*) kill -"$signal" $found 2>/dev/null;; esac
    sleep 0.1
    round=$((round + 1))
  done
  ;;
list) # MARK-PREFIX
  for state in waiting running; do
    for job in "$spool/$state"/*; do
      { read -r mark <"$job"; } 2>/dev/null || continue
      id=${job##*/}
      case $mark in "$1"*) ;; *) continue;; esac
      if [ "$state" = waiting ] || held "$job" || [ -n "$(processes "SPOOL_JOB=$id")" ]; then echo "$id $mark $state"; fi
    done
  done
  ;;
work) work;;
esac
echo end
"""

_STATES = {"waiting": JobStatus.PENDING, "running": JobStatus.RUNNING}

#: What this queue knows nothing of. Taking it silently would be a lie, so it is refused, with the field that is meant.
_PLAIN: Mapping[str, object] = {
    "memory_mb": None,
    "wall_time_s": None,
    "gpus": 0,
    "nodes": 1,
    "whole_node": False,
    "queue": None,
}


@frozen
class SpoolConfig:
    """The keys of the configuration, with their checks and their help."""

    slots: int = field(
        default=4, validator=validators.ge(1), metadata=describe("Jobs that run at once")
    )


class SpoolScheduler:
    """Speaks to the spool directory."""

    def __init__(self, config: SpoolConfig) -> None:
        self._slots = str(config.slots)

    @property
    def stages_own_files(self) -> bool:
        """False: jobs run where the sandbox is."""
        return False

    @property
    def native_id(self) -> str:
        """Submission and copy, so that no id is ever given out twice."""
        return r"[A-Za-z0-9-]{1,64}\.[0-9]{1,9}"

    def probe_commands(self, queue: str | None) -> Sequence[Command]:
        """Ask for the tools that the program needs."""
        return (self._command("probe"),)

    def parse_probe(self, results: Results) -> Facts:
        """`cores`.

        Raises:
            ResourceError: A tool is missing.
        """
        facts = dict(words for words in _rows(results) if len(words) == 2)
        if "lacks" in facts:
            raise ResourceError(
                f"the host lacks {facts['lacks']}", remedy="install util-linux and grep there"
            )
        return {"cores": int(facts["cores"])}

    def check(self, spec: SubmissionSpec, facts: Facts) -> None:
        """Refuse what this queue cannot do.

        Raises:
            SpecRefused: Naming the field.
        """
        if spec.resources.cpus > int(facts["cores"]):
            raise SpecRefused(
                "resources.cpus",
                f"{spec.resources.cpus} are more than the {facts['cores']} cores of the host",
                remedy="ask for fewer",
            )
        asked = {
            f"resources.{name}": (getattr(spec.resources, name), plain)
            for name, plain in _PLAIN.items()
        }
        asked["container"] = (spec.container, None)
        for name, (value, plain) in asked.items():
            if value != plain:
                raise SpecRefused(
                    name, f"{value!r} means nothing to a spool directory", remedy="leave it out"
                )

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        """Put a file per copy into the queue, and start workers."""
        copies = map(str, batch.copies)
        return (self._command("submit", batch.submission, batch.mark, batch.runner, *copies),)

    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        """What the program repeats is queued; the rest is not, for the reason on stderr."""
        queued = {words[0] for words in _rows(results)}
        said = results[0].stderr.decode(errors="replace").strip()
        refused = Failure(FailureCode.REFUSED, f"could not be queued: {said}")
        names = {copy: f"{batch.submission}.{copy}" for copy in batch.copies}
        return {copy: name if name in queued else refused for copy, name in names.items()}

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """Look for the jobs."""
        return (self._command("status", stdin=_ids(jobs)),)

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """What has left the queue is absent, and so is a row that cannot be read."""
        states = {words[0]: words[1] for words in _rows(results) if len(words) == 2}
        return {
            job: JobDetails(
                _STATES[state],
                native_state=state,
                reason="waits for a slot" if state == "waiting" else None,
            )
            for job in jobs
            if (state := states.get(job.id)) in _STATES
        }

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """None: this queue remembers nothing."""
        return ()

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """Nothing."""
        return {}

    def kill_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """TERM, and after a second KILL, until nothing is left. Whether that worked, `status_commands` tells."""
        return (self._command("kill", stdin=_ids(jobs)),)

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        """List the jobs whose mark begins so."""
        return (self._command("list", mark_prefix),)

    def parse_list(self, results: Results) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        """By id: mark, copy and status."""
        return {
            words[0]: (words[1], int(words[0].rpartition(".")[2]), _STATES[words[2]])
            for words in _rows(results)
            if len(words) == 3 and words[2] in _STATES and re.fullmatch(self.native_id, words[0])
        }

    def _command(self, verb: str, *arguments: str, stdin: bytes = b"") -> Command:
        # The program gets its own text, to start workers with.
        start = 'program=$1; shift; eval "$program"'
        return Command(
            ("sh", "-c", start, "spool", PROGRAM, self._slots, verb, *arguments), stdin=stdin
        )


def _rows(results: Results) -> list[list[str]]:
    """The words of each line between the first and the last, which show that the program ran to its end.

    Raises:
        ResourceError: It did not. An empty queue must never be guessed from an answer that is not one.
    """
    lines = results[0].stdout.decode(errors="replace").split("\n")
    if lines[0] != "spool" or lines[-2:] != ["end", ""]:
        said = results[0].stderr or results[0].stdout
        raise ResourceError(
            f"the spool program did not come to its end (exit code {results[0].returncode})",
            said=said.decode(errors="replace"),
        )
    return [line.split(" ") for line in lines[1:-2]]


def _ids(jobs: Sequence[NativeJob]) -> bytes:
    """A line per job. One whose id is not that of its submission and copy is somebody's invention, and nobody's business."""
    return "".join(
        f"{job.id}\n" for job in jobs if job.id == f"{job.submission}.{job.copy}"
    ).encode()


plugin = SchedulerPlugin(SpoolConfig, SpoolScheduler, summary="A queue that is a directory")
