"""Nobody runs less than the whole suite in silence."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from intercede.contract import BackendContract, Resource

FAKE = {"type": "fake", "speed": 100.0}
NAME = "test_nothing_submitted_is_nothing_counted"


def run_class(
    folder: Path, body: str, *options: str, conftest: str = ""
) -> subprocess.CompletedProcess[str]:
    module = textwrap.dedent(f"""
        import pytest
        from intercede.contract import BackendContract, Resource

        class TestMine(BackendContract):
            resource = Resource(
                config={ {**FAKE, "site": folder.name}!r}, seconds=0.05, clock=100.0, absurd={{"queue": "nowhere"}}
            )
    """) + textwrap.indent(textwrap.dedent(body), "    ")
    (folder / "test_mine.py").write_text(module)
    (folder / "conftest.py").write_text(textwrap.dedent(conftest))
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "intercede.contract.plugin", "--report-json", "report.json"),
            *("-k", "nothing_submitted or exit_0", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_dropped_test_without_a_reason_fails() -> None:
    with pytest.raises(TypeError, match=rf"{NAME} \(dropped\); state why"):
        type("TestMine", (BackendContract,), {NAME: None})


def test_an_overridden_test_without_a_reason_fails() -> None:
    with pytest.raises(TypeError, match=rf"{NAME} \(overridden\)"):
        type("TestMine", (BackendContract,), {NAME: lambda self: None})


def test_a_test_that_a_mixin_overrides_without_a_reason_fails() -> None:
    mixin = type("Mixin", (), {NAME: lambda self: None})
    with pytest.raises(TypeError, match=rf"{NAME} \(overridden\)"):
        type("TestMine", (mixin, BackendContract), {})


def test_an_empty_reason_is_none() -> None:
    with pytest.raises(TypeError, match="state why"):
        type("TestMine", (BackendContract,), {NAME: None, "reasons": {NAME: " "}})


def test_a_reason_for_what_is_no_standard_test_fails() -> None:
    with pytest.raises(TypeError, match="no test of BackendContract: test_misspelt"):
        type("TestMine", (BackendContract,), {"reasons": {"test_misspelt": "because"}})


def test_tests_of_ones_own_need_no_reason() -> None:
    resource = Resource(config=FAKE)
    body = {"resource": resource, "test_mine": lambda self: None}
    assert issubclass(type("TestMine", (BackendContract,), body), BackendContract)


@pytest.mark.parametrize(
    ("body", "conftest"),
    [
        ("pytestmark = pytest.mark.skip('not today')\n", ""),
        (
            "@pytest.fixture(autouse=True)\ndef never(self):\n    pytest.skip('not today')\n",
            "",
        ),
        (
            "pass\n",
            """
            import pytest

            def pytest_collection_modifyitems(items):
                for item in items:
                    item.add_marker(pytest.mark.skip("not today"))
            """,
        ),
    ],
)
def test_a_test_that_is_skipped_without_a_reason_fails(
    tmp_path: Path, body: str, conftest: str
) -> None:
    done = run_class(tmp_path, body, conftest=conftest)
    assert done.returncode == 1
    assert f"{NAME} was skipped without a stated reason" in done.stdout
    assert "not today" in done.stdout
    assert "\nC1  failed" in done.stdout


def test_a_test_that_is_expected_to_fail_without_a_reason_fails(tmp_path: Path) -> None:
    body = """
        pytestmark = pytest.mark.xfail(reason="known")

        @pytest.fixture(autouse=True)
        def broken(self):
            raise AssertionError("it does not hold")
    """
    done = run_class(tmp_path, body)
    assert done.returncode == 1
    assert f"{NAME} was skipped without a stated reason (expected to fail: known)" in done.stdout


@pytest.mark.parametrize(
    ("body", "change"),
    [
        (f"{NAME} = None\n", " (dropped)"),
        (f"def {NAME}(self):\n    pass\n", " (overridden)"),
        (f"{NAME} = pytest.mark.skip('no')(lambda self: None)\n", " (overridden)"),
    ],
)
def test_a_stated_reason_stands_in_the_report_and_the_rule_is_not_passed(
    tmp_path: Path, body: str, change: str
) -> None:
    reasons = f'reasons = {{"{NAME}": "counts are late: see ticket 7"}}\n'
    done = run_class(tmp_path, reasons + body)
    assert done.returncode == 0, done.stdout
    assert "\nC1  skipped" in done.stdout
    assert f"  C1  {NAME}{change}: counts are late: see ticket 7" in done.stdout
    mine = json.loads((tmp_path / "report.json").read_text())["resources"]["TestMine"]
    assert mine["reasons"] == {NAME: f"{NAME}{change}: counts are late: see ticket 7"}
    assert mine["rules"]["C1"]["verdict"] == "skipped"


def test_a_required_rule_is_not_excused_by_a_reason(tmp_path: Path) -> None:
    body = f'reasons = {{"{NAME}": "later"}}\n{NAME} = None\n'
    done = run_class(tmp_path, body, "--require", "C")
    assert done.returncode == 1
    assert f"\nC1  skipped: {NAME} (dropped): later" in done.stdout
