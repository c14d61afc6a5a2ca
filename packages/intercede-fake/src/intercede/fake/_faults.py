"""What can be made to go wrong.

A `Fault` says which operation fails, how, and how often; `Faults` holds those of one backend or transport and counts them down. Whole
operations fail by raising what a real backend would raise; a fault of kind `item` fails chosen jobs, in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final

from attrs import define, field, frozen

from intercede.core import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    Failure,
    FailureCode,
    HostKeyError,
    InterCEdeError,
    OperationTimeout,
    ResourceError,
    Unreachable,
)
from intercede.core.registry import describe

__all__ = ["Fault", "FaultKind", "Faults", "Operation", "Trouble", "faults_of", "texts"]


class Operation(StrEnum):
    """What a fault can hit: the methods of a backend, those of a transport, and connecting."""

    CONNECT = "connect"
    SUBMIT = "submit"
    STATUS = "status"
    FETCH = "fetch_output"
    KILL = "kill"
    PURGE = "purge"
    COUNTS = "counts"
    DIAGNOSTICS = "diagnostics"
    DETAILS = "details"
    FIND = "find"
    DRY_RUN = "dry_run"
    RUN = "run"
    STREAM = "stream"
    PUT = "put"
    GET = "get"


class FaultKind(StrEnum):
    """How an operation fails."""

    UNREACHABLE = "unreachable"
    HOST_KEY = "host-key"
    AUTHENTICATION = "authentication"
    RESOURCE = "resource-error"
    """The resource answered, and said no."""
    LOST_BEFORE = "lost-before-effect"
    """The connection breaks, and nothing has happened."""
    LOST_AFTER = "lost-after-effect"
    """It has happened, and the answer is lost. A submit raises `SubmitUncertain`."""
    TIMEOUT_BEFORE = "timeout-before-effect"
    TIMEOUT_AFTER = "timeout-after-effect"
    STAGED_ONLY = "staged-only"
    """A submit whose connection breaks between staging and submitting: the jobs can be found, and never start."""
    SLOW = "slow"
    """It works, after so many fake seconds."""
    ITEM = "item"
    """It works, except for some of the jobs."""


_UNDONE: Final[Mapping[FaultKind, Callable[[str], InterCEdeError]]] = {
    FaultKind.UNREACHABLE: lambda said: Unreachable(
        said or "nothing answers", remedy="try again later"
    ),
    FaultKind.HOST_KEY: lambda said: HostKeyError(
        said or "the host's key is not the known one", remedy="ask the site for its key"
    ),
    FaultKind.AUTHENTICATION: lambda said: AuthenticationError(
        said or "the credentials are not accepted", refused=True, remedy="renew them"
    ),
    FaultKind.RESOURCE: lambda said: ResourceError(
        "it refused the request", remedy="see what it said", said=said or "fake: error: not today"
    ),
    FaultKind.LOST_BEFORE: lambda said: ConnectionLost(
        said or "the connection broke before anything ran", may_have_run=False, remedy="try again"
    ),
    FaultKind.TIMEOUT_BEFORE: lambda said: OperationTimeout(
        said or "no answer in time, and nothing ran", may_have_run=False, remedy="try again"
    ),
}

_DONE: Final[Mapping[FaultKind, Callable[[str], InterCEdeError]]] = {
    FaultKind.LOST_AFTER: lambda said: ConnectionLost(
        said or "the connection broke before the answer came",
        may_have_run=True,
        remedy="ask for the status",
    ),
    FaultKind.TIMEOUT_AFTER: lambda said: OperationTimeout(
        said or "no answer in time", may_have_run=True, remedy="ask for the status"
    ),
}

#: The operations whose result has an entry per job or copy.
_PER_ITEM: Final = frozenset(
    {
        Operation.SUBMIT,
        Operation.STATUS,
        Operation.FETCH,
        Operation.KILL,
        Operation.PURGE,
        Operation.DIAGNOSTICS,
        Operation.DETAILS,
    }
)


def texts(values: Iterable[str]) -> tuple[str, ...]:
    """A tuple of strings; not the letters of one.

    Raises:
        TypeError: One string.
    """
    if isinstance(values, str):
        raise TypeError(f"expected a sequence, not one string: write [{values!r}]")
    return tuple(values)


def _numbers(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


@frozen
class Fault:
    """One thing that goes wrong.

    Attributes:
        operation: Which call it hits.
        kind: How it fails.
        times: How many calls it hits; 0: every one.
        copies: With `item`, or a `slow` fetch_output: only these copies. Neither `copies` nor `ids`: all.
        ids: With `item`, or a `slow` fetch_output: only these jobs.
        seconds: With `slow`: how long it takes, in fake seconds.
        code: With `item`: the failure's code.
        message: What the error or the failure says.

    Raises:
        ConfigurationError: The operation cannot fail in this way.
    """

    operation: Operation = field(converter=Operation, metadata=describe("Which call it hits"))
    kind: FaultKind = field(converter=FaultKind, metadata=describe("How it fails"))
    times: int = field(default=1, metadata=describe("How many calls it hits; 0: every one"))
    copies: tuple[int, ...] = field(
        default=(),
        converter=_numbers,
        metadata=describe("With item, or a slow fetch_output: only these copies"),
    )
    ids: tuple[str, ...] = field(
        default=(),
        converter=texts,
        metadata=describe("With item, or a slow fetch_output: only these jobs"),
    )
    seconds: float = field(
        default=0.0, metadata=describe("With slow: how long it takes", unit="fake s")
    )
    code: FailureCode = field(
        default=FailureCode.FAILED,
        converter=FailureCode,
        metadata=describe("With item: the failure's code"),
    )
    message: str = field(default="", metadata=describe("What the error or the failure says"))

    def __attrs_post_init__(self) -> None:
        if self.times < 0 or self.seconds < 0:
            raise ConfigurationError("times and seconds cannot be negative", path="faults")
        if self.kind is FaultKind.ITEM and self.operation not in _PER_ITEM:
            self._cannot(f"{self.operation} has no result per job")
        if self.kind is FaultKind.STAGED_ONLY and self.operation is not Operation.SUBMIT:
            self._cannot("only a submit stages")
        if not self.hits_all and self.kind is not FaultKind.ITEM:
            slow_fetch = (FaultKind.SLOW, Operation.FETCH)
            if (self.kind, self.operation) != slow_fetch:
                self._cannot("it hits the whole call; leave copies and ids out")
        if self.kind in _DONE and self.operation is Operation.CONNECT:
            self._cannot("connecting has no effect that could stay")

    def _cannot(self, why: str) -> None:
        raise ConfigurationError(f"{self.kind} does not fit: {why}", path="faults")

    @property
    def hits_all(self) -> bool:
        """It names no job."""
        return not self.copies and not self.ids

    def hits(self, job: str, copy: int) -> bool:
        """It names this job, or none."""
        return self.hits_all or copy in self.copies or job in self.ids


def faults_of(values: Iterable[Fault]) -> tuple[Fault, ...]:
    """A tuple of faults."""
    return tuple(values)


@define
class _Loaded:
    fault: Fault
    left: int


class Faults:
    """The faults that are switched on, each with how often it still hits."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._loaded: list[_Loaded] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Switch one on."""
        self._loaded.append(_Loaded(fault, fault.times))

    def clear(self) -> None:
        """Switch all off."""
        self._loaded.clear()

    def take(self, operation: Operation) -> Trouble:
        """What goes wrong in this call; each fault that hits counts down."""
        hitting = [loaded for loaded in self._loaded if loaded.fault.operation is operation]
        for loaded in hitting:
            loaded.left -= 1
            if loaded.left == 0:
                self._loaded.remove(loaded)
        return Trouble(tuple(loaded.fault for loaded in hitting))


