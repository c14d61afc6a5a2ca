"""A look at the pretend host, past the backend; that it can be made to fail is shown by the contract suite itself."""

from intercede.core import JobID, SubmissionSpec, registry
from intercede.fake import FakeProbe


async def test_the_probe_sees_what_a_job_shows_and_nothing_of_other_sites() -> None:
    config = {"type": "fake", "site": "probed", "speed": 1.0}
    async with registry.backend(config) as ce:
        verbs = ["sleep", "600"]
        spec = SubmissionSpec("payload.sh", verbs, resident=True, environment={"MARK": "here"})
        (handle,) = (await ce.submit(spec)).handles
        await ce.status([handle.id])
        here, elsewhere = FakeProbe("probed"), FakeProbe("not-probed")
        assert [line.partition(": ")[2] for line in await here.processes("here")] == [
            "payload.sh sleep 600",
            "sleep 600",
        ]
        assert await here.exposed(b"here") == [f"process of {handle.id}"]
        assert await here.exposed(b"absent") == await elsewhere.exposed(b"here") == []
        assert await elsewhere.processes("") == []
        assert await here.sandbox(handle) is not None
        assert await elsewhere.sandbox(handle) is None


async def test_the_probe_keeps_files_and_links_on_the_host() -> None:
    async with registry.backend({"type": "fake", "site": "written"}):
        probe = FakeProbe("written")
        place = f"{await probe.scratch()}/f"
        assert await probe.read(place) is None
        await probe.write(place, b"x")
        assert await FakeProbe("written").read(place) == b"x"
        assert await FakeProbe("not-written").read(place) is None
        await probe.replace_by_link("/pretend/a/b/0", "/pretend/a/b/1")
        assert probe._site.links == {JobID("a/b/0"): JobID("a/b/1")}
        await probe.write("/scratch/folder/f", b"y")
        await probe.write("/scratch/folder2", b"z")
        for gone in (place, "/scratch/folder", "/pretend/a/b/0", "/scratch/never"):
            await probe.remove(gone)
        assert probe._site.files == {"/scratch/folder2": b"z"}
        assert probe._site.links == {}
