"""What a batch backend is made of: a transport that carries commands, and a scheduler that knows what to say.

A transport knows nothing of jobs; a scheduler does no I/O. Either can be replaced without the other noticing.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import field, frozen

from ._fields import instance, many, whole_number
from ._jobs import Failure, JobStatus, as_utc
from ._protocols import Managed
from ._results import JobDetails
from ._spec import SubmissionSpec

__all__ = [
    "Command",
    "CommandResult",
    "Facts",
    "NativeJob",
    "Process",
    "Results",
    "Scheduler",
    "StagedBatch",
    "Transport",
]


def _argv(values: Sequence[str]) -> tuple[str, ...]:
    return many(str, values, "argv")


def _copies(values: Sequence[int]) -> tuple[int, ...]:
    return many(int, values, "copies")


@frozen
class Command:
    """A program with its arguments and its input. No shell is implied.

    Attributes:
        argv: The program, looked up on the host's PATH, and its arguments; bytes 1 to 255 arrive as they are, undecodable ones as
            Python carries them (PEP 383).
        stdin: All of its input; the command sees its end (X3).
        timeout_s: Seconds after which it is ended.
        max_output: Bytes of stdout beyond which it is ended (X5); stderr is cut there, or earlier.

    Raises:
        ValueError: Nothing to run, a NUL byte, or a limit that is not positive.
        TypeError: A field is of the wrong type.
    """

    argv: tuple[str, ...] = field(converter=_argv)
    stdin: bytes = field(default=b"", repr=False, validator=instance(bytes))
    timeout_s: float = 60.0
    max_output: int = field(default=64 * 2**20, validator=whole_number(1))

    def __attrs_post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs a program")
        if any("\0" in argument for argument in self.argv):
            raise ValueError("an argument contains a NUL byte")
        if not self.timeout_s > 0:  # NaN included
            raise ValueError(f"timeout_s must be positive, not {self.timeout_s}")


@frozen
class CommandResult:
    """How a command ended.

    Attributes:
        returncode: Its exit status; the negative number of the signal that ended it, where the transport can tell.
        stdout: What it printed.
        stderr: Likewise.
    """

    returncode: int = field(validator=whole_number())
    stdout: bytes = field(default=b"", repr=False, validator=instance(bytes))
    stderr: bytes = field(default=b"", validator=instance(bytes))


class Process(Protocol):
    """A command that is running, its output read as it comes."""

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Chunks as they arrive; the command waits while nobody reads (X4)."""
        ...

    async def wait(self) -> CommandResult:
        """Wait for the end. The result's stdout is empty, its stderr bounded.

        Raises:
            ConnectionLost, OperationTimeout: As `Transport` says.
        """
        ...


@runtime_checkable
class Transport(Managed, Protocol):
    """Commands on a host.

    Every command starts in the account's home directory. A cancelled or timed-out command is ended at the host too (X6).

    Raises, from every method: Unreachable, HostKeyError, AuthenticationError before anything has run;
    OperationTimeout and ConnectionLost, whose `may_have_run` is False only when it is certain that nothing ran (X7);
    ResourceError when the command printed more than its bound. It reconnects at the next use (X8).
    """

    async def run(self, command: Command) -> CommandResult:
        """Run one command to its end. An exit status other than 0 is a result, not an error."""
        ...

    def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AbstractAsyncContextManager[Process]:
        """Run one command, feeding `command.stdin` and then `stdin` while its output is read.

        `max_output` bounds stderr only. Leaving the block early ends the command.
        """
        ...

    async def put(self, local: Path, remote: str) -> None:
        """Copy one file to the host. `remote` is absolute, or relative to the home directory. Appears whole or not at all."""
        ...

    async def get(self, remote: str, local: Path) -> None:
        """Copy one file from the host. `local` appears whole or not at all."""
        ...


