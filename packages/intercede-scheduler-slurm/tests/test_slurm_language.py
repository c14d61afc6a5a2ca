"""What Slurm's scheduler says and understands, without a host. Answers are made of rows that 20.11 to 26.05 were seen to print."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import (
    CommandResult,
    ConfigurationError,
    Failure,
    FailureCode,
    JobDetails,
    JobStatus,
    NativeJob,
    ResourceError,
    Resources,
    Scheduler,
    SpecRefused,
    StagedBatch,
    SubmissionSpec,
    registry,
)
from intercede.scheduler.slurm import SlurmConfig, SlurmScheduler

NONCE = "0123456789abcdef01234567"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
JOBS = [NativeJob(f"7_{copy}", copy, "sub", NOW) for copy in range(4)]
QUEUE_HEADER = "JOBID|NAME|STATE|REASON|SUBMIT_TIME|START_TIME|END_TIME|NODELIST"
SLURM = SlurmScheduler()


def framed(*rows: str, ends: Sequence[str] = (), said: str = "") -> list[CommandResult]:
    """An answer: each row between nonces, then how the commands ended."""
    lines = [f"slurm {NONCE}", *(f"{NONCE}|{row}|{NONCE}" for row in (*rows, *ends))]
    return [CommandResult(0, "".join(f"{line}\n" for line in lines).encode(), said.encode())]


def queue(*rows: str, code: int = 0, said: str = "") -> list[CommandResult]:
    return framed(QUEUE_HEADER, *rows, ends=[f"end|squeue|{code}"], said=said)


def in_queue(
    state: str, reason: str = "None", *, native: str = "7_0", name: str = "intercede-sub"
) -> str:
    return f"{native}|{name}|{state}|{reason}|{STAMP}|{STAMP}|{STAMP}|n1"


def details(state: str, reason: str = "None") -> JobDetails:
    return SLURM.parse_status(JOBS, queue(in_queue(state, reason)))[JOBS[0]]


# ---------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("PENDING", JobStatus.PENDING),
        ("PD", JobStatus.PENDING),
        ("CONFIGURING", JobStatus.PENDING),
        ("CF", JobStatus.PENDING),
        ("REQUEUED", JobStatus.PENDING),
        ("RQ", JobStatus.PENDING),
        ("REQUEUE_FED", JobStatus.PENDING),
        ("POWER_UP_NODE", JobStatus.PENDING),
        ("EXPEDITING", JobStatus.PENDING),
        ("REQUEUE_HOLD", JobStatus.HELD),
        ("RH", JobStatus.HELD),
        ("RESV_DEL_HOLD", JobStatus.HELD),
        ("SPECIAL_EXIT", JobStatus.HELD),
        ("SE", JobStatus.HELD),
        ("RUNNING", JobStatus.RUNNING),
        ("R", JobStatus.RUNNING),
        ("RESIZING", JobStatus.RUNNING),
        ("SIGNALING", JobStatus.RUNNING),
        ("SUSPENDED", JobStatus.RUNNING),
        ("STOPPED", JobStatus.RUNNING),
        ("COMPLETING", JobStatus.RUNNING),
        ("CG", JobStatus.RUNNING),
        ("STAGE_OUT", JobStatus.RUNNING),
        ("COMPLETED", JobStatus.SUCCESSFUL),
        ("CD", JobStatus.SUCCESSFUL),
        ("CANCELLED", JobStatus.CANCELLED),
        ("CANCELLED by 2000", JobStatus.CANCELLED),
        ("CANCELLED+", JobStatus.CANCELLED),
        ("FAILED", JobStatus.FAILED),
        ("TIMEOUT", JobStatus.FAILED),
        ("NODE_FAIL", JobStatus.FAILED),
        ("BOOT_FAIL", JobStatus.FAILED),
        ("PREEMPTED", JobStatus.FAILED),
        ("DEADLINE", JobStatus.FAILED),
        ("OUT_OF_MEMORY", JobStatus.FAILED),
        ("OOM", JobStatus.FAILED),
        ("LAUNCH_FAILED", JobStatus.FAILED),
        ("RECONFIG_FAIL", JobStatus.FAILED),
        ("REVOKED", JobStatus.UNKNOWN),
        ("PENDING+REQUEUED", JobStatus.PENDING),
        ("PENDING+REQUEUE_HOLD", JobStatus.HELD),
        ("RUNNING+COMPLETING", JobStatus.RUNNING),
        ("CANCELLED+COMPLETING", JobStatus.RUNNING),
        ("RUNNING+NEW_FLAG", JobStatus.RUNNING),
        ("DANCING", JobStatus.UNKNOWN),
        ("pending", JobStatus.UNKNOWN),
        ("", JobStatus.UNKNOWN),
    ],
)
def test_a_state_means_what_slurm_means_by_it(state: str, status: JobStatus) -> None:
    assert details(state).status is status


@pytest.mark.parametrize("state", ["COMPLETING", "STAGE_OUT", "TIMEOUT+COMPLETING"])
def test_a_job_that_is_ending_runs_and_has_an_end(state: str) -> None:
    told = details(state)
    assert (told.status, told.ended_at) == (JobStatus.RUNNING, NOW)


def test_a_running_job_has_a_start_and_a_node_and_no_end_however_long_it_may_run() -> None:
    told = details("RUNNING")
    assert (told.started_at, told.ended_at, told.node) == (NOW, None, "n1")


def test_a_pending_job_has_no_start_although_slurm_expects_one() -> None:
    told = details("PENDING", "Resources")
    assert (told.started_at, told.node) == (None, None)


@pytest.mark.parametrize(
    "reason",
    [
        "JobHeldUser",
        "JobHeldAdmin",
        "DependencyNeverSatisfied",
        "PartitionTimeLimit",
        "InvalidAccount",
        "InvalidQOS",
        "QOSNotAllowed",
        "BadConstraints",
        "JobHoldMaxRequeue",
        "job requeued in held state",
        "launch failed requeued held",
        "launch_failed_requeued_held",
        "QOSMaxWallDurationPerJobLimit",
        "AssocMaxCpuPerJobLimit",
        "QOSMinGRES",
    ],
)
def test_a_job_that_never_runs_as_it_is_is_held_and_says_why(reason: str) -> None:
    told = details("PENDING", reason)
    assert told.status is JobStatus.HELD
    assert reason in (told.reason or "")


@pytest.mark.parametrize(
    "reason",
    [
        "None",
        "Priority",
        "Resources",
        "BeginTime",
        "Dependency",
        "PartitionDown",
        "JobArrayTaskLimit",
        "QOSMaxJobsPerUserLimit",
        "AssocGrpCpuLimit",
        "MaxJobsPerAccount",
        "ReqNodeNotAvail, UnavailableNodes:n[1-3]",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        "SomethingNew",
    ],
)
def test_a_job_that_time_can_bring_to_run_is_pending_and_says_why(reason: str) -> None:
    told = details("PENDING", reason)
    assert told.status is JobStatus.PENDING
    assert told.reason


@pytest.mark.parametrize(
    ("state", "reason", "words", "signal"),
    [
        ("TIMEOUT", "TimeLimit", "time limit", None),
        ("PREEMPTED", "None", "precedence", None),
        ("NODE_FAIL", "NodeDown", "node failed", None),
        ("OUT_OF_MEMORY", "OutOfMemory", "memory", None),
        ("FAILED", "NonZeroExitCode", "NonZeroExitCode", None),
        ("FAILED", "RaisedSignal:9(Killed)", "signal 9", 9),
        ("FAILED", "RaisedSignal:53(Real-time_signal_19)", "could not begin", None),
        ("FAILED", "", "FAILED", None),
    ],
)
def test_the_end_of_a_job_is_told_in_words(
    state: str, reason: str, words: str, signal: int | None
) -> None:
    told = details(state, reason)
    assert words in (told.reason or "")
    assert (told.signal, told.exit_code) == (signal, None)


# ---------------------------------------------------------------- squeue


def test_it_is_a_scheduler_and_found_by_its_name() -> None:
    assert isinstance(SlurmScheduler(), Scheduler)
    assert isinstance(registry.scheduler({"type": "slurm", "queue": "q"}), SlurmScheduler)
    assert not SLURM.stages_own_files


def test_a_row_of_our_id_with_another_name_is_not_ours() -> None:
    assert SLURM.parse_status(JOBS, queue(in_queue("RUNNING", name="intercede-other"))) == {}


def test_a_row_that_does_not_parse_leaves_its_job_unknown_and_the_others_alone() -> None:
    rows = ["7_0|intercede-sub|RUNNING|x|y", in_queue("RUNNING", native="7_1"), "7_2"]
    told = SLURM.parse_status(JOBS, queue(*rows))
    assert {job.id: d.status for job, d in told.items()} == {
        "7_0": JobStatus.UNKNOWN,
        "7_1": JobStatus.RUNNING,
        "7_2": JobStatus.UNKNOWN,
    }


def test_a_row_that_is_torn_leaves_its_job_unknown_and_not_gone() -> None:
    torn = (
        f"slurm {NONCE}\n{NONCE}|{QUEUE_HEADER}|{NONCE}\n{NONCE}|7_0|intercede-sub|RUN\n".encode()
    )
    end = f"{NONCE}|end|squeue|0|{NONCE}\n".encode()
    told = SLURM.parse_status(JOBS, [CommandResult(0, torn + end)])
    assert told[JOBS[0]].status is JobStatus.UNKNOWN


def test_a_row_with_nothing_between_its_nonces_is_none() -> None:
    empty = CommandResult(
        0, f"slurm {NONCE}\n{NONCE}|{NONCE}\n{NONCE}|end|squeue|0|{NONCE}\n".encode()
    )
    for parse in (lambda: SLURM.parse_status(JOBS, [empty]), lambda: SLURM.parse_list([empty])):
        with pytest.raises(ResourceError, match="header"):
            parse()


@pytest.mark.parametrize("time", ["N/A", "999999999999", "9" * 13, "-1", "\u0661"])
def test_a_time_that_is_none_is_left_out(time: str) -> None:
    row = f"7_0|intercede-sub|RUNNING|None|{STAMP}|{time}|{STAMP}|n1"
    assert SLURM.parse_status(JOBS, queue(row))[JOBS[0]].started_at is None


def in_array(native: str) -> dict[str, JobStatus]:
    results = queue(in_queue("PENDING", "Priority", native=native))
    return {job.id: d.status for job, d in SLURM.parse_status(JOBS, results).items()}


@pytest.mark.parametrize(
    ("native", "tasks"),
    [
        ("7_[0-3]", [0, 1, 2, 3]),
        ("7_[1]", [1]),
        ("7_[0,2-3%7]", [0, 2, 3]),
        ("7_[0-8:2]", [0, 2]),
        ("7_[1-3:2%1]", [1, 3]),
        ("7_[2-9999999]", [2, 3]),
        ("7_[4-20]", []),
        ("7_[3-1]", []),
        ("70_[0-3]", []),
        ("7", []),
    ],
)
def test_an_array_that_waits_has_one_row_for_the_elements_that_it_names(
    native: str, tasks: list[int]
) -> None:
    assert in_array(native) == {f"7_{task}": JobStatus.PENDING for task in tasks}


@pytest.mark.parametrize(
    "native",
    [
        "7_[",
        "7_[]",
        "7_[0-3",
        "7_[0,1,2...]",
        "7_[0-3]x",
        "7_[0--3]",
        "7_[0-3:0]",
        "7_[a]",
        "7_[]]",
    ],
)
def test_an_array_whose_elements_cannot_be_read_is_unknown_and_not_gone(native: str) -> None:
    assert in_array(native) == dict.fromkeys((job.id for job in JOBS), JobStatus.UNKNOWN)


def test_an_element_with_a_row_of_its_own_is_what_that_says() -> None:
    rows = [in_queue("RUNNING", native="7_1"), in_queue("PENDING", "Priority", native="7_[0-3]")]
    for order in (rows, rows[::-1]):
        found = SLURM.parse_status(JOBS, queue(*order))
        assert [str(found[job].status) for job in JOBS] == ["pending", "running"] + ["pending"] * 2


@pytest.mark.parametrize("name", ["other", "sub", "intercede-other"])
def test_an_array_of_our_id_with_another_name_is_not_ours(name: str) -> None:
    rows = [in_queue("PENDING", native=f"7_[{tasks}]", name=name) for tasks in ("0-3", "0-...")]
    assert SLURM.parse_status(JOBS, queue(*rows)) == {}


def test_of_several_arrays_each_is_what_its_own_row_says() -> None:
    ids = ["7_0", "8_0", "9_0", "7_1", "8_1", "9_1"]
    jobs = [evolve(JOBS[0], id=native) for native in ids]
    rows = [in_queue("PENDING", "Priority", native="7_[0-1]")]
    rows += [in_queue("PENDING", "JobHeldUser", native="8_[0-1]")]
    found = SLURM.parse_status(jobs, queue(*rows))
    assert {job.id: str(d.status) for job, d in found.items()} == {
        "7_0": "pending",
        "7_1": "pending",
        "8_0": "held",
        "8_1": "held",
    }


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)), st.sampled_from(["", "%1"]))
def test_exactly_the_elements_that_wait_and_were_asked_for_are_told(
    waiting: set[int], wanted: set[int], limit: str
) -> None:
    spans: list[list[int]] = []
    for task in sorted(waiting):
        if spans and task == spans[-1][-1] + 1:
            spans[-1].append(task)
        else:
            spans.append([task])
    text = ",".join(str(s[0]) if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in spans)
    row = in_queue("PENDING", "Priority", native=f"7_[{text}{limit}]")
    jobs = [NativeJob(f"7_{task}", task, "sub", NOW) for task in sorted(wanted)]
    found = SLURM.parse_status(jobs, queue(*([row] if waiting else [])))
    assert {job.copy for job in found} == waiting & wanted


def test_a_row_without_times_is_not_squeues() -> None:
    row = in_queue("RUNNING").replace(STAMP, "yesterday")
    assert SLURM.parse_status(JOBS, queue(row))[JOBS[0]].status is JobStatus.UNKNOWN


@pytest.mark.parametrize(
    "results",
    [
        [],
        [CommandResult(0)],
        [CommandResult(0, b"RUNNING\n")],
        [CommandResult(0, f"slurm {NONCE}\n".encode())],
        [CommandResult(0, f"slurm {NONCE}\n{NONCE}|end|squeue|0|{NONCE}".encode())],
        framed(ends=["end|squeue|0"]),
        framed(QUEUE_HEADER),
        framed(in_queue("RUNNING"), ends=["end|squeue|0"]),
        queue(in_queue("RUNNING"), code=1, said="slurm_load_jobs error: connect failure"),
        framed(QUEUE_HEADER, ends=["end|squeue|0", "end|squeue|127"]),
    ],
    ids=str,
)
def test_an_answer_that_is_not_whole_tells_of_no_job(results: list[CommandResult]) -> None:
    for parse in (lambda: SLURM.parse_status(JOBS, results), lambda: SLURM.parse_list(results)):
        with pytest.raises(ResourceError):
            parse()


def test_slurms_words_are_in_the_error() -> None:
    with pytest.raises(ResourceError) as caught:
        SLURM.parse_status(JOBS, queue(code=1, said="slurm_load_jobs error: connect failure"))
    assert caught.value.said == "slurm_load_jobs error: connect failure"


def test_jobs_are_named_beneath_their_submission() -> None:
    jobs = [*JOBS[:2], NativeJob("9", 0, "other", NOW)]
    expected = b":sub\n7_0\n7_1\n:other\n9\n"
    for commands in (SLURM.kill_commands(jobs), SLURM.history_commands(jobs)):
        assert [command.stdin for command in commands] == [expected]
    # The queue's names are compared here.
    assert [command.stdin for command in SLURM.status_commands(jobs)] == [b"7_0\n7_1\n9\n"]


def test_a_list_tells_mark_copy_and_status() -> None:
    rows = [
        "7_3|intercede:desk:sub:100|intercede-sub|RUNNING|None",
        "8|intercede:desk:sub:0|intercede-sub|PENDING|JobHeldUser",
        "9|intercede:desk:sub:0|intercede-sub|COMPLETED|None",
        "10|intercede:desk:sub:0|intercede-sub|DANCING|None",
        "11|intercede:desk:sub:0|wrap|RUNNING|None",
        "12|intercede:desk:sub|intercede-desk|RUNNING|None",
        "x|intercede:desk:sub:0|intercede-sub|RUNNING|None",
        "13_x|intercede:desk:sub:0|intercede-sub|RUNNING|None",
        "14|(null)|intercede-sub|RUNNING|None",
        "15|intercede:desk:sub:0",
    ]
    header = "JOBID|COMMENT|NAME|STATE|REASON"
    assert SLURM.parse_list(framed(header, *rows, ends=["end|squeue|0"])) == {
        "7_3": ("intercede:desk:sub", 103, JobStatus.RUNNING),
        "8": ("intercede:desk:sub", 0, JobStatus.HELD),
        "9": ("intercede:desk:sub", 0, JobStatus.SUCCESSFUL),
        "10": ("intercede:desk:sub", 0, JobStatus.UNKNOWN),
    }


# ---------------------------------------------------------------- sacct


def history(*rows: str, code: int = 0, said: str = "") -> list[CommandResult]:
    header = "JobID|JobName|State|Start|End|NodeList"
    lines = [line.replace("|", f"|{NONCE}|") + f"|{NONCE}|" for line in (header, *rows)]
    text = "\n".join([f"slurm {NONCE}", *lines, f"{NONCE}|end|sacct|{code}|{NONCE}", ""])
    return [CommandResult(0, text.encode(), said.encode())]


def test_a_history_tells_state_times_and_node_and_no_exit_code() -> None:
    told = SLURM.parse_history(JOBS, history(f"7_0|intercede-sub|FAILED|{STAMP}|{STAMP}|n1"))
    assert told[JOBS[0]] == JobDetails(
        JobStatus.FAILED,
        native_state="FAILED",
        reason="Slurm says FAILED",
        started_at=NOW,
        ended_at=NOW,
        node="n1",
    )


def test_a_history_tells_who_cancelled() -> None:
    row = f"7_0|intercede-sub|CANCELLED by 0|Unknown|{STAMP}|None assigned"
    told = SLURM.parse_history(JOBS, history(row))[JOBS[0]]
    assert (told.status, told.reason) == (JobStatus.CANCELLED, "cancelled by uid 0")
    assert (told.started_at, told.node) == (None, None)


def test_of_several_runs_the_last_counts_and_another_jobs_is_not_ours() -> None:
    rows = [
        f"7_0|intercede-sub|REQUEUED|{STAMP}|{STAMP}|n1",
        f"7_0|intercede-sub|COMPLETED|{STAMP}|{STAMP}|n2",
        f"7_0|wrap|FAILED|{STAMP}|{STAMP}|n3",
        f"7_1|wrap|FAILED|{STAMP}|{STAMP}|n3",
        f"7_2|intercede-sub|DANCING|{STAMP}|{STAMP}|n3",
        "7_3|intercede-sub|COMPLETED",
    ]
    told = SLURM.parse_history(JOBS, history(*rows))
    assert {job.id: (d.status, d.node) for job, d in told.items()} == {
        "7_0": (JobStatus.SUCCESSFUL, "n2")
    }


def test_a_cluster_without_accounts_has_no_history_and_no_error() -> None:
    said = "Slurm accounting storage is disabled\n"
    assert SLURM.parse_history(JOBS, history(code=1, said=said)) == {}


def test_a_history_that_fails_or_has_no_header_is_an_error() -> None:
    for results in (history(code=1, said="sacct: error: Problem talking to the database"),):
        with pytest.raises(ResourceError):
            SLURM.parse_history(JOBS, results)
    with pytest.raises(ResourceError):
        SLURM.parse_history(JOBS, framed(ends=["end|sacct|0"]))


def test_a_history_is_asked_for_from_before_the_first_submit_on() -> None:
    (command,) = SLURM.history_commands(JOBS)
    assert command.argv[-1] == "2026-11-21T12:00:00"
    assert SLURM.history_commands([]) == ()


# ---------------------------------------------------------------- the probe


CONFIG = """\
Configuration data as of 1795344461
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = trixie
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
SLURM_CONF              = /etc/slurm/slurm.conf
SLURM_VERSION           = 24.11.5
scontrol: show partitions
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxNodes=UNLIMITED MaxTime=1-00:00:00 \
MaxCPUsPerNode=UNLIMITED State=UP TotalCPUs=192 TotalNodes=3 DefMemPerCPU=100 MaxMemPerNode=UNLIMITED
PartitionName=short AllowAccounts=proj,other AllowQos=normal Default=NO MaxNodes=2 MaxTime=00:02:00 MaxCPUsPerNode=32 \
State=UP TotalNodes=3 MaxMemPerNode=1000
PartitionName=closed DenyAccounts=proj AllowQos=ALL MaxTime=UNLIMITED State=DOWN TotalNodes=1
scontrol: """
NODES = (
    "PARTITION|CPUS|MEMORY|GRES|NODES",
    "main|64|64000|(null)|1",
    "main|16|128000|gpu:a100:4(S:0,1),lscratch:100|2",
    "short|64|64000|gpu:2|3",
    "closed|64|64000|(null)|1",
    "stranger|64|64000|(null)|1",
    "main|many|much|(null)|1",
)


def probe(config: str = CONFIG, nodes: Sequence[str] = NODES, code: int = 0) -> list[CommandResult]:
    ends = [f"end|scontrol|{code}", f"end|sinfo|{code}"]
    (result,) = framed("oci|/etc/slurm/oci.conf", *nodes, ends=ends)
    first, _, rest = result.stdout.decode().partition("\n")
    return [CommandResult(0, f"{first}\n{config}\n{rest}".encode(), b"said so")]


FACTS = SLURM.parse_probe(probe())
NO_OCI = {key: value for key, value in FACTS.items() if key != "oci"}


def test_a_probe_tells_the_clusters_limits() -> None:
    assert dict(FACTS) == {
        **FACTS,
        "version": "24.11.5",
        "cluster": "trixie",
        "max_array_size": 1001,
        "max_job_count": 10000,
        "min_job_age_s": 300,
        "accounting": "yes",
        "oci": "/etc/slurm/oci.conf",
        "partitions": "main,short,closed",
        "default_partition": "main",
        "partition:main:state": "UP",
        "partition:main:max_time_s": 86400,
        "partition:main:max_nodes": 3,
        "partition:main:node_cpus": 64,
        "partition:main:node_memory_mb": 128000,
        "partition:main:gpus": 4,
        "partition:main:gpus:a100": 4,
        "partition:short:max_time_s": 120,
        "partition:short:max_nodes": 2,
        "partition:short:max_cpus": 32,
        "partition:short:max_memory_mb": 1000,
        "partition:short:allow_account": "proj,other",
        "partition:short:allow_qos": "normal",
        "partition:closed:state": "DOWN",
        "partition:closed:deny_account": "proj",
    }
    assert "partition:closed:max_time_s" not in FACTS
    assert not [key for key in FACTS if "stranger" in key]


def test_a_cluster_without_slurmdbd_keeps_no_accounts() -> None:
    config = CONFIG.replace("accounting_storage/slurmdbd", "(null)")
    assert SLURM.parse_probe(probe(config))["accounting"] == "no"


@pytest.mark.parametrize(
    "results",
    [
        probe(code=1),
        probe("Unable to contact slurm controller"),
        probe(CONFIG.replace("MaxArraySize            = 1001", "MaxArraySize = many")),
        framed(*NODES, ends=["end|scontrol|0"]),
    ],
    ids=["failed", "no configuration", "no number", "no sinfo"],
)
def test_a_cluster_that_does_not_tell_is_not_usable(results: list[CommandResult]) -> None:
    with pytest.raises(ResourceError):
        SLURM.parse_probe(results)


def spec(container: str | None = None, **resources: Any) -> SubmissionSpec:
    return SubmissionSpec(
        "true", resident=True, resources=Resources(**resources), container=container
    )


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        (spec(queue="nosuch"), "resources.queue", "there are: main, short, closed"),
        (spec(queue="closed"), "resources.queue", "DOWN"),
        (spec(queue="short", wall_time_s=121), "resources.wall_time_s", "121 .*short.*120 s"),
        (spec(wall_time_s=86401), "resources.wall_time_s", "86400 s"),
        (spec(cpus=65), "resources.cpus", "65 .*main.*64"),
        (spec(queue="short", cpus=33), "resources.cpus", "32"),
        (spec(memory_mb=128001), "resources.memory_mb", "128000 MiB"),
        (spec(queue="short", memory_mb=1001), "resources.memory_mb", "1000 MiB"),
        (spec(nodes=4), "resources.nodes", "3"),
        (spec(gpus=5), "resources.gpus", "4"),
        (spec(queue="short", gpus=3), "resources.gpus", "2"),
        (spec(queue="nosuch,closed"), "resources.queue", "nosuch"),
        (spec(container="/image"), "container", "container_launcher"),
    ],
    ids=str,
)
def test_what_no_partition_can_run_is_refused_with_its_limit(
    asked: SubmissionSpec, field: str, words: str
) -> None:
    with pytest.raises(SpecRefused, match=words) as caught:
        SLURM.check(asked, NO_OCI)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "asked",
    [
        spec(),
        spec(cpus=64, memory_mb=128000, wall_time_s=86400, nodes=3, gpus=4),
        spec(queue="short", wall_time_s=61),
        spec(queue="closed,short", wall_time_s=120),
        spec(container="/bundle"),
    ],
    ids=str,
)
def test_what_fits_is_let_through(asked: SubmissionSpec) -> None:
    SLURM.check(asked, FACTS)


@pytest.mark.parametrize(
    ("config", "queue", "words"),
    [
        (SlurmConfig(account="third"), "short", "account='third'.*proj,other"),
        (SlurmConfig(qos="high"), "short", "qos='high'.*normal"),
        (SlurmConfig(gpu_type="h100"), "main", "resources.gpus: 1 .*0 of gpu_type 'h100'"),
    ],
)
def test_what_a_partition_does_not_let_in_is_refused(
    config: SlurmConfig, queue: str, words: str
) -> None:
    with pytest.raises(SpecRefused, match=words):
        SlurmScheduler(config).check(spec(queue=queue, gpus=1), FACTS)


def test_an_account_that_is_denied_is_refused() -> None:
    facts = {**FACTS, "partition:closed:state": "UP"}
    with pytest.raises(SpecRefused, match="account='proj'"):
        SlurmScheduler(SlurmConfig(account="proj")).check(spec(queue="closed"), facts)


def test_without_a_default_partition_one_must_be_asked_for() -> None:
    facts = {key: value for key, value in FACTS.items() if key != "default_partition"}
    with pytest.raises(SpecRefused, match="no default partition"):
        SLURM.check(spec(), facts)
    SlurmScheduler(SlurmConfig(queue="main")).check(spec(), facts)


# ---------------------------------------------------------------- sbatch


def batch(copies: Sequence[int] = (0, 1, 2), asked: SubmissionSpec | None = None) -> StagedBatch:
    return StagedBatch("sub", "m:sub", "/r/sub", "/r/sub/runner", tuple(copies), asked or spec())


def words_of(config: SlurmConfig | None = None, **more: Any) -> list[str]:
    """sbatch's options, without the program and what it is told."""
    (command,) = SlurmScheduler(config).submit_commands(batch(asked=spec(**more)), FACTS)
    return list(command.argv[8:])


