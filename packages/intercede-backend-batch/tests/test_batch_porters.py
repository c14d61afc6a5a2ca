"""Fetches of many files are written by a process of our own: what it brings, when there is one, and what becomes of it."""

import gc
import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from intercede.backend.batch import _porter, _sandbox
from intercede.backend.batch._fetching import Came, Fetched, job_outputs
from intercede.backend.batch._porters import Porters, _Porter
from intercede.core import OutputSpec, ResourceError, SubmissionSpec, to_json
from intercede.toolkit import TAR_END, Limits, TarKind, tar_header, tar_padding

NONCE = "0123456789abcdef"
WORD = f"\n{NONCE} ".encode()
MANY = 1_000
JOBS = frozenset({"s/0", "s/1", "s/2"})
SPEC = SubmissionSpec("true", resident=True, outputs=OutputSpec(["f*", "missing"]), stdout="said")
READY = WORD + b"say\n" + f"meta s {to_json(SPEC)}\n".encode() + WORD + b"tar\n"


def file(name: str, content: bytes) -> bytes:
    return tar_header(name, len(content), mode=0o600) + content + tar_padding(len(content))


def end_of(job: str) -> bytes:
    return tar_header(job, 0, mode=0o700, kind=TarKind.DIRECTORY)


STREAM = (
    READY
    + file("s/0/stdout", b"out")
    + b"".join(file(f"s/0/work/f{number}", b"%d" % number * 3000) for number in range(300))
    + file("s/0/work/d/e\udcff", b"")
    + end_of("s/0")
    + file("s/1/work/fine", b"3" * 2**20)
    + file("s/1/work/../../../evil", b"4")
    + end_of("s/1")
    + TAR_END
    + WORD
    + b"others\nunended s/2\n"
    + WORD
    + b"tar-ended\ntar: s/0/work/f: Permission denied\ncode 2"
    + WORD
    + b"ended\n"
)


@asynccontextmanager
async def ready() -> AsyncIterator[Porters]:
    porters = Porters()
    await porters.brought(MANY)
    try:
        yield porters
    finally:
        await porters.aclose()


def pid_of(porters: Porters) -> int:
    assert porters._idle is not None
    return porters._idle._process.pid


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def take(
    porters: Porters, dest: Path, stream: bytes = STREAM, size: int = 300_000, **limits: Any
) -> tuple[bool, Fetched]:
    """Returns whether a porter took it, and what was fetched, with all the news."""
    news: dict[str, Came] = {}
    async with porters.receiving(NONCE, dest, JOBS, Limits(**limits), is_tar=True) as receiver:
        for start in range(0, len(stream), size):
            news |= await receiver.feed(stream[start : start + size])
        fetched = await receiver.finish()
        return isinstance(receiver, _Porter), evolve(fetched, news=news | dict(fetched.news))


def tree(dest: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(dest)): path.read_bytes() if path.is_file() else None
        for path in dest.rglob("*")
    }


@pytest.mark.parametrize("size", [1000, 300_000, 10**7])
@pytest.mark.parametrize("cut", [None, 100, 500_000, len(STREAM) - 2000])
async def test_a_porter_brings_what_a_thread_brings(
    tmp_path: Path, size: int, cut: int | None
) -> None:
    stream = STREAM[:cut]
    by_porter, by_thread = tmp_path / "porter", tmp_path / "thread"
    async with ready() as porters:
        for _ in range(2):
            was_porter, fetched = await take(porters, by_porter, stream, size)
            assert was_porter
        assert (await take(Porters(), by_thread, stream, size)) == (False, fetched)
    for dest in (by_porter, by_thread):
        assert tree(dest) == tree(by_thread)
        outputs = job_outputs(fetched.news, dest)
        for output in outputs.values():
            for path in (output.stdout, *output.files.values()):
                assert path is None or path.is_relative_to(dest)
                assert path is None or output.failure is None or path.exists()
    if cut is None:
        assert set(outputs) == {"s/0", "s/1"}
        assert len(outputs["s/0"].files) == 301
        assert outputs["s/0"].stdout == by_thread / "s/0/said"
        assert fetched.unended == {"s/2"}


