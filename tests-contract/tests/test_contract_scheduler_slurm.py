"""The rules for schedulers, held against what Slurm of four versions was seen to say."""

from pathlib import Path

from intercede.contract import Sample, SchedulerContract, SchedulerResource

SAMPLES = Path(__file__).parent / "samples"


def slurm(version: str) -> SchedulerResource:
    return SchedulerResource(
        config="slurm",
        samples=Sample.read(SAMPLES / f"slurm-{version}.json"),
        native="{number}_{copy}",
    )


class TestSlurm2011(SchedulerContract):
    resource = slurm("20.11")


class TestSlurm2205(SchedulerContract):
    resource = slurm("22.05")


class TestSlurm2411(SchedulerContract):
    resource = slurm("24.11")


class TestSlurm2605(SchedulerContract):
    resource = slurm("26.05")
