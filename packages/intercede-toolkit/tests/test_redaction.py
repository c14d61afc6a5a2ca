"""Texts and log records without secrets in them."""

import base64
import json
import logging
import re
import shlex
import time
import urllib.parse

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from intercede.toolkit import RedactingFilter, redact

#: Other work on the machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JWT = "eyJhbGciOiJub25lIn0.eyJleHAiOjF9.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nx/y+z==\n-----END RSA PRIVATE KEY-----"

#: Nothing that is in "[secret]" itself, so that what is found afterwards is not the mark.
harmless = st.characters(
    codec="utf-8", blacklist_characters="[secret]" + "".join(map(chr, range(32)))
)
secret_texts = st.text(harmless, min_size=4, max_size=40).filter(lambda text: text.strip() == text)


@unhurried
@given(st.text(harmless), secret_texts, st.text(harmless))
@example("'", "it's a \\ sécret%/+", '"')
def test_a_secret_is_found_in_every_form_it_takes_on_its_way(
    before: str, secret: str, after: str
) -> None:
    raw = secret.encode()
    for form in (
        secret,
        shlex.quote(secret),
        "'" + secret.replace("'", "'\\''") + "'",
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
        re.sub("%..", lambda match: match.group().lower(), urllib.parse.quote_plus(secret)),
        urllib.parse.urlencode({"q": secret}),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        repr(secret),
        repr(raw),
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
    ):
        redacted = redact(f"{before}{form}{after}", [secret])
        assert "[secret]" in redacted
        assert form.strip("'\"") not in redacted
        assert redact(f"{before}{form}{after}", [raw]) == redacted


@unhurried
@given(st.binary(max_size=20), st.text(harmless, min_size=6, max_size=40), st.binary(max_size=20))
def test_a_secret_within_something_longer_in_base64_is_found(
    before: bytes, secret: str, after: bytes
) -> None:
    assume(len(secret.strip()) >= 6)
    whole = base64.b64encode(before + secret.encode() + after).decode()

    assert "[secret]" in redact(whole, [secret])


@unhurried
@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_with_any_secrets_gives_a_text(text: str, secrets: list[str]) -> None:
    redacted = redact(text, secrets)

    assert isinstance(redacted, str)
    for secret in secrets:
        if len(secret.strip().encode("utf-8", "replace")) >= 4 and not set(secret) & set(
            "[secret]"
        ):
            assert secret.strip() not in redacted


@unhurried
@given(st.text(harmless), st.binary(min_size=4))
def test_a_secret_of_any_bytes_is_found_as_a_reader_would_decode_it(text: str, raw: bytes) -> None:
    assume(len(raw.strip()) >= 4)
    for errors in ("surrogateescape", "replace"):
        assert "[secret]" in redact(text + raw.decode("utf-8", errors) + text, [raw])


def test_what_is_no_secret_stays_as_it_is() -> None:
    text = (
        "sbatch: error: Batch job submission failed: Invalid account; see slurm.example.org/a.b.c"
    )

    assert redact(text, ["hunter22"]) == text
    assert redact("", ["hunter22"]) == ""


def test_secrets_that_overlap_leave_nothing_of_either() -> None:
    assert redact("xabcdefx", ["abcd", "cdef"]) == "x[secret]x"
    assert redact("xabcdabcdx", ["abcdabcd", "abcd"]) == "x[secret]x"
    assert redact("aaaaaa", ["aaaa"]) == "[secret]"


def test_a_secret_that_is_in_the_mark_does_not_spoil_the_mark() -> None:
    assert redact("secret and hunter22", ["secret", "hunter22"]) == "[secret] and [secret]"


@pytest.mark.parametrize(
    ("text", "secret", "expected"),
    [
        ("pin=123, 1234 0123", "123", "pin=[secret], 1234 0123"),
        ("a cat", "a", "[secret] cat"),
        ("a cat", "", "a cat"),
        ("a    cat", "    ", "a    cat"),
        ("YWFh", "aaa", "YWFh"),
        ("key é key", "é", "key [secret] key"),
    ],
)
def test_a_short_secret_is_found_only_as_a_word_of_its_own(
    text: str, secret: str, expected: str
) -> None:
    assert redact(text, [secret]) == expected


def test_blanks_around_a_secret_do_not_hide_it() -> None:
    assert redact("with hunter22.", ["hunter22\n"]) == "with [secret]."
    assert redact("with hunter22.", [b"  hunter22\r\n"]) == "with [secret]."


def test_a_secret_that_no_encoding_can_carry_is_found_as_it_is() -> None:
    assert redact("with hunter\ud800.", ["hunter\ud800"]) == "with [secret]."


