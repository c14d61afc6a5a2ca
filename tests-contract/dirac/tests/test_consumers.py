"""DIRAC's own code drives the element against a real Slurm: SiteDirector, PushJobAgent, WMSUtilities, RemoteRunner, the debug command.

What stands in for services of DIRAC's: an in-memory PilotAgentsDB, whose columns are as wide as the real one's; who hands out proxies and
tokens; the matcher. The pilots are scripts of a line.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from DIRAC import S_OK, gLogger
from DIRAC.Core.Base.AgentModule import AgentModule
from DIRAC.Resources.Computing.ComputingElementFactory import ComputingElementFactory
from DIRAC.WorkloadManagementSystem.Agent import PushJobAgent as push
from DIRAC.WorkloadManagementSystem.Agent.SiteDirector import SiteDirector
from DIRAC.WorkloadManagementSystem.Client import PilotStatus
from DIRAC.WorkloadManagementSystem.scripts import dirac_admin_debug_ce as debug
from DIRAC.WorkloadManagementSystem.Service import WMSUtilities
from DIRAC.WorkloadManagementSystem.Utilities import RemoteRunner as remote
from dirac_site import SITE, VO, Site, ended, seen, value


class PilotAgents:
    """PilotAgentsDB, as far as the SiteDirector uses it."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def addPilotReferences(
        self, references: list[str], vo: str, kind: str, stamps: dict[str, str]
    ) -> Any:
        for reference in references:
            assert len(reference) <= 255
            assert 0 < len(stamps[reference]) <= 32
            row = {"VO": vo, "GridType": kind, "PilotStamp": stamps[reference]}
            self.rows[reference] = {**row, "LastUpdateTime": datetime.utcnow()}
        return S_OK()

    def setPilotStatus(self, reference: str, status: str, *_: Any) -> Any:
        assert status in PilotStatus.PILOT_STATES
        self.rows[reference] |= {"Status": status, "LastUpdateTime": datetime.utcnow()}
        return S_OK()

    def selectPilots(self, condition: dict[str, Any]) -> Any:
        return S_OK([one for one, row in self.rows.items() if row["Status"] in condition["Status"]])

    def getPilotInfo(self, references: list[str]) -> Any:
        return S_OK({reference: self.rows[reference] for reference in references})

    def statuses(self) -> list[str]:
        """Of all pilots."""
        return [row["Status"] for row in self.rows.values()]


