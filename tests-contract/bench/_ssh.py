"""Files over SSH: one of 2 GiB and 10,000 of 10 kB, to the host and back, beside `tar` through OpenSSH's `ssh`, and `sftp`.

All three have a connection already, to the same sshd on this machine, and write to the same disk.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from attrs import evolve, frozen

from intercede.backend.batch import BatchBackend
from intercede.core import (
    CredentialProvider,
    FileRef,
    JobID,
    OutputSpec,
    Submission,
    SubmissionSpec,
    registry,
)
from stacks.sshd import Sshd

from ._measure import Case, Row, Side, measure
from ._work import all_successful, shared_connection

__all__ = ["rows"]

#: What is moved: its name, and the shell command that makes it in an empty directory.
_LOADS: Final = {
    "1 file of 2 GiB": "head -c 2147483648 /dev/urandom >large",
    "10,000 files of 10 kB": "head -c 102400000 /dev/urandom | split -b 10240 -a 4 - small.",
}
#: Those that a backend's first fetch brings in another way than those after it.
_MANY: Final = ("10,000 files of 10 kB",)


async def rows(rounds: int, tell: Callable[[str], None]) -> Sequence[Row]:
    """Measure both loads in both directions."""
    found = []
    with tempfile.TemporaryDirectory(prefix="intercede-bench-") as folder, Sshd() as sshd:
        place = Path(folder)
        with _client(sshd, place) as options:
            config = {"transport": sshd.config, "scheduler": "direct", "root": f"{place}/host"}
            async with sshd.credentials() as credentials:
                make = partial(_backend, config, credentials)
                async with make() as ce:
                    for name, command in _LOADS.items():
                        bench = _Bench(ce, make, options, place, command)
                        found.append(await measure(await bench.upload(name), rounds, tell))
                        if name in _MANY:
                            async with bench.first_download(name) as case:
                                found.append(await measure(case, rounds, tell))
                        found.append(await measure(await bench.download(name), rounds, tell))
                        await bench.clean()
    return found


def _backend(config: Mapping[str, Any], credentials: CredentialProvider) -> BatchBackend:
    ce = registry.backend(config, credentials)
    assert isinstance(ce, BatchBackend)
    return ce


def _client(sshd: Sshd, place: Path) -> AbstractContextManager[list[str]]:
    """Options of OpenSSH's clients, which share a connection that is open already."""
    settings = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityFile": f"{sshd.folder}/user_key",
        "Port": str(sshd.port),
        "User": sshd.user,
        "UserKnownHostsFile": f"{sshd.folder}/known_hosts",
    }
    options = ["-F", "none", *(f"-o{key}={value}" for key, value in settings.items())]
    return shared_connection(options, "127.0.0.1", place)


