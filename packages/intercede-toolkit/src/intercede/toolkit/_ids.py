"""What a job id says, and whether it is one.

An id has been in somebody's database: it is parsed in full, here, before any part of it reaches a command or a path (T2). What passes
is safe as a word of a shell script, as a file name and as an argument; whether such a job exists is for the resource to say.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Final

from attrs import frozen

from intercede.core import JobID, NativeJob

__all__ = ["JobParts", "new_submission", "parse_id", "submission_time"]

_ID_MAX: Final = 255
#: No "/", no blank, nothing that a shell, a glob or a scheduler's query language would read as its own.
_PART: Final = re.compile(r"[A-Za-z0-9._:@+-]+")
#: One spelling per number, so that two different ids never mean one job.
_COPY: Final = re.compile(r"0|[1-9][0-9]{0,8}")
#: A part that cannot be mistaken for an option, or for a directory's name for itself.
_PLAIN_PART: Final = r"[A-Za-z0-9_:@+][A-Za-z0-9._:@+-]*"
#: A whole id of such parts. (Of thousands of ids most are, and this is soon seen.)
_PLAIN: Final = re.compile(
    f"({_PLAIN_PART})/({_PLAIN_PART})/({_COPY.pattern})(?:/({_PLAIN_PART}))?"
)
#: Crockford's base 32 in lower case: in the order of ASCII, without letters that look alike.
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_DIGITS: Final = 10
_RANDOM_DIGITS: Final = 16


@frozen(cache_hash=True)
class JobParts:
    """The parts of a job id.

    Attributes:
        resource: The configuration's name for the resource.
        submission: What `new_submission` made; also the sandbox's directory.
        copy: 0, 1, 2, ...
        native: The scheduler's own id; None where it is not known or not needed.
    """

    resource: str
    submission: str
    copy: int
    native: str | None = None

    @cached_property
    def native_job(self) -> NativeJob:
        """The job as its scheduler knows it.

        Raises:
            ValueError: There is no native id, or `new_submission` made no such submission.
        """
        if self.native is None:
            raise ValueError("the job id has no native id")
        submitted_at = submission_time(self.submission)
        return NativeJob(self.native, self.copy, self.submission, submitted_at)

    def encode(self) -> JobID:
        """The id, `<resource>/<submission>/<copy>[/<native>]`; `parse_id` gives these parts back.

        Raises:
            ValueError: A part cannot stand in an id, or all of it is too long.
        """
        parts = [self.resource, self.submission, str(self.copy)]
        if self.native is not None:
            parts.append(self.native)
        text = "/".join(parts)
        _check_length(text)
        # A part with a slash would make another id of it.
        if text.count("/") != len(parts) - 1 or not _PLAIN.fullmatch(text):
            _check(parts, text)
        return JobID(text)


def parse_id(text: object) -> JobParts:
    """The parts of an id that came from outside.

    Args:
        text: Anything at all.

    Raises:
        ValueError: It is not a job id; says why in a few words, without repeating it.
    """
    if not isinstance(text, str):
        raise ValueError(f"a job id is a string, not {type(text).__name__}")
    # Before anything else, so that a huge text costs nothing.
    _check_length(text)
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return JobParts(plain[1], plain[2], int(plain[3]), plain[4])
    parts = text.split("/")
    if len(parts) not in (3, 4):
        raise ValueError(f"a job id has 3 or 4 parts, not {len(parts)}")
    _check(parts, text)
    return JobParts(parts[0], parts[1], int(parts[2]), parts[3] if len(parts) == 4 else None)


def _check_length(text: str) -> None:
    if not text:
        raise ValueError("the job id is empty")
    if len(text) > _ID_MAX:
        raise ValueError(f"a job id has at most {_ID_MAX} characters, not {len(text)}")


def _check(parts: list[str], text: str) -> None:
    _check_length(text)
    for name, part in zip(("resource", "submission", "copy", "native id"), parts, strict=False):
        if not part:
            raise ValueError(f"the {name} is empty")
        if not _PART.fullmatch(part):
            raise ValueError(f"the {name} has characters other than A-Z a-z 0-9 . _ : @ + -")
        if part in (".", ".."):
            raise ValueError(f"the {name} is a directory's name for itself or its parent")
        if part.startswith("-"):
            raise ValueError(f'the {name} begins with "-", as an option does')
    if not _COPY.fullmatch(parts[2]):
        raise ValueError("the copy is not a number of at most 9 digits without leading zeros")


def new_submission() -> str:
    """A new submission id: 26 lower-case letters and digits that sort by the time of their making.

    48 bits of time in milliseconds, then 80 random bits: no two are alike, whoever makes them, and none can be guessed from another.
    """
    moment = time.time_ns() // 1_000_000 & (1 << 48) - 1
    return _base32(moment, _TIME_DIGITS) + _base32(
        secrets.randbits(5 * _RANDOM_DIGITS), _RANDOM_DIGITS
    )


def _base32(number: int, digits: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(digits)))


_SUBMISSION: Final = re.compile(f"[{_DIGITS}]{{{_TIME_DIGITS + _RANDOM_DIGITS}}}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1024)  # asked for each of a submission's jobs
def submission_time(submission: str) -> datetime:
    """When `new_submission` made this id, UTC, to the millisecond.

    Raises:
        ValueError: It made no such id.
    """
    if not _SUBMISSION.fullmatch(submission):
        raise ValueError("not a submission's id")
    moment = 0
    for digit in submission[:_TIME_DIGITS]:
        moment = moment << 5 | _DIGITS.index(digit)
    try:
        return _EPOCH + timedelta(milliseconds=moment)
    except OverflowError:
        raise ValueError("not a submission's id") from None
