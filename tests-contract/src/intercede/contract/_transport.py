"""All rules about transports, in one class to derive from."""

from __future__ import annotations

import pytest

# pytest must hear of assertions that it shall explain before they are imported.
pytest.register_assert_rewrite(f"{__package__}._transport_rules")

from ._guard import Guarded  # noqa: E402
from ._transport_rules import TransportRules  # noqa: E402

__all__ = ["TransportContract"]


class TransportContract(TransportRules, Guarded):
    """Every rule for a transport. Derive from it, name the class `Test...`, and give it a `resource`."""
