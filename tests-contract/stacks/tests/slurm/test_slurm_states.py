"""Every state that Slurm can be brought to show, and what is said of it, while it lasts and when Slurm has forgotten it.

The ends are brought about together, since some take a minute. Each is asked for when it has come, again by another process, and once more
when the controller has lost all that it knew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from attrs import evolve, frozen

from intercede.core import FailureCode, JobCounts, JobDetails, JobID, JobStatus, Resources
from stacks.tests.slurm._scene import (
    FORGETFUL,
    Scene,
    native_of,
    opened,
    passing,
)

#: For a job of which nobody tells how it ended.
GRACE_S: Final = 10.0
#: Clocks are cut to seconds.
_SECOND: Final = timedelta(seconds=1)
_SLEEP: Final = "exec sleep 600"
_TRAPS: Final = "trap 'exit 0' TERM; while :; do sleep 1; done"
Provoked = Callable[[Scene], Awaitable[JobID]]


# ---------------------------------------------------------------- how ends are brought about


def exits(then: str) -> Provoked:
    async def provoked(scene: Scene) -> JobID:
        return (await scene.submitted(then))[0]

    return provoked


def overdue(then: str) -> Provoked:
    """A job that Slurm ends after its minute."""

    async def provoked(scene: Scene) -> JobID:
        return (await scene.submitted(then, resources=Resources(wall_time_s=60, queue="short")))[0]

    return provoked


async def killed_running(scene: Scene) -> JobID:
    [job] = await scene.running()
    (await scene.ce.kill([job])).raise_for_failures()
    return job


async def killed_trapping(scene: Scene) -> JobID:
    [job] = await scene.running(then=_TRAPS)
    (await scene.ce.kill([job])).raise_for_failures()
    return job


async def killed_element(scene: Scene) -> JobID:
    _, job, _ = await scene.held(copies=3)
    (await scene.ce.kill([job])).raise_for_failures()
    return job


async def killed_held(scene: Scene) -> JobID:
    [job] = await scene.held()
    (await scene.ce.kill([job])).raise_for_failures()
    return job


def cancelled_running(user: str, then: str = _SLEEP) -> Provoked:
    async def provoked(scene: Scene) -> JobID:
        [job] = await scene.running(then=then)
        await scene.scancel(native_of(job), user=user)
        return job

    return provoked


async def cancelled_pending(scene: Scene) -> JobID:
    [job] = await scene.held()
    await scene.scancel(native_of(job))
    return job


async def cancelled_element(scene: Scene) -> JobID:
    _, job, _ = await scene.held(copies=3)
    await scene.scancel(native_of(job))
    return job


def preempted(queue: str) -> Provoked:
    """A job of a whole node that another one of higher rank needs."""

    async def provoked(scene: Scene) -> JobID:
        async with scene.alone("n4"):
            [job] = await scene.running(resources=Resources(queue=queue, cpus=64))
            above = await scene.submitted("", resources=Resources(queue="high", cpus=64))
            await scene.until(above, JobStatus.SUCCESSFUL)
        return job

    return provoked


async def node_failed(scene: Scene) -> JobID:
    async with scene.alone("n5"):
        [job] = await scene.running(resources=Resources(queue="single"))
        await scene.cluster.fail_node("n5")
    return job


async def sandbox_away(scene: Scene) -> JobID:
    """Where the job starts its directory is not there, as on a node that has not mounted it."""
    [job] = await scene.held()
    _, submission, _, native = job.split("/")
    there, away = f"{scene.root}/{submission}", f"{scene.place}/away"
    await scene.as_account('mv "$1" "$2"', there, away)
    await scene.control("release", native)

    async def over() -> bool:
        return [row.state for row in await scene.in_slurm(submission)] in ([], ["FAILED"])

    await passing(over, "the job's end")
    await scene.as_account('mv "$1" "$2"', away, there)
    return job


async def too_late(scene: Scene) -> JobID:
    """A job that has no room until it is too late to begin it; one that is held is left alone by 20.11 and 22.05."""
    async with scene.alone("n5"):
        single = Resources(queue="single", wall_time_s=60)
        before = await scene.running(resources=Resources(queue="single", wall_time_s=600))
        [job] = await scene.submitted(
            ce=await scene.backend(options=["--deadline=now+70"]), resources=single
        )

        async def over() -> bool:
            states = [row.state for row in await scene.in_slurm(job.split("/")[1])]
            return states != ["PENDING"]

        await passing(over, "the deadline")
        (await scene.ce.kill(before)).raise_for_failures()
    return job


# ---------------------------------------------------------------- ends


@frozen
class End:
    """How a job ends, and what is to be said of it.

    Attributes:
        provoked: Brings it about.
        status: Ours.
        native: Slurm's word, when asked in time.
        exit_code: Of the payload.
        signal: What ended it.
        reason: What the reason says, among other things; None: there is none.
        started: Whether it ran, so that times and node are known.
    """

    provoked: Provoked
    status: JobStatus
    native: str | None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    started: bool = True

    @property
    def recorded(self) -> bool:
        """Whether the sandbox tells all of it."""
        words = self.reason or ""
        return not words or words.startswith(("exit code", "signal", "killed by us"))


_FAILED, _CANCELLED = JobStatus.FAILED, JobStatus.CANCELLED
ENDS: Final[Mapping[str, End]] = {
    "exit code 0": End(exits("exit 0"), JobStatus.SUCCESSFUL, "COMPLETED", 0),
    "exit code 3": End(exits("exit 3"), _FAILED, "FAILED", 3, reason="exit code 3"),
    # sacct of 20.11 to 24.11 cuts these two: to 0 and 127.
    "exit code 128": End(exits("exit 128"), _FAILED, "FAILED", 128, reason="exit code 128"),
    "exit code 255": End(exits("exit 255"), _FAILED, "FAILED", 255, reason="exit code 255"),
    "signal 9": End(exits("kill -9 $$"), _FAILED, "FAILED", None, 9, "signal 9"),
    "time-out": End(overdue(_SLEEP), _FAILED, "TIMEOUT", None, 15, "time limit"),
    "time-out, trapped": End(overdue(_TRAPS), _FAILED, "TIMEOUT", 0, None, "time limit"),
    "killed running": End(killed_running, _CANCELLED, "CANCELLED", None, 15, "killed by us"),
    "killed, trapped": End(killed_trapping, _CANCELLED, "CANCELLED", 0, None, "killed by us"),
    "killed held": End(killed_held, _CANCELLED, "CANCELLED", reason="killed by us", started=False),
    # One element alone that is cancelled while it waits is forgotten at once, by all versions.
    "killed element": End(killed_element, _CANCELLED, None, reason="killed by us", started=False),
    "scancel": End(cancelled_running(""), _CANCELLED, "CANCELLED", None, 15, "cancelled"),
    "scancel, trapped": End(
        cancelled_running("", _TRAPS), _CANCELLED, "CANCELLED", 0, None, "cancelled"
    ),
    "scancel of the administrator": End(
        cancelled_running("root"), _CANCELLED, "CANCELLED", None, 15, "cancelled"
    ),
    "scancel held": End(
        cancelled_pending, _CANCELLED, "CANCELLED", reason="cancelled", started=False
    ),
    "scancel element": End(
        cancelled_element,
        JobStatus.FINISHED_UNKNOWN,
        None,
        reason="left no record of its end",
        started=False,
    ),
    "preempted, to be requeued": End(
        preempted("low"), _FAILED, "PREEMPTED", None, 15, "precedence"
    ),
    "preempted, to be cancelled": End(
        preempted("lowc"), _FAILED, "PREEMPTED", None, 15, "precedence"
    ),
    "node failed": End(node_failed, _FAILED, "NODE_FAIL", None, 15, "node failed"),
    "sandbox not there": End(sandbox_away, _FAILED, "FAILED", reason="Slurm", started=False),
    "deadline": End(too_late, _FAILED, "DEADLINE", reason="deadline", started=False),
}


@frozen
class Told:
    """What was said of a job's end.

    Attributes:
        job: Which.
        since: When it was submitted, or earlier.
        first: As soon as it had ended.
        again: By another process.
        forgotten: When Slurm had forgotten the job.
    """

    job: JobID
    since: datetime
    first: JobDetails
    again: JobDetails
    forgotten: JobDetails | None = None


@pytest.fixture(scope="module")
def ends(request: pytest.FixtureRequest) -> Mapping[str, Told | BaseException]:
    """Those that the chosen tests ask for, all at once."""
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "ends" in item.fixturenames
    }
    return asyncio.run(_told_of_ends([name for name in ENDS if name in asked]))


async def _told_of_ends(names: Sequence[str]) -> Mapping[str, Told | BaseException]:
    async with opened(grace_s=GRACE_S) as scene:
        calls = [_told(scene, ENDS[name]) for name in names]
        told = await asyncio.gather(*calls, return_exceptions=True)
        found = dict(zip(names, told, strict=True))
        await scene.cluster.cold_start()
        known = {name: one for name, one in found.items() if isinstance(one, Told)}
        details = await scene.ce.details([one.job for one in known.values()])
        late = {name: evolve(one, forgotten=details[one.job]) for name, one in known.items()}
        return {**found, **late}


async def _told(scene: Scene, end: End) -> Told:
    since = datetime.now(UTC)
    job = await end.provoked(scene)
    first = (await scene.finished([job]))[job]
    again = await scene.details(job, await scene.another())
    return Told(job, since, first, again)


def told(ends: Mapping[str, Told | BaseException], name: str) -> Told:
    """What was said of one of them."""
    one = ends[name]
    assert isinstance(one, Told), f"it was not brought about: {one!r}"
    return one


every_end = pytest.mark.parametrize("name", ENDS)


@every_end
def test_an_end_is_told_with_its_details(
    ends: Mapping[str, Told | BaseException], name: str
) -> None:
    found = told(ends, name).first
    seen = (found.status, found.native_state, found.exit_code, found.signal)
    expected = [
        (end.status, end.native, end.exit_code, end.signal)
        for end in _acceptable(ENDS[name])
        if (end.reason or "") in (found.reason or "") and bool(end.reason) == bool(found.reason)
    ]
    assert seen in expected, found


def _acceptable(end: End) -> Iterator[End]:
    """As Slurm tells it; where it may have forgotten the job when it is asked, also as the runner's record does."""
    yield end
    if FORGETFUL and end.recorded:
        yield evolve(end, native=None)
    elif FORGETFUL and end.started:
        yield evolve(end, native=None, status=_FAILED, reason="told to end (TERM)")
    elif FORGETFUL:
        unknown = JobStatus.FINISHED_UNKNOWN
        yield evolve(end, native=None, status=unknown, reason="left no record of its end")


