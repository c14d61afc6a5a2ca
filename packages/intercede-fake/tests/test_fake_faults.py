"""Every fault does what it says, to the operation it names, as often as it says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from intercede.core import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    FailureCode,
    HostKeyError,
    InterCEdeError,
    JobCounts,
    JobID,
    JobStatus,
    OperationTimeout,
    PartialFailure,
    ResourceError,
    SubmissionSpec,
    SubmitUncertain,
    TransportError,
    Unreachable,
    registry,
)
from intercede.fake import FakeBackend, FakeClock, FakeConfig, FakeSite, Fault, FaultKind, Operation

SPEC = SubmissionSpec("payload.sh", ["sleep", "60"], resident=True, tag="t")

Call = Callable[[FakeBackend, list[JobID], Path], Awaitable[object]]

CALLS: dict[str, Call] = {
    "submit": lambda ce, ids, dest: ce.submit(SPEC),
    "status": lambda ce, ids, dest: ce.status(ids),
    "fetch_output": lambda ce, ids, dest: ce.fetch_output(ids, dest),
    "kill": lambda ce, ids, dest: ce.kill(ids),
    "purge": lambda ce, ids, dest: ce.purge(ids),
    "counts": lambda ce, ids, dest: ce.counts(),
    "diagnostics": lambda ce, ids, dest: ce.diagnostics(ids),
    "details": lambda ce, ids, dest: ce.details(ids),
    "find": lambda ce, ids, dest: ce.find("t"),
    "dry_run": lambda ce, ids, dest: ce.dry_run(SPEC),
}

ERRORS: dict[FaultKind, tuple[type[InterCEdeError], bool]] = {
    FaultKind.UNREACHABLE: (Unreachable, False),
    FaultKind.HOST_KEY: (HostKeyError, False),
    FaultKind.AUTHENTICATION: (AuthenticationError, False),
    FaultKind.RESOURCE: (ResourceError, False),
    FaultKind.LOST_BEFORE: (ConnectionLost, False),
    FaultKind.TIMEOUT_BEFORE: (OperationTimeout, False),
    FaultKind.LOST_AFTER: (ConnectionLost, True),
    FaultKind.TIMEOUT_AFTER: (OperationTimeout, True),
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ce(clock: FakeClock) -> FakeBackend:
    return FakeBackend(site=FakeSite(clock))


async def submitted(ce: FakeBackend, copies: int = 1) -> list[JobID]:
    return [handle.id for handle in (await ce.submit(SPEC, copies)).handles]


@pytest.mark.parametrize("operation", [name for name in CALLS if name != "submit"])
@pytest.mark.parametrize("kind", ERRORS)
async def test_a_whole_operation_fails_once_and_names_where(
    ce: FakeBackend, tmp_path: Path, operation: str, kind: FaultKind
) -> None:
    ids = await submitted(ce)
    ce.faults.add(Fault(operation, kind))
    error, may_have_run = ERRORS[kind]
    with pytest.raises(error) as raised:
        await CALLS[operation](ce, ids, tmp_path)
    assert (raised.value.resource, raised.value.operation) == ("fake", operation)
    assert raised.value.remedy
    assert getattr(raised.value, "may_have_run", False) == may_have_run
    await CALLS[operation](ce, ids, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind, (_, ran) in ERRORS.items() if not ran])
async def test_a_submit_that_fails_before_its_effect_leaves_nothing(
    ce: FakeBackend, kind: FaultKind
) -> None:
    ce.faults.add(Fault("submit", kind))
    with pytest.raises(ERRORS[kind][0]):
        await ce.submit(SPEC)
    assert await ce.find("t") == ()


@pytest.mark.parametrize("kind", ["lost-after-effect", "timeout-after-effect"])
async def test_a_submit_whose_answer_is_lost_is_uncertain_and_has_its_handles(
    ce: FakeBackend, kind: FaultKind
) -> None:
    ce.faults.add(Fault("submit", kind))
    with pytest.raises(SubmitUncertain) as uncertain:
        await ce.submit(SPEC, 2)
    assert await ce.find("t") == uncertain.value.handles
    assert len(uncertain.value.handles) == 2
    assert await ce.counts() == JobCounts(running=2, waiting=0)


async def test_what_was_staged_and_never_submitted_is_found_waits_for_ever_and_can_be_killed(
    ce: FakeBackend, clock: FakeClock
) -> None:
    ce.faults.add(Fault("submit", "staged-only"))
    with pytest.raises(SubmitUncertain) as uncertain:
        await ce.submit(SPEC)
    clock.advance(1e6)
    (handle,) = await ce.find("t")
    assert uncertain.value.handles == (handle,)
    assert await ce.counts() == JobCounts(running=0, waiting=1)
    (diagnostics,) = (await ce.diagnostics([handle.id])).values()
    assert b"never submitted" in diagnostics.log_tail
    (await ce.kill([handle.id])).raise_for_failures()
    (await ce.purge([handle.id])).raise_for_failures()


async def test_a_kill_whose_answer_is_lost_has_killed(ce: FakeBackend) -> None:
    ids = await submitted(ce)
    ce.faults.add(Fault("kill", "lost-after-effect"))
    with pytest.raises(ConnectionLost):
        await ce.kill(ids)
    assert list((await ce.status(ids)).values()) == [JobStatus.CANCELLED]


@pytest.mark.parametrize(
    "operation", ["status", "fetch_output", "kill", "purge", "diagnostics", "details"]
)
async def test_an_item_fails_alone(ce: FakeBackend, tmp_path: Path, operation: str) -> None:
    ids = await submitted(ce, 3)
    ce.faults.add(Fault(operation, "item", copies=[1], ids=[ids[2]], code="not-now", message="why"))
    result = await CALLS[operation](ce, ids, tmp_path)
    failures = getattr(result, "failures")  # noqa: B009  # object: each call has its own result
    hit = {job: failure for job, failure in failures.items() if failure.code is FailureCode.NOT_NOW}
    assert set(hit) == set(ids[1:])
    assert {failure.message for failure in hit.values()} == {"why"}


async def test_some_copies_of_a_submit_can_fail(ce: FakeBackend) -> None:
    ce.faults.add(Fault("submit", "item", copies=[0, 2], code="refused"))
    submission = await ce.submit(SPEC, 4)
    assert [handle.copy for handle in submission.handles] == [1, 3]
    assert {copy: failure.code for copy, failure in submission.failures.items()} == {
        0: FailureCode.REFUSED,
        2: FailureCode.REFUSED,
    }
    with pytest.raises(PartialFailure):
        submission.raise_for_failures()
    assert await ce.find("t") == submission.handles


@pytest.mark.parametrize(("times", "failing"), [(1, 1), (3, 3), (0, 5)])
async def test_a_fault_hits_as_often_as_it_says(ce: FakeBackend, times: int, failing: int) -> None:
    ce.faults.add(Fault("counts", "unreachable", times=times))
    failed = 0
    for _ in range(5):
        try:
            await ce.counts()
        except Unreachable:
            failed += 1
    assert failed == failing
    ce.faults.clear()
    await ce.counts()


async def test_a_slow_call_returns_when_the_clock_says_so(
    ce: FakeBackend, clock: FakeClock
) -> None:
    ce.faults.add(Fault("counts", "slow", seconds=30))
    call = asyncio.create_task(ce.counts())
    await asyncio.sleep(0.01)
    clock.advance(29)
    await asyncio.sleep(0.01)
    assert not call.done()
    clock.advance(1)
    assert await call == JobCounts(0, 0)


async def test_a_slow_call_can_be_cancelled_and_the_backend_goes_on(ce: FakeBackend) -> None:
    ce.faults.add(Fault("submit", "slow", seconds=30))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ce.submit(SPEC)
    assert await ce.find("t") == ()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_the_first_waiter_of_a_connect_does_not_fail_the_others(
    ce: FakeBackend, clock: FakeClock
) -> None:
    ce.faults.add(Fault("connect", "slow", seconds=30))
    first = asyncio.create_task(ce.counts())
    others = [asyncio.create_task(ce.counts()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [JobCounts(0, 0)] * 3
    assert first.cancelled()


async def test_an_empty_list_of_ids_connects_to_nothing(ce: FakeBackend, tmp_path: Path) -> None:
    ce.faults.add(Fault("connect", "unreachable"))
    for call in (ce.status, ce.details, ce.diagnostics, ce.kill, ce.purge):
        assert len(await call([])) == 0
    assert len(await ce.fetch_output([], tmp_path / "dest")) == 0
    assert not (tmp_path / "dest").exists()
    with pytest.raises(Unreachable) as raised:
        await ce.counts()
    assert raised.value.operation == "connect"


async def test_a_broken_connection_is_made_anew(ce: FakeBackend) -> None:
    await ce.counts()
    ce.faults.add(Fault("counts", "lost-before-effect"))
    ce.faults.add(Fault("connect", "authentication"))
    with pytest.raises(TransportError):
        await ce.counts()
    with pytest.raises(AuthenticationError):
        await ce.counts()
    await ce.counts()


async def test_one_slow_fetch_over_its_limit_fails_alone(tmp_path: Path) -> None:
    ce = FakeBackend(FakeConfig(output_max_seconds=2))
    spec = SubmissionSpec("true", resident=True)
    ids = [handle.id for handle in (await ce.submit(spec, 2)).handles]
    ce.faults.add(Fault("fetch_output", "slow", seconds=9, copies=[0]))
    result = await ce.fetch_output(ids, tmp_path)
    assert {job: failure.code for job, failure in result.failures.items()} == {
        ids[0]: FailureCode.LIMIT
    }
    assert _copies_beneath(tmp_path) == ["1"]


async def test_output_that_arrives_too_slowly_is_over_the_limit(tmp_path: Path) -> None:
    ce = FakeBackend(FakeConfig(output_max_seconds=2, fetch_bytes_per_s=1000))
    ids = []
    for size in ("3000", "500"):
        spec = SubmissionSpec("payload.sh", ["fill", "f", size, "cat", "f"], resident=True)
        ids += [handle.id for handle in (await ce.submit(spec)).handles]
    result = await ce.fetch_output(ids, tmp_path)
    assert {job: failure.code for job, failure in result.failures.items()} == {
        ids[0]: FailureCode.LIMIT
    }


def _copies_beneath(dest: Path) -> list[str]:
    return [path.name for path in dest.glob("*/*")]


async def test_faults_come_from_the_configuration_too() -> None:
    table = {"operation": "submit", "kind": "item", "copies": [0], "code": "limit", "times": 2}
    ce = registry.backend({"type": "fake", "faults": [table]})
    codes = [(await ce.submit(SPEC)).failures.get(0) for _ in range(3)]
    assert [failure and failure.code for failure in codes] == [
        FailureCode.LIMIT,
        FailureCode.LIMIT,
        None,
    ]


@pytest.mark.parametrize(
    ("operation", "kind", "more"),
    [
        (Operation.COUNTS, FaultKind.ITEM, {}),
        (Operation.KILL, FaultKind.STAGED_ONLY, {}),
        (Operation.CONNECT, FaultKind.LOST_AFTER, {}),
        (Operation.KILL, FaultKind.SLOW, {"copies": [1]}),
        (Operation.KILL, FaultKind.SLOW, {"seconds": -1.0}),
        (Operation.KILL, FaultKind.SLOW, {"times": -1}),
    ],
)
def test_a_fault_that_cannot_happen_cannot_be_made(
    operation: Operation, kind: FaultKind, more: dict[str, float]
) -> None:
    with pytest.raises(ConfigurationError):
        Fault(operation, kind, **more)  # type: ignore[arg-type]  # each case has its own field
