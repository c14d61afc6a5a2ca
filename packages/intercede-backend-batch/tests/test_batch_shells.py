"""Hosts differ in what `sh` is: dash on Debian, bash on Red Hat, BusyBox on small ones. All of it is that shell here."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest

from intercede.backend.batch import _sandbox
from intercede.core import CopyVars, FailureCode, FileRef, JobStatus, OutputSpec, Resources


@pytest.fixture(params=["dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `sh` means to everything on the host."""
    program = shutil.which(request.param)
    assert program is not None, f"this test needs {request.param}: apt-get install it"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(program)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return str(request.param)


async def test_a_job_lives_its_whole_life_under_any_shell(
    make_backend: Any, tools: Any, tmp_path: Path, root: Path, shell: str
) -> None:
    spec = tools.script(
        'echo "$X $INTERCEDE_COPY"; mkdir d; echo 1 > d/a; echo 2 > "b c"; echo 3 > data; exit "$X"',
        inputs=[FileRef("data", content=b"in"), FileRef("tree/x", content=b"in")],
        outputs=OutputSpec(["d/", "b*", "absent"]),
        tag="life",
    )
    copies = [CopyVars(environment={"X": str(n)}, secrets={"s": b"1"}) for n in range(4)]
    async with make_backend(slots=2) as ce:
        ids = tools.ids_of(await ce.submit(spec, copies))
        await tools.finish(ce, ids)
        assert [d.exit_code for d in (await ce.details(ids)).values()] == [0, 1, 2, 3]
        outputs = await ce.fetch_output(ids, tmp_path / "out")
        outputs.raise_for_failures()
        for number, output in enumerate(outputs.values()):
            assert output.stdout is not None
            assert output.stdout.read_text() == f"{number} {number}\n"
            assert sorted(output.files) == ["b c", "d/a"]
            assert output.missing == ("absent",)
        assert [handle.id for handle in await ce.find("life")] == ids
        (await ce.purge(ids)).raise_for_failures()
        assert (await ce.status(ids)).failures[ids[0]].code is FailureCode.NO_SUCH_JOB


CLOSED = """\
mkdir -p out/shut out/open sub1 sub2 pass; echo 1 > out/a; echo 2 > out/shut/b; echo 3 > out/open/c; echo 4 > sub1/x; echo 5 > sub2/x
echo 6 > f.dat; echo 7 > g.dat; echo 8 > pass/y
case $INTERCEDE_COPY in 0) chmod 0 $CLOSE; chmod 311 pass;; esac
"""


@pytest.mark.parametrize("tar", [_sandbox.TAR_GNU, _sandbox.TAR_NONE])
@pytest.mark.parametrize(
    ("wanted", "close", "came", "said"),
    [
        (["out/"], "out/shut", ["out/a", "out/open/c"], "'?work/out/shut'?: Permission denied"),
        (["out/"], "out/a", ["out/open/c", "out/shut/b"], "work/out/a'?: .*open"),
        (["out/"], "out", [], "'?work/out'?: Permission denied"),
        (["*.dat"], "f.dat", ["g.dat"], "work/f.dat'?: .*open"),
        (["f.dat", "g.dat"], "f.dat", ["g.dat"], "work/f.dat'?: .*open"),
        (["sub?/x"], "sub1", ["sub2/x"], "work/sub1: this directory may not be opened"),
        (["sub1/x", "sub2/x"], "sub1", ["sub2/x"], "work/sub1: this directory may not be opened"),
        (["sub1/*", "f.dat"], "sub1", ["f.dat"], "work/sub1: this directory may not be opened"),
        (["pass/*", "f.dat"], "g.dat", ["f.dat"], "work/pass: this directory may not be opened"),
        (["pass/y", "f.dat"], "g.dat out", ["f.dat", "pass/y"], None),
        (None, "out sub1 sub2 f.dat", ["g.dat"], "work/"),
    ],
)
async def test_what_may_not_be_read_is_told_and_is_that_jobs_trouble(
    make_backend: Any,
    tools: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    tar: str,
    wanted: list[str] | None,
    close: str,
    came: list[str],
    said: str | None,
) -> None:
    monkeypatch.setattr("intercede.backend.batch._host.Host.tar", tar)
    outputs = OutputSpec(everything=True) if wanted is None else OutputSpec(wanted)
    wire = tools.Wire()
    wire.shell = tools.plainly("sh")
    if os.getuid() == 0 and shell == "busybox" and wanted == ["pass/*", "f.dat"]:
        pytest.skip("BusyBox takes it that root may read everything, and does not try")
    async with make_backend(wire) as ce:
        spec = tools.script(CLOSED, outputs=outputs, environment={"CLOSE": close})
        ids = tools.ids_of(await ce.submit(spec, 2))
        await tools.finish(ce, ids)
        result = await ce.fetch_output(ids, tmp_path / "out")
        (await ce.purge(ids)).raise_for_failures()
    assert sorted(result[ids[0]].files) == came
    assert result[ids[1]].failure is None
    failure = result[ids[0]].failure
    if said is None:
        assert failure is None
    else:
        assert failure.code is FailureCode.FAILED
        assert re.search(f"not all could be read: .*{said}", failure.message), failure.message


