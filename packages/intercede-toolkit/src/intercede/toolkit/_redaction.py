"""Texts without secrets in them.

The first line of defence is not to put a secret into a text; this is the second, for a daemon's own words, a command's output, and logs.
It finds a secret as it is, and as the encodings that carry it on the way would write it. JSON web tokens, private keys in PEM and what
follows `Authorization:` or `Bearer` are found without being known.

The time it takes grows with the length of the text and no faster, whatever the text is.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import quote, quote_plus

__all__ = ["RedactingFilter", "redact"]

_MARK: Final = "[secret]"
#: A shorter secret is found only where it stands as a word of its own: inside of others it occurs by chance.
_SHORT: Final = 4
#: Of a secret of several lines, each line at least this long is looked for by itself.
_LINE_MIN: Final = 16

#: A word as a JSON web token is one, whole: what "eyJ" begins in it (the base64 of '{"') is told afterwards, since a pattern that
#: looked for it would look at a long word again and again.
_DOTTED_WORD: Final = re.compile(r"[\w.-]+", re.ASCII)
#: Each finds the secret as its group 1.
_PATTERNS: Final = (
    re.compile(
        r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
        r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z))",
        re.DOTALL,
    ),
    re.compile(
        r"""\bauthorization\b\W{1,8}\b(?:b['"])?(?:bearer|basic|token|negotiate)\s{1,8}([^\s"'\\]+)""",
        re.IGNORECASE,
    ),
    re.compile(r"""\bauthorization\b\W{1,8}\b([^\s"'\\]{16,})""", re.IGNORECASE),
    re.compile(r"\bbearer\s{1,8}([\w.~+/-]{16,}=*)", re.IGNORECASE | re.ASCII),
)
#: What a log record has besides what its writer gave it.
_RECORD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

_Span = tuple[int, int]


def redact(text: str, secrets: Iterable[str | bytes] = ()) -> str:
    """The text with `[secret]` in place of every secret.

    A secret is found as it is and in base64, quoted for a URL, for a shell, in Python or in JSON. Blanks around it do not belong to it.
    One of fewer than 4 characters is found only as it is, and only as a word of its own.

    Args:
        text: For people.
        secrets: What must not be in it, besides what is recognised anyway.

    Raises:
        TypeError: `secrets` is one string.
    """
    return _Needles(secrets).redact(text)


class RedactingFilter(logging.Filter):
    """Redacts log records: the message with its arguments, the traceback, and texts given as `extra`.

    A record that has passed has no arguments and no exception any more, only their text: handlers that come later see no more than the
    first. Add it to a handler, so that records of all loggers pass it; a logger's own filters do not see its children's.

    Args:
        secrets: As for `redact`.

    Raises:
        TypeError: `secrets` is one string.
    """

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        super().__init__()
        self._needles = _Needles(secrets)

    def add(self, *secrets: str | bytes) -> None:
        """More secrets, from now on, such as a token that was renewed."""
        self._needles = _Needles(secrets, self._needles)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record, and let it pass."""
        redact = self._needles.redact
        record.msg = redact(_message(record))
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in record.__dict__.items():
            if name not in _RECORD_FIELDS:
                record.__dict__[name] = _redact_value(value, redact)
        return True


class _Needles:
    """Secrets in all the forms to look for."""

    def __init__(self, secrets: Iterable[str | bytes], earlier: _Needles | None = None) -> None:
        if isinstance(secrets, (str, bytes)):
            raise TypeError("secrets must be a sequence, not one string: write [secret]")
        self._forms: frozenset[str] = earlier._forms if earlier else frozenset()
        self._words: frozenset[str] = earlier._words if earlier else frozenset()
        stripped = {_stripped(secret) for secret in secrets} - {b""}
        self._forms |= {
            form for secret in stripped if len(secret) >= _SHORT for form in _forms(secret)
        }
        self._words |= {
            word for secret in stripped if len(secret) < _SHORT for word in _readings(secret)
        }

    def redact(self, text: str) -> str:
        pieces: list[str] = []
        position = 0
        for start, end in _merged(self._spans(text)):
            pieces += text[position:start], _MARK
            position = end
        return "".join((*pieces, text[position:]))

    def _spans(self, text: str) -> Iterator[_Span]:
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                yield start, start + len(form)
                start = text.find(form, start + 1)
        for word in self._words:
            for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text):
                yield match.span()
        for pattern in _PATTERNS:
            for match in pattern.finditer(text):
                yield match.span(1)
        if "eyJ" in text:
            yield from _json_web_tokens(text)


def _json_web_tokens(text: str) -> Iterator[_Span]:
    for word in _DOTTED_WORD.finditer(text):
        start = word.group().find("eyJ")
        if start >= 0 and "." in word.group()[start:].rstrip("."):
            yield word.start() + start, word.end()


def _merged(spans: Iterable[_Span]) -> Iterator[_Span]:
    """In order, those that overlap as one."""
    begin = end = 0
    for start, stop in sorted(spans):
        if start >= end:
            if end > begin:
                yield begin, end
            begin = start
        end = max(end, stop)
    if end > begin:
        yield begin, end


def _stripped(secret: str | bytes) -> bytes:
    if isinstance(secret, bytes):
        return secret.strip()
    try:
        return secret.encode("utf-8", "surrogateescape").strip()
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return secret.encode("utf-8", "surrogatepass").strip()


def _readings(secret: bytes) -> set[str]:
    """The secret as text, in every way that a reader of bytes may have made one of it, and its lines."""
    readings = set()
    for errors in ("surrogateescape", "replace", "surrogatepass"):
        with suppress(UnicodeDecodeError):
            readings.add(secret.decode("utf-8", errors))
    for reading in tuple(readings):
        lines = (line.strip() for line in reading.splitlines())
        readings.update(
            line for line in lines if len(line) >= _LINE_MIN and not line.startswith("-----")
        )
    return readings


def _forms(secret: bytes) -> set[str]:
    """How a secret may be written."""
    forms = {repr(secret)[2:-1], *_in_base64(secret)}
    for quoted in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        forms |= {quoted, re.sub("%..", lambda escape: escape.group().lower(), quoted)}
    for reading in _readings(secret):
        forms |= {
            reading,
            reading.replace("'", "'\\''"),
            reading.replace("'", "'\"'\"'"),
            repr(reading)[1:-1],
            json.dumps(reading)[1:-1],
            json.dumps(reading, ensure_ascii=False)[1:-1],
        }
    return forms


def _in_base64(secret: bytes) -> set[str]:
    """The letters that it alone decides, at each of the three places where it may begin in something longer ("user:secret")."""
    forms = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret).decode().rstrip("=")
        partial = 1 if (before + len(secret)) % 3 else 0
        forms.add(encoded[(0, 2, 3)[before] : len(encoded) - partial])
    forms.add(base64.b64encode(secret).decode())
    return {form.translate(table) for form in forms for table in ({}, str.maketrans("+/", "-_"))}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (
        Exception
    ):  # arguments that do not fit: said as they are, since raising here would lose the record
        return f"{record.msg!r} % {record.args!r}"


def _redact_value(value: object, redact: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, (bytes, dict, list, tuple, set, frozenset)):
        shown = repr(value)
        redacted = redact(shown)
        return value if redacted == shown else redacted
    return value
