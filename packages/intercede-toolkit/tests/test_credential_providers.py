"""Providers: credentials that are at hand, and credentials in files that change."""

import base64
import json
import os
import stat
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercede.core import (
    AuthenticationError,
    BearerToken,
    Credential,
    CredentialProvider,
    CredentialRequirements,
    Password,
    SSHKey,
    X509Proxy,
)
from intercede.toolkit import FileCredentials, StaticCredentials, _credentials

#: Other work on the machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PROXY = (
    b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
    b"-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n"
)
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n-----END OPENSSH PRIVATE KEY-----\n"


def needs(*kinds: type[Credential]) -> CredentialRequirements:
    return CredentialRequirements("site", frozenset(kinds))


def jwt(claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


def write(path: Path, contents: bytes, mode: int = 0o600) -> Path:
    new = path.with_suffix(".new")
    new.write_bytes(contents)
    new.chmod(mode)
    new.rename(path)
    return path


def test_both_are_credential_providers() -> None:
    assert isinstance(StaticCredentials(), CredentialProvider)
    assert isinstance(FileCredentials({}), CredentialProvider)


# ------------------------------------------------------------ StaticCredentials


async def test_exactly_the_kinds_that_are_required_are_handed_out() -> None:
    token, password = BearerToken(value="t"), Password(value="p")
    async with StaticCredentials(token, password) as provider:
        both = await provider.get(needs(BearerToken, Password))
        one = await provider.get(needs(Password))

    assert both.get(BearerToken) == token
    assert both.get(Password) == password
    assert one.get(BearerToken) is None


async def test_a_kind_that_was_not_given_is_named_with_the_remedy() -> None:
    with pytest.raises(AuthenticationError) as refused:
        await StaticCredentials(Password(value="p")).get(needs(SSHKey, Password))

    assert str(refused.value) == (
        "site: credentials: it needs credentials of the kind SSHKey, and there are none;"
        " give StaticCredentials one SSHKey"
    )


async def test_a_credential_that_has_expired_is_not_handed_out() -> None:
    token = BearerToken(value="s3cr3t", expires_at=NOW)

    provider = StaticCredentials(token, clock=lambda: NOW - timedelta(seconds=1))
    assert (await provider.get(needs(BearerToken))).get(BearerToken) == token

    provider = StaticCredentials(token, clock=lambda: NOW)
    with pytest.raises(AuthenticationError, match="expired at 2030-01-01 00:00:00 UTC") as refused:
        await provider.get(needs(BearerToken))
    assert "s3cr3t" not in str(refused.value)


def test_two_credentials_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="Password"):
        StaticCredentials(Password(value="a"), Password(value="b"))


# ------------------------------------------------------------ FileCredentials


async def test_each_kind_is_read_from_its_file(tmp_path: Path) -> None:
    files: dict[type[Credential], Path] = {
        BearerToken: write(tmp_path / "token", b" abc.def\n"),
        X509Proxy: write(tmp_path / "proxy", PROXY, 0o400),
        SSHKey: write(tmp_path / "key", KEY),
        Password: write(tmp_path / "password", "pä ss\n".encode()),
    }
    async with FileCredentials(files) as provider:
        found = await provider.get(needs(*files))

    assert found.get(BearerToken) == BearerToken(value="abc.def")
    assert found.get(X509Proxy) == X509Proxy(pem=PROXY)
    assert found.get(SSHKey) == SSHKey(private=KEY)
    assert found.get(Password) == Password(value="pä ss")


async def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "password", b"p")

    found = await FileCredentials({Password: "~/password"}).get(needs(Password))

    assert found.get(Password) == Password(value="p")


async def test_a_kind_without_a_file_is_named_with_the_remedy() -> None:
    with pytest.raises(AuthenticationError, match=r"site: .* BearerToken.*; give FileCredentials"):
        await FileCredentials({}).get(needs(BearerToken))


@pytest.mark.parametrize(
    "how", ["rename", "in place", "in place, times set back", "through a link"]
)
async def test_a_file_that_has_changed_is_read_again(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / "password", b"first")
    if how == "through a link":
        path = tmp_path / "link"
        path.symlink_to("password")
    provider = FileCredentials({Password: path})
    assert (await provider.get(needs(Password))).get(Password) == Password(value="first")

    # Of the same length, at once: neither size nor the tick of a clock gives it away.
    if how == "rename":
        write(path, b"other")
    elif how == "through a link":
        write(tmp_path / "second", b"other")
        path.unlink()
        path.symlink_to("second")
    else:
        before = path.stat()
        path.write_bytes(b"other")
        if how == "in place, times set back":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (await provider.get(needs(Password))).get(Password) == Password(value="other")


