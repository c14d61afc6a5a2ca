"""What a sink keeps of what an untrusted source sends, and what it refuses."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercede.core import ResourceError
from intercede.toolkit import CommittedOutput, FileSink, LimitExceeded, Limits

#: Other work on the machine must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PLACE = "sub/0"


def put(sink: FileSink, name: str, data: bytes = b"x", executable: bool = False) -> None:
    sink.begin(name, len(data), executable)
    for start in range(0, len(data), 1000):
        sink.write(data[start : start + 1000])
    sink.end()


def everything_in(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[FileSink]:
    with FileSink(tmp_path / "dest", PLACE) as sink:
        yield sink


def test_files_arrive_whole_under_their_names(tmp_path: Path) -> None:
    with FileSink(tmp_path / "new" / "dest", PLACE) as sink:
        put(sink, "./a.csv", b"1,2" * 1000)
        put(sink, "plots//b/c d", b"")
        put(sink, "run", b"#!/bin/sh", executable=True)
        output = sink.commit()

    dest = tmp_path / "new" / "dest"
    assert output == CommittedOutput(dest, PLACE, ("a.csv", "plots/b/c d", "run"), {})
    path = dest / "sub" / "0"
    assert output.path == path
    assert output.files == {name: path / name for name in output.names}
    assert (path / "a.csv").read_bytes() == b"1,2" * 1000
    assert (path / "plots/b/c d").read_bytes() == b""
    assert stat.S_IMODE((path / "a.csv").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "run").stat().st_mode) == 0o700
    for directory in (path, path / "plots", path / "plots/b"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert everything_in(tmp_path / "new" / "dest") == [
        "sub",
        "sub/0",
        "sub/0/a.csv",
        "sub/0/plots",
        "sub/0/plots/b",
        "sub/0/plots/b/c d",
        "sub/0/run",
    ]


def test_an_output_without_files_is_an_empty_directory(sink: FileSink) -> None:
    output = sink.commit()

    assert list(output.path.iterdir()) == []


def test_names_of_any_bytes_are_kept_byte_for_byte(sink: FileSink) -> None:
    raw = bytes(set(range(1, 256)) - {ord("/")})
    name = raw.decode("utf-8", "surrogateescape")
    put(sink, name)

    output = sink.commit()

    assert [os.fsencode(path.name) for path in output.path.iterdir()] == [raw]
    assert output.files[name].read_bytes() == b"x"


def test_nothing_is_to_be_seen_of_an_output_before_its_commit(tmp_path: Path) -> None:
    with FileSink(tmp_path, PLACE) as sink:
        put(sink, "a")
        (private,) = tmp_path.iterdir()
        assert private.name.startswith(".intercede-")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        sink.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


@given(
    last=st.text(st.sampled_from("ab/.\0é\ud800"), max_size=6)
    | st.sampled_from(["n" * 256, "é" * 128])
)
@unhurried
def test_a_member_beside_another_is_taken_or_refused_as_one_alone(
    tmp_path_factory: pytest.TempPathFactory, last: str
) -> None:
    outcomes = []
    for before in ("d/e/first", "first"):
        with FileSink(tmp_path_factory.mktemp("dest"), PLACE) as sink:
            put(sink, before)
            put(sink, f"d/e/{last}")
            output = sink.commit()
            outcomes.append(({*output.files} - {before}, dict(output.refused)))
    beside, alone = outcomes
    if "directory" in str(beside[1]):
        # Alone, it would be the first file of the name.
        assert not last.strip("./")
    else:
        assert beside == alone


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (".", "empty"),
        ("./", "empty"),
        ("/etc/passwd", "absolute"),
        ("/x", "absolute"),
        ("//x", "absolute"),
        ("..", "'..'"),
        ("../x", "'..'"),
        ("a/../b", "'..'"),
        ("a/..", "'..'"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        ("n" * 256, "longer than 255 bytes"),
        ("d/" + "é" * 128 + "/x", "longer than 255 bytes"),
        ("/".join("d" * 101), "deeper than 100"),
        ("/".join(["n" * 203] * 20), "path is longer"),
        ("kept", "came before"),
        ("kept/below", "is a file"),
        ("there/is/one", "came before"),
        ("there/is", "directory"),
        ("there", "directory"),
        ("link", "came before"),
        ("link/below", "is a file"),
    ],
)
def test_a_member_that_is_refused_is_swallowed_and_the_others_arrive(
    sink: FileSink, name: str, reason: str
) -> None:
    put(sink, "kept", b"first")
    put(sink, "there/is/one", b"first")
    sink.link("link", "kept", symbolic=True)

    put(sink, name, b"hostile" * 1000)
    put(sink, "last", b"last")
    output = sink.commit()

    assert reason in output.refused[name]
    assert sorted(output.files) == ["kept", "last", "link", "there/is/one"]
    assert everything_in(output.path) == [
        "kept",
        "last",
        "link",
        "there",
        "there/is",
        "there/is/one",
    ]
    assert output.files["kept"].read_bytes() == b"first"
    assert output.files["there/is/one"].read_bytes() == b"first"
    assert output.files["last"].read_bytes() == b"last"


@pytest.mark.parametrize("name", ["../x", "kept", "kept/x", "", "d"])
def test_a_link_whose_name_cannot_be_is_refused(sink: FileSink, name: str) -> None:
    put(sink, "kept")
    put(sink, "d/x")

    sink.link(name, "kept", symbolic=False)
    output = sink.commit()

    assert list(output.refused) == [name]
    assert sorted(output.files) == ["d/x", "kept"]


def test_links_to_files_of_the_same_job_become_copies(sink: FileSink) -> None:
    sink.link("early", "d/run", symbolic=True)
    put(sink, "d/run", b"#!" * 700_000, executable=True)
    sink.link("d/near", "./run", symbolic=True)
    sink.link("e/far", "../d//run", symbolic=True)
    sink.link("hard", "./d/run", symbolic=False)

    output = sink.commit()

    assert output.refused == {}
    for name in ("early", "d/near", "e/far", "hard"):
        path = output.files[name]
        assert not path.is_symlink()
        assert path.stat().st_nlink == 1
        assert path.read_bytes() == b"#!" * 700_000
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("target", "symbolic"),
    [
        ("/etc/passwd", True),
        ("/etc/passwd", False),
        ("../../secret", True),
        ("../d/kept/../../../secret", True),
        ("../kept", False),
        ("absent", True),
        ("", True),
        ("", False),
        (".", True),
        ("self", True),
        ("other", True),
        ("../d", True),
        ("d", False),
        ("refused/../../x", False),
        ("kept\0", True),
        ("\ud800", True),
        ("x/" * 3000, True),
    ],
)
def test_every_other_link_is_refused(
    sink: FileSink, tmp_path: Path, target: str, symbolic: bool
) -> None:
    (tmp_path / "secret").write_text("secret")
    put(sink, "d/kept")
    put(sink, "refused/../../x")
    sink.link("d/other", "kept", symbolic=True)

    sink.link("d/self", target, symbolic=symbolic)
    output = sink.commit()

    assert "link" in output.refused["d/self"] or "surrogate" in output.refused["d/self"]
    assert sorted(output.files) == ["d/kept", "d/other"]
    assert everything_in(output.path) == ["d", "d/kept", "d/other"]


def test_a_link_beneath_what_became_a_file_is_refused(sink: FileSink) -> None:
    put(sink, "kept")
    sink.link("d/link", "../kept", symbolic=True)
    put(sink, "d")

    output = sink.commit()

    assert list(output.refused) == ["d/link"]
    assert sorted(output.files) == ["d", "kept"]


def test_the_callers_reasons_are_told_and_the_first_is_kept(sink: FileSink) -> None:
    sink.refuse("fifo", "it is a FIFO")
    sink.refuse("fifo", "again")
    sink.refuse("n" * 5000, "long")

    assert sink.commit().refused == {"fifo": "it is a FIFO", "n" * 255 + "...": "long"}


@pytest.mark.parametrize("code", [errno.EEXIST, errno.EILSEQ, errno.ENAMETOOLONG])
def test_a_name_that_the_file_system_cannot_hold_is_refused(
    sink: FileSink, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    put(sink, "a")
    real = os.open

    def picky(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path.endswith(b"/A"):
            raise OSError(code, os.strerror(code))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", picky)
    put(sink, "A", b"other")
    output = sink.commit()

    assert os.strerror(code) in output.refused["A"]
    assert sorted(output.files) == ["a"]


@pytest.mark.parametrize(
    ("announced", "came"), [(3, b""), (3, b"ab"), (3, b"abcd"), (0, b"a"), (1, b"ab")]
)
def test_another_number_of_bytes_than_announced_is_an_error_and_leaves_nothing(
    tmp_path: Path, announced: int, came: bytes
) -> None:
    for name in ("kept", "../refused"):
        with pytest.raises(ResourceError, match="announced"), FileSink(tmp_path, PLACE) as sink:
            sink.begin(name, announced)
            sink.write(came)
            sink.end()
        assert everything_in(tmp_path) == []


def test_nobody_else_may_read_the_files_where_the_umask_would_let_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with FileSink(tmp_path, "0") as sink:
            put(sink, "d/run", executable=True)
            put(sink, "d/data")
            output = sink.commit()
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in output.path.rglob("*")}
    assert modes == {"d": 0o700, "run": 0o700, "data": 0o600}
    assert stat.S_IMODE(output.path.stat().st_mode) == 0o700


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_names_as_deep_and_as_long_as_can_be_are_kept(tmp_path: Path) -> None:
    deepest = "/".join("d" * 100)
    with FileSink(tmp_path, PLACE) as sink:
        place = sink.commit().path
    # PATH_MAX counts the NUL byte.
    room = 4095 - len(f"{place}/")
    longest = "/".join("n" * 199 for _ in range(room // 200 + 1))[: room - 1] + "e"
    with FileSink(tmp_path, PLACE) as sink:
        for name in (deepest, longest, f"{longest}e"):
            put(sink, name)
        output = sink.commit()
    assert list(output.files) == [deepest, longest]
    assert output.files[longest].read_bytes() == b"x"
    assert "path is longer" in output.refused[f"{longest}e"]


def test_what_is_exactly_within_the_limits_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    with FileSink(tmp_path, PLACE, Limits(30, 3, 5.0), clock=clock) as sink:
        put(sink, "a", bytes(10))
        put(sink, "../a", bytes(10))
        sink.link("b", "a", symbolic=False)
        clock.now += 5
        assert sorted(sink.commit().files) == ["a", "b"]


def _too_many_bytes(sink: FileSink, clock: Clock) -> None:
    put(sink, "b", bytes(21))


def _too_many_bytes_of_refused_members(sink: FileSink, clock: Clock) -> None:
    put(sink, "/b", bytes(21))


def _too_many_bytes_by_links(sink: FileSink, clock: Clock) -> None:
    put(sink, "b", bytes(9))
    sink.link("c", "b", symbolic=True)
    sink.link("d", "b", symbolic=True)
    sink.commit()


def _too_many_files(sink: FileSink, clock: Clock) -> None:
    for number in range(4):
        put(sink, f"f{number}", b"")


def _too_many_links(sink: FileSink, clock: Clock) -> None:
    for number in range(4):
        sink.link(f"f{number}", "/", symbolic=True)


def _too_many_refused(sink: FileSink, clock: Clock) -> None:
    for number in range(4):
        sink.refuse(f"f{number}", "no")


def _too_late_to_begin(sink: FileSink, clock: Clock) -> None:
    clock.now += 5.1
    sink.begin("b", 1)


def _too_late_to_write(sink: FileSink, clock: Clock) -> None:
    sink.begin("b", 2)
    clock.now += 5.1
    sink.write(b"b")


def _too_many_bytes_at_once(sink: FileSink, clock: Clock) -> None:
    sink.put("b", bytes(21))


def _too_late_to_put(sink: FileSink, clock: Clock) -> None:
    clock.now += 5.1
    sink.put("b", b"b")


def _too_late_to_commit(sink: FileSink, clock: Clock) -> None:
    clock.now += 5.1
    sink.commit()


@pytest.mark.parametrize(
    ("exceed", "limit", "value"),
    [
        (_too_many_bytes, "max_bytes", "30"),
        (_too_many_bytes_of_refused_members, "max_bytes", "30"),
        (_too_many_bytes_by_links, "max_bytes", "30"),
        (_too_many_files, "max_files", "4"),
        (_too_many_links, "max_files", "4"),
        (_too_many_refused, "max_files", "4"),
        (_too_late_to_begin, "max_seconds", "5"),
        (_too_late_to_write, "max_seconds", "5"),
        (_too_many_bytes_at_once, "max_bytes", "30"),
        (_too_late_to_put, "max_seconds", "5"),
        (_too_late_to_commit, "max_seconds", "5"),
    ],
)
def test_a_limit_that_is_exceeded_is_named_and_nothing_stays(
    tmp_path: Path, exceed: object, limit: str, value: str
) -> None:
    assert callable(exceed)
    clock = Clock()
    sink = FileSink(tmp_path, PLACE, Limits(30, 4, 5.0), clock=clock)
    put(sink, "a", bytes(10))

    with pytest.raises(LimitExceeded, match=rf"{limit}.*\b{value}\b") as exceeded:
        exceed(sink, clock)
    assert exceeded.value.limit == limit
    with pytest.raises(RuntimeError, match="failed"):
        sink.commit()

    sink.discard()
    assert everything_in(tmp_path) == []


def test_a_file_that_is_too_big_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    with FileSink(tmp_path, PLACE, Limits(max_bytes=10)) as sink:
        with pytest.raises(LimitExceeded):
            sink.begin("bomb", 2**62)
        assert sum(path.stat().st_size for path in tmp_path.rglob("bomb")) == 0


@pytest.mark.parametrize("field", ["max_bytes", "max_files", "max_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_lets_nothing_pass_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be positive"):
        Limits(**{field: value})  # type: ignore[arg-type]  # a float for an int is part of the test


names = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c" * 256]), max_size=4).map("/".join)
steps = st.lists(
    st.tuples(
        st.sampled_from(["whole", "pieces", "hard", "symbolic"]),
        names,
        names,
        st.binary(max_size=9),
    ),
    max_size=12,
)


@unhurried
@given(st.lists(st.tuples(names, st.binary(max_size=9), st.booleans()), max_size=6))
def test_a_file_at_once_is_kept_or_refused_as_one_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes, bool]]
) -> None:
    outcomes: list[object] = []
    for one_by_one in (put, FileSink.put):
        with FileSink(tmp_path_factory.mktemp("dest"), PLACE, Limits(max_files=5)) as sink:
            try:
                for name, data, executable in files:
                    one_by_one(sink, name, data, executable)
            except LimitExceeded as error:
                outcomes.append(error.limit)
                continue
            output = sink.commit()
        kept = {
            name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
            for name, path in output.files.items()
        }
        outcomes.append((kept, output.refused))
    assert outcomes[0] == outcomes[1]


@unhurried
@given(steps)
def test_whatever_members_come_only_regular_files_appear_and_only_in_their_place(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str, bytes]]
) -> None:
    around = tmp_path_factory.mktemp("around")
    (around / "a").write_text("outside")
    first: dict[str, bytes] = {}

    with FileSink(around / "dest", PLACE) as sink:
        for kind, name, target, data in steps:
            if kind in ("whole", "pieces"):
                if kind == "whole":
                    sink.put(name, data)
                else:
                    put(sink, name, data)
                if not name.startswith(
                    "/"
                ):  # which is refused, and does not stand for the name without
                    plain = "/".join(p for p in name.split("/") if p not in ("", "."))
                    first.setdefault(plain, data)
            else:
                sink.link(name, target, symbolic=kind == "symbolic")
        output = sink.commit()

    assert (around / "a").read_text() == "outside"
    assert sorted(path.name for path in around.iterdir()) == ["a", "dest"]
    assert everything_in(around / "dest")[:2] == ["sub", "sub/0"]
    found = {
        str(path.relative_to(output.path)) for path in output.path.rglob("*") if path.is_file()
    }
    assert found == set(output.files)
    for path in output.path.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.stat().st_nlink == 1
    for name, path in output.files.items():
        assert path.read_bytes() in first.values()
        assert path == output.path / name
    assert all(
        first[name] == path.read_bytes() for name, path in output.files.items() if name in first
    )
