"""The suite, held against real processes in real sandboxes on this machine."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.contract import BackendContract, LocalProbe, Resource
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    JobBackend,
    JobDetails,
    JobHandle,
    NativeJob,
    Process,
    Results,
    Unreachable,
    registry,
)
from intercede.scheduler.direct import DirectConfig, DirectScheduler
from intercede.transport.local import LocalTransport

ROOT = Path(os.environ["INTERCEDE_CONTRACT_ROOT"])


class UnreachableTransport(LocalTransport):
    async def run(self, command: Command) -> CommandResult:
        raise Unreachable("nothing answers", remedy="try again later")

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        await self.run(command)
        async with super().stream(command, stdin) as process:
            yield process


class ForgetfulTransport(LocalTransport):
    """Loses the answer of the first command after something was staged, once it has run."""

    staged = False

    async def run(self, command: Command) -> CommandResult:
        result = await super().run(command)
        if self.staged:
            self.staged = False
            raise ConnectionLost("it broke", may_have_run=True)
        return result

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        async with super().stream(command, stdin) as process:
            yield process
        self.staged = stdin is not None


class DyingTransport(LocalTransport):
    """Carries nothing any more once something was staged."""

    dead = False

    async def run(self, command: Command) -> CommandResult:
        if self.dead:
            raise ConnectionLost("it broke", may_have_run=False)
        return await super().run(command)

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        async with super().stream(command, stdin) as process:
            yield process
        self.dead = True


class CuttingTransport(LocalTransport):
    """Ends every stream of output early."""

    @asynccontextmanager
    async def stream(
        self, command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        async with super().stream(command, stdin) as process:
            yield process if stdin is not None else CutProcess(process)


class CutProcess:
    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        return self._some()

    async def _some(self) -> AsyncIterator[bytes]:
        left = 150_000
        async for chunk in self._process.stdout:
            yield chunk[:left]
            left -= min(left, len(chunk))

    async def wait(self) -> CommandResult:
        return await self._process.wait()


class DeafScheduler(DirectScheduler):
    """Its command for the status fails."""

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        return super().parse_status(jobs, [CommandResult(1, b"", b"no daemon")] * len(results))


class GarblingScheduler(DirectScheduler):
    """Its row for one job is garbage."""

    native = ""

    def parse_status(
        self, jobs: Sequence[NativeJob], results: Results
    ) -> Mapping[NativeJob, JobDetails]:
        garbled = [
            CommandResult(
                result.returncode,
                b"\n".join(
                    b"\xff\xfe ?? " if line.startswith(self.native.encode()) else line
                    for line in result.stdout.split(b"\n")
                ),
            )
            for result in results
        ]
        return super().parse_status(jobs, garbled)


def composed(
    config: Mapping[str, Any],
    transport: LocalTransport | None = None,
    scheduler: DirectScheduler | None = None,
) -> BatchBackend:
    return BatchBackend(
        BatchConfig(root=config["root"], submit_deadline_s=20),
        config.get("name", "local-direct"),
        transport or LocalTransport(),
        scheduler or DirectScheduler(DirectConfig(slots=100)),
    )


class LocalFaults:
    """What can be made to go wrong between this process and its own machine."""

    def status_fails(self, config: Mapping[str, Any]) -> AbstractAsyncContextManager[JobBackend]:
        return composed(config, scheduler=DeafScheduler(DirectConfig(slots=100)))

    def unreachable(self, config: Mapping[str, Any]) -> AbstractAsyncContextManager[JobBackend]:
        return composed(config, UnreachableTransport())

    def row_is_garbage(
        self, config: Mapping[str, Any], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        scheduler = GarblingScheduler(DirectConfig(slots=100))
        scheduler.native = handle.id.split("/")[3]
        return composed(config, scheduler=scheduler)

    def submit_answer_lost(
        self, config: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[JobBackend]:
        return composed(config, ForgetfulTransport())

    def lost_after_staging(
        self, config: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[JobBackend]:
        return composed(config, DyingTransport())

    def output_cut(
        self, config: Mapping[str, Any], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        return composed(config, CuttingTransport())

    @asynccontextmanager
    async def id_reused(
        self, config: Mapping[str, Any], finished: JobHandle, running: JobHandle
    ) -> AsyncIterator[JobBackend]:
        was, now = (
            Path(config["root"], handle.submission, str(handle.copy))
            for handle in (finished, running)
        )
        # A job counts as running from the moment that a worker has chosen it.
        async with asyncio.timeout(20):
            while not (now / "start").exists():
                await asyncio.sleep(0.01)
        for name in ("slot", "start"):
            shutil.copy(now / name, was / name)
        async with registry.backend(config) as backend:
            yield backend


def resource(place: str) -> Resource:
    """This machine, with the sandboxes in a place of their own: the workers there have the tools of whoever started them."""
    config = {
        "transport": "local",
        "scheduler": {"type": "direct", "slots": 100},
        "root": str(ROOT / place),
    }
    alone = {**config, "root": str(ROOT / f"{place}-{{unique}}")}
    return Resource(
        config=config,
        seconds=0.3,
        other_process=True,
        narrow={**alone, "scheduler": {"type": "direct", "slots": 1}},
        limited={
            "bytes": {**alone, "output_max_bytes": 100_000},
            "files": {**alone, "output_max_files": 20},
            "seconds": {**alone, "output_max_s": 0.2},
        },
        probe=LocalProbe(ROOT / place),
        faults=LocalFaults(),
    )


class TestLocalDirect(BackendContract):
    resource = resource("shared")


class TestLocalDirectWithoutTar(BackendContract):
    """All the usual tools but one."""

    resource = resource("without-tar")

    @pytest.fixture(autouse=True)
    def tools(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path_factory.mktemp("tools")
        for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
            for tool in Path(folder).glob("*"):
                if not (place / tool.name).exists() and "tar" not in tool.name:
                    (place / tool.name).symlink_to(tool)
        monkeypatch.setenv("PATH", str(place))


class TestLocalDirectOnBusyBox(BackendContract):
    """BusyBox and nothing else, but for `flock`, which Debian leaves out of it."""

    resource = resource("busybox")

    @pytest.fixture(autouse=True)
    def tools(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path_factory.mktemp("tools")
        busybox, flock = shutil.which("busybox"), shutil.which("flock")
        assert busybox is not None and flock is not None, "apt-get install busybox util-linux"
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        for tool in listed.stdout.split():
            (place / tool).symlink_to(busybox)
        if not (place / "flock").exists():
            (place / "flock").symlink_to(flock)
        monkeypatch.setenv("PATH", str(place))
