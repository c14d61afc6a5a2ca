"""`submit`, `find`, `status`, `fetch`, `kill`, `purge`: which jobs, what is said, which exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]
Configure = Callable[[str], None]

FAKE = ("--resource", "fake")


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a text on stdin."""

    def put(text: str) -> None:
        stream = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogateescape")))
        monkeypatch.setattr(sys, "stdin", stream)

    return put


def submitted(intercede: Run, *words: str, copies: int = 1, tag: str = "t") -> list[str]:
    ended = intercede("submit", *FAKE, "--copies", str(copies), "--tag", tag, "--", *words)
    assert ended.returncode == 0
    return ended.stdout.split()


def test_submit_prints_an_id_per_copy_and_nothing_else(intercede: Run) -> None:
    ids = submitted(intercede, "payload.sh", copies=3)

    assert [job.split("/")[0] for job in ids] == ["fake"] * 3
    assert [job.split("/")[2] for job in ids] == ["0", "1", "2"]


def test_a_life_in_single_commands(intercede: Run, here: Path) -> None:
    (job,) = submitted(intercede, "payload.sh", "echo", "x", "sleep", "100000000")

    assert "running" in intercede("status", job).stdout
    unfinished = intercede("fetch", job)
    assert unfinished.returncode == 1
    assert "not-finished" in unfinished.stdout
    assert intercede("purge", job).returncode == 1
    assert intercede("kill", job).returncode == 0
    assert "cancelled" in intercede("status", job).stdout
    assert intercede("fetch", job, "--dest", "got").returncode == 0
    assert [p.read_text() for p in (here / "got").rglob("stdout")] == ["x\n"]
    assert intercede("purge", job).returncode == 0
    gone = intercede("status", job)
    assert gone.returncode == 1
    assert "no-such-job" in gone.stdout


@pytest.mark.parametrize(("program", "code"), [("true", 0), ("payload.sh", 1)])
def test_status_of_a_job_that_went_wrong_is_exit_1(intercede: Run, program: str, code: int) -> None:
    (job,) = submitted(intercede, program, "exit", "3")

    assert intercede("status", job).returncode == code


def test_find_prints_exactly_the_ids_of_the_tag(intercede: Run) -> None:
    ids = submitted(intercede, "payload.sh", copies=2, tag="a b")
    submitted(intercede, "payload.sh", tag="other")

    assert intercede("find", *FAKE, "a b").stdout.split() == ids


def test_jobs_can_be_named_by_their_tag(intercede: Run) -> None:
    ids = submitted(intercede, "payload.sh", copies=2)

    ended = intercede("status", *FAKE, "--tag", "t")

    assert [row.split()[0] for row in ended.stdout.splitlines()[1:]] == ids


def test_a_tag_that_nothing_has_is_told_and_is_no_failure(intercede: Run) -> None:
    ended = intercede("kill", *FAKE, "--tag", "nothing")

    assert ended.returncode == 0
    assert "no job of fake has the tag 'nothing'" in ended.stderr


def test_ids_come_from_stdin_as_submit_prints_them(
    intercede: Run, feed: Callable[[str], None]
) -> None:
    ids = submitted(intercede, "payload.sh", copies=2)
    feed("\n".join(ids) + "\n\n")

    ended = intercede("status", "-")

    assert [row.split()[0] for row in ended.stdout.splitlines()[1:]] == ids


def test_handles_come_from_stdin_as_submit_json_prints_them(
    intercede: Run, feed: Callable[[str], None]
) -> None:
    lines = intercede("submit", "--json", *FAKE, "--copies", "2", "--", "payload.sh").stdout
    handles = [json.loads(line) for line in lines.splitlines()]
    feed(lines)

    ended = intercede("status", "--json", "-")

    jobs = json.loads(ended.stdout)["jobs"]
    assert [job["id"] for job in jobs] == [handle["id"] for handle in handles]


