"""Credentials: at most one of a kind, and none of them in a repr."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import frozen

from intercede.core import (
    BearerToken,
    Credential,
    CredentialRequirements,
    CredentialSet,
    Password,
    SSHKey,
    X509Proxy,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRETS: list[Credential] = [
    BearerToken(value="hunter2", expires_at=NOON),
    X509Proxy(pem=b"hunter2"),
    SSHKey(private=b"hunter2", passphrase="hunter2", certificate=b"hunter2"),
    Password(value="hunter2"),
]


def of(kind: Callable[..., Any], *values: Any, **fields: Any) -> Callable[[], Any]:
    """Making one of the kind, out of what the type checker would not let through."""
    return lambda: kind(*values, **fields)


@pytest.mark.parametrize("credential", SECRETS)
def test_no_repr_shows_a_secret(credential: Credential) -> None:
    assert "hunter2" not in f"{credential!r} {CredentialSet([credential])!r}"
    assert pickle.loads(pickle.dumps(credential)) == credential


def test_a_set_gives_the_credential_of_exactly_the_kind() -> None:
    @frozen(kw_only=True)
    class SiteToken(BearerToken):
        pass

    token, password = BearerToken(value="t"), Password(value="p")
    credentials = CredentialSet([password, token])
    assert credentials.get(BearerToken) is token
    assert credentials.get(Password) is password
    assert credentials.get(SiteToken) is None
    assert credentials.get(Credential) is None
    assert repr(credentials) == "CredentialSet(BearerToken, Password)"


def test_two_of_a_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="two credentials of kind Password"):
        CredentialSet([Password(value="a"), Password(value="b")])


def test_a_set_expires_with_the_first_of_them() -> None:
    assert CredentialSet().expires_at is None
    assert CredentialSet([Password(value="a")]).expires_at is None
    later = NOON + timedelta(hours=1)
    pair = [BearerToken(value="a", expires_at=later), X509Proxy(pem=b"b", expires_at=NOON)]
    assert CredentialSet(pair).expires_at == NOON


@pytest.mark.parametrize(
    "make",
    [
        of(BearerToken, value=b"hunter2"),
        of(Password, value=5),
        of(X509Proxy, pem="hunter2"),
        of(SSHKey, private="hunter2"),
        of(SSHKey, private=b"x", passphrase=b"hunter2"),
        of(BearerToken, value="hunter2", expires_at="later"),
        of(CredentialRequirements, "r", BearerToken),
        of(CredentialRequirements, "r", [str]),
        of(CredentialRequirements, "r", ["BearerToken"]),
        lambda: CredentialRequirements("r", [BearerToken], "compute.read"),
    ],
)
def test_the_wrong_type_is_an_error_that_shows_no_secret(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BearerToken(value=""),
        lambda: X509Proxy(pem=b""),
        lambda: BearerToken(value="x", expires_at=datetime(2026, 1, 1)),  # on purpose
        lambda: CredentialRequirements("", [BearerToken]),
    ],
)
def test_an_empty_secret_or_a_moment_without_a_time_zone_is_refused(
    make: Callable[[], Any],
) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


def test_requirements_are_sets() -> None:
    asked = CredentialRequirements("r", [X509Proxy, BearerToken, X509Proxy], ["a", "b"])
    assert asked.kinds == {BearerToken, X509Proxy}
    assert asked.scopes == {"a", "b"}
    assert hash(asked) == hash(CredentialRequirements("r", [BearerToken, X509Proxy], ["b", "a"]))
