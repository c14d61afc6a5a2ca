"""The registry with real distributions, built and installed by pip into an environment of their own."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from intercede.core import (
    PluginBroken,
    PluginConflict,
    PluginNonConforming,
    PluginNotFound,
    registry,
)
from intercede.core.registry import Policy

if TYPE_CHECKING:
    from conftest import Environment

pytestmark = [pytest.mark.xdist_group("registry"), pytest.mark.usefixtures("plugged")]

SOMEBODY_ELSE_S = "somebody else's local"


def listed(policy: Policy | None = None) -> dict[tuple[str, str], registry.PluginInfo]:
    return {(info.name, info.distribution): info for info in registry.plugins(policy)}


def load_quietly(group: str, name: str, policy: Policy) -> Any:
    """Load with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return registry.load(group, name, policy)


# ---------------------------------------------------------------- a good one


def test_a_good_plugin_is_listed_with_all_that_is_known_of_it() -> None:
    assert listed()["tiny", "site-tiny"] == registry.PluginInfo(
        name="tiny",
        group="backends",
        distribution="site-tiny",
        version="1.2",
        target="site_tiny:plugin",
        shadowed=False,
        allowed=True,
    )


def test_the_listing_is_in_the_order_of_groups_and_names() -> None:
    order = [(registry.GROUPS.index(info.group), info.name) for info in registry.plugins()]
    assert order == sorted(order)
    assert {info.group for info in registry.plugins()} == set(registry.GROUPS)


def test_a_good_plugin_runs_jobs_in_the_environment_it_is_installed_in(
    installed: Environment,
) -> None:
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


# ---------------------------------------------------------------- a slow one


def test_listing_imports_no_plugin_and_a_lookup_imports_one(installed: Environment) -> None:
    begun = time.monotonic()
    answer = installed.tell(
        """
def plugins_imported():
    ours = ("site_", "twin_", "intercede.backend", "intercede.transport", "intercede.scheduler", "intercede.fake")
    return sorted(name for name in sys.modules if name.startswith(ours))
listed = [p.name for p in registry.plugins()]
before = plugins_imported()
registry.load("backends", "tiny")
answer = ["slow" in listed, before, plugins_imported()]
"""
    )
    assert answer == [True, [], ["site_tiny"]]
    assert time.monotonic() - begun < 4, "the plugin that takes 5 s to import was imported"


def test_a_plugin_that_is_slow_to_import_is_found_when_it_is_asked_for() -> None:
    begun = time.monotonic()
    assert isinstance(registry.load("transports", "slow"), registry.TransportPlugin)
    assert time.monotonic() - begun >= 5


# ---------------------------------------------------------------- one that shadows a built-in


def test_an_outsider_shadows_a_built_in_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match=r"site-local 3\.1 .*shadows intercede-transport-local"):
        plugin = registry.load("transports", "local")
    assert plugin.summary == SOMEBODY_ELSE_S


def test_the_listing_says_who_is_shadowed_and_who_is_built_in() -> None:
    theirs, ours = listed()["local", "site-local"], listed()["local", "intercede-transport-local"]
    assert (theirs.shadowed, theirs.built_in) == (False, False)
    assert (ours.shadowed, ours.built_in) == (True, True)


@pytest.mark.parametrize(
    ("policy", "theirs"),
    [
        (Policy(prefer={"transports.local": "Site_Local"}), True),
        (Policy(prefer={"transports.local": "intercede-transport-local"}), False),
        (Policy(allow=["site-tiny"]), False),
    ],
)
def test_a_preference_or_an_allow_list_decides_without_a_warning(
    policy: Policy, theirs: bool
) -> None:
    plugin = load_quietly("transports", "local", policy)
    assert (plugin.summary == SOMEBODY_ELSE_S) is theirs


# ---------------------------------------------------------------- two that collide


def test_two_outsiders_of_one_name_are_an_error_that_names_both() -> None:
    with pytest.raises(PluginConflict) as caught:
        registry.transport("twin")
    message = str(caught.value)
    assert "twin-one 1.0 (twin_one:plugin)" in message
    assert "twin-two 1.0 (twin_two:plugin)" in message
    assert 'Policy(prefer={"transports.twin": "twin-one"})' in message


def test_a_conflict_does_not_spoil_the_listing() -> None:
    assert [listed()["twin", f"twin-{n}"].shadowed for n in ("one", "two")] == [False, False]


@pytest.mark.parametrize("chosen", ["one", "two"])
def test_a_preference_resolves_a_conflict(chosen: str) -> None:
    policy = Policy(prefer={"transports.twin": f"twin-{chosen}"})
    assert load_quietly("transports", "twin", policy).summary == f"twin {chosen}"


def test_an_allow_list_resolves_a_conflict() -> None:
    assert load_quietly("transports", "twin", Policy(allow=["TWIN.two"])).summary == "twin two"


def test_a_preference_for_who_does_not_provide_the_name_is_an_error() -> None:
    with pytest.raises(PluginConflict) as caught:
        registry.transport("twin", policy=Policy(prefer={"transports.twin": "site-tiny"}))
    assert "'site-tiny' does not provide it" in str(caught.value)
    assert "twin-one 1.0" in str(caught.value)


