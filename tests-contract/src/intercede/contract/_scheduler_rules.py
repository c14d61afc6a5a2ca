"""Rules N1 to N6: a scheduler's language, held against what its daemon said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import pytest
from attrs import evolve

from intercede.core import (
    Command,
    CommandResult,
    JobStatus,
    NativeJob,
    ResourceError,
    Results,
    Scheduler,
    StagedBatch,
    SubmissionSpec,
)

from ._bench import Gathered
from ._scheduler_resource import CALLS, Sample, SchedulerResource, submitted_batch
from ._verdict import not_observed, rule
from ._watch import io_watched

__all__ = ["SchedulerRules"]

_MANY: Final = 20_000
_WHEN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SPEC: Final = SubmissionSpec("/bin/true", resident=True)
#: What must never come near a shell.
_HOSTILE: Final = (
    "",
    " ",
    "1 2",
    "1\n",
    "1;true",
    "$(true)",
    "`true`",
    "1|true",
    "1&",
    "*",
    "'1'",
    '"1"',
    "../1",
    "--help",
    "~",
    "1>x",
    "\x00",
)
#: What speaks in the daemon's place.
_STRANGERS: Final = (
    CommandResult(127, b"", b"contract: no such daemon\n"),
    CommandResult(0, b"", b""),
    CommandResult(0, b"\x00\xff<html>502 Bad Gateway</html>\n", b""),
)


class SchedulerRules(Gathered):
    """N: pure, and never more than the daemon said."""

    resource: ClassVar[SchedulerResource]

    def _samples(self, *calls: str, useful: bool = True) -> Iterator[tuple[Scheduler, Sample]]:
        """The recorded answers to these calls, each with a new scheduler."""
        found = [
            sample
            for sample in self.resource.samples
            if sample.call in (calls or CALLS) and (sample.expected is not None or not useful)
        ]
        if not found:
            not_observed(
                f"recorded answers (SchedulerResource.samples): {' or '.join(calls or CALLS)}"
            )
        for sample in found:
            yield self.resource.made(), sample

    def _many(self) -> Sequence[NativeJob]:
        if self.resource.native is None:
            not_observed("how native ids are made up (SchedulerResource.native)")
        return [_native(self.resource.native, number) for number in range(_MANY)]

    # -------------------------------------------------------------- N1

    @rule("N1")
    def test_the_same_answer_means_the_same_each_time(self) -> None:
        used = self.resource.made()
        for fresh, sample in self._samples(useful=False):
            first = _understood(fresh, sample, sample.results)
            again = _understood(fresh, sample, sample.results)
            late = _understood(used, sample, sample.results)
            assert first == again == late, f"not the same each time: {sample}"

    @rule("N1")
    def test_the_same_question_is_asked_in_the_same_words(self) -> None:
        for scheduler, sample in self._samples():
            facts = self._facts()
            first = _said(scheduler, sample, facts)
            again = _said(scheduler, sample, facts)
            fresh = _said(self.resource.made(), sample, facts)
            assert first == again == fresh, f"not the same each time: {sample}"

    @rule("N1")
    def test_nothing_is_read_written_or_started(self) -> None:
        facts = self._facts()
        for scheduler, sample in self._samples():
            with io_watched() as seen:
                _said(scheduler, sample, facts)
                _understood(scheduler, sample, sample.results)
            assert seen == [], f"I/O: {sample}"

    def _facts(self) -> Mapping[str, Any]:
        scheduler, sample = next(self._samples("probe"))
        return scheduler.parse_probe(sample.results)

    # -------------------------------------------------------------- N2

    @rule("N2")
    def test_a_recorded_answer_means_what_is_recorded(self) -> None:
        for scheduler, sample in self._samples():
            assert sample.expected is not None
            got = _understood(scheduler, sample, sample.results)
            if sample.call == "probe" and got is not None:
                got = {key: got.get(key) for key in sample.expected}
            assert got == sample.expected, str(sample)

    @rule("N2")
    def test_a_job_that_the_answer_does_not_name_is_absent(self) -> None:
        if self.resource.native is None:
            not_observed("how native ids are made up (SchedulerResource.native)")
        stranger = _native(self.resource.native, 987_654)
        for scheduler, sample in self._samples("status", "history"):
            asked = evolve(sample, jobs=(stranger, *sample.jobs))
            whole = _understood(scheduler, sample, sample.results)
            got = _understood(scheduler, asked, sample.results)
            assert got == whole, f"asked for {stranger.id} too: {sample}"

    @rule("N2")
    def test_a_job_whose_row_is_gone_is_absent_and_the_others_stay(self) -> None:
        for scheduler, sample in self._samples("status", "history", "list"):
            whole = _understood(scheduler, sample, sample.results) or {}
            for native, results in _one_changed(sample, whole, _gone):
                got = _understood(scheduler, sample, results)
                left = {key: value for key, value in whole.items() if key != native}
                # An answer without any row may look like none.
                assert got == left or (got is None and not left), (
                    f"without the row of {native}: {sample}"
                )
            for shared, results in _several_changed(sample, whole, _gone):
                got = _understood(scheduler, sample, results)
                if got is None:
                    continue  # without its header, or its end, it is no answer
                assert got.items() <= whole.items(), f"without a row: {sample}"
                _assert_same(whole, got, shared, f"without a row: {sample}")

    @rule("N2")
    def test_a_list_tells_of_a_job_the_copy_that_its_submit_told(self) -> None:
        submitted = {
            (submitted_batch(sample).mark, native): int(copy)
            for _, sample in self._samples("submit")
            for copy, native in (sample.expected or {}).items()
        }
        met = [
            (copy, submitted[mark, native], native, sample)
            for scheduler, sample in self._samples("list")
            for native, (mark, copy, _) in (
                _understood(scheduler, sample, sample.results) or {}
            ).items()
            if (mark, native) in submitted
        ]
        if not met:
            not_observed(
                "a recorded list with jobs of a recorded submit (SchedulerResource.samples)"
            )
        wrong = [what for what in met if what[0] not in (what[1], None)]
        assert wrong == [], "copy told, copy submitted, id, where"

    # -------------------------------------------------------------- N3

    @rule("N3")
    def test_an_answer_that_is_not_the_daemons_raises(self) -> None:
        for scheduler, sample in self._samples("probe", "status", "history", "list"):
            if not sample.expected:
                continue
            for stranger in _STRANGERS:
                got = _understood(scheduler, sample, [stranger] * len(sample.results))
                assert got is None, f"{stranger} was taken for an answer: {sample}"

    @rule("N3")
    def test_a_submit_whose_answer_is_not_the_daemons_has_no_ids(self) -> None:
        for scheduler, sample in self._samples("submit"):
            for stranger in _STRANGERS:
                got = _understood(scheduler, sample, [stranger] * len(sample.results)) or {}
                ids = [native for native in got.values() if native is not None]
                assert ids == [], f"{stranger} was taken for an answer: {sample}"

    @rule("N3")
    def test_what_was_recorded_as_useless_raises(self) -> None:
        useless = [sample for sample in self.resource.samples if sample.expected is None]
        if not useless:
            not_observed("a recorded answer that says nothing (Sample.expected = None)")
        for sample in useless:
            got = _understood(self.resource.made(), sample, sample.results)
            assert got is None, f"it was taken for an answer: {sample}"

    @rule("N3")
    @pytest.mark.parametrize("how", ["garbled", "wordless"])
    def test_a_garbled_row_spoils_only_its_own_job(self, how: str) -> None:
        for scheduler, sample in self._samples("status", "history", "list"):
            whole = _understood(scheduler, sample, sample.results) or {}
            for native, results in _one_changed(sample, whole, _GARBLE[how]):
                got = _understood(scheduler, sample, results)
                assert got is not None, f"{native} garbled spoils all: {sample}"
                told = _status(got, native)
                assert told == JobStatus.UNKNOWN, f"{native} garbled is {told}: {sample}"
                _assert_same(whole, got, {native}, f"with the row of {native} garbled: {sample}")
            for shared, results in _several_changed(sample, whole, _GARBLE[how]):
                got = _understood(scheduler, sample, results)
                if got is None:
                    continue  # without its header, or its end, it is no answer
                for native in shared:
                    told = _status(got, native)
                    assert told == JobStatus.UNKNOWN or got[native] == whole[native], (
                        f"{native} garbled is {told}: {sample}"
                    )
                _assert_same(whole, got, shared, f"with a row garbled: {sample}")

    @rule("N3")
    def test_an_answer_that_ends_early_invents_nothing(self) -> None:
        """Also one that ends within a row, whose last word may then be another job's, or another's mark."""
        for scheduler, sample in self._samples("submit", "status", "history", "list"):
            true = [*(_understood(scheduler, sample, sample.results) or {}).items()]
            for number, result in enumerate(sample.results):
                for size in range(len(result.stdout)):
                    results = [*sample.results]
                    results[number] = evolve(result, stdout=result.stdout[:size])
                    got = _understood(scheduler, sample, results) or {}
                    invented = [
                        (key, value)
                        for key, value in got.items()
                        if (key, value) not in true and value not in (None, JobStatus.UNKNOWN)
                    ]
                    assert invented == [], f"after {result.stdout[:size][-80:]!r}: {sample}"

    # -------------------------------------------------------------- N4

    @rule("N4")
    def test_a_long_list_of_jobs_is_asked_for_in_commands_that_the_host_takes(self) -> None:
        scheduler, jobs = self.resource.made(), self._many()
        for ask in (scheduler.status_commands, scheduler.history_commands, scheduler.kill_commands):
            commands = ask(jobs)
            assert _too_long(commands, self.resource.argv_limit) == [], ask.__name__
            if commands:
                self._each_is_named(commands, jobs)

    def _each_is_named(self, commands: Sequence[Command], jobs: Sequence[NativeJob]) -> None:
        """Every job is in some command, by its id, its array's (`3` of `3_7`) or as a line "submission copy" of its input; none has too many."""
        said = [
            {*re.split(r"[\s,]+", " ".join(command.argv)), *command.stdin.decode().splitlines()}
            for command in commands
        ]
        named = set().union(*said)
        unnamed = [job.id for job in jobs if not _names(job) & named]
        assert unnamed == []
        if self.resource.ids_limit is not None:
            natives = {job.id for job in jobs}
            most = max(len(natives & words) for words in said)
            assert most <= self.resource.ids_limit

    @rule("N4")
    def test_many_copies_are_submitted_in_commands_that_the_host_takes(self) -> None:
        facts = self._facts()
        for copies in (range(_MANY), range(0, _MANY, 2)):
            batch = StagedBatch("s1", "mark1", "/tmp/s1", "/tmp/s1/runner", tuple(copies), _SPEC)  # noqa: S108
            commands = self.resource.made().submit_commands(batch, facts)
            assert commands
            assert _too_long(commands, self.resource.argv_limit) == []

    # -------------------------------------------------------------- N5

    @rule("N5")
    def test_every_id_that_the_daemon_gave_is_let_through(self) -> None:
        for scheduler, sample in self._samples("submit", "status", "history", "list"):
            assert sample.expected is not None
            natives = sample.expected.values() if sample.call == "submit" else sample.expected
            refused = [
                native
                for native in natives
                if native is not None and not re.fullmatch(scheduler.native_id, native)
            ]
            assert refused == [], str(sample)

    @rule("N5")
    @pytest.mark.parametrize("hostile", _HOSTILE)
    def test_what_could_be_read_by_a_shell_is_no_id(self, hostile: str) -> None:
        assert not re.fullmatch(self.resource.made().native_id, hostile)

    @rule("N5")
    @pytest.mark.parametrize("hostile", [*filter(None, _HOSTILE)])
    def test_an_id_with_more_behind_it_is_no_id(self, hostile: str) -> None:
        for scheduler, sample in self._samples("submit"):
            assert sample.expected is not None
            natives = [native for native in sample.expected.values() if native is not None]
            longer = [native + hostile for native in natives]
            assert [text for text in longer if re.fullmatch(scheduler.native_id, text)] == []

    @rule("N5")
    def test_a_submit_never_tells_an_id_that_is_not_let_through(self) -> None:
        for scheduler, sample in self._samples("submit"):
            assert sample.expected is not None
            for native in filter(None, sample.expected.values()):
                for hostile in ("$(true)", "1;true", "--help"):
                    results = [
                        evolve(r, stdout=r.stdout.replace(native.encode(), hostile.encode()))
                        for r in sample.results
                    ]
                    got = _understood(scheduler, sample, results) or {}
                    let_through = [
                        told
                        for told in got.values()
                        if told is not None and not re.fullmatch(scheduler.native_id, told)
                    ]
                    assert let_through == [], f"{hostile!r} for {native}: {sample}"

    # -------------------------------------------------------------- N6

    @rule("N6")
    def test_every_sample_names_daemon_version_and_command(self) -> None:
        unnamed = [
            str(sample)
            for _, sample in self._samples(useful=False)
            if not re.search(r"[a-zA-Z].*[0-9]", sample.daemon) or not sample.command.strip()
        ]
        assert unnamed == []

    @rule("N6")
    def test_the_scheduler_asks_what_its_samples_were_asked(self) -> None:
        facts = self._facts()
        unasked = [
            f"{program!r} is asked: {sample}"
            for scheduler, sample in self._samples()
            for program in {_program(command) for command in _commands(scheduler, sample, facts)}
            if not re.search(rf"(?<![\w-]){re.escape(program)}(?![\w-])", sample.command)
        ]
        assert unasked == []

    @rule("N6")
    def test_every_call_that_is_parsed_has_a_sample(self) -> None:
        scheduler = self.resource.made()
        wanted = [call for call in CALLS if call != "history" or scheduler.history_commands(_JOBS)]
        known = {sample.call for _, sample in self._samples(useful=False)}
        assert [call for call in wanted if call not in known] == []


