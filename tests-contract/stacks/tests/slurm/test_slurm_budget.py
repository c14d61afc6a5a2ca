"""How often Slurm's own commands run, counted on the host where they run, and how often the host is asked.

The table is the design's: both numbers are the same for one job and for a thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import pytest

from intercede.core import JobStatus
from stacks.tests.slurm._scene import MAX_ARRAY, MAX_JOBS, Scene

#: As many as the cluster takes at once, at most a thousand: an array where it may have so many tasks.
COPIES: Final = min(1000, MAX_JOBS // 2)
ARRAYS: Final = -(-COPIES // MAX_ARRAY)
#: A submission of more than a tenth of what the cluster holds asks before each array how many it has.
ASKS: Final = ARRAYS if COPIES * 10 > MAX_JOBS else 0
MANY: Final = 10_000
T = TypeVar("T")

#: By call: execs, and how often each command may be called.
BUDGET: Final[Mapping[str, tuple[int, Mapping[str, int]]]] = {
    "first use": (2, {"scontrol": 1, "sinfo": 1, "squeue": 1}),
    "submit": (2, {"sbatch": ARRAYS, **({"squeue": ASKS} if ASKS else {})}),
    "status, waiting": (1, {"squeue": 1}),
    "details, waiting": (1, {"squeue": 1}),
    "counts": (1, {"squeue": 1}),
    "find": (1, {}),
    "diagnostics": (1, {"squeue": 1}),
    "kill, waiting": (1, {"squeue": 2, "scancel": 1}),
    "status, killed": (2, {"squeue": 1}),
    "status, ended": (2, {"squeue": 1}),
    "details, ended": (2, {"squeue": 1}),
    "fetch": (1, {}),
    "kill, ended": (1, {"squeue": 2}),
    "purge": (1, {}),
}


async def test_a_thousand_copies_cost_no_more_than_the_table_says(
    scene: Scene, tmp_path: Path
) -> None:
    spent: dict[str, tuple[int, Counter[str]]] = {}

    async def measure(name: str, call: Awaitable[T]) -> T:
        before = scene.execs
        async with scene.cluster.counted() as calls:
            result = await call
        spent[name] = scene.execs - before, calls
        return result

    ce = await scene.backend(options=["--hold"])
    await measure("first use", ce.counts())
    submission = await measure("submit", ce.submit(scene.spec("exit 0", tag="budget"), COPIES))
    submission.raise_for_failures()
    ids = [handle.id for handle in submission.handles]
    status = await measure("status, waiting", ce.status(ids))
    assert set(status.values()) == {JobStatus.HELD}
    await measure("details, waiting", ce.details(ids))
    await measure("counts", ce.counts())
    await measure("find", ce.find("budget"))
    await measure("diagnostics", ce.diagnostics(ids[:100]))
    (await measure("kill, waiting", ce.kill(ids))).raise_for_failures()
    status = await measure("status, killed", ce.status(ids))
    assert set(status.values()) == {JobStatus.CANCELLED}
    ended = await scene.submitted("exit 0", COPIES)
    await scene.finished(ended, within_s=COPIES)  # a job a second, on a machine that has other work
    await measure("status, ended", ce.status(ended))
    await measure("details, ended", ce.details(ended))
    output = await measure("fetch", ce.fetch_output(ended, tmp_path / "out"))
    output.raise_for_failures()
    killed = await measure("kill, ended", ce.kill(ended))
    assert {outcome.note for outcome in killed.values()} == {"it had ended already"}
    (await measure("purge", ce.purge(ended))).raise_for_failures()
    assert spent.keys() == BUDGET.keys()
    over = {name: spent[name] for name in BUDGET if not _within(spent[name], BUDGET[name])}
    assert over == {}


def _within(spent: tuple[int, Counter[str]], allowed: tuple[int, Mapping[str, int]]) -> bool:
    return spent[0] <= allowed[0] and spent[1] <= Counter(allowed[1])


@pytest.mark.skipif(MAX_JOBS < 2 * MANY, reason="the cluster does not hold so many jobs")
async def test_ten_thousand_jobs_are_asked_for_in_one_call_of_squeue(scene: Scene) -> None:
    ids = await scene.held(MANY)
    await scene.ce.counts()
    before = scene.execs
    async with scene.cluster.counted() as calls:
        status = await scene.ce.status(ids)
    assert Counter(status.values()) == {JobStatus.HELD: MANY}
    assert (scene.execs - before, dict(calls)) == (1, {"squeue": 1})
    async with scene.cluster.counted() as calls:
        (await scene.ce.kill(ids)).raise_for_failures()
    assert calls <= Counter(squeue=2, scancel=1)
    assert not [job for job in await scene.all_in_slurm() if job.state == "PENDING"]
