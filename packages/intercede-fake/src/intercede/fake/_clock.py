"""Time, as something that is handed in.

Everything in this package reads the time from a clock and waits on one; nothing else in it knows what time it is. So a test decides when
an hour has passed, and a job's whole life is a function of the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "FakeClock", "FastClock"]


class Clock(Protocol):
    """Fake seconds."""

    def now(self) -> float:
        """Fake seconds since the clock was made."""
        ...

    def moment(self, seconds: float) -> datetime:
        """The UTC time that `now` called `seconds`."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when so many fake seconds have passed. May be cancelled."""
        ...


class FakeClock:
    """A clock that stands still until it is advanced.

    Args:
        epoch: The UTC time at which it starts.
    """

    def __init__(self, epoch: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._epoch = epoch
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def moment(self, seconds: float) -> datetime:
        return self._epoch + timedelta(seconds=seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake who has slept long enough. From the event loop's own thread.

        Raises:
            ValueError: Time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._now += seconds
        for due, sleeper in self._sleepers:
            if due <= self._now and not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        entry = (self._now + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(entry)
        try:
            await entry[1]
        finally:
            with contextlib.suppress(ValueError):
                self._sleepers.remove(entry)


class FastClock:
    """Real time, multiplied.

    Args:
        speed: Fake seconds in a real one.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start = time.monotonic()
        self._epoch = datetime.now(UTC)

    def now(self) -> float:
        return (time.monotonic() - self._start) * self._speed

    def moment(self, seconds: float) -> datetime:
        return self._epoch + timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0) / self._speed)
