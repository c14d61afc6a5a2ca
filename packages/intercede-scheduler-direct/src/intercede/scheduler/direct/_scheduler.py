"""A host without a batch system, spoken to as if it had one.

Pure: commands out, text in. The program that the commands run is in `_program`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

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
from intercede.core.registry import describe

from ._program import PROGRAM

__all__ = ["DirectConfig", "DirectScheduler"]

#: What the program prints of a job, and what it means.
_STATES: Final[Mapping[str, JobStatus]] = {
    "PENDING": JobStatus.PENDING,
    "RUNNING": JobStatus.RUNNING,
    "ELSEWHERE": JobStatus.UNKNOWN,
}
_PROBE_TIMEOUT_S: Final = 20.0


@frozen
class DirectConfig:
    """How many copies run at once, and how they are ended."""

    slots: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata=describe(
            "Copies that run at once on the host, whoever submits; default: its cores"
        ),
    )


class DirectScheduler:
    """Starts copies as plain processes of the account, a limited number at once.

    A copy takes one slot, however many cores it asks for. `memory_mb` is compared with the host's memory and not enforced;
    `wall_time_s` is enforced.
    """

    def __init__(self, config: DirectConfig | None = None) -> None:
        self._config = config or DirectConfig()

    @property
    def stages_own_files(self) -> bool:
        """False: copies run where the sandbox is."""
        return False

    @property
    def native_id(self) -> str:
        """Submission and copy: direct has no numbers of its own."""
        return r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\.[0-9]{1,9}"  # never like an option

    def probe_commands(self, queue: str | None) -> Sequence[Command]:
        """Ask for the tools that direct needs, cores and memory."""
        return (_command("probe", timeout_s=_PROBE_TIMEOUT_S),)

    def parse_probe(self, results: Results) -> Facts:
        """`cores`, `memory_mb` and `host`.

        Raises:
            ResourceError: A tool is missing.
        """
        facts: dict[str, int | str] = {}
        missing = []
        for words in _lines(results):
            if words[0] == "lacks":
                missing.append(words[1])
            elif words[0] in ("cores", "memory_mb") and words[1].isdigit():
                facts[words[0]] = int(words[1])
            elif words[0] == "host":
                facts["host"] = words[1]
        if missing:
            raise ResourceError(
                f"the host lacks {', '.join(missing)}",
                remedy="install it there (util-linux, grep, awk)",
            )
        if "cores" not in facts:
            raise ResourceError("the host does not tell how many cores it has")
        return facts

    def check(self, spec: SubmissionSpec, facts: Facts) -> None:
        """Refuse what this host can never run.

        Raises:
            SpecRefused: Too many cores or too much memory for the host; or a queue, GPUs, nodes, a whole node, a container.
        """
        wanted = spec.resources
        cores, memory = int(facts["cores"]), int(facts.get("memory_mb", 2**40))
        if wanted.cpus > cores:
            raise SpecRefused(
                "resources.cpus",
                f"{wanted.cpus} are more than the {cores} cores of {facts['host']}",
            )
        if wanted.memory_mb is not None and wanted.memory_mb > memory:
            raise SpecRefused(
                "resources.memory_mb",
                f"{wanted.memory_mb} MiB are more than the {memory} MiB of {facts['host']}",
            )
        for name, value, plain in (
            ("resources.gpus", wanted.gpus, 0),
            ("resources.nodes", wanted.nodes, 1),
            ("resources.whole_node", wanted.whole_node, False),
            ("resources.queue", wanted.queue, None),
            ("container", spec.container, None),
        ):
            if value != plain:
                raise SpecRefused(
                    name,
                    f"{value!r} cannot be had without a batch system",
                    remedy="leave it out, or choose another resource",
                )

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        """Queue the submission and make sure that somebody works on it."""
        wall = batch.spec.resources.wall_time_s
        return (
            _command(
                "submit",
                batch.submission,
                batch.mark,
                batch.runner,
                "-" if wall is None else str(wall),
                str(self._config.slots or facts["cores"]),
                _ranges(batch.copies),
            ),
        )

    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        """All copies, or none: they are queued as one."""
        if ["queued", batch.submission] in _lines(results):
            return {copy: f"{batch.submission}.{copy}" for copy in batch.copies}
        said = results[0].stderr.decode(errors="replace").strip()
        failure = Failure(FailureCode.REFUSED, f"could not be queued: {said}")
        return dict.fromkeys(batch.copies, failure)

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """Look at the copies; take over where a worker died."""
        return (_command("status", stdin=_jobs(jobs)),)

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """The copies that wait or run here; UNKNOWN for those of another host that shares this file system."""
        known = {job.id: job for job in jobs if _is_ours(job)}
        found = {}
        for words in _lines(results):
            if len(words) < 2 or words[0] not in known or words[1] not in _STATES:
                continue
            details = JobDetails(_STATES[words[1]], native_state=words[1], reason=_reason(words))
            found[known[words[0]]] = details
        return found

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """None: the runner's own record is all there is."""
        return ()

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """Nothing."""
        return {}

    def kill_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """End the processes: TERM, after 2 s STOP and KILL, until none is left."""
        return (_command("kill", stdin=_jobs(jobs)),)

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        """List the copies that wait or run on this host."""
        return (_command("list", mark_prefix),)

    def parse_list(self, results: Results) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        """By native id: mark, copy and status."""
        return {
            words[0]: (words[1], int(words[0].rpartition(".")[2]), _STATES[words[2]])
            for words in _lines(results)
            if len(words) == 3 and words[2] in _STATES and re.fullmatch(self.native_id, words[0])
        }


def _command(verb: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 60.0) -> Command:
    # The program gets its own text, to start workers with.
    start = 'code=$1; shift; eval "$code"'
    return Command(
        ("sh", "-c", start, "direct", PROGRAM, verb, *arguments), stdin=stdin, timeout_s=timeout_s
    )


def _lines(results: Results) -> list[list[str]]:
    """The words of each line between the first and the last, which show that the program ran to its end.

    Raises:
        ResourceError: It did not.
    """
    result = results[0]
    lines = result.stdout.decode(errors="replace").split("\n")
    if lines[0] != "direct" or lines[-2:] != ["end", ""]:
        said = (result.stderr or result.stdout).decode(errors="replace")
        raise ResourceError(
            f"direct did not come to its end (exit code {result.returncode})", said=said
        )
    return [words for words in (line.split(" ") for line in lines[1:-2]) if len(words) > 1]


def _jobs(jobs: Iterable[NativeJob]) -> bytes:
    """What the program reads: a line per job that is ours."""
    return "".join(f"{job.submission} {job.copy}\n" for job in jobs if _is_ours(job)).encode()


def _is_ours(job: NativeJob) -> bool:
    """A native id that does not belong to its submission and copy is somebody's invention (T6)."""
    return job.id == f"{job.submission}.{job.copy}"


def _reason(words: Sequence[str]) -> str | None:
    if words[1] == "PENDING":
        return "waits for a free slot on this host"
    if words[1] == "ELSEWHERE":
        return f"runs on {words[2] if len(words) > 2 else 'another host'}; ask through that host"
    return None


def _ranges(copies: Sequence[int]) -> str:
    """Ascending numbers as ranges: 0-3 7-7."""
    ranges: list[list[int]] = []
    for copy in sorted(copies):
        if ranges and copy == ranges[-1][1] + 1:
            ranges[-1][1] = copy
        else:
            ranges.append([copy, copy])
    return " ".join(f"{first}-{last}" for first, last in ranges)
