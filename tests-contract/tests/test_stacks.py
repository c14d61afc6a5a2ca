"""The tool that runs real daemons, as far as it can be seen without any: what it reads, writes, hashes and says."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from intercede.contract import LocalProbe, Relay
from intercede.core import SubmissionSpec, Unreachable, registry
from intercede.toolkit import StaticCredentials
from stacks import _inside, _manifest, _packages, _ssh
from stacks._container import name_of
from stacks._engine import Engine, find_engine
from stacks._errors import StackError
from stacks._faults import StackFaults
from stacks._images import RECIPES, image_for, recipe_below, recipe_hash
from stacks._inside import distributions
from stacks._life import bring_up
from stacks._manifest import Stack, chosen, stacks
from stacks._state import fresh_folder, write_private
from stacks._testing import Found, table
from stacks._ways import WAYS

HERE = Path(__file__).resolve().parents[1]
ALL = list(stacks().values())


def stack(**changes: Any) -> Stack:
    return Stack(**{"id": "s-x", "summary": "", "suite": "bookworm", "version": "9.2", **changes})


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


# ---------------------------------------------------------------- the manifest


@pytest.mark.parametrize("one", ALL, ids=lambda one: str(one.id))
def test_what_a_stack_names_is_there(one: Stack) -> None:
    assert (RECIPES / one.recipe / "Containerfile").is_file()
    assert one.way in WAYS
    assert set(one.contracts) <= {"transport", "backend"}
    recipes = [one.recipe]
    while below := recipe_below(recipes[-1]):
        recipes.append(below)
    scripts = [RECIPES / recipe / "accounts" for recipe in recipes]
    made = "".join(script.read_text() for script in scripts if script.exists())
    for account in {one.account, *one.logins}:
        assert re.search(rf"^(account {account} .*|useradd .* {account})$", made, re.MULTILINE)
    registry.scheduler(dict(one.scheduler))
    if one.narrow:
        registry.scheduler(dict(one.narrow))
    if one.inside:
        assert one.contracts == ("backend",)


def test_the_page_about_stacks_lists_those_that_there_are() -> None:
    page = (HERE.parent / "docs" / "stacks.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall("`([a-z-]+)`", row.split("|")[1])]
    assert named == [one.id for one in ALL]


def test_each_suite_makes_a_stack_with_what_holds_for_it_alone() -> None:
    found = _manifest.read(
        '[a]\nsummary = "of all"\nversions = { x = "1", y = "2" }\naccount = "dash"\ny = { account = "csh" }\n'
    )
    assert {name: (s.suite, s.version, s.account) for name, s in found.items()} == {
        "a-x": ("x", "1", "dash"),
        "a-y": ("y", "2", "csh"),
    }


def test_a_table_that_is_like_another_says_only_what_differs() -> None:
    found = _manifest.read(
        '[a]\nsummary = "of a"\nversions = { x = "1" }\naccount = "dash"\nx = { account = "csh" }\n'
        '[b]\nlike = "a"\nsummary = "of b"\nversions = { y = "2" }\n'
    )
    assert {name: (s.summary, s.account) for name, s in found.items()} == {
        "a-x": ("of a", "csh"),
        "b-y": ("of b", "dash"),
    }
    with pytest.raises(StackError, match="b: like: there is no table 'c'"):
        _manifest.read('[b]\nlike = "c"\n')


@pytest.mark.parametrize(
    ("line", "words"),
    [("acount = 'dash'", "acount"), ("summary = 3", "expected str"), ("jumps = 'two'", "jumps")],
)
def test_a_mistake_in_the_manifest_names_the_stack_and_the_key(line: str, words: str) -> None:
    text = f'[a]\nversions = {{ x = "1" }}\n{line}\n'
    with pytest.raises(StackError, match=f"a: .*{words}"):
        _manifest.read(text if "summary" in line else f'{text}summary = ""\n')


def test_only_stacks_that_there_are_can_be_named() -> None:
    first = ALL[0].id
    assert [one.id for one in chosen([first, first])] == [first]
    assert chosen([], everything=True) == ALL
    with pytest.raises(StackError, match=f"no such stack: nope; there are: {first}"):
        chosen([first, "nope"])
    with pytest.raises(StackError, match="name stacks, or --all"):
        chosen([])


# ---------------------------------------------------------------- images


def test_a_recipe_is_known_by_its_files_their_modes_and_its_base(tmp_path: Path) -> None:
    recipe = tmp_path / "r"
    recipe.mkdir()
    (recipe / "Containerfile").write_text("FROM x\n")
    seen = [recipe_hash("r", "base", tmp_path)]
    assert recipe_hash("r", "base", tmp_path) == seen[0]
    seen.append(recipe_hash("r", "other base", tmp_path))
    (recipe / "file").write_text("a")
    seen.append(recipe_hash("r", "base", tmp_path))
    (recipe / "file").chmod(0o755)
    seen.append(recipe_hash("r", "base", tmp_path))
    (recipe / "file").rename(recipe / "elif")
    seen.append(recipe_hash("r", "base", tmp_path))
    assert len(set(seen)) == len(seen)


def test_a_recipe_on_another_one_is_built_after_it_and_anew_with_it(tmp_path: Path) -> None:
    assert [recipe_below(name) for name in ("ssh", "slurm")] == ["", "ssh"]
    program(tmp_path, "podman", ENGINE)
    image = image_for(Engine(str(tmp_path / "podman")), stack(recipe="slurm"), lambda _: None)
    built = [
        line.partition("--tag localhost/intercede-stacks/")[2].split(":")[0]
        for line in (tmp_path / "podman.log").read_text().splitlines()
        if line.startswith("build")
    ]
    assert built == ["ssh-bookworm", "slurm-bookworm"]
    below = recipe_hash("ssh", "id of localhost/intercede-stacks/debian:bookworm")
    base = f"id of localhost/intercede-stacks/ssh-bookworm:{below}"
    assert image == f"localhost/intercede-stacks/slurm-bookworm:{recipe_hash('slurm', base)}"


def test_a_recipe_that_is_not_there_is_named() -> None:
    with pytest.raises(StackError, match="no recipe 'nope'"):
        recipe_hash("nope", "base")


#: An engine that builds whatever it is told to, and has it from then on.
ENGINE: Final = """
echo "$@" >> "$0.log"
case $1 in
  image) for name; do :; done; grep -q -- " $name" "$0.log.built" || exit 1; echo "id of $name" ;;
  tag) echo " $3" >> "$0.log.built" ;;
  build) shift 4; echo " $1" >> "$0.log.built" ;;
