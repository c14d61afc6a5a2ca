"""The shell programs themselves, with commands in the place of Slurm's that do what was seen of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intercede.core import (
    Command,
    CommandResult,
    Failure,
    FailureCode,
    JobStatus,
    NativeJob,
    ResourceError,
    StagedBatch,
    SubmissionSpec,
)
from intercede.scheduler.slurm import SlurmConfig, SlurmScheduler

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
STAMP = int(NOW.timestamp())
JOBS = [NativeJob(f"7_{copy}", copy, "sub", NOW) for copy in range(4)]
FACTS = {"max_array_size": 1001, "max_job_count": 10000}
SLURM = SlurmScheduler()

#: A squeue that prints the rows of $ROWS, which are shell text with $n for the nonce, after the header; -o decides which.
SQUEUE = r"""#!/bin/sh
echo "squeue $*" >> "$HOME/calls"
env > "$HOME/environment"
for word; do format=$word; done
case " $* " in *" -h "*) i=0; while [ $i -lt HELD ]; do echo x; i=$((i + 1)); done; exit 0;; esac
n=${format%%|*}
case $format in
  *'%F'*) echo "$n|ARRAY|COMMENT|$n" | sed "s/$n|ARRAY/$n|found|ARRAY/";;
  *'%T'*'%V'*) echo "$n|JOBID|NAME|STATE|REASON|SUBMIT_TIME|START_TIME|END_TIME|NODELIST|$n";;
  *'%k'*) echo "$n|JOBID|COMMENT|NAME|STATE|REASON|$n";;
  *) echo "$n|JOBID|NAME|$n";;
esac
ROWS
exit CODE
"""
SCANCEL = """#!/bin/sh
echo "scancel $*" >> "$HOME/calls"
"""


class Host:
    """A place with commands in front of the PATH."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bin = place / "bin"
        self.bin.mkdir()

    def install(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def squeue(self, rows: str = "", code: int = 0, held: int = 0) -> None:
        text = SQUEUE.replace("ROWS", rows).replace("CODE", str(code)).replace("HELD", str(held))
        self.install("squeue", text)
        self.install("scancel", SCANCEL)

    def sbatch(self, text: str) -> None:
        """It writes down what it was given, then does as it is told."""
        keep = 'printf "%s\\n" "sbatch $*" >> "$HOME/calls"; cat >> "$HOME/scripts"; env > "$HOME/environment"\n'
        self.install("sbatch", f"#!/bin/sh\n{keep}{text}\n")

    def run(self, commands: Sequence[Command], **environment: str) -> list[CommandResult]:
        results = []
        for command in commands:
            done = subprocess.run(
                command.argv,
                input=command.stdin,
                capture_output=True,
                cwd=self.place,
                env={
                    "PATH": f"{self.bin}:{os.environ['PATH']}",
                    "HOME": str(self.place),
                    "LC_ALL": "C",
                    **environment,
                },
                timeout=60,
                check=False,
            )
            results.append(CommandResult(done.returncode, done.stdout, done.stderr))
        return results

    def _lines(self, name: str) -> list[str]:
        file = self.place / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def calls(self) -> list[str]:
        return self._lines("calls")

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.partition("=")[::2] for line in self._lines("environment"))

    @property
    def scripts(self) -> list[str]:
        return self._lines("scripts")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def row(native: str, state: str = "RUNNING", name: str = "intercede-sub") -> str:
    return f'echo "$n|{native}|{name}|{state}|None|{STAMP}|{STAMP}|{STAMP}|n1|$n"'


def status(host: Host, **environment: str) -> dict[str, str]:
    results = host.run(SLURM.status_commands(JOBS), **environment)
    return {j.id: str(d.status) for j, d in SLURM.parse_status(JOBS, results).items()}


# ---------------------------------------------------------------- status


def test_what_was_not_asked_for_stays_on_the_host(host: Host) -> None:
    host.squeue("\n".join([row("7_0"), row("8"), row("7_9"), row("7_2", "COMPLETED")]))
    results = host.run(SLURM.status_commands(JOBS))
    assert len(results[0].stdout.splitlines()) == 5
    assert status(host) == {"7_0": "running", "7_2": "successful"}
    assert host.calls[0].startswith("squeue --me -t all -o ")


