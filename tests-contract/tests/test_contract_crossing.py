"""A failure shows what last crossed the transport."""

import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

from intercede.contract import Faults
from intercede.contract._crossing import Crossed, heard, listen
from intercede.core import JobBackend, SubmissionSpec, registry

BACKEND = """
from intercede.contract import BackendContract, Resource
from intercede.contract._verdict import rule


class TestMine(BackendContract):
    resource = Resource(config={config!r}, seconds=0.3)

    @rule("T1")
    async def test_mine(self, bench):
        await bench.backend.counts()
        assert 1 + 1 == 3
"""

TRANSPORT = """
from intercede.contract import TransportContract, TransportResource
from intercede.contract._verdict import rule
from intercede.core import Command


class TestMine(TransportContract):
    resource = TransportResource(config="local", seconds=0.3)

    @rule("X1")
    async def test_mine(self, transport):
        await transport.run(Command(("echo", "hello")))
        assert 1 + 1 == 3
"""


def _config(folder: Path) -> dict[str, object]:
    return {"transport": "local", "scheduler": "direct", "root": str(folder / "sandboxes")}


async def test_the_commands_of_a_composed_backend_are_heard(tmp_path: Path) -> None:
    crossed = Crossed(maxlen=3)
    async with registry.backend(_config(tmp_path)) as backend:
        listen(backend, crossed)
        submission = await backend.submit(SubmissionSpec("/bin/true", resident=True))
        await backend.status([handle.id for handle in submission.handles])
    assert len(crossed) > 1
    assert all(text.startswith("$ sh -c") for text in crossed)
    assert "exit code 0, stdout: " in crossed[-1]


async def test_a_backend_without_a_transport_has_nothing_to_hear() -> None:
    crossed = Crossed()
    async with registry.backend({"type": "fake"}) as backend:
        listen(backend, crossed)
        await backend.status([])
    assert not crossed


async def test_the_commands_of_a_backend_that_faults_made_are_heard(tmp_path: Path) -> None:
    class Well:
        """Nothing goes wrong here."""

        def unreachable(
            self, config: Mapping[str, object]
        ) -> AbstractAsyncContextManager[JobBackend]:
            return registry.backend(config)

    crossed = Crossed(maxlen=3)
    faults = heard(cast("Faults", Well()), crossed)
    async with faults.unreachable(_config(tmp_path)) as backend:
        submission = await backend.submit(SubmissionSpec("/bin/true", resident=True))
        await backend.status([handle.id for handle in submission.handles])
    assert "exit code 0, stdout: " in crossed[-1]


def test_a_failure_shows_rule_expectation_finding_and_the_last_commands(tmp_path: Path) -> None:
    said = _failure(tmp_path, BACKEND.format(config=_config(tmp_path)))
    assert said.startswith("T1: every id gets an answer")
    assert "\nexpected: mine\nseen: assert (1 + 1) == 3\n" in said
    assert "\nthe last commands that crossed the transport:\n$ sh -c" in said
    assert "\n  = exit code 0" in said


def test_a_failure_of_a_transport_shows_its_last_commands(tmp_path: Path) -> None:
    said = _failure(tmp_path, TRANSPORT)
    assert "\nexpected: mine\nseen: assert (1 + 1) == 3\n" in said
    assert said.count("$ echo hello\n  = exit code 0, stdout: hello\n") == 1


def _failure(folder: Path, module: str) -> str:
    """What is said of a test that fails."""
    (folder / "test_mine.py").write_text(module)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "intercede.contract.plugin"),
            "test_mine.py::TestMine::test_mine",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    return done.stdout.partition("- contract -")[2].partition("\n")[2]
