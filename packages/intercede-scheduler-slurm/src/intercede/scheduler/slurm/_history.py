"""The rows of sacct, where the cluster keeps accounts.

Exit codes are left alone: 20.11, 22.05 and 24.11 cut them to 7 bits (255 is shown as 127). `-D` shows each of the jobs that an id was given
to, and each run of one that was put back to the queue: ours are told by their name, and of several the last counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from intercede.core import JobDetails, NativeJob, ResourceError, Results

from ._answer import read_answer
from ._programs import NAME
from ._queue import job_details, read_moment
from ._states import read_state

__all__ = ["earliest", "read_history"]

#: The client's clock and the cluster's may differ by this.
_CLOCKS: Final = timedelta(days=1)
#: What sacct says where there are no accounts, with exit code 1 (all versions).
_NO_ACCOUNTS: Final = "accounting storage is disabled"
_FIELDS: Final = 6


def earliest(jobs: Sequence[NativeJob]) -> str:
    """From when on sacct has to look, in UTC."""
    moment = min(job.submitted_at for job in jobs) - _CLOCKS
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def read_history(jobs: Sequence[NativeJob], results: Results) -> dict[NativeJob, JobDetails]:
    """The jobs that sacct knows, ended or not.

    Raises:
        ResourceError: sacct failed, or it is not sacct that spoke. Where the cluster keeps no accounts there is no history, and no error.
    """
    answer = read_answer(results)
    if answer.ends.get("sacct") and _NO_ACCOUNTS in answer.said:
        return {}
    answer.check("sacct")
    lines = [line.split(f"|{answer.nonce}|") for line in answer.plain]
    if not lines or lines[0][0] != "JobID":
        raise ResourceError("sacct printed no header: it is not Slurm's", said=answer.said)
    rows: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if len(line) == _FIELDS + 1 and line[_FIELDS] == "":
            rows[line[0], line[1]] = line
    found = {}
    for job in jobs:
        row = rows.get((job.id, NAME + job.submission))
        state = None if row is None else read_state(row[2])
        if row is None or state is None:
            continue
        nodes = "" if row[5] == "None assigned" else row[5]
        found[job] = job_details(state, row[2], "", read_moment(row[3]), read_moment(row[4]), nodes)
    return found
