"""The attempt's session is opened while the host still unpacks; its script is sent when all is staged, and never before."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from intercede.backend.batch import _attempting
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    JobStatus,
    OperationTimeout,
    Process,
    ResourceError,
)
from intercede.transport.local import LocalTransport


class Told(LocalTransport):
    """Writes down what happens to the session of an attempt and to that of the staging, and may do something to either.

    Attributes:
        story: In the order of events.
        at_staged: Called when the host has said that all is staged, before anybody hears of it.
        at_open: Called before the attempt's session is opened.
        at_sent: Called when the attempt's script has been sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.story: list[str] = []
        self.at_staged: Callable[[], Any] = anyio.lowlevel.checkpoint
        self.at_open: Callable[[], Any] = anyio.lowlevel.checkpoint
        self.at_sent: Callable[[], Any] = anyio.lowlevel.checkpoint

    async def run(self, command: Command) -> CommandResult:
        if b"/attempt" in command.stdin and b"setsid" in command.stdin:
            self.story.append("tried again")
        return await super().run(command)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        if stdin is None:
            async with super().stream(command) as process:
                yield process
            return
        if command.stdin:
            async with super().stream(command, stdin) as process:
                yield process
            self.story.append("staged")
            await self.at_staged()
            return
        await self.at_open()
        self.story.append("opened")
        async with super().stream(command, self._sent(stdin)) as process:
            yield process

    async def _sent(self, scripts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for script in scripts:
            self.story.append("sent")
            yield script
            await self.at_sent()


async def opened(wire: Told) -> None:
    """Wait for it."""
    with anyio.fail_after(10):
        while "opened" not in wire.story:
            await anyio.sleep(0.01)


async def test_its_session_is_opened_before_all_is_staged_and_its_script_sent_after(
    make_backend: Any, tools: Any
) -> None:
    wire = Told()
    wire.at_staged = lambda: opened(wire)
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("true"), 3))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL] * 3
    assert sorted(wire.story[:2]) == ["opened", "staged"]
    assert wire.story[2:] == ["sent"]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost("lost", may_have_run=True),
        OperationTimeout("too long", may_have_run=True),
        ResourceError("the login shell did not start it"),
    ],
    ids=["lost", "timed out", "not started"],
)
async def test_a_session_that_could_not_be_opened_has_run_nothing_and_another_is_taken(
    make_backend: Any, tools: Any, root: Path, error: Exception
) -> None:
    wire = Told()

    async def fail() -> None:
        raise error

    wire.at_open = fail
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("true"), 3))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL] * 3
    assert wire.story == ["staged", "tried again"]
    assert len(list(root.glob("*/attempt"))) == 1


async def test_a_session_is_not_kept_for_a_host_that_unpacks_for_long(
    make_backend: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attempting, "_NEAR_S", 0.05)
    wire = Told()

    async def long() -> None:
        await opened(wire)
        await anyio.sleep(0.5)

    wire.at_staged = long
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("true")))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL]
    assert "sent" not in wire.story
    assert wire.story[-1] == "tried again"


async def test_what_could_not_be_staged_is_not_submitted(
    make_backend: Any, tools: Any, root: Path
) -> None:
    wire = Told()

    async def fail() -> None:
        await opened(wire)
        raise ConnectionLost("lost", may_have_run=True)

    wire.at_staged = fail
    async with make_backend(wire) as ce:
        with pytest.raises(ConnectionLost) as caught:
            await ce.submit(tools.script("true"))
        assert not caught.value.may_have_run
        assert [path.name for path in root.iterdir() if path.name != ".direct"] == []
    assert "sent" not in wire.story and "tried again" not in wire.story


async def test_a_call_that_is_cancelled_while_it_is_submitted_leaves_its_jobs_to_be_found(
    make_backend: Any, tools: Any
) -> None:
    wire = Told()
    async with make_backend(wire) as ce:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await anyio.sleep(0.3)
                scope.cancel()
                await anyio.sleep(0)

            wire.at_sent = cancel
            await ce.submit(tools.script("true", tag="cancelled"), 3)
        ids = [handle.id for handle in await ce.find("cancelled")]
        assert len(ids) == 3
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL] * 3


async def test_whoever_is_cancelled_by_asyncio_itself_still_knows_it(
    make_backend: Any, tools: Any
) -> None:
    """`asyncio.timeout` and the runner's Ctrl-C count on `Task.cancelling`."""
    seen: list[int] = []

    async def submit() -> None:
        try:
            await ce.submit(tools.script("true"), 3)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            seen.append(task.cancelling())
            raise

    async with make_backend() as ce:
        await ce.counts()
        for moment in range(30):
            task = asyncio.ensure_future(submit())
            await anyio.sleep(moment * 0.003)
            is_cancelled = task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() == is_cancelled
    assert len(seen) > 5
    assert set(seen) == {1}
