"""Somebody else's plugins, in environments that know nothing of this repository: found, held to the suite, and caught when they lie.

Also what merely installing the suite does to a project that does not use it: nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
OUTSIDER: Final = ROOT / "tests-contract" / "outsider"
#: The folders of the distributions that are built here.
BUILT: Final = [
    ROOT / "packages" / "intercede-core",
    ROOT / "tests-contract",
    OUTSIDER,
    ROOT / "packages" / "intercede-toolkit",
    ROOT / "packages" / "intercede-backend-batch",
    ROOT / "packages" / "intercede-transport-local",
    ROOT / "packages" / "intercede-scheduler-direct",
]

pytestmark = pytest.mark.xdist_group("outsider")


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> tuple[int, str]:
    """Exit code and output of a command that sees nothing of this test's own environment.

    Args:
        command: The program and its arguments.
        cwd: Where.
        path: A folder whose modules come before those that are installed.
    """
    hidden = ("COV", "INTERCEDE", "PYTEST", "PYTHON")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def succeed(*command: str | Path, cwd: Path) -> str:
    code, said = run(*command, cwd=cwd)
    assert code == 0, f"{command}\n{said}"
    return said


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in BUILT:
        command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
        succeed(*command, cwd=project)
    return folder


def environment(folder: Path, wheels: Path, *requirements: str) -> Path:
    """The folder of the programs of a new environment with these requirements."""
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet")
    succeed(*pip, "--no-compile", "--find-links", wheels, *requirements, cwd=folder)
    return programs


@pytest.fixture(scope="module")
def empty(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with core, the suite and the outsider only."""
    folder = tmp_path_factory.mktemp("empty")
    return environment(folder, wheels, "intercede-core", "intercede-contract", "intercede-outsider")


