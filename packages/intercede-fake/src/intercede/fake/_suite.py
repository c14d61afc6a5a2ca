"""What the contract suite asks of a resource besides its backend: a look at the host, and means to make it fail.

`intercede.contract` describes both as protocols, `Probe` and `Faults`; these have their form, and know nothing of the suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from intercede.core import JobBackend, JobHandle, JobID, registry

from ._site import FakeSite

__all__ = ["FakeFaults", "FakeProbe"]

_SANDBOXES = "/pretend/"


class FakeProbe:
    """Looks at the pretend host of one site, past the backend.

    Args:
        site: The site's name; it need not be there yet.
    """

    def __init__(self, site: str) -> None:
        self._name = site

    @property
    def _site(self) -> FakeSite:
        return FakeSite.known(self._name) or FakeSite()

    async def processes(self, marker: str) -> Sequence[str]:
        """The living processes in whose arguments or environment the marker occurs."""
        return self._site.processes(marker)

    async def exposed(self, needle: bytes) -> Sequence[str]:
        """The jobs in whose arguments or environment these bytes occur; the host has no other accounts, and no logs."""
        return [f"process of {job}" for job in self._site.showing(needle.decode())]

    async def sandbox(self, handle: JobHandle) -> str | None:
        """A path that stands for the job's sandbox, as long as something of the job is kept."""
        return f"{_SANDBOXES}{handle.id}" if handle.id in self._site else None

    async def read(self, path: str) -> bytes | None:
        """The bytes of a file that `write` has made; no job ever makes one."""
        return self._site.files.get(path)

    async def write(self, path: str, content: bytes) -> None:
        """Make a file outside all sandboxes."""
        self._site.files[path] = content

    async def replace_by_link(self, path: str, target: str) -> None:
        """Note that a sandbox became a link to another: a fake keeps its jobs elsewhere, and never follows it."""
        link, there = (JobID(place.removeprefix(_SANDBOXES)) for place in (path, target))
        self._site.links[link] = there

    async def remove(self, path: str) -> None:
        """Remove what `write` or `replace_by_link` has made."""
        self._site.links.pop(JobID(path.removeprefix(_SANDBOXES)), None)
        for file in [file for file in self._site.files if f"{file}/".startswith(f"{path}/")]:
            del self._site.files[file]

    async def scratch(self) -> str:
        """A directory outside all sandboxes."""
        return "/scratch"


@asynccontextmanager
async def _faulty(config: Mapping[str, object], **fault: object) -> AsyncIterator[JobBackend]:
    """A backend with one fault instead of those that it is configured with."""
    async with registry.backend({**config, "faults": [{"times": 0, **fault}]}) as backend:
        yield backend


class FakeFaults:
    """What a fake can be made to do wrong, through its configuration."""

    def status_fails(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        """Every question for the state of jobs fails."""
        return _faulty(config, operation="status", kind="resource-error")

    def unreachable(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        """Nothing answers."""
        return _faulty(config, operation="connect", kind="unreachable")

    def row_is_garbage(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """What is said of this job cannot be read."""
        return _faulty(config, operation="status", kind="item", ids=[handle.id], code="not-now")

    def submit_answer_lost(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """A submit arrives, and its answer does not come back."""
        return _faulty(config, operation="submit", kind="lost-after-effect", times=1)

    def lost_after_staging(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """The connection breaks when a submit has staged its files and submitted nothing."""
        return _faulty(config, operation="submit", kind="staged-only")

    def output_cut(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """It cannot be brought about.

        Raises:
            LookupError: Always.
        """
        raise LookupError("a fake has no stream")

    def id_reused(
        self, config: Mapping[str, object], finished: JobHandle, running: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """It cannot be brought about.

        Raises:
            LookupError: Always.
        """
        raise LookupError("a fake has no scheduler")
