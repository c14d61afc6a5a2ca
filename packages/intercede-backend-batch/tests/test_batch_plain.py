"""Hosts without a tar that will do: the shell sends and receives the files itself."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercede.backend.batch._plain import PACK, PlainReader, Unread, unpack
from intercede.core import CopyVars, FailureCode, FileRef, JobStatus, OutputSpec
from intercede.toolkit import (
    ArchiveEnd,
    MemberEnd,
    TarData,
    TarError,
    TarEvent,
    TarKind,
    TarMember,
    TarTrailing,
)

MIB = 2**20
Shell = Callable[[str, bytes, Path], subprocess.CompletedProcess[bytes]]
#: Every byte that a name may hold.
EVERY = os.fsdecode(bytes(byte for byte in range(1, 256) if byte != ord("/")))
NAMES = ("a", "-n", " ", "two\nlines\n", "*", "$HOME", "'\"\\", "tail ", EVERY[:127], EVERY[127:])


@pytest.fixture(params=["dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """Runs text as the host would; with BusyBox all tools are BusyBox's."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program = shutil.which(request.param)
    assert program is not None, f"this test needs {request.param}: apt-get install it"
    names = ["sh"]
    if request.param == "busybox":
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
        names = listed.stdout.split()
    for name in names:
        (tools / name).symlink_to(program)
    path = str(tools) if request.param == "busybox" else f"{tools}:{os.environ['PATH']}"

    def run(text: str, data: bytes, place: Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [tools / "sh", "-c", f"umask 077\n{text}"],
            input=data,
            capture_output=True,
            cwd=place,
            env={"PATH": path, "LC_ALL": "C"},
            timeout=60,
            check=False,
        )

    return run


def packed(shell: Shell, place: Path, *names: str) -> list[TarEvent | Unread]:
    answer = shell(PACK, b"".join(os.fsencode(name) + b"\0" for name in names), place)
    assert answer.returncode == 0, answer.stderr
    reader = PlainReader()
    events = reader.feed(answer.stdout)
    assert reader.ended
    return events


def file(name: str, content: bytes, executable: bool = False) -> list[TarEvent | Unread]:
    data = [TarData(memoryview(content))] if content else []
    return [TarMember(name, TarKind.FILE, len(content), "", executable), *data, MemberEnd()]


# ---------------------------------------------------------------- from the host


def test_files_of_any_name_and_size_are_sent_as_they_are(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "d").mkdir(parents=True)
    contents = [b"", b"1", b"\n", bytes(range(256)), b"no newline", os.urandom(MIB + 1)]
    expected: list[TarEvent | Unread] = []
    names = [f"d/{name}" for name in NAMES]
    for number, name in enumerate(names):
        content = contents[number % len(contents)]
        (place / name).write_bytes(content)
        expected += file(name, content)
    assert packed(shell, place, *names) == [*expected, ArchiveEnd()]


def test_what_is_no_file_is_told_and_not_opened(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "run").write_bytes(b"x")
    (place / "run").chmod(0o700)
    (place / "directory").mkdir()
    (place / "link").symlink_to("away\nand back\n")
    os.mkfifo(place / "fifo")
    assert packed(shell, place, "run", "directory", "link", "fifo", "absent") == [
        *file("run", b"x", executable=True),
        TarMember("directory", TarKind.DIRECTORY, 0),
        MemberEnd(),
        TarMember("link", TarKind.SYMLINK, 0, "away\nand back\n"),
        MemberEnd(),
        TarMember("fifo", TarKind.OTHER, 0),
        MemberEnd(),
        Unread("absent", "it cannot be opened"),
        ArchiveEnd(),
    ]


def test_a_file_that_shrinks_while_it_is_sent_is_told_and_spoils_no_other(
    shell: Shell, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "a").write_bytes(b"short")
    (place / "b").write_bytes(b"whole")
    # wc is told a lie, once; the truth comes when the file is looked at again.
    lie = tmp_path / "lie"
    lie.mkdir()
    (lie / "wc").write_text(
        f"#!/bin/sh\n[ -e {lie}/told ] && exec {shutil.which('wc')} -c\n: > {lie}/told; echo 9\n"
    )
    (lie / "wc").chmod(0o700)
    answer = shell(f"PATH={lie}:$PATH; {PACK}", b"a\0b\0", place)
    assert PlainReader().feed(answer.stdout) == [
        *file("a", b"short\0\0\0\0"),
        Unread("a", "it changed while it was read"),
        *file("b", b"whole"),
        ArchiveEnd(),
    ]


