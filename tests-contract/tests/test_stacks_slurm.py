"""What tests do to a stack's Slurm, on this machine: in place of the engine something that runs the words here."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from stacks._engine import Engine
from stacks._errors import StackError
from stacks._images import RECIPES
from stacks._life import Running
from stacks._manifest import Stack
from stacks.slurm import Cluster, Job

#: As squeue prints them, with what it was given in place of W.
ROWS = "W|7_1|bash|RUNNING|a|b\n9|root|RUNNING|c|W\nW|8|tcsh|PENDING|intercede-x|W\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of the account, with what stands before Slurm's commands, and before it, as root does it, a program `cluster`."""
    home = tmp_path / "a home"
    programs = home / "bin"
    programs.mkdir(parents=True)
    for name in ("squeue", "sbatch"):
        (programs / name).symlink_to(RECIPES / "slurm" / "front")
    (programs / "cluster").write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(home))}/done\n')
    (programs / "cluster").chmod(0o755)
    return home


@pytest.fixture
def cluster(home: Path, tmp_path: Path) -> Cluster:
    podman = tmp_path / "podman"
    # exec --user USER CONTAINER COMMAND...
    path = f"{home}/bin:{os.environ['PATH']}"
    podman.write_text(
        f'#!/bin/sh\nshift 4\nHOME={shlex.quote(str(home))} PATH={shlex.quote(path)} exec "$@"\n'
    )
    podman.chmod(0o755)
    stack = Stack(id="s-x", summary="", suite="x", version="1", account="bash")
    there = Running(stack, 1, "slurm 1", tmp_path, str(home), "")
    return Cluster(there, "bash", Engine(str(podman)))


def call(home: Path, name: str) -> subprocess.CompletedProcess[str]:
    """One of Slurm's commands, as the account calls it."""
    env = {**os.environ, "HOME": str(home)}
    return subprocess.run(
        [home / "bin" / name, "word"], env=env, capture_output=True, text=True, check=False
    )


async def test_a_command_is_replaced_for_the_length_of_a_block(
    home: Path, cluster: Cluster
) -> None:
    async with cluster.replaced("squeue", '#!/bin/sh\necho "it\'s $1"\nexit 3'):
        done = call(home, "squeue")
        assert (done.returncode, done.stdout) == (3, "it's word\n")
    assert "it's" not in call(home, "squeue").stdout


async def test_the_calls_of_a_block_are_counted_whatever_comes_of_them(
    home: Path, cluster: Cluster
) -> None:
    async with (
        cluster.replaced("squeue", "#!/bin/sh\nexit 1"),
        cluster.replaced("sbatch", "#!/bin/sh"),
    ):
        call(home, "squeue")
        async with cluster.counted() as calls:
            for name in ("squeue", "sbatch", "squeue"):
                call(home, name)
        call(home, "sbatch")
    assert calls == {"squeue": 2, "sbatch": 1}


async def test_an_account_that_wants_nothing_counted_leaves_nothing_behind(
    home: Path, cluster: Cluster
) -> None:
    call(home, "squeue")
    assert sorted(path.name for path in home.iterdir()) == ["bin"]


async def test_what_a_block_has_broken_is_whole_again_also_after_a_failure(
    home: Path, cluster: Cluster
) -> None:
    for block in (cluster.killed("slurmctld"), cluster.frozen("slurmctld", "slurmdbd")):
        with pytest.raises(ZeroDivisionError):
            async with block:
                raise ZeroDivisionError
    assert (home / "done").read_text().splitlines() == [
        "kill slurmctld",
        "start slurmctld",
        "await",
        "freeze slurmctld slurmdbd",
        "thaw slurmctld slurmdbd",
        "await",
    ]


async def test_a_script_that_fails_says_so(cluster: Cluster) -> None:
    with pytest.raises(StackError, match="exit code 3\nwhy"):
        await cluster.run("echo why; exit 3")


async def test_what_the_controller_holds_is_told_job_by_job(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacks.slurm._JOBS", f'printf %s {shlex.quote(ROWS)} | sed "s/W/$1/g"')
    assert await cluster.jobs() == [
        Job("7_1", "bash", "RUNNING", "a|b\n9|root|RUNNING|c"),
        Job("8", "tcsh", "PENDING", "intercede-x"),
    ]


async def test_half_a_row_of_the_controller_is_an_error(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacks.slurm._JOBS", 'echo "$1|8|tcsh|PEND"')
    with pytest.raises(StackError, match="half a row"):
        await cluster.jobs()
