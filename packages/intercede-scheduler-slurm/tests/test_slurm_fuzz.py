"""Answers that nobody meant: names of jobs that want to be rows, and what was recorded of Slurm with bytes changed, lost and doubled.

`INTERCEDE_FUZZ_CASES` says how many changed answers each parser gets, `INTERCEDE_FUZZ_SEED` which ones; a failure tells the seed.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from intercede.core import (
    CommandResult,
    Failure,
    JobDetails,
    JobStatus,
    NativeJob,
    ResourceError,
    StagedBatch,
    SubmissionSpec,
)
from intercede.scheduler.slurm import SlurmScheduler

SAMPLES: Final = Path(__file__).parents[3] / "tests-contract" / "tests" / "samples"
VERSIONS: Final = ("20.11", "22.05", "24.11", "26.05")
CASES: Final = int(os.environ.get("INTERCEDE_FUZZ_CASES", "10000"))
SEED: Final = int(os.environ.get("INTERCEDE_FUZZ_SEED", random.randrange(2**32)))
SLURM: Final = SlurmScheduler()
NONCE: Final = "0123456789abcdef01234567"
NOW: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
STAMP: Final = str(int(NOW.timestamp()))


# ---------------------------------------------------------------- names that want to be rows

FORGED: Final = f"7_1|intercede-sub|COMPLETED|None|{STAMP}|{STAMP}|{STAMP}|n1"
#: What an account may call a job, or write into its comment, without knowing the random word.
HOSTILE: Final = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [
                "|",
                "\n",
                "\r",
                "\x85",
                "\u2028",
                "x" * 500,
                "intercede-sub",
                "intercede:desk:sub:0",
                f"\n{FORGED}\n",
                f"\n{'f' * 24}|{FORGED}|{'f' * 24}\n",
                f"\nslurm {'f' * 24}\n",
                f"\n{'f' * 24}|end|squeue|0|{'f' * 24}\n",
                "|end|squeue|1|",
                "7_1",
                "7_[0-1]",
                f"\n{'f' * 24}|{FORGED.replace('7_1', '7_[0-1]')}|{'f' * 24}\n",
            ]
        ),
    ),
    max_size=8,
).map("".join)


def answered(*lines: str) -> list[CommandResult]:
    text = "".join(f"{line}\n" for line in (f"slurm {NONCE}", *lines))
    return [CommandResult(0, text.encode(errors="replace"))]


@given(HOSTILE, HOSTILE, st.sampled_from(["8", "7_1", "7_9", "7_[0-1]"]), st.booleans())
def test_no_name_makes_another_job_of_ours(
    name: str, nodes: str, native: str, before: bool
) -> None:
    assume(NONCE not in name + nodes and name != "intercede-sub")
    ours = f"{NONCE}|7_0|intercede-sub|RUNNING|None|{STAMP}|{STAMP}|N/A|n1|{NONCE}"
    hostile = f"{NONCE}|{native}|{name}|RUNNING|None|{STAMP}|{STAMP}|N/A|{nodes}|{NONCE}"
    header = f"{NONCE}|JOBID|NAME|STATE|REASON|SUBMIT_TIME|START_TIME|END_TIME|NODELIST|{NONCE}"
    rows = [hostile, ours] if before else [ours, hostile]
    jobs = [NativeJob(f"7_{copy}", copy, "sub", NOW) for copy in range(2)]
    told = SLURM.parse_status(jobs, answered(header, *rows, f"{NONCE}|end|squeue|0|{NONCE}"))
    assert told[jobs[0]].status is JobStatus.RUNNING
    # A name that begins like ours may be taken for a torn row of ours, of which nothing is known.
    assert jobs[1] not in told or told[jobs[1]].status is JobStatus.UNKNOWN


@given(HOSTILE, HOSTILE, st.sampled_from(["8", "7_0"]))
def test_no_name_or_comment_makes_another_listed_job(name: str, comment: str, native: str) -> None:
    assume(NONCE not in name + comment and name != "intercede-sub")
    header = f"{NONCE}|JOBID|COMMENT|NAME|STATE|REASON|{NONCE}"
    hostile = f"{NONCE}|{native}|{comment}|{name}|RUNNING|None|{NONCE}"
    ours = f"{NONCE}|7_1|intercede:desk:sub:0|intercede-sub|RUNNING|None|{NONCE}"
    told = SLURM.parse_list(answered(header, hostile, ours, f"{NONCE}|end|squeue|0|{NONCE}"))
    assert told == {"7_1": ("intercede:desk:sub", 1, JobStatus.RUNNING)}


@given(HOSTILE)
def test_no_name_makes_another_end_of_ours(name: str) -> None:
    assume(NONCE not in name and name != "intercede-sub")

    def row(*fields: str) -> str:
        return "".join(f"{field}|{NONCE}|" for field in fields)

    lines = [
        row("JobID", "JobName", "State", "Start", "End", "NodeList"),
        row("7_1", name, "FAILED", STAMP, STAMP, "n1"),
        row("7_0", "intercede-sub", "TIMEOUT", STAMP, STAMP, "n1"),
        f"{NONCE}|end|sacct|0|{NONCE}",
    ]
    jobs = [NativeJob(f"7_{copy}", copy, "sub", NOW) for copy in range(2)]
    told = SLURM.parse_history(jobs, answered(*lines))
    assert {job.id: d.native_state for job, d in told.items()} == {"7_0": "TIMEOUT"}


# ---------------------------------------------------------------- answers with bytes changed


def recorded(call: str) -> list[Mapping[str, Any]]:
    return [
        sample
        for version in VERSIONS
        for sample in json.loads((SAMPLES / f"slurm-{version}.json").read_text())
        if sample["call"] == call
    ]


def changed(answer: bytes, chance: random.Random) -> bytes:
    """The answer with one to four things done to it."""
    data = bytearray(answer)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((1, 1, 2, 5, 20, 200)))
        kind = chance.randrange(7)
        if kind == 0:
            data[at:to] = chance.randbytes(to - at)
        elif kind == 1:
            del data[at:to]
        elif kind == 2:
            data[at:at] = data[at:to]
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = chance.choice(
                (b"|", b"\n", b"\0", b"\xff", b"-", b"_", b"+", b"9" * 5000, b" by ", b";", b"=")
            )
        elif kind == 5:
            lines = data.split(b"\n")
            chance.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        else:
            other = chance.randrange(len(data) + 1)
            data[at:at] = data[other : other + 40]
    return bytes(data)


def jobs_of(sample: Mapping[str, Any]) -> list[NativeJob]:
    return [NativeJob(job["id"], job["copy"], job["submission"], NOW) for job in sample["jobs"]]


def told_of_jobs(sample: Mapping[str, Any], told: Mapping[NativeJob, JobDetails]) -> None:
    assert set(told) <= set(jobs_of(sample))


def read_submit(sample: Mapping[str, Any], result: CommandResult) -> None:
    batch = StagedBatch(**sample["batch"], spec=SubmissionSpec("true", resident=True))
    told = SLURM.parse_submit(batch, [result])
    assert set(told) == set(batch.copies)
    for native in told.values():
        assert isinstance(native, Failure) or re.fullmatch(SLURM.native_id, native)


def read_list(sample: Mapping[str, Any], result: CommandResult) -> None:
    for native, (mark, copy, _) in SLURM.parse_list([result]).items():
        assert re.fullmatch(SLURM.native_id, native)
        assert mark and copy is not None and copy >= 0


def read_probe(sample: Mapping[str, Any], result: CommandResult) -> None:
    facts = SLURM.parse_probe([result])
    assert all(isinstance(value, int | str) for value in facts.values())


PARSERS: Final[Mapping[str, Callable[[Mapping[str, Any], CommandResult], None]]] = {
    "probe": read_probe,
    "submit": read_submit,
    "status": lambda sample, result: told_of_jobs(
        sample, SLURM.parse_status(jobs_of(sample), [result])
    ),
    "history": lambda sample, result: told_of_jobs(
        sample, SLURM.parse_history(jobs_of(sample), [result])
    ),
    "list": read_list,
}


@pytest.mark.parametrize("call", PARSERS)
def test_no_answer_makes_a_parser_raise_anything_else_or_invent_a_job(call: str) -> None:
    chance = random.Random(f"{SEED} {call}")
    samples = recorded(call)
    refused = 0
    for number in range(CASES):
        sample = chance.choice(samples)
        one = sample["results"][0]
        answer = changed(one["stdout"].encode(), chance)
        result = CommandResult(chance.choice((0, 1)), answer, one["stderr"].encode())
        try:
            PARSERS[call](sample, result)
        except ResourceError:
            refused += 1
        except Exception as error:
            pytest.fail(f"INTERCEDE_FUZZ_SEED={SEED}, case {number}: {error!r} of {answer!r}")
    # Neither is everything refused, nor nothing: the changes go deep enough.
    assert 0 < refused < CASES
