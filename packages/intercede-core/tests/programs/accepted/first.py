from pathlib import Path

import anyio

from intercede.core import FileRef, OutputRetriever, OutputSpec, Purgeable, Resources, SubmissionSpec, registry


async def main() -> None:
    spec = SubmissionSpec(
        executable="analyse.sh",
        arguments=["--events", "1000", "a b"],
        inputs=[FileRef("config.json", source="conf/config.json")],
        outputs=OutputSpec(["*.csv", "plots/"]),
        resources=Resources(cpus=1, memory_mb=512, wall_time_s=600),
        environment={"STAMP": "x"},
        tag="run-42",
    )
    async with registry.backend({"transport": "local", "scheduler": "direct"}) as ce:
        assert isinstance(ce, OutputRetriever)
        assert isinstance(ce, Purgeable)
        submission = await ce.submit(spec, copies=3)
        submission.raise_for_failures()
        ids = [handle.id for handle in submission.handles]
        with anyio.fail_after(60):
            while not all(status.is_finished for status in (await ce.status(ids)).values()):
                await anyio.sleep(0.5)
        for job, output in (await ce.fetch_output(ids, Path("results"))).items():
            print(job, output.stdout, sorted(output.files))
        (await ce.purge(ids)).raise_for_failures()


anyio.run(main)
