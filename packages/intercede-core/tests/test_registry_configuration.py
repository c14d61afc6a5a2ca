"""From a configuration to an object: who gets which key, and what is said when one is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from intercede.core import (
    ConfigurationError,
    JobBackend,
    PluginBroken,
    PluginError,
    PluginNotFound,
    Scheduler,
    Transport,
    registry,
    unstructure,
)

pytestmark = [pytest.mark.xdist_group("registry"), pytest.mark.usefixtures("plugged")]

PAIR: Mapping[str, Any] = {
    "type": "pair",
    "transport": {"type": "pipe", "host": "h"},
    "scheduler": "list",
}


def pair(**more: object) -> Any:
    return registry.backend({**PAIR, **more})


def refused(config: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        registry.backend(config)
    return caught.value


def test_a_composed_backend_gets_its_parts_and_its_name() -> None:
    made = pair()
    assert isinstance(made, JobBackend)
    parts: Any = made
    config, name, transport, scheduler = parts.made_of
    assert [isinstance(transport, Transport), isinstance(scheduler, Scheduler)] == [True, True]
    assert name == "pipe-list"
    assert config.root == "~/jobs"
    assert transport.made_of[0].host == "h"
    assert pair(name="site.example").made_of[1] == "site.example"


def test_the_credentials_go_to_the_transport_and_to_a_backend_of_one_piece() -> None:
    class Provider:
        async def get(self, requirements: object) -> Any: ...
        async def __aenter__(self) -> Any: ...
        async def __aexit__(self, *exc: object) -> None: ...

    provider = Provider()
    made: Any = registry.backend(PAIR, provider)
    assert made.made_of[2].made_of[1] is provider
    alone: Any = registry.transport({"type": "pipe", "host": "h"}, provider)
    assert alone.made_of[1] is provider


def test_flat_keys_go_to_the_one_part_that_has_them() -> None:
    made = pair(port=2222, queue="short", root="/scratch")
    config, _, transport, scheduler = made.made_of
    assert (transport.made_of[0].port, scheduler.made_of[0].queue) == (2222, "short")
    assert config.root == "/scratch"


def test_a_backend_s_own_table_has_the_name_of_the_backend() -> None:
    assert pair(pair={"root": "/own"}).made_of[0].root == "/own"


def test_tables_and_bare_names_are_the_same() -> None:
    scheduler: Any = registry.scheduler("list")
    same: Any = registry.scheduler({"type": "list"})
    assert scheduler.made_of == same.made_of


def test_a_configuration_is_not_changed_by_its_use() -> None:
    config = {"transport": {"type": "pipe", "host": "h"}, "scheduler": {"type": "list"}}
    registry.backend({"type": "pair", "port": 1, **config})
    assert config == {"transport": {"type": "pipe", "host": "h"}, "scheduler": {"type": "list"}}


def test_every_type_of_a_configuration_goes_both_ways() -> None:
    scheduler: Any = registry.scheduler(
        {
            "type": "list",
            "timeout_s": 3,
            "options": ["a", "b"],
            "limits": {"x": 1},
            "colours": ["red", "blue", "red"],
        }
    )
    made = scheduler.made_of[0]
    assert (made.timeout_s, made.options, made.colours) == (3.0, ("a", "b"), {"red", "blue"})
    again: Any = registry.scheduler({"type": "list", **unstructure(made)})
    assert again.made_of[0] == made
    assert unstructure(made)["colours"] == ["blue", "red"]


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        ({"ports": 1}, "ports", "did you mean 'port'?"),
        ({"nmae": "x"}, "nmae", "did you mean 'name'?"),
        ({"pear": {}}, "pear", "did you mean 'pair'?"),
        ({"zzz": 1}, "zzz", "known here: "),
        ({"timeout_s": 1.0}, "timeout_s", "transport.timeout_s or scheduler.timeout_s"),
        ({"host": "other"}, "host", "given twice, also as transport.host"),
        ({"pair": 5}, "pair", "expected a table"),
        ({"pair": {"rot": "x"}}, "pair.rot", "did you mean 'root'?"),
        ({"root": 5}, "pair.root", "expected a string, found a whole number"),
        ({"port": "22"}, "transport.port", "expected a whole number, found a string"),
        ({"port": True}, "transport.port", "expected a whole number, found true or false"),
        ({"port": 0}, "transport.port", "must be >= 1"),
        ({"mode": "slow"}, "transport.mode", "expected one of fast, safe"),
        ({"folder": 3}, "transport.folder", "expected a string"),
        ({"options": "abc"}, "scheduler.options", "expected a list, found a string"),
        ({"options": ["a", 5]}, "scheduler.options[1]", "expected a string"),
        ({"limits": {"a": 1, "b": "x"}}, "scheduler.limits.b", "expected a whole number"),
        ({"limits": ["a"]}, "scheduler.limits", "expected a table, found a list"),
        ({"transport": {"type": "pipe"}}, "transport.host", "missing"),
        ({"transport": {"type": "pipe", "hots": "h"}}, "transport.hots", "did you mean 'host'?"),
        ({"transport": {"host": "h"}}, "transport.type", "missing"),
        ({"transport": {"tpye": "h"}}, "transport.type", "did you write 'tpye' for 'type'?"),
        ({"transport": {"type": 5}}, "transport.type", "expected a name"),
        ({"transport": 5}, "transport", "expected a name or a table"),
        ({"name": "../x"}, "name", "not a name for a resource"),
        ({"name": "-x"}, "name", "not a name for a resource"),
        ({"name": "a b"}, "name", "not a name for a resource"),
        ({"name": ""}, "name", "not a name for a resource"),
        ({"name": "x" * 65}, "name", "not a name for a resource"),
        ({"name": 5}, "name", "not a name for a resource"),
        ({"type": 5}, "type", "expected a name"),
    ],
)
def test_a_wrong_key_is_named_with_its_path(more: dict[str, Any], path: str, said: str) -> None:
    error = refused({**PAIR, **more})
    assert error.path == path
    assert said in str(error)


@pytest.mark.parametrize(
    ("config", "path", "said"),
    [
        ({}, "", "neither 'type' nor 'transport' and 'scheduler'"),
        ({"tpye": "tiny"}, "", "did you write 'tpye' for 'type'?"),
        ({"type": "pair", "scheduler": "list"}, "transport", "name a plugin"),
        ({"type": "pair", "transport": "pipe"}, "scheduler", "name a plugin"),
        ({"type": "pair", "trasnport": "pipe", "scheduler": "list"}, "transport", "'trasnport'"),
        ({"type": "tiny", "sise": 3}, "sise", "did you mean 'size'?"),
        ({"type": "tiny", "nmae": "x"}, "nmae", "did you mean 'name'?"),
        ({"type": "tiny", "size": 1.5}, "size", "expected a whole number, found a number"),
        ({"type": "tiny", "name": "/"}, "name", "not a name"),
        (["tiny"], "", "is a table"),
        ("tiny", "", "is a table"),
    ],
)
def test_a_wrong_configuration_is_refused(config: Any, path: str, said: str) -> None:
    error = refused(config)
    assert error.path == path
    assert said in str(error)


def test_candidates_are_given_to_programs_too() -> None:
    assert refused({**PAIR, "ports": 1}).candidates[0] == "port"
    assert refused({**PAIR, "timeout_s": 1}).candidates == (
        "transport.timeout_s",
        "scheduler.timeout_s",
    )


@pytest.mark.parametrize("value", ["hunter2-and-more", 5, ["hunter2"]])
def test_what_stands_in_a_hidden_field_is_in_no_error(value: object) -> None:
    error = refused({**PAIR, "key": value})
    assert error.path == "transport.key"
    assert "hunter2" not in f"{error}{error.value}{error.__dict__}"


def test_a_key_that_is_not_known_does_not_show_its_value() -> None:
    for config in ({**PAIR, "pasword": "hunter2"}, {"pasword": "hunter2"}):
        error = refused(config)
        assert "hunter2" not in f"{error}{error.__dict__}"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"type": "tny"}, "did you mean 'tiny'?"),
        ({"type": "arc"}, "install the distribution intercede-backend-arc"),
        ({**PAIR, "transport": "ssh"}, "install the distribution intercede-transport-ssh"),
        ({**PAIR, "scheduler": "slurm"}, "install the distribution intercede-scheduler-slurm"),
        ({**PAIR, "scheduler": "zzz"}, "install the distribution that provides it"),
    ],
)
def test_a_plugin_that_is_not_installed_says_what_is_and_what_to_install(
    config: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is to be installed may be here already.
    found = registry._entry_points
    monkeypatch.setattr(
        registry,
        "_entry_points",
        lambda group: [
            (info, point) for info, point in found(group) if f" {info.distribution}" not in said
        ],
    )
    with pytest.raises(PluginNotFound) as caught:
        registry.backend(config)
    assert said in str(caught.value)
    assert "installed: " in str(caught.value)


def test_no_plugin_at_all_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(PluginNotFound, match=r"\(installed: none\)"):
        registry.transport("local")


def test_a_plugin_that_cannot_be_made_is_broken_and_the_cause_is_attached() -> None:
    with pytest.raises(PluginBroken, match=r"site-parts 2\.0.*could not be made") as caught:
        registry.transport({"type": "pipe", "host": "boom"})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_plugin_s_own_error_is_not_wrapped() -> None:
    with pytest.raises(PluginError, match=r"^said on purpose$"):
        registry.transport({"type": "pipe", "host": "said"})


def test_a_group_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match="backends, transports, schedulers"):
        registry.load("backend", "tiny")


@pytest.mark.parametrize(
    ("prefer", "path"),
    [({"transport.ssh": "x"}, "prefer.transport.ssh"), ({"transports": "x"}, "prefer.transports")],
)
def test_a_preference_must_name_a_group_and_a_name(prefer: dict[str, str], path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.Policy(prefer=prefer)
    assert caught.value.path == path


def test_an_allow_list_that_is_one_string_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="write "):
        registry.Policy(allow="site-tiny")


def test_the_built_in_distributions_are_always_allowed() -> None:
    policy = registry.Policy(allow=["Site_Tiny"])
    assert policy.allows("site.tiny")
    assert policy.allows("intercede-transport-ssh")
    assert not policy.allows("site-local")


def test_the_options_of_a_plugin_tell_all_that_a_table_needs() -> None:
    plugin = registry.load("transports", "pipe")
    rows = [(o.name, o.type, o.default, o.help, o.unit) for o in registry.options(plugin.config)]
    assert rows == [
        ("host", "str", None, "Where to", ""),
        ("port", "int", "22", "TCP port", "port"),
        ("timeout_s", "float", "10.0", "Patience", "s"),
        ("mode", "Literal['fast', 'safe']", "'safe'", "", ""),
        ("key", "str | None", "None", "", ""),
        ("folder", "Path", repr(Path("here")), "", ""),
    ]
    options = {
        option.name: option
        for option in registry.options(registry.load("schedulers", "list").config)
    }
    assert options["options"].default == "()"
    tiny = registry.options(registry.load("backends", "tiny").config)
    assert [(option.type, option.unit) for option in tiny] == [("int", "jobs")]
