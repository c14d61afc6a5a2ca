"""All rules about schedulers, in one class to derive from."""

from __future__ import annotations

import pytest

# pytest must hear of assertions that it shall explain before they are imported.
pytest.register_assert_rewrite(f"{__package__}._scheduler_rules")

from ._guard import Guarded  # noqa: E402
from ._scheduler_rules import SchedulerRules  # noqa: E402

__all__ = ["SchedulerContract"]


class SchedulerContract(SchedulerRules, Guarded):
    """Every rule for a scheduler. Derive from it, name the class `Test...`, and give it a `resource`."""
