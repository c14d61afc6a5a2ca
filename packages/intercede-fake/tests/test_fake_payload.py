"""The pretend payload does what the contract suite's script does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercede.fake._content import Content, encoded
from intercede.fake._payload import Entry, Kind, Program, made, perform, resolved

SCRIPT = Path(__file__).parents[3] / "tests-contract/src/intercede/contract/payload.sh"


def program(*arguments: str, environment: dict[str, str] | None = None, **files: bytes) -> Program:
    entries = {name: Entry(Kind.FILE, Content.of(content)) for name, content in files.items()}
    return Program("payload.sh", arguments, environment or {}, entries)


names = st.sampled_from(["a", "b", "d/a", "d/e/b", ".h", "é", "d"])
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)
# Where `ln` takes a directory's name for "into it", or a hard link shares later changes, the fake is simpler than the script.
small = st.integers(0, 3).map(str)
verbs = st.one_of(
    st.tuples(st.just("echo"), texts),
    st.tuples(st.just("err"), texts),
    st.tuples(st.just("env"), st.sampled_from(["SET", "EMPTY", "UNSET", "A B"])),
    st.tuples(st.just("write"), names, texts),
    st.tuples(st.just("fill"), names, small),
    st.tuples(st.just("many"), st.sampled_from(["d", "d/e"]), small),
    st.tuples(st.just("cat"), names | st.just("l")),
    st.tuples(st.just("ls")),
    st.tuples(st.just("trap")),
    st.tuples(st.just("exit"), small),
    st.tuples(st.just("signal"), st.just("15")),
    st.tuples(st.just("symlink"), st.just("l"), st.sampled_from(["a", ".h", "d/a", "l", "../a"])),
    st.tuples(st.just("fifo"), st.just("p")),
    st.tuples(st.just("nonsense")),
    st.tuples(st.just("args"), texts, texts),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(verbs, max_size=6))
def test_it_does_what_the_script_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, ...]]
) -> None:
    arguments = [word for step in steps for word in step]
    environment = {"SET": "a\nb", "EMPTY": ""}
    directory = tmp_path_factory.mktemp("work")
    real = subprocess.run(
        ["sh", SCRIPT, *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    left = {encoded(str(path.relative_to(directory))) for path in directory.rglob("*")}
    shutil.rmtree(directory)

    fake = perform(program(*arguments, environment=environment))
    returncode = -fake.signal if fake.signal is not None else fake.exit_code
    assert _ending(returncode) == _ending(real.returncode)
    assert bytes(fake.stdout) == real.stdout
    assert set(map(encoded, fake.files)) == left


def _ending(returncode: int | None) -> int | None:
    """A redirection that fails is 2 in dash and 1 elsewhere."""
    return 1 if returncode == 2 else returncode


def test_output_before_a_sleep_is_there_while_it_sleeps() -> None:
    asked = program("echo", "before", "sleep", "10", "echo", "after")
    asleep = perform(asked, 9.9)
    assert (bytes(asleep.stdout), asleep.duration) == (b"before\n", None)
    awake = perform(asked)
    assert (bytes(awake.stdout), awake.duration) == (b"before\nafter\n", 10)


def test_any_other_executable_succeeds_at_once_with_empty_output() -> None:
    done = perform(Program("true", ("echo", "x"), {}, {}))
    assert (done.exit_code, done.duration, done.stdout.size) == (0, 0, 0)


def test_a_gigabyte_of_zeros_is_not_held_in_memory() -> None:
    done = perform(program("fill", "big", str(2**30), "cat", "big"))
    assert done.files["big"].content.size == done.stdout.size == 2**30
    assert sum(len(pattern) for pattern, _ in done.stdout.runs) < 100


@pytest.mark.parametrize(
    "verbs",
    [["sleep", "x"], ["sleep", "-1"], ["exit", "x"], ["fill", "f", "-1"], ["echo"], ["dance"]],
)
def test_what_it_does_not_understand_is_exit_64_with_a_word_about_it(verbs: list[str]) -> None:
    done = perform(program(*verbs))
    assert done.exit_code == 64
    assert verbs[0].encode() in bytes(done.stderr)


def test_secrets_and_executables_show_their_modes() -> None:
    files = {"key": Entry(Kind.FILE, mode=0o600), "run": Entry(Kind.FILE, mode=0o700)}
    done = perform(Program("payload.sh", ("mode", "key", "mode", "run"), {}, files))
    assert bytes(done.stdout) == b"600\n700\n"


def test_overwriting_a_file_keeps_its_mode() -> None:
    files = {"run": Entry(Kind.FILE, mode=0o700)}
    done = perform(Program("payload.sh", ("write", "run", "x", "mode", "run"), {}, files))
    assert bytes(done.stdout) == b"700\n"


def test_links_are_followed_inside_and_never_outside() -> None:
    files: dict[str, Entry] = {}
    for name, target in {"in": "d/f", "up": "../x", "abs": "/etc", "d/back": "../in"}.items():
        assert made(files, name, Entry(Kind.LINK, target=target))
    assert made(files, "loop", Entry(Kind.LINK, target="loop"))
    places = {name: resolved(files, name) for name in ("in", "d/back", "up", "abs/passwd", "loop")}
    assert places == {"in": "d/f", "d/back": "d/f", "up": None, "abs/passwd": None, "loop": None}


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=5), st.integers(1, 50))), st.integers(0, 80)
)
def test_a_tail_is_the_end_of_all_bytes(runs: list[tuple[bytes, int]], length: int) -> None:
    content = Content(tuple(runs))
    whole = b"".join(pattern * times for pattern, times in runs)
    assert bytes(content) == whole
    assert content.size == len(whole)
    assert content.tail(length) == whole[max(len(whole) - length, 0) :]


@given(st.binary(min_size=1, max_size=4), st.integers(0, 40))
def test_a_repeated_pattern_is_cut_at_its_size(pattern: bytes, size: int) -> None:
    assert bytes(Content.repeated(pattern, size)) == (pattern * size)[:size]


def test_what_was_shut_has_no_rights() -> None:
    progress = perform(program("write", "d/f", "x", "shut", "d/f", "mode", "d/f", "shut", "d"))
    assert bytes(progress.stdout) == b"000\n"
    assert progress.files["d"].mode == 0
    assert perform(program("shut", "absent")).exit_code == 1
