"""What a cluster is, as its probe tells, and what it can never run.

Facts are flat: `version`, `cluster`, `max_array_size`, `max_job_count`, `min_job_age_s`, `accounting`, `oci`, `partitions`,
`default_partition`, and for each partition `partition:NAME:KEY` with state, max_time_s, max_nodes, max_cpus, max_memory_mb, gpus,
gpus:TYPE and allow_accounts, deny_accounts, allow_qos, deny_qos. What is not limited is not there.

Slurm refuses little by itself: a job for a partition that is down, or over its time, is accepted and waits for ever (seen on all versions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

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
    "AllowAccounts": "allow_accounts",
    "DenyAccounts": "deny_accounts",
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


def _check_partition(name: str, spec: SubmissionSpec, config: SlurmConfig, facts: Facts) -> None:
    key, asked = f"partition:{name}:", spec.resources
    state = facts.get(f"{key}state", "UP")
    if state != "UP":
        raise SpecRefused(
            "resources.queue",
            f"partition {name!r} is {state}: a job would wait there until somebody opens it",
            remedy="choose another queue, or wait",
        )
    minutes = None if asked.wall_time_s is None else -(-asked.wall_time_s // 60)
    limits: tuple[tuple[str, int | None, int | None, str, tuple[str, ...]], ...] = (
        (
            "wall_time_s",
            asked.wall_time_s,
            None if minutes is None else minutes * 60,
            "s",
            ("max_time_s",),
        ),
        ("nodes", asked.nodes, asked.nodes, "", ("max_nodes",)),
        ("cpus", asked.cpus, asked.cpus, "", ("max_cpus", "node_cpus")),
        (
            "memory_mb",
            asked.memory_mb,
            asked.memory_mb,
            "MiB",
            ("max_memory_mb", "node_memory_mb"),
        ),
        (
            "gpus",
            asked.gpus,
            asked.gpus,
            "",
            (f"gpus:{config.gpu_type}" if config.gpu_type else "gpus",),
        ),
    )
    for field, value, counted, unit, names in limits:
        if counted is None:
            continue
        found = [int(facts[key + n]) for n in names if isinstance(facts.get(key + n), int)]
        if field == "gpus" and not found and f"{key}node_cpus" in facts:
            found = [0]
        if found and counted > min(found):
            limit = f"{min(found)} {unit}".strip()
            raise SpecRefused(
                f"resources.{field}",
                f"{value} exceeds the limit of partition {name!r} ({limit})",
                remedy="ask for less, or choose another queue",
            )
    for field, chosen in (("account", config.account), ("qos", config.qos)):
        allowed, denied = f"{key}allow_{field}", f"{key}deny_{field}"
        if field == "account":
            allowed, denied = f"{allowed}s", f"{denied}s"
        if chosen is None:
            continue
        let_in = str(facts.get(allowed, chosen)).split(",")
        if chosen not in let_in or chosen in str(facts.get(denied, "")).split(","):
            raise SpecRefused(
                "resources.queue",
                f"partition {name!r} does not let in {field}={chosen!r}",
                remedy=f"there may be: {facts.get(allowed, 'others')}",
            )
