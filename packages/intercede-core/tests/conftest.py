"""A temporary environment with distributions of other people, built and installed by pip.

The environment sees the packages of the one that runs the tests, these distributions besides. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

DISTRIBUTIONS = Path(__file__).parent / "distributions"
CORE = Path(__file__).parent.parent

#: One process for all: starting an interpreter takes longer than building one of these.
_BUILD = """
import os, sys
from hatchling.build import build_wheel
out, *folders = sys.argv[1:]
for folder in folders:
    os.chdir(folder)
    build_wheel(out)
"""


@frozen
class Environment:
    """A virtual environment beside the one that runs the tests.

    Attributes:
        folder: Where it is.
        packages: Where its packages are.
    """

    folder: Path
    packages: Path

    def pip_install(self, *arguments: str | Path) -> None:
        """Install without dependencies and without an index."""
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
        _run(sys.executable, "-m", "pip", "--python", self.python, "install", *options, *arguments)

    def tell(self, program: str) -> Any:
        """What a program leaves in `answer`, run by this environment's interpreter with `registry` at hand."""
        text = (
            "import json, sys, warnings; from intercede.core import *; from intercede.core import registry\n"
            f"{program}\nprint(json.dumps(answer))"
        )
        return json.loads(_run(self.python, "-W", "ignore", "-c", text))

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def _run(*command: str | Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def _new_environment(folder: Path) -> Environment:
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = folder / "lib" / version / "site-packages"
    ours = sysconfig.get_path("purelib")
    # A line of code, since a mere path would not follow the .pth files there, and editable installs consist of those.
    (packages / "the_tests_own.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return Environment(folder, packages)


def _wheels(out: Path, *folders: Path) -> list[Path]:
    before = set(out.glob("*.whl"))
    _run(sys.executable, "-c", _BUILD, out, *folders)
    return sorted(set(out.glob("*.whl")) - before)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with all of `distributions/`, one of them in place, but not the unrelated `intercede`."""
    environment = _new_environment(tmp_path_factory.mktemp("installed"))
    editable = DISTRIBUTIONS / "site-editable"
    others = [
        pyproject.parent
        for pyproject in DISTRIBUTIONS.glob("*/pyproject.toml")
        if pyproject.parent != editable and "unrelated" not in pyproject.parent.name
    ]
    wheels = _wheels(tmp_path_factory.mktemp("wheels"), *others)
    environment.pip_install(*wheels, "--editable", editable)
    return environment


@pytest.fixture(scope="session")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment where an unrelated `intercede` lies in the same folder as `intercede.core`."""
    environment = _new_environment(tmp_path_factory.mktemp("hidden"))
    wheels = _wheels(tmp_path_factory.mktemp("wheels"), CORE, DISTRIBUTIONS / "unrelated-intercede")
    environment.pip_install(*wheels)
    return environment


@pytest.fixture
def plugged(installed: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distributions of `installed` in this process, for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(installed.packages)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("site_", "twin_")):
            del sys.modules[name]
