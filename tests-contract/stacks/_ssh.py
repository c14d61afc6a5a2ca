"""The way in by SSH: keys and passwords made for one start of a stack, and what a client must know to come in.

A stack is one sshd, or several in a row: the first is published on this machine, each other listens on the loopback of the first one's
network, where nobody comes but through it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncssh

from ._container import Container, name_of
from ._manifest import Stack
from ._state import write_private

__all__ = ["HOMES", "announced", "config_for", "containers", "describe"]

#: The accounts of the recipe `ssh` and their homes; one has no key, only a password.
HOMES: Final[Mapping[str, str]] = {
    "plain": "/home/plain",
    "bash": "/home/bash",
    "dash": "/home/dash",
    "csh": "/home/csh",
    "tcsh": "/home/tcsh",
    "space": "/home/a home with spaces",
    "password": "/home/password",
}
_WITHOUT_KEY: Final = "password"
#: Where jump hosts' successors listen: the first jump host's loopback.
_INNER_PORT: Final = 2201
_SETTINGS: Final = """\
{lines}
HostKey /stack/host_key
AuthorizedKeysFile /stack/keys/%u
PermitUserRC yes
UsePAM yes
KbdInteractiveAuthentication no
LogLevel VERBOSE
"""
_SFTP: Final = "Subsystem sftp /usr/lib/openssh/sftp-server\n"


def containers(stack: Stack, folder: Path) -> list[Container]:
    """What to start, in this order; their secrets are made now, and the client's half is written to the folder."""
    key = _key(folder / "key")
    password = secrets.token_urlsafe(18)
    write_private(folder / "password", f"{password}\n")
    found: list[Container] = []
    for number in range(stack.jumps + 1):
        last = number == stack.jumps
        name = name_of(stack, "" if last else f"jump{number + 1}")
        lines = list(stack.sshd) if last else []
        if number:
            lines.append(f"ListenAddress 127.0.0.1:{_INNER_PORT + number - 1}")
        settings = _SETTINGS.format(lines="\n".join(lines)) + _SFTP * (stack.sftp or not last)
        found.append(
            Container(
                name,
                files={
                    "host_key": _host_key(folder, name),
                    "passwords": f"{_WITHOUT_KEY}:{password}\n",
                },
                public={
                    "sshd_config": settings,
                    "prepare": stack.prepare if last else "",
                    **{f"keys/{user}": key for user in HOMES if user != _WITHOUT_KEY},
                },
                publish=None if number else 22,
                options=(
                    *(("--network", f"container:{found[0].name}") if number else ()),
                    *(stack.options if last else ()),
                ),
            )
        )
    return found


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


def places(stack: Stack, port: int) -> Iterator[tuple[str, int]]:
    """The container and the port of each sshd on the way, the stack's own last."""
    for number in range(stack.jumps + 1):
        role = "" if number == stack.jumps else f"jump{number + 1}"
        yield name_of(stack, role), _INNER_PORT + number - 1 if number else port


def config_for(stack: Stack, folder: Path, port: int, account: str) -> dict[str, Any]:
    """The transport's configuration for one account."""
    *jumps, own = (
        {"host": "127.0.0.1", "port": number, "known_hosts": str(folder / "known_hosts")}
        for _, number in places(stack, port)
    )
    config: dict[str, Any] = {"type": "ssh", **own, "user": account, "auth": _auth(account)}
    if jumps:
        config["jump"] = [{**jump, "user": "plain", "auth": "key"} for jump in jumps]
    return config


def _auth(account: str) -> str:
    return "password" if account == _WITHOUT_KEY else "key"


def describe(stack: Stack, folder: Path, port: int) -> None:
    """Write what clients need: known_hosts, and an ssh_config for people."""
    lines = []
    for name, number in places(stack, port):
        public = (folder / f"{name}.pub").read_text().split()[:2]
        lines.append(f"[127.0.0.1]:{number} {' '.join(public)}")
    write_private(folder / "known_hosts", "\n".join(lines) + "\n")
    write_private(folder / "ssh_config", "\n".join(_ssh_config(stack, folder, port)) + "\n")


def _ssh_config(stack: Stack, folder: Path, port: int) -> Sequence[str]:
    lines: list[str] = []
    before = ""
    for name, number in places(stack, port):
        host = name.removeprefix("intercede-")
        lines += [f"Host {host}", "  HostName 127.0.0.1", f"  Port {number}"]
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