@pytest.mark.parametrize("is_porter", [False, True])
async def test_what_a_job_brought_is_told_while_others_are_on_their_way(
    tmp_path: Path, is_porter: bool
) -> None:
    end = STREAM.index(b"s/1/work/fine")
    async with (
        ready() if is_porter else nullcontext(Porters()) as porters,
        porters.receiving(NONCE, tmp_path, JOBS, Limits(), is_tar=True) as receiver,
    ):
        news = dict(await receiver.feed(STREAM[:end]))
        for at in range(
            end, end + 3000, 1000
        ):  # a porter's answer comes when its memory is needed again
            news |= await receiver.feed(STREAM[at : at + 1000])
        assert list(news) == ["s/0"]
        assert len(news["s/0"].names) == 302
        rest = dict(await receiver.feed(STREAM[end + 3000 :]))
        rest |= (await receiver.finish()).news
    assert isinstance(receiver, _Porter) is is_porter
    # The end of the stream has something to add to what was told.
    assert set(rest) == {"s/0", "s/1"}
    failure = rest["s/0"].failure
    assert failure is not None
    assert "Permission denied" in failure.message


async def test_limits_hold_in_a_porter(tmp_path: Path) -> None:
    async with ready() as porters:
        was_porter, fetched = await take(porters, tmp_path, max_files=200)
    assert was_porter
    failure = fetched.news["s/0"].failure
    assert failure is not None
    assert "max_files" in failure.message


async def test_a_stream_without_a_beginning_is_the_same_error(tmp_path: Path) -> None:
    async with ready() as porters:
        _, fetched = await take(porters, tmp_path, b"bash: eval: not found")
    with pytest.raises(ResourceError, match="not an answer") as caught:
        fetched.raise_for_no_answer()
    assert caught.value.said == "bash: eval: not found"


async def test_a_relative_place_is_where_it_was_when_the_fetch_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready() as porters:
        monkeypatch.chdir(tmp_path)
        _, fetched = await take(porters, Path("out"))
        assert (
            job_outputs(fetched.news, Path("out"))["s/1"].files["fine"].read_bytes() == b"3" * 2**20
        )


async def test_few_files_start_no_porter_and_many_only_one(tmp_path: Path) -> None:
    porters = Porters()
    await porters.brought(MANY - 1)
    assert porters._idle is None
    await porters.brought(MANY)
    pid = pid_of(porters)
    await porters.brought(MANY)
    assert pid_of(porters) == pid
    await porters.aclose()
    assert not is_there(pid)
    await porters.brought(MANY)
    assert porters._idle is None
    assert await take(porters, tmp_path) == (False, (await take(Porters(), tmp_path))[1])


async def test_of_two_at_a_time_one_has_the_porter(tmp_path: Path) -> None:
    found: list[tuple[bool, Fetched]] = []

    async def one(number: int) -> None:
        found.append(await take(porters, tmp_path / f"{number}"))

    async with ready() as porters:
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(one, number)
        assert sorted(was_porter for was_porter, _ in found) == [False, False, True]
        assert found[0][1] == found[1][1] == found[2][1]
        assert tree(tmp_path / "0") == tree(tmp_path / "1") == tree(tmp_path / "2")
        assert (await take(porters, tmp_path / "again"))[0]


async def test_a_backend_that_is_closed_within_a_fetch_ends_the_porter_behind_it(
    tmp_path: Path,
) -> None:
    async with ready() as porters:
        pid = pid_of(porters)
        async with porters.receiving(NONCE, tmp_path, JOBS, Limits(), is_tar=True) as receiver:
            await porters.aclose()
            await receiver.feed(STREAM)
            assert is_there(pid)
            fetched = await receiver.finish()
        assert not is_there(pid)
        assert len(fetched.news["s/0"].names) == 302


