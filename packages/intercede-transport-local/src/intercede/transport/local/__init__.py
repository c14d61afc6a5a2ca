"""Commands on this machine."""

from intercede.core.registry import TransportPlugin

from ._transport import LocalConfig, LocalTransport

__all__ = ["LocalConfig", "LocalTransport", "plugin"]

#: The entry point `local` of `intercede.transports`.
plugin = TransportPlugin(LocalConfig, LocalTransport, summary="Commands on this machine")
