"""Attempts to submit, as the sandbox keeps them: what state they are in, and which native ids they gave.

Pure, but for the names of the host it reads for.
"""

from __future__ import annotations

from attrs import field, frozen

from intercede.core import (
    CommandResult,
    ConfigurationError,
    Failure,
    FailureCode,
    JobHandle,
    ResourceError,
    StagedBatch,
    SubmissionSpec,
    from_json,
)
from intercede.toolkit import (
    Frames,
    JobParts,
    submission_time,
)

from ._host import Host
from ._ids import is_submission

__all__ = ["Attempts", "make_handle", "read_frames", "read_natives"]


@frozen
class Attempts:
    """What the sandbox tells of submissions.

    Attributes:
        states: By submission, one of `ATTEMPT_*`.
        totals: By submission, how many copies it was made with.
        answers: By submission, what the scheduler's commands answered.
        specs: By submission, the specification without its inputs, where it was asked for.
        copies: By submission, the copies that are there, where they were asked for.
    """

    states: dict[str, str] = field(factory=dict)
    totals: dict[str, int] = field(factory=dict)
    answers: dict[str, list[CommandResult]] = field(factory=dict)
    specs: dict[str, SubmissionSpec] = field(factory=dict)
    copies: dict[str, list[int]] = field(factory=dict)


def read_frames(frames: Frames) -> Attempts:
    """Read what the attempt functions of the sandbox printed."""
    attempts = Attempts()
    for line in frames.lines:
        word, _, rest = line.partition(" ")
        submission, _, rest = rest.partition(" ")
        if not is_submission(submission):
            continue
        if word == "attempt":
            state, _, total = rest.partition(" ")
            attempts.states[submission] = state
            attempts.totals[submission] = int(total) if total.isdigit() else 0
        elif word == "copy" and rest.isdigit():
            attempts.copies.setdefault(submission, []).append(int(rest))
        elif word == "found":
            attempts.copies.setdefault(submission, [])
            try:
                attempts.specs[submission] = from_json(SubmissionSpec, rest)
            except ConfigurationError:
                continue  # broken by somebody: its copies are found all the same
    for submission in attempts.states:
        answers: list[CommandResult] = []
        while (answer := frames.results.get(f"{submission}.{len(answers)}")) is not None:
            answers.append(answer)
        attempts.answers[submission] = answers
    return attempts


def read_natives(host: Host, batch: StagedBatch, attempts: Attempts) -> dict[int, str | Failure]:
    """Native ids, by copy; those that do not look like one are failures (N5).

    Raises:
        ResourceError: The scheduler's answer is not there, or cannot be read.
    """
    answers = attempts.answers.get(batch.submission, [])
    if not answers:
        raise ResourceError("the scheduler's answer was not kept; the disk may be full")
    natives = dict(host.scheduler.parse_submit(batch, answers))
    for copy, native in natives.items():
        if isinstance(native, str) and not host.native_id.fullmatch(native):
            natives[copy] = Failure(
                FailureCode.FAILED, f"the scheduler gave no id, but {native[:80]!r}"
            )
    return natives


def make_handle(host: Host, batch: StagedBatch, copy: int, native: str | None) -> JobHandle:
    return JobHandle(
        id=JobParts(host.name, batch.submission, copy, native).encode(),
        backend="batch",
        resource=host.name,
        submission=batch.submission,
        copy=copy,
        submitted_at=submission_time(batch.submission),
        tag=batch.spec.tag,
        metadata={"directory": f"{batch.directory}/{copy}"},
    )
