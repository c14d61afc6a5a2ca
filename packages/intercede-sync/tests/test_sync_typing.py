"""What the type checker makes of programs that use the facade. A line that must be rejected ends with `# E: <code>`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"

pytestmark = pytest.mark.xdist_group("mypy")

Found = set[tuple[str, int, str]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """File, line and code of all errors in all programs: one run, since the libraries' stubs take most of the time."""
    folder = tmp_path_factory.mktemp("mypy")
    options = ["--strict", "--config-file=", f"--cache-dir={folder}", "--no-error-summary"]
    programs = sorted(PROGRAMS.glob("*/*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *programs],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=PROGRAMS,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    assert len(lines) == done.stdout.count(" error: "), done.stdout
    yield {(Path(file).name, int(line), code) for file, line, code in lines}


def expected(program: Path) -> Found:
    lines = enumerate(program.read_text().splitlines(), 1)
    marks = ((number, re.search(r"# E: ([a-z-]+)$", line)) for number, line in lines)
    return {(program.name, number, mark[1]) for number, mark in marks if mark}


@pytest.mark.parametrize("name", sorted(p.name for p in PROGRAMS.glob("accepted/*.py")))
def test_a_correct_program_passes_strictly_as_it_stands(found: Found, name: str) -> None:
    assert {error for error in found if error[0] == name} == set()


@pytest.mark.parametrize("name", sorted(p.name for p in PROGRAMS.glob("rejected/*.py")))
def test_every_mistake_is_rejected_with_its_code_and_nothing_else_is(
    found: Found, name: str
) -> None:
    mistakes = expected(PROGRAMS / "rejected" / name)
    assert mistakes
    assert {error for error in found if error[0] == name} == mistakes