@pytest.fixture
def without_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents and utilities get along without DIRAC's services."""
    monkeypatch.setattr(AgentModule, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(SiteDirector, "_setCredentials", lambda *_: S_OK())
    monkeypatch.setattr(WMSUtilities, "setPilotCredentials", lambda *_: S_OK())
    module = "DIRAC.WorkloadManagementSystem.Agent.SiteDirector"
    monkeypatch.setattr(f"{module}.gProxyManager", MagicMock(downloadProxy=lambda *_, **__: S_OK()))


@pytest.fixture
def director(without_services: None) -> Any:
    """A SiteDirector with an empty database."""
    director = SiteDirector("WorkloadManagement/SiteDirector", "WorkloadManagement/SiteDirector")
    director.log = gLogger
    director.vo = VO
    director.pilotAgentsDB = PilotAgents()
    director.sendAccounting = director.sendSubmissionAccounting = False
    director.matcherClient = MagicMock()
    queues = {1: {"OwnerGroup": "ic_user", "Jobs": 100}}
    director.matcherClient.getMatchingTaskQueues.return_value = S_OK(queues)
    return director


def submit(ce: Any, executable: str, copies: int = 1, **more: Any) -> list[str]:
    references: list[str] = value(ce.submitJob(executable, "", copies, **more))
    return references


def test_the_factory_of_dirac_loads_the_element_of_the_extension(site: Site) -> None:
    parameters = {**site.parameters(), "Queue": "main"}

    result = ComputingElementFactory().getCE("InterCEde", "ce.example.org", parameters)

    ce = value(result)
    assert type(ce).__module__ == "InterCEdeDIRAC.Resources.Computing.InterCEdeComputingElement"
    assert (ce.ceType, ce.isValid()["OK"]) == ("InterCEde", True)
    ce.shutdown()


def test_the_site_director_submits_as_many_pilots_as_there_are_slots_and_sees_all_of_them_done(
    site: Site, director: Any, pilot: Callable[..., str]
) -> None:
    name = site.configure(MaxTotalJobs="5", MaxWaitingJobs="4")
    director.queueDict = site.queues(name)
    executable = pilot()
    director._getExecutable = lambda *_, **__: executable

    submitted = value(director._submitPilotsPerQueue(f"{name}_main"))

    assert submitted == 4
    assert not Path(
        executable
    ).exists()  # removed by the SiteDirector: there is no ExecutableToKeep
    until = time.monotonic() + 120
    while set(director.pilotAgentsDB.statuses()) != {"Done"}:
        assert time.monotonic() < until, director.pilotAgentsDB.rows
        value(director.monitorPilots())
        time.sleep(0.5)
    assert not any(director.failedQueues.values())


def test_a_pilot_that_fails_does_not_make_the_site_director_suspend_the_queue(
    site: Site, director: Any, pilot: Callable[..., str]
) -> None:
    name = site.configure()
    director.queueDict = site.queues(name)
    director._getExecutable = lambda *_, **__: pilot("exit 7")
    value(director._submitPilotsPerQueue(f"{name}_main"))

    until = time.monotonic() + 120
    while director.pilotAgentsDB.statuses() != ["Failed"]:
        assert time.monotonic() < until, director.pilotAgentsDB.rows
        value(director.monitorPilots())
        time.sleep(0.5)

    assert not any(director.failedQueues.values())


def test_pilots_of_a_cluster_that_does_not_answer_are_never_declared_aborted(
    site: Site, director: Any, pilot: Callable[..., str]
) -> None:
    name = site.configure()
    director.queueDict = site.queues(name)
    director._getExecutable = lambda *_, **__: pilot("sleep 60")
    value(director._submitPilotsPerQueue(f"{name}_main"))
    (row,) = director.pilotAgentsDB.rows.values()
    row |= {"Status": "Unknown", "LastUpdateTime": datetime.utcnow() - timedelta(hours=3)}

    with site.replaced("squeue", "exit 1"), site.replaced("sacct", "exit 1"):
        result = director._monitorPilotsPerQueue(f"{name}_main")

    assert not result["OK"]
    assert row["Status"] == "Unknown"
    value(director._monitorPilotsPerQueue(f"{name}_main"))
    assert row["Status"] in ("Waiting", "Running")


@pytest.fixture
def agent(without_services: None) -> Any:
    """A PushJobAgent whose jobs are given to it."""
    agent = push.PushJobAgent("WorkloadManagement/PushJobAgent", "WorkloadManagement/PushJobAgent")
    agent.log = gLogger
    agent.logLevel = "INFO"
    agent.extraOptions = ""
    agent.siteName = SITE
    agent.jobSubmissionDelay = 0
    agent.jobs = {"1": {"JobReport": MagicMock()}}
    agent.preProcessJob = lambda *_, **__: S_OK({})
    agent.postProcessJob = MagicMock()
    agent._getJDLParameters = lambda _: S_OK({})
    agent._getCEDict = lambda _: S_OK([{}])
    agent.jobMonitoring = MagicMock()
    agent.jobMonitoring.getJobs.return_value = S_OK([1])
    agent.jobMonitoring.getJobJDL.return_value = S_OK("")
    return agent


#: Stands for the job wrapper: needs all its inputs, and leaves what the agent looks for.
WRAPPER = """\
set -e
[ -s Wrapper_1 ] && [ -s Wrapper_1.json ] && [ -s dirac.cfg ] && [ "$(cat sandbox/in.txt)" = input ]
mkdir -p out/deep
echo result > out/deep/result.txt
echo '{"OK": true, "Value": {}}' > payloadResult.json
printf '{"out/deep/result.txt": "%s"}' "$(sha256sum out/deep/result.txt | cut -d' ' -f1)" > checksums.json
echo "made with $PREPARED"
"""


def test_the_push_job_agent_gets_back_all_that_a_job_made_and_cleans_up(
    site: Site, agent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ce = site.element()
    ce.preamble = "export PREPARED=care"  # as the agent sets it
    job = MagicMock(jobIDPath=str(tmp_path / "1"), jobID=1)
    (tmp_path / "1/sandbox").mkdir(parents=True)
    (tmp_path / "1/sandbox/in.txt").write_text("input")
    (tmp_path / "wrapper").mkdir()
    files = {"JobExecutablePath": "Job1", "JobWrapperPath": "Wrapper_1", "JobWrapperConfigPath": "Wrapper_1.json"}  # fmt: skip
    for file in files.values():
        (tmp_path / "wrapper" / file).write_text("#!/bin/bash\n" + WRAPPER)
    made = {key: str(tmp_path / "wrapper" / file) for key, file in files.items()}
    monkeypatch.setattr(push, "getJobWrapper", lambda *_: job)
    monkeypatch.setattr(push, "JobWrapper", lambda *_: job)
    monkeypatch.setattr(push, "JobReport", MagicMock())
    monkeypatch.setattr(push, "createJobWrapper", lambda **_: S_OK(made))
    info = {"CPUTimeLeft": 1, "CPUNormalizationFactor": 1.0}

    value(agent._submitJobWrapper("1", ce, "/cvmfs", info, {}, {}, {}, 1))

    report = agent.jobs["1"]["JobReport"]
    told = {c.kwargs["par_name"]: c.kwargs["par_value"] for c in report.setJobParameter.mock_calls}
    row = {**told, "GridCE": ce.ceName}
    monkeypatch.setattr(push, "getJobParametersUtility", lambda *_: S_OK({1: row}))
    shutil.rmtree(tmp_path / "1")
    (tmp_path / "1").mkdir()
    assert ended(ce, [told["TaskID"]]) == {told["TaskID"]: "Done"}
    value(agent._checkSubmittedJobWrappers(ce, SITE))
    agent.postProcessJob.assert_called_once()
    assert (tmp_path / "1/out/deep/result.txt").read_text() == "result\n"
    assert (tmp_path / f"1/{told['Stamp']}.out").read_text() == "made with care\n"
    names = {path.name for path in (tmp_path / "1").iterdir()}
    assert names & {"Job1", "Wrapper_1", "Wrapper_1.json", "dirac.cfg", "sandbox"} == set()
    assert value(ce.getJobStatus([told["TaskID"]])) == {told["TaskID"]: "Unknown"}  # it was cleaned


def test_kill_pilots_in_queues_kills_every_pilot_of_every_queue(
    site: Site, without_services: None, pilot: Callable[..., str]
) -> None:
    name = site.configure(["main", "short"])
    queues = site.queues(name)
    elements = {queue: queues[f"{name}_{queue}"]["CE"] for queue in ("main", "short")}
    pilots = {q: submit(ce, pilot("sleep 300"), 3) for q, ce in elements.items()}
    pilots["main"].insert(1, f"{name}_main/nosuchsubmission/0")

    asked = {
        f"{VO}@@@{SITE}@@@{name}@@@{queue}": {"GridType": "InterCEde", "PilotList": references}
        for queue, references in pilots.items()
    }
    result = WMSUtilities.killPilotsInQueues(asked, site.cache)

    assert not result["OK"]  # one of the references is nobody's, and it says so
    assert "nosuchsubmission" in result["Message"]
    for queue, references in pilots.items():
        real = [reference for reference in references if "nosuch" not in reference]
        assert ended(elements[queue], real) == dict.fromkeys(real, "Failed")
    assert set(site.in_slurm()) <= {"CANCELLED", "COMPLETING"}


def test_kill_pilots_in_queues_succeeds_for_pilots_that_wait_run_and_have_ended(
    site: Site, without_services: None, pilot: Callable[..., str]
) -> None:
    name = site.configure()
    ce = site.queues(name)[f"{name}_main"]["CE"]
    (done,) = submit(ce, pilot("exit 0"))
    (running,) = submit(ce, pilot("sleep 300"))
    ended(ce, [done])
    seen(ce, [running], lambda at: at == "Running")

    key = f"{VO}@@@{SITE}@@@{name}@@@main"
    asked = {key: {"GridType": "InterCEde", "PilotList": [done, running]}}
    value(WMSUtilities.killPilotsInQueues(asked, site.cache))

    assert ended(ce, [done, running]) == {done: "Done", running: "Failed"}


def test_a_pilots_output_is_text_for_the_web_application(
    site: Site, without_services: None, pilot: Callable[..., str]
) -> None:
    name = site.configure()
    ce = site.queues(name)[f"{name}_main"]["CE"]
    result = ce.submitJob(pilot(), "", 1)
    (reference,), stamps = value(result), result["PilotStampDict"]
    ended(ce, [reference])
    known = {"GridSite": SITE, "DestinationSite": name, "Queue": "main", "GridType": "InterCEde"}

    another = value(WMSUtilities.getPilotCE(known))
    name_and_stamp = value(WMSUtilities.getPilotRef(reference, {"PilotStamp": stamps[reference]}))
    stdout, stderr = value(another.getJobOutput(name_and_stamp))

    assert (stdout, stderr) == (f"hello from {stamps[reference]}\n", "oops\n")
    shutil.rmtree(another.ceParameters["WorkingDirectory"])
    another.shutdown()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for two minutes between two polls waits for half a second."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.5)))


@pytest.mark.usefixtures("impatient")
def test_the_remote_runner_brings_the_whole_directory_home(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = site.configure(NumberOfProcessors="2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("X509_USER_PROXY", "/nonexistent")
    monkeypatch.setattr(remote, "getProxyInfo", lambda: S_OK({"chain": MagicMock()}))
    (tmp_path / "payload.sh").write_text("echo $SLURM_CPUS_PER_TASK; cat in.txt > out.txt\n")
    (tmp_path / "in.txt").write_text("data")

    status, stdout, stderr = value(
        remote.RemoteRunner(SITE, name, "main").execute("sh payload.sh", ".", 2)
    )

    assert (status, stderr) == (0, "")
    assert stdout == "2\n"
    assert (tmp_path / "out.txt").read_text() == "data"
    assert sorted(os.listdir(tmp_path)) == ["in.txt", "out.txt", "payload.sh"]
    assert site.host('ls "$1"/.intercede/*', site.area).split() == []  # it was cleaned


@pytest.mark.usefixtures("impatient")
def test_the_remote_runner_knows_the_end_of_a_job_that_was_killed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = site.configure()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("X509_USER_PROXY", "/nonexistent")
    monkeypatch.setattr(remote, "getProxyInfo", lambda: S_OK({"chain": MagicMock()}))
    (tmp_path / "payload.sh").write_text("sleep 600\n")
    runner = remote.RemoteRunner(SITE, name, "main")
    check = runner._checkOutputIntegrity
    monkeypatch.setattr(runner, "_checkOutputIntegrity", lambda place: check(place) and S_OK())
    setting_up = runner._setUpWorkloadCE
    elements: list[Any] = []

    def remembered(processors: int) -> Any:
        result = setting_up(processors)
        ce = value(result)
        elements.append(ce)
        status = ce.getJobStatus

        def killing(references: list[str]) -> Any:
            value(ce.killJob(references))
            (tmp_path / "md5Checksum.txt").touch()
            return status(references)

        ce.getJobStatus = killing
        return result

    monkeypatch.setattr(runner, "_setUpWorkloadCE", remembered)

    status, _, _ = value(runner.execute("sh payload.sh", ".", 1))

    assert status == -1  # "Failed"; "Aborted" is no key of its table


@pytest.mark.usefixtures("impatient")
def test_the_debug_command_passes_every_check(site: Site, pilot: Callable[..., str]) -> None:
    checks = debug.interactWithCE(site.element(), pilot())

    assert {name: state["OK"] for name, state in checks.items()} == dict.fromkeys(checks, True)


@pytest.mark.usefixtures("impatient")
def test_the_debug_command_sees_the_end_of_a_job_that_was_killed(
    site: Site, pilot: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ce = site.element()
    status = ce.getJobStatus

    def killing(references: list[str]) -> Any:
        value(ce.killJob(references))
        return status(references)

    ce.getJobStatus = killing
    monkeypatch.setattr(debug, "JOB_STATUS_TIMEOUT", 60)

    assert debug.interactWithCE(ce, pilot("sleep 600"))["job_status"]["OK"]