def test_a_submission_says_what_the_specification_asks_for() -> None:
    assert words_of() == [
        "--no-requeue",
        "--chdir=/r/sub",
        "--output=/dev/null",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
    ]
    asked = words_of(
        cpus=4, memory_mb=500, wall_time_s=61, gpus=2, nodes=2, whole_node=True, queue="short"
    )
    assert asked == [
        "--no-requeue",
        "--exclusive",
        "--chdir=/r/sub",
        "--output=/dev/null",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=4",
        "--mem=500M",
        "--time=2",
        "--gres=gpu:2",
        "--partition=short",
    ]


def test_a_submission_says_what_is_configured() -> None:
    config = SlurmConfig(
        queue="main",
        account="proj",
        qos="high",
        constraint="a&b",
        reservation="ours",
        gpu_type="a100",
        gres="lscratch:5",
        options=("--licenses=x:1", "--contiguous"),
    )
    assert words_of(config, gpus=1)[6:] == [
        "--gres=gpu:a100:1,lscratch:5",
        "--partition=main",
        "--account=proj",
        "--qos=high",
        "--constraint=a&b",
        "--reservation=ours",
        "--licenses=x:1",
        "--contiguous",
    ]
    assert "--gres=lscratch:5" in words_of(config)


def script_of(config: SlurmConfig | None = None, container: str | None = None) -> list[str]:
    asked = batch(asked=spec(container=container))
    (command,) = SlurmScheduler(config).submit_commands(asked, FACTS)
    return command.stdin.decode().splitlines()


