"""What a job gets, and what is told of it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from intercede.core import (
    CopyVars,
    FailureCode,
    FileRef,
    JobHandle,
    JobID,
    JobStatus,
    OutputSpec,
    Resources,
    SpecRefused,
    from_json,
    to_json,
)

EVERY_BYTE = bytes(range(1, 256)).decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("shell", [("dash",), ("bash",), ("busybox", "sh")], ids="-".join)
async def test_arguments_environment_and_names_arrive_byte_for_byte_under_every_shell(
    make_backend: Any, tools: Any, tmp_path: Path, shell: tuple[str, ...]
) -> None:
    name = bytes(b for b in range(1, 256) if b != ord("/")).decode("utf-8", "surrogateescape")
    name = name[:100]
    program = tmp_path / 'a program\'s "name"'
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@"; printf %s "$VALUE" >&2; ls\n')
    spec = tools.script("")  # only for its type
    spec = type(spec)(
        program,
        arguments=[EVERY_BYTE, "", "-n", "a b", "*", "$HOME", "`id`"],
        inputs=[FileRef(name, content=b"1")],
        outputs=OutputSpec(everything=True),
    )
    async with make_backend(tools.Wire(shell=shell)) as ce:
        ids = tools.ids_of(await ce.submit(spec, [CopyVars(environment={"VALUE": EVERY_BYTE})]))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL]
        output = (await ce.fetch_output(ids, tmp_path / "out"))[ids[0]]
    assert output.stdout is not None
    assert output.stderr is not None
    said = output.stdout.read_bytes()
    assert said.startswith(b"".join(os.fsencode(word) + b"\0" for word in spec.arguments))
    assert os.fsencode(name) in said
    assert output.stderr.read_bytes() == os.fsencode(EVERY_BYTE)
    assert output.files == {}


@pytest.mark.parametrize("shell", [("dash",), ("bash",), ("busybox", "sh")], ids="-".join)
@pytest.mark.parametrize(
    ("payload", "status", "exit_code", "signal"),
    [
        ("exit 0", JobStatus.SUCCESSFUL, 0, None),
        ("exit 3", JobStatus.FAILED, 3, None),
        ("exit 128", JobStatus.FAILED, 128, None),
        ("exit 137", JobStatus.FAILED, 137, None),
        ("exit 255", JobStatus.FAILED, 255, None),
        ("kill -9 $$", JobStatus.FAILED, None, 9),
        ("kill -15 $$", JobStatus.FAILED, None, 15),
    ],
)
async def test_an_exit_code_is_told_from_a_signal(
    make_backend: Any,
    tools: Any,
    shell: tuple[str, ...],
    payload: str,
    status: JobStatus,
    exit_code: int | None,
    signal: int | None,
) -> None:
    async with make_backend(tools.Wire(shell=shell)) as ce:
        ids = tools.ids_of(await ce.submit(tools.script(payload)))
        assert await tools.finish(ce, ids) == [status]
        details = (await ce.details(ids))[ids[0]]
    assert (details.exit_code, details.signal) == (exit_code, signal)
    assert details.started_at is not None
    assert details.ended_at is not None
    assert details.started_at <= details.ended_at
    assert details.node == os.uname().nodename


async def test_inputs_are_each_copys_own_and_may_be_deleted_when_submit_returns(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "deep").write_text("deep")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    spec = tools.script(
        "sleep 0.3; cat tree/sub/deep; test -x tree/run && echo more >> tree/sub/deep",
        inputs=[FileRef("tree", source=tree)],
    )
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(spec, 3))
        for path in [tree / "sub" / "deep", tree / "run"]:
            path.unlink()
        assert set(await tools.finish(ce, ids)) == {JobStatus.SUCCESSFUL}
        outputs = await ce.fetch_output(ids, tmp_path / "out")
    assert {o.stdout.read_text() for o in outputs.values() if o.stdout} == {"deep"}


async def test_a_secret_is_a_private_file_of_its_copy_and_nowhere_else(
    make_backend: Any, tools: Any, tmp_path: Path, root: Path
) -> None:
    secret = b"extremely-secret-7d1f"
    spec = tools.script(
        "ls -l token | cut -c1-10; cat token | tr a-z A-Z; cat /proc/$$/environ; sleep 0.5",
        outputs=OutputSpec(["*", "token"], everything=False),
    )
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        copies = [CopyVars(secrets={"token": secret}), CopyVars(secrets={"token": b"other"})]
        dry = await ce.dry_run(spec, copies)
        assert secret not in repr(dry).encode()
        submission = await ce.submit(spec, copies)
        ids = tools.ids_of(submission)
        assert secret not in to_json(submission).encode()
        for command in wire.commands:
            assert secret not in " ".join(command.argv).encode()
            assert secret not in command.stdin  # it is in the stream that follows, and only there
        await tools.finish(ce, ids)
        output = (await ce.fetch_output(ids, tmp_path / "out"))[ids[0]]
    assert output.stdout is not None
    text = output.stdout.read_text()
    assert text.startswith("-rw-------\n" + secret.decode().upper())
    assert secret.decode() not in text
    assert output.files == {}
    holders = [p for p in root.rglob("*") if p.is_file() and secret in p.read_bytes()]
    assert [str(p.relative_to(root)).split("/", 1)[1] for p in holders] == ["0/work/token"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


async def test_handles_mean_the_same_in_another_process(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend() as ce:
        submission = await ce.submit(tools.script("exit 4", tag="other process"), 2)
        await tools.finish(ce, tools.ids_of(submission))
    stored = [to_json(handle) for handle in submission.handles]
    assert [from_json(JobHandle, text) for text in stored] == list(submission.handles)
    program = """
