"""The probe that has nothing but a shell, against this machine, where everything it says can be seen another way."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intercede.contract import Probe
from intercede.core import JobHandle, JobID
from stacks._probe import ShellProbe


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "a root"
    place.mkdir(mode=0o755)
    return place


@pytest.fixture
def probe(root: Path) -> ShellProbe:
    return ShellProbe((), str(root))


def test_it_is_a_probe(probe: ShellProbe) -> None:
    assert isinstance(probe, Probe)


async def test_it_sees_a_process_by_an_argument_and_by_its_environment(probe: ShellProbe) -> None:
    mark = f"mark-{os.urandom(8).hex()}"
    by_argument = ["sh", "-c", "sleep 60; :", mark]
    plain = ["sleep", "60"]
    with (
        subprocess.Popen(by_argument) as one,
        subprocess.Popen(plain, env={**os.environ, "MARK": mark}) as two,
    ):
        try:
            found = await probe.processes(mark)
            numbers = {int(text.partition(":")[0]) for text in found}
            assert {one.pid, two.pid} <= numbers
            assert any(mark in text for text in found)
        finally:
            subprocess.run(["pkill", "-P", str(one.pid)], check=False)
            one.kill()
            two.kill()
    assert await probe.processes(mark) == []


async def test_it_does_not_see_a_process_that_has_ended_and_waits_to_be_collected(
    probe: ShellProbe,
) -> None:
    mark = f"mark-{os.urandom(8).hex()}"
    child = subprocess.Popen(["sh", "-c", ":", mark])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert await probe.processes(mark) == []
    child.wait()


async def test_a_secret_in_a_process_is_exposed(probe: ShellProbe) -> None:
    secret = os.urandom(8).hex()
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "TOKEN": secret}) as child:
        try:
            [place] = await probe.exposed(secret.encode())
            assert place.startswith(f"arguments or environment of process {child.pid}: ")
        finally:
            child.kill()
    assert await probe.exposed(secret.encode()) == []


@pytest.mark.parametrize(
    ("folder", "mode", "exposed"),
    [(0o755, 0o644, True), (0o755, 0o600, False), (0o700, 0o644, False), (0o711, 0o604, True)],
)
async def test_a_secret_in_a_file_is_exposed_if_others_can_come_to_it_and_read_it(
    probe: ShellProbe, root: Path, folder: int, mode: int, exposed: bool
) -> None:
    for place in (root, *root.parents[:-2]):  # pytest's own folders are closed
        place.chmod(0o755)
    secret = b"\0\xff" + os.urandom(8)
    file = root / "b" / "a file\nof two lines"
    file.parent.mkdir()
    file.write_bytes(b"1234" + secret)
    file.chmod(mode)
    file.parent.chmod(folder)
    found = await probe.exposed(secret)
    assert bool(found) is exposed


async def test_nothing_is_exposed_beneath_a_root_that_is_closed(
    probe: ShellProbe, root: Path
) -> None:
    (root / "file").write_bytes(b"secret")
    (root / "file").chmod(0o644)
    root.chmod(0o700)
    assert await probe.exposed(b"secret-of-a-file-only") == []
    assert [place for place in await probe.exposed(b"secret") if "readable" in place] == []


async def test_it_finds_the_sandbox_of_a_copy(probe: ShellProbe, root: Path) -> None:
    (root / "s1" / "0").mkdir(parents=True)

    def handle(copy: int) -> JobHandle:
        return JobHandle(
            id=JobID(f"r/s1/{copy}"),
            backend="batch",
            resource="r",
            submission="s1",
            copy=copy,
            submitted_at=datetime.now(UTC),
        )

    assert await probe.sandbox(handle(0)) == str(root / "s1" / "0")
    assert await probe.sandbox(handle(1)) is None


async def test_files_are_written_with_their_parents_and_read_byte_for_byte(
    probe: ShellProbe, root: Path
) -> None:
    content = bytes(range(256))
    await probe.write(f"{root}/x y/z", content)
    assert (root / "x y" / "z").read_bytes() == content
    assert await probe.read(f"{root}/x y/z") == content
    assert await probe.read(f"{root}/x y") is None
    assert await probe.read(f"{root}/none") is None


async def test_a_directory_is_replaced_by_a_link(probe: ShellProbe, root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    await probe.replace_by_link(f"{root}/d", "/somewhere else")
    assert (root / "d").readlink() == Path("/somewhere else")


async def test_files_links_and_directories_are_removed_and_links_not_followed(
    probe: ShellProbe, root: Path
) -> None:
    (root / "kept" / "x").mkdir(parents=True)
    (root / "d" / "e").mkdir(parents=True)
    (root / "f").write_text("f")
    (root / "link").symlink_to(root / "kept")
    for name in ("d", "f", "link", "none"):
        await probe.remove(f"{root}/{name}")
    assert [path.name for path in root.iterdir()] == ["kept"]
    assert (root / "kept" / "x").is_dir()


async def test_its_scratch_is_outside_the_root(probe: ShellProbe, root: Path) -> None:
    scratch = Path(await probe.scratch())
    assert scratch.is_dir()
    assert not scratch.is_relative_to(root)


async def test_a_host_that_is_not_there_is_an_error_with_its_words() -> None:
    probe = ShellProbe(("sh", "-c", "echo no such container >&2; exit 125"), "/x")
    with pytest.raises(RuntimeError, match="125: no such container"):
        await probe.processes("mark")
