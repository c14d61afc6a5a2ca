"""What the scheduler `spool` says and understands, held to the contract."""

from intercede.contract import SchedulerContract, SchedulerResource


class TestSpoolLanguage(SchedulerContract):
    resource = SchedulerResource(config="spool", native="{submission}.{copy}")
