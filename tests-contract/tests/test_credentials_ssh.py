"""The command with a key file of `intercede.toml`, against a real sshd: a stranger's first run, and all that can be wrong with the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from intercede.cli import main
from stacks.sshd import Sshd

PASSPHRASE = "correct horse battery"

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as sshd:
        sshd.make_key("stranger")
        sshd.make_key("locked", passphrase=PASSPHRASE)
        yield sshd


@pytest.fixture
def intercede(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """The command in a folder of its own, without an agent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("INTERCEDE_CONFIG", raising=False)

    def run(*words: str, **credentials: str | Path) -> CompletedProcess[str]:
        files = ", ".join(f"{key} = {json.dumps(str(path))}" for key, path in credentials.items())
        transport = ", ".join(f"{key} = {json.dumps(it)}" for key, it in sshd.config.items())
        (tmp_path / "intercede.toml").write_text(
            f'[resources.site]\ntransport = {{ {transport} }}\nscheduler = "direct"\n'
            f"root = {json.dumps(str(tmp_path / 'root'))}\n"
            + (f"credentials = {{ {files} }}\n" if files else "")
        )
        capfd.readouterr()
        code = main(words)
        out, err = capfd.readouterr()
        return CompletedProcess(words, code, out, err)

    return run


RUN = ("run", "--resource", "site", "--", "echo", "hello")


def test_a_key_file_in_the_home_directory_lets_a_first_run_in(
    sshd: Sshd, intercede: Run, tmp_path: Path
) -> None:
    (tmp_path / "home/.ssh").mkdir(parents=True)
    key = tmp_path / "home/.ssh/id_ed25519"
    key.touch(mode=0o600)
    key.write_bytes((sshd.folder / "user_key").read_bytes())

    ended = intercede(*RUN, ssh_key="~/.ssh/id_ed25519")

    assert (ended.returncode, ended.stdout) == (0, "hello\n"), ended.stderr


def test_every_command_gets_in_with_the_key_file(sshd: Sshd, intercede: Run) -> None:
    def said(*words: str) -> str:
        ended = intercede(*words, ssh_key=sshd.folder / "user_key")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    job = said("submit", "--resource", "site", "--tag", "t", "--", "sleep", "60").strip()
    assert said("find", "--resource", "site", "t").strip() == job
    assert job in said("status", job)
    assert "yes" in said("kill", job)
    assert job in said("fetch", "--tag", "t", "--resource", "site")
    assert "yes" in said("purge", job)


def test_a_check_passes_every_step_with_the_key_file(sshd: Sshd, intercede: Run) -> None:
    ended = intercede("check", "--json", ssh_key=sshd.folder / "user_key")

    assert ended.returncode == 0
    (check,) = json.loads(ended.stdout)["checks"]
    assert {step["result"] for step in check["steps"]} == {"ok"}


#: What is wrong: the keys of the table, and what is said, in which `{}` is the sshd's folder.
WRONG = {
    "no credentials": (
        {},
        "it needs credentials of the kind SSHKey, and there are none;"
        " set resources.site.credentials.ssh_key in intercede.toml to its file; or load the key",
    ),
    "another kind only": (
        {"password": "password"},
        "set resources.site.credentials.ssh_key in intercede.toml to its file",
    ),
    "no such file": (
        {"ssh_key": "none"},
        "SSHKey from {}/none: No such file or directory; put a file there that only you can read,"
        " or correct resources.site.credentials.ssh_key in intercede.toml",
    ),
    "the public half": (
        {"ssh_key": "public"},
        "SSHKey from {}/public: it is not a private key in OpenSSH or PEM form",
    ),
    "open to others": (
        {"ssh_key": "open"},
        "SSHKey from {}/open: it is open to others (mode 0644); chmod 600 {}/open,",
    ),
    "a passphrase": (
        {"ssh_key": "locked"},
        "SSHKey from {}/locked: it needs a passphrase, and none can be given; load the key into an"
        ' agent (ssh-add) and set auth = "agent" in its transport, or name a key without one:'
        " resources.site.credentials.ssh_key in intercede.toml",
    ),
    "not let in": (
        {"ssh_key": "stranger"},
        "see that the public key is in ~/.ssh/authorized_keys of that account",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_key_that_is_of_no_use_is_one_clear_message(
    case: str, sshd: Sshd, intercede: Run
) -> None:
    for name, source, mode in (("public", "user_key.pub", 0o600), ("open", "user_key", 0o644)):
        (sshd.folder / name).write_bytes((sshd.folder / source).read_bytes())
        (sshd.folder / name).chmod(mode)
    table, words = WRONG[case]
    files = {key: sshd.folder / name for key, name in table.items()}

    ran = intercede(*RUN, **files)
    checked = intercede("check", **files)

    wanted = words.replace("{}", str(sshd.folder))
    assert (ran.returncode, checked.returncode) == (3, 3)
    assert ran.stderr.startswith("intercede: site: submit: ")
    assert f"{sshd.user}@127.0.0.1:{sshd.port}: " in ran.stderr
    assert wanted in ran.stderr
    assert "provider" not in ran.stderr + checked.stdout
    for part in wanted.split("; ", 1):  # what was found, and on a line of its own what to do
        assert part in checked.stdout + checked.stderr
    for secret in (PASSPHRASE, *(sshd.folder / "user_key").read_text().splitlines()):
        assert secret not in ran.stderr + ran.stdout + checked.stdout + checked.stderr
