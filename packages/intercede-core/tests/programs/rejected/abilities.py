"""What a backend may lack cannot be used before somebody has looked."""

from pathlib import Path

from intercede.core import Cancellable, JobBackend, JobID, Monitor, OutputRetriever


async def use(ce: JobBackend, ids: list[JobID]) -> None:
    await ce.kill(ids)  # E: attr-defined
    await ce.fetch_output(ids, Path())  # E: attr-defined
    await ce.purge(ids)  # E: attr-defined
    if isinstance(ce, Cancellable):
        await ce.kill(ids)
        await ce.counts()  # E: attr-defined
    if isinstance(ce, OutputRetriever):
        ce.destructive = True  # E: misc


async def watch(monitor: Monitor, ids: list[JobID]) -> None:
    await monitor.submit(None)  # E: attr-defined
