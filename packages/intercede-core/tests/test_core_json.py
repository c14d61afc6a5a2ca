"""JSON both ways: what is written is read back, and what is wrong is named by its path."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import (
    BulkResult,
    ConfigurationError,
    CopyVars,
    Diagnostics,
    Failure,
    FailureCode,
    FileRef,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OutputMember,
    OutputSpec,
    Resources,
    Submission,
    SubmissionSpec,
    from_json,
    structure,
    to_json,
    unstructure,
)

# ---------------------------------------------------------------- whatever can be built


def as_carried(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


#: Any bytes but NUL, as Python carries them: undecodable ones become surrogates (PEP 383).
texts = st.binary(max_size=20).map(lambda raw: as_carried(raw.replace(b"\0", b"")))
words = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, categories=["L", "N", "P"]))
tags = words.filter(lambda word: 1 <= len(word) <= 255 and word.isprintable())
variables = st.dictionaries(st.from_regex(r"[A-HJ-Za-z_][A-Za-z0-9_]*", fullmatch=True), texts)
parts = texts.filter(lambda part: part not in ("", ".", "..") and "/" not in part)
names = st.lists(parts, min_size=1, max_size=3).map("/".join)
patterns = names.map(lambda name: name.replace("[", "[[]"))
counts = st.integers(1, 10**12)

files = st.one_of(
    st.builds(FileRef, names, source=texts.filter(bool), executable=st.booleans()),
    st.builds(FileRef, names, url=words.filter(bool)),
    st.builds(FileRef, names, content=st.binary()),
)
members = st.builds(OutputMember, patterns, st.none() | words.filter(bool))
resources = st.builds(
    Resources,
    cpus=counts,
    memory_mb=st.none() | counts,
    wall_time_s=st.none() | counts,
    gpus=st.integers(0, 9),
    nodes=counts,
    whole_node=st.booleans(),
    queue=st.none() | texts.filter(bool),
)
specs = st.builds(
    SubmissionSpec,
    st.just("/opt/the program"),
    arguments=st.lists(texts),
    inputs=st.lists(files, max_size=1),
    outputs=st.builds(OutputSpec, st.lists(members, max_size=3), st.booleans()),
    resources=resources,
    environment=variables,
    resident=st.just(True),
    container=st.none() | texts.filter(bool),
    tag=st.none() | tags,
)
copies = st.builds(CopyVars, variables, st.dictionaries(names, st.binary(), max_size=3))
moments = st.datetimes(
    datetime(1, 1, 3),
    datetime(9999, 12, 28),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9))]),
)
handles = st.builds(
    JobHandle,
    id=texts.filter(bool).map(JobID),
    backend=words.filter(bool),
    resource=words.filter(bool),
    submission=st.just("s"),
    copy=st.integers(0, 10**9),
    submitted_at=moments,
    tag=st.none() | tags,
    metadata=st.dictionaries(texts, texts),
)
failures = st.builds(Failure, st.sampled_from(FailureCode), texts)
submissions = st.builds(
    lambda listed, failed: Submission(
        "s",
        sorted(listed, key=lambda handle: handle.copy),
        {copy: why for copy, why in failed.items() if copy not in {h.copy for h in listed}},
    ),
    st.lists(handles, max_size=3, unique_by=lambda handle: handle.copy),
    st.dictionaries(st.integers(0, 10**9), failures, max_size=3),
)


@given(st.one_of(specs, copies, handles, submissions, files, members, resources, failures))
def test_what_is_written_is_read_back(value: Any) -> None:
    text = to_json(value)
    assert text.isascii()
    assert "\n" not in text
    assert from_json(type(value), text) == value
    assert from_json(type(value), text.encode()) == value
    assert structure(type(value), unstructure(value)) == value


@given(st.lists(handles, max_size=3))
def test_lists_of_handles_go_both_ways(listed: list[JobHandle]) -> None:
    assert from_json(list[JobHandle], to_json(listed)) == listed
    assert from_json(tuple[JobHandle, ...], to_json(tuple(listed))) == tuple(listed)


def test_every_byte_of_an_argument_survives() -> None:
    every = as_carried(bytes(range(1, 256)))
    spec = SubmissionSpec("x", [every], environment={"A": every})
    read = from_json(SubmissionSpec, to_json(spec))
    assert read.arguments[0].encode("utf-8", "surrogateescape") == bytes(range(1, 256))
    assert read == spec


def test_the_form_of_what_is_written_is_fixed() -> None:
    """Somebody's database has it: it must be readable for ever."""
    handle = JobHandle(
        JobID("r/s/1/77"), "batch", "r", "s", 1, datetime(2026, 5, 4, tzinfo=UTC), "t", {"a": "b"}
    )
    submission = Submission("s", [handle], {0: Failure(FailureCode.LIMIT, "full")})
    assert json.loads(to_json(submission)) == {
        "id": "s",
        "handles": [
            {
                "id": "r/s/1/77",
                "backend": "batch",
                "resource": "r",
                "submission": "s",
                "copy": 1,
                "submitted_at": "2026-05-04T00:00:00+00:00",
                "tag": "t",
                "metadata": {"a": "b"},
            }
        ],
        "failures": {"0": {"code": "limit", "message": "full"}},
    }
    assert json.loads(to_json(CopyVars({"A": "b"}, {"s": b"\xff\0"}))) == {
        "environment": {"A": "b"},
        "secrets": {"s": "/wA="},
    }