_JOBS: Final = (NativeJob("1", 0, "s1", _WHEN),)


def _native(template: str, number: int) -> NativeJob:
    submission, copy = f"s{number // 1000}", number % 1000
    native = template.format(submission=submission, copy=copy, number=number // 1000 + 1)
    return NativeJob(native, copy, submission, _WHEN)


def _names(job: NativeJob) -> set[str]:
    return {job.id, job.id.partition("_")[0], f"{job.submission} {job.copy}"}


def _too_long(commands: Sequence[Command], limit: int) -> list[int]:
    sizes = [sum(len(word.encode()) + 1 for word in command.argv) for command in commands]
    return [size for size in sizes if size > limit]


def _commands(scheduler: Scheduler, sample: Sample, facts: Mapping[str, Any]) -> Sequence[Command]:
    if sample.call == "probe":
        return scheduler.probe_commands(None)
    if sample.call == "submit":
        assert sample.batch is not None
        return scheduler.submit_commands(sample.batch, facts)
    if sample.call == "list":
        return scheduler.list_commands("mark")
    if sample.call == "history":
        return scheduler.history_commands(sample.jobs)
    return scheduler.status_commands(sample.jobs)


def _said(scheduler: Scheduler, sample: Sample, facts: Mapping[str, Any]) -> Sequence[Command]:
    """All that is said to the daemon because of a sample's jobs; a kill has no answer to record."""
    return [*_commands(scheduler, sample, facts), *scheduler.kill_commands(sample.jobs)]


def _program(command: Command) -> str:
    return command.argv[0].rpartition("/")[2]


def _understood(scheduler: Scheduler, sample: Sample, results: Results) -> Mapping[str, Any] | None:
    """What the answer means; None if it raises `ResourceError`. No other error will do: nobody who asks would know what it means."""
    try:
        return CALLS[sample.call](scheduler, sample, results)
    except ResourceError:
        return None
    except Exception as error:
        pytest.fail(f"no ResourceError, but {error!r}: {sample}")


def _one_changed(
    sample: Sample, whole: Mapping[str, Any], change: Callable[[list[bytes]], list[bytes]]
) -> Iterator[tuple[str, Results]]:
    """Each job that has a row of its own, and the answer with that row changed."""
    for native in whole:
        if _has_row(sample, native):
            yield native, [_changed(result, native, change) for result in sample.results]


def _several_changed(
    sample: Sample, whole: Mapping[str, Any], change: Callable[[list[bytes]], list[bytes]]
) -> Iterator[tuple[Set[str], Results]]:
    """The jobs without a row of their own, of which an array's tells, and the answer with any one line changed that is no job's own."""
    shared = {native for native in whole if not _has_row(sample, native)}
    for number, result in enumerate(sample.results if shared else ()):
        lines = result.stdout.splitlines(keepends=True)
        for at, line in enumerate(lines):
            if any(_naming(native).search(line) for native in whole):
                continue
            stdout = b"".join([*lines[:at], *change([line]), *lines[at + 1 :]])
            results = [*sample.results]
            results[number] = evolve(result, stdout=stdout)
            yield shared, results


def _has_row(sample: Sample, native: str) -> bool:
    return any(_naming(native).search(result.stdout) for result in sample.results)


def _naming(native: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w.])" + re.escape(native.encode()) + rb"(?![\w.])")


