"""Waiting that survives cancellation, be it anyio's or asyncio's own (`Task.cancel`, `asyncio.timeout`), and what comes of a task group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import anyio

__all__ = ["sole", "to_its_end"]

T = TypeVar("T")


async def to_its_end(work: Awaitable[T]) -> T:
    """Do something that must not be left half-done; asyncio's cancellation takes effect when it is over, anyio's outside."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # asyncio complains of an error that nobody looked at
        raise cancelled
    return task.result()


def sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception of a task group whose tasks raise none of their own."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
