"""The stream of a fetch, without a host: cut anywhere, forged, mixed up."""

from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercede.backend.batch._fetching import Fetched, Fetching, job_outputs, missing_members
from intercede.core import (
    FailureCode,
    JobOutput,
    OutputSpec,
    ResourceError,
    SubmissionSpec,
    to_json,
)
from intercede.toolkit import TAR_END, Limits, TarKind, TarReader, tar_header, tar_padding

NONCE = "0123456789abcdef"
JOBS = frozenset({"s/0", "s/1"})
WORD = f"\n{NONCE} ".encode()
SPEC = SubmissionSpec("true", resident=True, outputs=OutputSpec(["a", "b"]))


def preface(*lines: str) -> bytes:
    return WORD + b"say\n" + "".join(f"{line}\n" for line in lines).encode()


def file(name: str, content: bytes) -> bytes:
    return tar_header(name, len(content), mode=0o600) + content + tar_padding(len(content))


def end_of(job: str) -> bytes:
    return tar_header(job, 0, mode=0o700, kind=TarKind.DIRECTORY)


def archive(*members: bytes) -> bytes:
    return WORD + b"tar\n" + b"".join(members) + TAR_END + bytes(10240)


def finish(words: str = "code 0", *others: str) -> bytes:
    told = "".join(f"{line}\n" for line in others).encode()
    return WORD + b"others\n" + told + WORD + b"tar-ended\n" + words.encode() + WORD + b"ended\n"


READY = preface(f"meta s {to_json(SPEC)}")
STREAM = (
    b"Welcome to login1\n"
    + READY
    + archive(
        file("s/0/stdout", b"out"),
        file("s/0/work/a", b"1" * 700),
        end_of("s/0"),
        file("s/1/work/b", b"2"),
        end_of("s/1"),
    )
    + finish()
)


def receive(stream: bytes, dest: Path, size: int = 10**6) -> Fetched:
    fetching = Fetching(NONCE, dest, JOBS, Limits(), TarReader())
    for start in range(0, len(stream), size):
        fetching.feed(stream[start : start + size])
    fetched = fetching.finish()
    assert fetching.finish() == evolve(fetched, news={})
    return fetched


def outputs_of(stream: bytes, dest: Path, size: int = 10**6) -> dict[str, JobOutput]:
    return job_outputs(receive(stream, dest, size).news, dest)


def debris(dest: Path) -> list[Path]:
    return list(dest.glob(".intercede-*")) if dest.exists() else []


@pytest.mark.parametrize("size", [1, 7, 512, 10**6])
def test_a_whole_stream_brings_every_job_however_it_is_cut_into_chunks(
    tmp_path: Path, size: int
) -> None:
    outputs = outputs_of(STREAM, tmp_path, size)
    assert set(outputs) == {"s/0", "s/1"}
    assert outputs["s/0"].failure is outputs["s/1"].failure is None
    assert outputs["s/0"].stdout is not None
    assert outputs["s/0"].stdout.read_bytes() == b"out"
    assert outputs["s/0"].files["a"].read_bytes() == b"1" * 700
    assert (outputs["s/0"].missing, outputs["s/1"].missing) == (("b",), ("a",))


def test_a_stream_cut_anywhere_gives_whole_jobs_or_none(tmp_path: Path) -> None:
    whole = outputs_of(STREAM, tmp_path / "whole")
    for cut in range(0, len(STREAM), 61):
        dest = tmp_path / str(cut)
        for job, output in outputs_of(STREAM[:cut], dest).items():
            if output.failure is None:
                assert set(output.files) == set(whole[job].files)
                assert (dest / job).is_dir()
            else:
                assert output.failure.code is FailureCode.NOT_NOW
                assert not (dest / job).exists()
        assert not debris(dest)


def test_a_stream_without_a_beginning_is_an_error_with_its_words(tmp_path: Path) -> None:
    fetched = receive(b"bash: eval: not found", tmp_path)
    with pytest.raises(ResourceError, match="not an answer") as caught:
        fetched.raise_for_no_answer()
    assert caught.value.said == "bash: eval: not found"
    assert "echo here" in caught.value.remedy


