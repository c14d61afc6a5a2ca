"""The steps of a check: their order, what each needs, and what came of them.

Pure. What a resource does not offer is said to be so, and never passes; what cannot be tried because something before it failed is not
reached. An error brings its own remedy; a `Finding` is for what only a check can see, and brings one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from attrs import Factory, define, frozen

from intercede.core import Failure, FailureCode, InterCEdeError, JobID, SubmitUncertain

from ._exits import ExitCode, error_document, exit_code_of

__all__ = ["Cause", "Course", "Finding", "Outcome", "Result", "Step", "finding_of"]


class Step(StrEnum):
    """In the order in which they are taken."""

    CONFIGURATION = "configuration"
    """Its table makes a backend; the plugins are there."""
    CONNECT = "connect"
    """Somebody answers who can prove to be the host."""
    AUTHENTICATE = "authenticate"
    """It accepts what credentials it asked for."""
    QUEUE = "queue"
    """It answers questions, and would take the job."""
    SUBMIT = "submit"
    """Two jobs: one that ends by itself, and one that sleeps."""
    FIND = "find"
    """Their tag leads to these two."""
    STATUS = "status"
    """The sleeping job is seen running."""
    DIAGNOSTICS = "diagnostics"
    """What it has written so far can be read."""
    COUNTS = "counts"
    """It is counted."""
    KILL = "kill"
    """It can be ended."""
    FINISH = "finish"
    """The other one has ended with exit code 0."""
    FETCH = "fetch"
    """What it wrote is here, byte for byte."""
    PURGE = "purge"
    """Both can be removed."""
    CLEAN = "clean"
    """Nothing is left."""


#: What must have gone well before a step can be tried. CLEAN is tried whatever became of the jobs.
_NEEDS: Final[Mapping[Step, Step]] = {
    Step.CONNECT: Step.CONFIGURATION,
    Step.AUTHENTICATE: Step.CONNECT,
    Step.QUEUE: Step.AUTHENTICATE,
    Step.SUBMIT: Step.QUEUE,
    Step.FIND: Step.SUBMIT,
    Step.STATUS: Step.SUBMIT,
    Step.DIAGNOSTICS: Step.STATUS,
    Step.COUNTS: Step.STATUS,
    Step.KILL: Step.SUBMIT,
    Step.FINISH: Step.STATUS,
    Step.FETCH: Step.FINISH,
    Step.PURGE: Step.SUBMIT,
    Step.CLEAN: Step.AUTHENTICATE,
}


class Outcome(StrEnum):
    """What came of a step."""

    OK = "ok"
    FAILED = "failed"
    NOT_OFFERED = "not offered"
    """The resource has no such ability."""
    NOT_REACHED = "not reached"
    """Something that it needs has failed, or the check was ended before."""


class Finding(Exception):
    """Something is wrong that no call has raised.

    Attributes:
        cause: What was found.
        remedy: What to do about it.
        said: What the resource or the job said.
        exit_code: What it makes of the command's.
    """

    def __init__(
        self,
        cause: str,
        remedy: str,
        said: str = "",
        exit_code: ExitCode = ExitCode.SOME_FAILED,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.said = said
        self.exit_code = exit_code


#: For what fails for one job alone, which has words and a code but no remedy.
_REMEDIES: Final[Mapping[FailureCode, str]] = {
    FailureCode.NO_SUCH_JOB: "see whether somebody else removed it, and whether the sandboxes are on a file system that stays",
    FailureCode.NOT_NOW: "see whether the scheduler answers there, and check again",
    FailureCode.NOT_FINISHED: "see what the scheduler says of the job, or give it longer with --timeout",
    FailureCode.REFUSED: "see what the reason means at this resource",
    FailureCode.LIMIT: "raise that limit in the resource's table",
    FailureCode.UNSAFE: "see who else writes into the sandbox of the job",
    FailureCode.FAILED: "see what the scheduler's log there says of the job",
}


def finding_of(failure: Failure, subject: str) -> Finding:
    """What failed for one job alone."""
    return Finding(f"{subject}: {failure}", _REMEDIES[failure.code])


@frozen
class Cause:
    """Why a step failed, and what to do.

    Attributes:
        text: What was found.
        remedy: What to do about it, "" where nothing is known to help.
        said: The words of the resource, or of the job.
        exit_code: What it makes of the command's.
        error: Where an error was raised, all that it knows, for JSON.
    """

    text: str
    remedy: str
    said: str
    exit_code: ExitCode
    error: Mapping[str, object] | None = None

    @classmethod
    def of(cls, error: InterCEdeError | OSError | Finding) -> Cause:
        """Of what ended the step."""
        if isinstance(error, Finding):
            return cls(error.cause, error.remedy, error.said, error.exit_code)
        document = error_document(error)
        if isinstance(error, OSError):
            text = str(error) or type(error).__name__
            remedy = "see that this machine has room for temporary files"
            return cls(text, remedy, "", ExitCode.SOME_FAILED, document)
        # A check finds what has arrived, and removes it: nothing is left to be uncertain about.
        uncertain = isinstance(error, SubmitUncertain)
        code = ExitCode.RESOURCE if uncertain else exit_code_of(error)
        return cls(error.message, error.remedy, error.said, code, document)


@frozen
class Result:
    """What came of one step.

    Attributes:
        outcome: In a word.
        seconds: How long it took; None where nothing was tried.
        note: What is worth knowing besides.
        cause: Of a failed step.
    """

    outcome: Outcome
    seconds: float | None = None
    note: str = ""
    cause: Cause | None = None


@define
class Course:
    """How the check of one resource goes.

    Attributes:
        resource: Its name.
        tag: Of the jobs that the check submits there.
        results: Of the steps so far; all of them, in their order, once it is complete.
        sent: Something was submitted, whatever became of it.
        left: The ids of jobs that were not removed, as far as they are known.
    """

    resource: str
    tag: str
    results: dict[Step, Result] = Factory(dict)
    sent: bool = False
    left: tuple[JobID, ...] = ()

    def hindrance(self, step: Step) -> Step | None:
        """The step because of which this one cannot be tried."""
        need = _NEEDS.get(step)
        if need is None:
            return None
        outcome = self.results[need].outcome if need in self.results else Outcome.NOT_REACHED
        if outcome is Outcome.NOT_REACHED:
            return self.hindrance(need) or need
        return need if outcome is Outcome.FAILED else None

    def complete(self) -> None:
        """Nothing more comes: what has no result was not reached."""
        self.results = {step: self.results.get(step) or self._not_reached(step) for step in Step}

    def _not_reached(self, step: Step) -> Result:
        hindrance = self.hindrance(step)
        return Result(Outcome.NOT_REACHED, note=f"needs {hindrance}" if hindrance else "")

    @property
    def leaves_something(self) -> bool:
        """It is not known that nothing is left of what was sent; a resource that cannot purge apart."""
        clean = self.results.get(Step.CLEAN)
        clear = clean is not None and clean.outcome in (Outcome.OK, Outcome.NOT_OFFERED)
        return self.sent and not clear

    @property
    def exit_code(self) -> int:
        """The worst that happened."""
        causes = [result.cause for result in self.results.values() if result.cause is not None]
        return max((cause.exit_code for cause in causes), default=ExitCode.OK)
