"""What keeps a submit from a host, through the registry as everybody uses it: one clear error each, that says what to do, and no secret.

The transport's own tests look closer at each of them.
"""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from intercede.backend.batch import BatchBackend
from intercede.core import (
    AuthenticationError,
    CredentialProvider,
    FileRef,
    HostKeyError,
    InterCEdeError,
    Password,
    ResourceError,
    SSHKey,
    SubmissionSpec,
    TransportError,
    Unreachable,
    registry,
)
from intercede.toolkit import FileCredentials, StaticCredentials
from stacks.sshd import Sshd, free_port

PASSWORD: Final = "sesame-sesame"
PASSPHRASE: Final = "horse-battery"


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd(["PasswordAuthentication yes"]) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def other() -> Iterator[Sshd]:
    """A host that does not know us, and that we do not know."""
    with Sshd() as sshd:
        yield sshd


@pytest.fixture
def secrets(sshd: Sshd, other: Sshd) -> list[str]:
    """What no error may repeat: a line of each private key is enough to know it by."""
    keys = [folder / "user_key" for folder in (sshd.folder, other.folder)]
    return [PASSWORD, PASSPHRASE, *(path.read_text().splitlines()[2] for path in keys)]


async def refusal(
    sshd: Sshd,
    provider: CredentialProvider | None,
    ssh: Mapping[str, object],
    root: Path | str = "",
) -> InterCEdeError:
    """The error of a submit."""
    config: dict[str, Any] = {
        "name": "site",
        "transport": {**sshd.config, **ssh},
        "scheduler": "direct",
        "root": str(root),
    }
    spec = SubmissionSpec("true", resident=True, inputs=[FileRef("data", content=bytes(2**22))])
    async with registry.backend(config, provider) as ce:
        assert isinstance(ce, BatchBackend)
        with pytest.raises(InterCEdeError) as caught:
            await ce.submit(spec)
    return caught.value


def check(
    error: InterCEdeError, kind: type[InterCEdeError], words: str, secrets: list[str]
) -> None:
    """It is of its kind, says where, what and what to do, in one line and at the end of a short traceback, and nothing secret."""
    assert type(error) is kind
    assert words in str(error)
    assert str(error).startswith("site: submit: ")
    assert error.message
    assert error.remedy
    assert "\n" not in error.message + error.remedy
    if isinstance(error, TransportError):
        assert not error.may_have_run
    shown = "".join(traceback.format_exception(error))
    assert "During handling of" not in shown
    everything = shown + repr(error) + repr(vars(error))
    assert not [secret for secret in secrets if secret in everything]


@asynccontextmanager
async def agent(folder: Path) -> AsyncIterator[Path]:
    """An SSH agent without keys."""
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
        yield path
    finally:
        process.kill()
        process.wait()


#: By the name of the test: what the transport is told besides, the kind of error, and what it says.
HOSTS: Final[
    dict[str, tuple[Callable[[Sshd, Sshd], dict[str, object]], type[InterCEdeError], str]]
] = {
    "wrong host": (
        lambda sshd, other: {"host": "no-such-host.invalid"},
        Unreachable,
        "its name is not known",
    ),
    "wrong port": (
        lambda sshd, other: {"port": free_port()},
        Unreachable,
        "nobody listens there (connection refused); see whether host and port are right",
    ),
    "unknown host key": (
        lambda sshd, other: {"known_hosts": "/no/such/file"},
        HostKeyError,
        'if its administrator confirms this fingerprint, pin it with host_keys = ["ssh-ed25519 ',
    ),
    "changed host key": (
        lambda sshd, other: {"host_keys": [other.host_key]},
        HostKeyError,
        "its host key has changed",
    ),
    "jump host down": (
        lambda sshd, other: {"jump": [{"host": "127.0.0.1", "port": free_port()}]},
        Unreachable,
        "submit: jump host ",
    ),
    "jump host unknown": (
        lambda sshd, other: {"jump": [{"host": "127.0.0.1", "port": other.port}]},
        HostKeyError,
        "submit: jump host ",
    ),
    "jump host that refuses the key": (
        lambda sshd, other: {
            "jump": [{"host": "127.0.0.1", "port": other.port, "host_keys": [other.host_key]}]
        },
        AuthenticationError,
        "submit: jump host ",
    ),
}


@pytest.mark.parametrize("case", HOSTS)
async def test_a_host_that_is_not_reached_or_not_known_is_one_clear_error(
    case: str, sshd: Sshd, other: Sshd, secrets: list[str]
) -> None:
    told, kind, words = HOSTS[case]
    check(await refusal(sshd, sshd.credentials(), told(sshd, other)), kind, words, secrets)


#: By the name of the test: what the provider has, how we log in, and what is said.
LOGINS: Final[dict[str, tuple[Callable[[Sshd, Sshd], CredentialProvider | None], str, str]]] = {
    "refused key": (
        lambda sshd, other: other.credentials(),
        "key",
        "see that the public key is in ~/.ssh/authorized_keys of that account",
    ),
    "wrong password": (
        lambda sshd, other: StaticCredentials(Password(value=PASSWORD)),
        "password",
        "the password was refused; see that account and password are right",
    ),
    "key absent from the provider": (
        lambda sshd, other: StaticCredentials(),
        "key",
        "it needs credentials of the kind SSHKey, and there are none; give StaticCredentials one",
    ),
    "key's file absent": (
        lambda sshd, other: FileCredentials({SSHKey: "/no/such/key"}),
        "key",
        "SSHKey from /no/such/key: No such file or directory; put a file there",
    ),
    "no provider": (
        lambda sshd, other: None,
        "key",
        "pass a credential provider to the registry",
    ),
    "key without its passphrase": (
        lambda sshd, other: StaticCredentials(
            SSHKey(private=sshd.make_key("locked", passphrase=PASSPHRASE).read_bytes())
        ),
        "key",
        "it needs a passphrase; give it with the key",
    ),
}


@pytest.mark.parametrize("case", LOGINS)
async def test_a_login_that_is_refused_is_one_clear_error(
    case: str, sshd: Sshd, other: Sshd, secrets: list[str]
) -> None:
    provider, auth, words = LOGINS[case]
    error = await refusal(sshd, provider(sshd, other), {"auth": auth})
    check(error, AuthenticationError, words, secrets)
    assert isinstance(error, AuthenticationError)
    assert error.refused == (case in ("refused key", "wrong password"))


async def test_a_host_that_takes_no_passwords_says_what_it_may_be_offered(
    other: Sshd, secrets: list[str]
) -> None:
    provider = StaticCredentials(Password(value=PASSWORD))
    error = await refusal(other, provider, {"auth": "password"})
    check(error, AuthenticationError, 'it takes no password; set auth to "key"', secrets)


async def test_an_agent_without_keys_is_one_clear_error(
    sshd: Sshd, secrets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        error = await refusal(sshd, None, {"auth": "agent"})
    check(error, AuthenticationError, "has no keys; give it one (ssh-add)", secrets)


async def test_a_full_disk_at_the_host_is_one_clear_error_and_leaves_no_half_sandbox(
    sshd: Sshd, secrets: list[str], tmp_path: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system that is soon full")
    try:
        error = await refusal(sshd, sshd.credentials(), {}, place / "root")
        check(error, ResourceError, "its file system is full; make room there", secrets)
        assert not list((place / "root").iterdir())
    finally:
        subprocess.run(["umount", str(place)], check=True)
