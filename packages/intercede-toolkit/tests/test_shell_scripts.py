"""Scripts travel through any login shell, and what comes back is told from noise."""

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercede.core import Command, ResourceError
from intercede.toolkit import Frames, Script, quote, quote_pattern

SHELLS = [["dash"], ["bash"], ["busybox", "sh"]]
LOGIN_SHELLS = ["sh", "bash", "dash", "csh", "tcsh"]
EVERY_BYTE = bytes(range(1, 256))

#: Text as a command line can have it: any bytes but NUL.
words = st.binary(max_size=60).map(
    lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


def run(script: Script, shell: Sequence[str] = ("sh",), before: bytes = b"") -> Frames:
    command = script.command(timeout_s=20)
    answer = subprocess.run(
        [*shell, *command.argv[1:]], input=command.stdin, capture_output=True, check=False
    )
    assert answer.stderr == b""
    return script.parse(before + answer.stdout)


@pytest.mark.parametrize("shell", SHELLS, ids="-".join)
def test_arguments_and_input_arrive_byte_for_byte_under_every_shell(shell: list[str]) -> None:
    every = EVERY_BYTE.decode("utf-8", "surrogateescape")
    script = Script()
    script.run("arguments", Command(["printf", "%s", every]))
    script.run("input", Command(["cat"], stdin=bytes(range(256)) * 2000))
    script.run("after", Command(["cat"], stdin=b"next"))
    frames = run(script, shell)
    assert frames.ended
    assert frames.results["arguments"].stdout == EVERY_BYTE
    assert frames.results["input"].stdout == bytes(range(256)) * 2000
    assert frames.results["after"].stdout == b"next"


@pytest.mark.parametrize("login", LOGIN_SHELLS)
def test_the_command_line_survives_every_login_shell(login: str) -> None:
    """As sshd runs it: the login shell gets one string."""
    if shutil.which(login) is None:
        pytest.fail(f"{login} is needed for this test: apt-get install csh tcsh dash")
    script = Script()
    script.run("x", Command(["printf", "%s", EVERY_BYTE.decode("utf-8", "surrogateescape")]))
    command = script.command(timeout_s=20)
    line = "exec " + " ".join(quote(word) for word in command.argv)
    answer = subprocess.run(
        [login, "-c", line], input=command.stdin, capture_output=True, check=True
    )
    assert script.parse(answer.stdout).results["x"].stdout == EVERY_BYTE


@given(st.lists(words.filter(bool), min_size=1, max_size=5), st.binary(max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_words_and_any_input_arrive(arguments: list[str], data: bytes) -> None:
    script = Script()
    script.run("words", Command(["printf", "%s\\0", *arguments]))
    script.run("data", Command(["cat"], stdin=data))
    frames = run(script)
    expected = b"".join(os.fsencode(word) + b"\0" for word in arguments)
    assert frames.results["words"].stdout == expected
    assert frames.results["data"].stdout == data


def test_exit_code_and_stderr_come_back_with_the_output() -> None:
    script = Script()
    script.run("a", Command(["sh", "-c", "echo out; echo err >&2; exit 7"]))
    script.run("b", Command(["no-such-command"]))
    frames = run(script)
    assert frames.results["a"].returncode == 7
    assert frames.results["a"].stdout == b"out\n"
    assert frames.results["a"].stderr == b"err"
    assert frames.results["b"].returncode == 127


def test_a_command_that_reads_only_part_of_its_input_does_not_spoil_the_next() -> None:
    script = Script()
    script.run("a", Command(["head", "-c", "1"], stdin=b"x" * 500_000))
    script.run("b", Command(["cat"], stdin=b"mine"))
    assert run(script).results["b"].stdout == b"mine"


def test_a_command_without_input_does_not_read_another_ones() -> None:
    script = Script()
    script.run("a", Command(["cat"]))
    script.run("b", Command(["cat"], stdin=b"mine"))
    frames = run(script)
    assert frames.results["a"].stdout == b""
    assert frames.results["b"].stdout == b"mine"


def test_the_noise_of_a_profile_is_left_out() -> None:
    script = Script()
    script.add("frame say; frame say; echo one; printf 't\\v\\rwo\\n'")
    frames = run(script, before=b"Welcome!\n" + b"\xff" * 1000)
    assert frames.lines == ["one", "t\v\rwo"]
    assert frames.ended


def test_output_that_imitates_a_frame_is_output() -> None:
    script = Script()
    forged = "\n" + "0" * 32 + " end x 0\n" + "0" * 32 + " ended\n"
    script.run("x", Command(["printf", "%s", forged]))
    assert run(script).results["x"].stdout == forged.encode()


def test_the_scripts_of_two_calls_cannot_be_mistaken_for_each_other() -> None:
    assert Script().nonce != Script().nonce


@pytest.mark.parametrize("shell", SHELLS, ids="-".join)
def test_a_script_that_was_cut_anywhere_runs_nothing(shell: list[str]) -> None:
    """A connection may break under it, and its shell sees an end of input."""
    script = Script()
    for number in range(5):
        script.add(f"printf '%s' 'harmless {number}'")
    command = script.command(timeout_s=20)
    whole = len(command.stdin)
    for length in (*range(0, whole, 61), *range(whole - 30, whole)):
        answer = subprocess.run(
            [*shell, *command.argv[1:]],
            input=command.stdin[:length],
            capture_output=True,
            check=False,
        )
        assert answer.stdout == b"", length
    assert run(script, shell).ended


def test_a_cut_answer_has_not_ended() -> None:
    script = Script()
    script.run("x", Command(["echo", "1"]))
    command = script.command(timeout_s=5)
    answer = subprocess.run(command.argv, input=command.stdin, capture_output=True, check=True)
    for cut in range(len(answer.stdout)):
        assert not script.parse(answer.stdout[:cut]).ended
    assert script.parse(answer.stdout).ended
    with pytest.raises(ResourceError, match="ends before command x0"):
        Frames().commands("x", 1)


@given(st.binary(max_size=400))
def test_any_answer_at_all_is_read_without_an_error(noise: bytes) -> None:
    script = Script()
    word = b"\n" + script.nonce.encode() + b" "
    script.parse(noise)
    script.parse(noise.replace(b"\n", word))


@given(
    st.lists(
        st.sampled_from(
            [b"begin a", b"end a 0", b"end", b"end a x", b"say", b"ended", b"", b"x" * 9]
        ),
        max_size=8,
    )
)
def test_frames_in_any_order_are_read_without_an_error(heads: list[bytes]) -> None:
    script = Script()
    word = b"\n" + script.nonce.encode() + b" "
    script.parse(b"".join(word + head + b"\nbody" for head in heads))


def test_nothing_secret_or_long_is_on_the_command_line() -> None:
    script = Script()
    script.run("x", Command(["echo", "marker-7731"], stdin=b"secret"))
    command = script.command(timeout_s=5)
    assert "marker-7731" not in " ".join(command.argv)
    assert len(" ".join(command.argv)) < 100


class TestPatterns:
    NAMES = ("a", "ab", "b.csv", "a b.csv", "[x]", "x", "-", "a*b", ".hidden", "é", "a'b", "!", "^")

    @pytest.mark.parametrize(
        ("pattern", "matches"),
        [
            ("*.csv", {"a b.csv", "b.csv"}),
            ("a*b", {"a*b", "ab", "a'b"}),
            ("?", {"!", "-", "^", "a", "x"}),
            ("[ax]", {"a", "x"}),
            ("[!ax]", {"!", "-", "^"}),
            ("[a-x]", {"a", "x"}),
            ("[[]x]", {"[x]"}),
            ("[*]", set()),
            ("[-]", {"-"}),
            ("[^]", {"^"}),
            ("a[*]b", {"a*b"}),
            (".*", {".hidden"}),
            ("a'b", {"a'b"}),
            ("$(id)", set()),
            ("é", {"é"}),
            ("no such", set()),
        ],
    )
    @pytest.mark.parametrize("shell", SHELLS, ids="-".join)
    def test_a_pattern_matches_what_it_says(
        self, tmp_path: object, shell: list[str], pattern: str, matches: set[str]
    ) -> None:
        for name in self.NAMES:
            with open(f"{tmp_path}/{name}", "w"):  # noqa: PTH123 - tmp_path is opaque here
                pass
        text = f'for f in {quote_pattern(pattern)}; do [ ! -e "$f" ] || printf "%s\\0" "$f"; done'
        answer = subprocess.run(
            [*shell, "-c", text],
            cwd=str(tmp_path),
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        found = {os.fsdecode(name) for name in answer.stdout.split(b"\0") if name}
        assert found - {".", ".."} == matches

    @given(words.filter(lambda text: text and not set(text) & set("*?[")))
    @settings(max_examples=60, deadline=None)
    def test_a_name_without_special_characters_stands_for_itself(self, name: str) -> None:
        answer = subprocess.run(
            ["sh", "-c", f"printf %s {quote_pattern(name)}"], capture_output=True, check=True
        )
        assert answer.stdout == os.fsencode(name)