@frozen
class Trouble:
    """What goes wrong in one call."""

    faults: tuple[Fault, ...] = ()

    @property
    def delay_s(self) -> float:
        """How long the whole call is held up, in fake seconds."""
        return sum(fault.seconds for fault in self._of(FaultKind.SLOW) if fault.hits_all)

    def delay_of(self, job: str, copy: int) -> float:
        """How long this one job is held up besides."""
        slow = self._of(FaultKind.SLOW)
        return sum(fault.seconds for fault in slow if not fault.hits_all and fault.hits(job, copy))

    @property
    def undone(self) -> InterCEdeError | None:
        """The error of a call that has no effect."""
        return self._first(_UNDONE)

    @property
    def done(self) -> InterCEdeError | None:
        """The error of a call that has its effect all the same."""
        return self._first(_DONE)

    @property
    def staged_only(self) -> bool:
        """A submit ends between staging and submitting."""
        return bool(self._of(FaultKind.STAGED_ONLY))

    def failure(self, job: str, copy: int) -> Failure | None:
        """Why this job fails in this call."""
        for fault in self._of(FaultKind.ITEM):
            if fault.hits(job, copy):
                return Failure(fault.code, fault.message or "the fake was told to fail it")
        return None

    def _of(self, kind: FaultKind) -> list[Fault]:
        return [fault for fault in self.faults if fault.kind is kind]

    def _first(
        self, table: Mapping[FaultKind, Callable[[str], InterCEdeError]]
    ) -> InterCEdeError | None:
        for fault in self.faults:
            if fault.kind in table:
                return table[fault.kind](fault.message)
        return None
