"""A stack's life: up, ready, down, and what is known of it meanwhile."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from ._container import Container, name_of
from ._engine import LABEL, Engine
from ._errors import StackError
from ._images import image_for
from ._manifest import Stack
from ._state import folder_of, folders, fresh_folder, remove_folder, write_private
from ._ways import WAYS, Way

__all__ = ["Running", "bring_down", "bring_up", "left_over", "logs", "running"]

_READY_WITHIN_S: Final = 90.0
_LOG_LINES: Final = 40
Say = Callable[[str], None]


@frozen
class Running:
    """A stack that is up.

    Attributes:
        stack: What the manifest says of it.
        port: Where on 127.0.0.1 one comes in.
        announced: What the daemon there said.
        folder: Keys, passwords and settings for clients.
        home: The home directory of the stack's account.
        inputs: The hash of what it was started with.
    """

    stack: Stack
    port: int
    announced: str
    folder: Path
    home: str
    inputs: str

    @property
    def way(self) -> Way:
        """How one comes in."""
        return WAYS[self.stack.way]

    @property
    def container(self) -> str:
        """The name of the container in which the jobs run."""
        return name_of(self.stack)


def bring_up(engine: Engine, stack: Stack, say: Say) -> Running:
    """Start a stack and wait until it is ready; one that is up and would be the same stays as it is.

    Raises:
        StackError: It does not come up; with the logs of its containers.
    """
    image = image_for(engine, stack, say)
    try:
        there = running(stack)
    except StackError:
        there = None
    inputs = hashlib.sha256(f"{image} {stack}".encode()).hexdigest()
    if there is not None and there.inputs == inputs:
        return there
    _remove(engine, stack.id)
    folder = fresh_folder(stack.id)
    way = WAYS[stack.way]
    containers = way.containers(stack, folder)
    try:
        for container in containers:
            _start(engine, stack, image, container)
        port = _published(engine, containers[0])
        announced = _wait(engine, stack, way, port, containers)
    except StackError as error:
        told = "\n".join(logs(engine, stack, lines=_LOG_LINES))
        _remove(engine, stack.id)
        raise StackError(f"{stack.id}: {error}\n{told}".rstrip()) from None
    way.describe(stack, folder, port)
    home = _home(engine, stack)
    state = {"port": port, "announced": announced, "home": home, "inputs": inputs}
    write_private(folder / "state.json", json.dumps(state))
    return Running(stack, port, announced, folder, home, inputs)


def _home(engine: Engine, stack: Stack) -> str:
    """The home directory of the stack's account."""
    for line in engine.run("exec", name_of(stack), "cat", "/etc/passwd").splitlines():
        name, *_, home, _ = line.split(":")
        if name == stack.account:
            return home
    raise StackError(f"{stack.id}: there is no account {stack.account!r} in it")


def _start(engine: Engine, stack: Stack, image: str, container: Container) -> None:
    options = ["--name", container.name, "--label", f"{LABEL}={stack.id}", *engine.limits]
    if container.publish is not None:
        options += ["--hostname", stack.id, "--publish", f"127.0.0.1::{container.publish}"]
    if container.name == name_of(stack):
        options += stack.options
    engine.run("create", *options, *container.options, image)
    with tempfile.TemporaryDirectory(prefix="intercede-stacks-") as place:
        for mode, files in ((0o600, container.files), (0o644, container.public)):
            for name, content in files.items():
                path = Path(place, "stack", name)
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                path.touch(mode)
                path.chmod(mode)
                path.write_text(content)
        engine.run("cp", f"{place}/stack", f"{container.name}:/")
    engine.run("start", container.name)


def _published(engine: Engine, container: Container) -> int:
    said = engine.run("port", container.name, f"{container.publish}/tcp")
    if not said.strip():
        raise StackError(f"{container.name} has ended")
    return int(said.split()[0].rpartition(":")[2])


def _wait(
    engine: Engine, stack: Stack, way: Way, port: int, containers: Sequence[Container]
) -> str:
    """Wait until everything answers; return what the daemon says it is."""
    deadline = time.monotonic() + _READY_WITHIN_S
    why = "it did not answer"
    while time.monotonic() < deadline:
        for one in containers:
            if engine.run("inspect", "--format", "{{.State.Running}}", one.name).strip() != "true":
                raise StackError(f"{one.name} has ended")
        try:
            announced = way.announced(port)
            for one in containers:
                if one.ready:
                    engine.run("exec", one.name, "sh", "-c", one.ready, timeout_s=30)
        except (OSError, StackError) as error:
            why = str(error)
            time.sleep(0.2)
            continue
        if stack.announces:
            announced = engine.run("exec", name_of(stack), "sh", "-c", stack.announces).strip()
        if stack.version not in announced:
            raise StackError(
                f"{announced!r} is not the version {stack.version!r} of the manifest: correct stacks.toml"
            )
        return announced
    raise StackError(f"not ready within {_READY_WITHIN_S:g} s: {why}")


def running(stack: Stack) -> Running:
    """A stack that is up and answers.

    Raises:
        StackError: It is not, and why.
    """
    folder = folder_of(stack.id)
    try:
        state = json.loads((folder / "state.json").read_text())
        WAYS[stack.way].announced(state["port"])
        return Running(
            stack, state["port"], state["announced"], folder, state["home"], state["inputs"]
        )
    except (OSError, ValueError, KeyError):
        raise StackError(f"{stack.id} is not up: stacks up {stack.id}") from None


def bring_down(engine: Engine, stack: str) -> bool:
    """Remove all that a stack has here but its image; whether there was anything."""
    there = bool(engine.containers(stack)) or folder_of(stack).exists()
    _remove(engine, stack)
    remove_folder(stack)
    return there


def _remove(engine: Engine, stack: str) -> None:
    """Remove the containers, those that share another's network first."""
    found = engine.containers(stack)
    guests = [one for one in found if one["HostConfig"]["NetworkMode"].startswith("container:")]
    hosts = [one for one in found if one not in guests]
    for some in (guests, hosts):
        engine.remove(one["Id"] for one in some)


def logs(engine: Engine, stack: Stack, lines: int | None = None) -> list[str]:
    """What the containers have said."""
    told = []
    for one in engine.containers(stack.id):
        options = [] if lines is None else ["--tail", str(lines)]
        done = subprocess.run(
            [*engine.command, "logs", *options, one["Id"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
        told += [f"--- {one['Name'].lstrip('/')} ({one['State']['Status']})", done.stdout.rstrip()]
    return told


def left_over(engine: Engine) -> list[str]:
    """Stacks that have containers or a folder here, also such as the manifest no longer knows."""
    ids = {str(one["Config"]["Labels"][LABEL]) for one in engine.containers()}
    return sorted(ids | set(folders()))
