"""Which job ids can be a resource's own. No I/O."""

from __future__ import annotations

import re

from intercede.core import JobID
from intercede.toolkit import JobParts, parse_id, submission_time

__all__ = ["is_submission", "read_id"]


def read_id(name: str, native_id: re.Pattern[str], job: JobID) -> JobParts | str:
    """The parts of an id, or why it cannot be this resource's (T2).

    Args:
        name: The resource's.
        native_id: What its scheduler's ids look like.
        job: The id, from outside.
    """
    try:
        parts = parse_id(job)
    except ValueError as error:
        return f"not a job id: {error}"
    if parts.resource != name:
        return f"it belongs to the resource {parts.resource!r}, not to {name!r}"
    if not is_submission(parts.submission):
        return "not a job id: no such submission can have been made"
    if parts.native is not None and not native_id.fullmatch(parts.native):
        return "not a job id: no such native id can have been given"
    return parts


def is_submission(text: str) -> bool:
    """Whether `new_submission` can have made it."""
    try:
        submission_time(text)
    except ValueError:
        return False
    return True