async def test_a_file_that_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "password", b"p")
    later = time.time_ns() + 3 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    parsed: list[bytes] = []

    def parse(contents: bytes) -> Password:
        parsed.append(contents)
        return Password(value=contents.decode())

    provider = FileCredentials({Password: path}, parsers={Password: parse})
    for _ in range(3):
        await provider.get(needs(Password))
    assert parsed == [b"p"]

    path.chmod(0o644)
    with pytest.raises(AuthenticationError, match="chmod 600"):
        await provider.get(needs(Password))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o610, 0o602])
async def test_a_file_that_is_open_to_others_is_refused_with_the_command_that_closes_it(
    tmp_path: Path, mode: int
) -> None:
    path = write(tmp_path / "token", b"s3cr3t", mode)

    with pytest.raises(AuthenticationError) as refused:
        await FileCredentials({BearerToken: path}).get(needs(BearerToken))

    assert str(refused.value) == (
        f"site: credentials: BearerToken from {path}: it is open to others (mode {mode:04o}); "
        f"chmod 600 {path}"
    )


async def test_a_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "token", b"s3cr3t")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(AuthenticationError, match=rf"{path}: it belongs to user .*chmod 600"):
        await FileCredentials({BearerToken: path}).get(needs(BearerToken))


async def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    (tmp_path / "loop").symlink_to("loop")

    for name, reason in (
        ("fifo", "not a regular file"),
        ("directory", "not a regular file"),
        ("loop", "symbolic links"),
        ("absent", "No such file"),
    ):
        with anyio.fail_after(5), pytest.raises(AuthenticationError, match=f"{name}: .*{reason}"):
            await FileCredentials({BearerToken: tmp_path / name}).get(needs(BearerToken))


async def test_a_huge_file_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "token", b"")
    os.truncate(path, 2**40)

    with pytest.raises(AuthenticationError, match="more than 1048576 bytes"):
        await FileCredentials({BearerToken: path}).get(needs(BearerToken))


@pytest.mark.parametrize(
    ("kind", "contents"),
    [
        (BearerToken, b""),
        (BearerToken, b" \n"),
        (BearerToken, b"s3cr3t s3cr3t"),
        (BearerToken, b"s3cr3t\nHost: evil"),
        (BearerToken, b"s3cr3t\0"),
        (BearerToken, "s3cr3té".encode()),
        (X509Proxy, b"s3cr3t"),
        (X509Proxy, PROXY[:60] + b"s3cr3t"),
        (X509Proxy, KEY + b"s3cr3t"),
        (SSHKey, b"ssh-ed25519 s3cr3t"),
        (Password, b""),
        (Password, b"\n"),
        (Password, b"s3cr3t\nmore"),
        (Password, b"s3cr3t\0"),
        (Password, b"s3cr3t\xff"),
    ],
)
async def test_contents_of_another_kind_are_refused_without_repeating_them(
    tmp_path: Path, kind: type[Credential], contents: bytes
) -> None:
    path = write(tmp_path / "file", contents)

    with pytest.raises(AuthenticationError, match=f"{kind.__name__} from {path}: ") as refused:
        await FileCredentials({kind: path}).get(needs(kind))

    error: BaseException | None = refused.value
    while error is not None:
        assert "s3cr3t" not in repr(error)
        assert "s3cr3t" not in repr(vars(error))
        assert error.__suppress_context__ or error.__context__ is None
        error = error.__cause__


async def test_a_parser_that_quotes_the_contents_does_not_leak_them(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"s3cr3t")

    def parse(contents: bytes) -> Password:
        return Password(value=str(int(contents)))

    with pytest.raises(AuthenticationError, match=r"invalid literal.*\[secret\]") as refused:
        await FileCredentials({Password: path}, parsers={Password: parse}).get(needs(Password))
    assert "s3cr3t" not in str(refused.value)


