"""Data types that cannot be built wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import (
    BulkResult,
    Command,
    CommandResult,
    CopyVars,
    Diagnostics,
    DryRun,
    Failure,
    FailureCode,
    FileRef,
    JobCounts,
    JobDetails,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    NativeJob,
    OpOutcome,
    OutputMember,
    OutputSpec,
    PartialFailure,
    Resources,
    SpecRefused,
    StagedBatch,
    Submission,
    SubmissionSpec,
    distinct_ids,
    expand_copies,
)

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
REFUSED = Failure(FailureCode.REFUSED, "no")
SPEC = SubmissionSpec("x")


def job(copy: Any = 0, submission: Any = "s", **more: Any) -> JobHandle:
    fields: dict[str, Any] = {
        "id": f"r/{submission}/{copy}",
        "backend": "b",
        "resource": "r",
        "submission": submission,
        "copy": copy,
        "submitted_at": NOW,
    }
    return JobHandle(**{**fields, **more})


def spec(**fields: Any) -> SubmissionSpec:
    return SubmissionSpec(**{"executable": "x", **fields})


Maker = Callable[..., Any]


def of(kind: Callable[..., Any], *values: Any, **fields: Any) -> Maker:
    """Making one of the kind, out of what the type checker would not let through."""
    return lambda: kind(*values, **fields)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("executable", lambda: SubmissionSpec("")),
        ("executable", lambda: SubmissionSpec("bin/")),
        ("executable", lambda: SubmissionSpec("..")),
        ("executable", lambda: SubmissionSpec("/a/.")),
        ("executable", lambda: SubmissionSpec("a\0b")),
        ("arguments[1]", lambda: spec(arguments=["a", "b\0"])),
        ("arguments[0]", lambda: spec(arguments=["\ud800"])),
        ("environment", lambda: spec(environment={"1A": "x"})),
        ("environment", lambda: spec(environment={"A=B": "x"})),
        ("environment", lambda: spec(environment={"": "x"})),
        ("environment", lambda: spec(environment={"INTERCEDE_ROOT": "x"})),
        ("environment[A]", lambda: spec(environment={"A": "\0"})),
        ("inputs[1].name", lambda: spec(inputs=[FileRef("a", "a"), FileRef("a", "b")])),
        ("inputs[0].name", lambda: spec(inputs=[FileRef("x", "a")])),
        ("inputs[0].name", lambda: spec(inputs=[FileRef("x/y", "a")])),
        ("inputs[0].name", lambda: spec(inputs=[FileRef("a/b/c", "a"), FileRef("a", "b")])),
        ("stdout", lambda: spec(stdout="a/b")),
        ("stdout", lambda: spec(stdout="work")),
        ("stdout", lambda: spec(stdout="..")),
        ("stderr", lambda: spec(stderr="log")),
        ("stderr", lambda: spec(stderr="")),
        ("stderr", lambda: spec(stdout="both", stderr="both")),
        ("stderr", lambda: spec(stdout="stderr")),
        ("container", lambda: spec(container="")),
        ("container", lambda: spec(container="a\0")),
        ("tag", lambda: spec(tag="")),
        ("tag", lambda: spec(tag="a\nb")),
        ("tag", lambda: spec(tag="x" * 256)),
        ("resources.cpus", lambda: Resources(cpus=0)),
        ("resources.memory_mb", lambda: Resources(memory_mb=0)),
        ("resources.wall_time_s", lambda: Resources(wall_time_s=-1)),
        ("resources.gpus", lambda: Resources(gpus=-1)),
        ("resources.nodes", lambda: Resources(nodes=0)),
        ("resources.queue", lambda: Resources(queue="")),
        ("resources.queue", lambda: Resources(queue="a\0")),
        ("inputs.name", lambda: FileRef("a\0", "x")),
        ("inputs[a]", lambda: FileRef("a")),
        ("inputs[a]", lambda: FileRef("a", source="x", url="y")),
        ("inputs[a]", lambda: FileRef("a", url="y", content=b"")),
        ("inputs[a].source", lambda: FileRef("a", source="")),
        ("inputs[a].source", lambda: FileRef("a", source="\0")),
        ("outputs", lambda: OutputMember("a[b")),
        ("outputs", lambda: OutputMember("[]")),
        ("outputs", lambda: OutputMember("[!]")),
        ("outputs", lambda: OutputMember("a[b/c]")),
        ("outputs", lambda: OutputMember("[a][b")),
        ("outputs", lambda: OutputMember("/")),
        ("outputs", lambda: OutputMember("a//")),
        ("outputs", lambda: OutputSpec(["ok", "../no"])),
        ("copies.environment", lambda: CopyVars(environment={"a b": ""})),
        ("copies.secrets", lambda: CopyVars(secrets={"../a": b""})),
        ("copies", lambda: expand_copies(0)),
        ("copies", lambda: expand_copies(-3)),
        ("copies", lambda: expand_copies([])),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused_naming_the_field(
    field: str, make: Maker
) -> None:
    with pytest.raises(SpecRefused) as caught:
        make()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


OUTSIDE = ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", ".", "./a", "a/.", "a//b", "a/"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_would_leave_the_sandbox_is_refused_wherever_it_stands(name: str) -> None:
    for make in (
        lambda: FileRef(name, "source"),
        lambda: CopyVars(secrets={name: b""}),
        lambda: spec(stdout=name),
        lambda: OutputMember(name if name != "a/" else "a//"),
    ):
        with pytest.raises(SpecRefused):
            make()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_no_name_that_is_accepted_resolves_outside(name: str) -> None:
    try:
        FileRef(name, "source")
    except SpecRefused:
        return
    path = PurePosixPath(name)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert str(path) == name
    assert max(len(part.encode()) for part in path.parts) <= 255


def test_a_part_of_a_name_has_at_most_255_bytes() -> None:
    assert FileRef("é" * 127 + "/" + "a" * 255, "x").name
    with pytest.raises(SpecRefused, match="longer than 255 bytes"):
        FileRef("é" * 128, "x")


@pytest.mark.parametrize(
    "pattern", ["*.csv", "plots/", "a/[a-z]*/x?", "[]]", "[!]x]", "[[]", "[]a[]", "[a]b]", ".h*"]
)
def test_a_pattern_is_accepted_as_it_stands(pattern: str) -> None:
    assert OutputSpec([pattern]).members == (OutputMember(pattern),)


@pytest.mark.parametrize(
    "make",
    [
        of(SubmissionSpec, 5),
        of(SubmissionSpec, b"x"),
        lambda: spec(arguments="abc"),
        lambda: spec(arguments=[1]),
        lambda: spec(arguments=[b"a"]),
        lambda: spec(inputs="abc"),
        lambda: spec(inputs=["abc"]),
        lambda: spec(inputs=FileRef("a", "a")),
        lambda: spec(outputs=["*"]),
        lambda: spec(resources={"cpus": 1}),
        lambda: spec(environment=[("A", "b")]),
        lambda: spec(environment={"A": 1}),
        lambda: spec(environment={1: "A"}),
        lambda: spec(resident="no"),
        lambda: spec(stdout=5),
        lambda: spec(container=5),
        lambda: spec(tag=5),
        lambda: OutputSpec("abc"),
        of(OutputSpec, [5]),
        of(OutputSpec, everything="yes"),
        of(OutputMember, 5),
        of(OutputMember, "a", destination=5),
        of(FileRef, 5, "a"),
        of(FileRef, "a", source=5),
        of(FileRef, "a", url=5),
        of(FileRef, "a", content="text"),
        of(FileRef, "a", "b", executable=1),
        of(Resources, cpus="2"),
        lambda: Resources(cpus=True),
        of(Resources, cpus=None),
        of(Resources, memory_mb=1.5),
        of(Resources, whole_node="False"),
        of(Resources, queue=5),
        of(CopyVars, secrets={"a": "text"}),
        of(CopyVars, secrets=[("a", b"")]),
        of(expand_copies, "ab"),
        lambda: expand_copies(True),
        of(expand_copies, [1]),
        of(expand_copies, 1.0),
        of(expand_copies, iter([CopyVars()])),
        lambda: job(copy="0"),
        lambda: job(copy=True),
        lambda: job(id=5),
        lambda: job(tag=5),
        lambda: job(metadata={"a": 1}),
        lambda: job(submitted_at="now"),
        lambda: job(submitted_at=0),
        of(Submission, "s", "abc"),
        of(Submission, "s", [5]),
        of(Submission, "s", [], {"0": REFUSED}),
        of(Submission, "s", [], {0: "no"}),
        of(Failure, FailureCode.LIMIT, 5),
        of(OpOutcome, "yes"),
        of(OpOutcome, True, note=5),
        of(OpOutcome, False, failure="no"),
        of(JobOutput, stdout="a"),
        of(JobOutput, files={"a": "b"}),
        lambda: JobOutput(missing="abc"),
        of(JobCounts, "1", 0),
        of(JobCounts, 1, 0.5),
        of(JobDetails, JobStatus.FAILED, exit_code="1"),
        of(JobDetails, JobStatus.FAILED, started_at="now"),
        of(Diagnostics, "text"),
        of(Diagnostics, truncated=1),
        of(DryRun, ["sbatch"]),
        of(DryRun, "sbatch", {"a": "b"}),
        of(DryRun, "sbatch", {}, {"a": b""}),
        of(Command, "ls -l"),
        of(Command, [1]),
        of(Command, ["a"], stdin="text"),
        of(Command, ["a"], max_output=1.5),
        of(CommandResult, "0"),
        of(NativeJob, "1", "0", "s", NOW),
        of(NativeJob, 1, 0, "s", NOW),
        of(StagedBatch, "s", "m", "/d", "/r", "01", SPEC),
        of(StagedBatch, "s", "m", "/d", "/r", [0], "x"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_type_error(make: Maker) -> None:
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: job(id=""),
        lambda: job(backend=""),
        lambda: job(resource=""),
        lambda: job(submission=""),
        lambda: job(copy=-1),
        lambda: job(submitted_at=datetime(2026, 1, 1)),  # without a time zone: the point
        lambda: job(submitted_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))),
        lambda: Submission("", []),
        lambda: Submission("s", [job(1), job(0)]),
        lambda: Submission("s", [job(0), job(0)]),
        lambda: Submission("s", [job(0)], {0: REFUSED}),
        lambda: Submission("s", [], {-1: REFUSED}),
        lambda: Submission("other", [job(0)]),
        of(Failure, "no-such-code", ""),
        lambda: OpOutcome(True, failure=REFUSED),
        lambda: OpOutcome(False),
        lambda: JobCounts(-1, 0),
        lambda: JobCounts(0, -1),
        of(JobDetails, "done"),
        lambda: JobDetails(JobStatus.FAILED, exit_code=256),
        lambda: JobDetails(JobStatus.FAILED, exit_code=-1),
        lambda: JobDetails(JobStatus.FAILED, signal=0),
        lambda: BulkResult({}, {JobID("a"): REFUSED}),
        lambda: Command([]),
        lambda: Command([""]),
        lambda: Command(["a", "\0"]),
        lambda: Command(["a"], timeout_s=0),
        lambda: Command(["a"], timeout_s=float("nan")),
        lambda: Command(["a"], max_output=0),
        lambda: NativeJob("", 0, "s", NOW),
        lambda: StagedBatch("s", "", "/d", "/r", [0], SPEC),
    ],
)
def test_a_value_that_contradicts_itself_is_a_value_error(make: Maker) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


def test_sequences_become_tuples_and_mappings_are_copied() -> None:
    arguments, environment = ["a"], {"A": "b"}
    made = SubmissionSpec("x", arguments, environment=environment)
    arguments.append("c")
    environment["C"] = "d"
    assert (made.arguments, made.environment) == (("a",), {"A": "b"})
    assert SubmissionSpec(Path("a/x"), (str(n) for n in range(2))).arguments == ("0", "1")


@pytest.mark.parametrize(
    "value",
    [SPEC, job(), Submission("s", [job()]), REFUSED, Resources(), CopyVars(), OpOutcome(True)],
)
def test_values_are_frozen_equal_and_hashable(value: Any) -> None:
    import copy

    with pytest.raises(FrozenInstanceError):
        value.anything = 1
    twin = copy.deepcopy(value)
    assert twin == value
    assert hash(twin) == hash(value)


def test_the_executable_is_named_after_its_file_unless_it_is_resident() -> None:
    assert SubmissionSpec(Path("/a/b.sh")).executable_name == "b.sh"
    assert SubmissionSpec("b.sh").executable_name == "b.sh"
    assert SubmissionSpec("/bin/true", resident=True).executable_name is None
    resident = SubmissionSpec("/bin/x", inputs=[FileRef("x", "y")], resident=True)
    assert resident.inputs[0].name == "x"


def test_bytes_that_are_no_text_are_accepted_as_python_carries_them() -> None:
    text = b"\xff\x80 \x01".decode(errors="surrogateescape")
    made = SubmissionSpec(text, [text], [FileRef(text + "1", text)], environment={"A": text})
    assert made.arguments == (text,)


def test_moments_are_kept_in_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert job(submitted_at=elsewhere).submitted_at.tzinfo is UTC
    details = JobDetails(JobStatus.RUNNING, started_at=elsewhere)
    assert (details.started_at, details.ended_at) == (NOW, None)


def test_copies_are_expanded_to_what_differs_between_them() -> None:
    assert expand_copies(2) == (CopyVars(), CopyVars())
    variants = [CopyVars({"N": "1"}), CopyVars({"N": "2"})]
    assert expand_copies(variants) == tuple(variants)


def test_finished_are_exactly_the_statuses_that_never_change() -> None:
    finished = {status for status in JobStatus if status.is_finished}
    assert finished == {
        JobStatus.SUCCESSFUL,
        JobStatus.FAILED,
        JobStatus.CANCELLED,
        JobStatus.FINISHED_UNKNOWN,
    }


# ---------------------------------------------------------------- bulk results


@given(st.lists(st.sampled_from("abcde")))
def test_ids_are_made_distinct_in_the_order_given(letters: list[str]) -> None:
    ids = [JobID(letter) for letter in letters]
    distinct = distinct_ids(ids)
    assert sorted(distinct) == sorted(set(ids))
    assert list(distinct) == sorted(distinct, key=ids.index)


@pytest.mark.parametrize("ids", ["r/s/0", b"r/s/0", ["r/s/0", 5], [None]])
def test_a_bare_string_or_something_else_among_the_ids_is_a_type_error(ids: Any) -> None:
    with pytest.raises(TypeError):
        distinct_ids(ids)


def test_a_bulk_result_has_an_entry_for_what_failed_too() -> None:
    good, bad = JobID("good"), JobID("bad")
    result = BulkResult({good: 1, bad: 2}, {bad: REFUSED})
    assert dict(result) == {good: 1, bad: 2}
    assert list(result) == [good, bad]
    assert len(result) == 2
    assert result.failures == {bad: REFUSED}
    assert repr(result) == f"BulkResult({{'good': 1, 'bad': 2}}, failures={{'bad': {REFUSED!r}}})"
    with pytest.raises(PartialFailure, match="1 failed: bad: refused: no") as caught:
        result.raise_for_failures()
    assert caught.value.failures == {bad: REFUSED}


def test_a_bulk_result_or_submission_without_failures_raises_nothing() -> None:
    BulkResult({JobID("a"): 1}).raise_for_failures()
    Submission("s", [job()]).raise_for_failures()


def test_what_failures_returns_cannot_change_the_result() -> None:
    result = BulkResult({JobID("a"): 1}, {JobID("a"): REFUSED})
    answered: Any = result.failures
    answered.clear()
    assert result.failures


def test_a_submission_with_failures_raises_them_by_copy() -> None:
    submission = Submission("s", [job(1)], {0: REFUSED, 2: REFUSED, 3: REFUSED, 4: REFUSED})
    with pytest.raises(PartialFailure, match=r"4 failed: 0: refused: no.*and 1 more") as caught:
        submission.raise_for_failures()
    assert caught.value.failures == dict.fromkeys((0, 2, 3, 4), REFUSED)


@pytest.mark.parametrize(
    "value",
    [
        FileRef("a", content=b"hunter2"),
        CopyVars(secrets={"token": b"hunter2"}),
        Command(["cat"], stdin=b"hunter2"),
        CommandResult(0, b"hunter2"),
    ],
)
def test_content_is_not_in_a_repr(value: object) -> None:
    assert "hunter2" not in repr(value)