def test_a_stream_of_nothing_is_told_as_such(tmp_path: Path) -> None:
    fetched = receive(b"\n", tmp_path)
    with pytest.raises(ResourceError, match="ended the fetch before"):
        fetched.raise_for_no_answer()


NOT_ALL = tar_header("s/0/work", 0, mode=0o700, kind=TarKind.DIRECTORY)


@pytest.mark.parametrize(
    ("words", "others", "told"),
    [
        ("", "", "a file or a directory may not be opened"),
        ("", "unread find: 's/0/work/d': Permission denied", "work/d: Permission denied"),
        ("", "unread find: s/0/work/d: Permission denied", "work/d: Permission denied"),
        (
            "tar: s/0/work/f: Cannot open: No",
            "unread find: s/0/work/d: No",
            "work/f: Cannot open: No",
        ),
        ("", "unread s/0/work/d: it is closed", "work/d: it is closed"),
        ("", "unread xargs: s/1/work: no", "a file or a directory may not be opened"),
    ],
)
def test_a_job_of_which_not_all_can_be_read_fails_with_the_hosts_words(
    tmp_path: Path, words: str, others: str, told: str
) -> None:
    jobs = archive(file("s/0/work/a", b"1"), NOT_ALL, NOT_ALL, end_of("s/0"), end_of("s/1"))
    outputs = outputs_of(READY + jobs + finish(words, others), tmp_path)
    failure = outputs["s/0"].failure
    assert failure is not None
    assert failure.code is FailureCode.FAILED
    assert failure.message == f"not all could be read: {told}"
    assert outputs["s/0"].files["a"].read_bytes() == b"1"
    assert outputs["s/1"].failure is None


def test_that_not_all_can_be_read_is_known_before_the_stream_ends(tmp_path: Path) -> None:
    stream = READY + archive(file("s/0/work/a", b"1"), NOT_ALL, end_of("s/0"), end_of("s/1"))
    for cut in range(0, len(stream), 61):
        outputs = outputs_of(stream[:cut], tmp_path / str(cut))
        assert "s/0" not in outputs or outputs["s/0"].failure is not None
    outputs = outputs_of(stream, tmp_path)
    assert outputs["s/1"].failure is None
    assert outputs["s/0"].files.keys() == {"a"}


def test_what_is_not_ready_is_told_apart(tmp_path: Path) -> None:
    stream = READY + archive() + finish("code 0", "absent s/1", "unended s/0", "absent t/7")
    fetched = receive(stream, tmp_path)
    assert fetched.unended == {"s/0"}
    assert fetched.absent == {"s/1"}
    assert fetched.news == {}


def test_what_is_told_of_jobs_that_are_not_ready_is_believed_once_all_of_it_has_come(
    tmp_path: Path,
) -> None:
    """Of "absent s/10" the first bytes are about s/1."""
    start = READY + archive(end_of("s/0"))
    stream = start + finish("code 0", "absent s/10", "unended s/2")
    whole = {"s/10": FailureCode.NO_SUCH_JOB, "s/2": FailureCode.NOT_FINISHED}
    for cut in range(len(start), len(stream) + 1):
        fetching = Fetching(
            NONCE, tmp_path, frozenset({"s/0", "s/1", "s/10", "s/2"}), Limits(), TarReader()
        )
        fetching.feed(stream[:cut])
        fetched = fetching.finish()
        told = {
            **dict.fromkeys(fetched.absent, FailureCode.NO_SUCH_JOB),
            **dict.fromkeys(fetched.unended, FailureCode.NOT_FINISHED),
        }
        assert told in ({}, whole)
        assert told == whole or b"tar-ended\n" not in stream[:cut]
        assert {job for job, came in fetched.news.items() if came.failure} == (
            {"s/1", "s/10", "s/2"} - told.keys()
        )