def test_an_array_that_waits_is_one_row_and_comes_if_any_of_it_was_asked_for(host: Host) -> None:
    rows = [row("7_[1,3-4%2]", "PENDING"), row("8_[0-9]", "PENDING"), row("70_[1]", "PENDING")]
    host.squeue("\n".join([row("7_0"), *rows]))
    results = host.run(SLURM.status_commands(JOBS))
    assert len(results[0].stdout.splitlines()) == 5
    assert status(host) == {"7_0": "running", "7_1": "pending", "7_3": "pending"}


def test_of_an_array_of_which_many_are_asked_for_every_row_comes(host: Host) -> None:
    jobs = [NativeJob(f"7_{copy}", copy, "sub", NOW) for copy in range(101)]
    host.squeue("\n".join([row("7_0"), row("7_100"), row("7_999"), row("70_1"), row("77")]))
    (command,) = SLURM.status_commands(jobs)
    assert command.stdin == b"7\n"
    results = host.run([command])
    assert len(results[0].stdout.splitlines()) == 6
    assert [job.id for job in SLURM.parse_status(jobs, results)] == ["7_0", "7_100"]


def test_nothing_of_the_profile_reaches_slurms_commands(host: Host) -> None:
    host.squeue(row("7_0"))
    profile = {
        "SQUEUE_FORMAT": "%A",
        "SLURM_CLUSTERS": "x",
        "SLURM_TIME_FORMAT": "%B",
        "SLURM_CONF": "/c",
        "SLURM_BITSTR_LEN": "20",
    }
    assert status(host, **profile) == {"7_0": "running"}
    assert {
        key: value for key, value in host.environment.items() if key not in ("PWD", "_", "SHLVL")
    } == {
        "PATH": f"{host.bin}:{os.environ['PATH']}",
        "HOME": str(host.place),
        "LC_ALL": "C",
        "TZ": "UTC",
        "SLURM_TIME_FORMAT": "%s",
        "SLURM_BITSTR_LEN": "0",
        "SLURM_CONF": "/c",
    }


@pytest.mark.parametrize(
    "program",
    [
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/bin/sh\necho garbage\n",
        "#!/bin/sh\nhead -c 3000 /dev/urandom\n",
        "#!/bin/sh\nprintf '%s' \"$6\" | head -c 20\n",
        "#!/bin/sh\nexec cat\n",
    ],
)
def test_a_squeue_that_is_none_tells_of_no_job(host: Host, program: str) -> None:
    host.squeue()
    host.install("squeue", program)
    with pytest.raises(ResourceError):
        status(host)
    with pytest.raises(ResourceError):
        SLURM.parse_list(host.run(SLURM.list_commands("m")))
    assert [call for call in host.calls if call.startswith("scancel")] == []


def test_a_squeue_that_ends_in_the_middle_tells_of_no_job(host: Host) -> None:
    host.squeue(f"{row('7_0')}\nprintf '%s' \"$n|7_1|interc\"\nkill -9 $$")
    with pytest.raises(ResourceError):
        status(host)


def test_without_slurm_there_is_no_answer_and_the_shells_words(host: Host) -> None:
    with pytest.raises(ResourceError) as caught:
        status(host)
    assert "squeue" in caught.value.said


def test_names_that_look_like_rows_are_not_believed(host: Host) -> None:
    forged = f"7_1|intercede-sub|COMPLETED|None|{STAMP}|{STAMP}|{STAMP}|n1|"
    rows = [
        row("7_0"),
        f'printf "%s|8|x\\n%s|{forged}%s|RUNNING|None|{STAMP}|{STAMP}|{STAMP}|n1|%s\\n" "$n" guess guess "$n"',
        f'printf "%s|9|x|{forged}|%s\\n" "$n" "$n"',
        f'printf "7_2\\n|{forged}\\n"',
    ]
    host.squeue("\n".join(rows))
    assert status(host) == {"7_0": "running"}


def test_each_answer_has_its_own_random_word(host: Host) -> None:
    host.squeue()
    firsts = {host.run(SLURM.status_commands(JOBS))[0].stdout.splitlines()[0] for _ in range(3)}
    assert len(firsts) == 3


AWKS = [awk for awk in ("mawk", "gawk", "original-awk", "busybox") if shutil.which(awk)]