def test_each_long_line_of_a_secret_is_one() -> None:
    secret = "-----BEGIN OPAQUE-----\nabcdefghijklmnopqrst\nshort\n-----END OPAQUE-----\n"

    assert redact("line 2: abcdefghijklmnopqrst", [secret]) == "line 2: [secret]"
    assert redact("-----BEGIN OPAQUE----- short", [secret]) == "-----BEGIN OPAQUE----- short"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {JWT}.", "token [secret]"),
        (f"'\\n{JWT}'", "'\\n[secret]'"),
        (f"x.y.{JWT} z", "x.y.[secret] z"),
        (f"{JWT} {JWT}", "[secret] [secret]"),
        ("eyJ and eyJhbGci. no", "eyJ and eyJhbGci. no"),
        (f"key:\n{PEM}\nend", "key:\n[secret]\nend"),
        (f"{PEM} {PEM}", "[secret] [secret]"),
        (repr(PEM), "'[secret]'"),
        (PEM[:60], "[secret]"),
        (PEM.replace("RSA ", ""), "[secret]"),
        ("-----BEGIN CERTIFICATE-----\nAA==", "-----BEGIN CERTIFICATE-----\nAA=="),
        ("Authorization: Bearer x", "Authorization: Bearer [secret]"),
        ("authorization:bearer abc/d+e==", "authorization:bearer [secret]"),
        ("Authorization: Basic dTpw\r\nHost: h", "Authorization: Basic [secret]\r\nHost: h"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': 'Bearer [secret]'}"),
        ("(b'Authorization', b'Bearer abc')", "(b'Authorization', b'Bearer [secret]')"),
        ('{"authorization": "Bearer abc"}', '{"authorization": "Bearer [secret]"}'),
        ("Authorization: 0123456789abcdef", "Authorization: [secret]"),
        ("sent Bearer 0123456789abcdef==", "sent Bearer [secret]"),
        ("the bearer of bad news", "the bearer of bad news"),
        ("authorization: denied", "authorization: denied"),
    ],
)
def test_what_looks_like_a_secret_is_one_without_being_known(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "piece",
    [
        "eyJ",
        "eyJ.",
        "a.",
        "-",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "authorization ",
        "authorization: bearer ",
        "bearer ",
        "bearer a.",
        " ",
        "\\",
    ],
)
def test_no_text_takes_longer_than_its_length(piece: str) -> None:
    def takes(size: int) -> float:
        text = (piece * size)[:size]
        started = time.process_time()
        redact(text, ["hunter22"])
        return time.process_time() - started

    assert takes(1_000_000) < 5  # a quadratic search takes minutes


@pytest.mark.parametrize("secrets", ["hunter22", b"hunter22"])
def test_one_string_in_place_of_a_sequence_is_refused(secrets: str) -> None:
    with pytest.raises(TypeError, match="not one string"):
        redact("text", secrets)


# ------------------------------------------------------------ logging


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def text(self) -> str:
        return "\n".join(map(self.format, self.records))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def logger(kept: Kept) -> logging.Logger:
    logger = logging.Logger("hunter22.example")
    logger.addHandler(kept)
    return logger


def everything(record: logging.LogRecord) -> str:
    fields = dict(record.__dict__)
    del fields["name"]
    return repr(fields)


def test_a_record_is_redacted_with_its_arguments(logger: logging.Logger, kept: Kept) -> None:
    kept.addFilter(RedactingFilter(["hunter22"]))

    logger.error("login with %s as %r: %(x", "hunter22", {"password": "hunter22"})
    logger.warning("100% of hunter22")
    logger.warning("%(who)s has hunter22", {"who": "hunter22"})
    logger.info(f"token {JWT}")

    assert kept.text.splitlines() == [
        "hunter22.example ERROR 'login with %s as %r: %(x' % ('[secret]', {'password': '[secret]'})",
        "hunter22.example WARNING 100% of [secret]",
        "hunter22.example WARNING [secret] has [secret]",
        "hunter22.example INFO token [secret]",
    ]
    for record in kept.records:
        assert "hunter22" not in everything(record)


def test_a_message_that_fits_its_arguments_keeps_its_wording(
    logger: logging.Logger, kept: Kept
) -> None:
    kept.addFilter(RedactingFilter(["hunter22"]))

    logger.error("%d jobs, 100%% with %s", 3, b"hunter22")

    assert kept.text == "hunter22.example ERROR 3 jobs, 100% with b'[secret]'"


def test_a_traceback_is_redacted(logger: logging.Logger, kept: Kept) -> None:
    kept.addFilter(RedactingFilter(["hunter22"]))

    try:
        raise ValueError("hunter22")
    except ValueError:
        logger.exception("failed", stack_info=True)
        logger.handle(
            logging.makeLogRecord(
                {
                    "msg": "formatted before",
                    "levelno": logging.ERROR,
                    "exc_info": (None, None, None),
                    "exc_text": "hunter22",
                }
            )
        )

    assert "ValueError: [secret]" in kept.text
    assert "Stack (most recent call last)" in kept.text
    for record in kept.records:
        assert record.exc_info is None
        assert "hunter22" not in everything(record)


def test_what_was_given_as_extra_is_redacted(logger: logging.Logger, kept: Kept) -> None:
    kept.addFilter(RedactingFilter(["hunter22"]))

    extra = {
        "url": "https://u:hunter22@h/",
        "headers": {"Password": "hunter22"},
        "raw": b"hunter22",
        "jobs": ["a", "b"],
        "count": 3,
        "nothing": None,
    }
    logger.error("sent", extra=extra)

    found = {name: kept.records[0].__dict__[name] for name in extra}
    assert found == {
        "url": "https://u:[secret]@h/",
        "headers": "{'Password': '[secret]'}",
        "raw": "b'[secret]'",
        "jobs": ["a", "b"],
        "count": 3,
        "nothing": None,
    }


def test_a_renewed_secret_is_redacted_beside_the_older_one(
    logger: logging.Logger, kept: Kept
) -> None:
    redacting = RedactingFilter(["hunter22"])
    kept.addFilter(redacting)

    redacting.add("correct horse", b"abc")
    logger.error("hunter22, correct%20horse, abc, abcd")

    assert kept.records[0].getMessage() == "[secret], [secret], [secret], abcd"


def test_a_filter_that_was_given_one_string_is_refused() -> None:
    with pytest.raises(TypeError, match="not one string"):
        RedactingFilter("hunter22")