def test_results_are_written_with_their_failures_wherever_they_stand() -> None:
    result = BulkResult(
        {JobID("a"): JobStatus.RUNNING, JobID("b"): JobStatus.UNKNOWN},
        {JobID("b"): Failure(FailureCode.NOT_NOW, "ask again")},
    )
    plain = {
        "entries": {"a": "running", "b": "unknown"},
        "failures": {"b": {"code": "not-now", "message": "ask again"}},
    }
    assert unstructure(result) == plain
    assert json.loads(to_json({"results": [result]})) == {"results": [plain]}


def test_outputs_and_diagnostics_are_written_too() -> None:
    output = JobOutput(stdout=Path("d/stdout"), files={"a": Path("d/work/a")}, missing=["b"])
    assert unstructure(BulkResult({JobID("a"): output}))["entries"]["a"] == {
        "stdout": "d/stdout",
        "stderr": None,
        "log": None,
        "files": {"a": "d/work/a"},
        "missing": ["b"],
        "failure": None,
    }
    assert unstructure(Diagnostics(stdout_tail=b"hi"))["stdout_tail"] == "aGk="


def test_what_has_a_default_may_be_left_out_and_members_may_be_plain_text() -> None:
    text = '{"executable":"x","outputs":{"members":["*.csv",{"pattern":"p/"}]},"inputs":[]}'
    assert from_json(SubmissionSpec, text) == SubmissionSpec(
        "x", outputs=OutputSpec(["*.csv", "p/"])
    )


def test_toml_s_own_dates_are_taken_as_they_are() -> None:
    handle: dict[str, Any] = {
        "id": "i",
        "backend": "b",
        "resource": "r",
        "submission": "s",
        "copy": 0,
    }
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert structure(JobHandle, {**handle, "submitted_at": moment}).submitted_at == moment


# ---------------------------------------------------------------- whatever is wrong

SPEC: dict[str, Any] = {"executable": "x"}
HANDLE: dict[str, Any] = {
    "id": "r/s/0",
    "backend": "b",
    "resource": "r",
    "submission": "s",
    "copy": 0,
    "submitted_at": "2026-01-01T00:00:00+00:00",
}
SUBMISSION: dict[str, Any] = {"id": "s", "handles": [HANDLE]}


