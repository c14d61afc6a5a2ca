"""Exit codes: the table that scripts rely on, and the error that leads to each."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from intercede.core import (
    ConfigurationError,
    InterCEdeError,
    PartialFailure,
    PluginError,
    SpecRefused,
    SubmitUncertain,
    unstructure,
)

__all__ = ["ExitCode", "UsageError", "error_document", "exit_code_of"]


class UsageError(ConfigurationError):
    """The command line makes no sense."""


class ExitCode(IntEnum):
    """What the command returns. `run` returns the job's own exit code where there is one."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    RESOURCE = 3
    UNCERTAIN = 4
    TIMED_OUT = 124
    INTERRUPTED = 130


#: The first that fits; whatever else is an `InterCEdeError` means that the resource could not be used.
_BY_ERROR: Final[tuple[tuple[type[InterCEdeError], ExitCode], ...]] = (
    (ConfigurationError, ExitCode.USAGE),
    (SpecRefused, ExitCode.USAGE),
    (PluginError, ExitCode.USAGE),
    (SubmitUncertain, ExitCode.UNCERTAIN),
    (PartialFailure, ExitCode.SOME_FAILED),
)


def exit_code_of(error: InterCEdeError | OSError) -> ExitCode:
    """The exit code for an error that ended the command. An `OSError` is about this machine's own files."""
    if isinstance(error, OSError):
        return ExitCode.SOME_FAILED
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.RESOURCE)


#: What an error tells besides its message, where it has it.
_ATTRIBUTES: Final = (
    "message",
    "resource",
    "operation",
    "remedy",
    "said",
    "path",
    "candidates",
    "field",
    "may_have_run",
    "refused",
    "mark",
    "handles",
    "failures",
)


def error_document(error: InterCEdeError | OSError) -> dict[str, object]:
    """The error, for JSON."""
    document: dict[str, object] = {
        "type": type(error).__name__,
        "message": str(error),
        "exit_code": int(exit_code_of(error)),
    }
    if isinstance(error, InterCEdeError):
        document.update(
            (name, unstructure(getattr(error, name)))
            for name in _ATTRIBUTES
            if hasattr(error, name)
        )
    return document
