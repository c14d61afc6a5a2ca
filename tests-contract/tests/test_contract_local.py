"""The suite, held against real processes in real sandboxes on this machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from intercede.contract import BackendContract, LocalProbe, Resource
from intercede.toolkit import StaticCredentials
from stacks._faults import StackFaults

ROOT = Path(os.environ["INTERCEDE_CONTRACT_ROOT"])


def resource(place: str) -> Resource:
    """This machine, with the sandboxes in a place of their own: the workers there have the tools of whoever started them."""
    config = {
        "transport": {"type": "local"},
        "scheduler": {"type": "direct", "slots": 100},
        "root": str(ROOT / place),
    }
    alone = {**config, "root": str(ROOT / f"{place}-{{unique}}")}
    probe = LocalProbe(ROOT / place)
    return Resource(
        config=config,
        seconds=0.3,
        other_process=True,
        narrow={**alone, "scheduler": {"type": "direct", "slots": 1}},
        limited={
            "bytes": {**alone, "output_max_bytes": 100_000},
            "files": {**alone, "output_max_files": 20},
            "seconds": {**alone, "output_max_s": 0.2},
        },
        probe=probe,
        faults=StackFaults(StaticCredentials, probe),
    )


class TestLocalDirect(BackendContract):
    resource = resource("shared")


class TestLocalDirectWithoutTar(BackendContract):
    """All the usual tools but one."""

    resource = resource("without-tar")

    @pytest.fixture(autouse=True)
    def tools(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path_factory.mktemp("tools")
        for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
            for tool in Path(folder).glob("*"):
                if not (place / tool.name).exists() and "tar" not in tool.name:
                    (place / tool.name).symlink_to(tool)
        monkeypatch.setenv("PATH", str(place))


class TestLocalDirectOnBusyBox(BackendContract):
    """BusyBox and nothing else, but for `flock`, which Debian leaves out of it."""

    resource = resource("busybox")

    @pytest.fixture(autouse=True)
    def tools(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path_factory.mktemp("tools")
        busybox, flock = shutil.which("busybox"), shutil.which("flock")
        assert busybox is not None and flock is not None, "apt-get install busybox util-linux"
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        for tool in listed.stdout.split():
            (place / tool).symlink_to(busybox)
        if not (place / "flock").exists():
            (place / "flock").symlink_to(flock)
        monkeypatch.setenv("PATH", str(place))
