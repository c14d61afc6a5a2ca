"""The way in by SSH: keys and passwords made for one start of a stack, and what a client must know to come in.

A stack is one sshd, or several in a row: the first is published on this machine, each other listens on the loopback of the first one's
network, where nobody comes but through it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncssh

from intercede.contract import Relay
from intercede.core import CredentialProvider, Password, SSHKey
from intercede.toolkit import FileCredentials

from ._container import Container, name_of
from ._manifest import Stack
from ._state import write_private

__all__ = ["announced", "config", "containers", "credentials", "describe", "server", "through"]

#: The account that takes a password and no key.
_WITHOUT_KEY: Final = "password"
#: Where jump hosts' successors listen: the first jump host's loopback.
_INNER_PORT: Final = 2201
_SETTINGS: Final = """\
{lines}
HostKey /stack/host_key
AuthorizedKeysFile /stack/authorized_keys
PermitUserRC yes
UsePAM yes
KbdInteractiveAuthentication no
LogLevel VERBOSE
{sftp}
Match User {without_key}
PubkeyAuthentication no
"""
#: Whether somebody listens, as bash can tell.
_LISTENING: Final = "bash -c ': < /dev/tcp/127.0.0.1/{port}'"
_SFTP: Final = "Subsystem sftp /usr/lib/openssh/sftp-server"


def containers(stack: Stack, folder: Path) -> list[Container]:
    """What to start, in this order; their secrets are made now, and the client's half is written to the folder."""
    key = _key(folder / "key")
    password = secrets.token_urlsafe(18)
    write_private(folder / "password", f"{password}\n")
    found: list[Container] = []
    for number, (name, port) in enumerate(_daemons(stack)):
        own = name == name_of(stack)
        lines = list(stack.sshd) if own else []
        if number:
            lines.append(f"ListenAddress 127.0.0.1:{port}")
        ready = [_LISTENING.format(port=port)] if number else []
        if own and stack.ready:
            ready.append(stack.ready)
        settings = _SETTINGS.format(
            lines="\n".join(lines),
            sftp=_SFTP if stack.sftp or not own else "",
            without_key=_WITHOUT_KEY,
        )
        found.append(
            Container(
                name,
                files={
                    "host_key": _host_key(folder, name),
                    "passwords": f"{_WITHOUT_KEY}:{password}\n",
                },
                public={
                    "sshd_config": settings,
                    "prepare": stack.prepare if own else "",
                    "authorized_keys": key,
                },
                publish=None if number else port,
                ready=" && ".join(ready),
                options=("--network", f"container:{found[0].name}") if number else (),
            )
        )
    return found


def _daemons(stack: Stack) -> Iterator[tuple[str, int]]:
    """The containers, the stack's own last, and where each sshd listens in the network that they share."""
    for number in range(stack.jumps):
        yield name_of(stack, f"jump{number + 1}"), _INNER_PORT + number - 1 if number else 22
    yield name_of(stack), _INNER_PORT + stack.jumps - 1 if stack.jumps else 22


def _key(path: Path) -> str:
    """Make a user's key; return the public half."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="intercede-stacks")
    write_private(path, key.export_private_key().decode())
    return key.export_public_key().decode()


def _host_key(folder: Path, name: str) -> str:
    """Make a host's key; return the private half, and keep the public one."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=name)
    write_private(folder / f"{name}.pub", key.export_public_key().decode())
    return key.export_private_key().decode()


# ---------------------------------------------------------------- the client


def announced(port: int, timeout_s: float = 5.0) -> str:
    """What the daemon at this port of our machine says it is; OSError while there is none.

    The key exchange must begin as well: a published port takes connections before the daemon listens.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(b"SSH-2.0-intercede-stacks\r\n")
        said = b""
        while b"\n" not in said or len(said.partition(b"\n")[2]) < 6:
            more = connection.recv(4096)
            if not more:
                raise ConnectionError(f"port {port} was closed after {said!r}")
            said += more
    return said.partition(b"\n")[0].strip().decode(errors="replace")


def config(stack: Stack, folder: Path, port: int, account: str) -> dict[str, Any]:
    """The transport's configuration for one account."""
    *jumps, own = (
        {"host": "127.0.0.1", "port": at, "host_keys": [_public_key(folder, name)]}
        for name, at in _reached(stack, port)
    )
    auth = "password" if account == _WITHOUT_KEY else "key"
    told: dict[str, Any] = {"type": "ssh", **own, "user": account, "auth": auth}
    if jumps:
        told["jump"] = [{**jump, "user": "plain"} for jump in jumps]
    return told


def credentials(folder: Path) -> Callable[[], CredentialProvider]:
    """Makes a provider of what this start of the stack takes."""
    return partial(FileCredentials, {SSHKey: folder / "key", Password: folder / "password"})


def server(told: Mapping[str, Any]) -> tuple[str, int]:
    """Where a client with this configuration goes first."""
    first = told["jump"][0] if "jump" in told else told
    return first["host"], first["port"]


def through(told: Mapping[str, Any], relay: Relay) -> Mapping[str, Any]:
    """The configuration of a client that goes there by a relay."""
    at = {"host": relay.host, "port": relay.port}
    if "jump" not in told:
        return {**told, **at}
    first, *others = told["jump"]
    return {**told, "jump": [{**first, **at}, *others]}


def _reached(stack: Stack, port: int) -> Iterator[tuple[str, int]]:
    """The containers, and where a client reaches each sshd: the first on this machine, each other from the one before."""
    for number, (name, inner) in enumerate(_daemons(stack)):
        yield name, inner if number else port


def _public_key(folder: Path, name: str) -> str:
    return " ".join((folder / f"{name}.pub").read_text().split()[:2])


def describe(stack: Stack, folder: Path, port: int) -> None:
    """Write what clients need: known_hosts, and an ssh_config for people."""
    lines = []
    for name, at in _reached(stack, port):
        lines.append(f"[127.0.0.1]:{at} {_public_key(folder, name)}")
    write_private(folder / "known_hosts", "\n".join(lines) + "\n")
    write_private(folder / "ssh_config", "\n".join(_ssh_config(stack, folder, port)) + "\n")


def _ssh_config(stack: Stack, folder: Path, port: int) -> Sequence[str]:
    lines: list[str] = []
    before = ""
    for name, at in _reached(stack, port):
        host = name.removeprefix("intercede-")
        lines += [f"Host {host}", "  HostName 127.0.0.1", f"  Port {at}"]
        lines += [f"  ProxyJump {before}"] if before else []
        before = f"plain@{host}"
    return [
        *lines,
        "Host *",
        f"  User {stack.account}",
        f"  IdentityFile {folder / 'key'}",
        f"  UserKnownHostsFile {folder / 'known_hosts'}",
        "  GlobalKnownHostsFile none",
        "  StrictHostKeyChecking yes",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
    ]
