"""README.md and docs/: every program in them runs as it stands, every link leads somewhere, every table is fresh."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    [
        ROOT / "README.md",
        ROOT / "packages" / "intercede-sync" / "README.md",
        ROOT / "packages" / "intercede-toolkit" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
_BLOCK: Final = re.compile(
    r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

#: What the programs expect beside them.
_ANALYSE: Final = """\
#!/bin/sh
set -eu
[ "$*" = "--events 1000 a b" ] && [ -s config.json ] && [ "$STAMP" = x ]
echo 1,2 > values.csv
mkdir plots
echo plot > plots/one.txt
"""


class Block(NamedTuple):
    """A block of code."""

    page: str
    language: str
    title: str
    text: str


def _blocks(language: str) -> list[Block]:
    return [
        Block(str(page.relative_to(ROOT)), *found)
        for page in PAGES
        for found in _BLOCK.findall(page.read_text(encoding="utf-8"))
        if found[0] == language
    ]


def _name(value: object) -> str:
    return f"{value.page}-{value.title}" if isinstance(value, Block) else str(value)


def _files_of(page: str, place: Path) -> None:
    """Write the page's titled blocks, and install what its pyproject.toml declares, as an installer would record it."""
    for block in _blocks("python") + _blocks("toml"):
        if block.page == page and block.title:
            (place / block.title).write_text(block.text, encoding="utf-8")
    project = place / "pyproject.toml"
    if not project.exists():
        return
    declared = tomllib.loads(project.read_text())["project"]
    folder = place / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n"
    )
    lines = []
    for group, points in declared["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


def _run(
    command: Sequence[str | Path], place: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(place / "home"), "PYTHONPATH": str(place), **more}
    (place / "home").mkdir(exist_ok=True)
    return subprocess.run(
        command,
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with what the programs need beside them."""
    script = tmp_path / "analyse.sh"
    script.write_text(_ANALYSE)
    script.chmod(0o755)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.json").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize("block", _blocks("python"), ids=_name)
def test_a_program_in_the_documentation_runs(block: Block, place: Path) -> None:
    _files_of(block.page, place)
    program = place / (block.title or "program.py")
    program.write_text(block.text, encoding="utf-8")

    ended = _run([sys.executable, program], place)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_readme_program_prints_what_its_jobs_made(place: Path) -> None:
    (program,) = (block for block in _blocks("python") if block.page == "README.md")
    (place / "program.py").write_text(program.text)

    lines = _run([sys.executable, "program.py"], place).stdout.splitlines()

    assert len(lines) == 3
    assert all(line.endswith("['plots/one.txt', 'values.csv']") for line in lines)
    assert len(list((place / "results").rglob("values.csv"))) == 3


def test_the_plugin_in_the_documentation_does_what_it_says(place: Path) -> None:
    _files_of("docs/writing-a-plugin.md", place)

    # 7 more than that of whoever runs this.
    expected = f"the job ran at niceness {min(os.nice(0) + 7, 19)}\n"
    assert _run([sys.executable, "use.py"], place).stdout == expected


def test_the_programs_pass_mypy_strict(place: Path) -> None:
    files: list[Path] = []
    for number, block in enumerate(_blocks("python")):
        path = place / (block.title or f"program_{number}.py")
        path.write_text(block.text, encoding="utf-8")
        files.append(path)

    options = ["--strict", "--config-file", "", "--cache-dir", str(place / "cache")]
    ended = _run([sys.executable, "-m", "mypy", *options, *files], place)

    assert ended.stdout == f"Success: no issues found in {len(files)} source files\n"


def test_the_toml_in_the_documentation_is_toml() -> None:
    for block in _blocks("toml"):
        tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(there), target


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_test_that_a_page_names_is_there() -> None:
    written = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
    folders = [ROOT / "packages", ROOT / "tests-contract"]
    files = [path for folder in folders for path in folder.rglob("test_*.py")]
    known = {name for path in files for name in written.findall(path.read_text("utf-8"))}
    modules = {path.stem for path in files}
    for page in PAGES:
        named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
        assert named <= known | modules, page


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = _LINK.findall(page.read_text(encoding="utf-8"))
        linked = {(page.parent / t.partition("#")[0]).resolve() for t in targets if "://" not in t}
        waiting += [p for p in linked if p.suffix == ".md" and p not in reached]

    assert sorted(reached & set(PAGES)) == PAGES


@pytest.mark.parametrize("script", ["demo", "test"])
def test_the_commands_of_the_readme_are_hatch_scripts(script: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    scripts = tomllib.loads((ROOT / "hatch.toml").read_text())["envs"]["default"]["scripts"]

    line = (
        f"python3 -m venv .venv && .venv/bin/pip install -q hatch && .venv/bin/hatch run {script}\n"
    )
    assert line in readme
    assert script in scripts


def test_the_tables_of_options_are_fresh() -> None:
    ended = subprocess.run([sys.executable, ROOT / "docs/options.py", "--check"], check=False)

    assert ended.returncode == 0, "run: python docs/options.py"


def test_every_built_in_plugin_has_a_table_of_options() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    declared = {
        f"{group.removeprefix('intercede.')}.{name}"
        for project in ROOT.glob("packages/*/pyproject.toml")
        for group, points in tomllib.loads(project.read_text())["project"]
        .get("entry-points", {})
        .items()
        for name in points
    }

    assert set(re.findall(r"<!-- options: (\S+) -->", page)) == declared


def test_the_distributions_in_the_tables_are_those_that_there_are() -> None:
    there = {
        tomllib.loads(path.read_text())["project"]["name"]
        for path in [
            *ROOT.glob("packages/*/pyproject.toml"),
            ROOT / "tests-contract/pyproject.toml",
        ]
    }

    for page in ("README.md", "docs/design.md"):
        rows = re.findall(r"^\| `(intercede-[\w-]+)` \|", (ROOT / page).read_text(), re.MULTILINE)
        assert set(rows) == there, page


def test_the_demo_runs_twenty_copies_brings_their_files_and_keeps_nothing_else(place: Path) -> None:
    ended = _run([sys.executable, ROOT / "docs/demo/demo.py", "out"], place)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    rows = re.findall(r"^ *\d+ +successful +0 +(.*?)  ", ended.stdout, re.MULTILINE)
    assert rows == ["histogram.csv, plots/histogram.txt"] * 20
    assert len(list((place / "out").rglob("histogram.csv"))) == 20
    said = {path.read_text().split(":")[0] for path in (place / "out").rglob("stdout")}
    assert said == {f"my first analysis, seed {seed}" for seed in range(1, 21)}
    kept = [path.name for path in (place / "home/.intercede/demo").iterdir()]
    assert [name for name in kept if not name.startswith(".")] == []
