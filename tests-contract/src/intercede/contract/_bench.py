"""One test's workbench at a resource: it makes backends, submits under a tag of its own, waits, and clears up.

A test never meets another's jobs: tags are unique, and where a rule speaks of all jobs of a resource (C1) the test takes a resource name
of its own. Whatever a test submitted is killed and purged at its end, also when it failed or was interrupted, by a new backend that knows
only the tags and ids.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import uuid
import warnings
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import pytest

from intercede.core import (
    BulkResult,
    Cancellable,
    CopyVars,
    CredentialProvider,
    Discoverable,
    FailureCode,
    JobBackend,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    LoadReporter,
    OpOutcome,
    OutputRetriever,
    OutputSpec,
    Purgeable,
    Submission,
    SubmissionSpec,
    SupportsDetails,
    SupportsDryRun,
    SupportsLiveDiagnostics,
    registry,
)

from . import plugin
from ._crossing import Crossed, crossing, heard, listen
from ._payload import PAYLOAD
from ._probe import Probe
from ._resource import Faults, Resource
from ._rules import RULES_ATTRIBUTE
from ._verdict import not_observed, not_offered
from ._workers import undisturbed

__all__ = ["Bench", "Gathered", "Rules"]

_UNIQUE: Final = "{unique}"
#: What pytest-asyncio says of a test that is marked for it and brings its own loop.
_MARKED_IN_VAIN: Final = (
    r".* is marked with '@pytest\.mark\.asyncio' but it is not an async function"
)
#: Why a job may still be there after a purge, and is purged again.
_NOT_GONE: Final = frozenset({FailureCode.NOT_FINISHED, FailureCode.NOT_NOW, FailureCode.FAILED})


class Bench:
    """What a test works with.

    Args:
        resource: The resource on trial.
        config: Its configuration, or one derived from it.
        scratch: A directory of the caller's, empty.

    Attributes:
        tag: The tag of everything that this test submits, unless it says otherwise.
        backend: An opened backend.
        crossed: The last commands that crossed the transport, where there is one.
    """

    def __init__(self, resource: Resource, config: Mapping[str, Any], scratch: Path) -> None:
        self.resource = resource
        self.config = config
        self.scratch = scratch
        self.tag = f"contract-{uuid.uuid4().hex[:16]}"
        self.backend: JobBackend
        self.crossed: Crossed = crossing()
        self._tags = {self.tag}
        self._handles: dict[JobID, JobHandle] = {}
        self._stack = AsyncExitStack()
        self._credentials: CredentialProvider | None = None

    # -------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the backend of this bench."""
        if self.resource.credentials is not None:
            self._credentials = await self._stack.enter_async_context(self.resource.credentials())
        self.backend = await self._stack.enter_async_context(self.made())

    async def close(self) -> None:
        """Kill and purge everything that was submitted here, then let go of all backends.

        Raises:
            AssertionError: Something could not be cleared away.
        """
        try:
            if self._handles or isinstance(self.backend, Discoverable):
                await _to_its_end(self._cleared())
        finally:
            await self._stack.aclose()

    async def _cleared(self) -> None:
        async with asyncio.timeout(self.resource.clearing_s), self.made() as backend:
            await self._clear(backend)

    async def _clear(self, backend: JobBackend) -> None:
        ids = list(self._handles)
        if isinstance(backend, Discoverable):
            for tag in self._tags:
                ids += [handle.id for handle in await backend.find(tag)]
        while ids:
            if isinstance(backend, Cancellable):
                await backend.kill(ids)
            if not isinstance(backend, Purgeable):
                return
            failures = (await backend.purge(ids)).failures
            ids = [job for job in ids if job in failures and failures[job].code in _NOT_GONE]
            if not isinstance(backend, Cancellable):
                return  # what cannot be killed ends by itself, long after the test
            await asyncio.sleep(self.resource.poll_s if ids else 0)

    async def place_on_the_host(self) -> str:
        """A path of the host, outside all sandboxes, that is this test's own, and free; what is put there goes with the test."""
        place = f"{await self.probe.scratch()}/{self.tag}"
        self._stack.push_async_callback(self.probe.remove, place)
        return place

    def made(self, **changes: object) -> JobBackend:
        """A backend that is not open yet, from the registry. Whoever calls this closes it.

        Args:
            changes: Keys of the configuration to replace.
        """
        backend = registry.backend({**self.config, **changes}, self._credentials)
        listen(backend, self.crossed)
        return backend

    async def opened(self, **changes: object) -> JobBackend:
        """Another open backend, closed at the end of the test."""
        return await self._stack.enter_async_context(self.made(**changes))

    async def elsewhere(self, config: Mapping[str, Any]) -> Bench:
        """A bench at another configuration of the resource, cleared up with this one."""
        other = Bench(self.resource, _made_unique(config), self.scratch)
        other.crossed = self.crossed
        await other.open()
        self._stack.push_async_callback(other.close)
        return other

    async def renamed(self) -> Bench:
        """A bench at the same resource under a name that nobody else uses."""
        return await self.elsewhere({**self.config, "name": f"contract-{uuid.uuid4().hex[:12]}"})

    async def narrow(self) -> Bench:
        """A bench where one job runs at a time, so that the others wait."""
        if self.resource.narrow is None:
            not_observed("a configuration under which jobs wait (Resource.narrow)")
        return await self.elsewhere(self.resource.narrow)

    async def limited(self, what: str) -> Bench:
        """A bench where a fetch is limited in bytes, files or seconds."""
        if what not in self.resource.limited:
            not_observed(f"a configuration with a limit on {what} (Resource.limited)")
        return await self.elsewhere(self.resource.limited[what])

    # -------------------------------------------------------------- what it may have

    @property
    def probe(self) -> Probe:
        """The look at the host, or "not observed"."""
        if self.resource.probe is None:
            not_observed("a look at the host (Resource.probe)")
        return self.resource.probe

    @property
    def faults(self) -> Faults:
        """The means to make the resource misbehave, or "not observed"."""
        if self.resource.faults is None:
            not_observed("a resource that can be made to fail (Resource.faults)")
        return heard(self.resource.faults, self.crossed)

    @property
    def cancellable(self) -> Cancellable:
        """The backend, if it can kill."""
        if not isinstance(self.backend, Cancellable):
            not_offered("Cancellable")
        return self.backend

    @property
    def purger(self) -> Purgeable:
        """The backend, if it can purge."""
        if not isinstance(self.backend, Purgeable):
            not_offered("Purgeable")
        return self.backend

    @property
    def retriever(self) -> OutputRetriever:
        """The backend, if it can fetch."""
        if not isinstance(self.backend, OutputRetriever):
            not_offered("OutputRetriever")
        return self.backend

    @property
    def finder(self) -> Discoverable:
        """The backend, if it can find."""
        if not isinstance(self.backend, Discoverable):
            not_offered("Discoverable")
        return self.backend

    @property
    def reporter(self) -> LoadReporter:
        """The backend, if it can count."""
        if not isinstance(self.backend, LoadReporter):
            not_offered("LoadReporter")
        return self.backend

    @property
    def diagnostician(self) -> SupportsLiveDiagnostics:
        """The backend, if it shows the output of running jobs."""
        if not isinstance(self.backend, SupportsLiveDiagnostics):
            not_offered("SupportsLiveDiagnostics")
        return self.backend

    @property
    def detailer(self) -> SupportsDetails:
        """The backend, if it tells details."""
        if not isinstance(self.backend, SupportsDetails):
            not_offered("SupportsDetails")
        return self.backend

    @property
    def rehearser(self) -> SupportsDryRun:
        """The backend, if it can do a dry run."""
        if not isinstance(self.backend, SupportsDryRun):
            not_offered("SupportsDryRun")
        return self.backend

    # -------------------------------------------------------------- work

    def spec(self, *verbs: str, keep: Iterable[str] = (), **fields: Any) -> SubmissionSpec:
        """The payload with these verbs, under the tag of this test.

        Args:
            verbs: See `payload.sh`.
            keep: Names and patterns of outputs.
            fields: Of `SubmissionSpec`.
        """
        fields.setdefault("tag", self.tag)
        fields.setdefault("executable", PAYLOAD)
        fields.setdefault("outputs", OutputSpec(tuple(keep)))
        spec = SubmissionSpec(arguments=verbs, **fields)
        if spec.tag is not None:
            self._tags.add(spec.tag)
        return spec

    async def submit(
        self,
        spec: SubmissionSpec,
        copies: int | Sequence[CopyVars] = 1,
        backend: JobBackend | None = None,
    ) -> Submission:
        """Submit, and remember what to clear up."""
        submission = await (backend or self.backend).submit(spec, copies)
        self.adopt(submission.handles)
        return submission

    def adopt(self, handles: Iterable[JobHandle]) -> None:
        """Clear these up too."""
        self._handles.update((handle.id, handle) for handle in handles)

    def handle(self, job: JobID) -> JobHandle:
        """The handle of a job that was submitted here."""
        return self._handles[job]

    async def start(
        self, *verbs: str, copies: int | Sequence[CopyVars] = 1, **fields: Any
    ) -> list[JobID]:
        """Submit copies of the payload and expect every one of them to be accepted."""
        submission = await self.submit(self.spec(*verbs, **fields), copies)
        submission.raise_for_failures()
        return [handle.id for handle in submission.handles]

    async def start_each(self, *jobs: Sequence[str], **fields: Any) -> list[JobID]:
        """Submit the payload once with each of these sequences of verbs, all at the same time."""
        return list(await asyncio.gather(*(self.start_one(*verbs, **fields) for verbs in jobs)))

    async def start_one(self, *verbs: str, **fields: Any) -> JobID:
        """Submit the payload once."""
        return (await self.start(*verbs, **fields))[0]

    async def until(
        self, ids: Sequence[JobID], *wanted: JobStatus, backend: JobBackend | None = None
    ) -> dict[JobID, JobStatus]:
        """Wait until each of the jobs has one of the statuses; without any, until it is finished.

        Raises:
            AssertionError: It took too long, or a job finished in another way.
        """
        seen: dict[JobID, JobStatus] = {}
        try:
            async with asyncio.timeout(self.resource.patience_s):
                while True:
                    seen = dict(await (backend or self.backend).status(ids))
                    if all(at in wanted if wanted else at.is_finished for at in seen.values()):
                        return seen
                    astray = {job: at for job, at in seen.items() if at.is_finished}
                    if wanted and any(at not in wanted for at in astray.values()):
                        break
                    await asyncio.sleep(self.resource.poll_s)
        except TimeoutError:
            pass
        words = " or ".join(wanted) if wanted else "finished"
        raise AssertionError(
            f"expected every job to be {words} within {self.resource.patience_s:.0f} s, saw {seen}"
        )

    async def killed(self, ids: Sequence[JobID]) -> None:
        """Kill, and kill again what was told to end and was not seen to: "not now" is a truthful answer, and success must be one too.

        Raises:
            AssertionError: A job could not be killed, is not over, or it took too long.
        """
        left = list(ids)
        outcomes: dict[JobID, OpOutcome] = {}
        try:
            async with asyncio.timeout(self.resource.patience_s):
                while left:
                    result = await self.cancellable.kill(left)
                    outcomes |= {job: result[job] for job in left}
                    failures = result.failures
                    left = [job for job in failures if failures[job].code == FailureCode.NOT_NOW]
                    refused = {job: str(why) for job, why in failures.items() if job not in left}
                    assert not refused, f"expected the jobs to be killed, got {refused}"
        except TimeoutError:
            raise AssertionError(f"expected a kill to be seen to work on {left}") from None
        await self.over(outcomes)

    async def over(self, killed: Mapping[JobID, OpOutcome]) -> None:
        """See that jobs are over whose kill was a success: at once, and where it has a note, which may be that a job is ending, in a while.

        Raises:
            AssertionError: A job is not over.
        """
        at_once = [job for job, outcome in killed.items() if not outcome.note]
        seen = await self.backend.status(at_once)
        alive = {job: at for job, at in seen.items() if not at.is_finished}
        assert not alive, (
            f"expected what was killed, and nothing else said of it, to be over: {alive}"
        )
        await self.until(list(killed))

    async def finish(
        self, *verbs: str, copies: int | Sequence[CopyVars] = 1, **fields: Any
    ) -> list[JobID]:
        """Submit copies of the payload and wait for their end."""
        ids = await self.start(*verbs, copies=copies, **fields)
        await self.until(ids)
        return ids

    async def finish_one(self, *verbs: str, **fields: Any) -> JobID:
        """Submit the payload once and wait for its end."""
        return (await self.finish(*verbs, **fields))[0]

    async def fetch(self, ids: Sequence[JobID], dest: Path | None = None) -> BulkResult[JobOutput]:
        """Fetch into the scratch directory, or to `dest`."""
        return await self.retriever.fetch_output(ids, dest or self.scratch / "results")

    async def fetch_one(self, job: JobID, dest: Path | None = None) -> JobOutput:
        """Fetch one job, and expect it all."""
        result = await self.fetch([job], dest)
        result.raise_for_failures()
        return result[job]

    async def stdout_of(self, *verbs: str, **fields: Any) -> bytes:
        """What the payload with these verbs prints."""
        output = await self.fetch_one(await self.finish_one(*verbs, **fields))
        assert output.stdout is not None
        return output.stdout.read_bytes()

    @property
    def forever(self) -> str:
        """Seconds of sleep that outlast every test and still end."""
        return self.resource.payload_seconds(2 * self.resource.test_limit_s)

    @property
    def a_while(self) -> str:
        """Seconds of sleep that give a test time for a few calls."""
        return self.resource.payload_seconds(2 * self.resource.seconds)

    async def in_another_process(self, program: str, *arguments: str) -> str:
        """Run a Python program elsewhere, where nothing but the configuration is known: as `config`, with `arguments` as `argv`.

        The body may `await`; `backend` is open. Returns what it printed.
        """
        if not self.resource.other_process:
            not_observed("a resource that another process sees too (Resource.other_process)")
        try:
            credentials = pickle.dumps(self.resource.credentials)
        except (pickle.PicklingError, AttributeError, TypeError):
            not_observed("credentials that another process can make (Resource.credentials)")
        body = "\n".join(f"        {line}" for line in program.strip().splitlines())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM + body + "\nasyncio.run(main())\n",
            json.dumps(self.config),
            *arguments,
            stdin=asyncio.subprocess.PIPE,  # where nobody else sees what may hold a secret
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self.resource.patience_s):
                out, err = await process.communicate(credentials)
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, err.decode(errors="replace")
        return out.decode()


