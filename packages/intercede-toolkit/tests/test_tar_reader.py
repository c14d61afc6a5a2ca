"""Reading tar streams: real archives in any chunks, cut ones, broken ones."""

import io
import shutil
import subprocess
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from intercede.toolkit import (
    TAR_END,
    ArchiveEnd,
    MemberEnd,
    TarData,
    TarError,
    TarKind,
    TarMember,
    TarReader,
    TarTrailing,
    tar_header,
    tar_padding,
)

#: Other work on the machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


Entry = tuple[str, TarKind, str, bool, bytes]


def read(
    stream: bytes, chunk: int = 1 << 20, reader: TarReader | None = None
) -> tuple[list[Entry], TarReader, bytes]:
    """(name, kind, target, executable, data) of all complete members, the reader, and what trails."""
    reader = reader or TarReader()
    members: list[Entry] = []
    trailing = data = b""
    current = None
    for start in range(0, len(stream), chunk):
        for event in reader.feed(stream[start : start + chunk]):
            match event:
                case TarMember(data=memoryview() as whole):
                    assert len(whole) == event.size
                    assert event.kind is TarKind.FILE
                    members.append(
                        (event.name, event.kind, event.target, event.executable, bytes(whole))
                    )
                case TarMember():
                    current, data = event, b""
                case TarData():
                    assert len(event.data) > 0
                    data += event.data
                case MemberEnd():
                    assert current is not None
                    assert len(data) == current.size
                    members.append(
                        (current.name, current.kind, current.target, current.executable, data)
                    )
                case TarTrailing():
                    assert reader.ended
                    trailing += event.data
                case ArchiveEnd():
                    assert reader.ended
    return members, reader, trailing


def archive(entries: list[Entry], form: int) -> bytes:
    """A real archive of (name, kind, target, executable, data), made by tarfile."""
    types = {
        TarKind.FILE: tarfile.REGTYPE,
        TarKind.DIRECTORY: tarfile.DIRTYPE,
        TarKind.SYMLINK: tarfile.SYMTYPE,
        TarKind.HARDLINK: tarfile.LNKTYPE,
        TarKind.OTHER: tarfile.FIFOTYPE,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind, target, executable, data in entries:
            info = tarfile.TarInfo(name)
            info.type = types[kind]
            info.mode = 0o755 if executable else 0o644
            info.size = len(data)
            info.linkname = target
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# tarfile strips slashes at the end itself, and a NUL ends a name in every format.
names = st.text(st.characters(blacklist_characters="\0/", codec="utf-8"), min_size=1, max_size=20)
paths = st.lists(names, min_size=1, max_size=12).map("/".join)
entries = st.lists(
    st.one_of(
        st.tuples(
            paths, st.just(TarKind.FILE), st.just(""), st.booleans(), st.binary(max_size=2000)
        ),
        st.tuples(paths, st.just(TarKind.DIRECTORY), st.just(""), st.booleans(), st.just(b"")),
        st.tuples(
            paths,
            st.sampled_from([TarKind.SYMLINK, TarKind.HARDLINK]),
            paths,
            st.booleans(),
            st.just(b""),
        ),
        st.tuples(paths, st.just(TarKind.OTHER), st.just(""), st.booleans(), st.just(b"")),
    ),
    max_size=6,
)


@unhurried
@given(entries, st.sampled_from(FORMATS[1:]), st.integers(1, 3000), st.binary(max_size=600))
def test_every_archive_is_read_whole_however_it_is_cut_into_chunks(
    entries: list[Entry], form: int, chunk: int, tail: bytes
) -> None:
    members, reader, trailing = read(archive(entries, form) + tail, chunk)

    assert members == entries
    assert reader.ended
    assert trailing.lstrip(b"\0") == tail.lstrip(b"\0")
    if tail and tail[0]:
        assert trailing == tail


@pytest.mark.parametrize("chunk", [1, 511, 512, 513, 10**6])
@pytest.mark.parametrize("form", FORMATS)
def test_each_kind_of_member_is_told_in_each_format(form: int, chunk: int) -> None:
    entries: list[Entry] = [
        ("d", TarKind.DIRECTORY, "", True, b""),
        ("d/" + "long/" * 30 + "f", TarKind.FILE, "", False, b"x" * 1000),
        ("run", TarKind.FILE, "", True, b"#!"),
        ("empty", TarKind.FILE, "", False, b""),
        ("l", TarKind.SYMLINK, "../run", True, b""),
        ("h", TarKind.HARDLINK, "run", True, b""),
        ("p", TarKind.OTHER, "", False, b""),
    ]

    members, reader, trailing = read(archive(entries, form), chunk)

    assert members == entries
    assert reader.ended
    assert trailing == b""


def test_names_of_any_bytes_arrive() -> None:
    name = bytes(set(range(1, 256)) - {ord("/")}).decode("utf-8", "surrogateescape")

    for form in FORMATS[1:]:
        members, _, _ = read(archive([(name, TarKind.FILE, "", False, b"")], form))
        assert members[0][0] == name


@pytest.mark.parametrize(
    "command",
    [
        ["tar", "-cf", "-", "-C"],
        ["tar", "--format=pax", "-cf", "-", "-C"],
        ["tar", "-b", "1", "-cf", "-", "-C"],
        ["busybox", "tar", "-cf", "-", "-C"],
    ],
    ids=" ".join,
)
def test_what_the_tars_of_the_world_write_is_read(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ("n" * 120)).write_bytes(b"abc")
    (tmp_path / "run").write_bytes(b"x" * 12345)
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "s").symlink_to("run")
    (tmp_path / "h").hardlink_to(tmp_path / "run")

    stream = subprocess.run([*command, str(tmp_path), "."], capture_output=True, check=True).stdout
    members, reader, trailing = read(stream + b"END 5\n", 1000)

    by_name = {member[0].removeprefix("./"): member[1:] for member in members}
    assert by_name["d/" + "n" * 120] == (TarKind.FILE, "", False, b"abc")
    assert by_name["s"][:2] == (TarKind.SYMLINK, "run")
    linked, whole = sorted(("run", "h"), key=lambda name: by_name[name][0] is TarKind.FILE)
    assert by_name[whole] == (TarKind.FILE, "", True, b"x" * 12345)
    assert by_name[linked][0] is TarKind.HARDLINK
    assert by_name[linked][1].removeprefix("./") == whole
    assert reader.ended
    assert trailing == b"END 5\n"


