"""What does not fulfil a protocol is no plugin."""

from collections.abc import Sequence
from typing import Self

from attrs import frozen

from intercede.core import JobBackend, JobID, Monitor, StatusMap, registry


class Blocking:
    def status(self, ids: Sequence[JobID]) -> StatusMap:
        raise LookupError


class Nothing:
    async def __aenter__(self) -> Self:
        return self


@frozen
class Config:
    url: str


def make(config: Config, name: str, credentials: object) -> Nothing:
    return Nothing()


monitor: Monitor = Blocking()  # E: assignment
backend: JobBackend = Nothing()  # E: assignment
registry.BackendPlugin(Config, make)  # E: arg-type
registry.TransportPlugin(Config, make)  # E: arg-type