def test_an_error_from_the_command_before_in_the_pipe_is_passed_on(
    intercede: Run, feed: Callable[[str], None]
) -> None:
    feed('{"error":{"message":"it was refused"}}\n')

    ended = intercede("status", "-")

    assert ended.returncode == 2
    assert "standard input carries an error: it was refused" in ended.stderr
    assert "standard input names no job" in ended.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "standard input names no job"),
        ('{"id": \n', "line 1 of standard input is not JSON"),
        ('fake/a/0\n{"ID": "x"}\n', "line 2 of standard input is no handle"),
        ('{"id": 7}\n', "line 1 of standard input is no handle"),
        ("[1]\n", "no resource '[1]'"),
    ],
)
def test_stdin_that_names_no_jobs_is_refused_with_the_line(
    intercede: Run, feed: Callable[[str], None], text: str, said: str
) -> None:
    feed(text)

    ended = intercede("status", "-")

    assert ended.returncode == 2
    assert said in ended.stderr


@pytest.mark.parametrize("command", ["status", "fetch", "kill", "purge"])
def test_ids_of_a_resource_that_is_not_configured_stop_the_command_before_anything_is_done(
    intercede: Run, command: str
) -> None:
    (job,) = submitted(intercede, "payload.sh", "sleep", "100000000")

    ended = intercede(command, job, "fakes/a/0")

    assert ended.returncode == 2
    assert "no resource 'fakes' in intercede.toml; did you mean 'fake'?" in ended.stderr
    assert "running" in intercede("status", job).stdout


@pytest.mark.parametrize("command", ["status", "fetch", "kill"])
@pytest.mark.parametrize(
    "job", ["fake", "fake/", "fake/../../etc/0", "fake/a;rm -rf ~/0", "fake/é/0"]
)
def test_an_id_that_is_none_fails_alone(intercede: Run, command: str, job: str) -> None:
    (good,) = submitted(intercede, "payload.sh")

    ended = intercede(command, "--json", good, job)

    document = json.loads(ended.stdout)
    assert ended.returncode == 1
    failures = {item["id"]: item["failure"] for item in document["jobs"]}
    assert failures[good] is None
    assert failures[job]["code"] == "no-such-job"


@pytest.mark.parametrize("command", ["status", "fetch", "kill", "purge"])
@pytest.mark.parametrize("words", [[], ["fake/a/0", "--tag", "t"]])
def test_jobs_are_named_in_exactly_one_way(intercede: Run, command: str, words: list[str]) -> None:
    ended = intercede(command, *words)

    assert ended.returncode == 2
    assert "give job ids, or - for stdin, or --tag TAG" in ended.stderr


@pytest.mark.parametrize(
    ("command", "ability"),
    [("fetch", "fetch_output"), ("kill", "kill"), ("purge", "purge"), ("find", "find")],
)
def test_what_a_resource_cannot_do_is_said(
    intercede: Run, configure: Configure, command: str, ability: str
) -> None:
    configure(f'without = ["{ability}"]')
    words = [*FAKE, "t"] if command == "find" else ["fake/a/0"]

    ended = intercede(command, *words)

    assert ended.returncode == 2
    assert f"fake: {command}: this resource cannot do it" in ended.stderr


def test_one_resource_that_is_away_does_not_hide_the_answers_of_another(
    intercede: Run, here: Path
) -> None:
    (here / "intercede.toml").write_text(
        f'[resources.fake]\ntype = "fake"\nsite = "{here}"\n'
        '[resources.away]\ntype = "fake"\n'
        'faults = [{operation = "details", kind = "unreachable"}]\n'
    )
    (job,) = submitted(intercede, "true")

    text = intercede("status", job, "away/a/0")
    document = json.loads(intercede("status", "--json", job, "away/a/0").stdout)

    assert text.returncode == 3
    assert "successful" in text.stdout
    assert "away: details: nothing answers" in text.stderr
    assert [item["id"] for item in document["jobs"]] == [job]
    assert [error["type"] for error in document["errors"]] == ["Unreachable"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("unreachable", 3),
        ("host-key", 3),
        ("authentication", 3),
        ("lost-before-effect", 3),
        ("timeout-before-effect", 3),
        ("resource-error", 3),
    ],
)
def test_a_resource_that_cannot_be_used_is_exit_3_and_one_clear_error(
    intercede: Run, configure: Configure, kind: str, code: int
) -> None:
    configure(f'faults = [{{operation = "details", kind = "{kind}"}}]')

    ended = intercede("status", "fake/a/0")

    assert ended.returncode == code
    assert ended.stderr.startswith("intercede: fake: details: ")
    assert "Traceback" not in ended.stderr
