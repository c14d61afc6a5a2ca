"""A computing element of DIRAC over interCEde: DIRAC's parameters and conventions on one side, the synchronous facade on the other."""

from __future__ import annotations

import shlex
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from DIRAC import S_ERROR, S_OK
from DIRAC.Resources.Computing.ComputingElement import ComputingElement
from DIRAC.WorkloadManagementSystem.Client import PilotStatus

from intercede import core, sync
from intercede.core import FailureCode, JobID, JobStatus, OutputSpec
from intercede.sync import Cancellable, JobBackend, LoadReporter, OutputRetriever, Purgeable
from intercede.toolkit import FileCredentials, StaticCredentials

__all__ = ["InterCEdeComputingElement"]

Names: TypeAlias = Sequence[str]
Options: TypeAlias = Mapping[str, Any]
Returned: TypeAlias = dict[str, Any]  # S_OK or S_ERROR

#: What is over is Done or Failed: RemoteRunner and the debug command know no other end, and for each that is Aborted the SiteDirector
#: suspends the queue, which is not to blame.
STATUSES: Final[Mapping[JobStatus, str]] = {
    JobStatus.PENDING: PilotStatus.WAITING,
    JobStatus.HELD: PilotStatus.WAITING,
    JobStatus.RUNNING: PilotStatus.RUNNING,
    JobStatus.SUCCESSFUL: PilotStatus.DONE,
    JobStatus.FAILED: PilotStatus.FAILED,
    JobStatus.CANCELLED: PilotStatus.FAILED,
    JobStatus.FINISHED_UNKNOWN: PilotStatus.FAILED,
    JobStatus.UNKNOWN: PilotStatus.UNKNOWN,
}
SCHEDULERS: Final[Mapping[str, str]] = {"Host": "direct", "SLURM": "slurm", "Condor": "htcondor"}


def translated(ce: str, site: Options) -> tuple[Options, core.CredentialProvider | None]:
    """The parameters of a queue, as interCEde's configuration and credentials."""
    name = f"{ce}_{site['Queue']}"
    if len(name) > 64:  # a resource's name is no longer
        name = f"{name[:31]}-{uuid.uuid5(uuid.NAMESPACE_URL, name).hex}"
    root = f"{site.get('SharedArea', '~')}/.intercede/{name}".replace("$HOME", "~")
    system = site.get("BatchSystem", "Host")
    scheduler: dict[str, object] = {"type": SCHEDULERS.get(system, system.lower())}
    if system == "SLURM":
        scheduler |= {"queue": site["Queue"], "account": site.get("Account")}
        scheduler["options"] = shlex.split(site.get("SubmitOptions", ""))
    config: dict[str, object] = {"name": name, "scheduler": scheduler, "root": root}
    if "SSHHost" not in site:
        return {**config, "transport": "local"}, None
    config["transport"] = ssh = {
        "type": "ssh",
        "host": site["SSHHost"],
        "user": site.get("SSHUser"),
        "port": int(site.get("SSHPort", 22)),
        "known_hosts": site.get("SSHKnownHosts", "~/.ssh/known_hosts"),  # DIRAC takes any
        "connect_timeout_s": float(site.get("Timeout", 120)),
    }
    if tunnel := site.get("SSHTunnel"):
        gateway, _, port = tunnel.partition(":")
        ssh["jump"] = [{"host": gateway, "user": ssh["user"], "port": int(port or 22)}]
    if key := site.get("SSHKey"):
        return config, FileCredentials({core.SSHKey: key})
    password = site.get("SSHPassword")
    ssh["auth"] = "password" if password else "agent"
    return config, StaticCredentials(core.Password(value=password)) if password else None


@runtime_checkable
class _Resource(JobBackend, OutputRetriever, Cancellable, Purgeable, LoadReporter, Protocol):
    """What DIRAC needs of a resource."""


def _guarded(method: Callable[..., Returned | None]) -> Callable[..., Returned]:
    def returning(*args: Any, **kwargs: Any) -> Returned:
        try:
            return method(*args, **kwargs) or S_OK()
        except (core.InterCEdeError, OSError, ValueError) as error:
            return S_ERROR(str(error))

    return returning


def _ids(references: str | Names) -> dict[JobID, str]:
    """References by job; some callers append `:::` and the stamp."""
    names = [references] if isinstance(references, str) else references
    return {JobID(name.partition(":::")[0]): name for name in names}


