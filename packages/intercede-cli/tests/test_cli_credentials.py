"""The table `credentials`: what may stand in it, and what is said of the files that it names."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from intercede import core
from intercede.cli._credentials import KINDS, NamedFiles
from intercede.core import (
    AuthenticationError,
    BearerToken,
    Credential,
    CredentialRequirements,
    Password,
    SSHKey,
)
from intercede.toolkit import FileCredentials

Run = Callable[..., "CompletedProcess[str]"]
Configure = Callable[[str], None]

SECRET = "correct horse battery"


# ---------------------------------------------------------------- the table


def test_every_kind_that_a_file_can_give_has_a_key_of_its_name() -> None:
    every = [getattr(core, name) for name in core.__all__]
    given = set()
    for kind in every:
        if inspect.isclass(kind) and issubclass(kind, Credential):
            try:
                FileCredentials({kind: "/any"})
            except ValueError:
                continue
            given.add(kind)

    assert set(KINDS.values()) == given
    for key, kind in KINDS.items():
        assert key.replace("_", "") == kind.__name__.lower()
        assert re.fullmatch("[a-z][a-z0-9_]*", key)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f'"{SECRET}"', "credentials: expected a table of files; as in credentials = { ssh_key ="),
        (f'{{ sshkey = "{SECRET}" }}', "credentials.sshkey: no such key; did you mean 'ssh_key'?"),
        (f'{{ x = "{SECRET}" }}', "credentials.x: no such key; known here: bearer_token, password"),
        (f'{{ password = "{SECRET}" }}', "credentials.password: expected the path of a file"),
        ('{ password = "here/secret" }', "put the Password into a file, and name it, as in pass"),
        ('{ password = "/a\\u0000b" }', "credentials.password: expected the path of a file"),
        ('{ ssh_key = "~nobody-has-this-name/k" }', "credentials.ssh_key: expected the path"),
        (f'{{ ssh_key = {{ path = "{SECRET}" }} }}', "credentials.ssh_key: expected the path"),
        ("{ ssh_key = 1 }", "credentials.ssh_key: expected the path"),
    ],
)
def test_a_mistake_names_file_and_key_and_repeats_no_value_that_may_be_a_secret(
    intercede: Run, configure: Configure, table: str, said: str
) -> None:
    configure(f"credentials = {table}")

    person = intercede("status", "fake/a/0")
    script = intercede("status", "--json", "fake/a/0")

    assert (person.returncode, script.returncode) == (2, 2)
    assert person.stderr.startswith("intercede: intercede.toml: resources.fake: credentials")
    assert said in person.stderr
    assert person.stderr.count("\n") == 1
    assert SECRET not in person.stderr + script.stdout + script.stderr


def test_a_resource_with_a_wrong_table_does_not_hinder_another(
    intercede: Run, configure: Configure
) -> None:
    configure('[resources.other]\ntype = "fake"\ncredentials = { x = 1 }\n')

    assert "no-such-job" in intercede("status", "--json", "fake/a/0").stdout
    ended = intercede("check", "fake", "other")
    assert ended.returncode == 2
    assert "credentials.x: no such key" in ended.stdout + ended.stderr


@pytest.mark.parametrize("words", [["run", "--", "./payload.sh"], ["check", "fake"]])
def test_the_command_opens_and_closes_the_provider(
    intercede: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    calls = []

    def noting(name: str) -> None:
        method = getattr(NamedFiles, name)

        async def noted(self: NamedFiles, *arguments: object) -> object:
            calls.append(name)
            return await method(self, *arguments)

        monkeypatch.setattr(NamedFiles, name, noted)

    noting("__aenter__")
    noting("__aexit__")
    configure('credentials = { password = "/no/such/file" }')  # of which the fake asks nothing

    assert intercede(*words).returncode == 0
    assert calls == ["__aenter__", "__aexit__"]


# ---------------------------------------------------------------- the files


async def given(path: Path, kind: type[Credential] = Password) -> Credential:
    async with NamedFiles({kind: path}, "site", "conf/intercede.toml") as files:
        found = await files.get(CredentialRequirements("me@host", {kind}))
    credential = found.get(kind)
    assert credential is not None
    return credential


async def refusal(path: Path, kind: type[Credential] = Password) -> str:
    with pytest.raises(AuthenticationError) as caught:
        await given(path, kind)
    assert not caught.value.refused
    return str(caught.value)


async def test_a_file_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    async with NamedFiles({Password: path}, "site", "intercede.toml") as files:
        for text in ("first", "second"):
            path.write_text(text + "\n")
            found = await files.get(CredentialRequirements("me@host", {Password}))
            assert found.get(Password) == Password(value=text)


async def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    said = await refusal(tmp_path / "none")

    assert f"Password from {tmp_path}/none: No such file or directory; put a file there" in said
    assert said.endswith(", or correct resources.site.credentials.password in conf/intercede.toml")


async def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "password"
    path.write_text(SECRET)
    path.chmod(0o644)

    said = await refusal(path)

    assert f"it is open to others (mode 0644); chmod 600 {path}, or correct resources.site" in said
    assert SECRET not in said


async def test_a_kind_without_a_file_is_missed_with_the_key_to_set() -> None:
    files = NamedFiles({}, "site", "intercede.toml")

    async def said(kind: type[Credential]) -> str:
        with pytest.raises(AuthenticationError) as caught:
            await files.get(CredentialRequirements("me@host", {kind}))
        return caught.value.remedy

    class Stranger(Credential):
        pass

    assert await said(BearerToken) == (
        "set resources.site.credentials.bearer_token in intercede.toml to its file"
    )
    assert (
        "set resources.site.credentials.ssh_key in intercede.toml to its file; or load"
        in await said(SSHKey)
    )
    assert (await said(Stranger)).startswith("only a program can give it; the command gives bear")


FORMS = {"openssh": [], "pem": ["-m", "PEM"], "pkcs8": ["-m", "PKCS8"]}


@pytest.mark.parametrize("form", FORMS)
async def test_a_key_with_a_passphrase_is_told_from_one_without(tmp_path: Path, form: str) -> None:
    kind = ["-t", "rsa", "-b", "2048", *FORMS[form]]
    for name, passphrase in (("open", ""), ("locked", SECRET)):
        command = ["ssh-keygen", "-q", *kind, "-N", passphrase, "-f", str(tmp_path / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    private = (tmp_path / "open").read_bytes()
    assert await given(tmp_path / "open", SSHKey) == SSHKey(private=private)
    said = await refusal(tmp_path / "locked", SSHKey)
    assert f"SSHKey from {tmp_path}/locked: it needs a passphrase, and none can be given" in said
    assert 'ssh-add) and set auth = "agent" in its transport' in said
    assert "resources.site.credentials.ssh_key in conf/intercede.toml" in said


async def test_what_is_no_key_is_not_said_to_need_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    for text in ("ssh-ed25519 AAAA me", "hello"):
        path.write_text(text)
        assert "it is not a private key in OpenSSH or PEM form" in await refusal(path, SSHKey)
    for body in ("", "!!", "AAAA", "b3BlbnNzaC1rZXk="):
        path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n")
        # What it is then, the transport tells.
        assert await given(path, SSHKey) == SSHKey(private=path.read_bytes())
