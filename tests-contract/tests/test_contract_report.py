"""What the suite says at the end, and that it says nothing where it has no business."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

import intercede.core
from intercede.contract import RULES, BackendContract, SchedulerContract, TransportContract
from intercede.contract._rules import RULES_ATTRIBUTE
from intercede.fake import CAPABILITIES, FakeBackend

PLUGIN = ("-p", "intercede.contract.plugin")

MODULE = """
    from intercede.contract import BackendContract, Resource


    class TestMine(BackendContract):
        resource = Resource(
            config={config!r}, seconds=0.05, clock=100.0, absurd={{"queue": "nowhere"}}
        )
"""

#: What every backend is.
ALWAYS = {"JobBackend", "Submitter", "Monitor"}
#: An ability, its protocol, rules that cannot be decided at all without it, and a word in the names of tests that are about it.
WITHOUT = {
    "fetch_output": ("OutputRetriever", {"F1", "F2", "F4", "F5", "F6", "F7"}, "come_back"),
    "kill": ("Cancellable", {"K1", "K2"}, "kill"),
    "purge": ("Purgeable", {"P1", "P2", "P3", "P4"}, "purging"),
    "counts": ("LoadReporter", {"C1"}, "count"),
    "diagnostics": ("SupportsLiveDiagnostics", {"D1"}, "tails_are"),
    "find": ("Discoverable", set(), "find"),
    "details": ("SupportsDetails", set(), "details"),
    "dry_run": ("SupportsDryRun", set(), "_a_dry_run"),
}


def run_pytest(
    folder: Path, *options: str, settings: str = "", beside: str = "", **config: object
) -> subprocess.CompletedProcess[str]:
    module = textwrap.dedent(MODULE.format(config={"type": "fake", "speed": 100.0, **config}))
    (folder / "test_mine.py").write_text(module + textwrap.dedent(beside))
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
    found: dict[str, str] = {}
    for line in said.splitlines():
        rule, _, rest = line.partition(" ")
        if rule in RULES:
            found.setdefault(rule, rest[:14].strip())
    return found


@pytest.mark.parametrize(
    ("contract", "families"),
    [(BackendContract, "LSTFKPCDE"), (TransportContract, "X"), (SchedulerContract, "N")],
)
def test_every_rule_has_a_test_and_every_test_declares_its_rule(
    contract: type, families: str
) -> None:
    tests = [getattr(contract, name) for name in dir(contract) if name.startswith("test")]
    assert [test.__name__ for test in tests if not getattr(test, RULES_ATTRIBUTE, ())] == []
    tested = {rule for test in tests for rule in getattr(test, RULES_ATTRIBUTE)}
    assert tested == {rule for rule in RULES if rule[0] in families}


def test_every_ability_of_the_contract_can_be_taken_from_a_fake() -> None:
    protocols = {name: getattr(intercede.core, name) for name in intercede.core.__all__}
    abilities = {
        name
        for name, protocol in protocols.items()
        if getattr(protocol, "_is_runtime_protocol", False) and isinstance(FakeBackend(), protocol)
    }
    assert abilities - ALWAYS == {protocol for protocol, _, _ in WITHOUT.values()}
    assert set(WITHOUT) == set(CAPABILITIES)


@pytest.mark.parametrize("ability", WITHOUT)
def test_what_a_backend_lacks_is_not_offered_and_never_passed(tmp_path: Path, ability: str) -> None:
    protocol, rules, word = WITHOUT[ability]
    options = (*PLUGIN, "-q", "--report-json", "report.json")
    done = run_pytest(tmp_path, *options, without=[ability], site="a")
    assert done.returncode == 0, done.stdout[-4000:]
    found = verdicts(done.stdout)
    assert {found[rule] for rule in rules} <= {"not offered", "not observed"}
    assert "not offered:\n" in done.stdout
    assert "failed" not in found.values()
    tests = json.loads((tmp_path / "report.json").read_text())["resources"]["TestMine"]["tests"]
    lacking = [test for test in tests if test["words"] == protocol]
    assert {test["verdict"] for test in lacking} == {"not offered"}
    about_it = [test for test in tests if word in test["test"]]
    assert about_it
    assert [test["test"] for test in about_it if test["verdict"] == "passed"] == []
    assert {test["words"] for test in tests if test["verdict"] == "not offered"} == {protocol}


def test_a_module_of_ten_lines_is_enough_under_strict_settings(tmp_path: Path) -> None:
    assert len(textwrap.dedent(MODULE).strip().splitlines()) <= 10
    settings = "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = session\nfilterwarnings = error\n"
    done = run_pytest(tmp_path, "-q", "-k", "T3 or exit_0 or hostile", settings=settings, site="b")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "contract: rule by verdict: TestMine" in done.stdout
    assert verdicts(done.stdout) == {"T2": "not observed", "T3": "passed"}


#: A module whose own tests are pytest-asyncio's.
MARKED = """
    import asyncio
    import pytest

    pytestmark = pytest.mark.asyncio{arguments}

    async def test_beside():
        assert asyncio.get_running_loop()
