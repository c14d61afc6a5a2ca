"""The suite in a stack's container, as the account whose jobs run there: with the local transport, as a service of the site's would be.

What it imports are wheels, ours built here and the others fetched by this machine's pip. They are kept beside the stack's keys under the
hash of what they were made of, and installed in the container once for each.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ._engine import Engine
from ._errors import StackError
from ._life import Running

__all__ = ["PLACE", "distributions", "installed", "wheels"]

#: Where everything of the suite is in the container.
PLACE: Final = "/opt/suite"
_HERE: Final = Path(__file__).resolve().parent
_REPOSITORY: Final = _HERE.parents[1]
_TIMEOUT_S: Final = 300.0
_INSTALL: Final = """
cd "$1"
rm -rf venv
python3 -m venv venv
venv/bin/pip install --quiet --no-index --find-links "wheels-$2" intercede-contract intercede-backend-batch "$3" "$4" pytest-xdist
touch "installed-$2"
"""
Say = Callable[[str], None]


def installed(engine: Engine, there: Running, say: Say) -> None:
    """See to it that the container has the suite, and what it needs, as they are now.

    Raises:
        StackError: Something cannot be built, fetched or installed.
    """
    python = engine.run("exec", there.container, "python3", "-c", _VERSION).strip()
    names = distributions(there.stack.scheduler["type"])
    folder = wheels(there.folder, names, python, say)
    with tempfile.TemporaryDirectory(prefix="intercede-stacks-") as place:
        suite = Path(place, "suite")
        (suite / "stacks").mkdir(parents=True)
        for path in [*_HERE.glob("*.py"), *_HERE.glob("*.toml")]:
            shutil.copy(path, suite / "stacks")
        engine.run("cp", str(suite), f"{there.container}:{Path(PLACE).parent}")
    if engine.tries("exec", there.container, "test", "-e", f"{PLACE}/installed-{folder.name}"):
        return
    engine.run("cp", str(folder), f"{there.container}:{PLACE}/wheels-{folder.name}")
    words = (PLACE, folder.name, *names[-2:])
    command = ("sh", "-euc", _INSTALL, "install", *words)
    engine.run("exec", there.container, *command, timeout_s=_TIMEOUT_S)


_VERSION: Final = "import sys; print('{}.{}'.format(*sys.version_info))"


def distributions(scheduler: str) -> Sequence[str]:
    """Those of ours that the suite needs there."""
    return [
        "intercede-contract",
        "intercede-core",
        "intercede-toolkit",
        "intercede-backend-batch",
        "intercede-transport-local",
        f"intercede-scheduler-{scheduler}",
    ]


def wheels(beside: Path, names: Sequence[str], python: str, say: Say) -> Path:
    """A folder with the wheels of these distributions of ours, and of all that they need under this Python.

    Raises:
        StackError: Something cannot be built or fetched.
    """
    projects = [_project(name) for name in names]
    folder = beside / "wheels" / _hash(projects, python)
    if folder.is_dir():
        return folder
    shutil.rmtree(folder.parent, ignore_errors=True)  # of older sources
    folder.parent.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as place:
        made = Path(place, "wheels")
        made.mkdir(mode=0o755)
        for project in projects:
            _python("hatchling", "build", "-t", "wheel", "-d", str(made), cwd=project)
        options = ["--quiet", "--dest", str(made), "--find-links", str(made)]
        # Built for another Python than ours, so nothing that must be compiled.
        options += ["--only-binary", ":all:", "--python-version", python]
        _python("pip", "download", *options, *names, "pytest-xdist", cwd=made)
        made.rename(folder)
    say(f"built and fetched {len(list(folder.iterdir()))} wheels")
    return folder


def _project(name: str) -> Path:
    if name == "intercede-contract":
        return _HERE.parent
    return _REPOSITORY / "packages" / name


def _hash(projects: Sequence[Path], python: str) -> str:
    """What the sources come to."""
    digest = hashlib.sha256(python.encode())
    files = [_REPOSITORY / "pyproject.toml"]
    for project in projects:
        files += [project / "pyproject.toml", *sorted((project / "src").rglob("*"))]
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"\0{file.relative_to(_REPOSITORY)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _python(*words: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise StackError(f"{' '.join(words[:2])}: exit code {done.returncode}\n{said}")