def test_what_is_here_is_neither_absent_nor_unended(tmp_path: Path) -> None:
    stream = READY + archive(end_of("s/0"), end_of("s/1"))
    fetched = receive(stream + finish("code 0", "absent s/1", "unended s/0"), tmp_path)
    assert fetched.news.keys() == {"s/0", "s/1"}
    assert (fetched.unended, fetched.absent) == (frozenset(), frozenset())


def test_a_file_whose_name_is_such_a_line_makes_no_job_absent(tmp_path: Path) -> None:
    """`cat` says the name of what it cannot read as it is."""
    words = "cat: s/1/work/\nabsent s/0\n: Permission denied\ncode 0"
    fetched = receive(READY + archive(end_of("s/1")) + finish(words), tmp_path)
    assert fetched.absent == frozenset()
    failure = fetched.news["s/0"].failure
    assert failure is not None
    assert failure.code is FailureCode.NOT_NOW


def test_garbage_in_the_archive_fails_what_was_not_complete(tmp_path: Path) -> None:
    stream = READY + WORD + b"tar\n" + file("s/0/stdout", b"1") + end_of("s/0")
    first = Fetching(NONCE, tmp_path, JOBS, Limits(), TarReader())
    first.feed(stream)
    first.feed(b"x" * 2000 + finish())
    outputs = job_outputs(first.finish().news, tmp_path)
    assert outputs["s/0"].failure is None
    failure = outputs["s/1"].failure
    assert failure is not None
    assert "not readable" in failure.message
    assert not debris(tmp_path)


def test_jobs_that_were_not_announced_are_not_written(tmp_path: Path) -> None:
    members = [
        file("t/0/work/a", b"1"),
        end_of("t/0"),
        file("../evil", b"1"),
        file("/evil", b"1"),
        file("s/0/../../evil", b"1"),
        file("s/0/work/a", b"1"),
        end_of("s/0"),
        file("s/0/work/late", b"1"),
        end_of("s/1"),
    ]
    outputs = outputs_of(READY + archive(*members) + finish(), tmp_path)
    assert set(outputs) == {"s/0", "s/1"}
    assert sorted(outputs["s/0"].files) == ["a"]
    assert outputs["s/0"].failure is not None
    assert outputs["s/0"].failure.code is FailureCode.UNSAFE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_jobs_that_are_mixed_up_are_not_believed(tmp_path: Path) -> None:
    members = [file("s/0/work/a", b"1"), file("s/1/work/b", b"2"), end_of("s/0"), end_of("s/1")]
    outputs = outputs_of(READY + archive(*members) + finish(), tmp_path)
    failure = outputs["s/0"].failure
    assert failure is not None
    assert failure.code is FailureCode.NOT_NOW
    assert not debris(tmp_path)


def test_jobs_may_have_files_of_the_same_names(tmp_path: Path) -> None:
    members = [file("s/0/work/a", b"1"), end_of("s/0"), file("s/1/work/a", b"2"), end_of("s/1")]
    outputs = outputs_of(READY + archive(*members) + finish(), tmp_path)
    assert outputs["s/0"].files["a"].read_bytes() == b"1"
    assert outputs["s/1"].files["a"].read_bytes() == b"2"


def test_what_comes_of_a_job_that_is_complete_is_left_out(tmp_path: Path) -> None:
    members = [file("s/0/work/a", b"1"), end_of("s/0"), file("s/0/work/b", b"2"), end_of("s/0")]
    output = outputs_of(READY + archive(*members) + finish(), tmp_path)["s/0"]
    assert set(output.files) == {"a"}
    assert sorted(path.name for path in (tmp_path / "s/0/work").iterdir()) == ["a"]
    assert not debris(tmp_path)


def test_a_job_that_has_failed_stays_so_whatever_else_comes_of_it(tmp_path: Path) -> None:
    members = [file(f"s/0/work/{name}", bytes(10)) for name in "abc"]
    fetching = Fetching(NONCE, tmp_path, JOBS, Limits(max_bytes=19), TarReader())
    fetching.feed(READY + archive(*members, end_of("s/0")) + finish())
    failure = fetching.finish().news["s/0"].failure
    assert failure is not None
    assert failure.code is FailureCode.LIMIT
    assert not list(tmp_path.iterdir())