async def test_a_parser_may_tell_when_a_proxy_expires(tmp_path: Path) -> None:
    path = write(tmp_path / "proxy", PROXY)

    def parse(contents: bytes) -> X509Proxy:
        return X509Proxy(pem=contents, expires_at=NOW)

    before = FileCredentials(
        {X509Proxy: path}, parsers={X509Proxy: parse}, clock=lambda: NOW - timedelta(seconds=1)
    )
    assert (await before.get(needs(X509Proxy))).expires_at == NOW

    after = FileCredentials({X509Proxy: path}, parsers={X509Proxy: parse}, clock=lambda: NOW)
    with pytest.raises(AuthenticationError, match=f"expired at .*; renew {path}"):
        await after.get(needs(X509Proxy))


@frozen(kw_only=True)
class Ticket(Credential):
    cache: bytes = field(repr=False)


async def test_a_plugins_own_kind_needs_a_parser_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "ticket", b"t")

    with pytest.raises(ValueError, match="no parser for Ticket"):
        FileCredentials({Ticket: path})

    provider = FileCredentials({Ticket: path}, parsers={Ticket: lambda data: Ticket(cache=data)})
    assert (await provider.get(needs(Ticket))).get(Ticket) == Ticket(cache=b"t")

    wrong = FileCredentials({Ticket: path}, parsers={Ticket: lambda _: Password(value="p")})
    with pytest.raises(AuthenticationError, match="its parser made a Password"):
        await wrong.get(needs(Ticket))


async def test_a_file_that_changes_all_the_time_is_an_error_and_not_half_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "password", b"p" * 100)
    real = os.read

    def changing(descriptor: int, length: int) -> bytes:
        data = real(descriptor, length)
        if data:
            os.truncate(path, len(data) - 1)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", changing)
        with pytest.raises(AuthenticationError, match="changes while it is read"):
            await FileCredentials({Password: path}).get(needs(Password))


async def test_a_file_system_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "password", b"p")
    real = os.open

    def hanging(name: object, flags: int) -> int:
        time.sleep(0.5)
        return real(path, flags)

    monkeypatch.setattr(_credentials, "_READ_TIMEOUT_S", 0.05)
    monkeypatch.setattr(os, "open", hanging)
    with pytest.raises(AuthenticationError, match=r"not be read within 0\.05 s"):
        await FileCredentials({Password: path}).get(needs(Password))


# ------------------------------------------------------------ tokens


async def expiry_of(path: Path, token: str) -> datetime | None:
    write(path, token.encode())
    provider = FileCredentials({BearerToken: path}, clock=lambda: datetime.min.replace(tzinfo=UTC))
    found = (await provider.get(needs(BearerToken))).get(BearerToken)
    assert found is not None
    assert found.value == token
    return found.expires_at


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": int(NOW.timestamp())}, NOW),
        ({"exp": NOW.timestamp() + 0.5}, NOW + timedelta(seconds=0.5)),
        ({}, None),
        ({"exp": None}, None),
        ({"exp": "1893456000"}, None),
        ({"exp": True}, None),
        ({"exp": 1e300}, None),
        ({"exp": 10**400}, None),
        ({"exp": float("nan")}, None),
        ({"exp": float("inf")}, None),
        ([1893456000], None),
        ("exp", None),
    ],
)
async def test_a_json_web_token_expires_when_it_says(
    tmp_path: Path, claims: object, expected: datetime | None
) -> None:
    assert await expiry_of(tmp_path / "token", jwt(claims)) == expected


@pytest.mark.parametrize(
    "token",
    ["opaque", "a.b", "a.b.c", "a.b.c.d", "..", "a.W10.c", "a.!!.c", "a." + "W1tb" * 20000 + ".c"],
)
async def test_any_other_token_never_expires(tmp_path: Path, token: str) -> None:
    assert await expiry_of(tmp_path / "token", token) is None


@unhurried
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_no_token_breaks_the_search_for_its_end(token: str) -> None:
    moment = _credentials._token_expiry(token)
    assert moment is None or moment.tzinfo is UTC


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.just("exp") | st.text(max_size=3), inner, max_size=3),
    )
)
def test_no_claims_break_the_search_for_the_end(claims: object) -> None:
    moment = _credentials._token_expiry(jwt(claims))
    assert moment is None or (isinstance(claims, Mapping) and "exp" in claims)


async def test_an_expired_token_names_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "token", jwt({"exp": 1}).encode())

    with pytest.raises(AuthenticationError, match=f"BearerToken expired at 1970.*; renew {path}"):
        await FileCredentials({BearerToken: path}).get(needs(BearerToken))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