async def test_everything_comes_back_under_any_shell(
    make_backend: Any, tools: Any, tmp_path: Path, shell: str
) -> None:
    spec = tools.script(
        'echo 1 > tree/made; echo 2 > "new\nline"; echo 3 > tree/x',
        inputs=[FileRef("tree/x", content=b"in")],
        outputs=OutputSpec(everything=True),
    )
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(spec))
        await tools.finish(ce, ids)
        output = (await ce.fetch_output(ids, tmp_path / "out"))[ids[0]]
    assert sorted(output.files) == ["new\nline", "tree/made"]


@pytest.mark.parametrize("tar", [_sandbox.TAR_GNU, _sandbox.TAR_NONE])
async def test_a_fetch_tells_jobs_apart_under_any_shell(
    make_backend: Any,
    tools: Any,
    tmp_path: Path,
    root: Path,
    shell: str,
    tar: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("intercede.backend.batch._host.Host.tar", tar)
    async with make_backend(slots=9) as ce, make_backend(slots=9, name="other") as other:
        ended = tools.ids_of(await ce.submit(tools.script("echo said"), 4))
        foreign = tools.ids_of(await other.submit(tools.script("echo said")))
        await tools.finish(ce, ended)
        await tools.finish(other, foreign)
        running = tools.ids_of(await ce.submit(tools.script("sleep 300")))
        await tools.until(ce, running, JobStatus.RUNNING)
        (await ce.purge(ended[1:2])).raise_for_failures()
        linked = root / ended[2].split("/")[1] / "2"
        shutil.rmtree(linked)
        linked.symlink_to(linked.parent / "0")
        others = [foreign[0].replace("other/", f"{ended[0].partition('/')[0]}/", 1), *ended[1:3]]
        outputs = await ce.fetch_output([*others, *running, *ended], tmp_path / "out")
        for job in (ended[0], ended[3]):
            stdout = outputs[job].stdout
            assert stdout is not None
            assert stdout.read_text() == "said\n"
        assert {job: failure.code for job, failure in outputs.failures.items()} == {
            running[0]: FailureCode.NOT_FINISHED,
            **dict.fromkeys(others, FailureCode.NO_SUCH_JOB),
        }
        nothing = await ce.fetch_output(others, tmp_path / "out")
        assert nothing.failures.keys() == set(others)
        await ce.kill(running)


async def test_jobs_are_killed_counted_and_limited_under_any_shell(
    make_backend: Any, tools: Any, shell: str
) -> None:
    async with make_backend(slots=2) as ce:
        spec = tools.script("trap '' TERM; setsid sleep 300 & sleep 300")
        ids = tools.ids_of(await ce.submit(spec, 4))
        await tools.until(ce, ids[:2], JobStatus.RUNNING)
        counts = await ce.counts()
        assert (counts.running, counts.waiting) == (2, 2)
        (await ce.kill(ids)).raise_for_failures()
        assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}
        assert (await ce.counts()).running == 0
        limited = tools.ids_of(
            await ce.submit(tools.script("sleep 300", resources=Resources(wall_time_s=1)))
        )
        assert await tools.finish(ce, limited) == [JobStatus.FAILED]


async def test_a_mark_that_cannot_be_written_does_not_end_any_shell(
    make_backend: Any, tools: Any, root: Path, shell: str
) -> None:
    """A redirection that fails after a special built-in ends dash."""
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 2))
        await tools.until(ce, ids, JobStatus.RUNNING)
        submission = root / ids[0].split("/")[1]
        marks = [submission / "0" / "cancel", submission / "cancel"]
        for mark in marks:
            mark.mkdir()
        assert list((await ce.kill(ids)).failures) == ids[:1]
        for mark in marks:
            mark.rmdir()
        (await ce.kill(ids)).raise_for_failures()


async def test_a_worker_that_died_is_replaced_under_any_shell(
    make_backend: Any, tools: Any, root: Path, shell: str
) -> None:
    async with make_backend(slots=1) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 0.5"), 3))
        await tools.until(ce, ids[:1], JobStatus.RUNNING)
        slot = root / ".direct" / os.uname().nodename / "slots" / "1"
        os.kill(int(slot.read_text().split()[0]), 9)
        with anyio.fail_after(20):
            assert set(await tools.finish(ce, ids)) == {JobStatus.SUCCESSFUL}
