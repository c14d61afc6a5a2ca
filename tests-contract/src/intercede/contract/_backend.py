"""All rules about backends, in one class to derive from."""

from __future__ import annotations

import pytest

#: The modules whose assertions pytest shall explain; it must hear of them before they are imported.
_EXPLAINED = (
    "bench",
    "counts",
    "diagnostics",
    "errors",
    "kill",
    "life",
    "output",
    "purge",
    "status",
    "submit",
)
pytest.register_assert_rewrite(*(f"{__package__}._{name}" for name in _EXPLAINED))

from ._counts import CountRules  # noqa: E402
from ._diagnostics import DiagnosticsRules  # noqa: E402
from ._errors import ErrorRules  # noqa: E402
from ._guard import Guarded  # noqa: E402
from ._kill import KillRules  # noqa: E402
from ._life import LifeRules  # noqa: E402
from ._output import OutputRules  # noqa: E402
from ._purge import PurgeRules  # noqa: E402
from ._status import StatusRules  # noqa: E402
from ._submit import SubmitRules  # noqa: E402

__all__ = ["BackendContract"]


class BackendContract(
    LifeRules,
    SubmitRules,
    StatusRules,
    OutputRules,
    KillRules,
    PurgeRules,
    CountRules,
    DiagnosticsRules,
    ErrorRules,
    Guarded,
):
    """Every rule for a backend. Derive from it, name the class `Test...`, and give it a `resource`."""
