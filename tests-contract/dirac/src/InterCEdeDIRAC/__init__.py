"""An extension of DIRAC with one computing element, `InterCEde`."""

from __future__ import annotations

__all__ = ["extension_metadata"]


def extension_metadata() -> dict[str, object]:
    """What DIRAC asks of every extension."""
    return {"priority": 10, "setups": {}}
