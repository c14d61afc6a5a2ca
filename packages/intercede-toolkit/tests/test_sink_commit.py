"""A sink's directory: it appears as a whole, replaces the older one, and leaves no debris, whatever goes wrong."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from intercede.toolkit import Destination, FileSink, sweep


def put(sink: FileSink, name: str, data: bytes = b"x") -> None:
    sink.begin(name, len(data))
    sink.write(data)
    sink.end()


def fetch(dest: Path, data: bytes, place: str = "sub/0") -> Path:
    with FileSink(dest, place) as sink:
        put(sink, "file", data)
        return sink.commit().path


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with FileSink(tmp_path, "sub/0") as sink:
        put(sink, "d/a")
        sink.begin("d/b", 100)
        sink.write(b"half")
    assert list(tmp_path.iterdir()) == []


def test_commit_and_discard_may_be_repeated(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "sub/0")
    put(sink, "a")

    output = sink.commit()

    assert sink.commit() is output
    sink.discard()
    sink.discard()
    assert output.files["a"].read_bytes() == b"x"


def test_discard_may_be_repeated_and_commits_no_more(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "sub/0")
    sink.discard()
    sink.discard()

    with pytest.raises(RuntimeError, match="discarded"):
        sink.commit()
    assert list(tmp_path.iterdir()) == []


def test_calls_out_of_order_are_errors_of_the_caller(tmp_path: Path) -> None:
    with FileSink(tmp_path, "sub/0") as sink:
        with pytest.raises(RuntimeError, match="no member"):
            sink.write(b"x")
        with pytest.raises(RuntimeError, match="no member"):
            sink.end()
        with pytest.raises(ValueError, match="size"):
            sink.begin("a", -1)
        sink.begin("a", 1)
        for call in (
            lambda: sink.begin("b", 1),
            lambda: sink.put("b", b"x"),
            lambda: sink.link("b", "a", symbolic=True),
            lambda: sink.refuse("b", "no"),
            sink.commit,
        ):
            with pytest.raises(RuntimeError, match="has not ended"):
                call()
        sink.write(b"x")
        sink.end()
        sink.commit()
        with pytest.raises(RuntimeError, match="committed"):
            sink.begin("b", 1)
        with pytest.raises(RuntimeError, match="committed"):
            sink.put("b", b"x")


@pytest.mark.parametrize("place", ["", ".", "../x", "/x", "a/../b", "a\0", "n" * 256])
def test_a_place_that_leaves_dest_is_refused_before_anything_is_made(
    tmp_path: Path, place: str
) -> None:
    with pytest.raises(ValueError, match="place"):
        FileSink(tmp_path / "dest", place)
    assert list(tmp_path.iterdir()) == []


def test_an_older_result_is_replaced_whole(tmp_path: Path) -> None:
    with FileSink(tmp_path, "sub/0") as sink:
        put(sink, "older/deep/file")
        sink.commit()

    path = fetch(tmp_path, b"new")

    assert [found.name for found in path.iterdir()] == ["file"]
    assert [found.name for found in tmp_path.iterdir()] == ["sub"]


def test_a_file_in_its_place_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "0").write_text("in the way")

    assert (fetch(tmp_path, b"new") / "file").read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["sub"]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    (tmp_path / "dest" / "sub").mkdir(parents=True)
    (tmp_path / "dest" / "sub" / "0").symlink_to(tmp_path / "outside")

    path = fetch(tmp_path / "dest", b"new")

    assert not path.is_symlink()
    assert names_in(tmp_path / "outside") == ["precious"]


def test_a_link_on_the_way_to_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "sub").symlink_to(tmp_path / "outside")

    with pytest.raises(OSError, match=r"directory|symbolic links"):
        fetch(tmp_path / "dest", b"new")
    assert names_in(tmp_path / "outside") == []
    assert names_in(tmp_path / "dest") == ["sub"]


def test_dest_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "dest").symlink_to("real")

    assert fetch(tmp_path / "dest", b"new") == tmp_path / "dest" / "sub" / "0"
    assert (tmp_path / "real/sub/0/file").read_bytes() == b"new"


def test_a_relative_dest_is_where_it_was_when_the_sink_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with FileSink(Path("dest"), "0") as sink:
        monkeypatch.chdir(tmp_path / "elsewhere")
        put(sink, "a")
        output = sink.commit()

    assert output.path == Path("dest/0")
    assert (tmp_path / "dest/0/a").exists()
    assert names_in(tmp_path / "elsewhere") == []


def test_a_dest_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match=r"."):
        FileSink(tmp_path / "file", "sub/0")


def test_a_full_disk_is_an_os_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def full(descriptor: int, data: memoryview) -> int:
        written.append(len(data))
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return 1

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"), FileSink(tmp_path, "sub/0") as sink:
        sink.begin("a", 100)
        try:
            sink.write(bytes(100))
        finally:
            # What broke off in the middle is not taken for whole.
            with pytest.raises(RuntimeError, match="failed"):
                sink.end()
    assert written == [100, 99, 98]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_for_a_file_at_once_is_an_os_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"), FileSink(tmp_path, "sub/0") as sink:
        try:
            sink.put("a", bytes(100))
        finally:
            # What broke off in the middle is not taken for whole.
            with pytest.raises(RuntimeError, match="failed"):
                sink.commit()
    assert list(tmp_path.iterdir()) == []
    assert os.listdir("/proc/self/fd") == before


def test_a_real_file_size_limit_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, pathlib
from intercede.toolkit import FileSink
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with FileSink(pathlib.Path({str(tmp_path)!r}), "0") as sink:
        sink.begin("a", 5000)
        sink.write(bytes(5000))
        sink.end()
        sink.commit()
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout == b"File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_tells_late_that_it_is_full_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FileSink(tmp_path, "sub/0")
    sink.begin("a", 1)
    sink.write(b"x")
    real = os.close

    def late(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", late)
        with pytest.raises(OSError, match="quota"):
            sink.end()
    with pytest.raises(RuntimeError, match="failed"):
        sink.commit()
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_leaves_nothing_when_the_file_it_closes_complains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FileSink(tmp_path, "sub/0")
    sink.begin("a", 1)
    real = os.close
    complaints: list[int] = []

    def late(descriptor: int) -> None:
        real(descriptor)
        if not complaints:
            complaints.append(descriptor)
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", late)
    sink.discard()

    assert complaints
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_nothing_and_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No space"), FileSink(tmp_path, "sub/0") as sink:
        put(sink, "a")
        sink.link("b", "a", symbolic=False)

        def full(descriptor: int, data: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        sink.commit()
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_open_fails_for_any_other_reason_as_an_os_error(tmp_path: Path) -> None:
    with FileSink(tmp_path, "sub/0") as sink:
        (private,) = tmp_path.iterdir()
        shutil.rmtree(private)
        with pytest.raises(FileNotFoundError):
            sink.begin("a", 1)


def test_a_rename_that_fails_leaves_the_older_result_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(tmp_path, b"older")
    real = os.rename
    tried: list[object] = []

    def failing(source: object, target: object, **where: int) -> None:
        tried.append(target)
        if len(tried) == 3:  # the older one has been moved aside
            raise OSError(errno.EIO, "Input/output error")
        real(source, target, **where)  # type: ignore[arg-type]  # whatever it was called with

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        fetch(tmp_path, b"new")

    assert (path / "file").read_bytes() == b"older"
    assert [found.name for found in tmp_path.iterdir()] == ["sub"]


def test_who_always_loses_the_race_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(tmp_path, b"older")
    real = os.rename

    def slow(source: object, target: object, **where: int) -> None:
        real(source, target, **where)  # type: ignore[arg-type]  # whatever it was called with
        if not path.exists():  # it was moved aside: another one is there at once
            path.mkdir()
            (path / "file").write_bytes(b"faster")

    monkeypatch.setattr(os, "rename", slow)
    with pytest.raises(FileExistsError, match="others keep"):
        fetch(tmp_path, b"new")

    assert (path / "file").read_bytes() == b"faster"
    assert [found.name for found in tmp_path.iterdir()] == ["sub"]


def test_of_fetches_that_race_each_ends_well_and_one_result_is_there_whole(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def race(number: int) -> None:
        try:
            for _ in range(20):
                with FileSink(tmp_path, "sub/0") as sink:
                    for name in ("a", "b", "c"):
                        put(sink, name, b"%d" % number)
                    sink.commit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert [found.name for found in tmp_path.iterdir()] == ["sub"]
    contents = {path.read_bytes() for path in (tmp_path / "sub/0").iterdir()}
    assert len(contents) == 1
    assert len(list((tmp_path / "sub/0").iterdir())) == 3


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("end", [FileSink.commit, FileSink.discard])
def test_a_sink_closes_nothing_but_what_it_has_opened(
    tmp_path: Path, end: Callable[[FileSink], object]
) -> None:
    sink = FileSink(tmp_path, "sub/0")
    put(sink, "a")
    sink.put("b", b"1")
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    end(sink)
    sink.discard()
    for other in others:
        os.close(other)


def test_the_directories_above_a_result_are_as_the_umask_has_them(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        place = fetch(tmp_path, b"1", "sub/0")
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o750


def test_the_sinks_of_a_destination_hold_two_descriptors_together(tmp_path: Path) -> None:
    before = _open_descriptors()
    with Destination(tmp_path) as destination:
        sinks = [FileSink(destination, f"sub/{number}") for number in range(50)]
        for sink in sinks:
            for name in ("d/a", "d/b", "e/f/c", "g", "d/h"):
                put(sink, name)
        assert _open_descriptors() == before + 1
        for sink in sinks[:25]:
            sink.commit()
        for sink in sinks[25:]:
            sink.discard()
        assert _open_descriptors() == before + 2
    assert _open_descriptors() == before
    assert len(names_in(tmp_path / "sub")) == 25
    assert names_in(tmp_path) == ["sub"]


@pytest.mark.parametrize("end", [FileSink.commit, FileSink.discard])
def test_a_sink_alone_leaves_no_descriptor(
    tmp_path: Path, end: Callable[[FileSink], object]
) -> None:
    before = _open_descriptors()
    sink = FileSink(tmp_path, "sub/0")
    put(sink, "d/a")
    end(sink)
    assert _open_descriptors() == before


def test_a_destination_that_is_closed_leaves_nothing_of_what_was_not_complete(
    tmp_path: Path,
) -> None:
    with Destination(tmp_path) as destination:
        sink = FileSink(destination, "sub/0")
        put(sink, "d/a")
        assert len(names_in(tmp_path)) == 1
        assert destination.path == tmp_path
    destination.close()
    assert names_in(tmp_path) == []


def test_results_of_several_submissions_each_find_their_place(tmp_path: Path) -> None:
    places = ["s/0", "s/1", "t/0", "s/2", "deep/er/0", "alone", "s/0"]
    before = _open_descriptors()
    with Destination(tmp_path / "dest") as destination:
        for number, place in enumerate(places):
            with FileSink(destination, place) as sink:
                put(sink, "file", b"%d" % number)
                assert sink.commit().path == tmp_path / "dest" / place
        assert _open_descriptors() == before + 2
    assert _open_descriptors() == before
    found = {place: (tmp_path / "dest" / place / "file").read_text() for place in places}
    assert found == {"s/0": "6", "s/1": "1", "t/0": "2", "s/2": "3", "deep/er/0": "4", "alone": "5"}
    assert names_in(tmp_path / "dest") == ["alone", "deep", "s", "t"]


def test_a_directory_that_somebody_removes_or_replaces_between_two_results_is_made_again(
    tmp_path: Path,
) -> None:
    with Destination(tmp_path) as destination:
        for number in range(3):
            with FileSink(destination, f"sub/{number}") as sink:
                put(sink, "file")
                assert sink.commit().files["file"].exists()
            shutil.rmtree(tmp_path / "sub")
            if number == 1:
                (tmp_path / "sub").mkdir()


def test_a_destination_keeps_nothing_of_jobs_that_are_over_while_it_is_open(tmp_path: Path) -> None:
    (tmp_path / "sub/2").mkdir(parents=True)
    (tmp_path / "sub/2/older").touch()
    (tmp_path / "sub/3").write_text("in the way")
    (tmp_path / "sub/4").symlink_to("2")
    with Destination(tmp_path) as destination:
        (private,) = (tmp_path / name for name in names_in(tmp_path) if name != "sub")
        for number in range(5):
            with FileSink(destination, f"sub/{number}") as sink:
                put(sink, "d/file")
                assert names_in(private) == [f"{number + 1}"]
                if number:
                    sink.commit()
            assert names_in(private) == []
    assert names_in(tmp_path / "sub") == ["1", "2", "3", "4"]
    assert names_in(tmp_path / "sub/2") == ["d"]


def test_a_sink_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _open_descriptors()
    real = os.mkdir

    def full(path: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space"):
        FileSink(tmp_path, "sub/0")
    assert names_in(tmp_path) == []
    assert _open_descriptors() == before


def test_a_destination_for_which_no_descriptor_is_left_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def short(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if b".intercede-" in path:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", short)
        with pytest.raises(OSError, match="Too many"):
            Destination(tmp_path)
    assert names_in(tmp_path) == []


def test_a_place_that_cannot_be_reached_fails_its_job_alone_and_leaves_no_descriptor(
    tmp_path: Path,
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/link").symlink_to(tmp_path)
    before = _open_descriptors()
    with Destination(tmp_path) as destination:
        for place in ("deep/er/0", "deep/link/0", "deep/er/1"):
            with FileSink(destination, place) as sink, suppress(NotADirectoryError):
                put(sink, "file")
                sink.commit()
        assert _open_descriptors() == before + 2
    assert names_in(tmp_path) == ["deep"]
    assert names_in(tmp_path / "deep/er") == ["0", "1"]
    assert _open_descriptors() == before


def test_a_destination_that_somebody_removes_is_an_os_error(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    before = _open_descriptors()
    with Destination(dest) as destination:
        shutil.rmtree(dest)
        with pytest.raises(FileNotFoundError):
            FileSink(destination, "sub/0")
    assert not dest.exists()
    assert _open_descriptors() == before


def test_thousands_of_small_files_take_no_time_to_speak_of(tmp_path: Path) -> None:
    started = time.process_time()
    with FileSink(tmp_path, "sub/0") as sink:
        for number in range(5000):
            put(sink, f"d{number % 20}/f{number}", b"x" * 100)
        assert len(sink.commit().files) == 5000
    # Of this machine's time, so that other work on it does not matter; a tenth of it is usual.
    assert time.process_time() - started < 5


# ------------------------------------------------------------ sweep


def abandoned_by_a_killed_fetch(dest: Path) -> None:
    program = f"""
