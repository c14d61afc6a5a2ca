"""Liars about L: making, sharing, interrupting and closing."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Self

from intercede.core import (
    BulkResult,
    CopyVars,
    Failure,
    FailureCode,
    JobID,
    JobStatus,
    StatusMap,
    Submission,
    SubmissionSpec,
)
from intercede.fake import FakeConfig
from intercede.fake._lifetime import Lifetime

from ._honest import Honest, lie

#: How long the calls of some liars take at least, so that there is something to cancel.
_MOMENT_S = 0.005


@lie("L1", "reads its credentials when it is made")
class ReadsWhenMade(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        Path(os.devnull).read_bytes()


@lie("L1", "has a thread read its credentials when it is made")
class ReadsInAThread(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        threading.Thread(target=Path(os.devnull).read_bytes).start()


@lie("L1", "has a pool of threads, one of which reads its credentials when it is made")
class ReadsInAPool(Honest):
    pool: ClassVar = ThreadPoolExecutor(1)

    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self.pool.submit(Path(os.devnull).read_bytes)


@lie("L1", "begins to poll when it is made, if a loop runs, and knows only what it polled")
class PollsWhenMade(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._polls = False
        else:
            self._polls = True

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        return seen if self._polls else BulkResult({})


@lie("L2", "opens again after it was closed")
class OpensAgain(Honest):
    async def __aenter__(self) -> Self:
        self._lifetime._closed = False
        return await super().__aenter__()


@lie("L2", "answers from what it remembers after it was closed", "L5 E1")
class AnswersWhenClosed(Honest):
    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        self._lifetime._closed = False
        return await super().status(ids)


@lie("L2", "ends the jobs that it submitted when it is closed")
class TakesJobsAlong(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._own: list[JobID] = []

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        submission = await super().submit(spec, copies)
        self._own += [handle.id for handle in submission.handles]
        return submission

    async def aclose(self) -> None:
        for job in self._own:
            if found := self.site.look(job, self.resource):
                self.site.kill(found[0])
        await super().aclose()


@lie(
    "L2", "lets go of its connection when it is closed, and fails when there is none to close again"
)
class ClosesOnce(Honest):
    async def aclose(self) -> None:
        if self._lifetime._closed and self._lifetime._connected:
            raise AttributeError("'NoneType' object has no attribute 'close'")
        await super().aclose()


@lie("L2", "fails when it is closed again and never had a connection")
class ClosesTheUnusedOnce(Honest):
    async def aclose(self) -> None:
        if self._lifetime._closed and not self._lifetime._connected:
            raise AttributeError("'NoneType' object has no attribute 'close'")
        await super().aclose()


@lie("L3", "has a pool of twelve requests, and overwrites the last one when more tasks come")
class PoolOfTwelve(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._pool: list[SubmissionSpec] = []

    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        self._pool.append(spec)
        try:
            return await super().submit(self._pool[min(len(self._pool), 12) - 1], copies)
        finally:
            self._pool.remove(spec)


@lie("L4", "begins to reconnect when a call is cancelled, and never ends")
class ReconnectsForEver(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        try:
            await asyncio.sleep(_MOMENT_S if ids else 0)
            return await super().status(ids)
        except asyncio.CancelledError:
            self._reconnecting.add(asyncio.create_task(asyncio.sleep(3600)))
            raise


@lie("L4", "takes what a cancelled call had not yet heard for its knowledge")
class RemembersTheHalf(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._unheard: set[JobID] = set()

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        try:
            await asyncio.sleep(_MOMENT_S if ids else 0)
        except asyncio.CancelledError:
            self._unheard.update(ids)
            raise
        seen = await super().status(ids)
        unheard = self._unheard & seen.keys()
        failure = Failure(FailureCode.NOT_NOW, "the answer did not come")
        return BulkResult(
            {**seen, **dict.fromkeys(unheard, JobStatus.UNKNOWN)},
            {**seen.failures, **dict.fromkeys(unheard, failure)},
        )


@lie("L4", "sends the copies one by one, and stops in the middle when it is cancelled", "S7")
class OneByOne(Honest):
    async def submit(
        self, spec: SubmissionSpec, copies: int | Sequence[CopyVars] = 1
    ) -> Submission:
        submission = await super().submit(spec, copies)
        jobs = [self.site._jobs[handle.id] for handle in submission.handles]
        for job in jobs[1:]:
            self.site.remove(job)
        for job in jobs[1:]:
            await asyncio.sleep(_MOMENT_S)
            self.site._jobs[job.id] = job
        return submission


class AnyLoop(Lifetime):
    """Does not mind which loop it is used in."""

    def check(self, operation: str) -> None:
        """As it is."""
        self._loop = None
        super().check(operation)


@lie("L5", "lets itself be used in any event loop")
class TakesAnyLoop(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._lifetime = AnyLoop(resource, self.site.clock, self.faults)


class FirstConnects(Lifetime):
    """The first waiter connects for all."""

    _shared: asyncio.Future[None] | None = None

    async def _connect(self) -> None:
        if self._shared is not None:
            await asyncio.shield(self._shared)
            return
        self._shared = asyncio.get_running_loop().create_future()
        try:
            await super()._connect()
        except asyncio.CancelledError:
            self._shared.cancel()
            raise
        except Exception:
            self._shared = None
            raise
        self._shared.set_result(None)


@lie("L6", "lets the first waiter connect for all, and fails all when that one is cancelled")
class FirstWaiterConnects(Honest):
    def __init__(self, config: FakeConfig, resource: str) -> None:
        super().__init__(config, resource)
        self._lifetime = FirstConnects(resource, self.site.clock, self.faults)


@lie("L2", "knows nothing unless it is used as a context")
class NeedsToBeEntered(Honest):
    _entered = False

    async def __aenter__(self) -> Self:
        self._entered = True
        return await super().__aenter__()

    async def status(self, ids: Sequence[JobID]) -> StatusMap:
        seen = await super().status(ids)
        if self._entered:
            return seen
        failure = Failure(FailureCode.NOT_NOW, "not connected")
        return BulkResult(dict.fromkeys(seen, JobStatus.UNKNOWN), dict.fromkeys(seen, failure))


@lie("L5", "closes only in the task that opened it")
class ClosesWhereItWasOpened(Honest):
    _opener: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        self._opener = asyncio.current_task()
        return await super().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        if self._opener is asyncio.current_task():
            await super().__aexit__(*exc)