@frozen(cache_hash=True)
class NativeJob:
    """A job as its scheduler knows it.

    Attributes:
        id: The scheduler's own id, matched by `Scheduler.native_id` already.
        copy: The copy's number.
        submission: The submission's id.
        submitted_at: UTC; an id that the scheduler gave out at another time is not ours (T6).
    """

    id: str = field(validator=instance(str, empty=False))
    copy: int = field(validator=whole_number(0))
    submission: str = field(validator=instance(str, empty=False))
    submitted_at: datetime = field(converter=as_utc)


@frozen
class StagedBatch:
    """A sandbox that lies ready on the host.

    Attributes:
        submission: Its id.
        mark: What `find` and exactly-once look up in the scheduler.
        directory: Its absolute path on the host.
        runner: The absolute path of the generated POSIX script that the scheduler starts, with the copy's number as its argument.
        copies: Their numbers.
        spec: What runs; carries no secret here.
    """

    submission: str = field(validator=instance(str, empty=False))
    mark: str = field(validator=instance(str, empty=False))
    directory: str = field(validator=instance(str, empty=False))
    runner: str = field(validator=instance(str, empty=False))
    copies: tuple[int, ...] = field(converter=_copies)
    spec: SubmissionSpec = field(validator=instance(SubmissionSpec))


Results = Sequence[CommandResult]
"""One result per command, in their order."""

Facts = Mapping[str, int | str]
"""What a scheduler's probe learnt of its host, in the scheduler's own terms."""


@runtime_checkable
class Scheduler(Protocol):
    """A scheduler's language. Pure: no I/O, the same input gives the same output (N1).

    The commands of one call run in one remote script, in the sandbox root as their working directory; their results come back in order.
    A parser raises `ResourceError` when the whole answer is of no use, and otherwise leaves out what does not parse: a row spoils only
    its own job, and what is absent stays absent (N2, N3). Long lists are split within the daemon's limits (N4).
    """

    @property
    def stages_own_files(self) -> bool:
        """True if the scheduler carries the sandbox to the worker and back itself."""
        ...

    @property
    def native_id(self) -> str:
        """A regular expression that a native id must match in full before it comes near a shell (N5)."""
        ...

    def probe_commands(self, queue: str | None) -> Sequence[Command]:
        """What to ask once per connection."""
        ...

    def parse_probe(self, results: Results) -> Facts:
        """What the host told.

        Raises:
            ResourceError: The scheduler is not there, or not usable.
        """
        ...

    def check(self, spec: SubmissionSpec, facts: Facts) -> None:
        """Return if the specification can be honoured, as far as the facts tell.

        Raises:
            SpecRefused: Naming field, value and limit (S6).
        """
        ...

    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        """What to say to submit the copies. Run exactly once, whatever happens to the connection (S9).

        Asked for before anything is staged.

        Raises:
            SpecRefused: What `check` cannot see: it depends on the number of copies.
        """
        ...

    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        """The native id, or the failure, of every copy."""
        ...

    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """How to ask the queue for jobs."""
        ...

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """The jobs that the queue tells of.

        One that is absent has left it. So has one with a finished status, of which the scheduler still tells how it ended; where the
        sandbox knows less, that decides. One that the scheduler is ending is RUNNING with `ended_at` set: a kill that reads this back
        has done all that it can.

        Raises:
            ResourceError: The answer says nothing about any job: the command failed, or printed what it never prints.
        """
        ...

    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """How to ask for jobs that have left the queue; none where there is no history."""
        ...

    def parse_history(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        """The jobs whose end is on record."""
        ...

    def kill_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        """How to end jobs. What comes of it is read back with `status_commands`."""
        ...

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        """How to list the jobs whose mark begins so: all that are unfinished; for counts and open attempts."""
        ...

    def parse_list(self, results: Results) -> Mapping[str, tuple[str, int | None, JobStatus]]:
        """By native id: the mark, the copy's number (None: the row does not tell it), and the status.

        Jobs with a finished status may be among them. They do not count, and can be looked up.

        Raises:
            ResourceError: The list could not be had; an empty one is never a guess.
        """
        ...
