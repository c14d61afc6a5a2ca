"""What a cluster is, as its probe tells, and what it can never run.

Facts are flat: `version`, `cluster`, `max_array_size`, `max_job_count`, `min_job_age_s`, `accounting`, `oci`, `partitions`,
`default_partition`, and for each partition `partition:NAME:KEY` with state, max_time_s, max_nodes, max_cpus, max_memory_mb,
node_cpus, node_memory_mb (of its largest nodes), gpus, gpus:TYPE and allow_account, deny_account, allow_qos, deny_qos. What is not limited is not there.

Slurm refuses little by itself: a job for a partition that is down, or over its time, is accepted and waits for ever (seen on all versions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from intercede.core import Facts, ResourceError, Results, SpecRefused, SubmissionSpec

from ._answer import read_answer
from ._config import SlurmConfig

__all__ = ["check", "partitions_for", "read_facts"]

#: What is read of `scontrol show config`, and the fact's name. All versions have them.
_SETTINGS: Final[Mapping[str, str]] = {
    "ClusterName": "cluster",
    "SLURM_VERSION": "version",
    "MaxArraySize": "max_array_size",
    "MaxJobCount": "max_job_count",
    "MinJobAge": "min_job_age_s",
}
_SETTING: Final = re.compile(r"(\w+) *= (.*)")
_PARTITION: Final = re.compile(r"(?:scontrol: )?(PartitionName=\S.*)")
_NUMBER: Final = re.compile(r"([0-9]{1,12})(?: sec)?")
_DURATION: Final = re.compile(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,2})")
_GPU: Final = re.compile(r"gpu(?::([\w.-]+))?:([0-9]{1,6})(?:\(.*\))?")
#: Of `scontrol show partitions`: lists of names, and numbers.
_LISTS: Final[Mapping[str, str]] = {
    "AllowAccounts": "allow_account",
    "DenyAccounts": "deny_account",
    "AllowQos": "allow_qos",
    "DenyQos": "deny_qos",
}
_LIMITS: Final[Mapping[str, str]] = {
    "MaxNodes": "max_nodes",
    "TotalNodes": "max_nodes",
    "MaxCPUsPerNode": "max_cpus",
    "MaxMemPerNode": "max_memory_mb",
}


# ---------------------------------------------------------------- what the probe tells


def read_facts(results: Results) -> Facts:
    """The facts, from `scontrol show config`, `scontrol show partitions` and `sinfo`.

    Raises:
        ResourceError: One of them failed, or told nothing.
    """
    answer = read_answer(results)
    answer.check("scontrol")
    answer.check("sinfo")
    facts: dict[str, int | str] = {}
    for line in answer.plain:
        setting = _SETTING.fullmatch(line)
        if setting and setting[1] in _SETTINGS:
            number = _NUMBER.fullmatch(setting[2])
            facts[_SETTINGS[setting[1]]] = int(number[1]) if number else setting[2]
        elif setting and setting[1] == "AccountingStorageType":
            facts["accounting"] = "yes" if setting[2].endswith("slurmdbd") else "no"
        elif partition := _PARTITION.fullmatch(line):
            _read_partition(partition[1], facts)
    if "version" not in facts or not isinstance(facts.get("max_array_size"), int):
        # scontrol that reads its requests ends with 0 whatever came of them.
        raise ResourceError(
            "Slurm's configuration cannot be read",
            said=answer.said,
            remedy="see that slurmctld runs and that `scontrol show config` works there",
        )
    for row in answer.rows:
        if row[0] == "oci" and len(row) == 2:
            facts["oci"] = row[1]
        elif len(row) == 5:
            _read_nodes(row, facts)
    return facts


def _read_partition(line: str, facts: dict[str, int | str]) -> None:
    values = dict(word.partition("=")[::2] for word in line.split())
    name = values["PartitionName"]
    facts["partitions"] = ",".join(filter(None, [str(facts.get("partitions", "")), name]))
    if values.get("Default") == "YES":
        facts["default_partition"] = name
    key = f"partition:{name}:"
    facts[f"{key}state"] = values.get("State", "UP")
    seconds = _seconds(values.get("MaxTime", ""))
    if seconds is not None:
        facts[f"{key}max_time_s"] = seconds
    for theirs, ours in _LIMITS.items():
        number = _NUMBER.fullmatch(values.get(theirs, ""))
        if number:
            facts[key + ours] = min(int(number[1]), int(facts.get(key + ours, 10**12)))
    for theirs, ours in _LISTS.items():
        if values.get(theirs, "ALL") not in ("ALL", "(null)"):
            facts[key + ours] = values[theirs]


def _seconds(text: str) -> int | None:
    """`1-00:00:00`, `00:02:00`, `2:00`; None for UNLIMITED and what is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _read_nodes(row: list[str], facts: dict[str, int | str]) -> None:
    """The largest node of a partition, from one of sinfo's groups of nodes."""
    name, cpus, memory, gres, _ = row
    key = f"partition:{name}:"
    if f"{key}state" not in facts:
        return
    gpus = dict(_gpus(gres))
    found = {f"{key}gpus": sum(gpus.values())}
    found |= {f"{key}gpus:{kind}": number for kind, number in gpus.items() if kind}
    for fact, text in ((f"{key}node_cpus", cpus), (f"{key}node_memory_mb", memory)):
        number = _NUMBER.fullmatch(text.rstrip("+"))
        if number:
            found[fact] = int(number[1])
    for fact, value in found.items():
        facts[fact] = max(value, int(facts.get(fact, 0)))


