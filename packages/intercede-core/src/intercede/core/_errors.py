"""What can go wrong with a whole operation.

Whatever can fail for one job fails for that job, in the result (`Failure`); only what fails for all of them raises, and it raises one
of these. The tree:

    InterCEdeError
    +- ConfigurationError      what came from outside has the wrong form (also a ValueError)
    +- PluginError
    |  +- PluginNotFound       nobody provides the name
    |  +- PluginConflict       several provide it and nothing says which
    |  +- PluginBroken         its import or its construction failed
    |  +- PluginNonConforming  what it made lacks members of the protocol
    +- SpecRefused             a specification that cannot be honoured (also a ValueError)
    +- AuthenticationError
    +- TransportError
    |  +- Unreachable          nothing answered; nothing has run
    |  +- HostKeyError         somebody answered who is not known; nothing has run
    |  +- ConnectionLost       it broke; `may_have_run` tells whether the command may have run
    |  +- OperationTimeout     it took too long; `may_have_run` likewise
    +- ResourceError           the resource answered, and said no, or nothing that parses
    +- SubmitUncertain         something was sent, and whether it arrived could not be learnt in time
    +- PartialFailure          from `raise_for_failures`
    +- ClosedError             used after `aclose`, or from another event loop

A message reads `resource: operation: what was found; what to do`. No error carries a secret in any of its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ._jobs import Failure, JobID
    from ._spec import JobHandle

__all__ = [
    "AuthenticationError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionLost",
    "HostKeyError",
    "InterCEdeError",
    "OperationTimeout",
    "PartialFailure",
    "PluginBroken",
    "PluginConflict",
    "PluginError",
    "PluginNonConforming",
    "PluginNotFound",
    "ResourceError",
    "SpecRefused",
    "SubmitUncertain",
    "TransportError",
    "Unreachable",
]

#: How much of the daemon's own words an error repeats, in characters.
_SAID_LIMIT = 2000


class InterCEdeError(Exception):
    """The root of everything that interCEde raises on purpose.

    Attributes:
        message: What was found.
        resource: The name of the resource, "" until somebody who knows it calls `at`.
        operation: What was being done, "" likewise.
        remedy: What to do about it, "" where nothing is known to help.
        said: The daemon's own words, shortened to 2,000 characters, "" where it said nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str = "",
        operation: str = "",
        remedy: str = "",
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource
        self.operation = operation
        self.remedy = remedy
        self.said = said.strip()[:_SAID_LIMIT]

    def at(self, resource: str, operation: str) -> Self:
        """Fill in where it happened, unless that is known already. Returns the error itself, to be raised."""
        self.resource = self.resource or resource
        self.operation = self.operation or operation
        return self

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.resource, self.operation) if part)
        text = f"{where}: {self.message}" if where else self.message
        if self.remedy:
            text = f"{text}; {self.remedy}"
        if self.said:
            text = f"{text}\n  it said: {self.said}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[InterCEdeError], args: tuple[object, ...], state: dict[str, object]
) -> InterCEdeError:
    """Unpickle without calling `__init__`, whose parameters differ from class to class."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(InterCEdeError, ValueError):
    """What came from outside (a configuration, JSON from a database) has the wrong form.

    Attributes:
        path: The key, as in `transport.port` or `inputs[2].name`; "" for the whole.
        value: What stood there, as text, shortened; "" if it is a table or a list, or of a field that holds secrets.
        candidates: Names that would have been accepted, the likeliest first.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        value: object = None,
        candidates: Sequence[str] = (),
        remedy: str = "",
        resource: str = "",
        operation: str = "",
    ) -> None:
        if candidates and not remedy:
            remedy = f"known here: {', '.join(candidates)}"
        super().__init__(
            f"{path}: {message}" if path else message,
            resource=resource,
            operation=operation,
            remedy=remedy,
        )
        self.path = path
        self.value = _shown(value)
        self.candidates = tuple(candidates)