@pytest.mark.parametrize("awk", AWKS)
def test_every_awk_of_this_machine_understands_the_programs(host: Host, awk: str) -> None:
    path = shutil.which(awk)
    (host.bin / "awk").write_text(
        f'#!/bin/sh\nexec {path} {"awk " if awk == "busybox" else ""}"$@"\n'
    )
    (host.bin / "awk").chmod(0o755)
    host.squeue("\n".join([row("7_0"), row("9")]))
    assert status(host) == {"7_0": "running"}
    host.run(SLURM.kill_commands(JOBS))


# ---------------------------------------------------------------- list, kill, history


def test_a_list_is_of_the_mark_that_was_asked_for(host: Host) -> None:
    rows = [
        'echo "$n|7_1|intercede:desk:sub:10|intercede-sub|RUNNING|None|$n"',
        'echo "$n|8|intercede:other:sub:0|intercede-sub|RUNNING|None|$n"',
        'echo "$n|9|(null)|x|RUNNING|None|$n"',
    ]
    host.squeue("\n".join(rows))
    results = host.run(SLURM.list_commands("intercede:desk:"))
    assert SLURM.parse_list(results) == {"7_1": ("intercede:desk:sub", 11, JobStatus.RUNNING)}
    assert len(results[0].stdout.splitlines()) == 4


def named(*natives: str, name: str = "intercede-sub") -> str:
    return "\n".join(f'echo "$n|{native}|{name}|$n"' for native in natives)


def cancelled(host: Host, jobs: Sequence[NativeJob]) -> list[str]:
    host.run(SLURM.kill_commands(jobs))
    return [call for call in host.calls if call.startswith("scancel")]


def test_elements_that_are_still_ours_are_cancelled_in_ranges(host: Host) -> None:
    jobs = [NativeJob(f"7_{copy}", copy, "sub", NOW) for copy in (0, 1, 2, 5, 9, 10)]
    host.squeue(named("7_10", "7_0", "7_2", "7_1", "7_9", "7_4"))
    assert cancelled(host, jobs) == ["scancel 7_[0-2,9-10]"]


def test_jobs_of_several_submissions_are_cancelled_together(host: Host) -> None:
    jobs = [*JOBS[:1], NativeJob("8", 0, "other", NOW)]
    host.squeue(named("7_0") + "\n" + named("8", name="intercede-other"))
    assert sorted(cancelled(host, jobs)[0].split()) == ["7_[0]", "8", "scancel"]


def test_an_id_that_another_job_has_now_is_not_cancelled(host: Host) -> None:
    host.squeue(named("7_0", name="somebody") + "\n" + named("7_1", name="intercede-sub2"))
    assert cancelled(host, JOBS) == []


def test_nothing_is_cancelled_without_a_whole_answer(host: Host) -> None:
    host.squeue(named("7_0"), code=1)
    assert cancelled(host, JOBS) == []


def test_many_jobs_are_cancelled_in_lines_that_a_host_takes(host: Host) -> None:
    jobs = [NativeJob(str(number), 0, "sub", NOW) for number in range(100_000, 120_000)]
    host.squeue(
        'i=100000; while [ $i -lt 120000 ]; do echo "$n|$i|intercede-sub|$n"; i=$((i + 1)); done'
    )
    calls = cancelled(host, jobs)
    assert max(len(call) for call in calls) < 131_072
    assert sorted(w for call in calls for w in call.split()[1:]) == [job.id for job in jobs]


SACCT = r"""#!/bin/sh
echo "sacct $*" >> "$HOME/calls"
for word; do case $word in --delimiter=*) d=${word#*=};; esac; done
echo "JobID${d}JobName${d}State${d}Start${d}End${d}NodeList${d}"
echo "7_1${d}intercede-sub${d}TIMEOUT${d}1795344460${d}1795344465${d}n1${d}"
echo "9${d}7_2|intercede-sub|FAILED
7_2|intercede-sub${d}COMPLETED${d}1${d}1${d}n1${d}"
"""


def test_a_history_is_asked_for_by_arrays_and_picked_by_elements(host: Host) -> None:
    host.install("sacct", SACCT)
    jobs = [*JOBS, NativeJob("8", 0, "other", NOW)]
    told = SLURM.parse_history(jobs, host.run(SLURM.history_commands(jobs)))
    assert {job.id: d.native_state for job, d in told.items()} == {"7_1": "TIMEOUT"}
    (call,) = host.calls
    assert call.startswith("sacct -X -p -D -S 2026-11-21T12:00:00 -j 7,8 --delimiter=")