def test_what_tar_could_not_read_fails_that_job(tmp_path: Path) -> None:
    words = (
        "tar: s/1/work/a: Cannot open: Permission denied\ntar: Exiting with failure status\ncode 2"
    )
    members = [end_of("s/0"), end_of("s/1")]
    outputs = outputs_of(READY + archive(*members) + finish(words), tmp_path)
    assert outputs["s/0"].failure is None
    failure = outputs["s/1"].failure
    assert failure is not None
    assert "Permission denied" in failure.message


def test_a_specification_that_was_forged_does_not_keep_the_files_away(tmp_path: Path) -> None:
    stream = preface("meta s {not json") + archive(file("s/0/work/a", b"1"), end_of("s/0"))
    outputs = outputs_of(stream + finish(), tmp_path)
    assert sorted(outputs["s/0"].files) == ["a"]
    assert outputs["s/0"].missing == ()


def test_a_dest_that_cannot_be_written_fails_each_job_with_its_reason(tmp_path: Path) -> None:
    dest = tmp_path / "file"
    dest.write_text("")
    outputs = outputs_of(STREAM, dest)
    for output in outputs.values():
        assert output.failure is not None
        assert "cannot be written" in output.failure.message


def test_an_endless_preface_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intercede.backend.batch._fetching._PREFACE_MAX", 1000)
    fetching = Fetching(NONCE, tmp_path, JOBS, Limits(), TarReader())
    for _ in range(100):
        fetching.feed(b"x" * 100)
    assert len(fetching._before) <= 1100
    fetching.feed(b"x" * 2000 + b"the last words")
    with pytest.raises(ResourceError, match="not an answer") as caught:
        fetching.finish().raise_for_no_answer()
    assert caught.value.said.endswith("xthe last words")
    assert len(caught.value.said) <= 500


def test_what_follows_a_preface_that_was_given_up_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was declared may have been thrown away with it."""
    monkeypatch.setattr("intercede.backend.batch._fetching._PREFACE_MAX", 1000)
    outputs = outputs_of(b"x" * 2000 + STREAM, tmp_path, size=2000)
    assert {output.failure.code for output in outputs.values() if output.failure} == {
        FailureCode.NOT_NOW
    }
    assert outputs.keys() == JOBS
    assert not any(output.files for output in outputs.values())


@given(st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_stream_with_bytes_changed_never_raises_and_leaves_no_debris(
    tmp_path: Path, data: st.DataObject
) -> None:
    stream = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(stream) - 1))
        stream[position] = data.draw(st.integers(0, 255))
    size = data.draw(st.sampled_from([100, 10**6]))
    for output in outputs_of(bytes(stream), tmp_path, size).values():
        assert isinstance(output, JobOutput)
    assert not debris(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "name", "matched"),
    [
        ("a", "a", True),
        ("*", "a", True),
        ("*", ".a", False),
        (".*", ".a", True),
        ("*", "d/a", False),
        ("*/a", "d/a", True),
        ("d/", "d/a", True),
        ("d/", "d/e/a", True),
        ("d/", "d", True),
        ("d/", "e/a", False),
        ("d?/", "d1/a", True),
        ("[!a]", "b", True),
        ("[!a]", "a", False),
        ("??", "é", True),
        ("?", "é", False),
        ("*", "\udcff", True),
        ("d/a", "d/a", True),
        ("d/a", "a", False),
        ("a\\b", "a\\b", True),
    ],
)
def test_what_is_missing_is_told_as_the_host_matches(
    pattern: str, name: str, matched: bool
) -> None:
    spec = SubmissionSpec("true", resident=True, outputs=OutputSpec([pattern]))
    assert missing_members(spec, {name}) == (() if matched else (pattern,))
    everything = SubmissionSpec(
        "true", resident=True, outputs=OutputSpec([pattern], everything=True)
    )
    assert missing_members(everything, set()) == ()
