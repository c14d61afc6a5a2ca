"""Images: pulled or made once, built once, named by the hash of what goes into them.

The base is Debian's own image where a registry answers, and the same packages by debootstrap where none does. An image's tag is the hash
of its recipe's files and its base: nothing changed, nothing is built.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ._engine import Engine
from ._errors import StackError
from ._manifest import Stack
from ._packages import mirror, write_settings

__all__ = ["RECIPES", "image_for", "recipe_below", "recipe_hash"]

RECIPES: Final = Path(__file__).with_name("recipes")
_PREFIX: Final = "localhost/intercede-stacks"
_PULLED: Final = "docker.io/library/debian:{suite}-slim"
_PULL_TIMEOUT_S: Final = 300.0
_BUILD_TIMEOUT_S: Final = 900.0
_BELOW: Final = re.compile(r"^ARG BASE=(\S+)$", re.MULTILINE)
_SCRIPTS: Final = Path("/usr/share/debootstrap/scripts")
#: What is this machine's own, or of use to nobody.
_LEFT_OUT: Final = (
    "./etc/apt/sources.list",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./proc/*",
    "./sys/*",
    "./var/cache/apt/*.bin",
    "./var/cache/apt/archives/*.deb",
    "./var/lib/apt/lists/*",
)
#: What a registry out of reach made the engine say: it is asked once, and not for every suite.
_refusals: dict[str, str] = {}
Say = Callable[[str], None]


def image_for(engine: Engine, stack: Stack, say: Say) -> str:
    """The name of the stack's image, which is on this machine afterwards.

    Args:
        engine: Who keeps it.
        stack: Whose.
        say: Told of what takes long.

    Raises:
        StackError: It can neither be pulled nor made, or its recipe fails.
    """
    return _built(engine, stack.recipe, stack.suite, say)


def _built(engine: Engine, recipe: str, suite: str, say: Say) -> str:
    below = recipe_below(recipe)
    base = _built(engine, below, suite, say) if below else _base(engine, suite, say)
    base_id = engine.image_id(base) or ""
    name = f"{_PREFIX}/{recipe}-{suite}:{recipe_hash(recipe, base_id)}"
    if engine.image_id(name) is None:
        begun = time.monotonic()
        _build(engine, recipe, suite, base, name)
        say(f"built {name} in {time.monotonic() - begun:.0f} s")
    return name


def recipe_below(recipe: str, recipes: Path = RECIPES) -> str:
    """The recipe on whose image this one builds, by the default of its BASE; empty: on Debian itself."""
    found = _BELOW.search((recipes / recipe / "Containerfile").read_text("utf-8"))
    return found[1] if found else ""


def recipe_hash(recipe: str, base: str, recipes: Path = RECIPES) -> str:
    """What the recipe's files and its base come to, in 16 digits."""
    folder = recipes / recipe
    if not (folder / "Containerfile").is_file():
        raise StackError(f"no recipe {recipe!r}: {folder / 'Containerfile'} is not there")
    digest = hashlib.sha256(base.encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        executable = os.access(file, os.X_OK)
        digest.update(f"\0{file.relative_to(folder)}\0{executable}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build(engine: Engine, recipe: str, suite: str, base: str, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="intercede-stacks-") as place:
        context = Path(place, "context")
        shutil.copytree(RECIPES / recipe, context)
        write_settings(context / ".apt", suite)
        options = ["--file", str(context / "Containerfile"), "--build-arg", f"BASE={base}"]
        for variable in ("http_proxy", "https_proxy", "no_proxy"):
            if os.environ.get(variable):
                options += ["--build-arg", variable]
        engine.run(
            *("build", "--network", "host", "--tag", name, *options, str(context)),
            timeout_s=_BUILD_TIMEOUT_S,
            env={"DOCKER_BUILDKIT": "1"},  # RUN --mount
        )


# ---------------------------------------------------------------- the base


def _base(engine: Engine, suite: str, say: Say) -> str:
    name = f"{_PREFIX}/debian:{suite}"
    if engine.image_id(name) is not None:
        return name
    begun = time.monotonic()
    pulled = _PULLED.format(suite=suite)
    refusal = _refusals.get(engine.program) or _pull(engine, pulled)
    if refusal:
        _refusals[engine.program] = refusal
        _bootstrap(engine, suite, name, f"{pulled} cannot be pulled ({refusal})")
        how = "made with debootstrap"
    else:
        engine.run("tag", pulled, name)
        how = "pulled"
    say(f"{how} {name} in {time.monotonic() - begun:.0f} s")
    return name


def _pull(engine: Engine, image: str) -> str:
    """Pull an image; why not, if it cannot be had."""
    try:
        engine.run("pull", "--quiet", image, timeout_s=_PULL_TIMEOUT_S)
    except StackError as error:
        return str(error).splitlines()[-1]
    return ""


def _bootstrap(engine: Engine, suite: str, name: str, why: str) -> None:
    if os.geteuid() != 0:
        raise StackError(f"{why}, and only root can make it with debootstrap: run this as root")
    if shutil.which("debootstrap") is None:
        raise StackError(f"{why}, and debootstrap is not there: apt-get install debootstrap")
    with tempfile.TemporaryDirectory(
        prefix="intercede-stacks-", dir="/var/tmp"
    ) as place:  # /tmp may be memory
        root, said = Path(place, "root"), Path(place, "said")
        command = ["debootstrap", "--variant=minbase", suite, str(root)]
        where = mirror()
        known = (_SCRIPTS / suite).exists()
        if where is not None or not known:
            # A suite that is newer than this debootstrap is made like sid.
            command += [where or "", *([] if known else [str(_SCRIPTS / "sid")])]
        with said.open("w") as log:
            code = subprocess.run(
                command, stdout=log, stderr=log, timeout=_BUILD_TIMEOUT_S, check=False
            ).returncode
        if code != 0:
            last = "\n".join(said.read_text(errors="replace").splitlines()[-15:])
            raise StackError(f"{why}, and debootstrap failed with exit code {code}\n{last}")
        _import(engine, root, name, keep_sources=where is None)


def _import(engine: Engine, root: Path, name: str, *, keep_sources: bool) -> None:
    left_out = [f"--exclude={path}" for path in _LEFT_OUT[keep_sources:]]
    tar = subprocess.Popen(
        ["tar", "-C", root, *left_out, "--numeric-owner", "-c", "."], stdout=subprocess.PIPE
    )
    done = subprocess.run(
        [*engine.command, "import", "-", name],
        stdin=tar.stdout,
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )
    if tar.stdout is not None:
        tar.stdout.close()
    if tar.wait() != 0 or done.returncode != 0:
        raise StackError(f"{name} could not be imported\n{done.stderr.strip()}")
