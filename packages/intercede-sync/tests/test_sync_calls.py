"""A backend from synchronous code: calls, abilities, refusals."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest

from intercede import core, sync
from intercede.core import ClosedError, JobCounts, JobStatus, SubmissionSpec
from intercede.fake import CAPABILITIES, FakeBackend, FakeConfig, make_backend

FAKE = {"type": "fake", "speed": 100_000.0}


@pytest.fixture
def ce() -> Iterator[sync.JobBackend]:
    with sync.backend(FAKE) as backend:
        yield backend


def _finished(ce: sync.Monitor, ids: list[core.JobID]) -> dict[core.JobID, JobStatus]:
    deadline = time.monotonic() + 60
    while True:
        told = ce.status(ids)
        if all(status.is_finished for status in told.values()):
            return dict(told)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_jobs_on_this_machine_from_submit_to_purge(tmp_path: Path) -> None:
    with sync.backend({"transport": "local", "scheduler": "direct", "name": "here"}) as ce:
        assert isinstance(ce, sync.OutputRetriever) and isinstance(ce, sync.Purgeable)
        submission = ce.submit(SubmissionSpec("echo", ["hello"], resident=True), copies=2)
        ids = [handle.id for handle in submission.handles]

        statuses = _finished(ce, ids)
        outputs = ce.fetch_output(ids, tmp_path)
        ce.purge(ids).raise_for_failures()

    assert set(statuses.values()) == {JobStatus.SUCCESSFUL}
    said = [output.stdout.read_text() for output in outputs.values() if output.stdout]
    assert said == ["hello\n", "hello\n"]


@pytest.mark.parametrize("lacking", [(), CAPABILITIES, *((one,) for one in CAPABILITIES)])
def test_it_has_exactly_the_abilities_of_the_asynchronous_one(lacking: tuple[str, ...]) -> None:
    it = make_backend(FakeConfig(without=lacking))
    ce = sync.synchronous(it)

    for name in sync.__all__:
        protocol = getattr(sync, name)
        if name in dir(core) and name != "Managed":
            assert isinstance(ce, protocol) == isinstance(it, getattr(core, name)), name
    for name in (*CAPABILITIES, "destructive", "submit", "status"):
        assert hasattr(ce, name) == hasattr(it, name), name
    assert {name for name in dir(ce) if not name.startswith("_")} - {"close"} <= set(dir(it))


def test_two_with_the_same_abilities_are_of_one_class() -> None:
    one, other = (sync.synchronous(make_backend(FakeConfig(without=("kill",)))) for _ in "12")
    assert type(one) is type(other)


def test_signatures_and_docstrings_are_the_protocols(ce: sync.JobBackend) -> None:
    assert isinstance(ce, sync.OutputRetriever)
    for here, protocol in (
        (ce.submit, core.Submitter.submit),
        (ce.fetch_output, core.OutputRetriever.fetch_output),
        (ce.close, core.Managed.aclose),
    ):
        assert here.__doc__ and protocol.__doc__
        assert here.__doc__.splitlines()[0] == protocol.__doc__.splitlines()[0]
        bound = inspect.signature(protocol).parameters
        assert list(inspect.signature(here).parameters) == list(bound)[1:]
    assert type(ce).destructive.__doc__ == core.OutputRetriever.destructive.__doc__


def test_arguments_go_by_name_too(ce: sync.JobBackend) -> None:
    spec = SubmissionSpec("true", resident=True)
    assert len(ce.submit(spec=spec, copies=2).handles) == 2
    with pytest.raises(TypeError, match="cpoies"):
        ce.submit(spec, cpoies=2)  # type: ignore[call-arg]  # what is tested


def test_a_call_inside_a_running_loop_is_refused(ce: sync.JobBackend) -> None:
    async def main() -> None:
        for call in (lambda: ce.status([]), ce.close, ce.__enter__):
            with pytest.raises(RuntimeError, match=r"^<FakeBackend 'fake'>: \w+: .* running event"):
                call()

    asyncio.run(main())

    assert dict(ce.status([])) == {}


def test_a_thread_beside_a_running_loop_may_call(ce: sync.JobBackend) -> None:
    async def main() -> int:
        return len(await asyncio.to_thread(ce.status, []))

    assert asyncio.run(main()) == 0


def test_a_call_from_within_a_call_is_refused() -> None:
    class Reentrant(FakeBackend):
        async def counts(self) -> JobCounts:
            backend.status([])
            raise AssertionError

    backend = sync.synchronous(Reentrant(FakeConfig(), "fake"))
    with backend:
        assert isinstance(backend, sync.LoadReporter)
        with pytest.raises(RuntimeError, match="running event loop"):
            backend.counts()


def test_use_after_close_is_refused_and_close_is_idempotent() -> None:
    ce = sync.backend(FAKE)
    ce.status([])
    ce.close()
    ce.close()
    with pytest.raises(ClosedError, match="<FakeBackend 'fake'>: status: it is closed; make a new"):
        ce.status([])


def test_one_that_was_closed_before_its_first_use_is_closed() -> None:
    ce = sync.backend(FAKE)
    ce.close()
    with pytest.raises(ClosedError, match="it is closed"):
        ce.status([])


def test_errors_are_those_of_the_asynchronous_one(ce: sync.JobBackend) -> None:
    with pytest.raises(core.SpecRefused, match=r"^fake: submit: ") as refused:
        ce.submit(SubmissionSpec("/no/such/file"))
    assert refused.value.field == "executable"


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (SystemExit(3), SystemExit),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (asyncio.CancelledError(), CancelledError),
    ],
)
def test_whatever_a_backend_raises_does_not_end_the_loop(
    raised: BaseException, seen: type[BaseException]
) -> None:
    class Wild(FakeBackend):
        async def counts(self) -> JobCounts:
            raise raised

    with sync.synchronous(Wild(FakeConfig(), "wild")) as ce:
        assert isinstance(ce, sync.LoadReporter)
        with pytest.raises(seen):
            ce.counts()
        assert dict(ce.status([])) == {}


def test_a_call_has_the_callers_context_variables() -> None:
    class Seeing(FakeBackend):
        async def find(self, tag: str) -> tuple[core.JobHandle, ...]:
            raise LookupError(variable.get())

    variable = ContextVar("variable", default="nobody's")
    with sync.synchronous(Seeing(FakeConfig(), "seeing")) as ce:
        assert isinstance(ce, sync.Discoverable)
        for value in ("one", "two"):
            variable.set(value)
            with pytest.raises(LookupError, match=value):
                ce.find("tag")


def test_abilities_that_are_a_plugins_own_are_there_too() -> None:
    class Pausing(FakeBackend):
        async def pause(self, ids: Sequence[core.JobID]) -> int:
            """Hold them."""
            return len(ids)

        def not_asynchronous(self) -> None:
            raise AssertionError

    @runtime_checkable
    class CanPause(Protocol):
        def pause(self, ids: Sequence[core.JobID]) -> int: ...

    with sync.synchronous(Pausing(FakeConfig(), "pausing")) as ce:
        assert isinstance(ce, CanPause)
        assert ce.pause([core.JobID("a")]) == 1
        assert ce.pause.__doc__ == "Hold them."
        assert not hasattr(ce, "not_asynchronous")
    assert not hasattr(sync.backend(FAKE), "pause")


def test_what_is_no_backend_is_refused() -> None:
    backend = sync.backend(FAKE)
    for wrong in (object(), backend):
        with pytest.raises(TypeError, match="neither an asynchronous backend nor a provider"):
            sync.synchronous(wrong)  # type: ignore[call-overload]  # what is tested


# ---------------------------------------------------------------- loops of one's own


def test_a_loop_closes_what_lives_in_it_and_lets_nothing_in_any_more() -> None:
    closed: list[str] = []

    class Telling(FakeBackend):
        async def aclose(self) -> None:
            closed.append(self.resource)
            await super().aclose()

    with sync.Loop() as loop:
        open_ = sync.synchronous(Telling(FakeConfig(), "open"), loop=loop)
        with sync.synchronous(Telling(FakeConfig(), "closed"), loop=loop) as ce:
            ce.status([])
        open_.status([])
        unused = sync.synchronous(Telling(FakeConfig(), "unused"), loop=loop)

    loop.close()
    assert closed == ["closed", "open"]
    for each in (open_, unused):
        with pytest.raises(ClosedError, match="status: its event loop was closed"):
            each.status([])
        each.close()


def test_a_loop_runs_any_coroutine_function() -> None:
    async def add(one: int, *, other: int) -> int:
        return one + other

    with sync.Loop() as loop:
        assert loop.call(add, 1, other=2) == 3


def test_a_loop_of_ones_own_has_a_thread_of_its_own() -> None:
    async def thread() -> int:
        return threading.get_ident()

    with sync.Loop() as one, sync.Loop() as other:
        assert len({one.call(thread), other.call(thread), threading.get_ident()}) == 3


def test_one_that_is_dropped_is_closed_with_a_warning() -> None:
    closed = threading.Event()

    class Telling(FakeBackend):
        async def aclose(self) -> None:
            closed.set()

    ce: sync.JobBackend | None = sync.synchronous(Telling(FakeConfig(), "dropped"))
    assert ce is not None
    ce.status([])
    with pytest.warns(ResourceWarning, match="'dropped'> was not closed"):
        ce = None
        gc.collect()

    assert closed.wait(10)