@pytest.mark.parametrize("name", [name for name, end in ENDS.items() if end.started])
def test_an_end_is_told_with_its_times_and_its_node(
    ends: Mapping[str, Told | BaseException], name: str
) -> None:
    one = told(ends, name)
    found = one.first
    assert found.started_at is not None, found
    assert found.ended_at is not None, found
    assert one.since - _SECOND <= found.started_at <= found.ended_at, found
    assert found.ended_at <= datetime.now(UTC) + _SECOND, found
    assert found.node, found


@every_end
def test_another_process_is_told_the_same_end(
    ends: Mapping[str, Told | BaseException], name: str
) -> None:
    one = told(ends, name)
    assert one.again == one.first or (FORGETFUL and _recorded(one.again) == _recorded(one.first))


@every_end
def test_an_end_is_told_when_slurm_has_forgotten_the_job(
    ends: Mapping[str, Told | BaseException], name: str
) -> None:
    one = told(ends, name)
    assert one.forgotten is not None
    assert _recorded(one.forgotten) == _recorded(one.first)


def _recorded(details: JobDetails) -> JobDetails:
    """What the runner wrote down does not say what Slurm calls it."""
    return evolve(details, native_state=None)


# ---------------------------------------------------------------- while it lasts


@frozen
class Wait:
    """Why a job waits, and what is to be said of it.

    Attributes:
        status: Ours.
        reason: Slurm's, as the reason says it among other things.
        words: The same for people.
    """

    status: JobStatus
    reason: str
    words: str


