"""What is sent, and what is refused before anything is."""

import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from intercede.backend.batch._staging import (
    Source,
    collect_sources,
    generated_files,
    tar_stream,
)
from intercede.core import CopyVars, FileRef, SpecRefused, SubmissionSpec


def spec(*inputs: FileRef) -> SubmissionSpec:
    return SubmissionSpec("true", resident=True, inputs=inputs)


def test_a_tree_is_sent_with_what_its_links_mean(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "d" / "f").write_text("1")
    (tree / "run").write_text("2")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("d/f")
    (tree / "dirlink").symlink_to("d")
    files, directories = collect_sources(spec(FileRef("in", source=tree)))
    assert sorted(directories) == ["in", "in/d", "in/dirlink", "in/empty"]
    assert {source.name: source.executable for source in files} == {
        "in/d/f": False,
        "in/dirlink/f": False,
        "in/link": False,
        "in/run": True,
    }


def test_a_link_to_a_directory_above_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree" / "d").mkdir(parents=True)
    (tmp_path / "tree" / "d" / "up").symlink_to("..")
    with pytest.raises(SpecRefused, match="links to a directory above it"):
        collect_sources(spec(FileRef("in", source=tmp_path / "tree")))


def test_what_is_no_file_is_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("fifo", "socket"):
        with pytest.raises(SpecRefused, match="neither a file nor a directory") as caught:
            collect_sources(spec(FileRef("a", content=b""), FileRef("b", source=tmp_path / name)))
        assert caught.value.field == "inputs[1].source"


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SpecRefused, match="No such file"):
        collect_sources(spec(FileRef("a", source=tmp_path / "link")))


def test_an_executable_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecRefused, match="is not a file"):
        collect_sources(SubmissionSpec(tmp_path))


@pytest.mark.parametrize(
    ("mode", "owned"), [(0o000, True), (0o244, True), (0o644, True), (0o644, False)]
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owned: bool
) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "a").chmod(mode)
    if not owned:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    # root can read anything; the question is what is done with the answer.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SpecRefused, match="Permission denied; give a file that can be read"):
        collect_sources(spec(FileRef("a", source=tmp_path / "a")))
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    files, directories = collect_sources(spec(FileRef("a", source=tmp_path / "a")))
    assert ([file.name for file in files], directories) == (["a"], [])


def test_a_directory_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SpecRefused, match="Permission denied"):
        collect_sources(spec(FileRef("a", source=tmp_path)))


async def read(sources: list[Source], generated: dict[str, tuple[bytes, int]]) -> bytes:
    return b"".join([chunk async for chunk in tar_stream(sources, ["d"], generated, "mark")])


async def test_the_stream_is_an_archive_that_ends_with_the_mark(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(b"2" * (3 * 2**20 + 5))
    sources = [
        Source("x", "small", str(small), 1, True),
        Source("x", "large", str(large), large.stat().st_size, False),
        *(Source("x", f"many{n}", str(small), 1, False) for n in range(3000)),
    ]
    variants = [CopyVars(), CopyVars(environment={"A": "b"}, secrets={"s/t": b"secret"})]
    generated = generated_files(
        spec(FileRef("data", content=b"3"), FileRef("run", content=b"4", executable=True)),
        variants,
        runner=b"#!",
        meta=b"m" * 2**20,
        select=b"",
    )
    with tarfile.open(fileobj=io.BytesIO(await read(sources, generated))) as archive:
        members = {member.name: member for member in archive}
        assert list(members)[-1] == "complete"
        complete = archive.extractfile("complete")
        assert complete is not None
        assert complete.read() == b"mark\n"
    modes = {name: oct(member.mode) for name, member in members.items() if "many" not in name}
    assert modes == {
        "inputs/d": "0o700",
        "meta": "0o600",
        "select": "0o600",
        "runner": "0o700",
        "inputs/data": "0o600",
        "inputs/run": "0o700",
        "vars/0": "0o600",
        "1/work/s/t": "0o600",
        "inputs/small": "0o700",
        "inputs/large": "0o600",
        "complete": "0o600",
    }
    assert members["inputs/large"].size == 3 * 2**20 + 5


async def test_small_files_are_read_many_in_one_turn_of_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [*[1] * 1000, 2**20, 2**18, 2**20 + 1, 0, *[10_000] * 100]
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}").write_bytes(bytes([number % 256]) * size)
    sources = [
        Source("x", f"{number}", str(tmp_path / f"{number}"), size, False)
        for number, size in enumerate(sizes)
    ]
    turns = 0

    async def run_sync(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        nonlocal turns
        turns += 1
        return await to_thread(work, *args, **options)

    to_thread = anyio.to_thread.run_sync
    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
    with tarfile.open(fileobj=io.BytesIO(await read(sources, {}))) as archive:
        for number, size in enumerate(sizes):
            file = archive.extractfile(f"inputs/{number}")
            assert file is not None
            assert file.read() == bytes([number % 256]) * size
    assert turns < 25


@pytest.mark.parametrize("size", [10, 3 * 2**20])
@pytest.mark.parametrize("change", ["grows", "shrinks", "vanishes", "becomes a FIFO"])
async def test_a_source_that_changes_is_refused(tmp_path: Path, size: int, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    source = Source("inputs[3].source", "a", str(path), size, False)
    if change == "vanishes":
        path.unlink()
    elif change == "becomes a FIFO":
        path.unlink()
        os.mkfifo(path)
    else:
        os.truncate(path, size + (1 if change == "grows" else -1))
    with pytest.raises(SpecRefused, match=r"changed while|No such file") as caught:
        await read([source], {})
    assert caught.value.field == "inputs[3].source"


async def test_what_died_while_it_was_staged_is_swept_by_a_later_submit(
    make_backend: Any, tools: Any, root: Path
) -> None:
    async with make_backend() as ce:
        await tools.finish(ce, tools.ids_of(await ce.submit(tools.script("exit 0"))))
        old, new = root / ".part.old", root / ".part.new"
        for part in (old, new):
            (part / "0").mkdir(parents=True)
        os.utime(old, (0, 0))
        await tools.finish(ce, tools.ids_of(await ce.submit(tools.script("exit 0"))))
    assert not old.exists()
    assert new.exists()
