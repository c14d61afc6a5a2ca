"""What can be made to go wrong between this machine and a stack, for the suite's rules about what a backend does then.

The backend is the registry's own, put together by hand: its transport and its scheduler are taken as they are, and one method of one of them
is replaced on that one object. So any transport with any scheduler will do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from attrs import evolve, frozen

from intercede.backend.batch import BatchBackend, BatchConfig
from intercede.contract import Probe, Relay
from intercede.core import (
    Command,
    CommandResult,
    ConnectionLost,
    CredentialProvider,
    JobBackend,
    JobDetails,
    JobHandle,
    NativeJob,
    Process,
    Results,
    Scheduler,
    Transport,
    Unreachable,
    registry,
)

if TYPE_CHECKING:
    from ._ways import Way

__all__ = ["StackFaults"]

#: How long a submission whose answer is lost may look for it, in seconds.
_SUBMIT_DEADLINE_S: Final = 30
#: How many bytes of an output come through before it is cut.
_CUT_AFTER: Final = 150_000
_WAIT_S: Final = 60.0

Breaking = Callable[[Transport, Scheduler], None]


@frozen
class StackFaults:
    """See `intercede.contract.Faults`.

    Args:
        credentials: Makes a provider.
        probe: Looks at the host.
        way: How one comes in; None: the commands run where the suite runs.
    """

    credentials: Callable[[], CredentialProvider]
    probe: Probe
    way: Way | None = None

    def status_fails(self, config: Mapping[str, Any]) -> AbstractAsyncContextManager[JobBackend]:
        """The command that asks for the state of all jobs fails."""
        return self._broken(config, lambda _, scheduler: _answer(scheduler, _failed))

    def row_is_garbage(
        self, config: Mapping[str, Any], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """The line about this job cannot be read."""
        native = re.escape(_native(handle).encode())
        about = re.compile(rb"(?<![^\s|])" + native + rb"(?![^\s|])")

        def garbled(result: CommandResult) -> CommandResult:
            lines = result.stdout.split(b"\n")
            lines = [b"\xff\xfe ?? " if about.search(line) else line for line in lines]
            return CommandResult(result.returncode, b"\n".join(lines), result.stderr)

        return self._broken(config, lambda _, scheduler: _answer(scheduler, garbled))

    @asynccontextmanager
    async def unreachable(self, config: Mapping[str, Any]) -> AsyncIterator[JobBackend]:
        """Nobody listens at the first host on the way; where there is none, the transport says so."""
        if self.way is None:
            async with self._broken(config, lambda transport, _: _refuse(transport)) as backend:
                yield backend
            return
        host, port = self.way.server(config["transport"])
        async with Relay(port, host) as relay, self.credentials() as provider:
            relay.refuse()
            refused = {**config, "transport": self.way.through(config["transport"], relay)}
            async with registry.backend(refused, provider) as backend:
                yield backend

    @asynccontextmanager
    async def submit_answer_lost(self, config: Mapping[str, Any]) -> AsyncIterator[JobBackend]:
        """The answer of the first command that ends after something was staged is lost, once it has run."""
        lost: list[Command] = []
        async with self._broken(config, lambda transport, _: _forget(transport, lost)) as backend:
            yield backend
        assert lost, "no answer was lost"

    def lost_after_staging(
        self, config: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """Nothing is carried any more once something was staged."""
        return self._broken(config, lambda transport, _: _die(transport))

    def output_cut(
        self, config: Mapping[str, Any], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """Every stream of output ends early, and looks as if it had ended well."""
        return self._broken(config, lambda transport, _: _cut(transport))

    @asynccontextmanager
    async def id_reused(
        self, config: Mapping[str, Any], finished: JobHandle, running: JobHandle
    ) -> AsyncIterator[JobBackend]:
        """Whatever is asked of the finished job is asked about the id of the running one, which is what it would have been given.

        Direct knows a job by its sandbox: there, what it notes of the running job now stands in the finished one's.
        """
        if config["scheduler"]["type"] != "direct":
            was_id, now_id = _native(finished), _native(running)
            async with self._broken(config, lambda _, s: _reuse(s, was_id, now_id)) as backend:
                yield backend
            return
        was, now = (
            f"{config['root']}/{handle.submission}/{handle.copy}" for handle in (finished, running)
        )
        for name in ("start", "slot"):
            content = await self._once_written(f"{now}/{name}")
            await self.probe.write(f"{was}/{name}", content)
        async with self.credentials() as provider, registry.backend(config, provider) as backend:
            yield backend

    async def _once_written(self, path: str) -> bytes:
        async with asyncio.timeout(_WAIT_S):
            while True:
                content = await self.probe.read(path)
                if content is not None:
                    return content
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def _broken(
        self, config: Mapping[str, Any], breaking: Breaking
    ) -> AsyncIterator[JobBackend]:
        async with self.credentials() as provider:
            transport = registry.transport(config["transport"], provider)
            scheduler = registry.scheduler(config["scheduler"])
            breaking(transport, scheduler)
            batch = BatchConfig(root=config["root"], submit_deadline_s=_SUBMIT_DEADLINE_S)
            async with BatchBackend(batch, _name(config), transport, scheduler) as backend:
                yield backend


def _name(config: Mapping[str, Any]) -> str:
    """The resource's name, as the registry would have it."""
    types = f"{config['transport']['type']}-{config['scheduler']['type']}"
    return str(config.get("name", types))


