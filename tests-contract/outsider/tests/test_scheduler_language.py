"""What the scheduler `spool` says and understands, held to the contract."""

from pathlib import Path

from intercede.contract import Sample, SchedulerContract, SchedulerResource

SAMPLES = Sample.read(Path(__file__).with_name("spool.json"))


class TestSpoolLanguage(SchedulerContract):
    resource = SchedulerResource(config="spool", samples=SAMPLES, native="{submission}.{copy}")
