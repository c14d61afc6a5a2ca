"""The keys of `ssh`. No secret is among them: keys and passwords come from the credential provider."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal

from attrs import Attribute, field, frozen, validators

from intercede.core.registry import describe

__all__ = ["JumpHost", "SSHConfig"]

#: A public key as known_hosts has it after the names: its kind, base64, and perhaps a comment.
_PUBLIC_KEY: Final = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( .*)?")


def _name(_: object, attribute: Attribute[Any], value: object) -> None:
    """What can be a host or an account: it comes into messages and is compared with known_hosts."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s\0-\x1f\x7f,|]+", value):
        raise ValueError(f"{attribute.name} must be a name without blanks, not {value!r}")


def _public_keys(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"host_keys must be a list, not one string: write [{values!r}]")
    keys = tuple(values)
    for key in keys:
        if not _PUBLIC_KEY.fullmatch(key):
            raise ValueError(f'{key!r} is not a public key, as in "ssh-ed25519 AAAA..."')
    return keys


_PORT: Final = validators.and_(validators.ge(1), validators.le(65535))


@frozen
class JumpHost:
    """A host on the way. Who we are to it is as for the last one."""

    host: str = field(validator=_name)
    user: str | None = field(default=None, validator=validators.optional(_name))
    port: int | None = field(default=None, validator=validators.optional(_PORT))
    host_keys: tuple[str, ...] = field(default=(), converter=_public_keys)


@frozen
class SSHConfig:
    """Which host, who we are to it and how we know it, and how long things may take."""

    host: str = field(
        validator=_name,
        metadata=describe("Name or address; with `ssh_config` an alias of that file's"),
    )
    user: str | None = field(
        default=None,
        validator=validators.optional(_name),
        metadata=describe("Account; default: that of `ssh_config`, else ours here"),
    )
    port: int | None = field(
        default=None,
        validator=validators.optional(_PORT),
        metadata=describe("TCP port; default: that of `ssh_config`, else 22"),
    )
    auth: Literal["key", "password", "agent"] = field(
        default="key",
        validator=validators.in_(("key", "password", "agent")),
        metadata=describe(
            "How to log in; nothing else is tried. Key and password come from the credential provider"
            " (the command's has the files that `credentials` names), the agent is that of SSH_AUTH_SOCK"
        ),
    )
    known_hosts: str = field(
        default="~/.ssh/known_hosts",
        metadata=describe("File of the host keys that are trusted"),
    )
    host_keys: tuple[str, ...] = field(
        default=(),
        converter=_public_keys,
        metadata=describe(
            'The host\'s public keys, as in "ssh-ed25519 AAAA..."; with these `known_hosts` is not'
            " read for it"
        ),
    )
    jump: tuple[JumpHost, ...] = field(
        default=(),
        converter=tuple,
        metadata=describe(
            "Hosts on the way, the nearest first: a list of tables with `host`, and `user`, `port`,"
            " `host_keys` as here"
        ),
    )
    ssh_config: str | None = field(
        default=None,
        metadata=describe(
            "File in the form of ~/.ssh/config. HostName, Port, User and ProxyJump are taken from it,"
            " and nothing else; default: none is read"
        ),
    )
    connect_timeout_s: float = field(
        default=30.0,
        validator=validators.gt(0),
        metadata=describe(
            "How long connecting and logging in may take, all hosts on the way", unit="s"
        ),
    )
    keepalive_s: float = field(
        default=60.0,
        validator=validators.gt(0),
        metadata=describe(
            "How long the host may be silent before the connection counts as lost; it is asked for a"
            " sign of life meanwhile",
            unit="s",
        ),
    )
    idle_timeout_s: float = field(
        default=600.0,
        validator=validators.gt(0),
        metadata=describe("How long a connection is kept that nobody uses", unit="s"),
    )
    max_sessions: int = field(
        default=10,
        validator=validators.ge(1),
        metadata=describe(
            "How many commands run at once over the connection, at most; what the host refuses is"
            " found out and waited for"
        ),
    )
