"""A backend from synchronous code: calls, abilities, refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from intercede import core, sync
from intercede.core import ClosedError, JobStatus, SubmissionSpec
from intercede.fake import CAPABILITIES, FakeConfig, make_backend

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


def test_two_with_the_same_abilities_are_of_one_class() -> None:
    one, other = (sync.synchronous(make_backend(FakeConfig(without=("kill",)))) for _ in "12")
    assert type(one) is type(other)


def test_a_call_inside_a_running_loop_is_refused(ce: sync.JobBackend) -> None:
    async def main() -> None:
        ce.status([])

    with pytest.raises(RuntimeError, match=r"FakeBackend.status: .* inside a running event loop"):
        asyncio.run(main())

    assert dict(ce.status([])) == {}


def test_use_after_close_is_refused_and_close_is_idempotent() -> None:
    ce = sync.backend(FAKE)
    ce.status([])
    ce.close()
    ce.close()
    with pytest.raises(ClosedError, match="status: it is closed"):
        ce.status([])
