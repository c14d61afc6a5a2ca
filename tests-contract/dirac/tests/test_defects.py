"""What is wrong in DIRAC 9.1.22's own elements, met through this one: each defect that Slurm, a plain host or this machine can show.

The names say what is right. docs/dirac/mapping.md lists them beside the lines of DIRAC where it is wrong.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import DIRAC
import pytest
from DIRAC.Resources.Computing.ComputingElementFactory import ComputingElementFactory
from dirac_site import FINAL, Site, ended, seen, value
from InterCEdeDIRAC.Resources.Computing import InterCEdeComputingElement as element

from stacks._life import running
from stacks._manifest import stacks


def submit(ce: Any, executable: str, copies: int = 1, **more: Any) -> list[str]:
    references: list[str] = value(ce.submitJob(executable, "", copies, **more))
    return references


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Any]:
    """The element of this machine without a batch system, as LocalComputingElement with Host is."""
    parameters = {"Queue": "here", "BatchSystem": "Host", "SharedArea": str(tmp_path / "area")}
    ce = value(ComputingElementFactory().getCE("InterCEde", "desk", parameters))
    yield ce
    ce.shutdown()


# ---------------------------------------------------------------- HTCondorCE and Condor


def test_a_job_that_has_left_the_queue_is_not_unknown(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()
    references = submit(ce, pilot("exit 0"), 3)

    with site.replaced("sacct", "exit 1"):  # nor does it need accounting
        assert set(ended(ce, references).values()) == {"Done"}
        with site.replaced("squeue", 'exec /usr/bin/squeue "$@" --name=nobody'):
            assert set(value(ce.getJobStatus(references)).values()) == {"Done"}


def test_a_pilot_that_ends_with_an_exit_code_is_failed_and_not_aborted(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()

    assert list(ended(ce, submit(ce, pilot("exit 55"))).values()) == ["Failed"]


def test_one_pilot_that_cannot_be_killed_does_not_save_the_rest(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()
    first, *others = submit(ce, pilot("sleep 300"), 4)
    nobodys = first.replace("/0/", "/99/")

    result = ce.killJob([nobodys, first, "", *others])

    assert not result["OK"]
    assert "2 failed" in result["Message"]
    assert set(ended(ce, [first, *others]).values()) == {"Failed"}


# ---------------------------------------------------------------- SSHCE


def test_the_default_area_is_the_accounts_home(site: Site, pilot: Callable[..., str]) -> None:
    name = site.configure()
    parameters = {**site.parameters(), "Queue": "main"}
    del parameters["SharedArea"]
    ce = value(ComputingElementFactory().getCE("InterCEde", name, parameters))

    references = submit(ce, pilot())

    assert list(ended(ce, references).values()) == ["Done"]
    assert site.host('ls ~/.intercede/"$1"', f"{name}_main") != ""
    value(ce.cleanJob(references))
    site.host('rm -r ~/.intercede/"$1"', f"{name}_main")
    ce.shutdown()


def test_an_area_in_home_is_one_though_nobody_expands_the_variable(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element(SharedArea=f"$HOME/{site.area}")

    assert list(ended(ce, submit(ce, pilot())).values()) == ["Done"]
    assert site.host('ls "$1/.intercede"', site.area) != ""


def test_no_options_of_ones_own_are_no_options(site: Site, pilot: Callable[..., str]) -> None:
    ce = site.element()
    assert "SubmitOptions" not in ce.ceParameters

    assert list(ended(ce, submit(ce, pilot())).values()) == ["Done"]


def test_an_area_may_have_a_space_in_its_name(site: Site, pilot: Callable[..., str]) -> None:
    ce = site.element(account="space")
    assert " " in ce.ceParameters["SharedArea"]

    references = submit(ce, pilot("pwd"))

    assert list(ended(ce, references).values()) == ["Done"]
    assert site.area in value(ce.getJobOutput(f"{references[0]}:::x"))[0]


def test_the_host_needs_no_python(site: Site, pilot: Callable[..., str]) -> None:
    assert site.host("command -v python3 python || echo none") == "none\n"
    ce = site.element()

    assert list(ended(ce, submit(ce, pilot())).values()) == ["Done"]


def test_nothing_is_written_where_dirac_is_installed(site: Site, pilot: Callable[..., str]) -> None:
    package = Path(DIRAC.__file__).parent / "Resources/Computing"
    before = sorted(path for path in package.rglob("*") if path.suffix != ".pyc")

    ce = site.element()
    ended(ce, submit(ce, pilot()))

    assert sorted(path for path in package.rglob("*") if path.suffix != ".pyc") == before


def test_elements_in_many_threads_do_not_race(site: Site, pilot: Callable[..., str]) -> None:
    names = [site.configure() for _ in range(4)]
    executables = [pilot("exit 0") for _ in names]

    def all_of_it(name: str, executable: str) -> str:
        ce = site.queues(name)[f"{name}_main"]["CE"]
        return "".join(ended(ce, submit(ce, executable)).values())

    with ThreadPoolExecutor(len(names)) as threads:
        assert list(threads.map(all_of_it, names, executables)) == ["Done"] * 4


def test_a_submission_that_fails_after_it_arrived_is_not_run_again(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()
    lost = '/usr/bin/sbatch "$@" >/dev/null; echo "sbatch: error: Socket timed out" >&2; exit 1'

    with site.replaced("sbatch", lost):
        result = ce.submitJob(pilot("sleep 300"), "", 3)

    assert len(value(result)) == 3
    assert len(site.in_slurm()) == 3
    value(ce.killJob(result["Value"]))


def test_a_host_with_another_key_than_the_known_one_gets_nothing(
    site: Site, tmp_path: Path, pilot: Callable[..., str]
) -> None:
    other = running(stacks()["ssh-forky"])
    key = (site.there.folder / "known_hosts").read_text()
    strange = (other.folder / "known_hosts").read_text().split()[1:]
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"{key.split()[0]} {' '.join(strange)}\n")
    ce = site.element(SSHKnownHosts=str(hosts))

    result = ce.submitJob(pilot(), "", 1)

    assert not result["OK"]
    assert "host key" in result["Message"].lower()


def test_a_host_that_nobody_has_vouched_for_gets_nothing(
    site: Site, tmp_path: Path, pilot: Callable[..., str]
) -> None:
    (tmp_path / "known_hosts").touch()
    ce = site.element(SSHKnownHosts=str(tmp_path / "known_hosts"))

    assert not ce.submitJob(pilot(), "", 1)["OK"]
    assert not ce.getCEStatus()["OK"]


def test_a_command_that_does_not_end_has_a_time_out(
    site: Site, pilot: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(element, "translated", _hasty)
    ce = site.element(SubmitOptions="--hold")
    references = submit(ce, pilot())

    with site.replaced("squeue", "exec sleep 1000"):
        result = ce.getCEStatus()

    assert not result["OK"]
    assert "within 3 s" in result["Message"]
    value(ce.getCEStatus())
    value(ce.killJob(references))


def _hasty(ce: str, site: dict[str, Any], of: Any = element.translated) -> Any:
    """The configuration of a resource that is not waited for."""
    config, provider = of(ce, site)
    return {**config, "command_timeout_s": 3.0}, provider


# ---------------------------------------------------------------- Host: processes of a machine


def test_an_exit_code_is_told_on_a_host_without_a_batch_system(
    here: Any, pilot: Callable[..., str]
) -> None:
    good, bad = submit(here, pilot("exit 0")), submit(here, pilot("exit 7"))

    assert ended(here, good + bad) == {good[0]: "Done", bad[0]: "Failed"}


def test_a_kill_ends_the_children_too_and_leaves_the_output(
    here: Any, pilot: Callable[..., str], tmp_path: Path
) -> None:
    (reference,) = submit(here, pilot(f"echo begun; sleep 300 & echo $! > {tmp_path}/child; wait"))
    seen(here, [reference], lambda at: at == "Running")
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        time.sleep(0.05)

    value(here.killJob(reference))

    assert ended(here, [reference]) == {reference: "Failed"}
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().rpartition(") ")[2][0] == "Z"
    assert value(here.getJobOutput(f"{reference}:::stamp"))[0] == "begun\n"


def test_running_jobs_of_a_host_are_counted_whatever_the_executables_name(
    here: Any, pilot: Callable[..., str], tmp_path: Path
) -> None:
    executable = Path(pilot("sleep 300")).rename(tmp_path / "run.sh")
    references = submit(here, str(executable), 1)
    seen(here, references, lambda at: at == "Running")

    status = here.getCEStatus()

    assert (status["RunningJobs"], status["WaitingJobs"]) == (1, 0)
    value(here.killJob(references))


# ---------------------------------------------------------------- LocalCE


def test_jobs_of_this_machine_have_stamps(here: Any, pilot: Callable[..., str]) -> None:
    result = here.submitJob(pilot(), None, 2)

    assert list(result["PilotStampDict"]) == value(result)
    ended(here, result["Value"])


def test_references_with_their_stamps_can_be_killed_here(
    here: Any, pilot: Callable[..., str]
) -> None:
    result = here.submitJob(pilot("sleep 300"), None, 1)
    (reference,) = value(result)

    value(here.killJob([f"{reference}:::{result['PilotStampDict'][reference]}"]))

    assert ended(here, [reference]) == {reference: "Failed"}


def test_this_machine_needs_no_shared_area(
    pilot: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    parameters = {"Queue": "here", "BatchSystem": "Host"}
    ce = value(ComputingElementFactory().getCE("InterCEde", "desk", parameters))

    assert list(ended(ce, submit(ce, pilot())).values()) == ["Done"]
    assert (tmp_path / ".intercede/desk_here").is_dir()
    ce.shutdown()


def test_standard_error_is_the_jobs_standard_error(here: Any, pilot: Callable[..., str]) -> None:
    (reference,) = submit(here, pilot("echo out; echo err >&2"))
    ended(here, [reference])

    assert value(here.getJobOutput(f"{reference}:::stamp")) == ("out\n", "err\n")


def test_a_count_that_cannot_be_had_is_an_error_and_no_exception(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element(SubmitOptions="--hold")
    references = submit(ce, pilot())

    with site.replaced("squeue", "echo slurm_load_jobs error >&2; exit 1"):
        for result in (ce.getCEStatus(), ce.available()):
            assert not result["OK"]
            assert result["Message"]
    value(ce.killJob(references))


# ---------------------------------------------------------------- CloudCE


def test_stamps_are_found_by_reference_and_references_have_no_stamp(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()

    result = ce.submitJob(pilot("echo $DIRAC_PILOT_STAMP"), "", 2)

    stamps = result["PilotStampDict"]
    assert list(stamps) == value(result)
    assert not any(":::" in reference for reference in stamps)
    marked = [f"{reference}:::{stamp}" for reference, stamp in stamps.items()]
    assert set(ended(ce, marked).values()) == {"Done"}  # keyed as they were asked
    for name, stamp in zip(marked, stamps.values(), strict=True):
        assert value(ce.getJobOutput(name))[0] == f"{stamp}\n"
    value(ce.cleanJob(marked))


# ---------------------------------------------------------------- AREX


@pytest.mark.parametrize("word", ["SUSPENDED", "REQUEUE_HOLD", "STAGE_OUT", "NEVER_HEARD_OF"])
def test_no_state_of_the_batch_system_is_an_exception(
    site: Site, pilot: Callable[..., str], word: str
) -> None:
    ce = site.element()
    first, second = submit(ce, pilot("sleep 300"), 2)
    seen(ce, [first, second], lambda at: at == "Running")

    # Which of two running jobs squeue prints first is its own affair.
    row = first.rpartition("/")[2]
    changed = f"/usr/bin/squeue \"$@\" | sed '/|{row}|/s/RUNNING/{word}/'"
    with site.replaced("squeue", changed):
        result = ce.getJobStatus([first, second])

    statuses = value(result)
    assert statuses[second] == "Running"
    assert statuses.get(first) in (None, "Running", "Waiting")
    value(ce.killJob([first, second]))


def test_a_submission_whose_files_cannot_be_sent_leaves_no_orphan(
    site: Site, pilot: Callable[..., str], tmp_path: Path
) -> None:
    ce = site.element()

    result = ce.submitJob(pilot(), "", 2, inputs=[str(tmp_path / "missing")])

    assert not result["OK"]
    assert "missing" in result["Message"]
    assert site.in_slurm() == []
    status = ce.getCEStatus()
    assert (status["RunningJobs"], status["WaitingJobs"]) == (0, 0)


def test_a_thousand_jobs_are_asked_about_in_one_call(site: Site, pilot: Callable[..., str]) -> None:
    ce = site.element(SubmitOptions="--hold")
    references = submit(ce, pilot(), 1000)
    site.host("mkdir -p ~/.front && : > ~/.front/calls")

    statuses = value(ce.getJobStatus(references))

    assert statuses == dict.fromkeys(references, "Waiting")
    assert site.host("cat ~/.front/calls").split() == ["squeue"]
    value(ce.killJob(references))


def test_output_without_a_directory_comes_as_often_as_it_is_asked_for_and_leaves_nothing(
    site: Site, pilot: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ce = site.element()
    (reference,) = submit(ce, pilot("echo once"))
    ended(ce, [reference])
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    for _ in range(2):
        assert value(ce.getJobOutput(f"{reference}:::stamp")) == ("once\n", "")

    assert list((tmp_path / "cwd").iterdir()) == []


def test_nested_directories_of_output_come_home(
    site: Site, pilot: Callable[..., str], tmp_path: Path
) -> None:
    ce = site.element()
    (reference,) = submit(ce, pilot("mkdir -p a/b; echo deep > a/b/c"), outputs=["/"])
    ended(ce, [reference])

    value(ce.getJobOutput(f"{reference}:::stamp", str(tmp_path)))

    assert (tmp_path / "a/b/c").read_text() == "deep\n"


def test_a_reference_outlives_a_change_of_the_hosts_name(
    site: Site, pilot: Callable[..., str], tmp_path: Path
) -> None:
    name = site.configure()
    ce = site.queues(name)[f"{name}_main"]["CE"]
    references = submit(ce, pilot("exit 0"))

    hosts = (site.there.folder / "known_hosts").read_text().replace("127.0.0.1", "localhost")
    (tmp_path / "known_hosts").write_text(hosts)
    site.configure(ce=name, SSHHost="localhost", SSHKnownHosts=str(tmp_path / "known_hosts"))
    again = site.queues(name)[f"{name}_main"]["CE"]

    assert again is not ce
    assert set(ended(again, references).values()) == {"Done"}


# ---------------------------------------------------------------- SSHBatch


def test_more_than_the_host_has_room_for_waits_and_is_not_dropped(
    here: Any, pilot: Callable[..., str]
) -> None:
    copies = 3 * (os.cpu_count() or 1)

    references = submit(here, pilot("exit 0"), copies)

    assert len(references) == copies
    assert set(ended(here, references).values()) == {"Done"}


def test_a_submission_of_which_nothing_came_is_an_error(
    site: Site, pilot: Callable[..., str]
) -> None:
    refused = site.element(Account="nosuch").submitJob(pilot(), "", 3)
    unreachable = site.element(SSHPort="1").submitJob(pilot(), "", 3)

    assert not refused["OK"]
    assert "account" in refused["Message"]
    assert not unreachable["OK"]
    assert site.in_slurm() == []


# ---------------------------------------------------------------- who asks


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "kill -9 $$", "kill", "scancel"])
def test_every_end_is_one_that_all_consumers_know(
    site: Site, pilot: Callable[..., str], end: str
) -> None:
    ce = site.element()
    program = end if " " in end else "sleep 300"
    (reference,) = submit(ce, pilot(program))
    if end == "kill":
        value(ce.killJob([reference]))
    if end == "scancel":
        seen(ce, [reference], lambda at: at == "Running")
        site.host("/usr/bin/scancel $1", reference.rpartition("/")[2])

    (status,) = ended(ce, [reference]).values()

    assert status == ("Done" if end == "exit 0" else "Failed")
    assert status in FINAL


def test_a_pilots_script_is_readable_by_its_account_only(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()
    executable = pilot("sleep 300")
    references = submit(ce, executable)

    modes = site.host('stat -c %a "$1"/.intercede/*', site.area).split()

    assert modes == ["700"]
    assert stat.S_IMODE(Path(executable).stat().st_mode) == 0o700
    value(ce.killJob(references))