esac
"""
#: An engine that has no image, and no registry in reach; it writes down what it was asked.
WITHOUT_REGISTRY = """
echo "$@" >> "$0.log"
case $1 in
  image) exit 1 ;;
  pull) echo "Trying to pull"; echo "Error: no such host" >&2; exit 125 ;;
esac
"""


def image(folder: Path, engine: str) -> tuple[str, list[str]]:
    """Why there is no image, and what the engine was asked."""
    program(folder, "podman", engine)
    with pytest.raises(StackError) as caught:
        image_for(Engine(str(folder / "podman")), stack(), lambda _: None)
    return str(caught.value), (folder / "podman.log").read_text().splitlines()


def test_without_a_registry_only_root_can_make_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    why, asked = image(tmp_path, WITHOUT_REGISTRY)
    assert why == (
        "docker.io/library/debian:bookworm-slim cannot be pulled (Error: no such host), and only root can make it"
        " with debootstrap: run this as root"
    )
    assert "pull --quiet docker.io/library/debian:bookworm-slim" in asked
    _, asked = image(tmp_path, WITHOUT_REGISTRY)
    assert len([line for line in asked if line.startswith("pull")]) == 1


def test_without_a_registry_and_debootstrap_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with only(tmp_path / "bin", monkeypatch):
        why, _ = image(tmp_path, WITHOUT_REGISTRY)
    assert why.endswith("and debootstrap is not there: apt-get install debootstrap")


def test_where_a_registry_answers_the_base_is_pulled_and_only_then_built_upon(
    tmp_path: Path,
) -> None:
    why, asked = image(
        tmp_path, 'echo "$@" >> "$0.log"; case $1 in image) exit 1 ;; build) exit 7 ;; esac'
    )
    assert "build --network host" in why
    assert [line.split()[0] for line in asked if not line.startswith("image")] == [
        "pull",
        "tag",
        "build",
    ]


# ---------------------------------------------------------------- this machine's packages


def apt(folder: Path, targets: str, settings: str = "") -> str:
    """A PATH on which apt says this."""
    program(folder, "apt-get", f"cat <<'EOT'\n{targets}\nEOT")
    program(folder, "apt-config", f"cat <<'EOT'\n{settings}\nEOT")
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("Debian-Security|http://m/debian-security/\nDebian|http://m/d/", "http://m/d/"),
        ("|https://m/debian-security/\n|https://m/debian/", "https://m/debian/"),
        ("Ubuntu|http://m/ubuntu/", None),
        ("", None),
    ],
)
def test_the_mirror_is_the_one_that_this_machine_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: str, expected: str | None
) -> None:
    monkeypatch.setenv("PATH", apt(tmp_path / "bin", targets))
    assert _packages.mirror() == expected


def test_a_build_reaches_packages_as_this_machine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = 'Acquire::http::Proxy "http://p:3128";\nDir::Cache "var/cache/apt";'
    monkeypatch.setenv("PATH", apt(tmp_path / "bin", "Debian|http://m/d/", settings))
    _packages.write_settings(tmp_path / "apt", "trixie")
    said = (tmp_path / "apt" / "apt.conf").read_text()
    assert 'Acquire::http::Proxy "http://p:3128";' in said
    assert "Dir::Cache" not in said
    assert 'Dir::Etc::SourceList "/mnt/apt/sources.list";' in said
    assert (tmp_path / "apt" / "sources.list").read_text() == "deb http://m/d/ trixie main\n"


def test_no_recipe_names_a_mirror_or_keeps_the_settings() -> None:
    for file in (path for path in RECIPES.rglob("*") if path.is_file()):
        text = file.read_text()
        assert "://" not in text, file
        assert ".apt" not in text.replace("--mount=type=bind,source=.apt,", ""), file


# ---------------------------------------------------------------- the engine


@contextmanager
def only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(folder))
        yield


def test_without_an_engine_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with only(tmp_path / "bin", monkeypatch), pytest.raises(StackError) as caught:
        find_engine()
    assert str(caught.value).startswith("stacks need Podman or Docker: ")
    assert "\n" not in str(caught.value)


def test_an_engine_that_does_not_answer_is_passed_over_for_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "podman", "echo no permission >&2; exit 125")
    with only(tmp_path / "bin", monkeypatch), pytest.raises(StackError, match=r"^no permission; "):
        find_engine()
    program(tmp_path / "bin", "docker", "exit 0")
    with only(tmp_path / "bin", monkeypatch):
        assert find_engine().program == str(tmp_path / "bin" / "docker")


def test_a_command_that_fails_is_told_with_its_own_words(tmp_path: Path) -> None:
    program(tmp_path, "podman", "echo to stdout; echo to stderr >&2; exit 3")
    with pytest.raises(StackError, match="podman run x: exit code 3\nto stdout\nto stderr"):
        Engine(str(tmp_path / "podman")).run("run", "x")


def test_a_command_that_hangs_is_given_up(tmp_path: Path) -> None:
    program(tmp_path, "podman", "exec sleep 60")
    with pytest.raises(StackError, match=r"nothing within 0\.2 s"):
        Engine(str(tmp_path / "podman")).run("run", timeout_s=0.2)


# ---------------------------------------------------------------- the way in by SSH


def test_every_start_has_keys_and_passwords_of_its_own(tmp_path: Path) -> None:
    secrets = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        [container] = _ssh.containers(stack(), tmp_path / name)
        secrets |= {*container.files.values(), (tmp_path / name / "key").read_text()}
        assert set(container.files) == {"host_key", "passwords"}
        assert "PRIVATE" not in "".join(container.public.values())
        assert "PRIVATE" not in repr(container)
    assert len(secrets) == 6


def test_what_a_start_leaves_for_clients_is_readable_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = fresh_folder("s-x")
    assert folder.is_relative_to(tmp_path / "state")
    _ssh.containers(stack(jumps=1), folder)
    _ssh.describe(stack(jumps=1), folder, 4022)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"key", "password", "known_hosts", "ssh_config"} <= set(modes)


def test_a_file_that_is_private_was_never_anything_else(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = write_private(tmp_path / "f" / "secret", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_behind_jump_hosts_only_the_first_is_published(tmp_path: Path) -> None:
    one = stack(jumps=2, sshd=("MaxSessions 1",))
    first, second, own = _ssh.containers(one, tmp_path)
    assert [c.publish for c in (first, second, own)] == [22, None, None]
    assert first.options == ()
    assert second.options == own.options == ("--network", f"container:{first.name}")
    assert "ListenAddress 127.0.0.1:2201" in second.public["sshd_config"]
    assert "ListenAddress 127.0.0.1:2202" in own.public["sshd_config"]
    assert "MaxSessions" not in first.public["sshd_config"] + second.public["sshd_config"]
    assert own.public["sshd_config"].startswith("MaxSessions 1\n")
    assert own.name == name_of(one)


def test_it_is_ready_when_every_daemon_listens_and_its_own_command_succeeds(tmp_path: Path) -> None:
    first, own = _ssh.containers(stack(jumps=1, ready="squeue"), tmp_path)
    assert first.ready == ""
    assert own.ready == "bash -c ': < /dev/tcp/127.0.0.1/2201' && squeue"


@pytest.mark.parametrize("sftp", [True, False])
def test_sftp_is_offered_or_not(tmp_path: Path, sftp: bool) -> None:
    [container] = _ssh.containers(stack(sftp=sftp), tmp_path)
    assert ("Subsystem sftp" in container.public["sshd_config"]) is sftp


@pytest.mark.parametrize("account", ["bash", "password"])
def test_the_transport_takes_what_a_stack_tells_of_it(tmp_path: Path, account: str) -> None:
    one = stack(jumps=1)
    _ssh.containers(one, tmp_path)
    config = _ssh.config(one, tmp_path, 4022, account)
    assert config["auth"] == ("password" if account == "password" else "key")
    assert [jump["port"] for jump in config["jump"]] == [4022]
    registry.transport(config, _ssh.credentials(tmp_path)())


@pytest.mark.parametrize("jumps", [0, 2])
async def test_a_relay_stands_before_the_first_host_on_the_way(tmp_path: Path, jumps: int) -> None:
    one = stack(jumps=jumps)
    _ssh.containers(one, tmp_path)
    config = _ssh.config(one, tmp_path, 4022, "bash")
    assert _ssh.server(config) == ("127.0.0.1", 4022)
    async with Relay(4022) as relay:
        by_relay = _ssh.through(config, relay)
        assert _ssh.server(by_relay) == (relay.host, relay.port)
        assert [jump["port"] for jump in by_relay.get("jump", [])] == [relay.port, 2201][:jumps]
    assert by_relay["host_keys"] == config["host_keys"]


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that says this to each who comes, then closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for answer in answers:
                    connection.sendall(answer)
                connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def test_an_ssh_daemon_is_up_when_it_begins_to_exchange_keys() -> None:
    with answering(b"SSH-2.0-Open", b"SSH_9.2\r\n", b"\0\0\4\4\n\x14") as port:
        assert _ssh.announced(port) == "SSH-2.0-OpenSSH_9.2"


@pytest.mark.parametrize("answers", [(), (b"SSH-2.0-OpenSSH_9.2\r\n",)])
def test_a_port_that_only_takes_connections_is_not_up(answers: tuple[bytes, ...]) -> None:
    with answering(*answers) as port, pytest.raises(OSError, match=f"{port} was closed|reset"):
        _ssh.announced(port)


#: An engine whose one container is up at once, with a Slurm in it.
CLUSTER: Final = """
case $1 in
  image) echo id ;;
  port) echo "127.0.0.1:$PORT" ;;
  inspect) echo true ;;
  exec) case $* in *version*) echo slurm 24.11.5 ;; *) echo bash:x:1:1::/home/bash:/bin/bash ;; esac ;;
