"""Installed in place."""

from attrs import frozen
from site_parts import silent

from intercede.core.registry import TransportPlugin


@frozen
class OwnConfig:
    """Nothing to say."""


plugin = TransportPlugin(OwnConfig, silent)
