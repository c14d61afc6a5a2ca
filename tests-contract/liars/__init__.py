"""Backends that lie: each breaks one rule of the contract, in a way that a tired engineer would.

They are for the suite's own quality: a rule whose liar is not caught is a rule that is not tested. `python -m liars` runs them.
"""

from intercede.core.registry import BackendPlugin

from ._honest import LiarConfig, make
from ._table import LIARS

__all__ = ["LIARS", "backend"]

#: The entry point `liar` of `intercede.backends`, while the liars are run.
backend = BackendPlugin(config=LiarConfig, make=make, summary="A backend that breaks one rule")