def test_thousands_of_files_are_sent_in_their_order(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    names = [f"{number:03}{'x' * 200}" for number in range(800)]
    for name in names:
        (place / name).touch()
    events = packed(shell, place, *names)
    assert [event.name for event in events if isinstance(event, TarMember)] == names


# ---------------------------------------------------------------- the reader


STREAM = (
    b"f 3 5 0\ns/0/aone"
    b"x 0 5 0\ns/0/b"
    b"l 0 5 4\ns/0/c../d"
    b"u 0 5 2\ns/0/dno"
    b"d 0 3 0\ns/0"
    b"e 0 0 0\nwhat follows"
)
EVENTS = [
    *file("s/0/a", b"one"),
    *file("s/0/b", b"", executable=True),
    TarMember("s/0/c", TarKind.SYMLINK, 0, "../d"),
    MemberEnd(),
    Unread("s/0/d", "no"),
    TarMember("s/0", TarKind.DIRECTORY, 0),
    MemberEnd(),
    ArchiveEnd(),
    TarTrailing(b"what follows"),
]


def joined(events: Sequence[TarEvent | Unread]) -> list[TarEvent | Unread]:
    """Pieces of data, and of what follows, as one."""
    whole: list[TarEvent | Unread] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, TarData) and isinstance(last, TarData):
            whole[-1] = TarData(memoryview(bytes(last.data) + bytes(event.data)))
        elif isinstance(event, TarTrailing) and isinstance(last, TarTrailing):
            whole[-1] = TarTrailing(last.data + event.data)
        else:
            whole.append(event)
    return whole


@given(cuts=st.sets(st.integers(0, len(STREAM))))
def test_the_stream_reads_the_same_however_it_is_cut_into_chunks(cuts: set[int]) -> None:
    reader = PlainReader()
    events: list[TarEvent | Unread] = []
    places = sorted({0, len(STREAM), *cuts})
    for start, end in pairwise(places):
        events += reader.feed(STREAM[start:end])
    assert joined(events) == EVENTS
    assert reader.ended


@pytest.mark.parametrize("size", range(0, STREAM.index(b"what follows")))
def test_a_stream_that_is_cut_has_not_ended(size: int) -> None:
    reader = PlainReader()
    reader.feed(STREAM[:size])
    assert not reader.ended


@pytest.mark.parametrize(
    "garbage",
    [
        b"y" * 36,
        b"f 1 1\na1",
        b"f -1 1 0\na",
        b"f 1 1 0 \na1",
        b"\n" * 36,
        b"f 9999999999999999999 1 0\na",
        b"f 1 9999999 0\na",
        "f \u0661 1 0\na".encode(),
    ],
)
def test_what_is_no_announcement_is_an_error(garbage: bytes) -> None:
    with pytest.raises(TarError):
        PlainReader().feed(garbage)


# ---------------------------------------------------------------- to the host


