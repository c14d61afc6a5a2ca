"""Processes on a host without a batch system."""

from intercede.core.registry import SchedulerPlugin

from ._scheduler import DirectConfig, DirectScheduler

__all__ = ["DirectConfig", "DirectScheduler", "plugin"]

#: The entry point `direct` of `intercede.schedulers`.
plugin = SchedulerPlugin(
    DirectConfig, DirectScheduler, summary="Processes on a host without a batch system"
)
