"""What users install: wheels and sdists, built here, each installed alone into an environment of its own."""

from __future__ import annotations

import email
import email.message
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".ci" / "build.py"

#: No distribution may own these: a namespace with an `__init__.py` hides what the others put there.
NAMESPACES = ["intercede", "intercede/backend", "intercede/transport", "intercede/scheduler"]

PYPROJECTS = [
    ROOT / "pyproject.toml",
    *sorted(ROOT.glob("packages/*/pyproject.toml")),
    ROOT / "tests-contract" / "pyproject.toml",
]
PROJECTS: Mapping[str, dict[str, Any]] = {
    table["project"]["name"]: table["project"]
    for table in (tomllib.loads(path.read_text()) for path in PYPROJECTS)
}
VERSION: str = PROJECTS["intercede"]["version"]
WITH_CODE = [name for name in PROJECTS if name != "intercede"]

pytestmark = pytest.mark.xdist_group("packaging")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def import_name(distribution: str) -> str:
    """`intercede-a-b` is imported as `intercede.a.b`."""
    return distribution.replace("-", ".")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all wheels and sdists."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, BUILD, folder)
    return folder


@pytest.fixture(scope="module")
def house(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all wheels and all that they depend on, so that the index is asked once."""
    folder = tmp_path_factory.mktemp("house")
    options: list[str | Path] = ["--quiet", "--wheel-dir", folder, "--find-links", built]
    run(sys.executable, "-m", "pip", "wheel", *options, *sorted(built.glob("*.whl")))
    return folder


def wheel(built: Path, distribution: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(built / f"{distribution.replace('-', '_')}-{VERSION}-py3-none-any.whl")


def sdist(built: Path, distribution: str) -> tarfile.TarFile:
    return tarfile.open(built / f"{distribution.replace('-', '_')}-{VERSION}.tar.gz")


def metadata(built: Path, distribution: str) -> email.message.Message:
    with wheel(built, distribution) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def files_outside_metadata(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if ".dist-info/" not in name]


# ---------------------------------------------------------------- what is in them


def test_no_two_wheels_own_one_file_and_none_owns_a_namespace(built: Path) -> None:
    owned: Counter[str] = Counter()
    for distribution in PROJECTS:
        with wheel(built, distribution) as archive:
            owned.update(archive.namelist())
    assert [name for name, owners in owned.items() if owners > 1] == []
    assert [name for name in NAMESPACES if f"{name}/__init__.py" in owned] == []
    assert f"{NAMESPACES[0]}/core/__init__.py" in owned


def test_the_root_distribution_has_no_code(built: Path) -> None:
    with wheel(built, "intercede") as archive:
        assert files_outside_metadata(archive) == []


@pytest.mark.parametrize("distribution", WITH_CODE)
def test_a_wheel_holds_its_own_folder_and_says_that_it_is_typed(
    built: Path, distribution: str
) -> None:
    folder = import_name(distribution).replace(".", "/")
    with wheel(built, distribution) as archive:
        files = files_outside_metadata(archive)
    assert f"{folder}/__init__.py" in files
    assert f"{folder}/py.typed" in files
    assert [name for name in files if not name.startswith(f"{folder}/")] == []


@pytest.mark.parametrize("distribution", PROJECTS)
def test_wheels_and_sdists_hold_the_licence_itself(built: Path, distribution: str) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    with wheel(built, distribution) as archive:
        name = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        assert archive.read(name) == text
    with sdist(built, distribution) as stream:
        member = next(
            item for item in stream if item.name.count("/") == 1 and item.name.endswith("/LICENSE")
        )
        content = stream.extractfile(member)
        assert member.isreg()
        assert content is not None
        assert content.read() == text


@pytest.mark.parametrize("distribution", PROJECTS)
def test_the_metadata_is_the_same_for_all(built: Path, distribution: str) -> None:
    said = metadata(built, distribution)
    assert said["Name"] == distribution
    assert said["Version"] == VERSION
    assert said["License-Expression"] == "GPL-3.0-only"
    assert said["Requires-Python"] == ">=3.11"
    assert said["Summary"]
    assert str(said.get_payload()).strip()
    assert any("github.com/DIRACGrid/intercede" in url for url in said.get_all("Project-URL", []))
    classifiers = set(said.get_all("Classifier", []))
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)}
    assert classifiers >= pythons | {"Typing :: Typed", "Framework :: AsyncIO"}
    assert not [line for line in classifiers if line.startswith("License ::")]


@pytest.mark.parametrize("distribution", PROJECTS)
def test_distributions_require_each_other_of_the_same_minor_version(
    built: Path, distribution: str
) -> None:
    major, minor, *_ = VERSION.split(".")
    ours = [
        line.partition(";")[0].strip()
        for line in metadata(built, distribution).get_all("Requires-Dist", [])
        if line.startswith("intercede-")
    ]
    bounds = f"<{major}.{int(minor) + 1},>={major}.{minor}"
    assert [line for line in ours if not line.endswith(bounds)] == []


def test_a_wheel_made_from_an_sdist_is_the_same_wheel(built: Path, tmp_path: Path) -> None:
    for distribution in PROJECTS:
        with sdist(built, distribution) as stream:
            stream.extractall(tmp_path, filter="data")
        folder = tmp_path / f"{distribution.replace('-', '_')}-{VERSION}"
        out = tmp_path / "again"
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=folder)
        with wheel(built, distribution) as one, wheel(out, distribution) as other:
            assert {i.filename: i.CRC for i in one.filelist} == {
                i.filename: i.CRC for i in other.filelist
            }


# ---------------------------------------------------------------- what they do alone

#: Prints what the installed distribution is: where it was imported from, and its entry points, each of them loaded.
ALONE = """
import importlib, importlib.metadata, json, sys
name, module = sys.argv[1:]
imported = importlib.import_module(module)
distribution = importlib.metadata.distribution(name)
points = sorted(p.name for p in distribution.entry_points if p.load() is not None)
missing = [n for n in imported.__all__ if not hasattr(imported, n)]
others = sorted(d.name for d in importlib.metadata.distributions() if d.name.startswith("intercede"))
print(json.dumps([imported.__file__, distribution.version, points, missing, others]))
"""


def install(house: Path, folder: Path, *requirements: str) -> Path:
    """The interpreter of a new environment with these and what they require, and nothing else."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    options: list[str | Path] = ["--quiet", "--no-compile", "--no-index", "--find-links", house]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *requirements)
    return python


@pytest.mark.parametrize("distribution", WITH_CODE)
def test_a_distribution_works_alone(house: Path, tmp_path: Path, distribution: str) -> None:
    python = install(house, tmp_path / "env", f"{distribution}=={VERSION}")
    project = PROJECTS[distribution]
    told = json.loads(run(python, "-I", "-c", ALONE, distribution, import_name(distribution)))
    file, version, points, missing, others = told
    assert Path(file).is_relative_to(tmp_path)
    assert version == VERSION
    declared = [project.get("scripts", {}), *project.get("entry-points", {}).values()]
    assert points == sorted(name for group in declared for name in group)
    assert missing == []
    required = {line.partition(">")[0] for line in project["dependencies"]}
    assert set(others) == {distribution} | {name for name in required if name in PROJECTS}


def test_the_root_distribution_brings_what_its_extras_say(house: Path, tmp_path: Path) -> None:
    python = install(house, tmp_path / "env", f"intercede[all,testing]=={VERSION}")
    program = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    run(python, "-I", "-c", program, *[import_name(name) for name in WITH_CODE])


def test_every_distribution_is_in_an_extra_of_the_root() -> None:
    root = PROJECTS["intercede"]
    lines = [
        *root["dependencies"],
        *(line for extra in root["optional-dependencies"].values() for line in extra),
    ]
    named = {line.partition(">")[0] for line in lines if not line.startswith("intercede[")}
    assert named <= set(WITH_CODE)
    assert set(WITH_CODE) - named <= {"intercede-toolkit"}  # comes with those that need it