def _shown(value: object) -> str:
    """A plain value in short. Tables may hold what nobody meant to print, and can be of any size and depth."""
    if isinstance(value, str):
        return repr(value[:200])
    if isinstance(value, (int, float)):
        return str(value) if abs(value) < 10**100 else "a huge number"
    return ""


class PluginError(InterCEdeError):
    """Something is wrong with a plugin, or with the choice among plugins."""


class PluginNotFound(PluginError):
    """No installed distribution provides the name. The message lists what is there, and what to install."""


class PluginConflict(PluginError):
    """Several distributions provide the name and no preference says which. The message names them."""


class PluginBroken(PluginError):
    """The plugin's module could not be imported, or its construction failed. The cause is attached."""


class PluginNonConforming(PluginError):
    """What the plugin provides does not fulfil its group's protocol. The message names what is missing."""


class SpecRefused(InterCEdeError, ValueError):
    """A specification that cannot be honoured. Nothing was sent.

    Attributes:
        field: The field of the specification, as in `resources.memory_mb` or `inputs[2].name`.
    """

    def __init__(
        self,
        field: str,
        message: str,
        *,
        remedy: str = "",
        resource: str = "",
        operation: str = "",
    ) -> None:
        super().__init__(
            f"{field}: {message}", resource=resource, operation=operation, remedy=remedy
        )
        self.field = field


class AuthenticationError(InterCEdeError):
    """The resource did not accept the credentials, or the provider had none of the kind it needs.

    Attributes:
        refused: True only if the resource was reached and it was the one to say no.
    """

    def __init__(self, message: str, *, refused: bool = False, **context: str) -> None:
        super().__init__(message, **context)
        self.refused = refused


class TransportError(InterCEdeError):
    """The way to the host failed.

    Attributes:
        may_have_run: False only when it is certain that the command never started.
    """

    may_have_run: bool = False


class Unreachable(TransportError):
    """Nothing answered. Nothing has run."""


class HostKeyError(TransportError):
    """Who answered could not prove to be the host. Nothing was sent to it."""


class ConnectionLost(TransportError):
    """The connection broke while a command was on its way or running."""

    def __init__(self, message: str, *, may_have_run: bool, **context: str) -> None:
        super().__init__(message, **context)
        self.may_have_run = may_have_run


class OperationTimeout(TransportError):
    """The command did not end within its time. It has been ended, also at the other side."""

    def __init__(self, message: str, *, may_have_run: bool, **context: str) -> None:
        super().__init__(message, **context)
        self.may_have_run = may_have_run


class ResourceError(InterCEdeError):
    """The resource answered, and said no, or nothing that parses. Its own words are in `said`."""


class SubmitUncertain(InterCEdeError):
    """Something was sent to the scheduler, and whether it arrived could not be learnt by the deadline.

    Never submit the same work again because of it: `find` with the submission's tag, or `status` of these handles, tells later.

    Attributes:
        mark: What to look for in the scheduler.
        handles: One handle per copy, good for `status`, `kill` and `purge`.
    """

    def __init__(
        self, message: str, *, mark: str, handles: Sequence[JobHandle], **context: str
    ) -> None:
        super().__init__(message, **context)
        self.mark = mark
        self.handles = tuple(handles)


class PartialFailure(InterCEdeError):
    """Some of many failed, and the caller asked for an error (`raise_for_failures`).

    Attributes:
        failures: By job id, or by copy number for a submission.
    """

    def __init__(self, failures: Mapping[JobID, Failure] | Mapping[int, Failure]) -> None:
        shown = [f"{key}: {failure}" for key, failure in list(failures.items())[:3]]
        more = f" (and {len(failures) - 3} more)" if len(failures) > 3 else ""
        super().__init__(f"{len(failures)} failed: {'; '.join(shown)}{more}")
        self.failures: dict[JobID | int, Failure] = dict(failures.items())


class ClosedError(InterCEdeError):
    """Used after `aclose`, or from another event loop than the one it was first used in."""
