"""The host that a backend works on: reached through the transport, known by one probe.

Everything that crosses the transport is a script made here; nothing else of the package knows how commands travel.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache, partial
from typing import Final

from attrs import evolve, field, frozen

from intercede.core import (
    CommandResult,
    Facts,
    InterCEdeError,
    ResourceError,
    Scheduler,
    StagedBatch,
    SubmissionSpec,
    Transport,
)
from intercede.toolkit import Frames, Script

from . import _sandbox as sandbox
from ._config import BatchConfig
from ._ids import read_id
from ._porters import Porters

__all__ = ["Host", "refused_root", "shown"]

_STDERR_SHOWN: Final = 2000
#: The same jobs are asked for again and again: of so many, what their ids say is kept (some 20 MB).
_POLLED: Final = 2**15
#: How old an answer of the probe may be before a specification is refused because of it, in seconds.
_FRESH_S: Final = 60.0


@frozen
class _Probe:
    """What the probe told.

    Attributes:
        root: The sandbox root, absolute.
        tar: Which tar there is, as `PROBE_TAR` tells.
        facts: The scheduler's.
        asked_at: When it was asked, by the monotonic clock.
    """

    root: str
    tar: str
    facts: Facts = field(hash=False)
    asked_at: float


class Host:
    """Where the sandboxes are and the scheduler's commands run.

    Args:
        config: The backend's.
        name: The resource's name.
        transport: The way there.
        scheduler: The language spoken there.
    """

    def __init__(
        self, config: BatchConfig, name: str, transport: Transport, scheduler: Scheduler
    ) -> None:
        self.config = config
        self.name = name
        self.transport = transport
        self.scheduler = scheduler
        self.native_id = re.compile(scheduler.native_id)
        #: The parts of an id, or why it cannot be this resource's. No I/O.
        self.read_id = lru_cache(maxsize=_POLLED)(partial(read_id, name, self.native_id))
        self.porters = Porters()
        self._opening = asyncio.Lock()
        self._probe: _Probe | None = None

    async def aclose(self) -> None:
        """Let go of it."""
        try:
            await self.porters.aclose()
        finally:
            await self.transport.aclose()

    async def connect(self) -> None:
        """Open the transport and probe, once for all who wait; if the first of them is cancelled, the next one does it (L6)."""
        async with self._opening:
            if self._probe is None:
                await self.transport.__aenter__()
                self._probe = await self._ask()

    async def ask_again(self) -> bool:
        """Probe again, since what refused a specification may have changed: a queue is opened, a limit raised.

        Returns:
            False: what is known is fresh, and nothing was asked.
        """
        async with self._opening:
            assert self._probe is not None
            if time.monotonic() - self._probe.asked_at < _FRESH_S:
                return False
            self._probe = await self._ask()
            return True

    async def _ask(self) -> _Probe:
        asked_at = time.monotonic()
        script = Script()
        script.add('frame say; printf "home %s\\n" "$HOME"')
        script.add(sandbox.PROBE_TAR)
        commands = self.scheduler.probe_commands(None)
        script.run_all("probe", commands)
        frames = await self.run(script)
        home = next((line[5:] for line in frames.lines if line.startswith("home /")), "/")
        tar = next((line[4:] for line in frames.lines if line.startswith("tar ")), sandbox.TAR_NONE)
        root = self.config.root or f"~/.intercede/{self.name}"
        if root == "~" or root.startswith("~/"):
            root = home.rstrip("/") + root[1:]
        elif not root.startswith("/"):
            root = f"{home.rstrip('/')}/{root}"
        facts = self.scheduler.parse_probe(frames.commands("probe", len(commands)))
        return _Probe(root.rstrip("/") or "/", tar, facts, asked_at)

    @property
    def root(self) -> str:
        """The sandbox root, absolute. Known once connected."""
        assert self._probe is not None
        return self._probe.root

    @property
    def tar(self) -> str:
        """Which tar there is, as `PROBE_TAR` tells. Known once connected."""
        assert self._probe is not None
        return self._probe.tar

    @property
    def facts(self) -> Facts:
        """What the scheduler's probe told. Known once connected."""
        assert self._probe is not None
        return self._probe.facts

    def script(self) -> Script:
        """A script that begins in the sandbox root."""
        script = Script()
        script.add(sandbox.enter(self.root))
        return script

    async def run(self, script: Script, timeout_s: float | None = None) -> Frames:
        """Run a script to its end.

        Raises:
            ResourceError: It did not come to its end, or the sandbox root is not what it should be.
        """
        seconds = timeout_s or self.config.command_timeout_s
        result = await self.transport.run(script.command(timeout_s=seconds))
        return _whole(script, result)

    async def run_when(
        self, script: Script, go: Callable[[], Awaitable[bool]], timeout_s: float
    ) -> Frames | None:
        """Run a script as soon as it may, in a session that is opened at once: opening takes as long as a command that answers at once.

        Args:
            script: It is not sent before.
            go: Waits until it may run, and tells whether it may.
            timeout_s: For all of it.

        Returns:
            None: it may not, or there was no session: nothing has run.

        Raises:
            InterCEdeError: The script was sent; see `run`.
        """
        command = script.command(timeout_s=timeout_s)
        sent = False

        async def when_it_may() -> AsyncIterator[bytes]:
            nonlocal sent
            if await go():
                sent = True
                yield command.stdin

        answer = bytearray()
        try:
            async with self.transport.stream(evolve(command, stdin=b""), when_it_may()) as process:
                async for chunk in process.stdout:
                    answer += chunk
                result = await process.wait()
        except InterCEdeError:
            if sent:
                raise
            return None
        return _whole(script, evolve(result, stdout=bytes(answer))) if sent else None

    def mark(self, submission: str = "") -> str:
        """What the scheduler knows a submission by; without one, what all marks of this resource begin with."""
        return f"intercede:{self.name}:{submission}"

    def batch(self, submission: str, spec: SubmissionSpec, copies: int) -> StagedBatch:
        """A submission, as the scheduler is told of it."""
        directory = f"{self.root.rstrip('/')}/{submission}"
        return StagedBatch(
            submission=submission,
            mark=self.mark(submission),
            directory=directory,
            runner=f"{directory}/runner",
            copies=tuple(range(copies)),
            spec=spec,
        )


def _whole(script: Script, result: CommandResult) -> Frames:
    """The frames of an answer that came to its end.

    Raises:
        ResourceError: It did not, or the sandbox root is refused.
    """
    frames = script.parse(result.stdout)
    for line in frames.lines:
        if line.startswith("refused "):
            raise refused_root(line)
    if not frames.ended:
        raise ResourceError(
            f"the answer was cut (exit code {result.returncode})", said=shown(result.stderr)
        )
    return frames


def refused_root(line: str) -> ResourceError:
    """What a script said of the root, as an error."""
    return ResourceError(
        f"the sandbox root is refused: {line.removeprefix('refused ')}",
        remedy="configure another root, a directory of this account's own",
    )


def shown(stderr: bytes) -> str:
    """The end of what a command said."""
    return stderr[-_STDERR_SHOWN:].decode(errors="replace")