_PROGRAM: Final = """\
import asyncio, json, pickle, sys
from contextlib import nullcontext
from pathlib import Path
from intercede.core import *
from intercede.core import registry
config, argv = json.loads(sys.argv[1]), sys.argv[2:]
made = pickle.load(sys.stdin.buffer) or nullcontext
async def main():
    async with made() as credentials, registry.backend(config, credentials) as backend:
"""


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await this, which ends by itself, also when somebody who does not want to wait cancels us meanwhile (Ctrl-C)."""
    task = asyncio.ensure_future(work)
    try:
        with undisturbed(_is_interrupted()):
            await asyncio.shield(task)
    except asyncio.CancelledError:
        with undisturbed():
            await asyncio.wait([task])
        raise


def _is_interrupted() -> bool:
    """Ctrl-C has cancelled us: a time-out takes its own cancelling back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _made_unique(value: Any, name: str = "") -> Any:
    """The same configuration with `{unique}` replaced in every text, by one name throughout."""
    name = name or uuid.uuid4().hex[:12]
    if isinstance(value, str):
        return value.replace(_UNIQUE, name)
    if isinstance(value, Mapping):
        return {key: _made_unique(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_made_unique(item, name) for item in value]
    return value


class Gathered:
    """What every class of rules does, whatever the rules are about."""

    @pytest.fixture(autouse=True)
    def _gathered(self, request: pytest.FixtureRequest) -> None:
        """See to it that somebody gathers the verdicts, also where plugins are not loaded by themselves."""
        manager = request.config.pluginmanager
        if not manager.has_plugin(plugin.NAME):
            manager.register(plugin, plugin.NAME)

    @pytest.fixture(autouse=True)
    def _marked_in_vain(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """A module's mark for pytest-asyncio is for the tests beside ours: that it is on ours as well is not worth its warning.

        Not by a mark of pytest, which would have to be registered: without its plugin `warnings` it is not.
        """
        with warnings.catch_warnings():
            if hasattr(request.function, RULES_ATTRIBUTE):
                warnings.filterwarnings("ignore", _MARKED_IN_VAIN, pytest.PytestWarning)
            yield


class Rules(Gathered):
    """What the classes of rules about backends have in common: the resource, and a bench for every test."""

    resource: ClassVar[Resource]

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        """A bench at the resource: open while a test of a rule runs, and cleared up at its end. Others open it themselves."""
        return Bench(self.resource, self.resource.config, tmp_path)