@pytest.fixture(scope="module")
def furnished(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what the outsider's tests need, a rival, and what other projects may have."""
    folder = tmp_path_factory.mktemp("furnished")
    others = ("intercede-scheduler-direct", "anyio", "pytest-asyncio", "pytest-xdist")
    return environment(folder, wheels, "intercede-outsider[test]", *others)


@pytest.fixture
def described(tmp_path: Path) -> Iterator[Path]:
    """A description of the outsider's backend, with a directory of its own."""
    place = tmp_path / "jobs"
    description = tmp_path / "resource.toml"
    description.write_text(
        f"""\
seconds = 0.2
other_process = true
probe = "local:{place}/plain"

[config]
type = "plain"
directory = "{place}"
"""
    )
    yield description
    shutil.rmtree(place, ignore_errors=True)


# ---------------------------------------------------------------- found and held to the suite


def test_in_an_empty_environment_the_outsiders_plugins_are_found(
    empty: Path, tmp_path: Path
) -> None:
    program = """
import json
from importlib.metadata import distributions
from intercede.core import registry
ours = sorted(d.name for d in distributions() if d.name.startswith("intercede"))
print(json.dumps([ours, sorted((p.group, p.name) for p in registry.plugins())]))
for group, name in [("backends", "plain"), ("schedulers", "spool"), ("transports", "socket")]:
    assert registry.load(group, name).summary
"""
    ours, plugins = json.loads(succeed(empty / "python", "-I", "-c", program, cwd=tmp_path))
    assert ours == ["intercede-contract", "intercede-core", "intercede-outsider"]
    assert plugins == [
        ["backends", "plain"],
        ["schedulers", "direct"],
        ["schedulers", "spool"],
        ["transports", "socket"],
    ]


def test_one_command_holds_the_outsiders_backend_to_the_suite(
    empty: Path, described: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    code, said = run(empty / "intercede-contract", described, "-q", cwd=tmp_path)
    assert code == 0, said
    assert time.monotonic() - began < 60
    verdicts = dict(line.split()[:2] for line in said.splitlines() if line[1:2].isdigit())
    passed = {rule for rule, verdict in verdicts.items() if verdict == "passed"}
    assert passed >= {"L1", "S1", "S4", "T2", "T3", "F1", "F4", "K2", "P1", "E2"}, said
    assert "failed" not in verdicts.values()
    assert "warning" not in said


def test_an_interrupted_run_leaves_neither_jobs_nor_processes(
    empty: Path, described: Path, tmp_path: Path
) -> None:
    place = tmp_path / "jobs" / "plain"
    command: list[str | Path] = [
        empty / "intercede-contract",
        described,
        "-q",
        "-k",
        "kill or cancel",
    ]
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        until = time.monotonic() + 180  # the machine may be busy
        while not list(place.glob("*/*/began")) and time.monotonic() < until:
            time.sleep(0.02)
        assert list(place.glob("*/*/began")), "no job was started"
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        assert running.wait(120) == pytest.ExitCode.INTERRUPTED
    assert list(place.iterdir()) == []
    assert [line for line in living() if str(place) in line] == []


def living() -> Iterator[str]:
    """The arguments, environment and directory of every process."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit():
                told = [
                    (process / name).read_text(errors="replace") for name in ("cmdline", "environ")
                ]
                yield " ".join([*told, str((process / "cwd").readlink())])


def test_a_lie_is_told_in_words_that_a_stranger_understands(
    empty: Path, described: Path, tmp_path: Path
) -> None:
    lies = tmp_path / "lies"
    shutil.copytree(OUTSIDER / "src", lies)
    module = lies / "outsider" / "backend.py"
    honest = module.read_text()
    lying = honest.replace("code = int(number)\n", "code = int(number) % 128\n")
    assert lying != honest
    module.write_text(lying)
    code, said = run(
        empty / "intercede-contract", described, "-q", "-k", "exit or args", cwd=tmp_path, path=lies
    )
    assert code == 1, said
    assert "expected exit 0 to be successful and every other exit to be failed" in said
    assert "{'exit 128': 'reported as successful'}" in said
    assert "{'exit 128': 'reported as exit 0, signal None'" in said
    assert "T3: exit 0 is SUCCESSFUL, other exits and signals are FAILED" in said
    verdicts = [line.split()[:2] for line in said.splitlines() if line.startswith("T3  ")]
    assert verdicts == [["T3", "failed"]]


_CUT: Final = """
import ctypes, os, subprocess
from datetime import UTC, datetime
from intercede.core import NativeJob
from outsider.scheduler import SpoolConfig, SpoolScheduler

if (decoy := os.fork()) == 0:
    # Its environment is one empty string; that of an sshd has many.
    words = (ctypes.c_char_p * 3)(b"sleep", b"600", None)
    ctypes.CDLL(None).execve(b"/bin/sleep", words, (ctypes.c_char_p * 2)(b"", None))
try:
    job = NativeJob("s.0", 0, "s", datetime.now(UTC))
    (kill,) = SpoolScheduler(SpoolConfig()).kill_commands([job])
    for came in (b"", kill.stdin[:-1]):
        subprocess.run(kill.argv, input=came, check=True, stdout=subprocess.DEVNULL)
    assert os.waitpid(decoy, os.WNOHANG) == (0, 0), "it was killed"
finally:
    os.kill(decoy, 9)
"""


def test_a_kill_whose_jobs_did_not_arrive_reaches_nobody(empty: Path, tmp_path: Path) -> None:
    succeed(empty / "python", "-I", "-c", _CUT, cwd=tmp_path)


_LOOKED_AT: Final = """
import os, subprocess
from datetime import UTC, datetime
from intercede.core import NativeJob
from outsider.scheduler import SpoolConfig, SpoolScheduler

os.makedirs(".spool/running")
job = NativeJob("s.0", 0, "s", datetime.now(UTC))
(look,) = SpoolScheduler(SpoolConfig()).status_commands([job])
for lock, seen in (("-s", []), ("-x", ["s.0 running"])):
    open(".spool/running/s.0", "w").close()
    # Somebody else looks at it, or works on it.
    command = ("flock", lock, ".spool/running/s.0", *look.argv)
    said = subprocess.run(command, input=look.stdin, check=True, stdout=subprocess.PIPE).stdout
    assert said.decode().splitlines()[1:-1] == seen, (lock, said)
"""


def test_two_who_look_do_not_take_each_other_for_the_worker(empty: Path, tmp_path: Path) -> None:
    succeed(empty / "python", "-I", "-c", _LOOKED_AT, cwd=tmp_path)


def test_the_outsiders_own_tests_are_ten_lines_each_and_green(
    furnished: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(OUTSIDER, project)
    for module in (project / "tests").glob("test_*.py"):
        _docstring, *code = filter(None, module.read_text().splitlines())
        assert len(code) <= 10, module
    options = ("-q", "-n", "2", "-p", "no:asyncio", "-W", "error")
    # As an account like others: root may read what a payload has closed.
    plainly = (
        ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if not os.getuid() else ()
    )
    succeed(*plainly, furnished / "python", "-m", "pytest", *options, "tests", cwd=project)


def test_the_outsider_shadows_a_built_in_with_a_warning_until_one_is_preferred(
    furnished: Path, tmp_path: Path
) -> None:
    program = """
import warnings
from intercede.core import registry
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    print(type(registry.scheduler("direct")).__name__)
print(*[str(warning.message) for warning in warned])
warnings.simplefilter("error")
for distribution in ("intercede-scheduler-direct", "intercede-outsider"):
    policy = registry.Policy(prefer={"schedulers.direct": distribution})
    print(type(registry.scheduler("direct", policy=policy)).__name__)
print(*[p.distribution for p in registry.plugins() if p.name == "direct" and p.shadowed])
"""
    said = succeed(furnished / "python", "-I", "-c", program, cwd=tmp_path).splitlines()
    chosen, warning, built_in, preferred, shadowed = said
    assert chosen == preferred == "SpoolScheduler"
    assert built_in == "DirectScheduler"
    assert "intercede-outsider" in warning and "intercede-scheduler-direct" in warning
    assert "shadows" in warning and "prefer one" in warning
    assert shadowed == "intercede-scheduler-direct"


# ---------------------------------------------------------------- merely installed


def test_importing_the_suite_imports_no_pytest_and_makes_no_loop(
    empty: Path, tmp_path: Path
) -> None:
    program = """
import sys
import intercede.contract
assert "pytest" not in sys.modules
assert "asyncio" not in sys.modules
import asyncio
assert asyncio.get_event_loop_policy()._local._loop is None
"""
    succeed(empty / "python", "-I", "-W", "ignore", "-c", program, cwd=tmp_path)


_ANYIO: Final = """
import anyio
import pytest

@pytest.fixture(params=["asyncio"])
def anyio_backend(request):
    return request.param

@pytest.fixture
async def opened(anyio_backend):
    async with anyio.create_task_group() as group:
        yield group

@pytest.mark.anyio
async def test_a_task_group_spans_fixture_and_test(opened):
    opened.start_soon(anyio.sleep, 0)
"""
#: Tests of projects that do not use the suite, with what is in their pytest.ini.
_STRANGERS: Final = {
    "plain": (
        "",
        """
import sys

def test_nothing_of_the_suite_is_imported():
    loaded = {name for name in sys.modules if name.startswith("intercede")}
    assert "intercede.core" not in loaded
    assert not [name for name in loaded if name.endswith(("_bench", "_backend", "_life"))]

def test_there_is_no_loop():
    import asyncio
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError("a loop runs")
""",
    ),
    "asyncio auto": (
        "asyncio_mode = auto",
        """
import asyncio
import pytest

@pytest.fixture
async def loop_of_fixture():
    return asyncio.get_running_loop()

async def test_it_runs_without_a_mark_in_the_loop_of_its_fixture(loop_of_fixture):
    assert asyncio.get_running_loop() is loop_of_fixture
""",
    ),
    "asyncio strict": (
        "asyncio_mode = strict",
        """
import asyncio
import pytest
import pytest_asyncio

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared():
    return asyncio.get_running_loop()

@pytest.mark.asyncio(loop_scope="module")
async def test_a_wider_loop_is_respected(shared):
    assert asyncio.get_running_loop() is shared

@pytest.mark.asyncio
async def test_it_runs_with_a_mark():
    assert asyncio.get_running_loop()
""",
    ),
    "anyio": ("asyncio_mode = strict", _ANYIO),
    "anyio auto": ("anyio_mode = auto", _ANYIO.replace("@pytest.mark.anyio\n", "")),
}


@pytest.mark.parametrize("distributed", [False, True], ids=["alone", "distributed"])
@pytest.mark.parametrize("name", _STRANGERS)
def test_a_project_that_does_not_use_the_suite_does_not_feel_it(
    furnished: Path, tmp_path: Path, name: str, distributed: bool
) -> None:
    settings, module = _STRANGERS[name]
    _project(tmp_path, settings, module)
    options = ["-n", "1"] if distributed else []
    said = succeed(furnished / "python", "-m", "pytest", *options, cwd=tmp_path)
    assert "failed" not in said and "skipped" not in said and "warning" not in said
    assert "contract" not in said.replace("intercede.contract", "").replace("-contract-", "")


def test_a_project_without_plugins_about_loops_does_not_get_one(
    empty: Path, tmp_path: Path
) -> None:
    """Those are felt: they warn until they are configured, and their options are strange to a project that lacks them."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n"
    )
    (tmp_path / "test_theirs.py").write_text(_STRANGERS["plain"][1])
    said = succeed(empty / "python", "-m", "pytest", cwd=tmp_path)
    assert "asyncio" not in said
    assert "2 passed" in said


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("asyncio auto", ""),
        ("asyncio strict", ""),
        ("anyio", ""),
        ("anyio", "pytestmark = pytest.mark.anyio"),
        ("anyio auto", ""),
    ],
)
def test_a_project_that_uses_the_suite_keeps_its_own_mode(
    furnished: Path, tmp_path: Path, name: str, mark: str
) -> None:
    settings, module = _STRANGERS[name]
    _project(tmp_path, settings, module)
    (tmp_path / "test_mine.py").write_text(f"""
import pytest
{mark}
from intercede.contract import BackendContract, Resource

class TestMine(BackendContract):
    resource = Resource(config={{"type": "plain", "directory": {str(tmp_path / "jobs")!r}}}, seconds=0.2)
""")
    chosen = "exit or it_runs or loop or task_group or closed"
    said = succeed(furnished / "python", "-m", "pytest", "-k", chosen, cwd=tmp_path)
    assert "contract: rule by verdict: TestMine" in said
    assert "T3  passed" in said
    assert "failed" not in said and "skipped" not in said


def _project(folder: Path, settings: str, module: str) -> None:
    """A project that is strict about everything."""
    (folder / "pytest.ini").write_text(f"""
[pytest]
addopts = --strict-markers --strict-config
filterwarnings = error
asyncio_default_fixture_loop_scope = function
{settings}
""")
    (folder / "test_theirs.py").write_text(module)