"""


@pytest.mark.parametrize("arguments", ["", "(loop_scope='module')"])
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_module_that_is_marked_for_pytest_asyncio_runs_without_a_warning(
    tmp_path: Path, mode: str, arguments: str
) -> None:
    pytest.importorskip("pytest_asyncio")
    settings = f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    done = run_pytest(
        tmp_path,
        *("-q", "-k", "exit_0 or beside"),
        settings=settings,
        beside=MARKED.format(arguments=arguments),
        site="marked",
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "warning" not in done.stdout
    assert verdicts(done.stdout) == {"T3": "passed"}
    assert "2 passed" in done.stdout


def test_a_projects_own_mark_in_vain_is_still_warned_of(tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio")
    mistaken = "\n\n    def test_beside(self):\n        pass\n\n\nimport pytest\npytestmark = pytest.mark.asyncio\n"
    settings = "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
    done = run_pytest(
        tmp_path, "-q", "-k", "exit_0 or beside", settings=settings, beside=mistaken, site="own"
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "TestMine::test_beside" in done.stdout
    assert done.stdout.count("but it is not an async function") == 1


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
    assert f"K2: {RULES['K2']}" in done.stdout
    assert "expected: killing twice is a success\n" in done.stdout
    assert "seen: AssertionError: expected the jobs to be killed, got {" in done.stdout


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
        "import sys, intercede.contract;"
        "print(sorted({'pytest', '_pytest', 'asyncio', 'anyio', 'pytest_asyncio'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout == "[]\n"


def test_the_plugin_brings_in_no_loop() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import intercede.contract.plugin;"
        "print(sorted({'asyncio', 'anyio', 'pytest_asyncio'} & (set(sys.modules) - before)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout == "[]\n"


#: Two tests of rules that hold on the fake, one it cannot be observed to hold, one it does not offer without `counts`.
SOME = "exit_0 or hostile or nothing_submitted"


def test_the_report_as_json_has_every_rule_and_test(tmp_path: Path) -> None:
    options = (*PLUGIN, "-q", "--report-json", "report.json", "-k", SOME)
    done = run_pytest(tmp_path, *options, without=["counts"], site="json")
    assert done.returncode == 0, done.stdout[-4000:]
    found = json.loads((tmp_path / "report.json").read_text())
    mine = found["resources"]["TestMine"]
    assert {rule: row["verdict"] for rule, row in mine["rules"].items()} == {
        "T2": "not observed",
        "T3": "passed",
        "C1": "not offered",
    }
    assert mine["rules"]["C1"]["needs"] == ["LoadReporter"]
    assert mine["rules"]["C1"]["meaning"] == RULES["C1"]
    nothing = [row for row in mine["tests"] if "nothing_submitted" in row["test"]]
    assert nothing == [
        {
            "test": "test_nothing_submitted_is_nothing_counted",
            "rules": ["C1"],
            "verdict": "not offered",
            "words": "LoadReporter",
        }
    ]


def test_the_report_is_the_same_when_it_comes_from_several_processes(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    reports = []
    for processes in ("0", "2"):
        options = (*PLUGIN, "-q", "-n", processes, "--report-json", "report.json", "-k", SOME)
        done = run_pytest(tmp_path, *options, "--require", "L1", site="same")
        assert done.returncode == 1
        assert "\nL1  no test of it ran" in done.stdout
        reports.append(json.loads((tmp_path / "report.json").read_text()))
    assert reports[0] == reports[1]


def test_tests_that_are_not_run_are_told(tmp_path: Path) -> None:
    options = (*PLUGIN, "-q", "--report-json", "report.json", "-k", "exit_0 or a_signal_is_failed")
    done = run_pytest(tmp_path, *options, site="some")
    assert done.returncode == 0, done.stdout[-4000:]
    mine = json.loads((tmp_path / "report.json").read_text())["resources"]["TestMine"]
    tests = {name for name in dir(BackendContract) if name.startswith("test_")}
    ran = {"test_exit_0_is_successful_and_every_other_exit_failed", "test_a_signal_is_failed"}
    assert set(mine["not_run"]) == tests - ran
    assert f"not run: {len(tests) - 2} of {len(tests)} tests; they are about L1 L2" in done.stdout
    of_t3 = sum("T3" in getattr(getattr(BackendContract, name), RULES_ATTRIBUTE) for name in tests)
    assert re.search(rf"\nT3  passed .*, {of_t3 - 2} not run\)\n", done.stdout)


def test_junit_xml_has_rules_and_verdict_as_properties(tmp_path: Path) -> None:
    options = (*PLUGIN, "-q", "--junit-xml", "report.xml", "-k", SOME)
    run_pytest(tmp_path, *options, without=["counts"], site="junit")
    found = {
        case.get("name"): {(p.get("name"), p.get("value")) for p in case.iter("property")}
        for case in ElementTree.parse(tmp_path / "report.xml").iter("testcase")
    }
    assert found["test_nothing_submitted_is_nothing_counted"] == {
        ("contract_resource", "TestMine"),
        ("contract_class", "intercede.contract._backend:BackendContract"),
        ("contract_rule", "C1"),
        ("contract_verdict", "not offered"),
        ("contract_words", "LoadReporter"),
    }


def test_a_required_rule_fails_if_it_is_not_offered_or_not_observed(tmp_path: Path) -> None:
    options = (*PLUGIN, "-q", "--require", "C,T2,T3", "-k", SOME)
    done = run_pytest(tmp_path, *options, without=["counts"], site="required")
    assert done.returncode == 1
    assert "required (C1), and was not offered: LoadReporter" in done.stdout
    assert re.search(
        r"\nrequired \(T2\), and was not observed: needs a look at the host", done.stdout
    )
    found = verdicts(done.stdout)
    assert (found["C1"], found["T2"], found["T3"]) == ("failed", "failed", "passed")


def test_a_required_rule_fails_if_no_test_of_it_ran(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *PLUGIN, "-q", "--require", "T3,P", "-k", "exit_0", site="none")
    assert done.returncode == 1
    assert "\nP1  no test of it ran" in done.stdout
    assert "\nT3  no test of it ran" not in done.stdout


def test_a_required_rule_that_holds_fails_nothing(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *PLUGIN, "-q", "--require", "T3", "-k", "exit_0", site="holds")
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_required_rule_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *PLUGIN, "-q", "--require", "L,Y7", "-k", "exit_0")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--require: 'Y7' is no rule" in done.stderr


def test_options_of_a_project_with_the_same_names_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--require', action='append')\n"
    )
    (tmp_path / "test_other.py").write_text(
        "def test_it(pytestconfig):\n    assert pytestconfig.option.require == ['x']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--require", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
