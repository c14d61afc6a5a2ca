"""The three tasks of docs/consumer.md, as processes that are killed where it hurts."""

from __future__ import annotations

import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/consumer.md"
WORKS: Final = [f"work-{number}" for number in range(5)]
PATIENCE_S: Final = 60.0

#: Runs a program of the page's, with something of it replaced by the death of the process.
_DYING: Final = """\
import os, runpy, signal, sys
import {module}
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = die
runpy.run_path("{program}", run_name="__main__")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The page's programs, in a directory of their own."""
    text = PAGE.read_text(encoding="utf-8")
    for title, program in re.findall(r'^```python title="(.+?)"\n(.*?)^```$', text, re.M | re.S):
        (tmp_path / title).write_text(program, encoding="utf-8")
    return tmp_path


def run(place: Path, program: str) -> str:
    """What a program prints that must end well."""
    done = subprocess.run(
        [sys.executable, program],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), program
    return done.stdout


def die(place: Path, program: str, module: str, name: str) -> None:
    """Run a program that is killed when it comes to a function."""
    text = _DYING.format(program=program, module=module, name=name)
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=place, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def finish(place: Path) -> None:
    """Run all three tasks, again and again, until everything is home."""
    until = time.monotonic() + PATIENCE_S
    while True:
        run(place, "submission.py")
        unfinished = run(place, "status.py")
        undelivered = run(place, "output.py")
        if (unfinished, undelivered) == ("0 unfinished\n", "0 undelivered\n"):
            return
        assert time.monotonic() < until, unfinished + undelivered
        time.sleep(0.1)


def check_each_once(place: Path) -> None:
    """Every work ended well, once, its file is home, and nothing is left at the resource."""
    rows = sqlite3.connect(place / "work.db").execute("SELECT name, status, output FROM work")
    found = {name: (status, output) for name, status, output in rows}
    assert sorted(found) == WORKS
    for name, (status, output) in found.items():
        assert status == "successful", name
        (result,) = (place / output).rglob("result")
        assert result.read_text() == f"{name}\n"
    assert Counter((place / "ledger").read_text().split()) == Counter(WORKS)
    left = [path.name for path in (place / "sandboxes").iterdir()]
    assert [name for name in left if not name.startswith(".")] == []


def handles(place: Path) -> int:
    """How many handles are stored."""
    rows = sqlite3.connect(place / "work.db").execute("SELECT count(handle) FROM work")
    (number,) = rows.fetchone()
    return int(number)


def test_the_three_tasks_bring_home_every_work(place: Path) -> None:
    finish(place)

    check_each_once(place)


def test_a_submission_task_that_dies_before_anything_was_sent_is_done_again(place: Path) -> None:
    die(place, "submission.py", "intercede.backend.batch", "BatchBackend.submit")

    assert handles(place) == 0
    finish(place)
    check_each_once(place)


def test_what_a_dead_submission_task_staged_and_did_not_submit_is_removed_and_done_again(
    place: Path,
) -> None:
    die(place, "submission.py", "intercede.backend.batch._attempting", "Attempt.staged")

    assert len([path for path in (place / "sandboxes").iterdir() if path.name.isalnum()]) == 1
    finish(place)
    check_each_once(place)


def test_jobs_whose_handles_were_never_stored_are_found_by_their_tag_and_not_run_again(
    place: Path,
) -> None:
    die(place, "submission.py", "store", "Store.settle")
    until = time.monotonic() + PATIENCE_S
    while not (place / "ledger").exists() or len((place / "ledger").read_text().split()) < 5:
        assert time.monotonic() < until
        time.sleep(0.1)

    assert handles(place) == 0
    finish(place)
    check_each_once(place)


def test_an_output_task_that_dies_before_its_purge_goes_on(place: Path) -> None:
    run(place, "submission.py")
    until = time.monotonic() + PATIENCE_S
    while run(place, "status.py") != "0 unfinished\n":
        assert time.monotonic() < until
        time.sleep(0.1)
    die(place, "output.py", "intercede.backend.batch", "BatchBackend.purge")

    assert len(list((place / "results").rglob("result"))) == 5
    finish(place)
    check_each_once(place)


def test_tasks_that_are_killed_at_any_moment_lose_no_work_and_finish_none_twice(
    place: Path,
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(8):
        program = chance.choice(["submission.py", "submission.py", "status.py", "output.py"])
        with subprocess.Popen(
            [sys.executable, program],
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:
            time.sleep(chance.uniform(0.1, 0.8))
            running.kill()

    finish(place)
    rows = sqlite3.connect(place / "work.db").execute("SELECT name, status FROM work")
    assert sorted(rows) == [(name, "successful") for name in WORKS], f"seed {seed}"
    results = [path.read_text() for path in (place / "results").rglob("result")]
    assert sorted(results) == [f"{name}\n" for name in WORKS], f"seed {seed}"
