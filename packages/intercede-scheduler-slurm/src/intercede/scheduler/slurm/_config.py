"""The keys of `slurm`: where jobs go, and what sbatch is told besides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import Attribute, field, frozen

from intercede.core.registry import describe

__all__ = ["SlurmConfig"]

#: sbatch's options that may not be given: what they would break, or what says the same.
_TAKEN: Final = {
    "account": "there is the key account",
    "array": "interCEde makes arrays itself",
    "chdir": "jobs run in their sandbox",
    "clusters": "one resource is one cluster",
    "comment": "it holds interCEde's mark",
    "constraint": "there is the key constraint",
    "container": "it comes with each specification",
    "cpus-per-task": "cpus come with each specification",
    "error": "the runner writes the payload's output",
    "exclusive": "whole_node comes with each specification",
    "export": "what a job inherits is interCEde's part",
    "export-file": "what a job inherits is interCEde's part",
    "get-user-env": "what a job inherits is interCEde's part",
    "gpus": "gpus come with each specification",
    "gpus-per-job": "gpus come with each specification",
    "gpus-per-node": "gpus come with each specification",
    "gpus-per-task": "gpus come with each specification",
    "gres": "there is the key gres",
    "help": "it submits nothing",
    "input": "the runner reads nothing",
    "job-name": "it holds interCEde's mark",
    "mem": "memory_mb comes with each specification",
    "mem-per-cpu": "memory_mb comes with each specification",
    "mem-per-gpu": "memory_mb comes with each specification",
    "no-requeue": "jobs are submitted so already",
    "nodes": "nodes come with each specification",
    "ntasks": "a copy is one task for each node",
    "ntasks-per-node": "a copy is one task for each node",
    "output": "the runner writes the payload's output",
    "parsable": "jobs are submitted so already",
    "partition": "there is the key queue",
    "qos": "there is the key qos",
    "requeue": "a job that runs twice is two jobs",
    "reservation": "there is the key reservation",
    "test-only": "it submits nothing",
    "time": "wall_time_s comes with each specification",
    "usage": "it submits nothing",
    "version": "it submits nothing",
    "wait": "a submit does not wait for the job's end",
    "wrap": "the script is interCEde's",
}
_OPTION: Final = re.compile(r"--([a-z][a-z0-9-]*)(=[^\0\n\r]*)?")


def _word(instance: object, attribute: Attribute[str | None], value: str | None) -> None:
    """A name that sbatch takes for nothing else."""
    if value is None:
        return
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} is not a name")


def _options(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"options must be a list: write [{values!r}]")
    return tuple(values)


def _acceptable(
    instance: object, attribute: Attribute[tuple[str, ...]], values: tuple[str, ...]
) -> None:
    for value in values:
        match = _OPTION.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is not of the form --name or --name=value")
        # sbatch takes the beginning of a name for the name.
        for name, why in _TAKEN.items():
            if name.startswith(match[1]):
                raise ValueError(f"{value!r} cannot be given: {why}")


def _launcher(
    instance: object, attribute: Attribute[tuple[str, ...]], values: tuple[str, ...]
) -> None:
    if values and not any("{image}" in value for value in values):
        raise ValueError("container_launcher does not say where {image} stands")
    if any(not value or not value.isprintable() for value in values):
        raise ValueError("container_launcher has a word that is empty or not printable")


@frozen
class SlurmConfig:
    """Where jobs go, and what sbatch is told besides."""

    queue: str | None = field(
        default=None,
        validator=_word,
        metadata=describe(
            "Partition for specifications that name none, or several separated by commas; default: the cluster's"
        ),
    )
    account: str | None = field(
        default=None,
        validator=_word,
        metadata=describe("Account that is charged; default: the user's own default"),
    )
    qos: str | None = field(
        default=None,
        validator=_word,
        metadata=describe("Quality of service; default: the account's"),
    )
    constraint: str | None = field(
        default=None,
        validator=_word,
        metadata=describe('Features that nodes must have, as in "haswell&ib"'),
    )
    reservation: str | None = field(
        default=None, validator=_word, metadata=describe("Reservation that jobs use")
    )
    gpu_type: str | None = field(
        default=None,
        validator=_word,
        metadata=describe("What GPUs of a specification are, as in a100; default: any"),
    )
    gres: str | None = field(
        default=None,
        validator=_word,
        metadata=describe("Other generic resources that every job takes, as in lscratch:10"),
    )
    options: tuple[str, ...] = field(
        default=(),
        converter=_options,
        validator=_acceptable,
        metadata=describe(
            "More options for sbatch, as in --licenses=matlab:1; those that interCEde gives itself are refused"
        ),
    )
    container_launcher: tuple[str, ...] = field(
        default=(),
        converter=_options,
        validator=_launcher,
        metadata=describe(
            "Words before the runner that put it into a container, with {image} and, if wanted, {directory} of the"
            " submission; default: Slurm's own --container, where the cluster has it"
        ),
    )
