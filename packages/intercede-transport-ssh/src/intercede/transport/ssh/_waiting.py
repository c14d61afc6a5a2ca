"""Waiting that survives cancellation, be it anyio's or asyncio's own (`Task.cancel`, `asyncio.timeout`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

from intercede.toolkit import to_its_end

__all__ = ["reached", "with_grace"]

T = TypeVar("T")


async def with_grace(work: Coroutine[Any, Any, T], grace_s: float) -> T:
    """Do something in a task of its own, so that what we are cancelled with reaches it once, and it is over when we are.

    Args:
        work: What to do. It cleans up after itself when it is cancelled. Its result is lost if we are cancelled in the moment when it is
            there: what must not be, it keeps elsewhere.
        grace_s: How long it may go on when we are cancelled, before it is cancelled too.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError as cancelled:
        await to_its_end(_ended(task, grace_s))
        raise cancelled from None
    return task.result()


async def _ended(task: asyncio.Future[T], grace_s: float) -> None:
    if grace_s:
        await asyncio.wait([task], timeout=grace_s)
    task.cancel()
    await asyncio.wait([task])
    _look_at(task)


def _look_at(task: asyncio.Future[T]) -> None:
    """asyncio complains of an error that nobody looked at."""
    if not task.cancelled():
        task.exception()


async def reached(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event, for so long; whether it came."""
    with anyio.move_on_after(timeout_s):
        await event.wait()
    return event.is_set()
