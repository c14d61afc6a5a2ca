"""One stream for the output of any number of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from intercede.core import (
    ConnectionLost,
    Failure,
    FailureCode,
    JobID,
    JobOutput,
    OperationTimeout,
)
from intercede.toolkit import (
    JobParts,
    Limits,
    sweep,
)

from . import _sandbox as sandbox
from ._asking import only_finished
from ._fetching import Came, job_outputs
from ._host import Host, refused_root
from ._plain import PACK

__all__ = ["fetch_jobs"]

#: How much of the beginning is kept, to see what the script said of the root.
_BEGINNING: Final = 2000
#: To make so many, of jobs and their files, takes 3 ms: as long as the loop may wait. For a few, to wake a thread takes longer.
_MANY_PATHS: Final = 1000


async def fetch_jobs(
    host: Host, parts: Mapping[JobID, JobParts], dest: Path, failures: dict[JobID, Failure]
) -> dict[JobID, JobOutput]:
    """The output of the jobs that have ended; why of the others goes to `failures`.

    Raises:
        OSError: `dest` cannot be written.
    """
    await host.connect()
    await anyio.to_thread.run_sync(_prepare, dest)
    outputs: dict[JobID, JobOutput] = {}
    undecided = await _fetch_stream(host, parts, dest, outputs, failures, ended=False)
    if undecided:
        finished = await only_finished(host, undecided, failures)
        if finished:
            await _fetch_stream(host, finished, dest, outputs, failures, ended=True)
    failures |= {job: output.failure for job, output in outputs.items() if output.failure}
    await host.porters.brought(sum(len(output.files) for output in outputs.values()))
    return outputs


async def _fetch_stream(
    host: Host,
    parts: Mapping[JobID, JobParts],
    dest: Path,
    outputs: dict[JobID, JobOutput],
    failures: dict[JobID, Failure],
    *,
    ended: bool,
) -> dict[JobID, JobParts]:
    """One stream. Returns the jobs that have no record of their end."""
    script = host.script()
    jobs = sorted({(part.submission, part.copy) for part in parts.values()})
    asked = {f"{submission}/{copy}" for submission, copy in jobs}
    is_tar = host.tar == sandbox.TAR_GNU
    pack = sandbox.PACK_GNU_TAR if is_tar else PACK
    script.add(sandbox.stream_output(jobs, host.name, ended=ended, pack=pack))
    command = script.command(timeout_s=host.config.transfer_timeout_s)
    limits = Limits(
        host.config.output_max_bytes,
        host.config.output_max_files,
        host.config.output_max_s,
    )
    lost: ConnectionLost | OperationTimeout | None = None
    first = bytearray()
    came: dict[str, JobOutput] = {}

    async def learn(news: Mapping[str, Came]) -> None:
        if sum(1 + len(job.names) for job in news.values()) < _MANY_PATHS:
            came.update(job_outputs(news, dest))
        else:
            came.update(await anyio.to_thread.run_sync(job_outputs, news, dest))

    async with host.porters.receiving(script.nonce, dest, asked, limits, is_tar=is_tar) as receiver:
        try:
            async with host.transport.stream(command) as process:
                async for chunk in process.stdout:
                    if len(first) < _BEGINNING:
                        first += chunk[:_BEGINNING]
                    await learn(await receiver.feed(chunk))
                await process.wait()
        except (ConnectionLost, OperationTimeout) as error:
            lost = error
        fetched = await receiver.finish()
    await learn(fetched.news)
    if lost is not None and not came:
        raise lost  # nothing has come: the whole operation has failed
    lines = script.parse(bytes(first)).lines
    for line in lines:
        if line.startswith("refused "):
            raise refused_root(line)
    nowhere = "absent" in lines
    if not nowhere:
        fetched.raise_for_no_answer()
    undecided = {}
    for job, part in parts.items():
        key = f"{part.submission}/{part.copy}"
        if nowhere or key in fetched.absent:
            failures[job] = Failure(FailureCode.NO_SUCH_JOB, "no such job is here")
        elif key in fetched.unended:
            undecided[job] = part
        elif key in came:
            outputs[job] = came[key]
        else:
            failures[job] = Failure(FailureCode.NOT_NOW, "the answer says nothing about it")
    return undecided


def _prepare(dest: Path) -> None:
    """See that `dest` can be written before anything is asked for, and remove what a killed fetch left there."""
    dest.mkdir(parents=True, exist_ok=True)
    sweep(dest)
