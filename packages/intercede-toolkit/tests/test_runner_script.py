"""The runner: what it does with a payload, and what it writes down."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.core import FileRef, SubmissionSpec
from intercede.toolkit import copy_variables, parse_exit, runner_script

SHELLS = [["dash"], ["bash"], ["busybox", "sh"]]


def prepare(tmp_path: Path, spec: SubmissionSpec) -> Path:
    """A sandbox with one copy, in a directory whose name needs quoting."""
    directory = tmp_path / 'it\'s a "sandbox" $HOME'
    (directory / "0").mkdir(parents=True)
    (directory / "inputs").mkdir()
    for ref in spec.inputs:
        assert ref.content is not None
        (directory / "inputs" / ref.name).write_bytes(ref.content)
    (directory / "runner").write_bytes(
        runner_script(spec, directory=str(directory), submission="s1")
    )
    return directory


def write_variables(directory: Path, environments: list[dict[str, str]]) -> None:
    for name, content in copy_variables(environments).items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


def run(directory: Path, shell: list[str], copy: str = "0") -> int:
    # Under nohup we ignore a signal, and so would the payload.
    command = ["env", "--default-signal", *shell, str(directory / "runner"), copy]
    return subprocess.run(command, check=False).returncode


def payload(text: str, *inputs: FileRef, **environment: str) -> SubmissionSpec:
    return SubmissionSpec(
        "/bin/sh",
        resident=True,
        arguments=["-c", text],
        inputs=inputs,
        environment=environment,
    )


@pytest.fixture(params=SHELLS, ids="-".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    shell: list[str] = request.param
    return shell


def test_it_runs_the_payload_in_its_work_directory_with_its_environment(
    tmp_path: Path, shell: list[str]
) -> None:
    directory = prepare(
        tmp_path,
        payload(
            'cat data; echo "$A $B $INTERCEDE_COPY $INTERCEDE_JOB"; pwd >&2',
            FileRef("data", content=b"1\n"),
            A="a",
            B="b",
        ),
    )
    write_variables(directory, [{"B": "of the copy", "UID": "x"}, {"B": "of another"}])
    assert run(directory, shell) == 0
    assert (directory / "0" / "stdout").read_text() == "1\na of the copy 0 s1.0;\n"
    assert (directory / "0" / "stderr").read_text() == f"{directory}/0/work\n"
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.code, record.signal, record.cancelled, record.limit) == (0, None, False, None)
    assert record.node == os.uname().nodename


@pytest.mark.parametrize("copy", [0, 1, 9, 99, 100, 101, 249])
def test_each_of_many_copies_gets_its_own_variables(
    tmp_path: Path, shell: list[str], copy: int
) -> None:
    directory = prepare(tmp_path, payload('echo "$A $B"', B="of all"))
    (directory / "0").rename(directory / str(copy))
    environments = [{"A": f"{number}' \n$A"} for number in range(250)]
    environments[9] = {}
    write_variables(directory, environments)
    assert len(list((directory / "vars").iterdir())) == 3
    assert run(directory, shell, str(copy)) == 0
    expected = " of all\n" if copy == 9 else f"{copy}' \n$A of all\n"
    assert (directory / str(copy) / "stdout").read_text() == expected


def test_copies_of_one_environment_have_no_variables_of_their_own() -> None:
    assert not copy_variables([{}] * 1000)
    assert list(copy_variables([*[{}] * 250, {"A": "a"}])) == ["vars/2"]


def test_a_payload_without_a_work_directory_does_not_start(
    tmp_path: Path, shell: list[str]
) -> None:
    directory = prepare(tmp_path, payload("echo ran > ../ran"))
    (directory / "0" / "work").write_text("in the way")
    assert run(directory, shell) == 71
    said = (directory / "0" / "stderr").read_text()
    assert "work" in said.splitlines()[0]
    assert "the payload was not started" in said
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert record.code == 71


def test_a_copy_starts_once(tmp_path: Path, shell: list[str]) -> None:
    directory = prepare(tmp_path, payload("echo ran >> ../ran"))
    run(directory, shell)
    assert run(directory, shell) == 75
    assert (directory / "0" / "ran").read_text() == "ran\n"


def test_a_copy_that_was_cancelled_does_not_start(tmp_path: Path, shell: list[str]) -> None:
    directory = prepare(tmp_path, payload("echo ran > ../ran"))
    (directory / "0" / "cancel").touch()
    run(directory, shell)
    assert not (directory / "0" / "ran").exists()
    assert not (directory / "0" / "exit").exists()


@pytest.mark.parametrize("copy", ["", "x", "../0", "0x", "-1", "7"])
def test_a_copy_that_does_not_exist_is_refused(tmp_path: Path, shell: list[str], copy: str) -> None:
    directory = prepare(tmp_path, payload("true"))
    assert run(directory, shell, copy) in (64, 71, 2)
    assert not (directory / "0" / "exit").exists()


@pytest.mark.parametrize(
    ("text", "code", "signal"),
    [
        ("exit 0", 0, None),
        ("exit 1", 1, None),
        ("exit 126", 126, None),
        ("exit 128", 128, None),
        ("exit 129", 129, None),
        ("exit 137", 137, None),
        ("exit 143", 143, None),
        ("exit 255", 255, None),
        ("kill -1 $$", 129, 1),
        ("kill -6 $$", 134, 6),
        ("kill -9 $$", 137, 9),
        ("kill -15 $$", 143, 15),
        ("kill -10 $$", 138, 10),
    ],
)
def test_an_exit_code_is_told_from_a_signal(
    tmp_path: Path, shell: list[str], text: str, code: int, signal: int | None
) -> None:
    directory = prepare(tmp_path, payload(text))
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.code, record.signal) == (code, signal)


def test_a_signal_to_the_runner_does_not_lose_the_record(tmp_path: Path, shell: list[str]) -> None:
    directory = prepare(tmp_path, payload("kill -TERM $PPID; kill -HUP $PPID; sleep 0.2; exit 9"))
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert record.code == 9


@pytest.mark.parametrize(("name", "told"), [("TERM", True), ("HUP", False), ("USR1", False)])
def test_it_writes_down_that_it_was_told_to_end(
    tmp_path: Path, shell: list[str], name: str, told: bool
) -> None:
    directory = prepare(tmp_path, payload(f"kill -{name} $PPID; exit 0"))
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.code, record.told) == (0, told)


def test_a_payload_whose_inputs_may_be_cut_does_not_start(
    tmp_path: Path, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepare(tmp_path, payload("echo ran > ../ran", FileRef("data", content=b"1\n")))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cp").write_text("#!/bin/sh\nkill -TERM $PPID\nkill -TERM $$\n")
    (tools / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.code, record.told) == (143, True)
    assert not (directory / "0" / "ran").exists()


def test_a_payload_that_lacks_an_input_does_not_start(
    tmp_path: Path, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepare(tmp_path, payload("echo ran > ../ran", FileRef("data", content=b"1\n")))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cp").write_text("#!/bin/sh\necho 'cp: No space left on device' >&2\nexit 1\n")
    (tools / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.code, record.signal) == (71, None)
    assert not (directory / "0" / "ran").exists()
    said = (directory / "0" / "stderr").read_text()
    assert said.startswith(
        "cp: No space left on device\nrunner: work/ and its inputs are not complete"
    )


@pytest.mark.parametrize("signal", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "XCPU"])
def test_a_signal_to_all_of_a_job_does_not_lose_the_record_that_is_being_written(
    tmp_path: Path, shell: list[str], monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    directory = prepare(tmp_path, payload("exit 9"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("date", "mv"):
        # They are called before the payload, too.
        text = f'[ ! -e stdout ] || kill -{signal} $PPID $$\nexec {shutil.which(name)} "$@"\n'
        (tools / name).write_text(f"#!/bin/sh\n{text}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert run(directory, shell) == 9
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.code, record.told) == (9, False)
    assert record.ended is not None


@pytest.mark.parametrize(("number", "told"), [(15, True), (9, False)])
def test_a_payload_that_died_of_term_was_told_to_end(
    tmp_path: Path, shell: list[str], number: int, told: bool
) -> None:
    directory = prepare(tmp_path, payload(f"kill -{number} $$"))
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert (record.signal, record.told) == (number, told)


def test_a_record_of_an_older_runner_says_nothing_of_being_told() -> None:
    line = "code=0 signal=- cancelled=- limit=- began=1 ended=2 node=n end"
    record = parse_exit(line)
    assert record is not None
    assert record.told is False


@pytest.mark.parametrize("name", ["began", "ended", "node"])
def test_a_record_without_a_time_or_place_still_tells_how_it_ended(name: str) -> None:
    fields = {"code": "9", "signal": "-", "cancelled": "yes", "limit": "-"}
    fields |= {"began": "1", "ended": "2", "node": "n"} | {name: ""}
    record = parse_exit(" ".join(f"{key}={value}" for key, value in fields.items()) + " end")
    assert record is not None
    assert getattr(record, name) is None
    assert (record.code, record.cancelled) == (9, True)


def test_marks_of_our_kill_and_of_a_limit_are_in_the_record(
    tmp_path: Path, shell: list[str]
) -> None:
    directory = prepare(tmp_path, payload(": > ../cancel; : > ../limit; exit 0"))
    run(directory, shell)
    record = parse_exit((directory / "0" / "exit").read_text())
    assert record is not None
    assert record.cancelled
    assert record.limit == "wall-time"


def test_the_payload_inherits_no_descriptor(tmp_path: Path, shell: list[str]) -> None:
    directory = prepare(tmp_path, payload("ls /proc/self/fd"))
    holder = ["sh", "-c", 'exec 9>"$1"; shift; exec "$@"', "sh", str(tmp_path / "lock")]
    subprocess.run([*holder, *shell, str(directory / "runner"), "0"], check=True)
    held = (directory / "0" / "stdout").read_text().split()
    assert "9" not in held


def test_what_the_runner_makes_is_private(tmp_path: Path, shell: list[str]) -> None:
    directory = prepare(tmp_path, payload(": > file; mkdir d"))
    run(directory, shell)
    for path in (directory / "0").rglob("*"):
        if path.name != "work":
            assert path.stat().st_mode & 0o077 == 0, path


@given(st.text(max_size=300))
def test_any_text_is_a_record_or_none(text: str) -> None:
    parse_exit(text)


@given(
    st.dictionaries(
        st.sampled_from(["code", "signal", "cancelled", "limit", "began", "ended", "node"]),
        st.one_of(st.integers().map(str), st.text(max_size=9), st.sampled_from(["-", "yes", "²"])),
    )
)
def test_any_fields_are_a_record_or_none(fields: dict[str, str]) -> None:
    record = parse_exit(" ".join(f"{k}={v}" for k, v in fields.items()) + " end")
    if record is not None:
        assert 0 <= record.code <= 255


def test_a_record_that_is_cut_is_none() -> None:
    line = "code=0 signal=- cancelled=- limit=- began=1795321975 ended=1795321975 node=n end"
    assert parse_exit(line) is not None
    for cut in range(len(line)):
        assert parse_exit(line[:cut]) is None
