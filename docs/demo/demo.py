"""Twenty copies of a real script on this machine: submit, watch, fetch, purge.

    python docs/demo/demo.py [RESULTS]

This is also the tutorial: everything a workload management system does with a resource is here, in this order. Only the configuration
in the first line of `main` says where the jobs run; the rest stays as it is for any resource.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from intercede.core import (
    CopyVars,
    FileRef,
    JobDetails,
    JobID,
    JobOutput,
    JobStatus,
    Monitor,
    OutputRetriever,
    OutputSpec,
    Purgeable,
    Resources,
    SubmissionSpec,
    SupportsDetails,
    registry,
)

HERE = Path(__file__).parent
COPIES = 20

# Wide enough for the table also when stdout is a file.
console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)


async def main(results: Path) -> None:
    ce = registry.backend({"transport": "local", "scheduler": "direct", "name": "demo"})

    # What to run: a script of ours with its inputs, and what to keep of what it makes.
    spec = SubmissionSpec(
        executable=str(HERE / "analyse.sh"),
        arguments=["--title", "my first analysis", "--events", "5000"],
        inputs=[
            FileRef("calibration.txt", source=str(HERE / "inputs/calibration.txt")),
            FileRef("cuts", source=str(HERE / "inputs/cuts")),
        ],
        outputs=OutputSpec(["*.csv", "plots/"]),
        resources=Resources(cpus=1, wall_time_s=60),
        tag="demo",
    )
    copies = [CopyVars(environment={"SEED": str(seed)}) for seed in range(1, COPIES + 1)]

    async with ce:
        # A backend has the abilities that its resource has: ask before you use one.
        assert isinstance(ce, OutputRetriever) and isinstance(ce, SupportsDetails)
        assert isinstance(ce, Purgeable)

        submission = await ce.submit(spec, copies)
        submission.raise_for_failures()
        ids = [handle.id for handle in submission.handles]

        with anyio.fail_after(120):
            await watch(ce, ids)
        details = await ce.details(ids)
        outputs = await ce.fetch_output(ids, results)
        (await ce.purge(ids)).raise_for_failures()

    show(results / submission.id, details, outputs)
    if not all(job.status is JobStatus.SUCCESSFUL for job in details.values()):
        sys.exit("not all of them were successful")


async def watch(ce: Monitor, ids: Sequence[JobID]) -> None:
    """Ask for the statuses, all at once, until every copy has finished."""
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("running", total=len(ids))
        told = ""
        while True:
            counts = Counter((await ce.status(ids)).values())
            text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            finished = sum(count for status, count in counts.items() if status.is_finished)
            progress.update(bar, completed=finished, description=text)
            if not console.is_terminal and text != told:
                console.print(text)
            if finished == len(ids):
                return
            told = text
            await anyio.sleep(0.2)


def show(
    place: Path, details: Mapping[JobID, JobDetails], outputs: Mapping[JobID, JobOutput]
) -> None:
    table = Table("copy", "status", "exit", "files", "where", title=f"in {place}/", box=None)
    for copy, (job, ended) in enumerate(details.items()):
        output = outputs[job]
        where = "" if output.stdout is None else f"{output.stdout.parent.relative_to(place)}/"
        files = ", ".join(sorted(output.files))
        table.add_row(str(copy), ended.status, str(ended.exit_code), files, where)
    console.print(table)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
