"""Rules F1 to F9: what comes back is complete, exact, and nothing else."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path
from typing import Final

import pytest

from intercede.core import (
    CopyVars,
    FailureCode,
    FileRef,
    JobID,
    JobOutput,
    JobStatus,
    OutputSpec,
    ResourceError,
    TransportError,
)

from ._bench import Bench, Rules
from ._submit import AWKWARD_NAMES
from ._verdict import not_observed, rule

__all__ = ["OutputRules"]

#: Large enough to tell a stream from a buffer, small enough for a slow resource.
_BIG_BYTES: Final = 64 * 2**20
_GROWTH_BYTES: Final = 16 * 2**20

EVERYTHING: Final = OutputSpec(everything=True)

#: Pattern, and what of `_TREE` it selects.
_PATTERNS: Final = {
    "*.csv": {"a.csv", "b.csv", "-c.csv"},
    "*": {"a.csv", "b.csv", "-c.csv", "B.txt", "\u00e9", "*"},
    ".*": {".hidden.csv"},
    "?.csv": {"a.csv", "b.csv"},
    "[ab].csv": {"a.csv", "b.csv"},
    "[!a].csv": {"b.csv"},
    "[a-z].txt": set(),
    "[A-Z].txt": {"B.txt"},
    "?": {"*"},
    "??": {"\u00e9"},
    "[*]": {"*"},
    "d/*.csv": {"d/x.csv"},
    "*/*.csv": {"d/x.csv"},
    "*/*/*.csv": {"d/e/y.csv"},
    "d/": {"d/x.csv", "d/e/y.csv", "d/e/.z"},
    "d/e/": {"d/e/y.csv", "d/e/.z"},
    "d/e/.z": {"d/e/.z"},
    "*.absent": set(),
    "absent/": set(),
    "A.csv": set(),
}
_TREE: Final = (
    "a.csv",
    "b.csv",
    "-c.csv",
    "B.txt",
    "*",
    "\u00e9",
    ".hidden.csv",
    "d/x.csv",
    "d/e/y.csv",
    "d/e/.z",
)


def _written(names: tuple[str, ...]) -> list[str]:
    """Verbs that write each name into the file of that name."""
    return [word for name in names for word in ("write", name, name)]


def _contents(output: JobOutput) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in output.files.items()}


def _beneath(place: Path) -> set[Path]:
    """Everything beneath a directory that is not a directory, and every empty directory."""
    if not place.exists():
        return set()
    found: set[Path] = set()
    for folder, names, files in os.walk(place):
        found.update(Path(folder, name) for name in files)
        found.update(Path(folder, name) for name in names if Path(folder, name).is_symlink())
        if not names and not files and Path(folder) != place:
            found.add(Path(folder))
    return found


def _manifest(output: JobOutput) -> set[Path]:
    streams = {output.stdout, output.stderr, output.log} - {None}
    return {path for path in streams if path is not None} | set(output.files.values())


class OutputRules(Rules):
    """F: output."""

    # -------------------------------------------------------------- F1

    @rule("F1")
    async def test_streams_and_files_come_back_exactly_and_apart(self, bench: Bench) -> None:
        every = os.fsdecode(bytes(range(1, 256)))
        job = await bench.finish_one(
            "err", "bad", "echo", "good", "err", "worse", "write", "d/f", every, "fill", "z", "70001",
            keep=["d/f", "z"],
        )  # fmt: skip
        output = await bench.fetch_one(job)
        assert output.stdout is not None and output.stderr is not None
        assert output.stdout.read_bytes() == b"good\n"
        assert output.stderr.read_bytes() == b"bad\nworse\n"
        assert _contents(output) == {"d/f": bytes(range(1, 256)), "z": bytes(70001)}
        assert output.missing == ()

    @rule("F1")
    async def test_everything_lies_beneath_dest_and_in_the_manifest(self, bench: Bench) -> None:
        dest = bench.scratch / "dest"
        ids = await bench.finish("echo", "x", *_written(_TREE), keep=["*", "d/"], copies=2)
        result = await bench.fetch(ids, dest)
        result.raise_for_failures()
        listed: set[Path] = set()
        for job, output in result.items():
            handle = bench.handle(job)
            own = dest / handle.submission / str(handle.copy)
            assert all(path.is_relative_to(own) for path in _manifest(output))
            listed |= _manifest(output)
        assert {path.resolve() for path in _beneath(dest)} == {path.resolve() for path in listed}

    @rule("F1")
    @pytest.mark.parametrize("keep", ["declared", "pattern", "tree", "everything"])
    async def test_what_may_not_be_read_is_told_and_the_rest_comes(
        self, bench: Bench, keep: str
    ) -> None:
        files = {"f.x": b"1", "d/g.x": b"2", "d/shut/h.x": b"3", "d/open/i.x": b"4"}
        verbs = [word for name in files for word in ("write", name, files[name].decode())]
        outputs = {
            "declared": OutputSpec(tuple(files)),
            "pattern": OutputSpec(("f.?", "d/g.?", "d/*/?.x")),
            "tree": OutputSpec(("f.x", "d/")),
            "everything": EVERYTHING,
        }[keep]
        jobs = await bench.start_each(
            (*verbs, "shut", "f.x"), (*verbs, "shut", "d/shut"), verbs, outputs=outputs
        )
        await bench.until(jobs, JobStatus.SUCCESSFUL)
        result = await bench.fetch(jobs)
        for job, name in zip(jobs, ("f.x", "d/shut/h.x", ""), strict=True):
            came = _contents(result[job])
            # Some accounts may read everything.
            if result[job].failure is None and name in files:
                assert came == files
            else:
                assert came == {known: files[known] for known in files if known != name}
        assert jobs[2] not in result.failures

    @rule("F1")
    async def test_a_job_without_output_has_empty_streams(self, bench: Bench) -> None:
        output = await bench.fetch_one(await bench.finish_one())
        assert output.stdout is not None and output.stderr is not None
        assert output.stdout.read_bytes() == output.stderr.read_bytes() == b""
        assert output.files == {}

    @rule("F1")
    async def test_streams_get_the_names_that_were_asked_for(self, bench: Bench) -> None:
        job = await bench.finish_one("echo", "o", "err", "e", stdout="out put.txt", stderr="-err")
        output = await bench.fetch_one(job)
        assert output.stdout is not None and output.stderr is not None
        assert (output.stdout.name, output.stderr.name) == ("out put.txt", "-err")
        assert (output.stdout.read_bytes(), output.stderr.read_bytes()) == (b"o\n", b"e\n")

    @rule("F1")
    async def test_a_failed_job_gives_its_output(self, bench: Bench) -> None:
        job = await bench.finish_one("echo", "so far", "write", "f", "x", "exit", "3", keep=["f"])
        output = await bench.fetch_one(job)
        assert output.stdout is not None
        assert (output.stdout.read_bytes(), _contents(output)) == (b"so far\n", {"f": b"x"})

    @rule("F1")
    async def test_a_cancelled_job_gives_its_output(self, bench: Bench) -> None:
        cancellable, retriever = bench.cancellable, bench.retriever
        job = await bench.start_one(
            "write", "f", "x", "echo", "so far", "sleep", bench.forever, keep=["f"]
        )
        await bench.until([job], JobStatus.RUNNING)
        await asyncio.sleep(bench.resource.seconds)
        await cancellable.kill([job])
        await bench.until([job], JobStatus.CANCELLED)
        output = (await retriever.fetch_output([job], bench.scratch / "results"))[job]
        assert output.failure is None
        assert output.stdout is not None and output.stdout.read_bytes() == b"so far\n"
        assert _contents(output) == {"f": b"x"}

    @rule("F1")
    async def test_names_come_back_byte_for_byte(self, bench: Bench) -> None:
        job = await bench.finish_one(*_written(AWKWARD_NAMES), outputs=EVERYTHING)
        output = await bench.fetch_one(job)
        assert _contents(output) == {name: os.fsencode(name) for name in AWKWARD_NAMES}

    @rule("F1")
    async def test_a_declared_name_is_taken_by_the_letter(self, bench: Bench) -> None:
        names = tuple(name for name in AWKWARD_NAMES if not set(name) & set("*?["))
        job = await bench.finish_one(*_written(names), "write", "other", "x", keep=names)
        output = await bench.fetch_one(job)
        assert _contents(output) == {name: os.fsencode(name) for name in names}
        assert output.missing == ()

    @rule("F1")
    async def test_many_jobs_come_back_in_one_call_each_with_its_own(self, bench: Bench) -> None:
        copies = [CopyVars({"NUMBER": str(number)}) for number in range(20)]
        ids = await bench.finish("env", "NUMBER", "many", "d", "10", keep=["d/"], copies=copies)
        result = await bench.fetch(ids)
        result.raise_for_failures()
        for number, job in enumerate(ids):
            stdout = result[job].stdout
            assert stdout is not None and stdout.read_bytes() == f"={number}\0".encode()
            assert len(result[job].files) == 10

    @rule("F1")
    async def test_fetches_at_the_same_time_do_not_disturb_each_other(self, bench: Bench) -> None:
        if bench.retriever.destructive:
            not_observed("a fetch that can be repeated; here it is destructive, as it says")
        job = await bench.finish_one("many", "d", "50", keep=["d/"])
        places = [bench.scratch / name for name in ("x", "x", "y", "z")]
        results = await asyncio.gather(*(bench.fetch([job], place) for place in places))
        for result in results:
            result.raise_for_failures()
            assert _contents(result[job]) == {f"d/f{n}": f"{n}\n".encode() for n in range(50)}

    # -------------------------------------------------------------- F2

    @rule("F2")
    async def test_patterns_select_what_they_say(self, bench: Bench) -> None:
        _ = bench.retriever
        specs = [bench.spec(*_written(_TREE), inputs=[], keep=[pattern]) for pattern in _PATTERNS]
        submissions = [await bench.submit(spec) for spec in specs]
        ids = [submission.handles[0].id for submission in submissions]
        await bench.until(ids, JobStatus.SUCCESSFUL)
        result = await bench.fetch(ids)
        found = {
            pattern: set(result[job].files) - {"payload.sh"}
            for pattern, job in zip(_PATTERNS, ids, strict=True)
        }
        assert found == _PATTERNS

    @rule("F2")
    async def test_what_is_declared_and_absent_is_listed_and_the_rest_comes(
        self, bench: Bench
    ) -> None:
        keep = ["here", "absent", "*.none", "no/", "d/absent", "d/"]
        job = await bench.finish_one("write", "here", "1", "write", "d/x", "2", keep=keep)
        output = await bench.fetch_one(job)
        assert _contents(output) == {"here": b"1", "d/x": b"2"}
        assert output.missing == ("absent", "*.none", "no/", "d/absent")

    @rule("F2")
    async def test_what_several_patterns_select_comes_once(self, bench: Bench) -> None:
        job = await bench.finish_one(
            *_written(("d/a.x", "b.x")), keep=["d/", "*/*.x", "*.x", "b.x"]
        )
        assert set((await bench.fetch_one(job)).files) == {"d/a.x", "b.x"}

    @rule("F2")
    async def test_only_what_is_declared_comes(self, bench: Bench) -> None:
        names = ("kept", "kept.not", "not.kept", "other", "d/kept")
        job = await bench.finish_one(*_written(names), keep=["kept"])
        assert set((await bench.fetch_one(job)).files) == {"kept"}

    @rule("F2", "F8")
    async def test_everything_is_all_that_the_payload_made(self, bench: Bench) -> None:
        job = await bench.finish_one(*_written(_TREE), outputs=EVERYTHING)
        assert _contents(await bench.fetch_one(job)) == {name: name.encode() for name in _TREE}

    @rule("F2")
    async def test_five_hundred_files_come_back(self, bench: Bench) -> None:
        job = await bench.finish_one("many", "d", "500", keep=["d/"])
        output = await bench.fetch_one(job)
        assert _contents(output) == {f"d/f{n}": f"{n}\n".encode() for n in range(500)}

    # -------------------------------------------------------------- F3

    @rule("F3")
    @pytest.mark.parametrize(
        ("what", "verbs"),
        [
            ("bytes", ("fill", "f", "1000000")),
            ("files", ("many", "d", "100")),
            ("seconds", ("fill", "f", "600000000")),
        ],
    )
    async def test_a_limit_fails_that_job_alone_and_leaves_no_debris(
        self, bench: Bench, what: str, verbs: tuple[str, ...]
    ) -> None:
        tight = await bench.limited(what)
        _ = tight.retriever
        over, fine = await tight.start_each(verbs, ("write", "f", "x"), outputs=EVERYTHING)
        await tight.until([over, fine], JobStatus.SUCCESSFUL)
        dest = bench.scratch / "tight"
        result = await tight.fetch([over, fine], dest)
        assert {job: failure.code for job, failure in result.failures.items()} == {
            over: FailureCode.LIMIT
        }
        assert _contents(result[fine]) == {"f": b"x"}
        assert {path.resolve() for path in _beneath(dest)} == {
            path.resolve() for path in _manifest(result[fine])
        }

    # -------------------------------------------------------------- F4

    @rule("F4")
    @pytest.mark.parametrize("keep", ["declared", "tree", "everything"])
    async def test_links_out_and_fifos_are_left_out_and_the_rest_comes(
        self, bench: Bench, keep: str
    ) -> None:
        outside = bench.scratch / "outside"
        outside.mkdir()
        (outside / "treasure").write_bytes(b"treasure")
        job = await bench.finish_one(
            "write", "d/good", "good",
            "symlink", "d/absolute", str(outside / "treasure"),
            "symlink", "d/relative", "../../../../../../../../../../etc/passwd",
            "symlink", "d/directory", str(outside),
            "symlink", "d/dangling", "/no/such/place",
            "fifo", "d/fifo",
            outputs={
                "declared": OutputSpec(("d/good", "d/absolute", "d/relative", "d/dangling", "d/fifo")),
                "tree": OutputSpec(("d/",)),
                "everything": EVERYTHING,
            }[keep],
        )  # fmt: skip
        dest = bench.scratch / "dest"
        output = (await bench.fetch([job], dest))[job]
        assert _contents(output) == {"d/good": b"good"}
        assert output.failure is not None and output.failure.code == FailureCode.UNSAFE
        assert {path.resolve() for path in _beneath(dest)} == {
            path.resolve() for path in _manifest(output)
        }
        for path in _beneath(dest):
            assert path.is_file() and not path.is_symlink()

    @rule("F4")
    async def test_a_name_through_a_link_out_fetches_nothing_from_there(self, bench: Bench) -> None:
        outside = bench.scratch / "outside"
        outside.mkdir()
        (outside / "treasure").write_bytes(b"treasure")
        job = await bench.finish_one(
            "symlink", "d", str(outside), keep=["d/treasure", "d/*", "*/treasure", "d/"]
        )
        dest = bench.scratch / "dest"
        output = (await bench.fetch([job], dest))[job]
        assert output.files == {}
        assert b"treasure" not in b"".join(path.read_bytes() for path in _beneath(dest))

    @rule("F4")
    async def test_a_refused_member_does_not_spoil_another_job(self, bench: Bench) -> None:
        bad, good = await bench.start_each(("fifo", "f"), ("write", "f", "x"), keep=["f"])
        await bench.until([bad, good], JobStatus.SUCCESSFUL)
        result = await bench.fetch([bad, good])
        assert list(result.failures) == [bad]
        assert _contents(result[good]) == {"f": b"x"}

    @rule("F4")
    async def test_a_hard_link_comes_back_as_a_copy(self, bench: Bench) -> None:
        job = await bench.finish_one("write", "a", "x", "hardlink", "b", "a", keep=["a", "b"])
        output = await bench.fetch_one(job)
        assert _contents(output) == {"a": b"x", "b": b"x"}
        assert {path.stat().st_nlink for path in output.files.values()} == {1}

    @rule("F4")
    async def test_one_name_of_a_hard_link_comes_back_alone(self, bench: Bench) -> None:
        job = await bench.finish_one("write", "a", "x", "hardlink", "b", "a", keep=["b"])
        assert _contents(await bench.fetch_one(job)) == {"b": b"x"}

    @rule("F4")
    async def test_what_lies_at_dest_is_not_written_through(self, bench: Bench) -> None:
        if bench.retriever.destructive:
            not_observed("a fetch that can be repeated; here it is destructive, as it says")
        victim = bench.scratch / "victim"
        victim.mkdir()
        (victim / "stdout").write_bytes(b"mine")
        job = await bench.finish_one("echo", "x")
        handle = bench.handle(job)
        dest = bench.scratch / "dest"
        (dest / handle.submission).mkdir(parents=True)
        (dest / handle.submission / str(handle.copy)).symlink_to(victim)
        await bench.fetch([job], dest)
        assert (victim / "stdout").read_bytes() == b"mine"

    # -------------------------------------------------------------- F5, F6

    @rule("F5")
    async def test_destructive_tells_whether_a_second_fetch_works(self, bench: Bench) -> None:
        job = await bench.finish_one("echo", "x", "write", "f", "y", keep=["f"])
        first = await bench.fetch_one(job, bench.scratch / "first")
        second = await bench.fetch([job], bench.scratch / "second")
        if bench.retriever.destructive:
            assert list(second.failures) == [job]
            return
        second.raise_for_failures()
        assert _contents(second[job]) == _contents(first) == {"f": b"y"}

    @rule("F5")
    async def test_a_second_fetch_to_the_same_place_replaces_the_first(self, bench: Bench) -> None:
        if bench.retriever.destructive:
            not_observed("a fetch that can be repeated; here it is destructive, as it says")
        job = await bench.finish_one("write", "f", "y", keep=["f"])
        first = await bench.fetch_one(job)
        first.files["f"].write_bytes(b"spoilt")
        (first.files["f"].parent / "stray").write_bytes(b"")
        second = await bench.fetch_one(job)
        assert _contents(second) == {"f": b"y"}
        assert not (second.files["f"].parent / "stray").exists()

    @rule("F6")
    async def test_an_unfinished_job_gets_a_reason_and_no_files(self, bench: Bench) -> None:
        running = await bench.start_one(
            "write", "f", "half", "echo", "half", "sleep", bench.forever, outputs=EVERYTHING
        )
        done = await bench.finish_one("write", "f", "whole", outputs=EVERYTHING)
        await bench.until([running], JobStatus.RUNNING)
        dest = bench.scratch / "dest"
        result = await bench.fetch([running, done], dest)
        assert {job: failure.code for job, failure in result.failures.items()} == {
            running: FailureCode.NOT_FINISHED
        }
        assert _manifest(result[running]) == set()
        assert _contents(result[done]) == {"f": b"whole"}
        assert {path.resolve() for path in _beneath(dest)} == {
            path.resolve() for path in _manifest(result[done])
        }

    @rule("F6")
    async def test_an_unknown_job_gets_a_reason_and_the_others_their_output(
        self, bench: Bench
    ) -> None:
        done = await bench.finish_one("echo", "x")
        unknown = JobID("nobody/nothing/0")
        result = await bench.fetch([unknown, done])
        assert list(result.failures) == [unknown]
        failure = result[unknown].failure
        assert failure is not None and failure.code == FailureCode.NO_SUCH_JOB

    # -------------------------------------------------------------- F7, F8, F9

    @rule("F7")
    async def test_memory_does_not_grow_with_the_size_of_the_output(self, bench: Bench) -> None:
        _ = bench.retriever
        job = await bench.finish_one("fill", "big", str(_BIG_BYTES), keep=["big"])
        tracemalloc.start()
        try:
            output = await bench.fetch_one(job)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert output.files["big"].stat().st_size == _BIG_BYTES
        assert peak < _GROWTH_BYTES
        output.files["big"].unlink()

    @rule("F7")
    async def test_memory_does_not_grow_with_the_size_of_the_inputs(self, bench: Bench) -> None:
        big = bench.scratch / "big"
        with big.open("wb") as file:
            file.truncate(_BIG_BYTES)
        spec = bench.spec(inputs=[FileRef("big", source=str(big))])
        tracemalloc.start()
        try:
            await bench.submit(spec)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # A pretend resource keeps what it was sent in this very process.
        assert peak - kept < _GROWTH_BYTES

    @rule("F8")
    async def test_everything_never_returns_inputs_executable_or_secrets(
        self, bench: Bench
    ) -> None:
        tree = bench.scratch / "tree"
        tree.mkdir()
        (tree / "leaf").write_bytes(b"given")
        (job,) = await bench.finish(
            "write", "made", "1", "write", "t/made", "2", "write", "sub/made", "3",
            outputs=EVERYTHING,
            inputs=[
                FileRef("given", content=b"given"),
                FileRef("sub/given", content=b"given"),
                FileRef("odd\n[x]*", content=b"given"),
                FileRef("t", source=str(tree)),
            ],
            copies=[CopyVars(secrets={"key": b"secret", "sub/key": b"secret"})],
        )  # fmt: skip
        dest = bench.scratch / "dest"
        output = await bench.fetch_one(job, dest)
        assert _contents(output) == {"made": b"1", "t/made": b"2", "sub/made": b"3"}
        assert b"secret" not in b"".join(path.read_bytes() for path in _beneath(dest))

    @rule("F8")
    async def test_a_secret_does_not_come_back_even_if_it_is_declared(self, bench: Bench) -> None:
        (job,) = await bench.finish(
            "write", "other", "x",
            keep=["*", "key", "sub/", "other"],
            copies=[CopyVars(secrets={"key": b"secret", "sub/key": b"secret"})],
        )  # fmt: skip
        dest = bench.scratch / "dest"
        output = (await bench.fetch([job], dest))[job]
        assert "other" in output.files
        assert b"secret" not in b"".join(path.read_bytes() for path in _beneath(dest))

    @rule("F9")
    async def test_a_stream_that_is_cut_is_noticed_and_leaves_no_debris(self, bench: Bench) -> None:
        _ = bench.retriever
        job = await bench.finish_one("fill", "f", "300000", "many", "d", "50", outputs=EVERYTHING)
        dest = bench.scratch / "cut"
        try:
            async with bench.faults.output_cut(bench.config, bench.handle(job)) as backend:
                cut = Bench(bench.resource, bench.config, bench.scratch)
                cut.backend = backend
                try:
                    assert list((await cut.fetch([job], dest)).failures) == [job]
                except (TransportError, ResourceError) as error:
                    assert str(error)
        except LookupError as lacking:
            not_observed(f"a stream that can be cut ({lacking})")
        assert _beneath(dest) == set()
        assert len((await bench.fetch_one(job, dest)).files) == 51
