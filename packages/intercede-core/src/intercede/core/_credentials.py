"""Who we are to a resource.

The consumer makes, opens and closes a provider; a backend asks it for what it needs and never closes it. Configuration holds no secret,
and nothing here shows one in its `repr`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol, Self, TypeVar, runtime_checkable

from attrs import field, frozen

from ._fields import instance, many, optional
from ._jobs import as_optional_utc

__all__ = [
    "BearerToken",
    "Credential",
    "CredentialProvider",
    "CredentialRequirements",
    "CredentialSet",
    "Password",
    "SSHKey",
    "X509Proxy",
]

K = TypeVar("K", bound="Credential")


@frozen(kw_only=True)
class Credential:
    """Something that proves who we are. A plugin may derive kinds of its own.

    Attributes:
        expires_at: UTC; None: never stale.
    """

    expires_at: datetime | None = field(default=None, converter=as_optional_utc)


@frozen(kw_only=True)
class BearerToken(Credential):
    """A token to present as it is (RFC 6750).

    Attributes:
        value: The token.
    """

    value: str = field(repr=False, validator=instance(str, empty=False))


@frozen(kw_only=True)
class X509Proxy(Credential):
    """An RFC 3820 proxy or another X.509 certificate with its key.

    Attributes:
        pem: Certificate, key and chain, in the order of a proxy file.
    """

    pem: bytes = field(repr=False, validator=instance(bytes, empty=False))


@frozen(kw_only=True)
class SSHKey(Credential):
    """A private key for SSH.

    Attributes:
        private: The key in OpenSSH or PEM form.
        passphrase: What the key is encrypted with; None: it is not.
        certificate: An OpenSSH user certificate; None: there is none.
    """

    private: bytes = field(repr=False, validator=instance(bytes, empty=False))
    passphrase: str | None = field(default=None, repr=False, validator=optional(instance(str)))
    certificate: bytes | None = field(
        default=None, repr=False, validator=optional(instance(bytes, empty=False))
    )


@frozen(kw_only=True)
class Password(Credential):
    """A password.

    Attributes:
        value: The password.
    """

    value: str = field(repr=False, validator=instance(str, empty=False))


def _kinds(values: Iterable[type[Credential]]) -> frozenset[type[Credential]]:
    kinds: tuple[type, ...] = many(type, values, "kinds")
    strangers = [kind.__name__ for kind in kinds if not issubclass(kind, Credential)]
    if strangers:
        raise TypeError(f"kinds must hold classes of credentials, not {strangers[0]}")
    return frozenset(kinds)


def _scopes(values: Iterable[str]) -> frozenset[str]:
    return frozenset(many(str, values, "scopes"))


@frozen
class CredentialRequirements:
    """What a backend needs, all of it together.

    Attributes:
        resource: Who is asking; for a token, the audience as this resource expects it.
        kinds: The classes of credentials.
        scopes: For a token.
    """

    resource: str = field(validator=instance(str, empty=False))
    kinds: frozenset[type[Credential]] = field(converter=_kinds)
    scopes: frozenset[str] = field(default=frozenset(), converter=_scopes)


class CredentialSet:
    """Credentials, at most one of each kind.

    Args:
        credentials: In any order.

    Raises:
        ValueError: Two are of the same kind.
    """

    __slots__ = ("_by_kind",)

    def __init__(self, credentials: Iterable[Credential] = ()) -> None:
        self._by_kind: dict[type[Credential], Credential] = {}
        for credential in credentials:
            if type(credential) in self._by_kind:
                raise ValueError(f"two credentials of kind {type(credential).__name__}")
            self._by_kind[type(credential)] = credential

    def get(self, kind: type[K]) -> K | None:
        """The credential of exactly this kind; None if there is none."""
        credential = self._by_kind.get(kind)
        return credential if isinstance(credential, kind) else None

    @property
    def expires_at(self) -> datetime | None:
        """When the first of them expires; None if none does."""
        moments = [c.expires_at for c in self._by_kind.values() if c.expires_at is not None]
        return min(moments, default=None)

    def __repr__(self) -> str:
        return f"CredentialSet({', '.join(sorted(k.__name__ for k in self._by_kind))})"


@runtime_checkable
class CredentialProvider(Protocol):
    """Where credentials come from. Made, opened and closed by the consumer; never closed by a backend."""

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        """The credentials required, fresh enough to be used now.

        Raises:
            AuthenticationError: One of the kinds cannot be had; names the kind and the remedy.
        """
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
