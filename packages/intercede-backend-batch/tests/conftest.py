"""Backends on this machine, with a transport that counts and, when told to, cuts."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self

import anyio
import pytest
from attrs import define, evolve, field

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    JobHandle,
    JobID,
    JobStatus,
    Process,
    Scheduler,
    Submission,
    SubmissionSpec,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler
from intercede.transport.local import LocalTransport


@define
class Wire:
    """A transport around the local one: counts execs, and can lose the connection before or after one had its effect.

    Attributes:
        execs: How many scripts were sent.
        commands: The scripts that were sent, as they are.
        cut: Called before each script with its number; "before", "after" or None.
        shell: What runs in place of `sh`.
    """

    cut: Callable[[int], str | None] = field(default=lambda number: None)
    shell: Sequence[str] = ("sh",)
    execs: int = 0
    commands: list[Command] = field(factory=list)
    inner: LocalTransport = field(factory=LocalTransport)

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.inner.aclose()

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _sent(self, command: Command) -> str | None:
        """A script is sent."""
        self.execs += 1
        self.commands.append(command)
        cut = self.cut(self.execs)
        if cut == "before":
            raise ConnectionLost("cut before anything was sent", may_have_run=False)
        return cut

    def _in_shell(self, command: Command) -> Command:
        assert command.argv[0] == "sh"
        return evolve(command, argv=(*self.shell, *command.argv[1:]))

    async def run(self, command: Command) -> CommandResult:
        cut = self._sent(command)
        result = await self.inner.run(self._in_shell(command))
        if cut == "after":
            raise ConnectionLost("cut after it ran", may_have_run=True)
        return result

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        cut: str | None = None

        async def script_first(stdin: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
            nonlocal cut
            async for script in stdin:
                cut = self._sent(evolve(command, stdin=script))
                yield script

        if command.stdin:
            cut = self._sent(command)
        elif stdin is not None:
            # A session that is opened before there is anything to run in it.
            stdin = script_first(stdin)
        async with self.inner.stream(self._in_shell(command), stdin) as process:
            yield process
        if cut == "after":
            raise ConnectionLost("cut after it ran", may_have_run=True)

    async def put(self, local: Path, remote: str) -> None:
        await self.inner.put(local, remote)

    async def get(self, remote: str, local: Path) -> None:
        await self.inner.get(remote, local)


class MakeBackend(Protocol):
    def __call__(
        self,
        wire: Wire | None = None,
        *,
        slots: int = 4,
        name: str = "here",
        scheduler: Scheduler | None = None,
        **config: object,
    ) -> BatchBackend: ...


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A sandbox root; what a failed test leaves running there is ended."""
    path = tmp_path / "root"
    yield path
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                cwd = (entry / "cwd").readlink()
            except OSError:
                continue
            if cwd.is_relative_to(path):
                os.kill(int(entry.name), 9)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_backend(root: Path) -> MakeBackend:
    def make(
        wire: Wire | None = None,
        *,
        slots: int = 4,
        name: str = "here",
        scheduler: Scheduler | None = None,
        **config: object,
    ) -> BatchBackend:
        values = {"root": str(root), "grace_s": 1.0, **config}
        return BatchBackend(
            BatchConfig(**values),  # type: ignore[arg-type]  # keyword arguments of a test
            name,
            wire or Wire(),
            scheduler or DirectScheduler(DirectConfig(slots=slots)),
        )

    return make


def plainly(*command: str) -> tuple[str, ...]:
    """The command without root's right to read and change everything, if we have it."""
    if os.getuid():
        return command
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", *command)


def script(text: str, *arguments: str, **fields: object) -> SubmissionSpec:
    """A specification that runs shell text."""
    return SubmissionSpec(
        "/bin/sh",
        resident=True,
        arguments=["-c", text, "sh", *arguments],
        **fields,  # type: ignore[arg-type]  # keyword arguments of a test
    )


def ids_of(submission: Submission | Sequence[JobHandle]) -> list[JobID]:
    """The ids of a submission that went well."""
    if isinstance(submission, Submission):
        submission.raise_for_failures()
        submission = submission.handles
    return [handle.id for handle in submission]


async def finish(
    backend: BatchBackend, ids: Sequence[JobID], within_s: float = 30
) -> list[JobStatus]:
    """Wait until all have ended."""
    with anyio.fail_after(within_s):
        while True:
            statuses = list((await backend.status(ids)).values())
            if all(status.is_finished for status in statuses):
                return statuses
            await anyio.sleep(0.05)


async def until(
    backend: BatchBackend, ids: Sequence[JobID], status: JobStatus, within_s: float = 20
) -> None:
    """Wait until all have this status."""
    with anyio.fail_after(within_s):
        while set((await backend.status(ids)).values()) != {status}:
            await anyio.sleep(0.05)


class Tools:
    """What tests share, without importing each other."""

    Wire = Wire
    plainly = staticmethod(plainly)
    script = staticmethod(script)
    ids_of = staticmethod(ids_of)
    finish = staticmethod(finish)
    until = staticmethod(until)


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def tar(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which tar the host has, as the parameter says: "gnu", "other" (BusyBox's) or "none"."""
    if request.param != "gnu":
        tools = tmp_path / "tools"
        tools.mkdir()
        for folder in os.environ["PATH"].split(":"):
            for tool in Path(folder).glob("*"):
                if tool.name != "tar" and not (tools / tool.name).exists():
                    (tools / tool.name).symlink_to(tool)
        if request.param == "other":
            (tools / "tar").symlink_to(shutil.which("busybox") or "needs-busybox")
        monkeypatch.setenv("PATH", str(tools))
    return str(request.param)
