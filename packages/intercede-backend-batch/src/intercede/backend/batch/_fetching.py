"""From the stream that the host sends to the files of each job.

The stream is a preface of lines (what was declared), one archive (of tar's, or of our own shell text), and an end with the jobs that are
not ready and tar's words. A job is complete when its directory has come, which the host sends last; whatever happens to the stream before
that, the job fails with NOT_NOW and leaves nothing behind (F9). One job's trouble is its own (F3, F4).

Synchronous, to be fed in a thread: it writes files.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Final, NamedTuple

from attrs import field, frozen

from intercede.core import (
    ConfigurationError,
    Failure,
    FailureCode,
    InterCEdeError,
    JobOutput,
    ResourceError,
    SubmissionSpec,
    from_json,
)
from intercede.toolkit import (
    ArchiveEnd,
    CommittedOutput,
    Destination,
    FileSink,
    LimitExceeded,
    Limits,
    MemberEnd,
    TarData,
    TarError,
    TarKind,
    TarMember,
    TarReader,
    TarTrailing,
    file_paths,
)

from ._plain import PlainReader, Unread
from ._sandbox import lines_after

__all__ = ["Came", "Fetched", "Fetching", "job_outputs", "missing_members"]

#: A preface longer than this is none: it has a line for each submission.
_PREFACE_MAX = 64 * 2**20
#: How much of what is no preface is shown.
_BEFORE_SHOWN: Final = 500
_NO_ANSWER: Final = "what the host printed is not an answer to a fetch"
#: What is said at the end is about jobs that are not ready, 40 bytes each, and files that cannot be read; more of it is not kept.
_WORDS_MAX = 16 * 2**20
#: Where a job's payload runs.
_WORK = "work/"
#: A directory of a job by this name says that not all of the job can be read. What exactly, and why, is said behind the archive; but the
#: stream may be cut before.
_NOT_ALL: Final = "work"
_MEMBER = re.compile(r"([^/]+/[0-9]+)/(.*)", re.DOTALL)
#: A pattern without these is a name. A "/" may end the name of a directory, whose files are meant.
_SPECIAL: Final = frozenset("*?[/")
#: What tar says of a file, with --quoting-style=escape.
_TAR_WORDS = re.compile(r"tar: ([^/ ]+/[0-9]+)/(.*)")
#: What find says of a directory, its name in quotes or not, or the shell.
_CLOSED_WORDS = re.compile(r"unread (?:find: ['`]?)?([^/ ]+/[0-9]+)/(.*)")


class Came(NamedTuple):
    """What came of one job, as little as another process has to be told; see `JobOutput`.

    Attributes:
        names: Of its files, as they lie in its directory.
        stdout: How its standard output is called there.
        stderr: Likewise its standard error.
        missing: Patterns that matched nothing.
        failure: Why it is not, or not all, here.
    """

    names: tuple[str, ...] = ()
    stdout: str = ""
    stderr: str = ""
    missing: tuple[str, ...] = ()
    failure: Failure | None = None

    def output(self, directory: Path) -> JobOutput:
        """As the caller is told of it."""
        files = file_paths(directory, self.names)
        return JobOutput(
            stdout=files.get(self.stdout),
            stderr=files.get(self.stderr),
            log=files.get("log"),
            files={
                name.removeprefix(_WORK): path
                for name, path in files.items()
                if name.startswith(_WORK)
            },
            missing=self.missing,
            failure=self.failure,
        )


@frozen
class Fetched:
    """What one stream brought.

    Attributes:
        news: By `<submission>/<copy>`, of the jobs of which it was not told before, or of which something else is true now.
        unended: Jobs without a record of their end.
        absent: Jobs that are not there.
        instead: What came in place of an answer; None: an answer came.
    """

    news: Mapping[str, Came] = field(hash=False)
    unended: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    instead: str | None = None

    def raise_for_no_answer(self) -> None:
        """Raise unless the host has said something that parses.

        Raises:
            ResourceError: With what it has said.
        """
        if self.instead is not None:
            raise ResourceError(
                _NO_ANSWER if self.instead else "the host ended the fetch before it had answered",
                said=self.instead,
                remedy="see by hand what `sh -c 'echo here'` prints there, then fetch again",
            )


def job_outputs(news: Mapping[str, Came], dest: Path) -> dict[str, JobOutput]:
    """As the caller is told of them, 2 us for each file.

    Args:
        news: By `<submission>/<copy>`.
        dest: Where the jobs' directories are.
    """
    return {job: came.output(dest / job) for job, came in news.items()}


class Fetching:
    """Takes the stream of one fetch.

    Args:
        nonce: The random word of the script that sends it.
        dest: Where the jobs' directories go.
        jobs: Those asked for, as `<submission>/<copy>`. No others are written.
        limits: For each job.
        reader: Of the archive.
    """

    def __init__(
        self,
        nonce: str,
        dest: Path,
        jobs: Set[str],
        limits: Limits,
        reader: TarReader | PlainReader,
    ) -> None:
        self._word = f"\n{nonce} ".encode()
        self._asked = jobs
        self._dest = dest
        self._limits = limits
        self._before = bytearray()
        self._after = bytearray()
        #: What was declared, by submission, once it has come.
        self._specs: Mapping[str, SubmissionSpec] | None = None
        self._reader = reader
        #: By job, why not all of it could be read.
        self._unread: dict[str, str] = {}
        self._job: str | None = None
        #: What the names of its members begin with, as long as it is not complete and has not failed.
        self._prefix: str | None = None
        #: Its specification, and which of its members that calls otherwise.
        self._spec: SubmissionSpec | None = None
        self._renamed: Mapping[str, str] = {}
        self._destination: Destination | None = None
        self._sink: FileSink | None = None
        self._names: set[str] = set()
        self._in_file = False
        self._broken = ""
        #: What is complete or has failed.
        self._jobs: dict[str, Came] = {}
        #: Those of them that nobody was told of.
        self._news: dict[str, Came] = {}

    def feed(self, chunk: bytes) -> None:
        """Go on. Nothing that the stream holds makes it raise."""
        if self._specs is None:
            self._before += chunk
            chunk = self._read_preface()
        if self._specs is None or self._broken or not chunk:
            return
        try:
            events = self._reader.feed(chunk)
        except TarError as error:
            self._broken = f"the stream is not readable: {error}"
            self._drop(FailureCode.NOT_NOW, self._broken)
            return
        for event in events:
            if isinstance(event, TarMember):
                self._begin(event)
            elif isinstance(event, TarData):
                self._write(event.data)
            elif isinstance(event, MemberEnd):
                self._end_member()
            elif isinstance(event, Unread):
                self._note(event)
            elif isinstance(event, TarTrailing):
                self._after += event.data[: _WORDS_MAX - len(self._after)]
            else:
                assert isinstance(event, ArchiveEnd)

    def news(self) -> dict[str, Came]:
        """What is complete or has failed since this was asked before, by `<submission>/<copy>`. A later word on a job replaces an earlier one."""
        news, self._news = self._news, {}
        return news

    def finish(self) -> Fetched:
        """The stream has ended: what is not complete has failed. Idempotent, but for the news."""
        self._drop(FailureCode.NOT_NOW, self._broken or "the stream was cut; fetch again")
        if self._destination is not None:
            self._destination.close()
        if self._specs is None:
            instead = self._before[-_BEFORE_SHOWN:].decode("ascii", "replace").strip()
            return Fetched(self.news(), instead=instead)
        others, is_whole, words = self._after.partition(self._word + b"tar-ended\n")
        lines: list[str] = []
        if is_whole:  # else its last line may be about another job than the host meant
            told = others.partition(self._word + b"others\n")[2]
            lines = told.decode("ascii", "replace").splitlines()
        silent = self._asked - self._jobs.keys()
        unended = silent & lines_after(lines, "unended ")
        absent = silent & lines_after(lines, "absent ")
        # find quotes names; tar was told not to.
        closed = _words((line.replace("': ", ": ") for line in lines), _CLOSED_WORDS)
        said = _words(words.decode("utf-8", "replace").splitlines(), _TAR_WORDS)
        self._judge(silent - unended - absent, self._unread | closed | said)
        return Fetched(self.news(), frozenset(unended), frozenset(absent))

    def _judge(self, lost: Set[str], unread: Mapping[str, str]) -> None:
        """Say what became of those of which not all came, or nothing."""
        for job, words in unread.items():
            came = self._jobs.get(job)
            if came is not None and came.failure is None:
                failure = Failure(FailureCode.FAILED, f"not all could be read: {words}")
                self._learn(job, came._replace(failure=failure))
        for job in lost:
            reason = self._broken or "the stream was cut; fetch again"
            self._learn(job, Came(failure=Failure(FailureCode.NOT_NOW, reason)))

    def _learn(self, job: str, came: Came) -> None:
        self._jobs[job] = self._news[job] = came

    # ------------------------------------------------------------ preface and end

    def _read_preface(self) -> bytes:
        """Parse the lines once they are whole. Returns what belongs to the archive."""
        for end in (self._word + b"tar\n", self._word + b"ended\n"):
            at = self._before.find(end)
            if at >= 0:
                break
        else:
            if len(self._before) > _PREFACE_MAX:
                self._broken = _NO_ANSWER
                del self._before[:-_BEFORE_SHOWN]
            return b""
        start = self._before.find(self._word + b"say\n")
        lines = self._before[start if start >= 0 else at : at].decode("utf-8", "surrogateescape")
        self._specs = _parse_preface(lines)
        rest = bytes(self._before[at + len(end) :])
        self._before.clear()
        return rest

    def _note(self, unread: Unread) -> None:
        match = _MEMBER.fullmatch(unread.name)
        if match is not None:
            self._unread.setdefault(match[1], f"{match[2]!r}: {unread.reason}")

    # ------------------------------------------------------------ members

    def _begin(self, member: TarMember) -> None:
        self._in_file = False
        prefix = self._prefix
        if prefix is not None and member.name.startswith(prefix):
            name = member.name[len(prefix) :]
        else:
            submission, _, rest = member.name.removeprefix("./").partition("/")
            copy, _, name = rest.partition("/")
            job = f"{submission}/{copy}"
            if job not in self._asked or job in self._jobs:
                return
            if job != self._job:
                assert self._specs is not None
                self._begin_job(job, self._specs.get(submission))
        if name == _NOT_ALL and member.kind is TarKind.DIRECTORY:
            assert self._job is not None
            self._unread.setdefault(self._job, "a file or a directory may not be opened")
            return
        if not name:
            if member.kind is TarKind.DIRECTORY:
                self._commit()
            return
        # What two patterns match comes twice.
        if name in self._names:
            return
        self._names.add(name)
        try:
            self._take(self._open_sink(), member, self._renamed.get(name, name))
        except (InterCEdeError, OSError) as error:
            self._fail(error)

    def _begin_job(self, job: str, spec: SubmissionSpec | None) -> None:
        self._drop(FailureCode.NOT_NOW, "the stream went on before it was complete")
        self._job = job
        self._prefix = f"{job}/"
        self._names.clear()
        if spec is not self._spec:
            self._spec = spec
            self._renamed = _renamed(spec)

    def _open_sink(self) -> FileSink:
        """The job's, made when it is needed first."""
        if self._sink is None:
            assert self._job is not None
            if self._destination is None:
                self._destination = Destination(self._dest)
            self._sink = FileSink(self._destination, self._job, self._limits)
        return self._sink

    def _take(self, sink: FileSink, member: TarMember, name: str) -> None:
        if member.data is not None:
            sink.put(name, member.data, member.executable)
        elif member.kind is TarKind.FILE:
            sink.begin(name, member.size, member.executable)
            self._in_file = True
        elif member.kind is TarKind.SYMLINK:
            sink.link(name, member.target, symbolic=True)
        elif member.kind is TarKind.HARDLINK:
            target = member.target.removeprefix("./").removeprefix(f"{self._job}/")
            sink.link(name, target, symbolic=False)
        else:
            sink.refuse(name, "it is neither a file nor a directory")

    def _write(self, data: memoryview) -> None:
        if self._sink is None or not self._in_file:
            return
        try:
            self._sink.write(data)
        except (InterCEdeError, OSError) as error:
            self._fail(error)

    def _end_member(self) -> None:
        if self._sink is None or not self._in_file:
            return
        self._in_file = False
        try:
            self._sink.end()
        except (InterCEdeError, OSError) as error:
            self._fail(error)

    def _commit(self) -> None:
        assert self._job is not None
        try:
            committed = self._open_sink().commit()
        except (InterCEdeError, OSError) as error:
            self._fail(error)
            return
        self._learn(self._job, self._came(committed))
        self._sink = self._prefix = None

    def _came(self, committed: CommittedOutput) -> Came:
        missing: tuple[str, ...] = ()
        if self._spec is not None:
            here = (*committed.names, *committed.refused)
            files = {name.removeprefix(_WORK) for name in here if name.startswith(_WORK)}
            missing = missing_members(self._spec, files)
        failure = None
        if committed.refused:
            name, reason = next(iter(committed.refused.items()))
            more = f" (and {len(committed.refused) - 1} more)" if len(committed.refused) > 1 else ""
            failure = Failure(FailureCode.UNSAFE, f"left out {name!r}: {reason}{more}")
        return Came(
            committed.names,
            stdout=self._renamed.get("stdout", "stdout"),
            stderr=self._renamed.get("stderr", "stderr"),
            missing=missing,
            failure=failure,
        )

    def _fail(self, error: InterCEdeError | OSError) -> None:
        if isinstance(error, LimitExceeded):
            self._drop(FailureCode.LIMIT, str(error))
        elif isinstance(error, OSError):
            self._drop(FailureCode.FAILED, f"cannot be written at {self._dest}: {error.strerror}")
        else:
            self._drop(FailureCode.NOT_NOW, str(error))

    def _drop(self, code: FailureCode, reason: str) -> None:
        """Leave nothing of the job that is being received, which fails."""
        self._in_file = False
        self._prefix = None
        if self._sink is not None:
            self._sink.discard()
            self._sink = None
        if self._job is not None and self._job not in self._jobs:
            self._learn(self._job, Came(failure=Failure(code, reason)))