import pathlib, time
from intercede.toolkit import FileSink
sink = FileSink(pathlib.Path({str(dest)!r}), "sub/0")
sink.begin("d/half", 100)
sink.write(b"half")
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        sweep(dest)
        assert len(list(dest.iterdir())) == 1, "a fetch under way is left alone"
        process.send_signal(signal.SIGKILL)


def test_what_a_killed_fetch_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    abandoned_by_a_killed_fetch(tmp_path)
    fetch(tmp_path, b"done")
    (tmp_path / ".intercede-mine").mkdir()
    with FileSink(tmp_path, "sub/1") as sink:
        put(sink, "a")
        (left,) = (
            found
            for found in tmp_path.iterdir()
            if found.name.startswith(".intercede-") and f"-{os.getpid()}-" not in found.name
            if found.name != ".intercede-mine"
        )

        sweep(tmp_path)

        assert not left.exists()
        sink.commit()
    assert names_in(tmp_path) == [".intercede-mine", "sub"]
    assert names_in(tmp_path / "sub") == ["0", "1"]


def own_private_name(dest: Path) -> str:
    with FileSink(dest, "0"):
        (name,) = names_in(dest)
    return name


def test_a_process_id_that_was_given_to_another_process_is_not_taken_for_the_first(
    tmp_path: Path,
) -> None:
    machine, pid, start, tail = own_private_name(tmp_path).removeprefix(".intercede-").split("-")
    (tmp_path / f".intercede-{machine}-{pid}-{int(start) + 1}-{tail}").mkdir()
    (tmp_path / f".intercede-{machine}-{pid}-{start}-{tail}").mkdir()
    (tmp_path / f".intercede-{machine}-{pid}-0-{tail}").mkdir()

    sweep(tmp_path)

    assert names_in(tmp_path) == sorted(
        [f".intercede-{machine}-{pid}-{start}-{tail}", f".intercede-{machine}-{pid}-0-{tail}"]
    )


