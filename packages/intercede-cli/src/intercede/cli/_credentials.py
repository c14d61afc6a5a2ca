"""A resource's table `credentials`: which file holds which credential.

It names files, never secrets. Whoever mistakes the one for the other has written a secret there, so no message repeats a value that is no path.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from intercede.core import (
    AuthenticationError,
    BearerToken,
    ConfigurationError,
    Credential,
    CredentialRequirements,
    CredentialSet,
    Password,
    SSHKey,
    X509Proxy,
)
from intercede.toolkit import FileCredentials

__all__ = ["KINDS", "NamedFiles", "files_of"]

#: The keys of the table: every kind that `FileCredentials` can read.
KINDS: Final[Mapping[str, type[Credential]]] = {
    "bearer_token": BearerToken,
    "password": Password,
    "ssh_key": SSHKey,
    "x509_proxy": X509Proxy,
}
_KEYS: Final[Mapping[type[Credential], str]] = {kind: key for key, kind in KINDS.items()}

_AN_AGENT: Final = 'load the key into an agent (ssh-add) and set auth = "agent" in its transport'

#: How an OpenSSH private key begins that is not encrypted: its magic, and the name of its cipher (openssh-portable, PROTOCOL.key).
_OPEN_KEY: Final = b"openssh-key-v1\0\0\0\0\x04none"
_OPENSSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
#: PKCS#8 and the older PEM say in words that they are encrypted.
_ENCRYPTED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


def files_of(table: object) -> dict[type[Credential], Path]:
    """The files that a table `credentials` names, by what they hold. None is looked at.

    Raises:
        ConfigurationError: It is no such table, a key is not known, or a value is no path.
    """
    if not isinstance(table, dict):
        raise ConfigurationError(
            "expected a table of files",
            path="credentials",
            remedy='as in credentials = { ssh_key = "~/.ssh/id_ed25519" }',
        )
    return {_kind(key): _file(key, value) for key, value in table.items()}


def _kind(key: str) -> type[Credential]:
    if key in KINDS:
        return KINDS[key]
    near = difflib.get_close_matches(key, KINDS, n=1)
    raise ConfigurationError(
        "no such key",
        path=f"credentials.{key}",
        candidates=near or tuple(KINDS),
        remedy=f"did you mean {near[0]!r}?" if near else "",
    )


def _file(key: str, value: object) -> Path:
    """The file's path. One that is relative would depend on where the command is called, unlike the file it stands in."""
    if isinstance(value, str) and "\0" not in value:
        try:
            path = Path(value).expanduser()
        except RuntimeError:  # there is no such user, or nobody's home is known
            path = Path()
        if path.is_absolute():
            return path
    raise ConfigurationError(
        "expected the path of a file, absolute or in a home directory",
        path=f"credentials.{key}",
        remedy=f'put the {KINDS[key].__name__} into a file, and name it, as in {key} = "~/FILE"',
    )


class NamedFiles:
    """Gives what is in the files; what it cannot give it says in terms of the configuration.

    Args:
        files: By what they hold.
        resource: The resource's name.
        origin: The name of the configuration file.
    """

    def __init__(self, files: Mapping[type[Credential], Path], resource: str, origin: str) -> None:
        self._paths = dict(files)
        self._files = FileCredentials(files)
        self._table = f"resources.{resource}.credentials"
        self._origin = origin

    async def __aenter__(self) -> Self:
        await self._files.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._files.__aexit__(*exc)

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """The credentials required, as their files are now.

        Raises:
            AuthenticationError: No file is named for one of them, or it is of no use; names the key of the configuration.
        """
        found = []
        for kind in sorted(requirements.kinds, key=lambda kind: kind.__name__):
            if kind not in self._paths:
                raise _unusable(
                    f"it needs credentials of the kind {kind.__name__}, and there are none",
                    self._how_to_give(kind),
                    requirements,
                )
            found.append(await self._read(kind, requirements))
        return CredentialSet(found)

    async def _read(
        self, kind: type[Credential], requirements: CredentialRequirements
    ) -> Credential:
        one = CredentialRequirements(requirements.resource, {kind}, requirements.scopes)
        place = f"{self._table}.{_KEYS[kind]} in {self._origin}"
        try:
            credential = (await self._files.get(one)).get(kind)
        except AuthenticationError as error:
            error.remedy = f"{error.remedy}, or correct {place}"
            raise
        assert credential is not None  # that is what it promises
        if isinstance(credential, SSHKey) and _is_encrypted(credential.private):
            raise _unusable(
                f"SSHKey from {self._paths[kind]}: it needs a passphrase, and none can be given",
                f"{_AN_AGENT}, or name a key without one: {place}",
                requirements,
            )
        return credential

    def _how_to_give(self, kind: type[Credential]) -> str:
        key = _KEYS.get(kind)
        if key is None:
            return f"only a program can give it; the command gives {', '.join(KINDS)}"
        remedy = f"set {self._table}.{key} in {self._origin} to its file"
        return f"{remedy}; or {_AN_AGENT}" if kind is SSHKey else remedy


def _unusable(
    reason: str, remedy: str, requirements: CredentialRequirements
) -> AuthenticationError:
    return AuthenticationError(
        reason, resource=requirements.resource, operation="credentials", remedy=remedy
    )


def _is_encrypted(private: bytes) -> bool:
    """Whether a private key cannot be used without a passphrase. What is no key at all is not said to be."""
    if any(sign in private for sign in _ENCRYPTED):
        return True
    _, begin, body = private.partition(_OPENSSH)
    # 32 characters of base64 hold 24 bytes, one more than there are to compare.
    head = b"".join(body.split())[:32]
    try:
        opening = base64.b64decode(head, validate=True)
    except ValueError:
        return False
    magic = _OPEN_KEY[:15]
    return bool(begin) and opening.startswith(magic) and not opening.startswith(_OPEN_KEY)
