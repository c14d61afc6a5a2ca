"""What importing the contract costs, and what it brings in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

import intercede.core as core

BUDGET_S = 0.060
#: A slow machine takes longer for any import: there it is so many times what our one dependency takes.
SLOW_BUDGET = 1.75
#: Other work on the machine makes a run dearer and never cheaper: the least of many is the import's own.
ROUNDS = 40


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Without what measures coverage or keeps bytecode from being written."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTHON"))}
    return {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}


def run(program: str, environment: dict[str, str]) -> tuple[str, float]:
    """What it printed, and the CPU time that it took."""
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    after = getrusage(RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_the_contract_costs_at_most_60_ms(environment: dict[str, str]) -> None:
    bare, attrs, ours = [], [], []
    run("import intercede.core", environment)  # writes the bytecode
    for _ in range(ROUNDS):
        bare.append(run("pass", environment)[1])
        attrs.append(run("import attrs", environment)[1])
        ours.append(run("import intercede.core", environment)[1])
        budget = max(BUDGET_S, SLOW_BUDGET * (min(attrs) - min(bare)))
        if min(ours) - min(bare) <= budget:
            return
    pytest.fail(
        f"{1000 * (min(ours) - min(bare)):.0f} ms of {1000 * budget:.0f}; see python -X importtime"
    )


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        (
            "import intercede.core",
            ["asyncio", "anyio", "cattrs", "importlib.metadata", "json", "base64", "difflib"],
        ),
        (
            "from intercede.core import registry",
            ["asyncio", "anyio", "cattrs", "importlib.metadata"],
        ),
        ("from intercede.core import registry; registry.plugins()", ["asyncio", "anyio", "cattrs"]),
        (
            "from intercede.core import SubmissionSpec, from_json, to_json\n"
            "from_json(SubmissionSpec, to_json(SubmissionSpec('x')))",
            ["asyncio", "anyio", "importlib.metadata"],
        ),
    ],
)
def test_an_import_brings_in_nothing_that_it_does_not_need(
    environment: dict[str, str], program: str, absent: list[str]
) -> None:
    printed, _ = run(f"import sys\n{program}\nprint(*sys.modules)", environment)
    assert set(absent) & set(printed.split()) == set()


def test_every_public_name_is_there_and_no_other(environment: dict[str, str]) -> None:
    program = (
        "import intercede.core as c; print(*(n for n in c.__all__ if getattr(c, n, None) is None))"
    )
    assert run(program, environment)[0].split() == []
    assert sorted(core.__all__) == sorted(set(core.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'Submitor'"):
        core.Submitor  # type: ignore[attr-defined]  # noqa: B018  # that it fails is the point


def test_a_star_import_gives_all_of_it() -> None:
    names: dict[str, object] = {}
    exec("from intercede.core import *", names)
    assert set(core.__all__) <= set(names)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(core.__file__).parent / "py.typed").is_file()