def _status(got: Mapping[str, Any], native: str) -> JobStatus:
    told = got.get(native, JobStatus.UNKNOWN)
    return JobStatus(told if isinstance(told, str) else told[-1])


def _assert_same(
    whole: Mapping[str, Any], got: Mapping[str, Any], but: Set[str], when: str
) -> None:
    """Of all jobs but these the same is told."""
    left = {key: value for key, value in whole.items() if key not in but}
    assert {key: value for key, value in got.items() if key not in but} == left, when


def _changed(
    result: CommandResult, native: str, change: Callable[[list[bytes]], list[bytes]]
) -> CommandResult:
    """The answer with something else in place of each line that names this id.

    Args:
        result: The answer.
        native: The id.
        change: From what stands before, between and behind the ids of a line makes the same of another; of nothing no line.
    """
    named = _naming(native)
    lines = [
        native.encode().join(change(named.split(line))) if named.search(line) else line
        for line in result.stdout.splitlines(keepends=True)
    ]
    return evolve(result, stdout=b"".join(lines))


def _gone(parts: list[bytes]) -> list[bytes]:
    return []


#: How a line that names an id can be spoilt.
_GARBLE: Final[Mapping[str, Callable[[list[bytes]], list[bytes]]]] = {
    "garbled": lambda parts: [b"\xff\xfe ?? \t|\n"],
    "wordless": lambda parts: [re.sub(rb"[A-Za-z]+", b"\xff", part) for part in parts],
}