async def held_by_user(scene: Scene) -> JobID:
    return (await scene.held())[0]


async def held_by_administrator(scene: Scene) -> JobID:
    [job] = await scene.held()
    await scene.control("hold", native_of(job))
    return job


async def not_before(scene: Scene) -> JobID:
    ce = await scene.backend(options=["--begin=now+1hour"])
    return (await scene.submitted(ce=ce))[0]


async def depends_in_vain(scene: Scene) -> JobID:
    [failed] = await scene.running(then="sleep 5; exit 1")
    ce = await scene.backend(options=[f"--dependency=afterok:{native_of(failed)}"])
    return (await scene.submitted(ce=ce))[0]


async def depends(scene: Scene) -> JobID:
    [other] = await scene.running()
    ce = await scene.backend(options=[f"--dependency=afterok:{native_of(other)}"])
    return (await scene.submitted(ce=ce))[0]


async def throttled(scene: Scene) -> JobID:
    ids = await scene.held(copies=2, then=_SLEEP)
    array = native_of(ids[0]).partition("_")[0]
    await scene.control("update", f"JobId={array}", "ArrayTaskThrottle=1")
    await scene.control("release", array)
    await scene.until(ids[:1], JobStatus.RUNNING)
    return ids[1]


async def no_room(scene: Scene) -> JobID:
    await scene.running(resources=Resources(queue="single"))
    return (await scene.submitted(resources=Resources(queue="single")))[0]


