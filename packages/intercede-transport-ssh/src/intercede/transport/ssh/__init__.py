"""Commands on a host over one SSH connection."""

from intercede.core.registry import TransportPlugin

from ._config import JumpHost, SSHConfig
from ._transport import SSHTransport

__all__ = ["JumpHost", "SSHConfig", "SSHTransport", "plugin"]

#: The entry point `ssh` of `intercede.transports`.
plugin = TransportPlugin(
    SSHConfig, SSHTransport, summary="Commands on a host over one SSH connection"
)