def test_files_of_any_name_and_size_arrive_as_they_are(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    contents = [b"", b"1", b"\n", bytes(range(256)), os.urandom(3 * MIB), bytes(2 * MIB + 1)]
    sent = {
        f"in/{number}/{name}": (contents[number % len(contents)], 0o700 if number % 2 else 0o600)
        for number, name in enumerate(NAMES)
    }
    files = [(name, len(content), mode) for name, (content, mode) in sent.items()]
    data = b"".join(content for content, _ in sent.values())
    empty = [f"empty/{number}" for number in range(50)]
    answer = shell(f"{unpack(['in', *empty], files)}; cat", data + b"the rest", place)
    assert (answer.stdout, answer.stderr) == (b"the rest", b"")
    for name, (content, mode) in sent.items():
        assert (place / name).read_bytes() == content
        assert (place / name).stat().st_mode & 0o777 == mode
    assert all((place / name).is_dir() for name in empty)
    assert (place / "empty").stat().st_mode & 0o777 == 0o700


def test_a_dd_that_gives_what_it_gets_is_read_byte_by_byte(shell: Shell, tmp_path: Path) -> None:
    place, old = tmp_path / "place", tmp_path / "old"
    place.mkdir()
    old.mkdir()
    (old / "dd").write_text(
        "#!/bin/sh\nfor w; do case $w in iflag*|status*) exit 1;; esac; done\n"
        f'exec {shutil.which("dd")} "$@"\n'
    )
    (old / "dd").chmod(0o700)
    text = unpack([], [("a", 3000, 0o600), ("b", 1, 0o600)])
    answer = shell(f"PATH={old}:$PATH\n{text}; cat", b"1" * 3000 + b"2rest", place)
    assert ((place / "a").read_bytes(), (place / "b").read_bytes()) == (b"1" * 3000, b"2")
    assert answer.stdout == b"rest"


def test_what_cannot_be_written_is_told_in_one_line(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "full").symlink_to("/dev/full")
    text = unpack([], [("full", 10, 0o600), ("b", 1, 0o600)])
    answer = shell(f"{text} || echo failed", b"0123456789b", place)
    said = answer.stdout.splitlines()
    assert said[-1] == b"failed"
    assert len(said) == 2
    assert b"No space left on device" in said[0]
    assert not (place / "b").exists()


# ---------------------------------------------------------------- a whole life


WITHOUT_GNU_TAR = pytest.mark.parametrize("tar", ["other", "none"], indirect=True)


@WITHOUT_GNU_TAR
async def test_a_job_lives_its_whole_life_in_as_many_round_trips(
    make_backend: Any, tools: Any, tmp_path: Path, root: Path, tar: str
) -> None:
    names = [name for name in NAMES if "\0" not in name]
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    for name in names:
        (tree / name).write_bytes(os.fsencode(name))
    spec = tools.script(
        "cat secret; mkdir out; cp -R tree/* out; ln -s a out/link; chmod 700 out/a; ls -d tree/empty",
        inputs=[FileRef("tree", source=tree), FileRef("content", content=b"c")],
        outputs=OutputSpec(["out/", "absent"]),
    )
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        submission = await ce.submit(spec, [CopyVars(secrets={"secret": b"s"}) for _ in range(3)])
        assert wire.execs == 3
        ids = tools.ids_of(submission)
        assert set(await tools.finish(ce, ids)) == {JobStatus.SUCCESSFUL}
        before = wire.execs
        outputs = await ce.fetch_output(ids, tmp_path / "results")
        assert wire.execs == before + 1
    outputs.raise_for_failures()
    for output in outputs.values():
        assert output.stdout is not None
        assert output.stdout.read_bytes() == b"stree/empty\n"
        assert set(output.files) == {f"out/{name}" for name in (*names, "link")}
        for name in names:
            assert output.files[f"out/{name}"].read_bytes() == os.fsencode(name)
        assert output.files["out/link"].read_bytes() == b"a"
        assert output.files["out/a"].stat().st_mode & 0o777 == 0o700
        assert output.missing == ("absent",)
    assert any(b"tar -x" in command.stdin for command in wire.commands) == (tar == "other")


@WITHOUT_GNU_TAR
async def test_one_jobs_file_that_cannot_be_read_is_its_own_trouble(
    make_backend: Any, tools: Any, tmp_path: Path, root: Path, tar: str
) -> None:
    async with make_backend() as ce:
        ids = tools.ids_of(
            await ce.submit(tools.script("echo 1 > a", outputs=OutputSpec(["a"])), 2)
        )
        await tools.finish(ce, ids)
        place = root / ids[0].split("/")[1]
        # A file that is there when it is chosen and cannot be opened, also by root.
        (place / "select").write_text(
            "select_output() { printf '%s\\0' \"$1/a\"; case $1 in */0/work) printf '%s\\0' \"$1/gone\";; esac; }\n"
        )
        outputs = await ce.fetch_output(ids, tmp_path / "results")
    assert list(outputs.failures) == ids[:1]
    failure = outputs.failures[ids[0]]
    assert failure.code is FailureCode.FAILED
    assert failure.message == "not all could be read: 'work/gone': it cannot be opened"
    assert outputs[ids[0]].files["a"].read_text() == "1\n"
    assert outputs[ids[1]].files["a"].read_text() == "1\n"