WAITS: Final[Mapping[str, tuple[Provoked, Wait]]] = {
    "user": (held_by_user, Wait(JobStatus.HELD, "JobHeldUser", "held by its user")),
    "administrator": (
        held_by_administrator,
        Wait(JobStatus.HELD, "JobHeldAdmin", "held by an administrator"),
    ),
    "begin": (not_before, Wait(JobStatus.PENDING, "BeginTime", "its time to begin")),
    "dependency": (depends, Wait(JobStatus.PENDING, "Dependency", "waits for other jobs")),
    "dependency in vain": (
        depends_in_vain,
        Wait(JobStatus.HELD, "DependencyNeverSatisfied", "never come true"),
    ),
    "throttle": (throttled, Wait(JobStatus.PENDING, "JobArrayTaskLimit", "other tasks")),
    "resources": (no_room, Wait(JobStatus.PENDING, "Resources", "free resources")),
}


@pytest.mark.parametrize("name", WAITS)
async def test_a_job_that_waits_says_why(scene: Scene, name: str) -> None:
    provoked, wait = WAITS[name]
    job = await provoked(scene)
    details = await scene.waiting(job, wait.reason)
    assert (details.status, details.native_state) == (wait.status, "PENDING"), details
    assert wait.words in (details.reason or "")
    assert (details.started_at, details.ended_at, details.node) == (None, None, None)
    assert (details.exit_code, details.signal) == (None, None)
    assert await scene.details(job, await scene.another()) == details
    shown = (await scene.ce.diagnostics([job]))[job]
    assert wait.reason in shown.log_tail.decode()
    assert (await scene.ce.counts()).waiting == (await scene.count("PENDING"))


@pytest.mark.parametrize("name", ["user", "administrator"])
async def test_a_held_job_that_is_released_runs(scene: Scene, name: str) -> None:
    job = await WAITS[name][0](scene)
    await scene.until([job], JobStatus.HELD)
    await scene.control("release", native_of(job))
    await scene.until([job], JobStatus.SUCCESSFUL)
    assert list((await scene.ran()).values()) == [1]


async def test_a_running_job_says_since_when_and_where(scene: Scene) -> None:
    before = datetime.now(UTC) - _SECOND
    [job] = await scene.running()
    details = await scene.details(job)
    assert (details.status, details.native_state) == (JobStatus.RUNNING, "RUNNING")
    assert details.started_at is not None
    assert before <= details.started_at <= datetime.now(UTC) + _SECOND
    assert details.node in ("n1", "n2", "n3")
    assert (details.ended_at, details.exit_code, details.signal) == (None, None, None)
    assert await scene.ce.counts() == JobCounts(running=1, waiting=0)


async def test_a_suspended_job_runs_still(scene: Scene) -> None:
    [job] = await scene.running()
    await scene.control("suspend", native_of(job))
    details = await scene.details(job)
    assert (details.status, details.native_state) == (JobStatus.RUNNING, "SUSPENDED")
    assert "suspended" in (details.reason or "")
    assert await scene.ce.counts() == JobCounts(running=1, waiting=0)
    await scene.control("resume", native_of(job))
    (await scene.ce.kill([job])).raise_for_failures()
    await scene.until([job], JobStatus.CANCELLED)


async def test_a_suspended_job_can_be_killed(scene: Scene) -> None:
    [job] = await scene.running()
    await scene.control("suspend", native_of(job))
    (await scene.ce.kill([job])).raise_for_failures()
    await scene.until([job], JobStatus.CANCELLED)


async def test_a_job_whose_sandbox_is_gone_is_no_such_job(scene: Scene) -> None:
    [job] = await scene.held()
    _, submission, _, native = job.split("/")
    await scene.as_account('rm -rf "$1"', f"{scene.root}/{submission}")
    for _ in range(2):
        failure = (await scene.ce.status([job])).failures[job]
        assert failure.code is FailureCode.NO_SUCH_JOB
    await scene.scancel(native)


async def test_a_job_that_is_requeued_by_hand_runs_once_and_ends(scene: Scene) -> None:
    """Its administrator lets it be requeued, against what was submitted."""
    [job] = await scene.running()
    native = native_of(job)
    await scene.control("update", f"JobId={native}", "Requeue=1")
    await scene.control("requeue", native)
    details = (await scene.finished([job]))[job]
    assert details.status is JobStatus.FAILED, details
    assert await scene.details(job, await scene.another()) == details
    assert list((await scene.ran()).values()) == [1]
    assert await scene.ce.counts() == JobCounts(running=0, waiting=0)
