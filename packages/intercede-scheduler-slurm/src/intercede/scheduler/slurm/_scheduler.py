"""Slurm's language, as `Scheduler` wants it. Pure: what is said and what is understood lie in the modules beside this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from intercede.core import (
    Command,
    Facts,
    Failure,
    JobDetails,
    JobStatus,
    NativeJob,
    Results,
    StagedBatch,
    SubmissionSpec,
)

from . import _cluster, _history, _queue, _submission
from ._config import SlurmConfig
from ._programs import HISTORY, KILL, LIST, NATIVE, PROBE, STATUS

__all__ = ["SlurmScheduler"]

_PROBE_TIMEOUT_S: Final = 60.0


class SlurmScheduler:
    """Speaks to Slurm 20.11 to 26.05 through sbatch, squeue, scancel, sacct, scontrol and sinfo.

    A copy is an element of a job array, which gets no arguments, environment or secrets; these are the runner's. Jobs are submitted not to
    be requeued. Their name and comment hold the mark, by which a job whose id was lost is found and one that was given our id is not.
    """

    def __init__(self, config: SlurmConfig | None = None) -> None:
        self._config = config or SlurmConfig()

    @property
    def stages_own_files(self) -> bool:
        """False: nodes share a file system with the host."""
        return False

    @property
    def native_id(self) -> str:
        """A job, or an element of an array: 123, 123_45."""
        return NATIVE

    def probe_commands(self, queue: str | None) -> Sequence[Command]:
        """Ask for configuration, partitions and nodes."""
        return (_command(PROBE, timeout_s=_PROBE_TIMEOUT_S),)

    def parse_probe(self, results: Results) -> Facts:
        """The cluster's version and limits, and those of each partition."""
        return _cluster.read_facts(results)

    def check(self, spec: SubmissionSpec, facts: Facts) -> None:
        """Refuse what Slurm would refuse, and what it would accept and leave pending for ever."""
        _cluster.check(spec, self._config, facts)

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        """Submit the copies as arrays, and find out what came of it."""
        return _submission.submit_commands(self._config, batch, facts)

    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        """The native id, or the failure, of every copy.

        Raises:
            ResourceError: It is not certain whether Slurm has them.
        """
        return _submission.read_submit(self._config, batch, results)

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """Ask squeue for the account's jobs, and pick ours out of them there."""
        return (_command(STATUS, stdin=_queue.asked_in_queue(jobs)),)

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """The jobs that wait or run, and those that ended within MinJobAge."""
        return _queue.read_status(jobs, results)

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """Ask sacct."""
        if not jobs:
            return ()
        return (_command(HISTORY, _history.earliest(jobs), stdin=_queue.asked(jobs)),)

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """The jobs that the cluster's accounts tell of; none where it keeps none."""
        return _history.read_history(jobs, results)

    def kill_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """Look which ids are still ours, and cancel these."""
        return (_command(KILL, stdin=_queue.asked(jobs)),)

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        """Ask squeue for the account's jobs, and pick those with such a mark."""
        return (_command(LIST, mark_prefix),)

    def parse_list(self, results: Results) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        """By native id: the mark, the copy and the status."""
        return _queue.read_list(results)


def _command(program: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 60.0) -> Command:
    return Command(("sh", "-c", program, "slurm", *arguments), stdin=stdin, timeout_s=timeout_s)
