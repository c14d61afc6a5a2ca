"""The house rules that no other tool checks: arrows that can break, and dependencies that are declared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intercede.core import registry

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS: list[dict[str, Any]] = CONFIG["tool"]["importlinter"]["contracts"]
FOLDERS = {path.parent.name: path.parent for path in sorted(ROOT.glob("packages/*/pyproject.toml"))}
FOLDERS["intercede-contract"] = ROOT / "tests-contract"


def project(distribution: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((FOLDERS[distribution] / "pyproject.toml").read_text())
    return table["project"]  # type: ignore[no-any-return]  # TOML has no types


def leaf(distribution: str) -> str:
    return distribution.replace("-", ".")


def source(root: Path, distribution: str) -> Path:
    """The folder of its leaf package, in a copy of the tree."""
    return root / distribution / "src" / leaf(distribution).replace(".", "/")


# ---------------------------------------------------------------- the arrows


def lint_imports(root: Path, config: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(root / distribution / "src") for distribution in FOLDERS)
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--config", config, "--no-cache"],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of all sources."""
    for distribution, folder in FOLDERS.items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder / "src", tmp_path / distribution / "src", ignore=ignored)
    return tmp_path


def test_the_arrows_hold(tree: Path) -> None:
    done = lint_imports(tree, ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_every_arrow_that_is_forbidden_is_caught(tree: Path) -> None:
    """One forbidden import for each contract: all of them must break, else a contract cannot fail."""
    places = {leaf(distribution): source(tree, distribution) for distribution in FOLDERS}
    for number, contract in enumerate(CONTRACTS):
        place = places[contract["source_modules"][0]]
        (place / f"_violation_{number}.py").write_text(
            f"import {contract['forbidden_modules'][-1]}\n"
        )
    done = lint_imports(tree, ROOT / "pyproject.toml")
    assert done.returncode == 1, done.stdout + done.stderr
    assert [c["name"] for c in CONTRACTS if f"{c['name']} BROKEN" not in done.stdout] == []


def test_every_distribution_has_its_arrows() -> None:
    leaves = {leaf(distribution) for distribution in FOLDERS}
    assert set(CONFIG["tool"]["importlinter"]["root_packages"]) == leaves
    assert set(CONFIG["tool"]["coverage"]["run"]["source_pkgs"]) == leaves
    for distribution in FOLDERS:
        name = leaf(distribution)
        [rule] = [rule for rule in CONTRACTS if rule["name"].startswith(f"{name} knows ")]
        known = set(re.findall(r"intercede[a-z.]*", rule["name"])) - {name}
        assert rule["source_modules"] == [name]
        assert set(rule["forbidden_modules"]) == leaves - known - {name}
        assert {leaf(other) for other in declared(distribution) if other in FOLDERS} <= known


def test_the_type_checker_is_told_of_every_distribution() -> None:
    paths = [str((folder / "src").relative_to(ROOT)) for folder in FOLDERS.values()]
    paths.append("tests-contract/outsider/src")  # no member of the workspace, and checked like one
    paths.append("tests-contract")  # the package stacks, which tests import
    assert sorted(CONFIG["tool"]["mypy"]["mypy_path"]) == sorted(paths)


# ---------------------------------------------------------------- dependencies


def declared(distribution: str) -> set[str]:
    return {
        line.partition(">")[0].partition("=")[0] for line in project(distribution)["dependencies"]
    }


def imported(folder: Path) -> Iterator[str]:
    """What the modules beneath a folder import, dotted, wherever in the module."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def provider(name: str) -> str | None:
    """The distribution that a module belongs to; None for the standard library."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if top != "intercede":
        return {"attr": "attrs", "_pytest": "pytest"}.get(top, top).replace("_", "-")
    owners = [d for d in FOLDERS if name == leaf(d) or name.startswith(f"{leaf(d)}.")]
    assert owners, f"{name} belongs to no distribution"
    return max(owners, key=len)


@pytest.mark.parametrize("distribution", FOLDERS)
def test_what_is_imported_is_declared(distribution: str) -> None:
    used = {provider(name) for name in imported(FOLDERS[distribution] / "src")}
    assert used - {None, distribution} - declared(distribution) == set()


def test_the_contract_needs_attrs_and_cattrs_and_nothing_else() -> None:
    assert declared("intercede-core") == {"attrs", "cattrs"}
    used = {provider(name) for name in imported(FOLDERS["intercede-core"] / "src")}
    assert used == {None, "attrs", "cattrs", "intercede-core"} - {"intercede-core"}


def test_every_distribution_is_named_like_its_folder_and_its_package() -> None:
    for distribution, folder in FOLDERS.items():
        assert project(distribution)["name"] == distribution
        initials = [p.relative_to(folder / "src") for p in (folder / "src").rglob("__init__.py")]
        shallowest = min(initials, key=lambda path: len(path.parts))
        assert ".".join(shallowest.parent.parts) == leaf(distribution)


def test_every_distribution_with_plugins_is_known_as_built_in() -> None:
    groups = {f"intercede.{group}" for group in registry.GROUPS}
    providing = {d for d in FOLDERS if groups & set(project(d).get("entry-points", {}))}
    assert providing <= registry.BUILT_IN
    assert providing
