"""Errors: what they say, what they carry, and that they survive a process boundary."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime

import pytest

import intercede.core as core
from intercede.core import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    Failure,
    FailureCode,
    HostKeyError,
    InterCEdeError,
    JobHandle,
    JobID,
    OperationTimeout,
    PartialFailure,
    ResourceError,
    SpecRefused,
    SubmitUncertain,
    TransportError,
    Unreachable,
)

HANDLE = JobHandle(JobID("r/s/0"), "b", "r", "s", 0, datetime(2026, 1, 1, tzinfo=UTC))

ERRORS: list[InterCEdeError] = [
    InterCEdeError("m", resource="r", operation="o", remedy="do", said=" words "),
    ConfigurationError("m", path="a.b[1]", value={"x": 1}, candidates=["c", "d"]),
    SpecRefused("resources.cpus", "too many", remedy="ask for less"),
    AuthenticationError("m", refused=True, remedy="renew them"),
    ConnectionLost("m", may_have_run=True, said="reset by peer"),
    OperationTimeout("m", may_have_run=False, resource="r"),
    SubmitUncertain("m", mark="mark", handles=[HANDLE]),
    PartialFailure({JobID("r/s/0"): Failure(FailureCode.LIMIT, "too big")}),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying_whole(error: InterCEdeError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert twin.__dict__ == error.__dict__
        assert str(twin) == str(error)
        assert twin.args == error.args


def test_every_error_of_the_tree_can_be_pickled() -> None:
    kinds = [
        kind
        for kind in vars(core).values()
        if isinstance(kind, type) and issubclass(kind, InterCEdeError)
    ]
    assert len(kinds) == 18
    for kind in kinds:
        blank = kind.__new__(kind)
        InterCEdeError.__init__(blank, "m", resource="r")
        twin = pickle.loads(pickle.dumps(blank))
        assert (type(twin), str(twin)) == (kind, "r: m")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InterCEdeError("what"), "what"),
        (InterCEdeError("what", resource="r", operation="op"), "r: op: what"),
        (InterCEdeError("what", operation="op", remedy="mend it"), "op: what; mend it"),
        (ResourceError("what", resource="r", said="No!\n"), "r: what\n  it said: No!"),
        (SpecRefused("tag", "too long", remedy="cut it"), "tag: too long; cut it"),
        (ConfigurationError("no", path="a.b"), "a.b: no"),
        (ConfigurationError("no", candidates=["x", "y"]), "no; known here: x, y"),
        (ConfigurationError("no", candidates=["x"], remedy="do"), "no; do"),
    ],
)
def test_a_message_reads_where_what_and_what_to_do(error: InterCEdeError, text: str) -> None:
    assert str(error) == text


def test_where_it_happened_is_filled_in_once_by_who_knows_first() -> None:
    error = Unreachable("nobody there")
    assert error.at("near", "submit") is error
    error.at("far", "status")
    assert str(error) == "near: submit: nobody there"


def test_the_daemon_s_words_are_shortened() -> None:
    assert len(ResourceError("m", said="x" * 10_000).said) == 2000


def test_whether_it_may_have_run_is_known_of_every_transport_error() -> None:
    assert ConnectionLost("m", may_have_run=True).may_have_run
    assert not OperationTimeout("m", may_have_run=False).may_have_run
    assert not Unreachable("m").may_have_run
    assert not HostKeyError("m").may_have_run
    assert issubclass(HostKeyError, TransportError)


def test_nobody_is_said_to_have_refused_credentials_unless_somebody_did() -> None:
    assert not AuthenticationError("there are none").refused
    assert AuthenticationError("wrong ones", refused=True).refused


def test_what_comes_from_outside_in_the_wrong_form_is_a_value_error_too() -> None:
    assert isinstance(ConfigurationError("m"), ValueError)
    assert isinstance(SpecRefused("f", "m"), ValueError)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        ("text", "'text'"),
        ("x" * 500, repr("x" * 200)),
        (5, "5"),
        (True, "True"),
        (1.5, "1.5"),
        pytest.param(10**5000, "a huge number", id="huge"),
        ({"password": "hunter2"}, ""),
        (["hunter2"], ""),
    ],
)
def test_an_error_shows_a_plain_value_in_short_and_no_table(value: object, shown: str) -> None:
    assert ConfigurationError("m", value=value).value == shown


def test_an_uncertain_submit_carries_the_mark_and_the_handles() -> None:
    error = SubmitUncertain("m", mark="k", handles=[HANDLE], resource="r")
    assert (error.mark, error.handles, error.resource) == ("k", (HANDLE,), "r")
