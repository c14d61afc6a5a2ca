"""What Slurm calls the states of a job, and what they mean.

From squeue(1), "JOB STATE CODES", of 20.11 to 26.05, and sacct(1); those that no stack can be brought to show are here all the same. A
state may come with more behind it, as in `CANCELLED by 2000` or `PENDING+REQUEUED`: a flag that is known counts before the state.

PENDING is a job that time alone can bring to run, HELD one that stays as it is until somebody changes it or lets it go. That is the
difference to whoever provides the jobs: a held one takes a place in the queue and nothing from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from intercede.core import JobStatus

__all__ = ["STATES", "State", "pending_reason", "read_state"]


@frozen
class State:
    """One of Slurm's states.

    Attributes:
        name: As Slurm writes it.
        status: What it means.
        words: For people, where the name does not tell.
        is_ending: The payload is over, and Slurm is clearing up behind it.
    """

    name: str
    status: JobStatus
    words: str | None = None
    is_ending: bool = False


_ALL: Final = (
    ("PD", State("PENDING", JobStatus.PENDING)),
    ("CF", State("CONFIGURING", JobStatus.PENDING, "its nodes are being made ready")),
    ("", State("POWER_UP_NODE", JobStatus.PENDING, "its nodes are being switched on")),
    ("RQ", State("REQUEUED", JobStatus.PENDING, "it goes back to the queue")),
    ("RF", State("REQUEUE_FED", JobStatus.PENDING, "a federation puts it back to the queue")),
    ("", State("EXPEDITING", JobStatus.PENDING, "it goes back to the front of the queue")),
    ("RH", State("REQUEUE_HOLD", JobStatus.HELD, "it went back to the queue and is held there")),
    ("RD", State("RESV_DEL_HOLD", JobStatus.HELD, "held since its reservation was deleted")),
    ("SE", State("SPECIAL_EXIT", JobStatus.HELD, "held by the site because of how it ended")),
    ("R", State("RUNNING", JobStatus.RUNNING)),
    ("RS", State("RESIZING", JobStatus.RUNNING, "its size is about to change")),
    ("SI", State("SIGNALING", JobStatus.RUNNING, "it is being sent a signal")),
    ("S", State("SUSPENDED", JobStatus.RUNNING, "suspended: its processes are stopped")),
    ("ST", State("STOPPED", JobStatus.RUNNING, "stopped: its processes are, and keep the cores")),
    ("CG", State("COMPLETING", JobStatus.RUNNING, "it is ending", is_ending=True)),
    ("SO", State("STAGE_OUT", JobStatus.RUNNING, "its files are carried away", is_ending=True)),
    ("CD", State("COMPLETED", JobStatus.SUCCESSFUL)),
    ("CA", State("CANCELLED", JobStatus.CANCELLED, "cancelled")),
    ("F", State("FAILED", JobStatus.FAILED)),
    ("TO", State("TIMEOUT", JobStatus.FAILED, "ended at its time limit")),
    ("NF", State("NODE_FAIL", JobStatus.FAILED, "its node failed")),
    ("BF", State("BOOT_FAIL", JobStatus.FAILED, "its node did not boot")),
    ("PR", State("PREEMPTED", JobStatus.FAILED, "ended for a job with precedence")),
    ("DL", State("DEADLINE", JobStatus.FAILED, "it could not end before its deadline")),
    ("OOM", State("OUT_OF_MEMORY", JobStatus.FAILED, "it ran out of memory")),
    ("", State("LAUNCH_FAILED", JobStatus.FAILED, "Slurm could not start it")),
    ("", State("RECONFIG_FAIL", JobStatus.FAILED, "its node could not be configured for it")),
    ("RV", State("REVOKED", JobStatus.UNKNOWN, "another cluster of the federation has it")),
)

#: By name and by compact code. What is not here is UNKNOWN, never guessed.
STATES: Final[Mapping[str, State]] = {
    name: state for code, state in _ALL for name in (state.name, code) if name
}

#: What tells that a job has not only a state: these count before it.
_FLAGS: Final = frozenset(
    {
        "COMPLETING",
        "CONFIGURING",
        "EXPEDITING",
        "LAUNCH_FAILED",
        "POWER_UP_NODE",
        "RECONFIG_FAIL",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "REVOKED",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
    }
)

#: Why a job waits that will never run as it is (squeue(1), "JOB REASON CODES", and what 20.11 to 26.05 were seen to say).
_HOLDS: Final[Mapping[str, str]] = {
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held after it was put back to the queue too often",
    "job requeued in held state": "put back to the queue and held",
    "launch failed requeued held": "its node could not start it; put back to the queue and held",
    "DependencyNeverSatisfied": "what it depends on will never come true",
    "ReservationDeleted": "its reservation was deleted",
    "ReservationInvalid": "its reservation is not valid",
    "BadConstraints": "no node has what it asks for",
    "PartitionConfig": "its partition does not let it run",
    "PartitionTimeLimit": "its time is over the limit of its partition",
    "PartitionNodeLimit": "its nodes are over the limit of its partition",
    "AccountNotAllowed": "its partition does not let in its account",
    "QOSNotAllowed": "its partition does not let in its QOS",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "MaxMemPerLimit": "its memory is over a limit",
    "AssociationTimeLimit": "its time is over the limit of its account",
    "QOSTimeLimit": "its time is over the limit of its QOS",
    "DeadLine": "it cannot end before its deadline",
}
_WAITS: Final[Mapping[str, str]] = {
    "None": "not considered yet",
    "Priority": "other jobs go first",
    "Resources": "waits for free resources",
    "BeginTime": "its time to begin has not come",
    "Dependency": "waits for other jobs",
    "JobArrayTaskLimit": "waits for other tasks of its array",
    "Licenses": "waits for a licence",
    "Reservation": "waits for its reservation",
    "ReqNodeNotAvail": "a node it needs is not available",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "the nodes it could have are down, drained or taken"
    ),
    "NodeDown": "a node it needs is down",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is not active",
    "Prolog": "its nodes are being prepared",
    "Cleaning": "an earlier run of it is being cleared up",
    "SchedDefer": "put off by the site's scheduler",
    "InactiveLimit": "put off by the site's scheduler",
}
#: A limit of one job is exceeded for good; a limit of all jobs together is reached until some of them end.
_JOB_LIMIT: Final = re.compile(
    r"(?:QOS|Assoc)?(?:Max\w*PerJob\w*|Max\w*PerNode\w*|Min\w+)(?:Limit)?"
)
_SHARED_LIMIT: Final = re.compile(r"(QOS|Assoc|Association|Max)\w+")


def read_state(text: str) -> State | None:
    """The state that a text begins with; None if that is none.

    `CANCELLED by 2000` (sacct), `CANCELLED+` (sacct, in a narrow column), `PENDING+REQUEUED`, `CG`.
    """
    words = text.split()
    if not words:
        return None
    name, *flags = words[0].split("+")
    state = STATES.get(name)
    if state is None:
        return None
    return next((STATES[flag] for flag in flags if flag in _FLAGS), state)


def pending_reason(reason: str) -> tuple[JobStatus, str]:
    """Whether a job that waits for this reason can run by itself, and the reason in words."""
    # Slurm puts more behind some: "ReqNodeNotAvail, UnavailableNodes:n1", "launch failed requeued held".
    known = reason.partition(",")[0].strip().replace("_", " ")
    if known in _HOLDS or reason in _HOLDS:
        return JobStatus.HELD, _worded(_HOLDS.get(known) or _HOLDS[reason], reason)
    if known in _WAITS or reason in _WAITS:
        return JobStatus.PENDING, _worded(_WAITS.get(known) or _WAITS[reason], reason)
    if _JOB_LIMIT.fullmatch(known):
        return JobStatus.HELD, _worded("what it asks for is over a limit for one job", reason)
    limited = _SHARED_LIMIT.fullmatch(known)
    if limited:
        whose = "its QOS" if limited[1] == "QOS" else "its account"
        return JobStatus.PENDING, _worded(f"a limit of {whose} is reached", reason)
    return JobStatus.PENDING, reason or "waits"


def _worded(words: str, reason: str) -> str:
    return words if reason == "None" else f"{words} ({reason})"
