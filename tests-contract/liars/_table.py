"""All liars, in one table: importing this fills it."""

from __future__ import annotations

from . import _lies_elsewhere, _lies_ending, _lies_life, _lies_output, _lies_status, _lies_submit
from ._honest import HONEST, LIARS, Liar, resource_of

__all__ = ["HONEST", "LIARS", "Liar", "resource_of"]

_ = (_lies_elsewhere, _lies_ending, _lies_life, _lies_output, _lies_status, _lies_submit)
