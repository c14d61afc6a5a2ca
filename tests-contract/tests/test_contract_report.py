"""What the suite says at the end, and that it says nothing where it has no business."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from intercede.contract import RULES, BackendContract
from intercede.contract._verdict import RULES_ATTRIBUTE

PLUGIN = ("-p", "intercede.contract.plugin")

MODULE = """
    from intercede.contract import BackendContract, Resource


    class TestMine(BackendContract):
        resource = Resource(
            config={config!r}, seconds=0.05, clock=100.0, absurd={{"queue": "nowhere"}}
        )
"""

#: The name of an ability, and rules that cannot be decided at all without it.
WITHOUT = {
    "fetch_output": {"F1", "F2", "F4", "F5", "F6", "F7"},
    "kill": {"K1", "K2"},
    "purge": {"P1", "P2", "P3", "P4"},
    "counts": {"C1"},
    "diagnostics": {"D1"},
    "find": set(),
    "details": set(),
    "dry_run": set(),
}


def run_pytest(
    folder: Path, *options: str, settings: str = "", **config: object
) -> subprocess.CompletedProcess[str]:
    module = textwrap.dedent(MODULE.format(config={"type": "fake", "speed": 100.0, **config}))
    (folder / "test_mine.py").write_text(module)
    (folder / "pytest.ini").write_text(f"[pytest]\naddopts = --strict-markers\n{settings}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def verdicts(said: str) -> dict[str, str]:
    found = {}
    for line in said.splitlines():
        rule, _, rest = line.partition(" ")
        if rule in RULES:
            found[rule] = rest[:14].strip()
    return found


def test_every_rule_has_a_test() -> None:
    tested = {
        rule
        for name in dir(BackendContract)
        for rule in getattr(getattr(BackendContract, name), RULES_ATTRIBUTE, ())
    }
    assert tested == set(RULES)


def test_every_test_declares_its_rule() -> None:
    tests = [name for name in dir(BackendContract) if name.startswith("test")]
    assert [n for n in tests if not hasattr(getattr(BackendContract, n), RULES_ATTRIBUTE)] == []


@pytest.mark.parametrize("ability", WITHOUT)
def test_what_a_backend_lacks_is_not_offered_and_never_passed(tmp_path: Path, ability: str) -> None:
    done = run_pytest(tmp_path, *PLUGIN, "-q", without=[ability], site="a")
    assert done.returncode == 0, done.stdout[-4000:]
    found = verdicts(done.stdout)
    assert {found[rule] for rule in WITHOUT[ability]} <= {"not offered", "not observed"}
    assert "not offered:\n" in done.stdout
    assert "failed" not in found.values()


def test_a_module_of_ten_lines_is_enough_under_strict_settings(tmp_path: Path) -> None:
    assert len(textwrap.dedent(MODULE).strip().splitlines()) <= 10
    settings = "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = session\nfilterwarnings = error\n"
    done = run_pytest(tmp_path, "-q", "-k", "T3 or exit_0 or hostile", settings=settings, site="b")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "contract: rule by verdict: TestMine" in done.stdout
    assert verdicts(done.stdout) == {"T2": "not observed", "T3": "passed"}


def test_verdicts_of_all_processes_come_together(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    done = run_pytest(tmp_path, *PLUGIN, "-q", "-n", "2", "-k", "exit or kill", site="c")
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.count("contract: rule by verdict") == 1
    assert verdicts(done.stdout)["T3"] == "passed"


def test_a_rule_is_failed_if_one_of_its_tests_failed_and_the_assertion_is_explained(
    tmp_path: Path,
) -> None:
    lie = [{"operation": "kill", "kind": "item", "times": 0, "code": "failed"}]
    done = run_pytest(
        tmp_path, *PLUGIN, "-q", "-k", "KillRules or killed or K1 or twice", faults=lie
    )
    assert done.returncode == 1
    found = verdicts(done.stdout)
    assert found["K2"] == "failed"
    assert "contract rule call" in done.stdout
    assert f"K2: {RULES['K2']}" in done.stdout
    assert "AssertionError: expected the jobs to be killed, got {" in done.stdout


def test_a_run_without_the_suite_hears_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n    assert 'intercede.contract._backend' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "contract" not in done.stdout


def test_importing_the_suite_brings_in_neither_pytest_nor_asyncio() -> None:
    program = (
        "import sys, intercede.contract, intercede.contract.plugin;"
        "print(sorted({'pytest', '_pytest', 'asyncio', 'anyio', 'pytest_asyncio'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout == "[]\n"
