"""`intercede.toml`: where it is found, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]


def _table(name: str) -> str:
    return f'[resources.{name}]\ntype = "fake"\n'


def test_the_file_is_looked_for_in_four_places_in_order(
    intercede: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = here.parent / "home/.config/intercede"
    home.mkdir(parents=True)
    (home / "intercede.toml").write_text(_table("from-home"))
    (here / "intercede.toml").write_text(_table("from-here"))
    (here / "variable.toml").write_text(_table("from-variable"))
    (here / "option.toml").write_text(_table("from-option"))

    def known(*words: str) -> str:
        return intercede("status", "x/a/0", *words).stderr

    monkeypatch.setenv("INTERCEDE_CONFIG", "variable.toml")
    assert "from-option" in known("--config", "option.toml")
    assert "from-variable" in known()
    monkeypatch.delenv("INTERCEDE_CONFIG")
    assert "from-here" in known()
    (here / "intercede.toml").unlink()
    assert "from-home" in known()
    (home / "intercede.toml").unlink()
    assert "no resource 'x' in the built-in configuration; known here: local" in known()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "not TOML"),
        ("resource = {}", "resource: no such key; did you mean 'resources'?"),
        ("resources = 1", "resources: expected a table"),
        ("[resources]\nfake = 1", "resources.fake: expected a table"),
        (_table("fake") + 'name = "x"', "resources.fake.name: the table's own name"),
        (_table("fake") + "sped = 3", "resources.fake: sped: no such key; did you mean 'speed'?"),
        (_table("fake") + 'speed = "x"', "resources.fake: speed: expected a number"),
        (_table('"a b"').replace("fake", "fake"), "resources.a b: name: not a name"),
        ('[resources.fake]\ntype = "fak"', "resources.fake: no backend 'fak' is installed"),
        ('[resources.fake]\nhost = "x"', "resources.fake: it says neither 'type' nor 'transport'"),
        ("[plugins]\nalow = []", "plugins.alow: no such key; did you mean 'allow'?"),
        ('[plugins]\nallow = "x"', "plugins.allow: expected a list"),
        ("[plugins.prefer]\nx = 1", "plugins.prefer.x: expected"),
        ('[plugins.prefer]\nx = "y"', "prefer.x: expected"),
    ],
)
def test_a_mistake_is_one_line_with_the_file_the_key_and_a_near_match(
    intercede: Run, here: Path, text: str, said: str
) -> None:
    (here / "intercede.toml").write_text(text)
    name = "a b" if "a b" in text else "fake"

    ended = intercede("status", f"{name}/a/0")

    assert ended.returncode == 2
    assert ended.stderr.startswith("intercede: intercede.toml: ")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_file_that_was_named_must_be_there(intercede: Run) -> None:
    ended = intercede("status", "--config", "missing.toml", "x/a/0")

    assert ended.returncode == 2
    assert "missing.toml: cannot be read: No such file or directory" in ended.stderr


def test_options_of_every_command_stand_before_or_behind_its_name(
    intercede: Run, here: Path
) -> None:
    (here / "other.toml").write_text(_table("other"))

    before = intercede("--json", "--config", "other.toml", "status", "other/a/0")
    behind = intercede("status", "--json", "--config", "other.toml", "other/a/0")

    assert before.stdout == behind.stdout
    assert json.loads(before.stdout)["jobs"][0]["failure"]["code"] == "no-such-job"


def test_plugins_are_listed_with_their_distributions(intercede: Run) -> None:
    rows = [line.split() for line in intercede("plugins", "list").stdout.splitlines()]

    assert ["backends", "fake", "intercede-fake"] in [row[:3] for row in rows]
    document = json.loads(intercede("plugins", "list", "--json").stdout)
    assert ("backends", "batch") in [(p["group"], p["name"]) for p in document["plugins"]]


def test_a_plugin_is_shown_with_its_options(intercede: Run) -> None:
    ended = intercede("plugins", "show", "backends", "fake")
    document = json.loads(intercede("plugins", "show", "--json", "backends", "fake").stdout)

    assert "speed" in ended.stdout
    assert "fake s per s" in ended.stdout
    options = {option["name"]: option for option in document["plugins"][0]["options"]}
    assert options["speed"]["default"] == "1000.0"


def test_a_name_shows_the_plugins_of_all_groups(intercede: Run) -> None:
    assert "transports.local" in intercede("plugins", "show", "local").stdout


@pytest.mark.parametrize("words", [["none"], ["schedulers", "none"]])
def test_a_plugin_that_is_not_there_is_told_with_those_that_are(
    intercede: Run, words: list[str]
) -> None:
    ended = intercede("plugins", "show", *words)

    assert ended.returncode == 2
    assert "'none' is installed (installed: " in ended.stderr
    assert "direct" in ended.stderr


def test_an_allow_list_excludes_what_is_not_built_in_only(intercede: Run, here: Path) -> None:
    (here / "intercede.toml").write_text(_table("fake") + "[plugins]\nallow = []\n")

    assert intercede("status", "fake/a/0").returncode == 1
    assert "no: not allowed" not in intercede("plugins", "list").stdout
