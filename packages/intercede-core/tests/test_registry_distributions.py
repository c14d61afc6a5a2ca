"""The registry with real distributions, built and installed by pip into an environment of their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Environment

pytestmark = pytest.mark.xdist_group("registry")

LISTING = "answer = [[p.group, p.name, p.distribution, p.version, p.target, p.shadowed, p.allowed] for p in registry.plugins({policy})]"

ATTEMPT = """
try:
    made = {expression}
    answer = ["made", type(made).__name__, ""]
except InterCEdeError as error:
    answer = [type(error).__name__, str(error), repr(error.__cause__)]
"""


def attempt(environment: Environment, expression: str) -> tuple[str, str, str]:
    kind, message, cause = environment.tell(ATTEMPT.format(expression=expression))
    return kind, message, cause


def rows(environment: Environment, policy: str = "") -> dict[tuple[str, str, str], list[Any]]:
    listed = environment.tell(LISTING.format(policy=policy))
    return {(group, name, dist): rest for group, name, dist, *rest in listed}


def test_a_good_plugin_is_listed_with_all_that_is_known_of_it(installed: Environment) -> None:
    assert rows(installed)["backends", "tiny", "site-tiny"] == [
        "1.2",
        "site_tiny:plugin",
        False,
        True,
    ]


def test_a_good_plugin_runs_jobs(installed: Environment) -> None:
    answer = installed.tell(
        """
import asyncio
async def main():
    async with registry.backend({"type": "tiny", "name": "here", "size": 3}) as ce:
        submission = await ce.submit(SubmissionSpec("x", tag="t"), copies=2)
        statuses = await ce.status([handle.id for handle in submission.handles])
        return [submission.handles[1].resource, ce.config.size, list(statuses.values())]
answer = asyncio.run(main())
"""
    )
    assert answer == ["here", 3, ["successful", "successful"]]


def test_listing_imports_no_plugin_and_a_lookup_imports_one(installed: Environment) -> None:
    begun = time.monotonic()
    answer = installed.tell(
        """
def ours():
    return sorted(m for m in sys.modules if m.startswith(("site_", "twin_", "intercede.")) and "core" not in m)
listed = [p.name for p in registry.plugins()]
before = ours()
registry.load("backends", "tiny")
answer = ["slow" in listed, before, ours()]
"""
    )
    assert answer == [True, [], ["site_tiny"]]
    assert time.monotonic() - begun < 4, "the plugin that takes 5 s to import was imported"


def test_a_plugin_that_is_slow_to_import_is_found_when_it_is_asked_for(
    installed: Environment,
) -> None:
    begun = time.monotonic()
    assert attempt(installed, "registry.transport('slow')")[0] == "made"
    assert time.monotonic() - begun >= 5


def test_an_outsider_shadows_a_built_in_with_a_warning(installed: Environment) -> None:
    answer = installed.tell(
        """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    plugin = registry.load("transports", "local")
answer = [plugin.summary, [[w.category.__name__, str(w.message)] for w in caught]]
"""
    )
    summary, [[category, message]] = answer
    assert summary == "somebody else's local"
    assert category == "RuntimeWarning"
    assert "site-local 3.1" in message
    assert "intercede-transport-local" in message
    assert "prefer" in message


def test_the_listing_says_who_is_shadowed(installed: Environment) -> None:
    listed = rows(installed)
    assert listed["transports", "local", "intercede-transport-local"][2] is True
    assert listed["transports", "local", "site-local"][2] is False


@pytest.mark.parametrize(
    ("policy", "summary"),
    [
        ("registry.Policy(prefer={'transports.local': 'Site_Local'})", True),
        ("registry.Policy(prefer={'transports.local': 'intercede-transport-local'})", False),
        ("registry.Policy(allow=['site-tiny'])", False),
    ],
)
def test_a_preference_or_an_allow_list_decides_without_a_warning(
    installed: Environment, policy: str, summary: bool
) -> None:
    answer = installed.tell(
        f"""