def _gpus(gres: str) -> Iterator[tuple[str, int]]:
    """Of `gpu:a100:4(S:0-1),lscratch:10` the kinds of GPUs and their numbers."""
    for item in re.split(r",(?![^(]*\))", gres):
        match = _GPU.fullmatch(item)
        if match:
            yield match[1] or "", int(match[2])


# ---------------------------------------------------------------- what can never run


def partitions_for(spec: SubmissionSpec, config: SlurmConfig, facts: Facts) -> list[str]:
    """The partitions that a specification may go to; empty: the cluster has no default and none is asked for."""
    wanted = spec.resources.queue or config.queue or str(facts.get("default_partition", ""))
    return [name for name in wanted.split(",") if name]


def check(spec: SubmissionSpec, config: SlurmConfig, facts: Facts) -> None:
    """Refuse what no partition that is asked for can ever run.

    Raises:
        SpecRefused: Naming field, value and limit.
    """
    if spec.container is not None and not config.container_launcher and "oci" not in facts:
        raise SpecRefused(
            "container",
            f"{spec.container!r} cannot be had: the cluster has no OCI runtime (no oci.conf beside slurm.conf)",
            remedy="configure container_launcher, as in [apptainer, exec, {image}]",
        )
    known = str(facts.get("partitions", "")).split(",")
    wanted = partitions_for(spec, config, facts)
    if not wanted:
        raise SpecRefused(
            "resources.queue",
            "none is asked for, and the cluster has no default partition",
            remedy=f"there are: {', '.join(known)}",
        )
    refusals = []
    for name in wanted:
        try:
            if name not in known:
                raise SpecRefused(
                    "resources.queue",
                    f"{name!r} is not a partition of this cluster",
                    remedy=f"there are: {', '.join(known)}",
                )
            _check_partition(name, spec, config, facts)
        except SpecRefused as refusal:
            refusals.append(refusal)
        else:
            return
    raise refusals[0]


@frozen
class _Asked:
    """Something that a partition has a limit of.

    Attributes:
        field: Of the specification's resources.
        value: What is asked for.
        counted: As Slurm counts it.
        facts: What limits it: the least of these facts of the partition.
        unit: Of the limit, for people.
    """

    field: str
    value: int
    counted: int
    facts: tuple[str, ...]
    unit: str = ""


def _asked(spec: SubmissionSpec, config: SlurmConfig) -> Iterator[_Asked]:
    wanted = spec.resources
    if wanted.wall_time_s is not None:
        # Slurm counts in minutes.
        seconds = -(-wanted.wall_time_s // 60) * 60
        yield _Asked("wall_time_s", wanted.wall_time_s, seconds, ("max_time_s",), " s")
    yield _Asked("nodes", wanted.nodes, wanted.nodes, ("max_nodes",))
    yield _Asked("cpus", wanted.cpus, wanted.cpus, ("max_cpus", "node_cpus"))
    if wanted.memory_mb is not None:
        memory = ("max_memory_mb", "node_memory_mb")
        yield _Asked("memory_mb", wanted.memory_mb, wanted.memory_mb, memory, " MiB")
    if wanted.gpus and config.gpu_type:
        kind = f" of gpu_type {config.gpu_type!r}"
        yield _Asked("gpus", wanted.gpus, wanted.gpus, (f"gpus:{config.gpu_type}",), kind)
    elif wanted.gpus:
        yield _Asked("gpus", wanted.gpus, wanted.gpus, ("gpus",))


def _check_partition(name: str, spec: SubmissionSpec, config: SlurmConfig, facts: Facts) -> None:
    key = f"partition:{name}:"
    state = facts.get(f"{key}state", "UP")
    if state != "UP":
        raise SpecRefused(
            "resources.queue",
            f"partition {name!r} is {state}: a job would wait there until somebody opens it",
            remedy="choose another queue, or wait",
        )
    for asked in _asked(spec, config):
        limit = _limit(key, asked, facts)
        if limit is not None and asked.counted > limit:
            raise SpecRefused(
                f"resources.{asked.field}",
                f"{asked.value} exceeds the limit of partition {name!r} ({limit}{asked.unit})",
                remedy="ask for less, or choose another queue",
            )
    for field, chosen in (("account", config.account), ("qos", config.qos)):
        if chosen is None:
            continue
        let_in = facts.get(f"{key}allow_{field}")
        if (let_in is not None and chosen not in str(let_in).split(",")) or chosen in str(
            facts.get(f"{key}deny_{field}", "")
        ).split(","):
            raise SpecRefused(
                "resources.queue",
                f"partition {name!r} does not let in {field}={chosen!r}",
                remedy=f"it lets in {let_in or 'others'}",
            )


def _limit(key: str, asked: _Asked, facts: Facts) -> int | None:
    """The least of the facts that limit it; None if nothing is known to."""
    found = [int(facts[key + name]) for name in asked.facts if key + name in facts]
    if asked.field == "gpus" and not found and f"{key}node_cpus" in facts:
        return 0  # its nodes are known, and have none
    return min(found, default=None)
