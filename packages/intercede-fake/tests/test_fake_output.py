"""What is selected from a work directory, and how it is written."""

import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import FailureCode, OutputSpec
from intercede.fake._content import Content
from intercede.fake._output import Gathered, Limits, over_limit, select, write_output
from intercede.fake._payload import Entry, Kind, made


def tree(*names: str, links: dict[str, str] | None = None) -> dict[str, Entry]:
    files: dict[str, Entry] = {}
    for name in names:
        assert made(files, name, Entry(Kind.FILE, Content.of(name.encode("utf-8", "replace"))))
    for name, target in (links or {}).items():
        assert made(files, name, Entry(Kind.LINK, target=target))
    return files


def selected(
    files: dict[str, Entry],
    *patterns: str,
    everything: bool = False,
    staged: tuple[str, ...] = (),
    secrets: tuple[str, ...] = (),
) -> Gathered:
    return select(
        files,
        OutputSpec(patterns, everything=everything),
        staged=frozenset(staged),
        secrets=frozenset(secrets),
        streams={},
    )


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*", {"a.csv", "b"}),
        ("*.csv", {"a.csv"}),
        (".*", {".hidden"}),
        ("*/*", {"d/a.csv"}),
        ("d/*", {"d/a.csv"}),
        ("d/.*", {"d/.x"}),
        ("[.]hidden", set()),
        ("?", {"b"}),
        ("[!b].csv", {"a.csv"}),
        ("[a-b]", {"b"}),
        ("[b-a]", set()),
        ("d", set()),
        ("d/", {"d/a.csv", "d/.x", "d/e/f"}),
        ("*/", {"d/a.csv", "d/.x", "d/e/f"}),
        ("d/e/", {"d/e/f"}),
        ("d*a.csv", set()),
    ],
)
def test_patterns_never_cross_a_slash_nor_match_a_leading_dot(
    pattern: str, matched: set[str]
) -> None:
    files = tree("a.csv", "b", ".hidden", "d/a.csv", "d/.x", "d/e/f")
    gathered = selected(files, pattern)
    assert set(gathered.members) == matched
    assert gathered.missing == (() if matched else (pattern,))


@pytest.mark.parametrize(
    ("pattern", "name"), [("[]]", "]"), ("[!]]", "x"), ("[[]", "["), ("a\\*", "a\\b")]
)
def test_a_bracket_may_hold_brackets_and_a_backslash_is_a_letter(pattern: str, name: str) -> None:
    assert set(selected(tree(name), pattern).members) == {name}


def test_matching_is_by_bytes() -> None:
    assert selected(tree("é"), "?").missing == ("?",)
    assert set(selected(tree("é"), "??").members) == {"é"}


@given(
    st.text("ab.", min_size=1, max_size=4).filter(lambda name: name not in (".", "..")),
    st.text("ab*?.", min_size=1, max_size=4).filter(lambda name: name not in (".", "..")),
)
def test_within_a_name_it_matches_as_a_shell_does(name: str, pattern: str) -> None:
    hidden = name.startswith(".") and not pattern.startswith(".")
    expected = fnmatch.fnmatchcase(name, pattern) and not hidden
    assert (name in selected(tree(name), pattern).members) == expected


def test_everything_leaves_out_inputs_executable_and_secrets() -> None:
    files = tree("run.sh", "in.txt", "token", "out.txt", "d/.deep")
    gathered = selected(
        files, everything=True, staged=("run.sh", "in.txt", "token"), secrets=("token",)
    )
    assert set(gathered.members) == {"out.txt", "d/.deep"}


def test_a_pattern_never_returns_a_secret() -> None:
    gathered = selected(
        tree("token", "in.txt"), "*", "token", staged=("token",), secrets=("token",)
    )
    assert set(gathered.members) == {"in.txt"}
    assert gathered.missing == ("token",)


def test_a_link_to_a_fetched_member_becomes_a_copy_and_other_links_are_refused() -> None:
    links = {"copy": "a", "out": "../../x", "abs": "/etc/passwd", "nowhere": "b", "leak": "token"}
    gathered = selected(tree("a", "token", links=links), "*", secrets=("token",))
    assert set(gathered.members) == {"a", "copy"}
    assert gathered.members["copy"] == gathered.members["a"]
    assert set(gathered.refused) == {"out", "abs", "nowhere", "leak"}


def test_a_fifo_is_refused_and_the_other_files_arrive(tmp_path: Path) -> None:
    files = tree("a")
    assert made(files, "pipe", Entry(Kind.FIFO))
    output = write_output(tmp_path, "s/0", selected(files, everything=True), "o", "e", "log")
    assert set(output.files) == {"a"}
    assert output.failure is not None
    assert output.failure.code is FailureCode.UNSAFE
    assert "pipe" in output.failure.message


def test_an_empty_tree_is_not_missing() -> None:
    files: dict[str, Entry] = {}
    assert made(files, "plots", Entry(Kind.DIRECTORY))
    assert selected(files, "plots/").missing == ()


def test_limits_are_on_all_bytes_and_on_the_number_of_files() -> None:
    gathered = Gathered({"stdout": Content.of(b"123")}, {"a": Content.of(b"45"), "b": Content()})
    assert over_limit(gathered, Limits(5, 2)) is None
    for limits in (Limits(4, 2), Limits(5, 1)):
        failure = over_limit(gathered, limits)
        assert failure is not None
        assert failure.code is FailureCode.LIMIT


def test_an_older_fetch_is_replaced_whole(tmp_path: Path) -> None:
    for names in (("old", "both"), ("new", "both")):
        write_output(tmp_path, "s/0", selected(tree(*names), "*"), "o", "e", "log")
    assert {path.name for path in (tmp_path / "s/0/work").iterdir()} == {"new", "both"}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    gathered = selected(tree("x" * 300), everything=True)
    with pytest.raises(OSError, match="name too long"):
        write_output(tmp_path, "s/0", gathered, "o", "e", "log")
    assert list(tmp_path.iterdir()) == []