class InterCEdeComputingElement(ComputingElement):
    """What DIRAC's factory loads for `CEType = InterCEde`; docs/dirac/mapping.md explains each line."""

    _ce: _Resource

    @_guarded
    def _reset(self) -> None:
        self.shutdown()
        self.preamble = self.ceParameters.get("Preamble")
        ce = sync.backend(*translated(self.ceName, self.ceParameters))
        assert isinstance(ce, _Resource), f"{ce} lacks what DIRAC needs"
        self._ce = ce

    @_guarded
    def shutdown(self) -> None:
        """Close the connection; jobs are not affected."""
        if hasattr(self, "_ce"):
            self._ce.close()

    @_guarded
    def submitJob(
        self,
        executableFile: str,
        proxy: object,
        numberOfJobs: int = 1,
        inputs: Names = (),
        outputs: Names = (),
    ) -> Returned:
        """Submit copies of an executable. The files may be removed afterwards: there is never an ExecutableToKeep."""
        stamps = [uuid.uuid4().hex for _ in range(numberOfJobs)]
        copies = [core.CopyVars(environment={"DIRAC_PILOT_STAMP": stamp}) for stamp in stamps]
        try:
            made = self._ce.submit(self._spec(executableFile, inputs, outputs), copies)
            handles = made.handles
            for copy, failure in made.failures.items():
                self.log.error(f"Copy {copy} was not submitted: {failure.message}")
            if not handles:
                return S_ERROR(f"Nothing was submitted: {made.failures[0].message}")
        except core.SubmitUncertain as error:
            handles = error.handles  # status will tell; after an S_ERROR DIRAC submits again
            self.log.warn(str(error))
        stamped = {handle.id: stamps[handle.copy] for handle in handles}
        return {**S_OK(list(stamped)), "PilotStampDict": stamped}

    def _spec(self, executable: str, inputs: Names, outputs: Names) -> core.SubmissionSpec:
        name, site = Path(executable).name, self.ceParameters
        files = [core.FileRef(Path(path).name, source=path) for path in inputs]
        files.append(core.FileRef(name, source=executable, executable=True))
        return core.SubmissionSpec(
            "bash",
            ["-c", f'{self.preamble or ""}\nexec "./$0"', name],
            resident=True,
            inputs=files,
            outputs=OutputSpec(everything=True) if "/" in outputs else OutputSpec(outputs),
            resources=core.Resources(
                cpus=int(site.get("NumberOfProcessors", 1)),
                gpus=int(site.get("NumberOfGPUs", 0)),
                nodes=int(site.get("NumberOfNodes", 1)),
                whole_node=str(site.get("WholeNode")).lower() in ("true", "yes", "y", "1"),
            ),
        )

    @_guarded
    def getCEStatus(self) -> Returned:
        """The unfinished jobs of this queue; `available` makes slots of them."""
        counts = self._ce.counts()
        return {**S_OK(), "RunningJobs": counts.running, "WaitingJobs": counts.waiting}

    @_guarded
    def getJobStatus(self, jobIDList: str | Names) -> Returned:
        """Where jobs are. A job that cannot be asked about now is left out: callers keep what they knew of it."""
        ids = _ids(jobIDList)
        answers = self._ce.status(list(ids))
        later = [j for j, why in answers.failures.items() if why.code is FailureCode.NOT_NOW]
        if later and len(later) == len(ids):
            return S_ERROR(f"No status now: {answers.failures[later[0]].message}")
        return S_OK({ids[job]: STATUSES[at] for job, at in answers.items() if job not in later})

    @_guarded
    def killJob(self, jobIDList: str | Names) -> None:
        """Kill jobs, each whatever becomes of the others."""
        self._ce.kill(list(_ids(jobIDList))).raise_for_failures()

    @_guarded
    def cleanJob(self, jobIDList: str | Names) -> None:
        """Remove what the resource keeps of finished jobs."""
        self._ce.purge(list(_ids(jobIDList))).raise_for_failures()

    @_guarded
    def getJobOutput(self, jobID: str, localDir: str | None = None) -> Returned:
        """The text of stdout and stderr; with `localDir` all files come there, these two as `<stamp>.out` and `<stamp>.err`."""
        job, _, stamp = jobID.partition(":::")
        with tempfile.TemporaryDirectory(dir=localDir) as place:
            output = self._ce.fetch_output([JobID(job)], Path(place))[JobID(job)]
            if output.failure is not None:
                return S_ERROR(f"No output of {job}: {output.failure.message}")
            streams = {f"{stamp}.out": output.stdout, f"{stamp}.err": output.stderr}
            said = tuple(p.read_text(errors="replace") if p else "" for p in streams.values())
            for name, path in {**output.files, **streams}.items():
                target = Path(localDir or place, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                if path is not None:
                    path.replace(target)
                else:  # it was killed before it began
                    target.touch()
        return S_OK(said)
