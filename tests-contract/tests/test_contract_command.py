"""`intercede-contract RESOURCE.toml`: the suite with no code at all."""

import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from intercede.contract import LocalProbe, Resource
from intercede.core import ConfigurationError

FAKE = """
seconds = 0.05
clock = 100.0

[config]
type = "fake"
site = "command"
speed = 100.0

[absurd]
queue = "nowhere"
"""

LOCAL = """
seconds = 0.3
other_process = true
probe = "local:{root}"

[config]
transport = "local"
root = "{root}"

[config.scheduler]
type = "direct"
slots = 100
"""


def command(*arguments: str | Path) -> list[str]:
    # Whoever runs these tests in the background may have told them to ignore it.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from intercede.contract import main; sys.exit(main())"
    )
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(
    folder: Path,
    text: str,
    *options: str,
    lines: str = "",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    description = folder / "resource.toml"
    description.write_text(text + lines)
    return subprocess.run(
        command("resource.toml", *options),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_runs_the_suite_and_shows_the_table(tmp_path: Path) -> None:
    done = run(tmp_path, FAKE, "-q", "-k", "StatusRules or exit or tag")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "contract: rule by verdict" in done.stdout
    assert "\nS7  " in done.stdout


def test_it_exits_with_1_if_a_rule_is_broken(tmp_path: Path) -> None:
    lie = '\n[[config.faults]]\noperation = "kill"\nkind = "item"\ntimes = 0\ncode = "failed"\n'
    done = run(tmp_path, FAKE, "-q", "-k", "killing_twice", lines=lie)
    assert done.returncode == 1, done.stdout
    assert "K2  failed" in done.stdout


def test_it_takes_nothing_from_the_project_it_is_called_in(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not yours')")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    done = run(tmp_path, FAKE, "-q", "-k", "closing_twice")
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_leaves_nothing_beside_the_description(tmp_path: Path) -> None:
    run(tmp_path, FAKE, "-q", "-k", "closing_twice")
    assert [path.name for path in tmp_path.iterdir()] == ["resource.toml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seconds = 1", "config: missing"),
        ("[config]\n[confi]\n", "confi: no such key"),
        ("x = ", "cannot be read"),
        ('contract = "lie"\n[config]\n', "known here: backend, transport, scheduler"),
        (
            'contract = "scheduler"\nconfig = "direct"\nsamples = "no.json"',
            "no.json cannot be read",
        ),
        ('probe = "nowhere:thing"\n[config]\n', "probe: it cannot be imported"),
    ],
)
def test_a_description_that_makes_no_sense_exits_with_4(
    tmp_path: Path, text: str, words: str
) -> None:
    done = run(tmp_path, text)
    assert done.returncode == 4
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_exits_with_4_and_help_with_0(tmp_path: Path) -> None:
    usage = [
        subprocess.run(command(*words), capture_output=True, text=True, timeout=60, check=False)
        for words in ([], ["-q"], ["--help"])
    ]
    assert [done.returncode for done in usage] == [4, 4, 0]
    assert all("usage: intercede-contract" in done.stdout + done.stderr for done in usage)


def test_a_transport_is_held_to_its_rules(tmp_path: Path) -> None:
    text = 'contract = "transport"\nconfig = "local"\nseconds = 0.1\nprobe = "local:/tmp"\n'
    done = run(tmp_path, text, "-q", "-k", "status or cancelled")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nX2  passed" in done.stdout
    assert "\nX6  passed" in done.stdout


def test_a_scheduler_is_held_to_its_rules_by_samples_beside_the_description(tmp_path: Path) -> None:
    samples = Path(__file__).parent / "samples" / "direct.json"
    (tmp_path / "said.json").write_text(samples.read_text())
    text = 'contract = "scheduler"\nconfig = "direct"\nsamples = "said.json"\n'
    done = run(tmp_path, text, "-q", "--require", "N1,N3", "--report-json", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nN1  passed" in done.stdout
    assert "\nN4  not observed" in done.stdout
    assert (tmp_path / "report.json").exists()


def test_a_run_leaves_nothing_on_the_host(tmp_path: Path) -> None:
    root, temporary = tmp_path / "sandboxes", tmp_path / "temporary"
    temporary.mkdir()
    done = run(
        tmp_path,
        LOCAL.format(root=root),
        *("-q", "-k", "link or hostile or purges_exactly"),
        environment={"TMPDIR": str(temporary)},
    )
    assert "\nP1  passed" in done.stdout, done.stdout
    assert "\nT2  passed" in done.stdout
    # Direct's own books stay for as long as its root does.
    assert [path for path in root.iterdir() if path.name != ".direct"] == []
    assert [path for path in temporary.iterdir() if not path.name.startswith("pytest-")] == []


def _of_copies(root: Path, name: str) -> list[str]:
    """The files of this name in the sandboxes; pathlib's own glob fails over a folder that goes while it looks."""
    return glob.glob(f"{root}/*/*/{name}")  # noqa: PTH207


@pytest.mark.parametrize(
    ("end", "number", "options"),
    [
        (os.kill, signal.SIGINT, ()),
        (os.kill, signal.SIGTERM, ()),
        (os.kill, signal.SIGINT, ("-n", "2")),
        (os.killpg, signal.SIGINT, ()),  # as a terminal does
        (os.killpg, signal.SIGINT, ("-n", "2")),
    ],
)
def test_an_interrupted_run_leaves_no_job_behind(
    tmp_path: Path,
    end: Callable[[int, int], None],
    number: signal.Signals,
    options: Sequence[str],
) -> None:
    root = tmp_path / "sandboxes"
    description = tmp_path / "resource.toml"
    description.write_text(LOCAL.format(root=root))
    with subprocess.Popen(
        command(description, "-q", *options, "-k", "test_twenty_jobs or live_on or told_apart"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not _of_copies(root, "start") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _of_copies(root, "start"), "no job was started"
        end(process.pid, number)
        assert process.wait(120) == pytest.ExitCode.INTERRUPTED
    # Those that pytest-xdist has started may end a little later.
    deadline = time.monotonic() + (60 if options else 0)
    while _of_copies(root, "work") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _of_copies(root, "work") == []


def test_a_description_names_the_probe_of_this_machine(tmp_path: Path) -> None:
    description = tmp_path / "resource.toml"
    description.write_text(LOCAL.format(root=tmp_path / "sandboxes"))
    resource = Resource.from_toml(description)
    assert isinstance(resource.probe, LocalProbe)
    assert resource.config["scheduler"] == {"type": "direct", "slots": 100}


def test_a_description_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Resource.from_toml(tmp_path / "absent.toml")
