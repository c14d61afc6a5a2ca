"""How a command travels: through real shells here, whole, cut, and after noise."""

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercede.transport.ssh._framing import COMMAND_LINE, Opening, framed, new_word, read_remote

#: What stands for a login shell; each is given the line as sshd gives it.
SHELLS = [shell for shell in ("sh", "dash", "bash", "csh", "tcsh", "ksh") if shutil.which(shell)]
ARGUMENTS = st.lists(
    st.binary(max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))), max_size=12
)


def run(shell: str, sent: bytes, **options: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [shell, "-c", COMMAND_LINE], input=sent, capture_output=True, check=False, timeout=30
    )


def own(word: str, stream: bytes) -> bytes:
    opening = Opening(word)
    found = opening.feed(stream)
    assert opening.line is not None, stream
    return found


@settings(max_examples=60, deadline=None)
@given(ARGUMENTS, st.binary(max_size=200), st.sampled_from(SHELLS))
def test_arguments_and_input_arrive_byte_for_byte(
    words: list[str], data: bytes, shell: str
) -> None:
    word = new_word()
    show = r'for one in "$@"; do printf "%s\0" "$one"; done; cat'
    ended = run(shell, framed(("sh", "-c", show, "show", *words), word) + data)
    expected = b"".join(os.fsencode(one) + b"\0" for one in words) + data
    assert own(word, ended.stdout) == expected
    assert own(word, ended.stderr) == b""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("length", [0, 100, 200, 300, 600, 100_000])
def test_a_script_of_any_length_is_read_exactly(shell: str, length: int) -> None:
    word = new_word()
    sent = framed(("sh", "-c", 'printf "%s" "${#1}"; cat', "x", "a" * length), word) + b"\ndata\0"
    assert own(word, run(shell, sent).stdout) == str(length).encode() + b"\ndata\0"


@pytest.mark.parametrize("words", [("a",), ("a" * 700,)])
def test_a_script_that_was_cut_runs_nothing(words: tuple[str, ...]) -> None:
    """A command that ran with a shorter argument would be worse than none."""
    script = framed(("printf", "%s", *words), "WORD").rstrip(b"\n")
    for length in [*range(0, len(script), 7), *range(len(script) - 40, len(script))]:
        assert b"WORD" not in run("sh", script[:length]).stdout
    assert b"WORD" in run("sh", script).stdout


def test_a_script_that_nobody_hears_does_not_become_the_command() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        ["sh", "-c", COMMAND_LINE], stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        said = process.communicate(framed(("sh", "-c", "echo ran >&2"), new_word()))[1]
    assert b"ran" not in said
    assert process.returncode != 0


@given(
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.lists(st.integers(1, 50), max_size=40),
)
def test_noise_is_dropped_however_the_stream_is_cut(
    noise: bytes, output: bytes, cuts: list[int]
) -> None:
    word = new_word()
    stream = noise + word.encode() + b" 17 17 (sh) S\n" + output
    opening = Opening(word)
    got = b""
    for cut in cuts:
        got += opening.feed(stream[:cut])
        stream = stream[cut:]
    got += opening.feed(stream)
    assert got == output
    assert opening.dropped == len(noise)
    assert opening.line == "17 17 (sh) S"


def test_what_a_profile_said_is_kept_in_part_for_messages() -> None:
    opening = Opening(new_word())
    for _ in range(100):
        assert opening.feed(b"x" * 1000) == b""
    opening.feed(b"This account is not available")
    assert opening.said.endswith(b"This account is not available")
    assert len(opening.said) <= 2048


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    fields = " ".join(str(number) for number in range(3, 53))
    remote = read_remote(f"4711 4711 (a) b (c)) {fields}")
    assert remote is not None
    assert (remote.pid, remote.start) == (4711, "22")
    without = read_remote("4711 ")
    assert without is not None
    assert (without.pid, without.start) == (4711, "")
    assert read_remote("home") is None
    assert read_remote("") is None
