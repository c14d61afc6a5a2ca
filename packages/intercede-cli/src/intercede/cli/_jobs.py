"""`submit`, `find`, `status`, `fetch`, `kill` and `purge`: one question, asked of every resource that the ids name, at the same time.

What fails for one resource is told beside the answers of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

import anyio
from attrs import field, frozen

from intercede.core import (
    BulkResult,
    Cancellable,
    ConfigurationError,
    Discoverable,
    Failure,
    InterCEdeError,
    JobBackend,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OpOutcome,
    OutputRetriever,
    Purgeable,
    unstructure,
)

from ._configuration import Configuration
from ._exits import ExitCode, error_document, exit_code_of
from ._ids import by_resource
from ._interrupts import Interrupts
from ._report import details_of, directory_of, exit_text
from ._screen import Screen
from ._submit import specification, submit

__all__ = ["fetch", "find", "kill", "purge", "status", "submit_only"]

V = TypeVar("V")

#: What `status` counts as gone wrong.
_BAD: Final = frozenset(
    {JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.FINISHED_UNKNOWN, JobStatus.UNKNOWN}
)


# ---------------------------------------------------------------- handles


async def submit_only(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Submit the command's copies and print their ids."""
    spec = specification(options)
    async with configuration.opened(options.resource) as ce:
        submission = await submit(ce, spec, options, interrupts, screen)
    if submission is None:
        return ExitCode.INTERRUPTED
    print_handles(submission.handles, screen)
    submission.raise_for_failures()
    return ExitCode.OK