import json, sys, anyio
from intercede.core import registry
async def main():
    config = {"transport": "local", "scheduler": "direct", "name": "here", "root": sys.argv[1]}
    async with registry.backend(config) as ce:
        ids = json.loads(sys.argv[2])
        details = await ce.details(ids)
        found = [handle.id for handle in await ce.find("other process")]
        print(json.dumps([[details[job].exit_code for job in ids], found]))
anyio.run(main)
"""
    ids = tools.ids_of(submission)
    answer = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", program, str(root), json.dumps(ids)],
            check=True,
            capture_output=True,
        )
    )
    assert json.loads(answer.stdout) == [[4, 4], ids]


async def test_a_wall_time_ends_the_job_and_all_it_started(
    make_backend: Any, tools: Any, root: Path
) -> None:
    spec = tools.script(
        "trap '' TERM; setsid sleep 300 & sleep 300", resources=Resources(wall_time_s=1)
    )
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(spec))
        assert await tools.finish(ce, ids) == [JobStatus.FAILED]
        details = (await ce.details(ids))[ids[0]]
    assert "wall-time" in (details.reason or "")


async def test_ids_of_nowhere_are_no_such_job_and_reach_no_shell(
    make_backend: Any, tools: Any, root: Path
) -> None:
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("exit 0")))
        await tools.finish(ce, ids)
        submission = ids[0].split("/")[1]
        hostile = [
            JobID(text)
            for text in [
                "",
                "x",
                "here",
                "here/../../etc",
                f"here/{submission}/0/$(touch {root}/pwned)",
                f"here/{submission}/0/`touch {root}/pwned`",
                f"here/{submission}/0;rm -rf {root}",
                f"here/../{submission}/0",
                f"here/{submission}/../0",
                f"here/{submission}/00/{submission}.0",
                f"here/{submission}/7/{submission}.7",
                f"here/{submission}/0\n",
                f"there/{submission}/0/{submission}.0",
                "here/" + "0" * 26 + "/0",
                "here/" + "a" * 300,
                "here/.direct/0",
                "\x00",
                "here/\udc80/0",
            ]
        ]
        before = wire.execs
        assert dict(await ce.status([])) == {}
        assert wire.execs == before
        for call in (ce.status, ce.details, ce.kill, ce.diagnostics):
            result = await call(hostile)
            assert list(result) == hostile
            assert {f.code for f in result.failures.values()} == {FailureCode.NO_SUCH_JOB}
            assert len(result.failures) == len(hostile)
        outputs = await ce.fetch_output(hostile, root.parent / "out")
        assert {f.code for f in outputs.failures.values()} == {FailureCode.NO_SUCH_JOB}
        await ce.purge(hostile)
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL]
        # Submission and copy are who a job is; a native id that is not its own leads to no other job.
        mistaken = JobID(f"here/{submission}/0/1.0")
        assert await tools.finish(ce, [mistaken]) == [JobStatus.SUCCESSFUL]
        with pytest.raises(TypeError, match="not one string"):
            await ce.status(ids[0])
    assert not (root / "pwned").exists()


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"resources": Resources(cpus=100_000)}, "resources.cpus", "cores"),
        ({"resources": Resources(memory_mb=2**40)}, "resources.memory_mb", "MiB"),
        ({"resources": Resources(gpus=1)}, "resources.gpus", "batch system"),
        ({"resources": Resources(nodes=2)}, "resources.nodes", "batch system"),
        ({"resources": Resources(queue="long")}, "resources.queue", "'long'"),
        ({"container": "image"}, "container", "'image'"),
        ({"inputs": [FileRef("x", url="https://x")]}, "inputs[0].url", "fetches nothing"),
        ({"inputs": [FileRef("x", source="/no/such")]}, "inputs[0].source", "No such file"),
        ({"inputs": [FileRef("x", source="/dev/null")]}, "inputs[0].source", "neither"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_and_leaves_nothing(
    make_backend: Any, tools: Any, root: Path, fields: dict[str, Any], field: str, words: str
) -> None:
    async with make_backend() as ce:
        with pytest.raises(SpecRefused, match=words) as caught:
            await ce.submit(tools.script("exit 0", tag="refused", **fields))
        assert caught.value.field == field
        assert str(caught.value).startswith("here: submit: ")
        assert await ce.find("refused") == ()
    assert not root.exists() or os.listdir(root) == []


async def test_a_missing_executable_is_refused(make_backend: Any, root: Path, tools: Any) -> None:
    spec = type(tools.script(""))("no/such/program")
    async with make_backend() as ce:
        with pytest.raises(SpecRefused, match="No such file") as caught:
            await ce.submit(spec)
        with pytest.raises(SpecRefused, match="asks for no job"):
            await ce.submit(tools.script("exit 0"), copies=0)
    assert caught.value.field == "executable"
    assert not root.exists()


async def test_find_tells_exactly_the_jobs_of_a_tag(
    make_backend: Any, tools: Any, root: Path
) -> None:
    tags = ["a", "aa", " a", "a ", "a/b", "'; exit 1; '", '"$HOME" `id` \\', "ä €", "[a]", "*"]
    async with make_backend() as ce, make_backend(name="neighbour") as neighbour:
        made = {}
        for tag in tags:
            made[tag] = tools.ids_of(await ce.submit(tools.script("exit 0", tag=tag)))
        await ce.submit(tools.script("exit 0"))
        await neighbour.submit(tools.script("exit 0", tag="a"))
        for tag in tags:
            handles = await ce.find(tag)
            assert [handle.id for handle in handles] == made[tag]
            assert {handle.tag for handle in handles} == {tag}
        assert await ce.find("absent") == ()


async def test_a_neighbour_with_the_same_root_is_not_counted_and_not_touched(
    make_backend: Any, tools: Any
) -> None:
    async with make_backend(slots=2) as ce, make_backend(name="neighbour", slots=2) as neighbour:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300"), 3))
        await tools.until(ce, ids[:2], JobStatus.RUNNING)
        counts, others = await ce.counts(), await neighbour.counts()
        assert (counts.running, counts.waiting) == (2, 1)
        assert (others.running, others.waiting) == (0, 0)
        foreign = [JobID(job.replace("here/", "neighbour/")) for job in ids]
        for call in (neighbour.status, neighbour.kill):
            result = await call(foreign)
            assert {f.code for f in result.failures.values()} == {FailureCode.NO_SUCH_JOB}
        await neighbour.purge(foreign)
        assert (await ce.counts()).running == 2
        (await ce.kill(ids)).raise_for_failures()
        assert set((await ce.status(ids)).values()) == {JobStatus.CANCELLED}
        assert (await ce.counts()).waiting == 0


async def test_purge_removes_exactly_the_job(make_backend: Any, tools: Any, root: Path) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("mkdir d; : > d/f; chmod 0 d"), 3))
        await tools.finish(ce, ids)
        (await ce.purge([ids[1]])).raise_for_failures()
        result = await ce.status(ids)
        assert [s.value for s in result.values()] == ["successful", "unknown", "successful"]
        assert result.failures[ids[1]].code is FailureCode.NO_SUCH_JOB
        assert (await ce.purge([ids[1]]))[ids[1]].ok
        (await ce.purge(ids)).raise_for_failures()
    assert [name for name in os.listdir(root) if not name.startswith(".")] == []


@pytest.mark.parametrize("does", ['/bin/rm "$@" 2>/dev/null', "exit 1"])
async def test_a_purge_hears_of_a_failure_that_rm_has_no_word_for(
    make_backend: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    """BusyBox's fails so over a directory that it may not open."""
    (tmp_path / "bin").mkdir()
    silent = tmp_path / "bin" / "rm"
    silent.write_text(f"#!/bin/sh\n{does}\n")
    silent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    wire = tools.Wire()
    wire.shell = tools.plainly("sh")
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("mkdir d; : > d/f; chmod 0 d")))
        await tools.finish(ce, ids)
        result = await ce.purge(ids)
        if does == "exit 1":
            assert "rm does not say why" in result.failures[ids[0]].message
        else:
            result.raise_for_failures()