warnings.simplefilter("error")
answer = registry.load("transports", "local", {policy}).summary == "somebody else's local"
"""
    )
    assert answer is summary


def test_two_outsiders_of_one_name_are_an_error_that_names_both(installed: Environment) -> None:
    kind, message, _ = attempt(installed, "registry.transport('twin')")
    assert kind == "PluginConflict"
    assert "twin-one 1.0 (twin_one:plugin)" in message
    assert "twin-two 1.0 (twin_two:plugin)" in message
    assert 'Policy(prefer={"transports.twin": "twin-one"})' in message


def test_a_conflict_does_not_spoil_the_listing(installed: Environment) -> None:
    listed = rows(installed)
    assert [listed["transports", "twin", f"twin-{n}"][2] for n in ("one", "two")] == [False, False]


@pytest.mark.parametrize("chosen", ["one", "two"])
def test_a_preference_resolves_a_conflict(installed: Environment, chosen: str) -> None:
    policy = f"registry.Policy(prefer={{'transports.twin': 'twin-{chosen}'}})"
    answer = installed.tell(f"answer = registry.load('transports', 'twin', {policy}).summary")
    assert answer == f"twin {chosen}"


def test_an_allow_list_resolves_a_conflict(installed: Environment) -> None:
    policy = "registry.Policy(allow=['TWIN.two'])"
    answer = installed.tell(f"answer = registry.load('transports', 'twin', {policy}).summary")
    assert answer == "twin two"


def test_a_preference_for_who_does_not_provide_the_name_is_an_error(
    installed: Environment,
) -> None:
    policy = "registry.Policy(prefer={'transports.twin': 'site-tiny'})"
    kind, message, _ = attempt(installed, f"registry.transport('twin', policy={policy})")
    assert kind == "PluginConflict"
    assert "'site-tiny' does not provide it" in message
    assert "twin-one 1.0" in message


def test_an_allow_list_excludes_who_is_not_on_it(installed: Environment) -> None:
    policy = "registry.Policy(allow=['site-local'])"
    kind, message, _ = attempt(installed, f"registry.backend({{'type': 'tiny'}}, policy={policy})")
    assert kind == "PluginNotFound"
    assert "site-tiny 1.2" in message
    assert "allow 'site-tiny'" in message
    listed = rows(installed, policy)
    assert listed["backends", "tiny", "site-tiny"][3] is False
    assert listed["transports", "local", "site-local"][3] is True
    assert listed["backends", "batch", "intercede-backend-batch"][3] is True


def test_a_plugin_that_is_not_allowed_is_not_imported(installed: Environment) -> None:
    answer = installed.tell(
        """
try:
    registry.load("backends", "tiny", registry.Policy(allow=[]))
except PluginNotFound:
    answer = "site_tiny" in sys.modules
"""
    )
    assert answer is False


def test_a_plugin_that_fails_to_import_is_broken_and_the_cause_is_attached(
    installed: Environment,
) -> None:
    kind, message, cause = attempt(installed, "registry.backend({'type': 'broken'})")
    assert kind == "PluginBroken"
    assert "site-broken 1.0" in message
    assert "intercede.backends: broken = site_broken:plugin" in message
    assert "licence server not found" in message
    assert cause == "RuntimeError('licence server not found')"


def test_a_plugin_that_exits_when_imported_does_not_take_us_along(installed: Environment) -> None:
    kind, _, cause = attempt(installed, "registry.backend({'type': 'leaving'})")
    assert (kind, cause) == ("PluginBroken", "SystemExit('go away')")


@pytest.mark.parametrize(
    ("expression", "group", "name", "missing"),
    [
        ("registry.backend({'type': 'hollow'})", "backends", "hollow", "status"),
        ("registry.transport('hollow')", "transports", "hollow", "get, put, run, stream"),
        (
            "registry.scheduler('hollow')",
            "schedulers",
            "hollow",
            "check, history_commands, kill_commands, list_commands, native_id, parse_history, parse_list,"
            " parse_probe, parse_status, parse_submit, probe_commands, stages_own_files, status_commands,"
            " submit_commands",
        ),
    ],
)
def test_what_fails_the_gate_is_named_with_distribution_entry_point_and_missing_members(
    installed: Environment, expression: str, group: str, name: str, missing: str
) -> None:
    kind, message, _ = attempt(installed, expression)
    assert kind == "PluginNonConforming"
    assert "site-hollow 0.3" in message
    assert f"entry point intercede.{group}: {name} = site_hollow:" in message
    assert f"it lacks {missing};" in message


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nothing", "it is a object, not a BackendPlugin or ComposedBackendPlugin"),
        ("plain", "its config is <class 'dict'>, not an attrs class"),
    ],
)
def test_an_entry_point_that_names_something_else_does_not_conform(
    installed: Environment, name: str, found: str
) -> None:
    kind, message, _ = attempt(installed, f"registry.load('backends', {name!r})")
    assert kind == "PluginNonConforming"
    assert "site-hollow 0.3" in message
    assert found in message


def test_an_editable_install_is_found_like_any_other(installed: Environment) -> None:
    assert rows(installed)["transports", "editable", "site-editable"][0] == "0.1.dev1"
    answer = installed.tell("answer = registry.load('transports', 'editable').config.__module__")
    assert answer == "site_editable"


def test_a_distribution_that_was_half_removed_does_not_spoil_the_listing(
    installed: Environment,
) -> None:
    answer = installed.tell(
        """
import tempfile, pathlib
folder = pathlib.Path(tempfile.mkdtemp())
remains = folder / "gone-1.0.dist-info"
remains.mkdir()
(remains / "entry_points.txt").write_text("[intercede.transports]\\ngone = gone:plugin\\n")
sys.path.insert(0, str(folder))
answer = [[p.name, p.distribution] for p in registry.plugins() if p.name in ("gone", "tiny")]
import shutil; shutil.rmtree(folder)
"""
    )
    assert answer == [["tiny", "site-tiny"], ["gone", "?"]]


def test_a_package_that_hides_the_namespace_is_detected_and_said_so(hidden: Environment) -> None:
    kind, message, cause = attempt(hidden, "registry.transport('local')")
    assert kind == "PluginBroken"
    assert "ModuleNotFoundError" in cause
    assert str(hidden.packages / "intercede" / "__init__.py") in message
    assert "unrelated 'intercede' 0.0.1a1" in message