def test_a_sparse_file_is_told_and_skipped_and_what_follows_it_arrives(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for hole in range(1, 60):
            file.seek(hole * 100_000)
            file.write(b"x" * 5000)
    (tmp_path / "z").write_bytes(b"after")

    for form in ("gnu", "pax"):
        stream = subprocess.run(
            ["tar", f"--format={form}", "-S", "-cf", "-", "-C", str(tmp_path), "sparse", "z"],
            capture_output=True,
            check=True,
        ).stdout
        for chunk in (100, 10**6):
            members, reader, _ = read(stream, chunk)
            assert [member[1] for member in members] == [TarKind.OTHER, TarKind.FILE]
            assert members[1][4] == b"after"
            assert reader.ended


def test_an_empty_sparse_header_ends_its_member() -> None:
    def block(kind: bytes, extended: int) -> bytes:
        info = tarfile.TarInfo("s")
        info.type = kind
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[482] = extended
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header)

    for extended, extra in ((0, b""), (1, bytes(504) + b"\1" + bytes(7) + bytes(512))):
        members, reader, _ = read(block(tarfile.GNUTYPE_SPARSE, extended) + extra + TAR_END)
        assert [member[1] for member in members] == [TarKind.OTHER]
        assert reader.ended


def test_data_that_look_like_a_header_are_data_wherever_the_header_is_cut() -> None:
    # Cut at 412, the header leaves 100 empty bytes, a name without letters, which these data would make another header of.
    forged = tarfile.TarInfo("").tobuf(tarfile.GNU_FORMAT)
    assert forged[:100] == bytes(100)
    data = forged[100:]
    stream = tar_header("a", len(data), mode=0o600) + data + tar_padding(len(data)) + TAR_END
    assert stream[412:512] == bytes(100)
    for cut in range(1, 512):
        reader = TarReader()
        events = [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])]
        assert [event.name for event in events if isinstance(event, TarMember)] == ["a"]
        assert reader.ended


def test_a_global_name_holds_for_each_plain_member_that_follows() -> None:
    everywhere = tarfile.TarInfo.create_pax_global_header({"path": "b"})
    stream = everywhere + tar_header("a", 0, mode=0o600) * 2 + TAR_END
    members, _, _ = read(stream)
    assert [name for name, *_ in members] == ["b", "b"]


def test_global_pax_headers_hold_for_all_that_follow_and_the_members_own_come_first() -> None:
    own = tarfile.TarInfo("given")
    own.type = tarfile.SYMTYPE
    own.pax_headers = {"path": "own", "comment": "nothing to us"}
    shared = tarfile.TarInfo("other")
    shared.type = tarfile.SYMTYPE
    stream = (
        tarfile.TarInfo.create_pax_global_header({"linkpath": "all"})
        + own.tobuf(tarfile.PAX_FORMAT)
        + shared.tobuf(tarfile.PAX_FORMAT)
        + TAR_END
    )

    members, _, _ = read(stream)

    assert [(name, target) for name, _, target, *_ in members] == [("own", "all"), ("other", "all")]


