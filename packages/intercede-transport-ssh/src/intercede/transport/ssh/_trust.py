"""Which keys a host may show. A key that is not known is never accepted, and the error says how to make it known."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs
from attrs import field, frozen

from intercede.core import ConfigurationError, HostKeyError

__all__ = ["Trust"]

_Keys = list[asyncssh.SSHKey]

#: known_hosts names a host alone if this is its port, else "[host]:port".
_SSH_PORT: Final = 22


@frozen
class Trust:
    """What is known of one host.

    Attributes:
        host: As it was asked for.
        port: Likewise.
        path: Of known_hosts; None: the keys are the configuration's.
        known: What that file says.
        pinned: The configuration's keys.
        unreadable: The numbers of the file's lines that cannot be read.
    """

    host: str
    port: int
    path: Path | None
    known: asyncssh.SSHKnownHosts = field(repr=False)
    pinned: _Keys = field(repr=False)
    unreadable: tuple[int, ...] = ()

    @classmethod
    def read(cls, host: str, port: int, host_keys: tuple[str, ...], known_hosts: str) -> Trust:
        """Read what is known of a host. Blocking.

        Raises:
            ConfigurationError: A key of the configuration is none, or the file cannot be read.
        """
        known = asyncssh.SSHKnownHosts()
        if host_keys:
            return cls(host, port, None, known, [_imported(key) for key in host_keys])
        path = Path(known_hosts).expanduser()
        unreadable = []
        for number, line in enumerate(_lines(path), 1):
            try:
                known.load(line)
            except ValueError:  # must not spoil the other lines
                unreadable.append(number)
        return cls(host, port, path, known, [], tuple(unreadable))

    @property
    def argument(self) -> asyncssh.SSHKnownHosts | tuple[_Keys, _Keys, _Keys]:
        """What asyncssh is given. Never None, and never empty: either would mean something else to it."""
        return self.known if self.path else (self.pinned, [], [])

    def algorithms(self) -> list[str]:
        """The algorithms of host keys, those of known keys first, so that a host with several shows one that is known."""
        keys, authorities, _ = self._keys("")
        ordered = [algorithm for key in keys for algorithm in key.sig_algorithms]
        certificates = get_default_certificate_algs()
        ordered = [*certificates, *ordered] if authorities else [*ordered, *certificates]
        every = dict.fromkeys([*ordered, *get_default_public_key_algs()])
        return [algorithm.decode() for algorithm in every]

    def refusal(
        self, where: str, shown: asyncssh.SSHKey | None, address: str, reason: str
    ) -> HostKeyError:
        """The error for a key that is not accepted.

        Args:
            where: The host, for people.
            shown: The key, or the authority that signed it; None if it was refused for another reason.
            address: The host's.
            reason: What asyncssh said.
        """
        if shown is None:
            return HostKeyError(
                f"{where}: its host key is not accepted: {reason}",
                remedy=f"ask its administrator, and see {self._place}",
            )
        line = " ".join(shown.export_public_key().decode().split()[:2])
        fingerprint = f"{shown.get_algorithm()} {shown.get_fingerprint()}"
        pin = f'pin it with host_keys = ["{line}"]'
        if self.path:
            pin += f', or by the line "{self._name} {line}" in {self.path}'
        keys, authorities, _ = self._keys(address)
        if keys or authorities:
            prints = dict.fromkeys(key.get_fingerprint() for key in (*keys, *authorities))
            known = ", ".join(prints)
            return HostKeyError(
                f"{where}: its host key has changed: it shows {fingerprint}, and {self._place}"
                f" has {known}",
                remedy="somebody may be in between; if its administrator confirms the new key,"
                f" remove the old one{self._removal} and {pin}",
            )
        passed = ", ".join(map(str, self.unreadable))
        unreadable = f" (lines that cannot be read: {passed})" if passed else ""
        return HostKeyError(
            f"{where}: its host key {fingerprint} is not in {self._place}{unreadable}",
            remedy=f"if its administrator confirms this fingerprint, {pin}",
        )

    def _keys(self, address: str) -> tuple[_Keys, _Keys, _Keys]:
        if self.path is None:
            return self.pinned, [], []
        port = None if self.port == _SSH_PORT else self.port
        keys, authorities, revoked, *_ = self.known.match(self.host, address, port)
        return list(keys), list(authorities), list(revoked)

    @property
    def _name(self) -> str:
        if self.port == _SSH_PORT:
            return self.host
        return f"[{self.host}]:{self.port}"

    @property
    def _place(self) -> str:
        return str(self.path) if self.path else "host_keys"

    @property
    def _removal(self) -> str:
        return f" (ssh-keygen -R '{self._name}' -f {self.path})" if self.path else ""


def _imported(key: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(key)
    except asyncssh.KeyImportError:
        raise ConfigurationError(
            "not a public key", path="transport.host_keys", value=key
        ) from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", path="transport.known_hosts", remedy="make it readable"
        ) from None