async def test_a_running_job_is_neither_purged_nor_fetched(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(tools.script("sleep 300")))
        await tools.until(ce, ids, JobStatus.RUNNING)
        assert (await ce.purge(ids)).failures[ids[0]].code is FailureCode.NOT_FINISHED
        fetched = await ce.fetch_output(ids, tmp_path / "out")
        assert fetched.failures[ids[0]].code is FailureCode.NOT_FINISHED
        assert "running" in fetched.failures[ids[0]].message
        assert list((tmp_path / "out").iterdir()) == []
        await ce.kill(ids)


async def test_diagnostics_show_the_tail_and_why_a_job_waits(make_backend: Any, tools: Any) -> None:
    async with make_backend(slots=1, tail_bytes=100) as ce:
        ids = tools.ids_of(
            await ce.submit(tools.script("seq 1 1000; echo problem >&2; sleep 300"), 2)
        )
        with anyio.fail_after(20):
            while not (await ce.diagnostics(ids))[ids[0]].stderr_tail:
                await anyio.sleep(0.05)
        shown = (await ce.diagnostics(ids))[ids[0]]
        assert shown.stdout_tail.endswith(b"\n999\n1000\n")
        assert len(shown.stdout_tail) == 100
        assert shown.stderr_tail == b"problem\n"
        assert shown.truncated
        assert b"slot" in (await ce.diagnostics(ids))[ids[1]].log_tail
        await ce.kill(ids)
