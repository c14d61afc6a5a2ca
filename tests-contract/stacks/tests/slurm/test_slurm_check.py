"""`intercede check` on a cluster: as a user runs it, with a key in an agent and a configuration file."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from stacks.tests.slurm._scene import Scene

#: In their order.
STEPS: Final = [
    *("configuration", "connect", "authenticate", "queue", "submit", "find", "status"),
    *("diagnostics", "counts", "kill", "finish", "fetch", "purge", "clean"),
]
#: Of each step; a cluster that is well needs a few seconds.
_PATIENCE_S: Final = 90
#: FILE: kill whatever a check has sleeping, for as long as the file is there.
_REAP: Final = """
while [ -e "$1" ]; do
  for entry in /proc/[0-9]*; do
    words=$(tr '\\0' ' ' 2>/dev/null < "$entry/cmdline")
    case $words in
    *payload.sh\\ echo\\ intercede-*\\ sleep\\ *) kill -9 "${entry#/proc/}" ;;
    esac
  done
done
"""


@asynccontextmanager
async def agent(key: Path, place: Path) -> AsyncIterator[dict[str, str]]:
    """An SSH agent with a key, as an environment."""
    environment = {**os.environ, "SSH_AUTH_SOCK": str(place / "agent")}
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", environment["SSH_AUTH_SOCK"]], stdout=subprocess.DEVNULL
    )
    try:
        while not Path(environment["SSH_AUTH_SOCK"]).exists():
            await asyncio.sleep(0.05)
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
        yield environment
    finally:
        process.kill()
        process.wait()


async def checked(
    scene: Scene, place: Path, scheduler: str = "", timeout_s: int = _PATIENCE_S
) -> Any:
    """What a check of the cluster finds, the steps by their names; and that neither Slurm nor the host has anything of it left."""
    there = scene.cluster.there
    told = there.way.config(there.stack, there.folder, there.port, scene.cluster.account)
    keys = ", ".join(
        f"{name} = {json.dumps(value)}" for name, value in {**told, "auth": "agent"}.items()
    )
    (place / "intercede.toml").write_text(
        f'[resources.{scene.name}]\ntransport = {{ {keys} }}\nscheduler = {{ type = "slurm"'
        f"{scheduler} }}\nroot = {json.dumps(scene.root)}\n"
    )
    command = [sys.executable, "-m", "intercede.cli", "check", "--json", "--timeout"]
    async with agent(there.folder / "key", place) as environment:
        ended = await asyncio.to_thread(
            subprocess.run,
            [*command, str(timeout_s)],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
            timeout=len(STEPS) * timeout_s,
        )
    document = json.loads(ended.stdout)
    assert ended.returncode == document["exit_code"]
    (check,) = document["checks"]
    assert [step["step"] for step in check["steps"]] == STEPS
    check["steps"] = {step["step"]: step for step in check["steps"]}
    assert check["left"] == [], check
    assert await scene.submissions() == set()
    return check


def results(check: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: check["steps"][name]["result"] for name in names or STEPS}


async def test_a_cluster_that_is_well_passes_every_step(scene: Scene, tmp_path: Path) -> None:
    check = await checked(scene, tmp_path)

    assert results(check) == dict.fromkeys(STEPS, "ok"), check
    assert check["exit_code"] == 0


async def test_an_unknown_partition_is_found_before_anything_is_submitted(
    scene: Scene, tmp_path: Path
) -> None:
    check = await checked(scene, tmp_path, ', queue = "nosuch"')

    ok = STEPS[: STEPS.index("queue")]
    assert results(check) == {
        **dict.fromkeys(STEPS, "not reached"),
        **dict.fromkeys(ok, "ok"),
        "queue": "failed",
    }
    cause = check["steps"]["queue"]["cause"]
    assert cause["message"].startswith("resources.queue: ")
    assert "'nosuch'" in cause["message"]
    assert cause["remedy"].startswith("there are: ")
    assert "main" in cause["remedy"]
    assert cause["error"]["type"] == "SpecRefused"
    assert check["exit_code"] == 2


@pytest.mark.parametrize(
    ("option", "state", "reason", "remedy"),
    [
        ("--begin=now+1hour", "pending", "BeginTime", "see what that reason means"),
        ("--hold", "held", "JobHeldUser", "see who holds jobs there"),
    ],
)
async def test_a_job_that_does_not_start_is_told_with_the_reason_that_slurm_gives(
    scene: Scene, tmp_path: Path, option: str, state: str, reason: str, remedy: str
) -> None:
    check = await checked(scene, tmp_path, f", options = [{json.dumps(option)}]", 15)

    cause = check["steps"]["status"]["cause"]
    assert cause["message"].startswith(f"the job is not running after 15 s: {state}"), check
    assert reason in cause["message"]
    assert cause["remedy"].startswith(remedy)
    assert results(check, "submit", "find", "kill", "purge", "clean") == dict.fromkeys(
        ("submit", "find", "kill", "purge", "clean"), "ok"
    )
    assert check["exit_code"] == 1


async def test_a_cluster_that_kills_jobs_at_once_is_told_so(scene: Scene, tmp_path: Path) -> None:
    sign = f"{scene.place}/reaping"
    await scene.as_account('touch "$1"', sign)
    reaping = asyncio.create_task(scene.cluster.run(_REAP, sign))
    try:
        check = await checked(scene, tmp_path)
    finally:
        await scene.as_account('rm "$1"', sign)
        await reaping

    # The first that looks at the job finds it dead.
    failed = next(name for name, result in results(check).items() if result == "failed")
    assert failed in ("status", "diagnostics", "counts", "kill")
    cause = check["steps"][failed]["cause"]
    assert "and not by us: failed, signal 9" in cause["message"], check
    assert cause["remedy"].startswith("look for what ends jobs there (limits on memory and time,")
    assert check["exit_code"] == 1
