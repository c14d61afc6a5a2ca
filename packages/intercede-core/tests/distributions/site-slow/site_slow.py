"""Takes 5 s to import."""

import time

from attrs import frozen
from site_parts import silent

from intercede.core.registry import TransportPlugin


@frozen
class OwnConfig:
    """Nothing to say."""


time.sleep(5)
plugin = TransportPlugin(OwnConfig, silent)