@frozen
class _Bench:
    """One load.

    Attributes:
        ce: The backend.
        make: Makes another one.
        options: Of OpenSSH's clients.
        place: A folder of our own.
        command: Makes the load.
    """

    ce: BatchBackend
    make: Callable[[], BatchBackend]
    options: Sequence[str]
    place: Path
    command: str

    @property
    def _load(self) -> Path:
        return self.place / "load"

    @property
    def _there(self) -> Path:
        return self.place / "there"

    @property
    def _here(self) -> Path:
        return self.place / "here"

    async def upload(self, name: str) -> Case:
        """From here to the host."""
        self._load.mkdir()
        await _shell(f"cd {shlex.quote(str(self._load))} && {self.command}")
        wanted = await _digests(self._load)
        made: list[Submission] = []
        spec = SubmissionSpec("true", resident=True, inputs=[FileRef("load", source=self._load)])

        async def ours() -> None:
            made.append(await self.ce.submit(spec))

        async def ours_arrived() -> None:
            submission = made.pop()
            submission.raise_for_failures()
            await all_successful(self.ce, [handle.id for handle in submission.handles])
            sandbox = self.place / "host" / submission.id / "inputs/load"
            assert await _digests(sandbox) == wanted
            (await self.ce.purge([handle.id for handle in submission.handles])).raise_for_failures()

        async def arrived() -> None:
            assert await _digests(self._there) == wanted
            await anyio.to_thread.run_sync(shutil.rmtree, self._there)

        tar = self._remotely(f"mkdir {self._there} && tar -C {self._there} -xf -")
        tar = f"tar -C {self._load} -cf - . | {tar}"
        sftp = self._by_sftp(f"mkdir {self._there}", f"put {self._load}/* {self._there}/")
        return Case(
            f"{name}, to the host",
            Side("interCEde", ours, ours_arrived),
            [
                Side("ssh tar", partial(_shell, tar), arrived),
                Side("sftp", partial(_shell, sftp), arrived),
            ],
        )

    async def download(self, name: str) -> Case:
        """From the host to here, by a backend that has fetched as much before."""
        job = await self._made()
        case = await self._download(f"{name}, from the host", job, lambda: self.ce)
        await case.ours.run()
        await case.ours.verify()
        return case

    @asynccontextmanager
    async def first_download(self, name: str) -> AsyncIterator[Case]:
        """From the host to here, by one that has only looked where the job is."""
        job = await self._made()
        found: list[BatchBackend] = []

        async def anew() -> None:
            for ce in found:
                await ce.aclose()
            found[:] = [self.make()]
            await all_successful(found[0], [job])

        case = await self._download(f"{name}, from the host, a first fetch", job, lambda: found[0])

        async def verify() -> None:
            await case.ours.verify()
            await anew()

        await anew()
        try:
            yield evolve(case, ours=evolve(case.ours, verify=verify))
        finally:
            await found[0].aclose()

    async def _made(self) -> JobID:
        """A job whose output is the load."""
        spec = SubmissionSpec(
            "sh", ["-c", self.command], resident=True, outputs=OutputSpec(everything=True)
        )
        submission = await self.ce.submit(spec)
        submission.raise_for_failures()
        (job,) = [handle.id for handle in submission.handles]
        await all_successful(self.ce, [job])
        return JobID(job)

    async def _download(self, name: str, job: JobID, ce: Callable[[], BatchBackend]) -> Case:
        part = "/".join(job.split("/")[-3:-1])
        work = self.place / "host" / part / "work"
        wanted = await _digests(work)

        async def ours() -> None:
            outputs = await ce().fetch_output([job], self._here)
            outputs.raise_for_failures()

        async def ours_arrived() -> None:
            assert await _digests(self._here / part / "work") == wanted
            await anyio.to_thread.run_sync(shutil.rmtree, self._here)

        async def arrived() -> None:
            assert await _digests(self._here) == wanted
            await anyio.to_thread.run_sync(shutil.rmtree, self._here)

        tar = self._remotely(f"tar -C {work} -cf - .")
        tar = f"mkdir {self._here} && {tar} | tar -C {self._here} -xf -"
        sftp = f"mkdir {self._here} && {self._by_sftp(f'get {work}/* {self._here}/')}"
        return Case(
            name,
            Side("interCEde", ours, ours_arrived),
            [
                Side("ssh tar", partial(_shell, tar), arrived),
                Side("sftp", partial(_shell, sftp), arrived),
            ],
        )

    async def clean(self) -> None:
        """Remove the load."""
        await anyio.to_thread.run_sync(shutil.rmtree, self._load)

    def _remotely(self, command: str) -> str:
        """A command on the host, as one of the shell."""
        return shlex.join(["ssh", *self.options, "127.0.0.1", command])

    def _by_sftp(self, *lines: str) -> str:
        """A batch of sftp's, as a command of the shell."""
        sftp = shlex.join(["sftp", "-q", "-b", "-", *self.options, "127.0.0.1"])
        return f"printf '%s\\n' {shlex.join(lines)} | {sftp} >/dev/null"


async def _shell(command: str) -> None:
    await anyio.run_process(["sh", "-c", command])


async def _digests(folder: Path) -> dict[str, str]:
    """By name, the SHA-256 of each file."""
    return await anyio.to_thread.run_sync(_digests_of, folder)


def _digests_of(folder: Path) -> dict[str, str]:
    found = {}
    for file in folder.iterdir():
        with file.open("rb") as stream:
            found[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    assert found
    return found
