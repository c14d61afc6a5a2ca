"""What goes wrong before a command runs: one clear error each, with the way out, and without a secret."""

import asyncio
import logging
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from stacks.sshd import Sshd, free_port

from intercede.core import (
    AuthenticationError,
    Command,
    ConfigurationError,
    Credential,
    CredentialRequirements,
    CredentialSet,
    HostKeyError,
    Password,
    ResourceError,
    SSHKey,
    Unreachable,
    registry,
)
from intercede.toolkit import StaticCredentials
from intercede.transport.ssh import SSHTransport

Opened = Callable[..., SSHTransport]
TRUE = Command(["true"])


@pytest.fixture(scope="module")
def jumped() -> Iterator[Sshd]:
    with Sshd() as sshd:
        yield sshd


@pytest.fixture
def agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An SSH agent without keys."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    while not path.exists():
        assert process.poll() is None
    yield path
    process.kill()
    process.wait()


async def error_of(transport: SSHTransport) -> Exception:
    with pytest.raises(Exception) as caught:
        await transport.run(TRUE)
    assert not isinstance(caught.value, AssertionError)
    return caught.value


# ---------------------------------------------------------------- nobody there


async def test_a_port_where_nobody_listens(sshd: Sshd, opened: Opened) -> None:
    error = await error_of(opened(sshd, port=free_port()))
    assert isinstance(error, Unreachable)
    assert "nobody listens there (connection refused); see whether host and port" in str(error)


async def test_a_host_that_has_no_address(sshd: Sshd, opened: Opened) -> None:
    error = await error_of(opened(sshd, host="no-such-host.invalid"))
    assert isinstance(error, Unreachable)
    assert "no-such-host.invalid" in str(error)
    assert "its name is not known" in str(error)


async def test_something_that_is_no_ssh_server(sshd: Sshd, opened: Opened) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n" * 2000)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await error_of(opened(sshd, port=port))
    assert isinstance(error, Unreachable)


async def test_a_host_that_accepts_and_says_nothing(sshd: Sshd, opened: Opened) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await error_of(opened(sshd, port=port, connect_timeout_s=0.5))
        assert isinstance(error, Unreachable)
        assert f":{port}: no answer within 0.5 s" in str(error)


async def test_many_who_wait_for_one_connection_each_get_the_error(
    sshd: Sshd, opened: Opened
) -> None:
    transport = opened(sshd, port=free_port())
    errors = await asyncio.gather(*(transport.run(TRUE) for _ in range(20)), return_exceptions=True)
    assert {type(error) for error in errors} == {Unreachable}
    assert len({id(error) for error in errors}) == 20


# ---------------------------------------------------------------- host keys


async def test_a_host_that_is_not_known_is_told_with_its_fingerprint_and_how_to_pin_it(
    sshd: Sshd, opened: Opened, tmp_path: Path
) -> None:
    error = await error_of(opened(sshd, known_hosts=str(tmp_path / "none")))
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", sshd.folder / "host_key.pub"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(error, HostKeyError)
    assert shown.stdout.split()[1] in str(error)
    assert f'host_keys = ["{sshd.host_key}"]' in str(error)
    assert f'"[127.0.0.1]:{sshd.port} {sshd.host_key}"' in str(error)


async def test_a_host_whose_key_has_changed_is_told_with_both_fingerprints(opened: Opened) -> None:
    with Sshd() as sshd:
        before = asyncssh.import_public_key(sshd.host_key).get_fingerprint()
        sshd.make_key("host_key", kind="ecdsa")
        sshd.restart()
        error = await error_of(opened(sshd))
        assert isinstance(error, HostKeyError)
        assert "its host key has changed" in str(error)
        assert before in str(error)
        assert asyncssh.import_public_key(sshd.host_key).get_fingerprint() in str(error)
        assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in str(error)
        sshd.know()
        assert (await opened(sshd).run(TRUE)).returncode == 0