def test_the_jobs_script_starts_the_runner_with_the_copys_number() -> None:
    assert script_of() == [
        "#!/bin/sh",
        "# Submission sub of interCEde.",
        "first=0",
        'exec sh /r/sub/runner "$((first + ${SLURM_ARRAY_TASK_ID:-0}))"',
    ]


def test_a_launcher_stands_before_the_runner_and_only_with_a_container() -> None:
    config = SlurmConfig(
        container_launcher=("apptainer", "exec", "--bind={directory}", "docker://{image}")
    )
    launched = "exec apptainer exec --bind=/r/sub 'docker://a b' sh /r/sub/runner"
    assert script_of(config, "a b")[3].startswith(launched)
    assert script_of(config)[3].startswith("exec sh ")
    assert not [w for w in words_of(config) if w.startswith("--container")]


def test_a_container_without_launcher_is_slurms_own() -> None:
    (command,) = SLURM.submit_commands(batch(asked=spec(container="/bundle")), FACTS)
    assert "--container=/bundle" in command.argv


@pytest.mark.parametrize(
    ("copies", "size", "chunks"),
    [
        (range(1), 1001, "0:1:"),
        (range(3), 1001, "0:3:0-2"),
        (range(5), 2, "0:2:0-1 2:2:0-1 4:1:"),
        (range(3), 1, "0:1: 1:1: 2:1:"),
        (range(2), 0, "0:1: 1:1:"),
        ((7, 0, 1, 3), 1001, "0:4:0-1,3,7"),
        ((7, 0, 1, 3), 4, "0:3:0-1,3 7:1:"),
    ],
)
def test_copies_are_split_into_arrays_that_begin_with_task_0(
    copies: Sequence[int], size: int, chunks: str
) -> None:
    facts = {**FACTS, "max_array_size": size}
    (command,) = SLURM.submit_commands(batch(copies), facts)
    assert command.argv[5] == chunks