async def test_a_porter_that_is_killed_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    async with ready() as porters:
        await take(porters, tmp_path / "before")
        pid = pid_of(porters)
        with pytest.raises(ResourceError, match="has ended; fetch again"):
            async with porters.receiving(NONCE, tmp_path, JOBS, Limits(), is_tar=True) as receiver:
                await receiver.feed(STREAM[:100_000])
                os.kill(pid, signal.SIGKILL)
                for _ in range(100):
                    await receiver.feed(b"\0" * 100_000)
        assert sorted(os.listdir(tmp_path)) == ["before"]
        # The next one does without, and if it is large, the one after that has a new one.
        assert not (await take(porters, tmp_path / "next"))[0]
        await porters.brought(MANY)
        assert (await take(porters, tmp_path / "after"))[0]


async def test_a_fetch_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async with ready() as porters:
        pid = pid_of(porters)
        with anyio.move_on_after(1.0) as scope:
            async with porters.receiving(NONCE, tmp_path, JOBS, Limits(), is_tar=True) as receiver:
                await receiver.feed(STREAM[:100_000])
                while not os.listdir(tmp_path):
                    await anyio.sleep(0.01)
                await anyio.sleep(60)
        assert scope.cancelled_caught
        assert not os.listdir(tmp_path)
        assert not is_there(pid)


async def test_a_fetch_that_breaks_off_leaves_nothing_in_a_thread_either(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Porters().receiving(NONCE, tmp_path, JOBS, Limits(), is_tar=True) as receiver:
            await receiver.feed(STREAM[:100_000])
            assert os.listdir(tmp_path)
            _ = 1 / 0
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "program",
    ["/nowhere", "#!/bin/sh\nexit 3", "#!/bin/sh\necho Welcome", "#!/bin/sh\nexec sleep 600"],
    ids=["absent", "failing", "another", "silent"],
)
async def test_where_no_porter_can_be_had_a_thread_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    python = tmp_path / "python"
    if program.startswith("#!"):
        python.write_text(program)
        python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("intercede.backend.batch._porters._START_S", 0.3)
    async with ready() as porters:
        for number in range(2):
            was_porter, fetched = await take(porters, tmp_path / f"{number}")
            assert not was_porter
            assert len(fetched.news["s/0"].names) == 302
            await porters.brought(MANY)
            assert porters._idle is None


async def test_a_start_that_is_cancelled_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    async def tell(self: _Porter, request: object) -> None:
        started.append(self._process.pid)
        await anyio.sleep(60)

    porters = Porters()
    with monkeypatch.context() as within:
        within.setattr(_Porter, "tell", tell)
        with anyio.move_on_after(0.1):
            await porters.brought(MANY)
    (pid,) = started
    assert not is_there(pid)
    # The next fetch of many files tries again.
    await porters.brought(MANY)
    assert is_there(pid_of(porters))
    await porters.aclose()