async def find(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Print the ids of what was submitted with a tag."""
    print_handles(await _found(configuration, options.resource, options.tag), screen)
    return ExitCode.OK


def print_handles(handles: Sequence[JobHandle], screen: Screen) -> None:
    """One per line, in a form that the other commands take from `-`."""
    for handle in handles:
        if screen.as_json:
            screen.document(unstructure(handle))
        else:
            screen.line(handle.id)


async def _found(configuration: Configuration, resource: str, tag: str) -> tuple[JobHandle, ...]:
    async with configuration.opened(resource) as ce:
        if not isinstance(ce, Discoverable):
            raise _cannot(resource, "find")
        return await ce.find(tag)


def _cannot(resource: str, operation: str) -> ConfigurationError:
    return ConfigurationError("this resource cannot do it", resource=resource, operation=operation)


# ---------------------------------------------------------------- one question to many resources


@frozen
class _Answers(Generic[V]):
    """What the resources said, an answer each or an error.

    Attributes:
        entries: By id, in the order of the command line.
        failures: By id.
        errors: Of the resources that could not be asked.
    """

    entries: Mapping[JobID, V]
    failures: Mapping[JobID, Failure]
    errors: Sequence[InterCEdeError | OSError] = field(factory=list)

    def exit_code(self) -> int:
        """The worst that happened."""
        codes = [exit_code_of(error) for error in self.errors]
        return max([*codes, ExitCode.SOME_FAILED if self.failures else ExitCode.OK])


async def _answers(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    ask: Callable[[JobBackend, str, Sequence[JobID]], Awaitable[BulkResult[V]]],
) -> _Answers[V]:
    ids = await _wanted(options, configuration, screen)
    grouped = by_resource(ids)
    for name in grouped:
        configuration.require(name)
    entries: dict[JobID, V] = {}
    failures: dict[JobID, Failure] = {}
    errors: list[InterCEdeError | OSError] = []

    async def ask_one(name: str, its_ids: Sequence[JobID]) -> None:
        try:
            async with configuration.opened(name) as ce:
                answer = await ask(ce, name, its_ids)
        except (InterCEdeError, OSError) as error:
            errors.append(error)
        else:
            entries.update(answer)
            failures.update(answer.failures)

    async with anyio.create_task_group() as tasks:
        for name, its_ids in grouped.items():
            tasks.start_soon(ask_one, name, its_ids)
    if errors and not entries:
        raise errors[0]
    return _Answers({job: entries[job] for job in ids if job in entries}, failures, errors)


async def _wanted(
    options: argparse.Namespace, configuration: Configuration, screen: Screen
) -> list[JobID]:
    if options.tag is None:
        return [JobID(job) for job in options.ids]
    handles = await _found(configuration, options.resource, options.tag)
    if not handles:
        screen.note(f"no job of {options.resource} has the tag {options.tag!r}")
    return [handle.id for handle in handles]


def _tell(
    answers: _Answers[V],
    screen: Screen,
    columns: Sequence[str],
    row: Callable[[V], Sequence[str]],
) -> None:
    """The table, and beneath it the resources that could not be asked; or all of it as JSON.

    The last column is for notes: where something failed, why.
    """
    if screen.as_json:
        jobs = [_as_document(job, entry, answers) for job, entry in answers.entries.items()]
        screen.document({"jobs": jobs, "errors": [error_document(e) for e in answers.errors]})
        return
    rows = []
    for job, entry in answers.entries.items():
        *cells, note = row(entry)
        rows.append((job, *cells, str(answers.failures.get(job, note))))
    if rows:
        screen.table(("id", *columns), rows)
    for error in answers.errors:
        screen.error(error)


def _as_document(job: JobID, entry: V, answers: _Answers[V]) -> dict[str, object]:
    document: dict[str, object] = {"id": job, "failure": None, **unstructure(entry)}
    if job in answers.failures:
        document["failure"] = unstructure(answers.failures[job])
    return document


# ---------------------------------------------------------------- the questions


async def status(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Print where the jobs are. A job that went wrong makes the exit code 1."""

    async def ask(ce: JobBackend, name: str, ids: Sequence[JobID]) -> BulkResult[JobDetails]:
        return await details_of(ce, ids)

    def row(details: JobDetails) -> Sequence[str]:
        return details.status, exit_text(details), details.node or "", details.reason or ""

    answers = await _answers(options, configuration, screen, ask)
    _tell(answers, screen, ("status", "exit", "node", "note"), row)
    bad = any(details.status in _BAD for details in answers.entries.values())
    return max(answers.exit_code(), ExitCode.SOME_FAILED if bad else ExitCode.OK)


async def fetch(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Bring the output of finished jobs."""

    async def ask(ce: JobBackend, name: str, ids: Sequence[JobID]) -> BulkResult[JobOutput]:
        if not isinstance(ce, OutputRetriever):
            raise _cannot(name, "fetch")
        return await ce.fetch_output(ids, Path(options.dest))

    def row(output: JobOutput) -> Sequence[str]:
        missing = f"missing: {', '.join(output.missing)}" if output.missing else ""
        return str(len(output.files)), directory_of(output), missing

    answers = await _answers(options, configuration, screen, ask)
    _tell(answers, screen, ("files", "where", "note"), row)
    return answers.exit_code()


async def kill(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """End jobs."""

    async def ask(ce: JobBackend, name: str, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        if not isinstance(ce, Cancellable):
            raise _cannot(name, "kill")
        return await ce.kill(ids)

    answers = await _answers(options, configuration, screen, ask)
    _tell(answers, screen, ("killed", "note"), _outcome)
    return answers.exit_code()


async def purge(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Remove what the resources keep of finished jobs."""

    async def ask(ce: JobBackend, name: str, ids: Sequence[JobID]) -> BulkResult[OpOutcome]:
        if not isinstance(ce, Purgeable):
            raise _cannot(name, "purge")
        return await ce.purge(ids)

    answers = await _answers(options, configuration, screen, ask)
    _tell(answers, screen, ("purged", "note"), _outcome)
    return answers.exit_code()


def _outcome(outcome: OpOutcome) -> Sequence[str]:
    return "yes" if outcome.ok else "no", outcome.note or ""
