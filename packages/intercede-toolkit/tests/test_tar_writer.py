"""Writing tar streams that every tar reads."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercede.toolkit import (
    TAR_END,
    TarKind,
    TarMember,
    TarReader,
    tar_header,
    tar_padding,
)

#: Other work on the machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(
    st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=300),
    st.binary(max_size=1100),
    st.booleans(),
)
def test_what_is_written_is_read_again(name: str, data: bytes, executable: bool) -> None:
    stream = tar_header(name, len(data), mode=0o700 if executable else 0o600)
    stream += data + tar_padding(len(data)) + TAR_END

    assert len(stream) % 512 == 0
    member, *_ = TarReader().feed(stream)
    # A slash at a regular file's end makes it a directory, as it did before there was a type for them.
    if not name.endswith("/"):
        assert member == TarMember(
            name, TarKind.FILE, len(data), "", executable, data=memoryview(data)
        )


@unhurried
@given(
    st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=110),
    st.integers(0, 2**34),
    st.integers(0, 0o177777),
    st.sampled_from([TarKind.FILE, TarKind.DIRECTORY]),
    st.integers(0, 2**34),
)
def test_a_header_is_the_one_that_tarfile_writes(
    name: str, size: int, mode: int, kind: TarKind, mtime: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, mtime
    info.type = tarfile.REGTYPE if kind is TarKind.FILE else tarfile.DIRTYPE

    wanted = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    assert tar_header(name, size, mode=mode, kind=kind, mtime=mtime) == wanted


def test_a_header_tells_nothing_of_who_wrote_it() -> None:
    info = tarfile.TarInfo.frombuf(tar_header("a", 3, mode=0o640), "utf-8", "strict")

    assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)
    assert info.mode == 0o640
    dated = tarfile.TarInfo.frombuf(tar_header("a", 3, mode=0o640, mtime=77), "utf-8", "strict")
    assert dated.mtime == 77


@pytest.mark.parametrize("tar", [["tar"], ["busybox", "tar"]], ids=" ".join)
def test_the_tars_of_the_world_unpack_it(tar: list[str], tmp_path: Path) -> None:
    if shutil.which(tar[0]) is None:
        pytest.skip(f"{tar[0]} is not installed")
    name = "d/" + "é" * 100 + b"\xff".decode("utf-8", "surrogateescape")
    stream = tar_header("d", 0, mode=0o700, kind=TarKind.DIRECTORY)
    stream += tar_header(name, 5, mode=0o700) + b"hello" + tar_padding(5) + TAR_END

    subprocess.run([*tar, "-xf", "-", "-C", str(tmp_path)], input=stream, check=True)

    assert (tmp_path / name).read_bytes() == b"hello"
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_tarfile_reads_sizes_beyond_octal() -> None:
    stream = io.BytesIO(tar_header("big", 2**40, mode=0o600))

    with tarfile.open(fileobj=stream, mode="r|") as tar:
        member = tar.next()
        assert member is not None
        assert member.size == 2**40


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("", 0, TarKind.FILE),
        ("a\0b", 0, TarKind.FILE),
        ("a", -1, TarKind.FILE),
        ("a", 2**63, TarKind.FILE),
        ("a", 0, TarKind.SYMLINK),
        ("a", 0, TarKind.OTHER),
        ("\ud800", 0, TarKind.FILE),
    ],
)
def test_what_cannot_be_written_is_refused(name: str, size: int, kind: TarKind) -> None:
    with pytest.raises(ValueError, match=r"."):
        tar_header(name, size, mode=0o600, kind=kind)