def test_too_many_arrays_for_a_command_line_take_several() -> None:
    facts = {"max_array_size": 1, "max_job_count": 30000}
    commands = SLURM.submit_commands(batch(range(9000)), facts)
    chunks = [word for command in commands for word in command.argv[5].split()]
    assert chunks == [f"{copy}:1:" for copy in range(9000)]
    assert len(commands) == 2


@pytest.mark.parametrize(("copies", "limit"), [(1000, "0"), (1001, "10000"), (10000, "10000")])
def test_only_a_large_submission_asks_first_whether_there_is_room(copies: int, limit: str) -> None:
    (command,) = SLURM.submit_commands(batch(range(copies)), FACTS)
    assert command.argv[4] == limit


def test_more_copies_than_the_cluster_can_hold_are_refused() -> None:
    with pytest.raises(SpecRefused, match="MaxJobCount of 10000") as caught:
        SLURM.submit_commands(batch(range(10001)), FACTS)
    assert caught.value.field == "copies"


def submitted(*rows: str) -> list[CommandResult]:
    return framed(*rows, ends=["end|submit|0"])


def natives(
    *rows: str, copies: Sequence[int] = (0, 1, 2), config: SlurmConfig | None = None
) -> Any:
    return SlurmScheduler(config).parse_submit(batch(copies), submitted(*rows))


