"""The command, run in this process or as a process of its own, in an empty directory with a fake resource."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from intercede.cli import main

PAYLOAD = "#!/bin/sh\n# Read by the fake, not run.\n"

#: Whoever started the tests may have SIGINT ignored, which is inherited.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from intercede.cli import main
sys.exit(main())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: `payload.sh`, and `intercede.toml` with a fake resource that keeps its jobs between commands."""
    place = tmp_path / "here"
    place.mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("INTERCEDE_CONFIG", raising=False)
    (place / "payload.sh").write_text(PAYLOAD)
    _configure(place, "")
    return place


def _configure(place: Path, more: str) -> None:
    text = f'[resources.fake]\ntype = "fake"\nsite = "{place}"\n{more}\n'
    (place / "intercede.toml").write_text(text)


@pytest.fixture
def configure(here: Path) -> Callable[[str], None]:
    """Write `intercede.toml` anew; what is given stands in the fake's table."""
    return partial(_configure, here)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def intercede(here: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: its words as they would stand on the command line."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        code = main(words)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return run


Starter = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(here: Path) -> Starter:
    """Start the command as a process of its own."""

    def begin(
        words: Sequence[str],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment},
        )

    return begin
