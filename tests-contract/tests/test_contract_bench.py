"""A test's workbench clears up, whatever becomes of the test."""

import asyncio
from pathlib import Path

import pytest

from intercede.contract import Resource
from intercede.contract._bench import Bench
from intercede.fake import FakeProbe

#: At a speed of 100.
SLOW = {"operation": "purge", "kind": "slow", "times": 0, "seconds": 30}


async def opened(folder: Path, **config: object) -> Bench:
    site = folder.name
    resource = Resource(
        config={"type": "fake", "site": site, "speed": 100.0, **config},
        seconds=0.05,
        probe=FakeProbe(site),
    )
    bench = Bench(resource, resource.config, folder)
    await bench.open()
    return bench


@pytest.mark.parametrize("after_s", [0.0, 0.1])
async def test_clearing_up_that_is_interrupted_is_done_all_the_same(
    tmp_path: Path, after_s: float
) -> None:
    bench = await opened(tmp_path, faults=[SLOW])
    (job,) = await bench.start("sleep", bench.forever)
    closing = asyncio.create_task(bench.close())
    await asyncio.sleep(after_s)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await bench.probe.sandbox(bench.handle(job)) is None


async def test_a_place_on_the_host_is_free_and_goes_with_the_test(tmp_path: Path) -> None:
    bench = await opened(tmp_path)
    place = await bench.place_on_the_host()
    probe = FakeProbe(tmp_path.name)
    assert await probe.read(place) is None
    await probe.write(f"{place}/x", b"x")
    await bench.close()
    assert await probe.read(f"{place}/x") is None