def wrong(kind: Any, data: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        from_json(kind, json.dumps(data))
    return caught.value


@pytest.mark.parametrize(
    ("kind", "data", "path", "said"),
    [
        (SubmissionSpec, {}, "executable", "missing"),
        (SubmissionSpec, {"exectuable": "x"}, "exectuable", "did you mean 'executable'?"),
        (SubmissionSpec, {**SPEC, "zzz": 1}, "zzz", "known here: executable, arguments,"),
        (
            SubmissionSpec,
            {**SPEC, "arguments": "abc"},
            "arguments",
            "expected a list, found a string",
        ),
        (SubmissionSpec, {**SPEC, "arguments": ["a", 5]}, "arguments[1]", "expected a string"),
        (SubmissionSpec, {**SPEC, "arguments": ["a", "\0"]}, "arguments[1]", "NUL"),
        (SubmissionSpec, {**SPEC, "arguments": ["\ud800"]}, "arguments[0]", "surrogate"),
        (SubmissionSpec, {**SPEC, "environment": {"A": 5}}, "environment.A", "expected a string"),
        (SubmissionSpec, {**SPEC, "environment": {"A": "\0"}}, "environment[A]", "NUL"),
        (
            SubmissionSpec,
            {**SPEC, "environment": []},
            "environment",
            "expected a table, found a list",
        ),
        (SubmissionSpec, {**SPEC, "environment": {"1": "x"}}, "environment", "not a variable name"),
        (SubmissionSpec, {**SPEC, "resources": {"cpus": 0}}, "resources.cpus", "at least 1"),
        (
            SubmissionSpec,
            {**SPEC, "resources": {"cpu": 1}},
            "resources.cpu",
            "did you mean 'cpus'?",
        ),
        (SubmissionSpec, {**SPEC, "resources": {"cpus": "1"}}, "resources.cpus", "a whole number"),
        (SubmissionSpec, {**SPEC, "resources": {"cpus": 1.0}}, "resources.cpus", "found a number"),
        (SubmissionSpec, {**SPEC, "resources": {"cpus": True}}, "resources.cpus", "true or false"),
        (
            SubmissionSpec,
            {**SPEC, "resources": {"whole_node": "False"}},
            "resources.whole_node",
            "expected true or false, found a string",
        ),
        (SubmissionSpec, {**SPEC, "resources": 5}, "resources", "expected a table"),
        (SubmissionSpec, {**SPEC, "tag": ""}, "tag", "printable"),
        (SubmissionSpec, {**SPEC, "tag": 5}, "tag", "expected a string"),
        (SubmissionSpec, {**SPEC, "resident": None}, "resident", "found nothing"),
        (
            SubmissionSpec,
            {**SPEC, "inputs": [{"name": "a", "url": "u"}, {"name": "../x", "url": "u"}]},
            "inputs[1].name",
            "not a plain relative name",
        ),
        (SubmissionSpec, {**SPEC, "inputs": [{"name": "a"}]}, "inputs[0]", "exactly one of"),
        (
            SubmissionSpec,
            {**SPEC, "inputs": [{"name": "a", "source": ""}]},
            "inputs[0].source",
            "empty",
        ),
        (
            SubmissionSpec,
            {**SPEC, "inputs": [{"name": "a", "url": ""}]},
            "inputs[0].url",
            "must not be empty",
        ),
        (
            SubmissionSpec,
            {**SPEC, "inputs": [{"name": "x", "url": "u"}]},
            "inputs[0].name",
            "also the executable",
        ),
        (
            SubmissionSpec,
            {**SPEC, "inputs": [{"name": "a", "contents": "u"}]},
            "inputs[0].contents",
            "did you mean 'content'?",
        ),
        (
            SubmissionSpec,
            {**SPEC, "inputs": ["a"]},
            "inputs[0]",
            "expected a table, found a string",
        ),
        (
            SubmissionSpec,
            {**SPEC, "outputs": {"members": ["a", "[b"]}},
            "outputs.members[1]",
            "not closed",
        ),
        (SubmissionSpec, {**SPEC, "outputs": ["a"]}, "outputs", "expected a table, found a list"),
        (SubmissionSpec, [], "", "expected a table, found a list"),
        (SubmissionSpec, None, "", "expected a table, found nothing"),
        (list[JobHandle], {}, "", "expected a list, found a table"),
        (list[JobHandle], [HANDLE, {**HANDLE, "copy": -1}], "[1].copy", "0 or more"),
        (JobHandle, {**HANDLE, "copy": "0"}, "copy", "expected a whole number, found a string"),
        (JobHandle, {**HANDLE, "id": ""}, "id", "must not be empty"),
        (JobHandle, {**HANDLE, "submitted_at": 5}, "submitted_at", "ISO 8601"),
        (JobHandle, {**HANDLE, "submitted_at": "today"}, "submitted_at", "isoformat"),
        (JobHandle, {**HANDLE, "submitted_at": "2026-01-01"}, "submitted_at", "time zone"),
        (
            JobHandle,
            {**HANDLE, "submitted_at": "0001-01-01T00:00:00+14:00"},
            "submitted_at",
            "no equivalent in UTC",
        ),
        (JobHandle, {**HANDLE, "metadata": {"a": 1}}, "metadata.a", "expected a string"),
        (Submission, {**SUBMISSION, "id": "t"}, "", "another submission"),
        (Submission, {**SUBMISSION, "handles": [HANDLE, HANDLE]}, "", "copy order"),
        (Submission, {"id": "s", "handles": [{**HANDLE, "id": 5}]}, "handles[0].id", "a string"),
        (
            Submission,
            {**SUBMISSION, "failures": {"1": {"code": "refusd", "message": "m"}}},
            "failures.1.code",
            "expected one of no-such-job, not-now,",
        ),
        (
            Submission,
            {**SUBMISSION, "failures": {"01": {"code": "refused", "message": "m"}}},
            "failures.01",
            "expected a whole number",
        ),
        (
            Submission,
            {**SUBMISSION, "failures": {"x": {}}},
            "failures.x",
            "expected a whole number",
        ),
        (
            Submission,
            {**SUBMISSION, "failures": {"1": {"code": "limit"}}},
            "failures.1.message",
            "missing",
        ),
        (CopyVars, {"secrets": {"a": 5}}, "secrets.a", "expected base64 text"),
        (CopyVars, {"secrets": {"../a": ""}}, "secrets", "not a plain relative name"),
        (Failure, {"code": 5, "message": ""}, "code", "expected one of"),
    ],
)
def test_an_error_names_the_path_of_the_key(kind: Any, data: Any, path: str, said: str) -> None:
    error = wrong(kind, data)
    assert error.path == path
    assert said in str(error)
    assert str(error).startswith(path)


def test_the_path_begins_where_the_document_begins() -> None:
    with pytest.raises(ConfigurationError) as caught:
        structure(SubmissionSpec, {**SPEC, "arguments": [5]}, path="jobs[3].spec")
    assert caught.value.path == "jobs[3].spec.arguments[0]"


def test_an_error_has_value_and_candidates_for_programs() -> None:
    assert wrong(SubmissionSpec, {**SPEC, "tag": 5}).value == "5"
    assert wrong(SubmissionSpec, {**SPEC, "argments": []}).candidates == ("arguments",)


@pytest.mark.parametrize(
    "data",
    [
        {"secrets": {"token": "hunter2!"}},
        {"secrets": {"token": ["hunter2"]}},
        {"secrets": "hunter2"},
        {"secret": {"token": "hunter2"}},
        {"secrets": {"token": {"hunter2": "hunter2"}}},
    ],
)
def test_no_error_shows_a_secret(data: Any) -> None:
    error = wrong(CopyVars, data)
    assert "hunter2" not in f"{error}{error.__dict__}{error.__cause__}"
    assert error.__suppress_context__


def test_a_plugin_s_validator_does_not_show_a_hidden_value_either() -> None:
    from attrs import field, validators

    @frozen
    class Config:
        key: str = field(repr=False, validator=validators.in_(["a"]))

    error = wrong(Config, {"key": "hunter2"})
    assert error.path == "key"
    assert "hunter2" not in f"{error}{error.__dict__}"


def test_a_plugin_s_converter_and_check_of_the_whole_are_explained() -> None:
    from attrs import field

    def even(value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value

    @frozen
    class Config:
        first: int = field(default=0, converter=even)
        second: int = field(default=0, converter=even)
        third: int = 0

        def __attrs_post_init__(self) -> None:
            if self.second > self.third:
                raise ValueError

    assert wrong(Config, {"first": 2, "second": 3}).path == "second"
    whole = wrong(Config, {"first": 4, "second": 2})
    assert (whole.path, str(whole)) == ("", "ValueError")


# ---------------------------------------------------------------- whatever is hostile

DEEP = "[" * 100_000
LESS_DEEP = "[" * 300 + "]" * 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        DEEP,
        '{"a":' * 100_000,
        LESS_DEEP,
        '{"executable":"x","arguments":' + LESS_DEEP + "}",
        '{"executable":' + LESS_DEEP + "}",
        '{"executable":"x",' + '"tag":"a","tag":"b"}',
        '{"executable":"x","executable":"x"}',
        '{"executable":"x","inputs":[],"inputs":[]}',
        '{"executable":"x","resources":{"cpus":1,"cpus":2}}',
        '{"executable":"x","environment":{"A":"1","A":"2"}}',
        '{"executable":"x","resources":{"cpus":NaN}}',
        '{"executable":"x","resources":{"cpus":Infinity}}',
        '{"executable":"x","resources":{"cpus":1e999}}',
        '{"executable":"x","resources":{"cpus":-' + "9" * 4000 + "}}",
        '{"executable":"x","resources":{"cpus":' + "9" * 10_000 + "}}",
        '{"executable":"x","arguments":{"0":"a"}}',
        '{"executable":"\ud800"}'.encode("utf-16", "surrogatepass"),
        b"\xff\xfe\xfd",
        b'{"executable":"\xff"}',
        '"' + "x" * 1_000_000,
        '{"' + "k" * 100_000 + '":1}',
    ],
    ids=range(24),
)
def test_hostile_json_is_a_configuration_error_and_nothing_else(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_json(SubmissionSpec, text)
    assert str(caught.value)


def test_a_key_that_is_given_twice_is_named() -> None:
    with pytest.raises(
        ConfigurationError, match="expected a whole number, found two values"
    ) as caught:
        from_json(SubmissionSpec, '{"executable":"x","resources":{"cpus":1,"cpus":1}}')
    assert caught.value.path == "resources.cpus"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["executable", "inputs", "name", "secrets", "id", "code", "0", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)
KINDS: list[Any] = [SubmissionSpec, JobHandle, Submission, CopyVars, Failure, list[FileRef]]


@given(st.sampled_from(KINDS), anything)
def test_arbitrary_data_is_read_or_is_a_configuration_error(kind: Any, data: Any) -> None:
    try:
        made = structure(kind, data)
    except ConfigurationError as error:
        assert str(error)
    else:
        assert structure(kind, unstructure(made)) == made


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_neither_read_nor_written(number: float) -> None:
    @frozen
    class Config:
        timeout_s: float

    with pytest.raises(ConfigurationError, match="expected a finite number"):
        structure(Config, {"timeout_s": number})
    with pytest.raises(ValueError, match="JSON"):
        to_json(Config(number))


@pytest.mark.parametrize("number", ["1", True, None, 10**400])
def test_a_number_is_a_number(number: Any) -> None:
    @frozen
    class Config:
        timeout_s: float

    with pytest.raises(ConfigurationError) as caught:
        structure(Config, {"timeout_s": number})
    assert caught.value.path == "timeout_s"
