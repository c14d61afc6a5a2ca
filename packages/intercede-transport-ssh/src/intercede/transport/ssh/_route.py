"""The way to the host: which hosts to pass, and one attempt to connect through all of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import asyncssh
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import SSHPacketLogger
from attrs import field, frozen

from intercede.core import ConfigurationError, InterCEdeError, Unreachable

from ._config import SSHConfig
from ._login import Greeter, Offer
from ._trust import Trust
from ._waiting import with_grace

__all__ = ["Attempt", "Hop", "Passing", "resolved"]

_PORT: Final = 22
#: How many aliases of ssh_config may lead to others by ProxyJump.
_HOPS_MAX: Final = 16
#: AES-GCM first: through OpenSSL it is several times faster here than chacha20, which both sides would prefer.
_CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
#: So many signs of life are missed before the connection counts as lost.
_KEEPALIVES: Final = 3


@frozen
class Hop:
    """One host of the way."""

    host: str
    port: int
    user: str
    host_keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.user}@{self.host}:{self.port}"


class Passing(Exception):  # never seen outside
    """An error that may be gone in a moment.

    Args:
        error: The error.
        known: Only if the host was there before; else its name or port is more likely to be wrong.
    """

    def __init__(self, error: Unreachable, *, known: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.known = known


async def resolved(config: SSHConfig, user: str) -> tuple[Hop, ...]:
    """The hosts to pass, the nearest first, the one that is meant last.

    Args:
        config: What the user wrote.
        user: Who we are here.

    Raises:
        ConfigurationError: `ssh_config` cannot be read.
    """
    if config.ssh_config is not None:
        return await anyio.to_thread.run_sync(_from_file, config, user)
    jumps = [Hop(j.host, j.port or _PORT, j.user or user, j.host_keys) for j in config.jump]
    last = Hop(config.host, config.port or _PORT, config.user or user, config.host_keys)
    return (*jumps, last)


def _from_file(config: SSHConfig, user: str) -> tuple[Hop, ...]:
    path = Path(config.ssh_config or "").expanduser()
    last, through = _alias(path, config.host, config.user, config.port, user, config.host_keys)
    jumps: list[Hop] = []
    for jump in config.jump:
        jumps.append(_alias(path, jump.host, jump.user, jump.port, user, jump.host_keys)[0])
    while through and not config.jump:
        if len(jumps) >= _HOPS_MAX:
            raise ConfigurationError(
                f"ProxyJump of {config.host} leads through more than {_HOPS_MAX} hosts",
                path="transport.ssh_config",
                remedy=f"see {path}",
            )
        before = [_alias(path, *_split(word), user, ()) for word in through.split(",")]
        jumps[:0] = [hop for hop, _ in before]
        through = before[0][1]
    return (*jumps, last)


def _split(word: str) -> tuple[str, str | None, int | None]:
    """`[user@]host[:port]`, as ProxyJump has it."""
    user, _, place = word.strip().rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        host, port = place, ""
    return host.strip("[]"), user or None, int(port) if port else None


def _alias(
    path: Path,
    alias: str,
    user: str | None,
    port: int | None,
    default_user: str,
    host_keys: tuple[str, ...],
) -> tuple[Hop, str]:
    """What the file says of a host, and through which it is reached."""
    if not path.is_file():
        raise ConfigurationError(
            f"there is no file {path}", path="transport.ssh_config", remedy="correct the path"
        )
    try:
        options = asyncssh.SSHClientConnectionOptions(
            config=[str(path)],
            host=alias,
            port=port or (),
            username=user or (),
            client_keys=None,
            known_hosts=b"",
            x509_trusted_certs=None,
            x509_trusted_cert_paths=[],
        )
    except (asyncssh.ConfigParseError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: {error}", path="transport.ssh_config", remedy="correct the file"
        ) from None
    through = options.tunnel if isinstance(options.tunnel, str) else ""
    through = "" if through.lower() == "none" else through
    account = options.username or default_user
    return Hop(options.host, options.port, account, host_keys), through


@frozen
class Attempt:
    """One attempt to connect.

    Attributes:
        hops: The hosts to pass.
        config: What the user wrote.
        offer: What each of them is offered.
        on_lost: Called when one of the connections is over.
        reports: Called with the host that is tried now.
    """

    hops: Sequence[Hop]
    config: SSHConfig
    offer: Offer
    on_lost: Callable[[], None]
    reports: Callable[[str], None]

    async def connect(self) -> list[asyncssh.SSHClientConnection]:
        """Connect through all hosts; one connection for each, in their order.

        Raises:
            Passing: It may work in a moment.
            Unreachable, HostKeyError, AuthenticationError: It will not.
        """
        connections: list[asyncssh.SSHClientConnection] = []
        try:
            for number, hop in enumerate(self.hops):
                jump = number < len(self.hops) - 1
                where = f"jump host {hop.where}" if jump else hop.where
                self.reports(where)
                trust = await anyio.to_thread.run_sync(
                    Trust.read, hop.host, hop.port, hop.host_keys, self.config.known_hosts
                )
                greeter = Greeter(where, trust, self.offer, self.on_lost)
                await self._pass(hop, where, trust, greeter, connections)
        except BaseException:
            for connection in reversed(connections):
                connection.abort()
            raise
        return connections

    async def _pass(
        self,
        hop: Hop,
        where: str,
        trust: Trust,
        greeter: Greeter,
        connections: list[asyncssh.SSHClientConnection],
    ) -> None:
        """Connect to one more host, through those before it."""
        options = _options(hop, self.config, trust, greeter)
        tunnel = connections[-1] if connections else None

        async def connected() -> None:
            connection = await asyncssh.connect(
                hop.host, hop.port, tunnel=tunnel, config=None, options=None, **options
            )
            # Kept here: we may be cancelled when it is there and before we hear of it.
            connections.append(connection)
            _spare_empty_packets(connection)

        try:
            await with_grace(connected(), 0)
        except asyncssh.HostKeyNotVerifiable as error:
            raise greeter.host_key_refused(error.reason) from None
        except asyncssh.PermissionDenied as error:
            raise greeter.login_refused(error.reason) from None
        except asyncssh.DisconnectError as error:
            if "authentication failures" in error.reason:
                raise greeter.login_refused(error.reason) from None
            raise _disconnected(where, error) from None
        except asyncssh.ChannelOpenError as error:
            before = self.hops[list(self.hops).index(hop) - 1].where
            raise Passing(
                Unreachable(
                    f"{where}: jump host {before} cannot reach it",
                    remedy="see whether host and port are right, and from there whether it is up",
                    said=error.reason,
                ),
                known=True,
            ) from None
        except OSError as error:
            raise _unreachable(where, error) from None


def _spare_empty_packets(connection: asyncssh.SSHClientConnection) -> None:
    """asyncssh puts an empty packet before each that it sends, against what a cipher in CBC mode shows (RFC 4251, 9.3.1). With any other they
    are half of all packets, for nothing: 10,000 small files to the host take a tenth less without.
    """
    if "cbc" in str(connection.get_extra_info("send_cipher")):
        return
    send = connection.send_packet

    def send_packet(pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        if pkttype != MSG_IGNORE:
            send(pkttype, *args, handler=handler)

    connection.send_packet = send_packet  # type: ignore[method-assign]  # it has no option for it


def _options(hop: Hop, config: SSHConfig, trust: Trust, greeter: Greeter) -> dict[str, Any]:
    """Everything that asyncssh would otherwise look for by itself, in ~/.ssh and in the environment."""
    return {
        "client_factory": lambda: greeter,
        "username": hop.user,
        "password": None,
        # With None, neither the keys in ~/.ssh nor the agent are used: the greeter is asked.
        "client_keys": None,
        "client_certs": [],
        "agent_path": None,
        "agent_forwarding": False,
        "pkcs11_provider": None,
        "gss_host": None,
        "preferred_auth": greeter.methods,
        "known_hosts": trust.argument,
        "server_host_key_algs": trust.algorithms(),
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
        "proxy_command": None,
        "encryption_algs": _CIPHERS,
        "compression_algs": ["none"],
        "login_timeout": config.connect_timeout_s,
        "connect_timeout": None,
        "keepalive_interval": config.keepalive_s / (_KEEPALIVES + 1),
        "keepalive_count_max": _KEEPALIVES,
        "canonicalize_hostname": False,
        "request_pty": False,
        "command": None,
        "env": None,
        "send_env": None,
        "x11_forwarding": False,
        "utf8_decode_errors": "replace",
    }


def _disconnected(where: str, error: asyncssh.DisconnectError) -> InterCEdeError | Passing:
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return Unreachable(
            f"{where}: it and we have no algorithm in common",
            remedy="see what its sshd allows",
            said=error.reason,
        )
    if isinstance(error, (asyncssh.ProtocolNotSupported, asyncssh.ProtocolError)):
        return Unreachable(
            f"{where}: what answers there is no SSH server, or a broken one",
            remedy="see whether the port is right",
            said=error.reason,
        )
    return _closed(where, error.reason)


def _closed(where: str, reason: str) -> Passing:
    lost = Unreachable(
        f"{where}: the connection was closed before we were let in",
        remedy="see whether the port is sshd's, and what its log says: it may have too many connections"
        " (MaxStartups)",
        said=reason,
    )
    return Passing(lost, known=False)


def _unreachable(where: str, error: OSError) -> InterCEdeError | Passing:
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"{where}: its name is not known: {error.strerror}",
            remedy="see whether it is spelt right, and whether names are resolved here",
        )
    if isinstance(error, ConnectionRefusedError):
        refused = Unreachable(
            f"{where}: nobody listens there (connection refused)",
            remedy="see whether host and port are right, and whether sshd runs",
        )
        return Passing(refused, known=True)
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, ConnectionError):
        return _closed(where, reason)
    away = Unreachable(
        f"{where}: it cannot be reached: {reason}",
        remedy="see whether it is up, and whether there is a way to it from here",
    )
    return Passing(away, known=True)
