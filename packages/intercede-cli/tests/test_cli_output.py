"""What goes to stdout and stderr: JSON and nothing else, no control codes, no traceback, whatever the reader and the locale."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]
Configure = Callable[[str], None]
Starter = Callable[..., "subprocess.Popen[bytes]"]

FAKE = ("--resource", "fake")
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_run_as_json_is_one_document(intercede: Run) -> None:
    ended = intercede(
        "run", "--json", *FAKE, "--copies", "2", "--output", "a", "--",
        "payload.sh", "echo", "x", "write", "a", "A", "exit", "4",
    )  # fmt: skip

    document = json.loads(ended.stdout)
    assert ended.returncode == document["exit_code"] == 4
    assert ended.stderr == ""
    assert [job["copy"] for job in document["jobs"]] == [0, 1]
    for job in document["jobs"]:
        assert (job["status"], job["exit_code"], job["missing"]) == ("failed", 4, [])
        assert Path(job["stdout"]).read_text() == "x\n"
        assert Path(job["files"]["a"]).read_text() == "A"


@pytest.mark.parametrize("command", ["status", "fetch", "kill", "purge"])
def test_the_commands_about_jobs_give_one_document_with_an_entry_per_id(
    intercede: Run, command: str
) -> None:
    job = intercede("submit", *FAKE, "--", "true").stdout.strip()

    document = json.loads(intercede(command, "--json", job, "fake/gone/0").stdout)

    assert [item["id"] for item in document["jobs"]] == [job, "fake/gone/0"]
    assert document["errors"] == []


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["status"], "UsageError", 2),
        (["bogus"], "UsageError", 2),
        (["status", "nowhere/a/0"], "ConfigurationError", 2),
        (["status", "--config", "missing", "fake/a/0"], "ConfigurationError", 2),
        (["plugins", "show", "none"], "PluginNotFound", 2),
        (["run", *FAKE, "--cpus", "0", "--", "true"], "SpecRefused", 2),
        (["find", *FAKE, "t"], "Unreachable", 3),
        (["submit", *FAKE, "--", "true"], "SubmitUncertain", 4),
    ],
)
def test_an_error_is_a_document_too(
    intercede: Run, configure: Configure, words: list[str], kind: str, code: int
) -> None:
    configure(
        'faults = [{operation = "find", kind = "unreachable"},'
        ' {operation = "submit", kind = "lost-after-effect"}]'
    )

    cut = words.index("--") if "--" in words else len(words)
    ended = intercede(*words[:cut], "--json", *words[cut:])

    error = json.loads(ended.stdout)["error"]
    assert (error["type"], error["exit_code"], ended.returncode) == (kind, code, code)
    assert error["message"]
    assert ended.stderr == ""


def test_the_handles_of_an_uncertain_submit_are_in_the_document(
    intercede: Run, configure: Configure
) -> None:
    configure('faults = [{operation = "submit", kind = "lost-after-effect"}]')

    error = json.loads(intercede("submit", "--json", *FAKE, "--", "true").stdout)["error"]

    assert [handle["copy"] for handle in error["handles"]] == [0]


def test_words_of_a_daemon_cannot_steer_the_terminal(intercede: Run, configure: Configure) -> None:
    evil = r"a\u001b]0;owned\u0007\u001b[2J\nintercede: all is well\u202e"
    configure(f'faults = [{{operation = "details", kind = "resource-error", message = "{evil}"}}]')

    ended = intercede("status", "fake/a/0")

    assert "\\x1b]0;owned\\x07\\x1b[2J" in ended.stderr
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", ended.stderr)
    assert not re.search("^intercede: all is well", ended.stderr, re.MULTILINE)


def test_names_of_files_and_ids_cannot_steer_the_terminal(intercede: Run) -> None:
    ended = intercede("status", "fake/\x1b[31m/0")

    assert "\x1b" not in ended.stdout + ended.stderr
    assert "fake/\\x1b[31m/0" in ended.stdout


def test_plain_output_has_no_control_codes(start: Starter) -> None:
    code, out, err = _ended(
        start(["run", *FAKE, "--copies", "2", "--", "payload.sh"], TERM="xterm-256color")
    )

    assert code == 0
    assert b"2 successful" in err
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", out + err)


@pytest.mark.parametrize(
    "words",
    [
        ["run", *FAKE, "--copies", "2", "--", "payload.sh", "sleep", "300"],
        ["plugins", "list"],
    ],
)
def test_a_terminal_gets_colour_and_its_cursor_back(start: Starter, words: list[str]) -> None:
    code, shown = _on_terminal(start, words, TERM="xterm-256color", COLUMNS="100")

    assert code == 0
    assert ESCAPE.search(shown)
    assert shown.rfind(b"\x1b[?25h") >= shown.rfind(b"\x1b[?25l")
    plain = ESCAPE.sub(b"", shown)
    assert b"successful" in plain or b"transports" in plain


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}])
def test_a_dumb_terminal_gets_plain_text(start: Starter, environment: dict[str, str]) -> None:
    code, shown = _on_terminal(start, ["run", *FAKE, "--", "payload.sh"], **environment)

    assert code == 0
    assert b"\x1b" not in shown


def _on_terminal(start: Starter, words: list[str], **environment: str) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    try:
        process = start(words, stdout=theirs, stderr=theirs, **environment)
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not chunk:
                break
            shown += chunk
        return process.wait(timeout=60), shown
    finally:
        os.close(ours)


def test_a_reader_that_has_gone_is_no_error(start: Starter) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    try:
        code, _, err = _ended(start(["plugins", "list"], stdout=writable))
    finally:
        os.close(writable)

    assert (code, err) == (0, b"")


def test_a_run_whose_reader_has_gone_still_fetches_and_purges(start: Starter, here: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    try:
        process = start(
            ["run", *FAKE, "--", "payload.sh", "echo", "x", "exit", "6"], stdout=writable
        )
        code, _, err = _ended(process)
    finally:
        os.close(writable)

    assert code == 6
    assert b"Broken pipe" not in err
    assert [p.read_text() for p in (here / "results").rglob("stdout")] == ["x\n"]


@pytest.mark.parametrize("words", [["plugins", "list"], ["plugins", "list", "--json"]])
def test_a_full_disk_behind_stdout_is_one_clear_error(start: Starter, words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        code, _, err = _ended(start(words, stdout=full.fileno()))

    assert code == 1
    assert err.startswith(b"intercede: ")
    assert b"cannot write the output: No space left on device" in err
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_a_locale_without_the_characters_is_no_error_and_bytes_reach_the_job(
    start: Starter, environment: dict[str, str]
) -> None:
    words = ["run", *FAKE, "--tag", "größe", "--", "payload.sh", "args", "é", "\udcff"]

    code, out, err = _ended(start(words, **environment))

    assert code == 0
    assert out == "é\0".encode() + b"\xff\0"
    assert b"Traceback" not in err


def test_a_name_that_the_locale_lacks_is_shown_as_an_escape(start: Starter) -> None:
    code, _, err = _ended(start(["run", "--", "./größe"], PYTHONIOENCODING="ascii"))

    assert code == 2
    assert rb"gr\xf6\xdfe" in err


def test_the_version_is_told(intercede: Run) -> None:
    ended = intercede("--version")

    assert ended.returncode == 0
    assert re.fullmatch(r"intercede \d+\.\d+\S*\n", ended.stdout)


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["submit"], ["status"], ["fetch"], ["kill"], ["purge"], ["find"], ["plugins"]],
)
def test_every_command_has_help(intercede: Run, command: list[str]) -> None:
    ended = intercede(*command, "--help")

    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: intercede")


def test_traceback_is_for_developers(intercede: Run) -> None:
    with pytest.raises(ValueError, match="no resource"):
        intercede("status", "--traceback", "nowhere/a/0")


def test_a_plugin_that_shadows_a_built_in_is_one_line_of_warning(
    start: Starter, tmp_path: Path
) -> None:
    outsider = tmp_path / "outsider-1.0.dist-info"
    outsider.mkdir()
    (outsider / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (outsider / "entry_points.txt").write_text(
        "[intercede.backends]\nfake = intercede.fake:backend\n"
    )

    code, out, err = _ended(start(["status", "fake/a/0"], PYTHONPATH=str(tmp_path)))

    assert code == 1
    assert b"no-such-job" in out
    assert err.startswith(b"intercede: warning: backends.fake: outsider 1.0")
    assert err.count(b"\n") == 1
