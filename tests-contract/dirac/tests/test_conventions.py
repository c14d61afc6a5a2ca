"""DIRAC's conventions, one by one, against a real Slurm. docs/dirac/mapping.md names these tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from DIRAC.WorkloadManagementSystem.Client import PilotStatus
from dirac_site import Site, ended, seen, value
from InterCEdeDIRAC.Resources.Computing import InterCEdeComputingElement as element

from intercede.core import Failure, FailureCode, JobStatus, Submission

#: Reads references, asks an element made anew, and prints what it says.
_ELSEWHERE = """
import json, sys
from DIRAC.Resources.Computing.ComputingElementFactory import ComputingElementFactory
name, parameters, references = json.load(sys.stdin)
ce = ComputingElementFactory().getCE("InterCEde", name, parameters)["Value"]
print("said", json.dumps(ce.getJobStatus(references)["Value"]))
ce.shutdown()
"""


def submit(ce: Any, executable: str, copies: int = 1, **more: Any) -> list[str]:
    references: list[str] = value(ce.submitJob(executable, "", copies, **more))
    return references


# ---------------------------------------------------------------- references and stamps


def test_a_stamp_has_32_characters_and_each_copy_finds_its_own_in_its_environment(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()

    result = ce.submitJob(pilot("echo $DIRAC_PILOT_STAMP"), "", 5)

    stamps = result["PilotStampDict"]
    assert all(re.fullmatch("[0-9a-f]{32}", stamp) for stamp in stamps.values())
    assert len(set(stamps.values())) == 5
    ended(ce, list(stamps))
    for reference, stamp in stamps.items():
        assert value(ce.getJobOutput(f"{reference}:::{stamp}")) == (f"{stamp}\n", "")


def test_a_reference_fits_its_column_with_the_longest_names(
    site: Site, pilot: Callable[..., str]
) -> None:
    longest = "ce-with-a-name-of-more-than-sixty-four-characters.of.example.org"
    ce = site.element(ce=f"{longest}-{site.unique}")

    references = submit(ce, pilot("exit 0"), 2)

    assert all(len(reference) <= 255 for reference in references)
    assert set(ended(ce, references).values()) == {"Done"}


def test_two_ces_with_long_names_that_begin_alike_are_two_resources() -> None:
    names = [f"{'ce' * 40}{number}" for number in range(2)]

    made = {element.translated(name, {"Queue": "q"})[0]["name"] for name in names}

    assert len(made) == 2
    assert all(len(name) <= 64 for name in made)


def test_another_process_goes_on_with_nothing_but_the_references(
    site: Site, pilot: Callable[..., str]
) -> None:
    import json

    name = site.configure()
    ce = site.queues(name)[f"{name}_main"]["CE"]
    references = submit(ce, pilot("exit 0"), 2)
    ended(ce, references)

    asked = json.dumps([name, {**site.parameters(), "Queue": "main"}, references])
    said = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE], input=asked, capture_output=True, text=True, check=True
    ).stdout

    (line,) = (line for line in said.splitlines() if line.startswith("said "))
    assert json.loads(line[5:]) == dict.fromkeys(references, "Done")


def test_a_reference_of_another_queue_is_unknown_and_cannot_be_killed(
    site: Site, pilot: Callable[..., str]
) -> None:
    name = site.configure(["main", "short"])
    queues = site.queues(name)
    main, short = (queues[f"{name}_{queue}"]["CE"] for queue in ("main", "short"))
    references = submit(main, pilot("sleep 300"))

    assert value(short.getJobStatus(references)) == {references[0]: "Unknown"}
    assert not short.killJob(references)["OK"]
    assert value(main.getJobStatus(references))[references[0]] in ("Waiting", "Running")
    value(main.killJob(references))


def test_a_job_that_was_cleaned_is_unknown(site: Site, pilot: Callable[..., str]) -> None:
    ce = site.element()
    references = submit(ce, pilot("exit 0"))
    ended(ce, references)

    value(ce.cleanJob(references[0]))
    value(ce.cleanJob(references))  # twice is harmless

    assert value(ce.getJobStatus(references)) == {references[0]: "Unknown"}


def test_a_job_that_has_not_ended_is_not_cleaned(site: Site, pilot: Callable[..., str]) -> None:
    ce = site.element()
    references = submit(ce, pilot("sleep 300"))

    result = ce.cleanJob(references)

    assert not result["OK"]
    value(ce.killJob(references))


# ---------------------------------------------------------------- submission


def test_executable_and_inputs_may_be_removed_when_submit_has_returned(
    site: Site, pilot: Callable[..., str], tmp_path: Path
) -> None:
    ce = site.element(SubmitOptions="--begin=now+2")
    executable, data = Path(pilot("cat data.txt")), tmp_path / "data.txt"
    data.write_text("kept")

    result = ce.submitJob(str(executable), "", 1, inputs=[str(data)])
    executable.unlink()
    data.unlink()

    assert "ExecutableToKeep" not in result
    (reference,) = value(result)
    assert ended(ce, [reference]) == {reference: "Done"}
    assert value(ce.getJobOutput(f"{reference}:::x"))[0] == "kept"


def test_a_submission_that_may_have_arrived_has_references_and_is_not_an_error(
    site: Site, pilot: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = element.translated
    hasty = {"submit_deadline_s": 5.0, "grace_s": 5.0}
    monkeypatch.setattr(element, "translated", lambda *a: ({**of(*a)[0], **hasty}, of(*a)[1]))
    ce = site.element()

    with site.replaced("sbatch", "exec sleep 30"):
        result = ce.submitJob(pilot("exit 0"), "", 2)

    references = value(result)
    assert list(result["PilotStampDict"]) == references
    assert len(references) == 2
    value(ce.killJob(references))


def test_a_preamble_runs_before_the_executable_in_its_environment(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element(Preamble="source /dev/null; export GREETING='hello there'")

    (reference,) = submit(ce, pilot('echo "$GREETING"'))

    ended(ce, [reference])
    assert value(ce.getJobOutput(f"{reference}:::x"))[0] == "hello there\n"


@pytest.mark.parametrize(("word", "whole"), [("False", "NO"), ("no", "NO"), ("True", "NODE")])
def test_whole_node_means_what_it_says(
    site: Site, pilot: Callable[..., str], word: str, whole: str
) -> None:
    ce = site.element(WholeNode=word, NumberOfProcessors="3", SubmitOptions="--hold")
    references = submit(ce, pilot())

    shown = site.host('/usr/bin/scontrol show job "$1"', _native(references[0]))

    assert f"Exclusive={whole} " in shown
    assert "NumCPUs=3 " in shown
    value(ce.killJob(references))


def _native(reference: str) -> str:
    return reference.rpartition("/")[2]


def test_processors_gpus_nodes_account_and_options_reach_the_batch_system(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element(
        NumberOfProcessors="2",
        NumberOfGPUs="1",
        NumberOfNodes="1",
        Account="project",
        SubmitOptions="--hold --nice=77",
    )
    references = submit(ce, pilot())

    shown = site.host('/usr/bin/scontrol show job "$1"', _native(references[0]))

    for words in ("NumCPUs=2", "gres/gpu", "NumNodes=1", "Account=project", "Nice=77", "JobHeldUser"):  # fmt: skip
        assert words in shown, words
    assert "Partition=main" in shown
    value(ce.killJob(references))


def test_a_range_of_nodes_is_refused_in_words(site: Site, pilot: Callable[..., str]) -> None:
    result = site.element(NumberOfNodes="2-4").submitJob(pilot(), "", 1)

    assert not result["OK"]
    assert "2-4" in result["Message"]


def test_a_batch_system_that_intercede_does_not_speak_is_an_error_that_says_so(
    site: Site,
) -> None:
    name = site.configure(BatchSystem="Torque")

    assert site.queues(name) == {}  # DIRAC leaves the queue out
    made = site.cache._ceFactory.getCE("InterCEde", name, {**site.parameters(BatchSystem="Torque"), "Queue": "main"})  # fmt: skip
    assert not made["OK"]
    assert "torque" in made["Message"]


def test_copies_that_were_refused_are_left_out_and_the_stamps_of_the_others_are_right(
    site: Site, pilot: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ce = site.element()
    submitting = ce._ce.submit

    def without_the_second(spec: Any, copies: Any) -> Submission:
        made = submitting(spec, copies)
        first, _, third = made.handles
        return Submission(made.id, (first, third), {1: Failure(FailureCode.REFUSED, "no room")})

    monkeypatch.setattr(ce._ce, "submit", without_the_second)

    result = ce.submitJob(pilot("echo $DIRAC_PILOT_STAMP"), "", 3)

    assert [reference.split("/")[2] for reference in value(result)] == ["0", "2"]
    ended(ce, result["Value"])
    for reference, stamp in result["PilotStampDict"].items():
        assert value(ce.getJobOutput(f"{reference}:::{stamp}"))[0] == f"{stamp}\n"


# ---------------------------------------------------------------- statuses


def test_every_status_has_a_word_of_dirac_and_what_is_finished_is_final() -> None:
    assert set(element.STATUSES) == set(JobStatus)
    for ours, theirs in element.STATUSES.items():
        assert theirs in PilotStatus.PILOT_STATES
        assert ours.is_finished == (theirs in PilotStatus.PILOT_FINAL_STATES)
        assert theirs != PilotStatus.ABORTED


def test_a_held_job_is_waiting(site: Site, pilot: Callable[..., str]) -> None:
    ce = site.element(SubmitOptions="--hold")
    references = submit(ce, pilot())

    assert value(ce.getJobStatus(references)) == {references[0]: "Waiting"}
    value(ce.killJob(references))


def test_what_cannot_be_told_now_is_left_out_of_many_and_an_error_for_one(
    site: Site, pilot: Callable[..., str]
) -> None:
    ce = site.element()
    first, second = submit(ce, pilot("sleep 300")) + submit(ce, pilot("sleep 300"))
    seen(ce, [first, second], lambda at: at == "Running")

    spoilt = f"/usr/bin/squeue \"$@\" | sed '/{_native(first)}/s/RUNNING/NEVER_HEARD_OF/'"
    with site.replaced("squeue", spoilt):
        both, one = ce.getJobStatus([first, second]), ce.getJobStatus([first])

    assert value(both) == {second: "Running"}
    assert not one["OK"]
    value(ce.killJob([first, second]))


# ---------------------------------------------------------------- slots


@pytest.mark.parametrize(
    ("total", "waiting", "slots"),
    [(10, 5, 3), (3, 5, 1), (10, 2, 0), (2, 9, 0), (10, 1, 0), (4, 4, 2)],
)
def test_slots_are_the_counts_beneath_max_total_jobs_and_max_waiting_jobs(
    site: Site, pilot: Callable[..., str], total: int, waiting: int, slots: int
) -> None:
    ce = site.element(SubmitOptions="--hold", MaxTotalJobs=str(total), MaxWaitingJobs=str(waiting))
    references = submit(ce, pilot(), 2)

    result = ce.available()

    assert value(result) == slots
    expected = {"RunningJobs": 0, "WaitingJobs": 2, "MaxTotalJobs": total, "MaxWaitingJobs": waiting}  # fmt: skip
    assert {key: result["CEInfoDict"][key] for key in expected} == expected
    value(ce.killJob(references))


def test_running_jobs_count_and_those_of_other_queues_and_people_do_not(
    site: Site, pilot: Callable[..., str]
) -> None:
    name = site.configure(["main", "short"], MaxTotalJobs="5", MaxWaitingJobs="5")
    queues = site.queues(name)
    main, short = (queues[f"{name}_{queue}"]["CE"] for queue in ("main", "short"))
    running = submit(main, pilot("sleep 300"), 2)
    others = submit(short, pilot("sleep 300"))
    site.host("/usr/bin/sbatch --parsable --hold --wrap=true >~/foreign")
    seen(main, running, lambda at: at == "Running")

    result = main.available()

    assert (result["RunningJobs"], result["WaitingJobs"], value(result)) == (2, 0, 3)
    site.host('/usr/bin/scancel "$(cat ~/foreign)"; rm ~/foreign')
    value(main.killJob(running))
    value(short.killJob(others))


# ---------------------------------------------------------------- life


def test_an_element_is_kept_while_its_parameters_are_the_same(site: Site) -> None:
    name = site.configure()

    first, second = (site.queues(name)[f"{name}_main"]["CE"] for _ in range(2))

    assert second is first


def test_an_element_whose_parameters_change_is_closed_and_made_anew(
    site: Site, pilot: Callable[..., str]
) -> None:
    name = site.configure()
    first = site.queues(name)[f"{name}_main"]["CE"]
    references = submit(first, pilot("exit 0"))

    site.configure(ce=name, MaxTotalJobs="77")
    second = site.queues(name)[f"{name}_main"]["CE"]

    assert second is not first
    closed = first.getJobStatus(references)
    assert not closed["OK"]
    assert "closed" in closed["Message"]
    assert set(ended(second, references).values()) == {"Done"}


def test_many_calls_share_one_connection_and_shutdown_ends_it(site: Site) -> None:
    ce = site.element()
    before = _connections(site)

    for _ in range(5):
        value(ce.getCEStatus())
    during = _connections(site)
    value(ce.shutdown())
    value(ce.shutdown())  # twice is harmless

    assert during == before + 1
    assert _connections(site) == before


def _connections(site: Site) -> int:
    """How many TCP connections this process has to the cluster."""
    port = f":{site.there.port:04X}"
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    mine = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return sum(
        row.split()[2].endswith(port) and f"socket:[{row.split()[9]}]" in mine for row in rows
    )


def test_making_an_element_does_no_io(site: Site) -> None:
    ce = site.element(SSHHost="nowhere.invalid")

    assert ce.isValid()["OK"]
    assert not ce.getCEStatus()["OK"]


# ---------------------------------------------------------------- tags and credentials


@pytest.mark.parametrize("tag", ["Token", "Token:ic"])
def test_a_token_tag_changes_nothing_for_a_resource_that_takes_none(
    site: Site, pilot: Callable[..., str], tag: str
) -> None:
    ce = site.element(Tag=tag)
    assert tag in ce.ceParameters["Tag"]
    assert ce.audienceName is None

    ce.setToken({"access_token": "secret-token"})

    assert list(ended(ce, submit(ce, pilot())).values()) == ["Done"]
    found = site.host('grep -rl secret-token "$1" || echo none', site.area)
    assert found == "none\n"


def test_the_password_of_a_ce_is_used_and_appears_in_no_message(site: Site) -> None:
    password = (site.there.folder / "password").read_text().strip()
    parameters = {**site.parameters(), "SSHUser": "password", "SSHPassword": password, "Queue": "main"}  # fmt: skip
    del parameters["SSHKey"], parameters["SharedArea"]
    factory = site.cache._ceFactory
    good = value(factory.getCE("InterCEde", "ce", parameters))
    bad = value(factory.getCE("InterCEde", "ce", {**parameters, "SSHPassword": "wrong-one"}))

    assert good.getCEStatus()["OK"]
    refused = bad.getCEStatus()
    assert not refused["OK"]
    assert "wrong-one" not in refused["Message"]
    good.shutdown()
    bad.shutdown()


def test_a_tunnel_is_a_jump_host() -> None:
    site = {"Queue": "q", "SSHHost": "inner", "SSHUser": "me", "SSHTunnel": "gate:2222"}

    config, _ = element.translated("ce", site)

    assert config["transport"]["jump"] == [{"host": "gate", "user": "me", "port": 2222}]


def test_a_secret_is_in_no_configuration() -> None:
    site = {"Queue": "q", "SSHHost": "h", "SSHPassword": "hush-hush"}

    config, provider = element.translated("ce", site)

    assert "hush" not in f"{config} {provider!r}"


# ---------------------------------------------------------------- what is installed


def test_all_that_dirac_needs_is_installed_but_the_grids_storage_library() -> None:
    listed = Path(__file__).parents[1] / "requirements.txt"
    lines = {line for line in listed.read_text().splitlines() if not line.startswith("#")}

    needed = {line for line in requires("DIRAC") or () if "extra ==" not in line}

    assert lines == {line for line in needed if not line.startswith("gfal2-python")}


def test_the_element_has_at_most_200_lines() -> None:
    assert len(Path(element.__file__).read_text().splitlines()) <= 200
