"""Liars about N: a scheduler's language.

Most speak that of the fake's batch system, which has a history and limits; what is about a program's end is shown on direct.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from attrs import evolve

from intercede.contract import Sample
from intercede.core import (
    Command,
    CommandResult,
    Facts,
    Failure,
    JobDetails,
    JobStatus,
    NativeJob,
    ResourceError,
    Results,
    StagedBatch,
)
from intercede.fake import FakeScheduler
from intercede.fake._queue import HEADER
from intercede.fake._scheduler import _STATES
from intercede.scheduler.direct import DirectScheduler

from ._honest import lie

_OVER: Final = JobDetails(JobStatus.FINISHED_UNKNOWN)
_HEADER: Final = f"{HEADER}\n".encode()

Found = Mapping[NativeJob, JobDetails]
Listed = Mapping[str, tuple[str, int | None, JobStatus]]


def rows_of(results: Results) -> list[list[str]]:
    """The rows of all answers, whoever gave them."""
    text = "".join(result.stdout.decode(errors="replace") for result in results)
    return [line.split("\t") for line in text.splitlines() if "\t" in line]


# ---------------------------------------------------------------- N1


@lie("N1", "remembers what it has heard, and adds it to what it hears next", "N2 N3")
class RemembersRows(FakeScheduler):
    def __init__(self) -> None:
        self._seen: dict[NativeJob, JobDetails] = {}

    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        self._seen.update(super().parse_status(jobs, results))
        return dict(self._seen)


@lie("N1", "numbers its questions")
class NumbersItsQuestions(FakeScheduler):
    def __init__(self) -> None:
        self._numbers = itertools.count()

    def list_commands(self, mark_prefix: str) -> Sequence[Command]:
        return [Command(["fake-list", mark_prefix, f"--request={next(self._numbers)}"])]


@lie("N1", "asks for what has happened until now, by its own clock")
class AsksUntilNow(FakeScheduler):
    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        until = f"--until={time.monotonic_ns()}"
        return [Command((*c.argv, until)) for c in super().history_commands(jobs)]


@lie("N1", "looks into a file of settings when it is asked for its words")
class ReadsItsSettings(FakeScheduler):
    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        Path(os.devnull).read_bytes()
        return super().submit_commands(batch, facts)


# ---------------------------------------------------------------- N2


@lie("N2", "calls every job over that the queue does not name", "N3")
class FillsTheAbsent(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        found = super().parse_status(jobs, results)
        return {job: found.get(job, _OVER) for job in jobs}


@lie("N2", "calls an array over of which the queue names nothing, if it names anything at all")
class WholeArraysAreOver(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        found = super().parse_status(jobs, results)
        named = {self._array(job) for job in found}
        over = [job for job in jobs if named and self._array(job) not in named]
        return {**dict.fromkeys(over, _OVER), **found}

    def _array(self, job: NativeJob) -> str:
        return job.id.partition(".")[0]


@lie("N2", "takes what is missing between two elements of an array for waiting", "N3")
class FillsTheGaps(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        found = dict(super().parse_list(results))
        for native, (mark, copy, _) in list(found.items()):
            array = native.partition(".")[0]
            if copy is not None and f"{array}.{copy + 2}" in found:
                found.setdefault(f"{array}.{copy + 1}", (mark, copy + 1, JobStatus.PENDING))
        return found


@lie("N2", "reads the first answer only when it has asked twice")
class ReadsTheFirstAnswer(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        super().parse_status(jobs, results)
        return super().parse_status(jobs, results[:1])


@lie("N2", "splits rows at blanks, and does not know those whose reason has several words")
class SplitsAtBlanks(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        found = super().parse_status(jobs, results)
        return {job: at for job, at in found.items() if " " not in (at.reason or "")}


@lie("N2", "has no word for a held job, and says that it runs")
class HeldIsRunning(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        return {
            job: evolve(at, status=JobStatus.RUNNING) if at.status is JobStatus.HELD else at
            for job, at in super().parse_status(jobs, results).items()
        }


@lie("N2", "takes all that the queue names for unfinished")
class WhatIsNamedIsUnfinished(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        return {
            job: evolve(at, status=JobStatus.RUNNING) if at.status.is_finished else at
            for job, at in super().parse_status(jobs, results).items()
        }


@lie("N2", "has no word for a job that was killed")
class KilledHasNoWord(FakeScheduler):
    def parse_history(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        found = super().parse_history(jobs, results)
        return {job: at for job, at in found.items() if at.status is not JobStatus.CANCELLED}


@lie("N2", "takes an exit code modulo 128, and what no exit code is for a good one")
class CodesModulo128(FakeScheduler):
    def parse_history(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        return {
            job: evolve(at, status=JobStatus.SUCCESSFUL)
            if at.status is JobStatus.FAILED and (at.exit_code or 0) % 128 == 0
            else at
            for job, at in super().parse_history(jobs, results).items()
        }


@lie("N2", "does not mind when an id was given out")
class TrustsEveryId(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        told = {row[0]: row[2] for row in rows_of(results) if len(row) == 5}
        moved = {evolve(job, submitted_at=self._moment(told.get(job.id))): job for job in jobs}
        found = super().parse_status(list(moved), results)
        return {moved[job]: at for job, at in found.items()}

    def _moment(self, seconds: str | None) -> datetime:
        return datetime.fromtimestamp(float(seconds or 0), UTC)


@lie("N2", "finds a job in every row that begins with its id", "N3")
class MatchesPrefixes(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        found = super().parse_status(jobs, results)
        begun = {
            job: at for other, at in found.items() for job in jobs if other.id.startswith(job.id)
        }
        return {**begun, **found}


@lie("N2", "takes an answer that names nobody for none")
class NobodyIsAnError(FakeScheduler):
    def parse_history(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        if not rows_of(results):
            raise ResourceError("the history is empty")
        return super().parse_history(jobs, results)


@lie("N2", "asks for marks in five columns")
class CutsMarks(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        found = super().parse_list(results)
        return {native: (mark[:5], copy, status) for native, (mark, copy, status) in found.items()}


@lie("N2", "counts the jobs of a list in place of telling which copy each is", "N3")
class CountsTheListed(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        found = super().parse_list(results)
        return {
            native: (mark, place, status)
            for place, (native, (mark, _, status)) in enumerate(found.items())
        }


@lie("N2", "counts the copies of a list from one, and recorded what it told")
class CountsFromOne(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        found = super().parse_list(results)
        return {
            native: (mark, None if copy is None else copy + 1, status)
            for native, (mark, copy, status) in found.items()
        }

    @staticmethod
    def retold(samples: Sequence[Sample]) -> Sequence[Sample]:
        return [
            evolve(
                sample,
                expected={
                    native: [mark, copy + 1, status]
                    for native, (mark, copy, status) in sample.expected.items()
                },
            )
            if sample.call == "list" and sample.expected is not None
            else sample
            for sample in samples
        ]


@lie("N2", "compares limits as text")
class FactsAreText(FakeScheduler):
    def parse_probe(self, results: Results) -> Facts:
        return {key: str(value) for key, value in super().parse_probe(results).items()}


# ---------------------------------------------------------------- N3


@lie("N3", "reads a command that failed as an empty queue")
class FailedIsEmpty(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        heard = [CommandResult(0, _HEADER) if r.returncode else r for r in results]
        return super().parse_status(jobs, heard)


@lie("N3", "reads an answer without a word as an empty queue")
class SilenceIsEmpty(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        heard = [r if r.stdout or r.returncode else CommandResult(0, _HEADER) for r in results]
        return super().parse_list(heard)


@lie("N3", "leaves out an answer that failed when it has another")
class HalfAnAnswerWillDo(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        good = [result for result in results if result.returncode == 0]
        return super().parse_status(jobs, good or results)


@lie("N3", "takes exit code 0 of a submit for the word that all is queued")
class ZeroIsQueued(DirectScheduler):
    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        if results[0].returncode == 0:
            return {copy: f"{batch.submission}.{copy}" for copy in batch.copies}
        return super().parse_submit(batch, results)


@lie("N3", "fails for all jobs when one row does not parse")
class OneRowFailsAll(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        for result in results:
            if any(len(line.split(b"\t")) != 5 for line in result.stdout.splitlines()[1:]):
                raise ResourceError("a row does not parse")
        return super().parse_status(jobs, results)


@lie("N3", "lets a row that is not UTF-8 fail as it will")
class DecodesStrictly(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        for result in results:
            result.stdout.decode()
        return super().parse_list(results)


@lie("N3", "takes a state that it does not know for running")
class UnknownWordsRun(FakeScheduler):
    def parse_status(self, jobs: Sequence[NativeJob], results: Results) -> Found:
        found = super().parse_status(jobs, results)
        states = {row[0]: row[1] for row in rows_of(results) if len(row) == 5}
        unknown = [job for job in jobs if states.get(job.id, "running") not in _STATES]
        return {**dict.fromkeys(unknown, JobDetails(JobStatus.RUNNING)), **found}


@lie("N3", "does not mind that the last row has no end")
class ReadsHalfARow(FakeScheduler):
    def parse_list(self, results: Results) -> Listed:
        return super().parse_list([evolve(r, stdout=r.stdout.rstrip() + b"\n") for r in results])


@lie("N3", "hands out the ids of a submit from the last copy backwards")
class HandsOutBackwards(FakeScheduler):
    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        answers = super().parse_submit(batch, results)
        ids = [answer for answer in answers.values() if isinstance(answer, str)]
        failures = [answer for answer in answers.values() if isinstance(answer, Failure)]
        return dict(zip(batch.copies, [*failures, *ids], strict=True))


# ---------------------------------------------------------------- N4


def in_one(commands: Sequence[Command]) -> list[Command]:
    """The same with all arguments on one line."""
    words = [word for command in commands for word in command.argv[1:]]
    return [Command((commands[0].argv[0], *words))]


@lie("N4", "asks for all jobs on one line")
class AsksOnOneLine(FakeScheduler):
    def status_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return in_one(super().status_commands(jobs))


@lie("N4", "names more jobs in a command than the daemon takes")
class NamesTooMany(FakeScheduler):
    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        commands = super().history_commands(jobs)
        return [c for n in range(0, len(commands), 4) for c in in_one(commands[n : n + 4])]


@lie("N4", "kills the first five hundred")
class KillsTheFirst(FakeScheduler):
    def kill_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return super().kill_commands(jobs)[:1]


@lie("N4", "names every copy with its submission on the command line of a submit")
class StampsOnOneLine(FakeScheduler):
    def submit_commands(self, batch: StagedBatch, facts: Facts) -> Sequence[Command]:
        stamps = [f"{batch.submission}-{copy:08}" for copy in batch.copies]
        return [Command(("fake-submit", batch.mark, batch.runner, "-", *stamps))]


# ---------------------------------------------------------------- N5


@lie("N5", "lets every id through")
class LetsAllThrough(FakeScheduler):
    @property
    def native_id(self) -> str:
        return "(?s:.*)"


@lie("N5", "lets an empty id through")
class LetsNothingThrough(FakeScheduler):
    @property
    def native_id(self) -> str:
        return f"({super().native_id})?"


@lie("N5", "looks at the beginning of an id")
class LooksAtTheBeginning(FakeScheduler):
    @property
    def native_id(self) -> str:
        return super().native_id + "(?s:.*)"


@lie("N5", "has never seen a number above nine")
class OneDigit(FakeScheduler):
    @property
    def native_id(self) -> str:
        return r"[1-9]\.[0-9]"


@lie("N5", "tells as an id whatever stands where one should", "N3")
class TellsWhatItHears(FakeScheduler):
    def parse_submit(self, batch: StagedBatch, results: Results) -> Mapping[int, str | Failure]:
        answers = dict(super().parse_submit(batch, results))
        told = {row[0]: row[1] for row in rows_of(results) if len(row) == 2}
        return {copy: told.get(str(copy), answer) for copy, answer in answers.items()}


# ---------------------------------------------------------------- N6


@lie("N6", "does not say of which version its recorded answers are")
class NamesNoVersion(FakeScheduler):
    @staticmethod
    def retold(samples: Sequence[Sample]) -> Sequence[Sample]:
        return [evolve(sample, daemon="fake-queue") for sample in samples]


@lie("N6", "does not say what its recorded answers answer")
class NamesNoCommand(FakeScheduler):
    @staticmethod
    def retold(samples: Sequence[Sample]) -> Sequence[Sample]:
        return [evolve(sample, command=" ") for sample in samples]


@lie("N6", "has never seen a list, and reads one all the same")
class HasSeenNoList(FakeScheduler):
    @staticmethod
    def retold(samples: Sequence[Sample]) -> Sequence[Sample]:
        return [sample for sample in samples if sample.call != "list"]


@lie("N6", "asks the queue again in place of the history, whose recorded answers it understands")
class AsksTheQueueTwice(FakeScheduler):
    def history_commands(self, jobs: Sequence[NativeJob]) -> Sequence[Command]:
        return super().status_commands(jobs)