def _native(handle: JobHandle) -> str:
    """The scheduler's id of a job."""
    return handle.id.split("/")[3]


# ---------------------------------------------------------------- schedulers that misread


def _answer(scheduler: Scheduler, changed: Callable[[CommandResult], CommandResult]) -> None:
    """From now on what the status commands answer is changed before it is read."""
    read = scheduler.parse_status

    def misread(jobs: Any, results: Results) -> Any:
        return read(jobs, [changed(result) for result in results])

    _replace(scheduler, parse_status=misread)


def _failed(_: CommandResult) -> CommandResult:
    return CommandResult(1, b"", b"no daemon")


def _reuse(scheduler: Scheduler, was: str, now: str) -> None:
    """From now on the job with the one id is asked for, and read, by the other."""

    def meant(jobs: Sequence[NativeJob]) -> list[NativeJob]:
        return [evolve(job, id=now) if job.id == was else job for job in jobs]

    def asked(commands: Callable[[Sequence[NativeJob]], Sequence[Command]]) -> object:
        return lambda jobs: commands(meant(jobs))

    def understood(read: Callable[[Sequence[NativeJob], Results], Any]) -> object:
        def answers(jobs: Sequence[NativeJob], results: Results) -> dict[NativeJob, JobDetails]:
            found = read(meant(jobs), results)
            pairs = zip(jobs, meant(jobs), strict=True)
            return {job: found[other] for job, other in pairs if other in found}

        return answers

    _replace(
        scheduler,
        status_commands=asked(scheduler.status_commands),
        parse_status=understood(scheduler.parse_status),
        history_commands=asked(scheduler.history_commands),
        parse_history=understood(scheduler.parse_history),
        kill_commands=asked(scheduler.kill_commands),
    )


# ---------------------------------------------------------------- transports that lose


def _refuse(transport: Transport) -> None:
    def refuse(*_: object) -> NoReturn:
        raise Unreachable("nothing answers", remedy="try again later")

    _replace(transport, run=refuse, stream=refuse)


def _stages(command: Command, stdin: AsyncIterable[bytes] | None) -> bool:
    """Whether it reads what follows its script. A session that waits for its script has none of its own."""
    return bool(command.stdin) and stdin is not None


def _forget(transport: Transport, lost: list[Command]) -> None:
    run, stream = transport.run, transport.stream
    staged = False

    def lose(command: Command) -> None:
        if staged and not lost:
            lost.append(command)
            raise ConnectionLost("it broke", may_have_run=True)

    async def forgetful_run(command: Command) -> CommandResult:
        result = await run(command)
        lose(command)
        return result

    @asynccontextmanager
    async def forgetful_stream(
        command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        nonlocal staged
        async with stream(command, stdin) as process:
            yield process
        lose(command)
        staged = staged or _stages(command, stdin)

    _replace(transport, run=forgetful_run, stream=forgetful_stream)


def _die(transport: Transport) -> None:
    run, stream = transport.run, transport.stream
    dead = False

    def carry() -> None:
        if dead:
            raise ConnectionLost("it broke", may_have_run=False)

    async def mortal_run(command: Command) -> CommandResult:
        carry()
        return await run(command)

    async def carried(stdin: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in stdin:
            carry()
            yield chunk

    @asynccontextmanager
    async def mortal_stream(
        command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        nonlocal dead
        carry()
        async with stream(command, None if stdin is None else carried(stdin)) as process:
            yield process
        dead = dead or _stages(command, stdin)

    _replace(transport, run=mortal_run, stream=mortal_stream)


def _cut(transport: Transport) -> None:
    stream = transport.stream

    @asynccontextmanager
    async def short_stream(
        command: Command, stdin: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[Process]:
        async with stream(command, stdin) as process:
            yield process if stdin is not None else _Cut(process)

    _replace(transport, stream=short_stream)


@frozen
class _Cut:
    """A process whose output ends early."""

    process: Process

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        return self._some()

    async def _some(self) -> AsyncIterator[bytes]:
        left = _CUT_AFTER
        async for chunk in self.process.stdout:
            yield chunk[:left]
            left -= min(left, len(chunk))

    async def wait(self) -> CommandResult:
        return await self.process.wait()


def _replace(thing: object, **methods: object) -> None:
    """Replace methods of this one object."""
    for name, method in methods.items():
        setattr(thing, name, method)
