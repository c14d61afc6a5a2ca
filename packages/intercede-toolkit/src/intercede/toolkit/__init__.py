"""Mechanics that every backend needs, each once."""

from ._lifetime import Lifetime
from ._runner import MARKER, ExitRecord, copy_variables, parse_exit, runner_script
from ._shell import Frames, Script, quote, quote_pattern

__all__ = [
    "MARKER",
    "ExitRecord",
    "Frames",
    "Lifetime",
    "Script",
    "copy_variables",
    "parse_exit",
    "quote",
    "quote_pattern",
    "runner_script",
]
