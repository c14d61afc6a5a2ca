"""Podman or Docker, whichever is there: the few commands that both have in common.

Nothing is written outside our own names: images `localhost/intercede-stacks/...`, containers `intercede-...` with the label
`intercede.stack`. What a machine needs besides, such as another runtime, goes into flags, never into its configuration.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from ._errors import StackError

__all__ = ["LABEL", "Engine", "find_engine"]

#: What marks our containers; its value is the stack's id.
LABEL: Final = "intercede.stack"
_PROGRAMS: Final = ("podman", "docker")
_REMEDY: Final = (
    "stacks need Podman or Docker: as root `apt-get install podman runc netavark iptables` (or Docker's own packages), then as root, or"
    " as a user with rootless Podman or in the group docker; everything else in this repository is tested without them"
)
#: Seconds that a command of the engine may take that neither builds nor pulls.
_TIMEOUT_S: Final = 120.0
#: Processes and files for a stack; never more than this process could give itself.
_LIMIT: Final = 20_000
_CGROUPS: Final = Path("/sys/fs/cgroup")


@frozen
class Engine:
    """A container engine.

    Attributes:
        program: `podman` or `docker`, in full.
        flags: What precedes every command.
        limits: What every `run` needs here.
    """

    program: str
    flags: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """What begins every command line."""
        return [self.program, *self.flags]

    def run(
        self, *arguments: str, timeout_s: float = _TIMEOUT_S, env: dict[str, str] | None = None
    ) -> str:
        """Run one command; return what it printed.

        Raises:
            StackError: It failed, or took too long; with its own words.
        """
        words = f"{Path(self.program).name} {' '.join(arguments)}"
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StackError(f"{words}: nothing within {timeout_s:g} s") from None
        if done.returncode != 0:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
            raise StackError(f"{words}: exit code {done.returncode}\n{said}")
        return done.stdout

    def tries(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> bool:
        """Whether a command succeeds."""
        try:
            self.run(*arguments, timeout_s=timeout_s)
        except StackError:
            return False
        return True

    def image_id(self, name: str) -> str | None:
        """The id of an image that is on this machine; None if it is not."""
        try:
            return self.run("image", "inspect", "--format", "{{.Id}}", name).strip()
        except StackError:
            return None

    def containers(self, stack: str | None = None) -> list[dict[str, Any]]:
        """What the engine knows of our containers, running or not."""
        label = LABEL if stack is None else f"{LABEL}={stack}"
        ids = self.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()
        if not ids:
            return []
        found: list[dict[str, Any]] = json.loads(self.run("container", "inspect", *ids))
        return sorted(found, key=lambda one: str(one["Name"]))

    def remove(self, names: Iterable[str]) -> None:
        """Remove containers of ours with all they hold."""
        chosen = list(names)
        if chosen:
            self.run("rm", "--force", "--volumes", *chosen)


def find_engine() -> Engine:
    """The engine of this machine.

    Raises:
        StackError: There is none that answers; says in one line what to do.
    """
    said = []
    for program in _PROGRAMS:
        path = shutil.which(program)
        if path is None:
            continue
        engine = Engine(path, *_settings(program))
        try:
            engine.run("info", timeout_s=30)
        except StackError as error:
            said.append(str(error).splitlines()[-1])
        else:
            return engine
    raise StackError("; ".join([*said, _REMEDY]))


def _settings(program: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags and limits without which Podman cannot start a container on some machines; Docker's daemon has its own."""
    if program != "podman":
        return (), ()
    hybrid = (_CGROUPS / "unified").is_dir()
    flags = ("--runtime", "runc") if hybrid and _has("runc") else ()  # crun: "not supported"
    return flags, tuple(_ulimits())


def _has(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _ulimits() -> Sequence[str]:
    """Podman asks for a million by default, which not every root may have."""
    options = []
    for name, which in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(which)[1]
        limit = _LIMIT if hard == resource.RLIM_INFINITY else min(hard, _LIMIT)
        options += ["--ulimit", f"{name}={limit}:{limit}"]
    return options
