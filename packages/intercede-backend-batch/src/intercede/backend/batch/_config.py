"""The keys of `batch`, which are neither the transport's nor the scheduler's."""

from __future__ import annotations

from attrs import Attribute, field, frozen, validators

from intercede.core.registry import describe

__all__ = ["BatchConfig"]


def _one_line(instance: object, attribute: Attribute[str], value: str) -> None:
    if any(character in value for character in "\0\n\r"):
        raise ValueError(f"{value!r} is not a path on one line")


@frozen
class BatchConfig:
    """Where the sandboxes are, and how long and how much is acceptable."""

    root: str = field(
        default="",
        validator=_one_line,
        metadata=describe("Directory of the sandboxes on the host; default: ~/.intercede/<name>"),
    )
    grace_s: float = field(
        default=90.0,
        validator=validators.ge(0),
        metadata=describe(
            "How long a job that left the queue may be without a record of its end before it counts as"
            " lost; file systems lag",
            unit="s",
        ),
    )
    command_timeout_s: float = field(
        default=120.0,
        validator=validators.gt(0),
        metadata=describe("How long one call on the host may take", unit="s"),
    )
    submit_deadline_s: float = field(
        default=300.0,
        validator=validators.gt(0),
        metadata=describe(
            "How long to try to learn what became of a submission before it is called uncertain",
            unit="s",
        ),
    )
    transfer_timeout_s: float = field(
        default=3600.0,
        validator=validators.gt(0),
        metadata=describe("How long staging or fetching one call's files may take", unit="s"),
    )
    output_max_bytes: int | None = field(
        default=None,
        validator=validators.optional(validators.gt(0)),
        metadata=describe("What one job may bring back", unit="bytes"),
    )
    output_max_files: int | None = field(
        default=None,
        validator=validators.optional(validators.gt(0)),
        metadata=describe("How many files one job may bring back"),
    )
    output_max_s: float | None = field(
        default=None,
        validator=validators.optional(validators.gt(0)),
        metadata=describe("How long fetching one job's files may take", unit="s"),
    )
    tail_bytes: int = field(
        default=64 * 1024,
        validator=validators.gt(0),
        metadata=describe("How much of each stream diagnostics show", unit="bytes"),
    )
