"""Every liar is caught by an assertion of the rule that it breaks, and no rule fails that it does not declare.

Each with the tests of its rule's family: `hatch run pytest tests-contract/liars -n 2`. With the whole suite: `hatch run liars --all`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from intercede.contract import RULES

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE.parent / "docs/contract-rules.md"
PARTS = 24


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_every_liar_is_caught_by_its_own_rule_and_breaks_no_more_than_it_declares(
    part: int,
) -> None:
    done = run("liars", "--part", f"{part}/{PARTS}")
    assert done.stdout.count("as declared") > 8, done.stdout + done.stderr
    # A busy machine can spoil what depends on time, once.
    if wrong := re.findall(r"^\S+ +(\S+) +WRONG", done.stdout, re.MULTILINE):
        again = run("liars", *wrong)
        assert again.returncode == 0, done.stdout + again.stdout + again.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_honest_are_not_caught() -> None:
    done = run("liars", "honest", "honest_transport", "honest_queue", "honest_direct")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_liar_that_declares_too_little_or_is_not_caught_is_reported() -> None:
    done = run("liars.mutate", "--only", "closed_backend_does_not_open")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 tests are needed" in done.stdout


def test_every_rule_has_a_liar() -> None:
    rows = re.findall(r"^\| ([A-Z]\d) \|.*\| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    liars = {rule: cell for rule, cell in rows if cell.strip().startswith("`")}
    assert RULES.keys() <= liars.keys()


def test_the_tables_of_rules_are_fresh() -> None:
    assert run("liars.page", "--check").returncode == 0, (
        "run: cd tests-contract && python -m liars.page"
    )