@pytest.mark.parametrize("zeros", [0, 512, 8192, 10240 * 3])
@pytest.mark.parametrize("chunk", [1, 700, 10**6])
def test_what_comes_after_the_archive_is_handed_on_without_the_padding(
    zeros: int, chunk: int
) -> None:
    for tail in (b"END\n", b"\0\0x\0\0" + b"y" * 1000, bytes(511) + b"z"):
        _, reader, trailing = read(TAR_END + bytes(zeros) + tail, chunk)
        assert reader.ended
        assert trailing == tail


def test_a_stream_that_is_cut_anywhere_has_not_ended() -> None:
    stream = archive([("a", TarKind.FILE, "", False, b"x" * 700)] * 3, tarfile.GNU_FORMAT)
    end = 3 * (512 + 1024) + 1024

    for cut in range(0, end, 37):
        members, reader, _ = read(stream[:cut])
        assert not reader.ended
        assert len(members) <= cut // 1212
    assert read(stream[:end])[1].ended
    assert not read(b"")[1].ended


BROKEN = {
    "text": b"bash: tar: command not found\n".ljust(512),
    "checksum": tar_header("a", 1, mode=0o600)[:-1] + b"x",
    "member after an empty block": bytes(512) + tar_header("a", 0, mode=0o600),
}


def _raw(kind: bytes, payload: bytes, size: int | None = None) -> bytes:
    info = tarfile.TarInfo("x")
    info.type = kind
    info.size = len(payload) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + payload + tar_padding(len(payload))


for _number, _payload in enumerate(
    [
        b"nonsense",
        b"99 path=a\n",
        b"0 path=a\n",
        b"1 ",
        b"-9 path=a\n",
        b"9 path=ab",
        b"8 path-a\n",
        b"7 =abc\n",
        b"99999999999999999999 path=a\n",
        b" path=a\n",
        b"10 size=-1\n",
        b"10 size=0x\n",
        b"11 size=\xd9\xa3\n",
        b"28 size=9999999999999999999\n",
        b"30 size=" + b"9" * 21 + b"\n",
    ]
):
    BROKEN[f"pax {_number}"] = _raw(tarfile.XHDTYPE, _payload) + tar_header("a", 0, mode=0o600)
BROKEN["huge extension"] = _raw(tarfile.GNUTYPE_LONGNAME, b"", 2**20 + 1)
BROKEN["huge pax"] = _raw(tarfile.XHDTYPE, b"", 2**40)
BROKEN["extension at the end"] = _raw(tarfile.GNUTYPE_LONGNAME, b"name") + TAR_END
BROKEN["size beyond any file"] = _raw(tarfile.REGTYPE, b"", 2**63)


def _negative() -> bytes:
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


BROKEN["negative size"] = _negative()


#: Numbers as tars write them, and as they should not.
_numbers = st.one_of(
    st.builds(
        lambda value, width, end: f"{value:0{width}o}".encode() + end,
        st.integers(0, 8**12),
        st.integers(0, 12),
        st.sampled_from([b"\0", b" ", b" \0", b"\0 ", b"", b" 7", b"\x00 1"]),
    ),
    st.builds(lambda value: b"\x80" + value.to_bytes(11, "big"), st.integers(0, 2**70)),
    st.sampled_from([b"", b"8", b"-1", b"+7", b" 17", b"0o7", b"1_0", b"\xff" * 12, b"1\xff"]),
)