def test_every_copy_has_its_element() -> None:
    assert natives("chunk|0|0-1|0|12", "chunk|2||0|13") == {0: "12_0", 1: "12_1", 2: "13"}
    assert natives("chunk|0|0-2|0|12;trixie") == {0: "12_0", 1: "12_1", 2: "12_2"}


def test_a_job_that_was_found_by_looking_up_is_submitted() -> None:
    said = (
        "said|sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    )
    assert natives("chunk|0|0-2|1|", said, "found|12|m:sub:0") == {
        0: "12_0",
        1: "12_1",
        2: "12_2",
    }


@pytest.mark.parametrize(
    "rows",
    [
        ["chunk|0|0-2|1|", "said|sbatch: error: Batch job submission failed: Socket timed out"],
        ["chunk|0|0-2|137|"],
        ["chunk|0|0-2|0|"],
        ["chunk|0|0-2|0|hello"],
        ["chunk|0|0-2|0|", "said|Unspecified error"],
        ["chunk|0|0-1|0|12"],
        ["chunk|0|0-2|1|", "found|12|m:sub:0", "found|13|m:sub:0"],
        ["chunk|x|0-2|0|12"],
        ["chunk|0|a|0|12"],
        ["chunk|0|-|0|12"],
        [],
    ],
    ids=str,
)
def test_what_is_not_certain_is_an_error_and_never_a_refusal(rows: list[str]) -> None:
    with pytest.raises(ResourceError):
        natives(*rows)


@pytest.mark.parametrize(
    ("config", "said", "code", "words"),
    [
        (
            SlurmConfig(account="x"),
            [
                "Batch job submission failed: Invalid account or account/partition combination specified"
            ],
            FailureCode.REFUSED,
            "account=x: .*this user has: project",
        ),
        (
            SlurmConfig(qos="x"),
            ["Batch job submission failed: Invalid qos specification"],
            FailureCode.REFUSED,
            "qos=x: .*this user has: normal,tiny",
        ),
        (
            SlurmConfig(qos="tiny"),
            [
                "QOSMaxSubmitJobPerUserLimit",
                "Batch job submission failed: Job violates accounting/QOS policy",
            ],
            FailureCode.LIMIT,
            "copies=3, qos=tiny: QOSMax.*MaxSubmitJobsPerUser=3 of QOS 'tiny'",
        ),
        (
            SlurmConfig(),
            ["Batch job submission failed: Job violates accounting/QOS policy"],
            FailureCode.LIMIT,
            "copies=3: .*MaxSubmitJobs=9 of account 'project'",
        ),
        (
            SlurmConfig(constraint="x"),
            ["Batch job submission failed: Invalid feature specification"],
            FailureCode.REFUSED,
            "constraint=x",
        ),
        (
            SlurmConfig(gres="x:1"),
            ["Invalid generic resource (gres) specification"],
            FailureCode.REFUSED,
            "gres=x:1",
        ),
        (
            SlurmConfig(),
            ["Batch job submission failed: Unable to contact slurm controller (connect failure)"],
            FailureCode.NOT_NOW,
            "connect failure",
        ),
        (
            SlurmConfig(),
            [
                "Slurm temporarily unable to accept job, sleeping and retrying",
                "Batch job submission failed: Resource temporarily unavailable",
            ],
            FailureCode.LIMIT,
            "copies=3",
        ),
    ],
    ids=str,
)
def test_a_refusal_names_field_value_and_limit(
    config: SlurmConfig, said: list[str], code: FailureCode, words: str
) -> None:
    accounts = ["assoc|project||normal,tiny|9", "qos|normal|||", "qos|tiny|3||"]
    lines = [f"said|sbatch: error: {line}" for line in said]
    told = natives("chunk|0|0-2|1|", *lines, *accounts, config=config)
    assert set(told) == {0, 1, 2}
    for failure in told.values():
        assert isinstance(failure, Failure)
        assert failure.code is code
        assert re.search(words, failure.message), failure.message


def test_copies_after_a_refused_array_were_not_tried() -> None:
    said = "said|sbatch: error: Batch job submission failed: Invalid qos specification"
    told = natives("chunk|0||0|12", "chunk|1||1|", said)
    assert told[0] == "12"
    assert isinstance(told[2], Failure)
    assert told[2].message.startswith("not tried")
    assert told[2].code is FailureCode.REFUSED


def test_copies_for_which_there_is_no_room_fail_with_limit_held_and_asked() -> None:
    told = natives("room|0|3|9998|10000", "chunk|0|0-0|0|12")
    assert told[0] == "12_0"
    for copy in (1, 2):
        assert told[copy] == Failure(
            FailureCode.LIMIT,
            "copies=3 do not fit beneath the cluster's MaxJobCount=10000: it holds 9998 jobs already;"
            " submit fewer, or later",
        )


def test_of_several_commands_each_tells_of_its_copies() -> None:
    results = [*submitted("chunk|0||0|12", "chunk|1||0|13"), *submitted("chunk|2||0|14")]
    assert SLURM.parse_submit(batch(), results) == {0: "12", 1: "13", 2: "14"}


# ---------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    "option",
    [
        "--array=0-3",
        "--arr=0-3",
        "--output=x",
        "--out=x",
        "--error=x",
        "--requeue",
        "--no-requeue",
        "--parsable",
        "--wrap=true",
        "--job-name=x",
        "--comment=x",
        "--chdir=/",
        "--export=ALL",
        "--clusters=all",
        "--partition=x",
        "--wait",
        "--test-only",
        "-p",
        "x",
        "",
        "--a b",
        "--licenses\n=x",
        "--licenses x",
    ],
)
def test_an_option_that_would_break_something_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be given|not of the form"):
        SlurmConfig(options=(option,))


@pytest.mark.parametrize(
    "option",
    ["--dependency=afterok:1", "--licenses=a:1,b", "--hold", "--begin=now", "--mail-type=END"],
)
def test_any_other_option_is_taken(option: str) -> None:
    assert words_of(SlurmConfig(options=(option,)))[-1] == option


@pytest.mark.parametrize("value", ["", " x", "x\n", "\x00"])
def test_a_name_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        SlurmConfig(account=value)


def test_a_launcher_must_say_where_the_image_stands() -> None:
    with pytest.raises(ValueError, match="image"):
        SlurmConfig(container_launcher=("apptainer", "exec"))
    with pytest.raises(ValueError, match="empty"):
        SlurmConfig(container_launcher=("{image}", ""))
    with pytest.raises(TypeError, match="list"):
        SlurmConfig(container_launcher="apptainer exec {image}")


def test_a_wrong_key_is_named_by_the_registry() -> None:
    with pytest.raises(ConfigurationError, match="acount"):
        registry.scheduler({"type": "slurm", "acount": "x"})
