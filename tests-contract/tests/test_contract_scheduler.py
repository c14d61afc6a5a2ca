"""The rules for schedulers, held against what direct and the fake batch system were seen to say."""

from pathlib import Path

from intercede.contract import Sample, SchedulerContract, SchedulerResource

SAMPLES = Path(__file__).parent / "samples"


class TestDirectScheduler(SchedulerContract):
    resource = SchedulerResource(
        config="direct",
        samples=Sample.read(SAMPLES / "direct.json"),
        native="{submission}.{copy}",
    )


class TestFakeScheduler(SchedulerContract):
    resource = SchedulerResource(
        config="fake",
        samples=Sample.read(SAMPLES / "fake.json"),
        native="{number}.{copy}",
        ids_limit=500,
    )
