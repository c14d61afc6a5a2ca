"""Backends, transports and schedulers that lie: each breaks one rule of the contract, in a way that a tired engineer would.

They are for the suite's own quality: a rule whose liar is not caught is a rule that is not tested. `python -m liars` runs them.
"""

from intercede.core.registry import BackendPlugin, SchedulerPlugin, TransportPlugin

from ._honest import LiarConfig, make
from ._honest_scheduler import SchedulerLiarConfig, make_scheduler
from ._honest_transport import TransportLiarConfig, make_transport
from ._table import LIARS

__all__ = ["LIARS", "backend", "scheduler", "transport"]

#: The entry points `liar` of the three groups, while the liars are run.
backend = BackendPlugin(config=LiarConfig, make=make, summary="A backend that breaks one rule")
transport = TransportPlugin(TransportLiarConfig, make_transport, "A transport that breaks one rule")
scheduler = SchedulerPlugin(SchedulerLiarConfig, make_scheduler, "A scheduler that breaks one rule")