async def test_a_porter_ends_with_the_program_that_started_it_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    text = f"""
        import anyio, os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_batch_porters import *

        async def main():
            async with ready() as porters:
                pid = pid_of(porters)
                async with porters.receiving(NONCE, Path(sys.argv[1]), JOBS, Limits(), is_tar=True) as receiver:
                    await receiver.feed(STREAM[:100_000])
                    while not os.listdir(sys.argv[1]):
                        await anyio.sleep(0.01)
                    print(pid, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)

        anyio.run(main)
    """
    dest = tmp_path / "out"
    dest.mkdir()
    result = await anyio.run_process(
        [sys.executable, "-c", textwrap.dedent(text), str(dest)], check=False
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid = int(result.stdout)
    with anyio.fail_after(20):
        while is_there(pid):
            await anyio.sleep(0.01)
    assert not os.listdir(dest)


async def test_ctrl_c_is_not_for_the_porter() -> None:
    async with ready() as porters:
        assert os.getsid(pid_of(porters)) != os.getsid(0)


@pytest.mark.parametrize("told", [0, 1, 2])
def test_a_porter_leaves_nothing_wherever_its_input_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    requests = [_porter.Receive(NONCE, tmp_path, JOBS, Limits(), True), _porter.Piece(1, 1000)]
    answers = serve(monkeypatch, requests[:told], [b"", STREAM[:1000]])
    assert answers.startswith(_porter.HEAD.pack(_porter.READY, 0, 0))
    assert not os.listdir(tmp_path)


def test_a_porter_answers_each_piece_and_then_tells_what_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = READY + file("s/1/work/fine", b"3" * 2000) + end_of("s/1")
    answers = serve(
        monkeypatch,
        [
            _porter.Receive(NONCE, tmp_path, JOBS, Limits(), True),
            _porter.Piece(1, 1500),
            _porter.Piece(0, len(stream) - 1500),
            None,
        ],
        [stream[1500:], stream[:1500]],
    )
    heads: list[tuple[int, int]] = []
    said: list[Any] = []
    while answers:
        kind, slot, size = _porter.HEAD.unpack_from(answers)
        end = _porter.HEAD.size + size
        heads.append((kind, slot))
        said.append(pickle.loads(answers[_porter.HEAD.size : end]) if size else None)
        answers = answers[end:]
    assert gc.isenabled()
    assert heads == [
        (_porter.READY, 0),
        (_porter.FREED, 1),
        (_porter.FREED, 0),
        (_porter.FETCHED, 0),
    ]
    assert said[:2] == [None, {}]
    assert job_outputs(said[2], tmp_path)["s/1"].files["fine"].read_bytes() == b"3" * 2000
    assert isinstance(said[3], Fetched)
    assert set(said[3].news) == {"s/0", "s/2"}
    assert said[3].news["s/0"].failure is not None


def serve(
    monkeypatch: pytest.MonkeyPatch, requests: Sequence[object], slots: Sequence[bytes]
) -> bytes:
    """Serve them here, with these slots. Returns the answers."""
    answers = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(map(pickle.dumps, requests))))
    )
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(answers))
    descriptor = os.memfd_create("test")
    try:
        os.ftruncate(descriptor, _porter.SLOTS * _porter.SLOT)
        for number, content in enumerate(slots):
            os.pwrite(descriptor, content, number * _porter.SLOT)
        _porter.serve(descriptor)
        return answers.getvalue()
    finally:
        os.close(descriptor)
        monkeypatch.undo()


@pytest.mark.parametrize("tar", [_sandbox.TAR_GNU, _sandbox.TAR_NONE])
async def test_a_backend_fetches_many_files_the_second_time_as_the_first(
    make_backend: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tar: str
) -> None:
    monkeypatch.setattr("intercede.backend.batch._porters._MANY", 50)
    monkeypatch.setattr("intercede.backend.batch._retrieving._MANY_PATHS", 50)
    monkeypatch.setattr("intercede.backend.batch._host.Host.tar", tar)
    spec = tools.script(
        "n=0; while [ $n -lt 60 ]; do echo $n > f$n; n=$((n+1)); done; mkfifo p; echo said",
        outputs=OutputSpec(everything=True),
    )
    async with make_backend() as ce:
        ids = tools.ids_of(await ce.submit(spec))
        await tools.finish(ce, ids)
        first = await ce.fetch_output(ids, tmp_path / "out")
        pid = pid_of(ce._host.porters)
        before = tree(tmp_path / "out")
        assert await ce.fetch_output(ids, tmp_path / "out") == first
        assert pid_of(ce._host.porters) == pid
        assert tree(tmp_path / "out") == before
        assert len(first[ids[0]].files) == 60
    assert not is_there(pid)


def test_the_process_finds_its_modules_where_this_one_does(tmp_path: Path) -> None:
    """A module that lies in the current directory under the name of one of ours is not looked at."""
    (tmp_path / "pickle.py").write_text("raise SystemExit('the wrong one')")
    text = f"""
        import anyio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_batch_porters import *

        async def main():
            async with ready() as porters:
                print(await porters._idle.is_ready())

        anyio.run(main)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(text)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"True\n", b"")


async def test_a_close_that_is_cancelled_while_the_porter_ends_closes_the_transport_too(
    make_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    async def end(self: Porters) -> None:
        await anyio.sleep(60)

    async def close(self: object) -> None:
        closed.append("transport")

    ce = make_backend()
    monkeypatch.setattr(Porters, "aclose", end)
    monkeypatch.setattr(type(ce._host.transport), "aclose", close)
    with anyio.move_on_after(0.1):
        await ce.aclose()
    assert closed == ["transport"]
