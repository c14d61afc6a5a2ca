"""Slurm, spoken to through its own commands."""

from intercede.core.registry import SchedulerPlugin

from ._config import SlurmConfig
from ._scheduler import SlurmScheduler

__all__ = ["SlurmConfig", "SlurmScheduler", "plugin"]

#: The entry point `slurm` of `intercede.schedulers`.
plugin = SchedulerPlugin(SlurmConfig, SlurmScheduler, summary="Slurm, through its own commands")
