"""A connection that breaks while a script is on its way ends the script's input: half a script must do nothing at all."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from intercede.backend.batch import _attempting
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    FileRef,
    JobStatus,
    Process,
    ResourceError,
)
from intercede.transport.local import LocalTransport

#: How many bytes of the end of a script's input are tried one by one; the job lists that schedulers are given stand there.
TAIL = 40


class Shortened(LocalTransport):
    """Once told to, lets only a part of a command's input arrive, its own or else what is streamed, and then loses the connection."""

    missing = 0

    def _short(self, command: Command) -> Command:
        return evolve(command, stdin=command.stdin[: -self.missing])

    async def run(self, command: Command) -> CommandResult:
        if not self.missing:
            return await super().run(command)
        async with super().stream(self._short(command)) as process:
            await process.wait()
        raise ConnectionLost("it broke", may_have_run=True)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        if not self.missing:
            async with super().stream(command, stdin) as process:
                yield process
            return
        rest = None if command.stdin or stdin is None else self._short_of(stdin)
        async with super().stream(self._short(command), rest) as process:
            yield process
            await process.wait()
        raise ConnectionLost("it broke", may_have_run=True)

    async def _short_of(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk[: -self.missing]


@pytest.fixture
def wire() -> Shortened:
    return Shortened()


async def test_a_kill_that_is_cut_spares_the_copy_whose_number_begins_alike(
    make_backend: Any, tools: Any, wire: Shortened
) -> None:
    async with make_backend(wire, slots=20) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 13))
        await tools.until(ce, ids, JobStatus.RUNNING)
        for wire.missing in range(1, TAIL):
            with pytest.raises(ConnectionLost):
                await ce.kill(ids[12:])
        wire.missing = 0
        assert set((await ce.status(ids[:12])).values()) == {JobStatus.RUNNING}
        (await ce.kill(ids)).raise_for_failures()


async def test_a_purge_that_is_cut_removes_nothing(
    make_backend: Any, tools: Any, root: Path, wire: Shortened
) -> None:
    async with make_backend(wire, slots=20) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("true"), 13))
        await tools.finish(ce, ids)
        before = sorted(root.rglob("*"))
        for wire.missing in (*range(1, TAIL), *range(TAIL, 2500, 41)):
            with pytest.raises(ConnectionLost):
                await ce.purge(ids[12:])
            assert sorted(root.rglob("*")) == before
        wire.missing = 0
        (await ce.purge(ids)).raise_for_failures()


async def test_an_attempt_that_is_cut_is_none(
    make_backend: Any, tools: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler must not be given half of what it is to be told."""
    monkeypatch.setattr(_attempting, "_PAUSE_S", 0.0)
    tried: list[int] = []

    class Attempts(Shortened):
        @asynccontextmanager
        async def stream(
            self, command: Command, stdin: AsyncIterable[bytes] | None = None
        ) -> AsyncIterator[Process]:
            self.missing = 0 if command.stdin else len(tried) + 1
            async with super().stream(command, stdin) as process:
                yield process

        async def run(self, command: Command) -> CommandResult:
            self.missing = 0
            if b"/attempt" in command.stdin:
                tried.append(len(list(root.glob("*/attempt"))))
            return await super().run(command)

    async with make_backend(Attempts()) as ce:
        for _ in range(TAIL):
            ids = tools.ids_of(await ce.submit(tools.script("true")))
        # What was there when it was tried again.
        assert tried == list(range(TAIL))
        await tools.finish(ce, ids)


class Dropping(LocalTransport):
    """Lets so many bytes of what is streamed arrive, as if that were all."""

    left = 0

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        rest = None if stdin is None else self._some(stdin)
        async with super().stream(command, rest) as process:
            yield process

    async def _some(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        left = self.left
        async for chunk in chunks:
            yield chunk[:left]
            left -= min(left, len(chunk))


@pytest.mark.parametrize("tar", ["gnu", "other", "none"], indirect=True)
async def test_a_staging_that_is_cut_leaves_nothing(
    make_backend: Any, tools: Any, root: Path, tar: str
) -> None:
    wire = Dropping()
    spec = tools.script("true", inputs=[FileRef(f"in{n}", content=b"x" * 300) for n in range(3)])
    async with make_backend(wire) as ce:
        wire.left = 10**9
        done = (await ce.submit(spec)).handles[0].submission
        sizes = [file.stat().st_size for file in (root / done).rglob("*") if file.is_file()]
        for wire.left in range(0, sum(sizes) // 2, 401):
            with pytest.raises(ResourceError, match="could not be made"):
                await ce.submit(spec)
            assert {path.name for path in root.iterdir()} <= {done, ".direct"}