esac
"""


@pytest.mark.parametrize("version", ["24.11", "9.2"])
def test_a_stack_is_of_the_version_that_its_own_daemon_announces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program(tmp_path, "podman", CLUSTER)
    engine = Engine(str(tmp_path / "podman"))
    one = stack(version=version, announces="scontrol version")
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n", b"\0\0\4\4\n\x14") as port:
        monkeypatch.setenv("PORT", str(port))
        if version == "9.2":
            with pytest.raises(StackError, match=r"'slurm 24\.11\.5' is not the version '9\.2'"):
                bring_up(engine, one, lambda _: None)
        else:
            assert bring_up(engine, one, lambda _: None).announced == "slurm 24.11.5"


# ---------------------------------------------------------------- the suite inside


def test_what_the_suite_needs_of_ours_in_a_container_is_brought_there() -> None:
    names = distributions("slurm")
    needed = set()
    for name in names:
        project = HERE if name == "intercede-contract" else HERE.parent / "packages" / name
        table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        assert table["name"] == name
        needed |= {
            word
            for line in table["dependencies"]
            for word in re.findall("^intercede-[a-z-]+", line)
        }
    assert needed <= set(names)


def test_wheels_are_built_again_when_their_sources_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_inside, "_REPOSITORY", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    source = tmp_path / "packages" / "p" / "src" / "module.py"
    source.parent.mkdir(parents=True)
    source.touch()
    (source.parents[1] / "pyproject.toml").touch()
    ran: list[str] = []
    monkeypatch.setattr(_inside, "_python", lambda *words, cwd: ran.append(words[0]))
    said: list[str] = []
    made = [_inside.wheels(tmp_path, ["p"], "3.13", said.append) for _ in range(2)]
    assert (made[0], ran, len(said)) == (made[1], ["hatchling", "pip"], 1)
    source.write_text("changed = True\n")
    changed = _inside.wheels(tmp_path, ["p"], "3.13", said.append)
    assert changed != made[0]
    assert list(changed.parent.iterdir()) == [changed]
    assert _inside.wheels(tmp_path, ["p"], "3.14", said.append) != changed


async def test_faults_without_a_way_refuse_in_the_transport(tmp_path: Path) -> None:
    faults = StackFaults(StaticCredentials, LocalProbe(tmp_path))
    config = {
        "transport": {"type": "local"},
        "scheduler": {"type": "direct"},
        "root": str(tmp_path),
    }
    async with faults.unreachable(config) as backend:
        with pytest.raises(Unreachable, match=r"local-direct: .*nothing answers"):
            await backend.submit(SubmissionSpec("/bin/true"))


# ---------------------------------------------------------------- the command


def test_the_summary_has_a_line_for_each_stack() -> None:
    found = [
        Found("a", Counter({"passed": 100, "not observed": 2}), 0, 61.4),
        Found("long-name", Counter({"failed": 3}), 1, 5.0),
        Found("b", Counter(), 1, 0.0),
    ]
    assert table(found) == [
        "stack      passed  failed  not offered  not observed  skipped         took",
        "a             100       0            0             2        0         61 s",
        "long-name       0       3            0             0        0          5 s",
        "b               0       0            0             0        0  did not run",
    ]


def run(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stacks", *arguments],
        cwd=HERE,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_fails_in_one_line_where_there_is_no_engine(tmp_path: Path) -> None:
    done = run(tmp_path, "up", ALL[0].id, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stacks: stacks need Podman or Docker")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["nope -n 2", "-n 2 nope", "-n auto nope -- -k x"])
def test_options_may_stand_anywhere(tmp_path: Path, words: str) -> None:
    program(tmp_path / "bin", "podman", "exit 0")
    done = run(tmp_path, "test", *words.split(), PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stacks: no such stack: nope; there are: ")


def test_what_the_command_cannot_do_is_a_wrong_usage(tmp_path: Path) -> None:
    assert run(tmp_path, "sideways").returncode == 2