def _words(said: Iterable[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """By job, what was said about its files first."""
    words: dict[str, str] = {}
    for line in said:
        match = pattern.match(line)
        if match is not None:
            words.setdefault(match[1], match[2])
    return words


def _parse_preface(text: str) -> dict[str, SubmissionSpec]:
    """By submission, its specification without the inputs."""
    specs = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "meta":
            submission, _, spec = rest.partition(" ")
            try:
                specs[submission] = from_json(SubmissionSpec, spec)
            except ConfigurationError:
                continue  # forged or broken: what was declared is not known, what came is
    return specs


def _renamed(spec: SubmissionSpec | None) -> Mapping[str, str]:
    """The names of stdout and stderr, where the specification gives them others."""
    if spec is None:
        return {}
    names = {"stdout": spec.stdout, "stderr": spec.stderr}
    return {name: wanted for name, wanted in names.items() if wanted}


def missing_members(spec: SubmissionSpec, names: Set[str]) -> tuple[str, ...]:
    """The declared patterns that none of the names matches."""
    if spec.outputs.everything:
        return ()
    return tuple(
        member.pattern for member in spec.outputs.members if not _is_matched(member.pattern, names)
    )


def _is_matched(pattern: str, names: Set[str]) -> bool:
    if _SPECIAL.isdisjoint(pattern):
        return pattern in names
    return any(_matches(name, pattern) for name in names)


def _matches(name: str, pattern: str) -> bool:
    """As the host's shell matches: part by part, by bytes; the parts beneath a directory are free."""
    is_tree = pattern.endswith("/")
    parts, patterns = name.split("/"), pattern.removesuffix("/").split("/")
    if len(parts) < len(patterns) + is_tree if is_tree else len(parts) != len(patterns):
        # A directory that is a link was refused under its own name.
        return is_tree and name == pattern[:-1]
    return all(map(_matches_part, parts, patterns))


def _matches_part(part: str, pattern: str) -> bool:
    if part.startswith(".") and not pattern.startswith("."):
        return False
    encoded = part.encode("utf-8", "surrogateescape").decode("latin-1")
    return fnmatch.fnmatchcase(
        encoded, pattern.encode("utf-8", "surrogateescape").decode("latin-1")
    )
