"""Job ids: what is one, and that nothing else is (T2)."""

import re
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from intercede.core import NativeJob
from intercede.toolkit import JobParts, new_submission, parse_id, submission_time

#: Other work on the machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ALPHABET = "abcXYZ019._:@+-"
part_texts = st.text(ALPHABET, min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..") and not text.startswith("-")
)
job_parts = st.builds(
    JobParts,
    part_texts,
    part_texts,
    st.integers(0, 999_999_999),
    st.none() | part_texts,
)


@unhurried
@given(job_parts)
def test_an_id_gives_back_the_parts_it_was_made_of(parts: JobParts) -> None:
    assert parse_id(parts.encode()) == parts


@unhurried
@given(st.text() | st.text(ALPHABET + "/\n ;$`'\"\0٣é").map(lambda text: f"a/b/0{text}"))
@example("a/b/0\n")
@example("a/b/٣")
def test_a_text_is_an_id_of_safe_characters_or_no_id(text: str) -> None:
    try:
        parts = parse_id(text)
    except ValueError:
        return
    assert parts.encode() == text
    assert len(text) <= 255
    for part in text.split("/"):
        assert re.fullmatch(r"[A-Za-z0-9._:@+-]+", part, re.ASCII)
        assert part not in (".", "..")
        assert not part.startswith("-")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "not NoneType"),
        (b"a/b/0", "not bytes"),
        (7, "not int"),
        (["a/b/0"], "not list"),
        ("", "empty"),
        ("a", "not 1"),
        ("a/b", "not 2"),
        ("a/b/0/n/x", "not 5"),
        ("/a/b/0", "resource is empty"),
        ("a//0", "submission is empty"),
        ("a/b/", "copy is empty"),
        ("a/b/0/", "native id is empty"),
        ("../b/0", "itself or its parent"),
        ("a/../0", "itself or its parent"),
        ("a/b/0/.", "itself or its parent"),
        ("a/-rf/0", "as an option does"),
        ("a/b/-1", "as an option does"),
        ("a/b/00", "not a number"),
        ("a/b/01", "not a number"),
        ("a/b/+1", "not a number"),
        ("a/b/1e3", "not a number"),
        ("a/b/1000000000", "not a number"),
        ("a/b/0/1;id", "characters other than"),
        ("a/b/0/$(id)", "characters other than"),
        ("a/b/0\n", "characters other than"),
        ("a\n/b/0", "characters other than"),
        ("a/b/0/\0", "characters other than"),
        ("a/b/٣", "characters other than"),
        ("a/b/0/é", "characters other than"),
        ("a b/c/0", "characters other than"),
        ("a/b/0/" + "n" * 250, "at most 255"),
        ("/" * 10_000_000, "at most 255"),
    ],
)
def test_what_is_not_an_id_is_refused_with_a_short_reason_that_does_not_repeat_it(
    text: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        parse_id(text)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize(
    "parts",
    [
        JobParts("", "b", 0),
        JobParts("a/b", "c", 0),
        JobParts("a", "..", 0),
        JobParts("a", "b", -1),
        JobParts("a", "b", 10**9),
        JobParts("a", "b", 0, ""),
        JobParts("a", "b", 0, "-n"),
        JobParts("a" * 200, "b" * 53, 0),
    ],
)
def test_parts_that_cannot_stand_in_an_id_make_none(parts: JobParts) -> None:
    with pytest.raises(ValueError, match=r"."):
        parts.encode()


def test_the_longest_id_has_255_characters() -> None:
    assert len(JobParts("a" * 100, "b" * 152, 0).encode()) == 255


def test_submissions_are_names_that_fit_anywhere_and_are_never_the_same() -> None:
    names = [new_submission() for _ in range(1000)]

    assert len(set(names)) == 1000
    for name in names:
        assert re.fullmatch(r"[0-9a-z]{26}", name)
        assert parse_id(JobParts("here", name, 0).encode()).submission == name


def test_submissions_sort_by_the_time_of_their_making(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0, 10**9, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 10**6, 4 * 10**18]
    names = []
    for moment in moments:
        monkeypatch.setattr(time, "time_ns", partial(int, moment))
        names.append(new_submission())

    assert names == sorted(names)


def test_the_random_part_of_a_submission_has_80_bits_that_all_vary() -> None:
    tails = [new_submission()[10:] for _ in range(500)]

    assert all(len({tail[place] for tail in tails}) > 16 for place in range(16))


def test_a_submission_tells_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.now(UTC)
    made = submission_time(new_submission())
    assert before - timedelta(milliseconds=1) <= made <= datetime.now(UTC)

    monkeypatch.setattr(time, "time_ns", partial(int, 1_700_000_000_123_456_789))
    made = submission_time(new_submission())
    assert made == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


def test_an_id_with_a_native_id_tells_of_the_job_as_its_scheduler_knows_it() -> None:
    submission = new_submission()
    parts = JobParts("ce", submission, 3, "77_3")
    assert parts.native_job == NativeJob("77_3", 3, submission, submission_time(submission))
    assert parts.native_job is parts.native_job
    assert parts == JobParts("ce", submission, 3, "77_3")


def test_an_id_without_a_native_id_or_of_no_submission_tells_of_no_such_job() -> None:
    with pytest.raises(ValueError, match="no native id"):
        _ = JobParts("ce", new_submission(), 3).native_job
    with pytest.raises(ValueError, match="not a submission"):
        _ = JobParts("ce", "x", 3, "77_3").native_job


@pytest.mark.parametrize(
    "text", ["", "0" * 25, "0" * 27, "l" * 26, "A" * 26, "0" * 26 + "\n", "z" * 26]
)
def test_what_is_no_submission_tells_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="not a submission"):
        submission_time(text)
