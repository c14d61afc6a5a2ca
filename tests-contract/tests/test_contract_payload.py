"""The payload's verbs, under every shell a host may have."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from intercede.contract import PAYLOAD

SHELLS = [["dash"], ["bash", "--posix"], ["bash"], ["busybox", "sh"]]
ALL_BYTES = os.fsdecode(bytes(range(1, 256)))

Payload = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(params=SHELLS, ids=" ".join)
def payload(request: pytest.FixtureRequest, tmp_path: Path) -> Payload:
    shell: list[str] = request.param
    assert shutil.which(shell[0]), f"{shell[0]} must be installed to test the payload under it"

    def run(*verbs: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*shell, str(PAYLOAD), *verbs],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


def test_it_does_its_verbs_in_order_and_exits_with_0(payload: Payload) -> None:
    done = payload("echo", "a b", "err", "-n", "echo", "-e \\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a b\n-e \\n\n", b"-n\n")


def test_without_verbs_it_succeeds(payload: Payload) -> None:
    assert payload().returncode == 0


def test_args_prints_every_byte_of_the_rest(payload: Payload) -> None:
    done = payload("args", ALL_BYTES, "", "--", "exit", "3")
    assert done.stdout == b"\0".join([bytes(range(1, 256)), b"", b"--", b"exit", b"3", b""])
    assert done.returncode == 0


def test_env_prints_every_byte_and_tells_empty_from_unset(payload: Payload) -> None:
    done = payload("env", "A", "env", "B", "env", "C", A=ALL_BYTES, B="")
    assert done.stdout == b"=" + bytes(range(1, 256)) + b"\0=\0unset\0"


def test_write_makes_parents_and_adds_nothing(payload: Payload, tmp_path: Path) -> None:
    assert payload("write", "-d/e f/g", "x\ny", "write", "-h", "").returncode == 0
    assert (tmp_path / "-d/e f/g").read_bytes() == b"x\ny"
    assert (tmp_path / "-h").read_bytes() == b""


@pytest.mark.parametrize("size", [0, 1, 65536, 200_001])
def test_fill_writes_so_many_zeros(payload: Payload, tmp_path: Path, size: int) -> None:
    payload("fill", "d/f", str(size))
    assert (tmp_path / "d/f").read_bytes() == bytes(size)


def test_many_writes_numbered_files(payload: Payload, tmp_path: Path) -> None:
    payload("many", "d/e", "12")
    found = {file.name: file.read_text() for file in (tmp_path / "d/e").iterdir()}
    assert found == {f"f{number}": f"{number}\n" for number in range(12)}


def test_cat_prints_the_bytes_of_a_file(payload: Payload, tmp_path: Path) -> None:
    (tmp_path / "-f").write_bytes(bytes(range(256)))
    assert payload("cat", "-f").stdout == bytes(range(256))


def test_a_verb_that_fails_ends_it(payload: Payload) -> None:
    done = payload("cat", "absent", "echo", "on")
    assert (done.returncode != 0, done.stdout) == (True, b"")


@pytest.mark.parametrize("mode", [0o600, 0o755, 0o640, 0o421, 0o000])
def test_mode_prints_the_permission_in_octal(payload: Payload, tmp_path: Path, mode: int) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(mode)
    assert payload("mode", "f").stdout == f"{mode:03o}\n".encode()


def test_ls_prints_all_names_sorted_by_bytes(payload: Payload, tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    for name in ("B", ".hidden", "b/c/d", "b.x"):
        (tmp_path / name).touch()
    assert payload("ls").stdout == b".hidden\nB\nb\nb.x\nb/c\nb/c/d\n"


def test_exit_ends_it_with_the_code(payload: Payload) -> None:
    assert payload("exit", "7", "echo", "on").returncode == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_signal_ends_it_by_the_signal(payload: Payload, number: int) -> None:
    done = payload("signal", str(number), "echo", "on")
    assert (done.returncode, done.stdout) == (-number, b"")


def test_trap_makes_it_deaf_to_term(payload: Payload) -> None:
    assert payload("trap", "signal", "15", "echo", "on").stdout == b"on\n"


def test_shut_takes_all_rights_away(payload: Payload, tmp_path: Path) -> None:
    done = payload("write", "-d/f", "x", "shut", "-d/f", "mode", "-d/f", "shut", "-d", "shut", "no")
    assert done.returncode == 1
    assert done.stdout == b"000\n"
    assert (tmp_path / "-d").stat().st_mode & 0o777 == 0


def test_links_and_fifos_are_made(payload: Payload, tmp_path: Path) -> None:
    payload("write", "-f", "x", "symlink", "-s", "../-out", "hardlink", "-h", "-f", "fifo", "-p")
    assert str((tmp_path / "-s").readlink()) == "../-out"
    assert (tmp_path / "-h").samefile(tmp_path / "-f")
    assert (tmp_path / "-p").is_fifo()


def test_spawn_leaves_a_child_in_a_session_of_its_own(payload: Payload, tmp_path: Path) -> None:
    done = payload("spawn", "54.25", "echo", "on", CONTRACT_SPAWN=str(tmp_path))
    assert done.stdout == b"on\n"
    wanted = f"CONTRACT_SPAWN={tmp_path}".encode()
    # While it becomes `setsid`, and that `sleep`, it shows no environment.
    deadline = time.monotonic() + 10
    found: list[int] = []
    while not (found and _settled(found[0])) and time.monotonic() < deadline:
        time.sleep(0.01)
        found = [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and wanted in _environment(process)
        ]
    assert len(found) == 1
    try:
        assert os.getsid(found[0]) != os.getsid(0)
    finally:
        os.kill(found[0], signal.SIGKILL)


def _settled(process: int) -> bool:
    """It runs `sleep`, in a session of its own."""
    command = Path(f"/proc/{process}/comm").read_text().strip()
    return command == "sleep" and os.getsid(process) != os.getsid(0)


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.mark.parametrize("verbs", [["dance"], ["echo"], ["write", "f"], ["env", "A B"]])
def test_what_it_does_not_understand_exits_with_64(payload: Payload, verbs: list[str]) -> None:
    done = payload(*verbs)
    assert done.returncode == 64
    assert done.stderr.startswith(b"payload: ")