# ---------------------------------------------------------------- one that the policy excludes


def test_an_allow_list_excludes_who_is_not_on_it() -> None:
    policy = Policy(allow=["site-local"])
    with pytest.raises(PluginNotFound) as caught:
        registry.backend({"type": "tiny"}, policy=policy)
    assert "site-tiny 1.2" in str(caught.value)
    assert "allow 'site-tiny'" in str(caught.value)
    rows = listed(policy)
    assert not rows["tiny", "site-tiny"].allowed
    assert rows["local", "site-local"].allowed
    assert rows["batch", "intercede-backend-batch"].allowed


def test_a_plugin_that_is_not_allowed_is_not_imported() -> None:
    with pytest.raises(PluginNotFound):
        registry.load("backends", "tiny", Policy(allow=[]))
    assert "site_tiny" not in sys.modules


# ---------------------------------------------------------------- one that fails to import


def test_a_plugin_that_fails_to_import_is_broken_and_the_cause_is_attached() -> None:
    with pytest.raises(PluginBroken) as caught:
        registry.backend({"type": "broken"})
    message = str(caught.value)
    assert "site-broken 1.0" in message
    assert "entry point intercede.backends: broken = site_broken:plugin" in message
    assert "licence server not found" in message
    assert repr(caught.value.__cause__) == "RuntimeError('licence server not found')"


def test_a_plugin_that_exits_when_imported_does_not_take_us_along() -> None:
    with pytest.raises(PluginBroken, match="SystemExit: go away") as caught:
        registry.backend({"type": "leaving"})
    assert isinstance(caught.value.__cause__, SystemExit)


# ---------------------------------------------------------------- one that fails the gate


@pytest.mark.parametrize(
    ("group", "make", "missing"),
    [
        ("backends", lambda: registry.backend({"type": "hollow"}), "status"),
        ("transports", lambda: registry.transport("hollow"), "get, put, run, stream"),
        (
            "schedulers",
            lambda: registry.scheduler("hollow"),
            "check, history_commands, kill_commands, list_commands, native_id, parse_history, parse_list,"
            " parse_probe, parse_status, parse_submit, probe_commands, stages_own_files, status_commands,"
            " submit_commands",
        ),
    ],
)
def test_what_fails_the_gate_is_named_with_distribution_entry_point_and_missing_members(
    group: str, make: Any, missing: str
) -> None:
    with pytest.raises(PluginNonConforming) as caught:
        make()
    message = str(caught.value)
    assert "site-hollow 0.3" in message
    assert f"entry point intercede.{group}: hollow = site_hollow:" in message
    assert f"it lacks {missing}; mend or replace site-hollow" in message


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nothing", "it is a object, not a BackendPlugin or ComposedBackendPlugin"),
        ("plain", "its config is <class 'dict'>, not an attrs class"),
    ],
)
def test_an_entry_point_that_names_something_else_does_not_conform(name: str, found: str) -> None:
    with pytest.raises(PluginNonConforming, match=r"site-hollow 0\.3") as caught:
        registry.load("backends", name)
    assert found in str(caught.value)


# ---------------------------------------------------------------- odd installations


def test_an_editable_install_is_found_like_any_other(installed: Environment) -> None:
    answer = installed.tell(
        """
plugin = registry.load("transports", "editable")
folder = sys.modules[plugin.config.__module__].__file__
answer = [folder, [p.version for p in registry.plugins() if p.name == "editable"]]
"""
    )
    here = Path(__file__).parent / "distributions" / "site-editable" / "site_editable.py"
    assert answer == [str(here), ["0.1.dev1"]]


def test_a_distribution_that_was_half_removed_does_not_spoil_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remains = tmp_path / "gone-1.0.dist-info"
    remains.mkdir()
    (remains / "entry_points.txt").write_text("[intercede.transports]\ngone = gone:plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert listed()["gone", "?"].version == "?"
    assert ("tiny", "site-tiny") in listed()
    with pytest.raises(PluginBroken, match="No module named 'gone'"):
        registry.load("transports", "gone")


def test_a_package_that_hides_the_namespace_is_detected_and_said_so(hidden: Environment) -> None:
    message, cause = hidden.tell(
        """
try:
    registry.transport("local")
except PluginBroken as error:
    answer = [str(error), type(error.__cause__).__name__]
"""
    )
    assert cause == "ModuleNotFoundError"
    assert str(hidden.packages / "intercede" / "__init__.py") in message
    assert "unrelated 'intercede' 0.0.1a1" in message


def test_the_namespace_is_said_to_be_hidden_also_in_the_process_that_sees_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remains = tmp_path / "elsewhere-1.0.dist-info"
    remains.mkdir()
    (remains / "entry_points.txt").write_text(
        "[intercede.transports]\nelsewhere = intercede.transport.elsewhere:plugin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginBroken, match="mend or uninstall"):
        registry.load("transports", "elsewhere")
    monkeypatch.setattr("intercede.__file__", "/somewhere/intercede/__init__.py")
    with pytest.raises(PluginBroken, match=r"/somewhere/intercede/__init__\.py makes it a package"):
        registry.load("transports", "elsewhere")