async def test_a_pinned_key_wins_over_the_file(sshd: Sshd, opened: Opened, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    assert (
        await opened(sshd, known_hosts=str(known), host_keys=[sshd.host_key]).run(TRUE)
    ).returncode == 0
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    error = await error_of(opened(sshd, host_keys=[other]))
    assert isinstance(error, HostKeyError)
    assert "host_keys has" in str(error)


@pytest.mark.parametrize("form", ["hashed", "several", "any port", "authority", "bad line"])
async def test_known_hosts_is_read_in_all_its_forms(
    form: str, sshd: Sshd, opened: Opened, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    line = f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n"
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    known.write_text(
        {
            "hashed": line,
            "several": f"[127.0.0.1]:{sshd.port} {other}{line}",
            "any port": f"127.0.0.1 {sshd.host_key}\n",
            "authority": f"@cert-authority * {other}{line}",
            "bad line": f"@nonsense x y\n|1|xx|yy ssh-ed25519 AAAA\n\n# comment\n{line}",
        }[form]
    )
    if form == "hashed":
        subprocess.run(["ssh-keygen", "-H", "-f", known], check=True, capture_output=True)
        assert "127.0.0.1" not in known.read_text()
    assert (await opened(sshd, known_hosts=str(known)).run(TRUE)).returncode == 0


async def test_a_host_certificate_is_accepted_from_its_authority_and_for_this_name_only(
    opened: Opened, tmp_path: Path
) -> None:
    with Sshd() as made:
        folder = made.folder
        authority = made.make_key("ca")
        sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", "-n", "127.0.0.1"]
        subprocess.run([*sign, str(folder / "host_key.pub")], check=True)
        with_certificate = f"HostCertificate {folder}/host_key-cert.pub\n"
        config = folder / "sshd_config"
        made.stop()
        made._lines.append(with_certificate.strip())
        made.start()
        assert with_certificate in config.read_text()
        known = tmp_path / "known_hosts"
        public = (folder / "ca.pub").read_text()
        known.write_text(f"@cert-authority [127.0.0.1]:{made.port} {public}")
        assert (await opened(made, known_hosts=str(known)).run(TRUE)).returncode == 0
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        known.write_text(f"@cert-authority [127.0.0.1]:{made.port} {other}")
        error = await error_of(opened(made, known_hosts=str(known)))
        assert isinstance(error, HostKeyError)


async def test_a_revoked_key_is_refused(sshd: Sshd, opened: Opened, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"* {sshd.host_key}\n@revoked * {sshd.host_key}\n")
    error = await error_of(opened(sshd, known_hosts=str(known)))
    assert isinstance(error, HostKeyError)
    assert "revoked" in str(error)


# ---------------------------------------------------------------- who we are


async def test_a_key_that_the_host_does_not_know(sshd: Sshd, opened: Opened) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    error = await error_of(
        opened(sshd, StaticCredentials(SSHKey(private=key.export_private_key())))
    )
    assert isinstance(error, AuthenticationError)
    assert f"{sshd.user}@127.0.0.1:{sshd.port}: the key was refused" in str(error)
    assert key.get_fingerprint() in str(error)


async def test_a_provider_without_a_key(sshd: Sshd, opened: Opened) -> None:
    error = await error_of(opened(sshd, StaticCredentials()))
    assert isinstance(error, AuthenticationError)
    assert f"{sshd.user}@127.0.0.1:{sshd.port}: it needs credentials of the kind SSHKey" in str(
        error
    )


async def test_no_provider(sshd: Sshd) -> None:
    async with registry.transport(sshd.config) as transport:
        with pytest.raises(AuthenticationError, match="pass a credential provider"):
            await transport.run(TRUE)


@pytest.mark.parametrize("passphrase", [None, "wrong horse"])
async def test_an_encrypted_key_without_its_passphrase(
    passphrase: str | None, sshd: Sshd, opened: Opened, tmp_path: Path
) -> None:
    made = sshd.make_key("locked", passphrase="right horse")
    key = SSHKey(private=made.read_bytes(), passphrase=passphrase)
    error = await error_of(opened(sshd, StaticCredentials(key)))
    assert isinstance(error, AuthenticationError)
    assert "passphrase" in str(error)
    text = "".join(traceback.format_exception(error))
    assert "wrong horse" not in text
    assert made.read_text().splitlines()[2] not in text


async def test_an_encrypted_key_with_its_passphrase(opened: Opened) -> None:
    with Sshd() as sshd:
        made = sshd.make_key("locked", passphrase="right horse")
        (sshd.folder / "authorized_keys").write_text((sshd.folder / "locked.pub").read_text())
        key = SSHKey(private=made.read_bytes(), passphrase="right horse")
        assert (await opened(sshd, StaticCredentials(key)).run(TRUE)).returncode == 0


@pytest.mark.parametrize("garbage", [b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA"])
async def test_something_that_is_no_key_is_not_repeated(
    garbage: bytes, sshd: Sshd, opened: Opened
) -> None:
    error = await error_of(opened(sshd, StaticCredentials(SSHKey(private=garbage))))
    assert isinstance(error, AuthenticationError)
    assert garbage.decode() not in "".join(traceback.format_exception(error))


async def test_a_key_with_a_certificate(opened: Opened) -> None:
    with Sshd() as sshd:
        authority = sshd.make_key("ca")
        private = sshd.make_key("mine")
        sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", sshd.user]
        subprocess.run([*sign, str(sshd.folder / "mine.pub")], check=True)
        public = (sshd.folder / "ca.pub").read_text()
        (sshd.folder / "authorized_keys").write_text(f"cert-authority {public}")
        certificate = (sshd.folder / "mine-cert.pub").read_bytes()
        key = SSHKey(private=private.read_bytes(), certificate=certificate)
        assert (await opened(sshd, StaticCredentials(key)).run(TRUE)).returncode == 0
        without = StaticCredentials(SSHKey(private=private.read_bytes()))
        assert isinstance(await error_of(opened(sshd, without)), AuthenticationError)
        wrong = SSHKey(private=(sshd.folder / "user_key").read_bytes(), certificate=certificate)
        error = await error_of(opened(sshd, StaticCredentials(wrong)))
        assert "certificate" in str(error)


async def test_a_host_that_takes_no_password_is_not_offered_a_key(
    sshd: Sshd, opened: Opened
) -> None:
    both = StaticCredentials(
        Password(value="sesame-sesame"), SSHKey(private=(sshd.folder / "user_key").read_bytes())
    )
    error = await error_of(opened(sshd, both, auth="password"))
    assert isinstance(error, AuthenticationError)
    assert "it takes no password" in str(error)
    assert "sesame" not in "".join(traceback.format_exception(error))


async def test_no_agent(sshd: Sshd, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    error = await error_of(opened(sshd, auth="agent"))
    assert isinstance(error, AuthenticationError)
    assert "SSH_AUTH_SOCK is not set" in str(error)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/no/such/agent")
    error = await error_of(opened(sshd, auth="agent"))
    assert isinstance(error, AuthenticationError)
    assert "nobody answers at SSH_AUTH_SOCK=/no/such/agent" in str(error)


async def test_an_agent_without_keys_and_then_with_one(
    sshd: Sshd, opened: Opened, agent: Path
) -> None:
    error = await error_of(opened(sshd, auth="agent"))
    assert isinstance(error, AuthenticationError)
    assert f"the SSH agent at {agent} has no keys" in str(error)
    subprocess.run(
        ["ssh-add", "-q", str(sshd.folder / "user_key")], check=True, capture_output=True
    )
    assert (await opened(sshd, auth="agent").run(TRUE)).returncode == 0
    # What the agent has is not used unless the agent was asked for.
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key()
    error = await error_of(opened(sshd, StaticCredentials(SSHKey(private=other))))
    assert isinstance(error, AuthenticationError)


async def test_what_lies_in_the_home_directory_is_not_used(
    sshd: Sshd, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "id_ed25519").write_bytes((sshd.folder / "user_key").read_bytes())
    (folder / "id_ed25519").chmod(0o600)
    (folder / "config").write_text("Host *\n  Port 1\n  User nobody\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key()
    error = await error_of(opened(sshd, StaticCredentials(SSHKey(private=other))))
    assert isinstance(error, AuthenticationError)
    assert (await opened(sshd).run(TRUE)).returncode == 0


class Renewing:
    """A provider whose first key has become useless."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = list(keys)
        self.asked = 0

    async def __aenter__(self) -> "Renewing":
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        self.asked += 1
        key: Credential = SSHKey(private=self.keys[min(self.asked, len(self.keys)) - 1])
        return CredentialSet([key])


async def test_a_key_that_is_refused_later_is_asked_for_anew(opened: Opened) -> None:
    with Sshd() as sshd:
        old, new = sshd.make_key("old"), sshd.make_key("new")
        allowed = sshd.folder / "authorized_keys"
        allowed.write_text((sshd.folder / "old.pub").read_text())
        provider = Renewing(old.read_bytes(), new.read_bytes())
        transport = opened(sshd, provider)
        await transport.run(TRUE)
        allowed.write_text((sshd.folder / "new.pub").read_text())
        sshd.cut()
        assert (await transport.run(TRUE)).returncode == 0
        assert provider.asked == 2


# ---------------------------------------------------------------- hosts on the way


async def test_a_host_behind_another(sshd: Sshd, jumped: Sshd, opened: Opened) -> None:
    (jumped.folder / "authorized_keys").write_text((sshd.folder / "user_key.pub").read_text())
    way = {"host": "127.0.0.1", "port": jumped.port, "host_keys": [jumped.host_key]}
    transport = opened(sshd, jump=[way])
    assert (await transport.run(TRUE)).returncode == 0
    assert jumped.connections
    jumped.cut()
    assert (await transport.run(TRUE)).returncode == 0
    sshd.cut()
    assert (await transport.run(TRUE)).returncode == 0
    await transport.aclose()
    async with asyncio.timeout(10):
        while jumped.connections:
            await asyncio.sleep(0.05)


async def test_a_jump_host_that_is_down_is_named(sshd: Sshd, opened: Opened) -> None:
    port = free_port()
    error = await error_of(opened(sshd, jump=[{"host": "127.0.0.1", "port": port}]))
    assert isinstance(error, Unreachable)
    assert f"jump host {sshd.user}@127.0.0.1:{port}: nobody listens there" in str(error)


async def test_a_host_that_the_jump_host_cannot_reach_is_named(
    sshd: Sshd, jumped: Sshd, opened: Opened
) -> None:
    (jumped.folder / "authorized_keys").write_text((sshd.folder / "user_key.pub").read_text())
    way = {"host": "127.0.0.1", "port": jumped.port, "host_keys": [jumped.host_key]}
    port = free_port()
    error = await error_of(opened(sshd, port=port, jump=[way]))
    assert isinstance(error, Unreachable)
    assert f"127.0.0.1:{port}: jump host {sshd.user}@127.0.0.1:{jumped.port} cannot" in str(error)


async def test_a_jump_host_that_is_not_known_or_refuses_the_key_is_named(
    sshd: Sshd, opened: Opened
) -> None:
    with Sshd() as stranger:
        error = await error_of(opened(sshd, jump=[{"host": "127.0.0.1", "port": stranger.port}]))
        assert isinstance(error, HostKeyError)
        assert f"jump host {sshd.user}@127.0.0.1:{stranger.port}" in str(error)
        known = {
            "host": "127.0.0.1",
            "port": stranger.port,
            "host_keys": [stranger.host_key],
        }
        error = await error_of(opened(sshd, jump=[known]))
        assert isinstance(error, AuthenticationError)
        assert f"jump host {sshd.user}@127.0.0.1:{stranger.port}" in str(error)


# ---------------------------------------------------------------- configuration


async def test_an_alias_of_ssh_config_is_used_only_when_asked_for(
    sshd: Sshd, jumped: Sshd, opened: Opened, tmp_path: Path
) -> None:
    (jumped.folder / "authorized_keys").write_text((sshd.folder / "user_key.pub").read_text())
    known = tmp_path / "known_hosts"
    known.write_text(
        f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n[127.0.0.1]:{jumped.port} {jumped.host_key}\n"
    )
    file = tmp_path / "config"
    file.write_text(
        f"Host cluster\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        "  ProxyJump gate\n  IdentityFile /no/such/key\n  StrictHostKeyChecking no\n"
        f"Host gate\n  HostName 127.0.0.1\n  Port {jumped.port}\n"
    )
    config = {
        "type": "ssh",
        "host": "cluster",
        "ssh_config": str(file),
        "known_hosts": str(known),
    }
    async with registry.transport(config, sshd.credentials()) as transport:
        before = jumped.accepted()
        assert (await transport.run(TRUE)).returncode == 0
        assert jumped.accepted() == before + 1
    async with registry.transport({**config, "ssh_config": "/no/file"}) as transport:
        with pytest.raises(ConfigurationError, match="there is no file /no/file"):
            await transport.run(TRUE)
    known.write_text("")
    async with registry.transport(config, sshd.credentials()) as transport:
        assert isinstance(await error_of(transport), HostKeyError)  # type: ignore[arg-type]  # a core Transport


async def test_an_account_without_a_name_here_is_told(
    sshd: Sshd, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    error = await error_of(opened(sshd))
    assert isinstance(error, ConfigurationError)
    assert "set LOGNAME" in str(error)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({}, "host"),
        ({"host": ""}, "name without blanks"),
        ({"host": "two words"}, "name without blanks"),
        ({"host": "h", "port": 0}, "port"),
        ({"host": "h", "auth": "keys"}, "auth"),
        ({"host": "h", "host_keys": "ssh-ed25519 AAAA"}, "list"),
        ({"host": "h", "host_keys": ["nonsense"]}, "not a public key"),
        ({"host": "h", "password": "x"}, "password"),
        ({"host": "h", "jump": [{"hots": "g"}]}, "hots"),
        ({"host": "h", "keepalive_s": 0}, "keepalive_s"),
    ],
)
def test_a_configuration_that_is_wrong_is_an_error_that_names_the_key(
    table: dict[str, object], what: str
) -> None:
    with pytest.raises(ConfigurationError, match=what):
        registry.transport({"type": "ssh", **table})


# ---------------------------------------------------------------- login shells, secrets


async def test_an_account_whose_shell_runs_nothing_is_told_with_its_words(opened: Opened) -> None:
    with Sshd(['ForceCommand echo "This account is not available"; exit 1']) as sshd:
        error = await error_of(opened(sshd))
    assert isinstance(error, ResourceError)
    assert "did not start the command" in str(error)
    assert "This account is not available" in error.said


async def test_a_home_directory_that_is_not_there_is_told(opened: Opened) -> None:
    with Sshd() as sshd:
        sshd.home.rmdir()
        error = await error_of(opened(sshd))
    assert isinstance(error, ResourceError)
    assert "home directory is not there" in str(error)


async def test_no_secret_is_in_any_log_or_repr(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncssh.set_debug_level(2)
    try:
        with Sshd() as sshd:
            made = sshd.make_key("locked", passphrase="correct-horse")
            lines = made.read_text().splitlines()
            (sshd.folder / "authorized_keys").write_text((sshd.folder / "locked.pub").read_text())
            key = SSHKey(private=made.read_bytes(), passphrase="correct-horse")
            transport = opened(sshd, StaticCredentials(key))
            await transport.run(Command(["cat"], stdin=b"battery-staple"))
            await error_of(
                opened(sshd, StaticCredentials(Password(value="sesame-sesame")), auth="password")
            )
    finally:
        asyncssh.set_debug_level(1)
    text = caplog.text + repr(transport) + repr(vars(transport))
    assert "Auth for user" in text
    for secret in ("correct-horse", "battery-staple", "sesame-sesame", lines[1], lines[2]):
        assert secret not in text