def test_a_long_history_is_asked_for_in_parts(host: Host) -> None:
    host.install("sacct", SACCT)
    jobs = [NativeJob(str(number), 0, "sub", NOW) for number in range(100_000, 102_500)]
    SLURM.parse_history(jobs, host.run(SLURM.history_commands(jobs)))
    assert len(host.calls) == 3


# ---------------------------------------------------------------- submit


def batch(copies: int = 3, spec: SubmissionSpec | None = None) -> StagedBatch:
    spec = spec or SubmissionSpec("true", resident=True)
    return StagedBatch("sub", "m:sub", "/r/sub", "/r/sub/runner", tuple(range(copies)), spec)


def submit(
    host: Host,
    copies: int = 3,
    size: int = 1001,
    most: int = 10000,
    config: SlurmConfig | None = None,
    **environment: str,
) -> dict[int, str | Failure]:
    slurm = SlurmScheduler(config)
    facts = {"max_array_size": size, "max_job_count": most}
    asked = batch(copies)
    results = host.run(slurm.submit_commands(asked, facts), **environment)
    return dict(slurm.parse_submit(asked, results))


def test_an_array_is_submitted_with_name_mark_and_script(host: Host) -> None:
    host.sbatch("echo 12")
    assert submit(host) == {0: "12_0", 1: "12_1", 2: "12_2"}
    (call,) = host.calls
    assert call.startswith(
        "sbatch --parsable --job-name=intercede-sub --comment=m:sub:0 --array=0-2 --no-requeue --chdir=/r/sub"
    )
    assert host.scripts[0] == "#!/bin/sh"


def test_the_jobs_environment_has_nothing_of_the_profile_but_its_locale(host: Host) -> None:
    host.sbatch("echo 12")
    submit(host, SBATCH_PARTITION="closed", SECRET="x", INTERCEDE_LOCALE="de_DE.UTF-8", TZ="CET")
    known = {
        key: value for key, value in host.environment.items() if key not in ("PWD", "_", "SHLVL")
    }
    assert known == {
        "PATH": f"{host.bin}:{os.environ['PATH']}",
        "HOME": str(host.place),
        "LANG": "de_DE.UTF-8",
        "TZ": "CET",
    }


def test_every_array_has_its_first_copy_in_comment_and_script(host: Host) -> None:
    host.sbatch('read n < "$HOME/n" 2>/dev/null || n=11; n=$((n + 1)); echo $n | tee "$HOME/n"')
    told = submit(host, copies=5, size=2)
    assert told == {0: "12_0", 1: "12_1", 2: "13_0", 3: "13_1", 4: "14"}
    assert [call.split()[3] for call in host.calls] == [f"--comment=m:sub:{n}" for n in (0, 2, 4)]
    assert "--array" not in host.calls[2]
    assert [line for line in host.scripts if line.startswith("first=")] == [
        "first=0",
        "first=2",
        "first=4",
    ]


def test_the_first_refusal_ends_the_submission(host: Host) -> None:
    host.sbatch(
        'n=$(grep -c sbatch "$HOME/calls"); [ "$n" -gt 1 ] || { echo 12; exit 0; }\n'
        'echo "sbatch: error: Batch job submission failed: Invalid qos specification" >&2; exit 1'
    )
    host.install(
        "sacctmgr",
        '#!/bin/sh\ncase $* in *assoc*) echo "proj||normal,tiny|";; *) echo "tiny|3||";; esac\n',
    )
    told = submit(host, copies=6, size=2, config=SlurmConfig(qos="x"))
    assert (told[0], told[1]) == ("12_0", "12_1")
    failures = [failure for failure in told.values() if isinstance(failure, Failure)]
    assert len(failures) == 4
    assert "this user has: normal,tiny" in failures[0].message
    assert len(host.calls) == 2


def found(first: int = 0, job: int = 12) -> str:
    return f'echo "$n|found|{job}|m:sub:{first}|$n"'