def test_what_another_machine_left_is_swept_after_a_week(tmp_path: Path) -> None:
    name = ".intercede-0123456789ab-999999999-5-0123456789abcdef"
    (tmp_path / name).mkdir()

    sweep(tmp_path)
    assert names_in(tmp_path) == [name]

    week_ago = time.time() - 8 * 86_400
    os.utime(tmp_path / name, (week_ago, week_ago))
    sweep(tmp_path)
    assert names_in(tmp_path) == []


def test_what_belongs_to_another_user_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned_by_a_killed_fetch(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    sweep(tmp_path)

    assert len(names_in(tmp_path)) == 1


def test_sweeping_where_nothing_is_or_while_another_sweeps_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(tmp_path / "absent")
    monkeypatch.setattr(
        os, "listdir", lambda path: [b".intercede-0123456789ab-1-1-0123456789abcdef"]
    )
    sweep(tmp_path)


def test_a_link_with_such_a_name_is_removed_and_not_followed(tmp_path: Path) -> None:
    machine, _, start, tail = own_private_name(tmp_path).removeprefix(".intercede-").split("-")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / f".intercede-{machine}-999999999-{start}-{tail}").symlink_to("precious")

    sweep(tmp_path)

    assert names_in(tmp_path) == ["precious"]
    assert (tmp_path / "precious" / "file").exists()


def test_without_proc_a_process_is_still_told_from_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from intercede.toolkit import _private

    def no_proc(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", no_proc)
    monkeypatch.setattr(Path, "read_text", no_proc)
    caches = (_private._machine, _private._private_prefix)
    for each in caches:
        each.cache_clear()
    try:
        with FileSink(tmp_path, "0") as sink:
            (name,) = names_in(tmp_path)
            machine, pid, start, tail = name.removeprefix(".intercede-").split("-")
            assert (pid, start) == (str(os.getpid()), "0")
            (tmp_path / f".intercede-{machine}-999999999-0-{tail}").mkdir()
            (tmp_path / f".intercede-{machine}-1-7-{tail}").mkdir()

            def kill(pid: int, number: int) -> None:
                assert number == 0
                if pid == 999999999:
                    raise ProcessLookupError
                if pid == 1:
                    raise PermissionError

            monkeypatch.setattr(os, "kill", kill)
            sweep(tmp_path)
            assert names_in(tmp_path) == sorted([name, f".intercede-{machine}-1-7-{tail}"])
            put(sink, "a")
            sink.commit()
    finally:
        for each in caches:
            each.cache_clear()
