"""`intercede run`, on the fake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., "CompletedProcess[str]"]
Configure = Callable[[str], None]

FAKE = ("--resource", "fake")


def test_one_copy_looks_as_if_it_had_run_here(intercede: Run, here: Path) -> None:
    ended = intercede("run", *FAKE, "--", "payload.sh", "echo", "to out", "err", "to err")

    assert (ended.returncode, ended.stdout) == (0, "to out\n")
    assert "to err\n" in ended.stderr
    assert "successful; output in results/" in ended.stderr


def test_the_exit_code_is_the_jobs_own(intercede: Run) -> None:
    assert intercede("run", *FAKE, "--", "payload.sh", "exit", "7").returncode == 7


def test_a_job_that_died_by_signal_9_gives_137(intercede: Run) -> None:
    ended = intercede("run", *FAKE, "--", "payload.sh", "signal", "9")

    assert ended.returncode == 137
    assert "failed, signal 9" in ended.stderr


def test_several_copies_give_a_table_and_the_highest_exit_code(intercede: Run) -> None:
    ended = intercede("run", *FAKE, "--copies", "3", "--", "payload.sh", "exit", "5")

    header, *rows = ended.stdout.splitlines()
    assert header.split() == ["copy", "status", "exit", "files", "where", "note"]
    assert [row.split()[:3] for row in rows] == [[str(n), "failed", "5"] for n in range(3)]
    assert ended.returncode == 5


def test_declared_output_comes_to_dest_and_the_resource_keeps_nothing(
    intercede: Run, here: Path
) -> None:
    ended = intercede(
        "run",
        *FAKE,
        "--tag",
        "t",
        "--dest",
        "got",
        "--output",
        "*.csv",
        "--",
        "payload.sh",
        "write",
        "a b.csv",
        "x",
        "write",
        "other",
        "y",
    )

    assert ended.returncode == 0
    assert [p.name for p in (here / "got").rglob("*") if p.is_file()].count("a b.csv") == 1
    assert not list((here / "got").rglob("other"))
    assert intercede("find", *FAKE, "t").stdout == ""


def test_everything_brings_back_what_was_not_declared(intercede: Run, here: Path) -> None:
    intercede("run", *FAKE, "--everything", "--", "payload.sh", "write", "other", "y")

    assert [p.read_text() for p in (here / "results").rglob("other")] == ["y"]


def test_what_was_declared_and_is_missing_is_told(intercede: Run) -> None:
    ended = intercede("run", *FAKE, "--output", "*.csv", "--", "payload.sh", "echo", "x")

    assert ended.returncode == 0
    assert "missing: *.csv" in ended.stderr


def test_inputs_and_environment_reach_the_job(intercede: Run, here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/data").write_text("D")
    ended = intercede(
        "run",
        *FAKE,
        "--input",
        "sub/data",
        "--input",
        "other=sub/data",
        "--env",
        "A=b=c d",
        "--",
        "payload.sh",
        "cat",
        "sub/data",
        "cat",
        "other",
        "env",
        "A",
    )

    assert ended.stdout == "DD=b=c d\0"


def test_what_follows_the_dashes_is_never_an_option_of_ours(intercede: Run) -> None:
    ended = intercede("run", *FAKE, "--", "payload.sh", "args", "--json", "--", "-x", "a b", "")

    assert ended.stdout == "--json\0--\0-x\0a b\0\0"


def test_keep_leaves_the_job_at_the_resource_and_says_so(intercede: Run) -> None:
    ended = intercede("run", *FAKE, "--keep", "--tag", "t", "--", "payload.sh", "echo", "x")

    job = intercede("find", *FAKE, "t").stdout.strip()
    assert job
    assert f"kept at the resource: {job}" in ended.stderr


def test_a_job_over_the_timeout_is_killed_and_fetched_and_the_code_is_124(intercede: Run) -> None:
    ended = intercede(
        "run",
        *FAKE,
        "--tag",
        "t",
        "--timeout",
        "1",
        "--",
        "payload.sh",
        "echo",
        "begun",
        "sleep",
        "1000000",
    )

    assert (ended.returncode, ended.stdout) == (124, "begun\n")
    assert "not finished after 1 s" in ended.stderr
    assert intercede("find", *FAKE, "t").stdout == ""


def test_what_could_not_be_fetched_is_not_purged(
    intercede: Run, here: Path, configure: Configure
) -> None:
    configure(
        'faults = [{operation = "fetch_output", kind = "item", copies = [1], message = "torn"}]',
    )
    ended = intercede("run", *FAKE, "--copies", "2", "--tag", "t", "--", "payload.sh")

    left = intercede("find", *FAKE, "t").stdout.split()
    assert ended.returncode == 1
    assert [job.split("/")[2] for job in left] == ["1"]
    assert "not all of its output is here: failed: torn" in ended.stderr
    assert f"kept at the resource: {left[0]}" in ended.stderr


def test_a_copy_that_was_not_submitted_is_told_and_the_others_run(
    intercede: Run, here: Path, configure: Configure
) -> None:
    configure('faults = [{operation = "submit", kind = "item", copies = [0], message = "no room"}]')
    ended = intercede("run", *FAKE, "--copies", "2", "--", "payload.sh")

    assert ended.returncode == 1
    assert "copy 0 was not submitted: failed: no room" in ended.stderr
    assert [row.split()[:2] for row in ended.stdout.splitlines()[1:]] == [["1", "successful"]]


def test_a_lost_connection_while_waiting_does_not_end_the_run(
    intercede: Run, configure: Configure
) -> None:
    configure('faults = [{operation = "status", kind = "lost-before-effect"}]')

    assert intercede("run", *FAKE, "--", "payload.sh", "echo", "x").stdout == "x\n"


def test_a_failed_fetch_tells_how_to_go_on(intercede: Run, configure: Configure) -> None:
    configure('faults = [{operation = "fetch_output", kind = "unreachable"}]')
    ended = intercede("run", *FAKE, "--tag", "t", "--", "payload.sh")

    job = intercede("find", *FAKE, "t").stdout.strip()
    assert ended.returncode == 3
    assert f"the copies are still there; go on with: intercede status {job}" in ended.stderr
    assert "nothing answers" in ended.stderr


def test_a_dest_that_cannot_be_written_is_one_clear_error_and_nothing_is_purged(
    intercede: Run, here: Path
) -> None:
    (here / "file").write_text("")
    ended = intercede("run", *FAKE, "--tag", "t", "--dest", "file/x", "--", "payload.sh")

    assert ended.returncode == 1
    assert "file/x" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert intercede("find", *FAKE, "t").stdout.strip()


def test_an_uncertain_submit_is_exit_4_and_names_its_handles(
    intercede: Run, configure: Configure
) -> None:
    configure('faults = [{operation = "submit", kind = "lost-after-effect"}]')
    ended = intercede("run", *FAKE, "--tag", "t", "--", "payload.sh")

    job = intercede("find", *FAKE, "t").stdout.strip()
    assert ended.returncode == 4
    assert f"perhaps submitted: {job}" in ended.stderr
    assert "intercede find --resource fake t" in ended.stderr


def test_a_resource_without_kill_purge_details_and_fetch_still_runs_jobs(
    intercede: Run, configure: Configure
) -> None:
    configure('without = ["kill", "purge", "details", "fetch_output"]')
    ended = intercede("run", *FAKE, "--", "payload.sh", "exit", "3")

    assert ended.returncode == 1
    assert "failed" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "./missing.sh"], "executable: './missing.sh' is no file here"),
        (["--", "no-such-program"], "nor a program on the PATH"),
        (["--copies", "0", "--", "payload.sh"], "copies: 0 asks for no job"),
        (["--cpus", "0", "--", "payload.sh"], "resources.cpus: 0 is too small"),
        (["--cpus", "many", "--", "payload.sh"], "'many' is not a number"),
        (["--memory", "2X", "--", "payload.sh"], "'2X' is not a size"),
        (["--time", "soon", "--", "payload.sh"], "'soon' is not a time"),
        (["--input", "../x", "--", "payload.sh"], "'../x' is not a plain relative name"),
        (["--input", "missing", "--", "payload.sh"], "missing"),
        (["--env", "A", "--", "payload.sh"], "'A' is not NAME=VALUE"),
        (["--queue", "nowhere", "--", "payload.sh"], "nowhere"),
        (["--bogus", "--", "payload.sh"], "--bogus"),
        ([], "no command"),
    ],
)
def test_a_run_that_makes_no_sense_is_one_line_and_exit_2(
    intercede: Run, here: Path, words: list[str], said: str
) -> None:
    ended = intercede("run", *FAKE, "--tag", "t", *words)

    assert ended.returncode == 2
    assert said in ended.stderr
    assert (ended.stdout, ended.stderr.count("\n")) == ("", 1)
    assert not Path("results").exists()
    assert intercede("find", *FAKE, "t").stdout == ""


def test_a_file_here_is_staged_and_a_bare_name_on_the_path_is_resident(
    intercede: Run, here: Path
) -> None:
    ended = intercede("run", *FAKE, "--", "true")
    assert ended.returncode == 0

    (here / "true").write_bytes((here / "payload.sh").read_bytes())
    (here / "payload.sh").unlink()
    assert intercede("run", *FAKE, "--", "payload.sh").returncode == 2
    assert intercede("run", *FAKE, "--resident", "--", "payload.sh").returncode == 0


def test_units_of_memory_and_time_are_understood(intercede: Run, configure: Configure) -> None:
    configure("max_memory_mb = 2048\nmax_wall_time_s = 7200")

    def run(memory: str, time: str) -> int:
        return intercede(
            "run", *FAKE, "--memory", memory, "--time", time, "--", "payload.sh"
        ).returncode

    assert run("2G", "2h") == run("2048", "7200") == run("2048M", "120m") == 0
    assert run("2049", "2h") == run("2G", "7201") == 2