@settings(max_examples=1000)
@example(b"", b"0", b"0", b"5", b"", b"\x01", b"%06o\0 ", 0)
@given(
    name=st.one_of(
        st.just(b"a\0b"), st.binary(max_size=100), paths.map(lambda path: path.encode()[:100])
    ),
    mode=_numbers,
    size=_numbers,
    flag=st.sampled_from([b"0", b"0", b"0", b"\0", b"7", b"1", b"2", b"5", b"3"]),
    link=st.binary(max_size=100),
    prefix=st.one_of(st.just(b""), st.binary(max_size=155)),
    form=st.sampled_from([b"%06o\0 ", b"%07o\0", b"%06o \0", b"%08o", b"%7o ", b"0%06o\x01"]),
    off=st.sampled_from([0, 0, 0, 0, 1]),
)
def test_a_header_is_read_as_tarfile_reads_it(
    name: bytes,
    mode: bytes,
    size: bytes,
    flag: bytes,
    link: bytes,
    prefix: bytes,
    form: bytes,
    off: int,
) -> None:
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT))
    header[:100] = name.ljust(100, b"\0")
    header[100:108] = mode[:8].ljust(8, b"\0")
    header[124:136] = size[:12].ljust(12, b"\0")
    header[156:157] = flag
    header[157:257] = link.ljust(100, b"\0")
    header[345:500] = prefix.ljust(155, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = form % (sum(header) + off)
    try:
        theirs = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        theirs = None
    reader = TarReader()
    if theirs is None or not 0 <= theirs.size < 2**63:
        with pytest.raises(TarError):
            reader.feed(bytes(header))
        return
    ours = reader.feed(bytes(header))[0]
    assert isinstance(ours, TarMember)
    # tarfile takes the slash from a directory's name before it puts the prefix in front: of an empty name it leaves one.
    name_there = theirs.name.rstrip("/") if theirs.isdir() else theirs.name
    assert (ours.name, ours.executable) == (name_there, bool(theirs.mode & 0o100))
    if theirs.isfile():
        assert (ours.kind, ours.size) == (TarKind.FILE, theirs.size)


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_tar_stream_is_an_error_and_stays_one(stream: bytes, chunk: int) -> None:
    reader = TarReader()

    with pytest.raises(TarError):
        read(stream, chunk, reader)
    with pytest.raises(TarError):
        reader.feed(tar_header("a", 0, mode=0o600))
    assert not reader.ended


def test_an_empty_extension_is_an_empty_name_and_not_the_end_of_the_reader() -> None:
    members, reader, _ = read(
        _raw(tarfile.GNUTYPE_LONGNAME, b"") + tar_header("a", 0, mode=0o600) + TAR_END, 100
    )

    assert [member[0] for member in members] == [""]
    assert reader.ended


def test_long_link_targets_arrive() -> None:
    members, _, _ = read(
        archive([("l", TarKind.SYMLINK, "t" * 5000, False, b"")], tarfile.GNU_FORMAT)
    )

    assert members[0][2] == "t" * 5000


REAL = [
    archive(
        [
            ("d", TarKind.DIRECTORY, "", True, b""),
            ("d/" + "n" * 150, TarKind.FILE, "", False, b"x" * 1000),
            ("l", TarKind.SYMLINK, "t" * 150, False, b""),
        ],
        form,
    )
    for form in FORMATS[1:]
]


@unhurried
@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=4),
    st.booleans(),
    st.integers(1, 2000),
)
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(
    real: bytes, changes: list[tuple[int, int]], mend: bool, chunk: int
) -> None:
    stream = bytearray(real)
    for place, value in changes:
        stream[place] = value
        if mend:  # so that the change is not caught by the block's checksum
            start = place // 512 * 512
            block = stream[start : start + 512]
            block[148:156] = b" " * 8
            stream[start + 148 : start + 156] = b"%06o\0 " % sum(block)

    with suppress(TarError):
        read(bytes(stream), chunk)


@unhurried
@given(st.binary(max_size=512), st.binary(max_size=1500))
def test_a_block_of_anything_with_a_right_checksum_is_read_or_refused(
    block: bytes, rest: bytes
) -> None:
    header = bytearray(block.ljust(512, b"\0"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)

    with suppress(TarError):
        read(bytes(header) + rest)


def test_a_file_comes_at_once_if_all_of_it_is_there_and_in_pieces_otherwise() -> None:
    content = b"1,2" * 300
    stream = tar_header("a", len(content), mode=0o600) + content + tar_padding(len(content))

    assert TarReader().feed(stream) == [
        TarMember("a", TarKind.FILE, len(content), data=memoryview(content))
    ]
    assert TarReader().feed(stream[:-1])[:2] == [
        TarMember("a", TarKind.FILE, len(content)),
        TarData(memoryview(content)),
    ]


def test_a_huge_member_needs_no_memory_of_its_size() -> None:
    chunk = bytes(2**18)
    reader = TarReader()
    reader.feed(tar_header("big", 2**31, mode=0o600))

    tracemalloc.start()
    came = 0
    for _ in range(2**31 // len(chunk) // 8):
        for event in reader.feed(chunk):
            assert isinstance(event, TarData)
            came += len(event.data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert came == 2**31 // 8
    assert peak < 2**20


def test_sizes_beyond_octal_are_read() -> None:
    info = tarfile.TarInfo("big")
    info.size = 2**40

    for header in (info.tobuf(tarfile.GNU_FORMAT), info.tobuf(tarfile.PAX_FORMAT)):
        assert TarReader().feed(header) == [TarMember("big", TarKind.FILE, 2**40)]