@pytest.mark.parametrize(
    "text",
    [
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1',
        "kill -9 $$",
        "exit 0",
        "echo hello; echo 'a|b'",
        "echo 12; echo 13",
        "echo 'code 0'; exit 1",
        "echo 'code 0'; echo 99; exit 1",
        'echo "sbatch: error: something new" >&2; exit 1',
    ],
)
def test_what_became_of_an_unclear_sbatch_is_looked_up(host: Host, text: str) -> None:
    host.sbatch(text)
    host.squeue(f"{found(7, 99)}\n{found()}\n{found()}")
    assert submit(host) == {0: "12_0", 1: "12_1", 2: "12_2"}
    assert any("-n intercede-sub" in call for call in host.calls)


def test_what_is_not_found_for_a_minute_is_uncertain(host: Host) -> None:
    host.install("sleep", "#!/bin/sh\nexit 0\n")
    host.sbatch("kill -9 $$")
    host.squeue(found(7, 99))
    with pytest.raises(ResourceError, match="looked up and not found"):
        submit(host)
    assert len([call for call in host.calls if call.startswith("squeue")]) == 12


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            'echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)" >&2; exit 1',
            FailureCode.NOT_NOW,
        ),
        ('echo "sbatch: error: Invalid --time specification" >&2; exit 255', FailureCode.REFUSED),
    ],
)
def test_a_certain_refusal_is_not_looked_up(host: Host, text: str, code: FailureCode) -> None:
    host.sbatch(text)
    host.squeue(found())
    told = submit(host)
    assert {f.code for f in told.values() if isinstance(f, Failure)} == {code}
    assert len(told) == 3
    assert len(host.calls) == 1


def test_without_sbatch_nothing_was_submitted(host: Host) -> None:
    host.squeue()
    told = submit(host)
    assert {f.code for f in told.values() if isinstance(f, Failure)} == {FailureCode.NOT_NOW}


def test_a_greeting_before_the_id_does_no_harm(host: Host) -> None:
    host.sbatch("echo 'Welcome to the cluster | 2026'; echo '12;trixie'")
    assert submit(host)[2] == "12_2"


def test_what_does_not_fit_is_left_and_said(host: Host) -> None:
    host.sbatch("echo 12")
    host.squeue(held=7)
    told = submit(host, copies=5, size=2, most=11)
    # 11 - 1 - 7: one less than the cluster's number, at which 20.11, 22.05 and 24.11 begin to wait.
    assert host.calls[1].count("--array=0-1") == 1
    assert told[0] == "12_0"
    assert [copy for copy, n in told.items() if isinstance(n, Failure)] == []


def test_an_array_for_which_there_is_part_of_the_room_is_cut(host: Host) -> None:
    host.sbatch("echo 12")
    host.squeue(held=8)
    told = submit(host, copies=4, most=11)
    assert (told[0], told[1]) == ("12_0", "12_1")
    for copy in (2, 3):
        failure = told[copy]
        assert isinstance(failure, Failure)
        assert failure.code is FailureCode.LIMIT
        assert "MaxJobCount=11: it holds 8 jobs" in failure.message


def test_a_full_cluster_is_not_asked_to_take_more(host: Host) -> None:
    host.sbatch("echo 12")
    host.squeue(held=11)
    told = submit(host, copies=4, most=11)
    assert all(isinstance(native, Failure) for native in told.values())
    assert [call for call in host.calls if call.startswith("sbatch")] == []


# ---------------------------------------------------------------- the probe


def test_a_cluster_with_an_oci_runtime_has_containers(host: Host) -> None:
    host.install(
        "scontrol",
        "#!/bin/sh\ncat > \"$HOME/requests\"\necho 'MaxArraySize = 1001'; echo 'SLURM_VERSION = 24.11.5'\n"
        'echo "SLURM_CONF = $HOME/slurm.conf"; echo "PartitionName=main Default=YES State=UP MaxTime=1:00:00"\n',
    )
    host.install("sinfo", '#!/bin/sh\necho "sinfo $*" >> "$HOME/calls"\n')
    assert "oci" not in SLURM.parse_probe(host.run(SLURM.probe_commands(None)))
    (host.place / "oci.conf").touch()
    facts = SLURM.parse_probe(host.run(SLURM.probe_commands(None)))
    assert facts["oci"] == str(host.place / "oci.conf")
    assert facts["partition:main:max_time_s"] == 3600
    assert (host.place / "requests").read_text() == "show config\nshow partitions\n"
