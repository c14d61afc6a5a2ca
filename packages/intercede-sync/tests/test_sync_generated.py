"""The protocols are generated, fresh, and all of them."""

from __future__ import annotations

import importlib.util
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from intercede import core, sync
from intercede.sync import _protocols

FOLDER = Path(__file__).parents[1]
GENERATOR = FOLDER / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    found = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_synchronous_protocols_are_fresh() -> None:
    done = _check(FOLDER)
    assert done.returncode == 0, done.stderr


def test_a_stale_one_is_noticed_and_written_anew(tmp_path: Path) -> None:
    place = tmp_path / "src" / "intercede" / "sync"
    place.mkdir(parents=True)
    shutil.copy(GENERATOR, tmp_path)
    source = FOLDER / "src" / "intercede" / "sync" / "_protocols.py"
    for stale in (None, source.read_text().replace("def kill", "def end")):
        if stale is not None:
            (place / "_protocols.py").write_text(stale)
        done = _check(tmp_path)
        assert (done.returncode, done.stderr) == (
            1,
            "_protocols.py is stale; run: hatch run sync\n",
        )

    subprocess.run([sys.executable, tmp_path / "generate.py"], timeout=60, check=True)
    assert _check(tmp_path).returncode == 0


def test_every_protocol_of_the_contract_is_here_or_left_out_by_name(generate: ModuleType) -> None:
    protocols = {
        name for name in core.__all__ if getattr(getattr(core, name), "_is_protocol", False)
    }
    assert protocols >= generate.LEFT_OUT
    assert set(_protocols.__all__) == protocols - generate.LEFT_OUT
    assert set(_protocols.__all__) <= set(sync.__all__)


def test_a_new_protocol_or_method_of_the_contract_makes_it_stale(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generate.rendered()
    monkeypatch.setattr(generate, "LEFT_OUT", generate.LEFT_OUT | {"Purgeable"})
    assert generate.rendered() != before


def test_what_has_no_synchronous_form_stops_the_generator(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "LEFT_OUT", frozenset({"Process", "Scheduler"}))
    with pytest.raises(ValueError, match=r"'Async\w+' has no synchronous form here"):
        generate.rendered()


def test_a_sentence_that_is_gone_is_not_reworded_in_silence(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "REWORDED", {"no docstring says this": ""})
    with pytest.raises(ValueError, match="no docstring says 'no docstring says this' any more"):
        generate.rendered()


@pytest.mark.parametrize("name", [name for name in _protocols.__all__ if name != "JobBackend"])
def test_a_protocol_has_the_methods_of_the_asynchronous_one_and_none_is_a_coroutine(
    name: str,
) -> None:
    members = {n: m for n, m in vars(getattr(core, name)).items() if _is_member(n, m)}
    here = {n: m for n, m in vars(getattr(sync, name)).items() if _is_member(n, m)}

    assert [_protocols.RENAMED.get(member, member) for member in members] == list(here)
    assert not any(map(inspect.iscoroutinefunction, here.values()))
    for member, declared in members.items():
        synchronous = here[_protocols.RENAMED.get(member, member)]
        assert bool(synchronous.__doc__) == bool(declared.__doc__)
        if not isinstance(declared, property):
            assert inspect.signature(synchronous) == inspect.signature(declared)


def _is_member(name: str, member: object) -> bool:
    own = not name.startswith("_") or name in {*_protocols.RENAMED, *_protocols.RENAMED.values()}
    return own and (inspect.isfunction(member) or isinstance(member, property))
