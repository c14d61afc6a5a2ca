"""Which objects fulfil which protocol, and how little it takes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from intercede.core import (
    Cancellable,
    ClosedError,
    CredentialProvider,
    Discoverable,
    FailureCode,
    JobBackend,
    JobID,
    JobStatus,
    LoadReporter,
    Managed,
    Monitor,
    OutputRetriever,
    Process,
    Purgeable,
    Scheduler,
    SubmissionSpec,
    Submitter,
    SupportsDetails,
    SupportsDryRun,
    SupportsLiveDiagnostics,
    Transport,
    registry,
)

LIFE = ["__aenter__", "__aexit__"]

#: What makes an object one of these; a change here breaks every plugin there is.
MEMBERS: dict[Any, list[str]] = {
    Submitter: ["submit"],
    Monitor: ["status"],
    JobBackend: ["submit", "status", "aclose", *LIFE],
    OutputRetriever: ["fetch_output", "destructive"],
    Cancellable: ["kill"],
    Purgeable: ["purge"],
    LoadReporter: ["counts"],
    SupportsLiveDiagnostics: ["diagnostics"],
    SupportsDetails: ["details"],
    Discoverable: ["find"],
    SupportsDryRun: ["dry_run"],
    Transport: ["run", "stream", "put", "get", "aclose", *LIFE],
    CredentialProvider: ["get", *LIFE],
    Scheduler: [
        *("stages_own_files", "native_id", "probe_commands", "parse_probe", "check"),
        *("submit_commands", "parse_submit", "status_commands", "parse_status"),
        *("history_commands", "parse_history", "kill_commands", "list_commands", "parse_list"),
    ],
}


def with_members(names: list[str]) -> object:
    def method(self: object, *arguments: object) -> None: ...

    return type("Made", (), dict.fromkeys(names, method))()


@pytest.mark.parametrize("protocol", MEMBERS, ids=lambda protocol: protocol.__name__)
def test_an_object_with_all_members_is_one(protocol: Any) -> None:
    assert isinstance(with_members(MEMBERS[protocol]), protocol)


@pytest.mark.parametrize(
    ("protocol", "absent"),
    [(protocol, name) for protocol, names in MEMBERS.items() for name in names],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_object_that_lacks_one_member_is_none(protocol: Any, absent: str) -> None:
    names = [name for name in MEMBERS[protocol] if name != absent]
    assert not isinstance(with_members(names), protocol)


def test_every_protocol_that_can_be_asked_for_is_tested() -> None:
    import intercede.core as core

    protocols = {
        value for value in vars(core).values() if getattr(value, "_is_runtime_protocol", False)
    }
    assert set(MEMBERS) >= protocols
    assert {Transport, CredentialProvider, Scheduler} <= set(MEMBERS)


@pytest.mark.parametrize("protocol", [Managed, Process])
def test_what_is_only_a_part_cannot_be_asked_for(protocol: Any) -> None:
    with pytest.raises(TypeError, match="runtime"):
        isinstance(object(), protocol)


@pytest.mark.xdist_group("registry")
@pytest.mark.usefixtures("plugged")
async def test_a_backend_of_40_lines_is_complete() -> None:
    ce = registry.backend({"type": "tiny", "name": "here"})
    assert len(inspect.getsource(type(ce)).splitlines()) <= 40
    async with ce:
        submission = await ce.submit(SubmissionSpec("x", tag="t"), copies=2)
        ids = [handle.id for handle in submission.handles]
        stranger = JobID("here/0/0")
        statuses = await ce.status([*ids, stranger, *ids])
    assert [handle.tag for handle in submission.handles] == ["t", "t"]
    assert list(statuses.items()) == [
        *((job, JobStatus.SUCCESSFUL) for job in ids),
        (stranger, JobStatus.UNKNOWN),
    ]
    assert statuses.failures[stranger].code is FailureCode.NO_SUCH_JOB
    with pytest.raises(ClosedError):
        await ce.submit(SubmissionSpec("x"))
    with pytest.raises(TypeError, match="write "):
        await ce.status(JobID("here/0/0"))  # type: ignore[arg-type]  # a bare string: the point
    for ability in set(MEMBERS) - {JobBackend, Submitter, Monitor}:
        assert not isinstance(ce, ability)
