"""A probe that sees nothing proves nothing."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from intercede.contract import BackendContract, Resource
from intercede.contract._bench import Bench
from intercede.fake import FakeProbe

CONFIG = {"type": "fake", "site": "blind", "speed": 100.0}


class BlindProbe(FakeProbe):
    async def processes(self, marker: str) -> Sequence[str]:
        return []

    async def exposed(self, needle: bytes) -> Sequence[str]:
        return []


class Impatient(Resource):
    @property
    def patience_s(self) -> float:
        return 3.0


@pytest.mark.parametrize(
    "name",
    [
        "test_each_copy_runs_once",
        "test_a_secret_passes_through_no_argv_environment_or_open_file_and_stays_in_none",
    ],
)
@pytest.mark.parametrize("blind", [True, False])
def test_what_it_would_have_to_see_is_not_observed(tmp_path: Path, name: str, blind: bool) -> None:
    class Mine(BackendContract):
        resource = Impatient(
            config=CONFIG,
            seconds=0.05,
            clock=100.0,
            probe=(BlindProbe if blind else FakeProbe)("blind"),
        )

    bench = Bench(Mine.resource, CONFIG, tmp_path)
    if not blind:
        getattr(Mine(), name)(bench=bench)
        return
    with pytest.raises(pytest.skip.Exception, match="not observed: needs a probe that sees"):
        getattr(Mine(), name)(bench=bench)
