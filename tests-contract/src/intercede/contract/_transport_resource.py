"""What the suite must know of a transport before it can hold it to the rules X1 to X8.

The tests say what they want run in eight verbs. On a POSIX host each stands for a small command (`COMMANDS`); a transport whose host is
not there gives its own commands for them, and what a verb without a command would show is "not observed".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from attrs import field, frozen

from intercede.core import Command, CredentialProvider, Transport, registry

from ._probe import Probe
from ._resource import Paced, described
from ._verdict import not_observed

__all__ = ["COMMANDS", "TransportFaults", "TransportResource"]

_CHILD: Final = """sh -c 'sleep "$1"; exit 0' child "$1" "${2-}-child\""""

#: What the tests run, by verb: the first words of the command, which the verb's own words follow.
COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    # its input to its output, as it comes
    "cat": ("cat",),
    # WORD ...: each word and a NUL byte
    "args": ("sh", "-c", r'for word; do printf "%s\0" "$word"; done', "args"),
    # STATUS: end with it
    "exit": ("sh", "-c", 'exit "$1"', "exit"),
    # NUMBER: be ended by this signal
    "kill": ("sh", "-c", 'kill -"$1" "$$"; sleep 60', "kill"),
    # SECONDS [MARK]: wait, in a child, reading no input; MARK is only there to be seen, and MARK-child in the child
    "sleep": ("sh", "-c", f"{_CHILD}; exit 0", "sleep"),
    # SECONDS [MARK]: the same, and neither minds SIGTERM
    "stay": ("sh", "-c", f"trap '' TERM; {_CHILD}; exit 0", "stay"),
    # BYTES: so many bytes to the output, "y" and newline in turn
    "yes": ("sh", "-c", 'yes | head -c "$1"', "yes"),
    # BYTES: the same to stderr
    "complain": ("sh", "-c", 'yes | head -c "$1" >&2', "complain"),
}


@runtime_checkable
class TransportFaults(Protocol):
    """Makes the way to the host fail once, at the first command, and be well afterwards.

    Each method is an `async with` around an open transport. One that cannot be brought about raises `LookupError`, and its rule is
    "not observed".
    """

    def unreachable(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        """Nothing answers."""
        ...

    def lost_before(
        self, config: str | Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Transport]:
        """The connection breaks, and the command was certainly not started."""
        ...

    def lost_after(self, config: str | Mapping[str, Any]) -> AbstractAsyncContextManager[Transport]:
        """The connection breaks when the command has run, and its answer is lost."""
        ...


@frozen(kw_only=True)
class TransportResource(Paced):
    """One transport, as the suite sees it.

    Attributes:
        config: What `registry.transport` is given.
        seconds: How long a trivial command takes, connecting included.
        clock: How many seconds pass for a command while one passes here; other than 1 only for a fake.
        commands: What the verbs stand for, where that differs from `COMMANDS`; None: there is no such command.
        logins: Further configurations, of accounts with other login shells and noisy profiles, by name; X1 is tried on each. Empty: no
            shell comes between the transport and its commands.
        probe: Looks at the host.
        faults: Makes the way to the host fail.
        credentials: Makes a provider for `registry.transport`.
    """

    config: str | Mapping[str, Any]
    seconds: float = 1.0
    clock: float = 1.0
    commands: Mapping[str, Sequence[str] | None] = field(factory=dict)
    logins: Mapping[str, str | Mapping[str, Any]] | None = None
    probe: Probe | None = None
    faults: TransportFaults | None = None
    credentials: Callable[[], CredentialProvider] | None = None

    @classmethod
    def from_toml(cls, path: str | Path) -> TransportResource:
        """Read a description: the keys are the attributes, as for `Resource.from_toml`."""
        return cls(**described(path, [attribute.name for attribute in cls.__attrs_attrs__]))

    def made(
        self, config: str | Mapping[str, Any], credentials: CredentialProvider | None = None
    ) -> Transport:
        """A transport from the registry, not open yet."""
        return registry.transport(config, credentials)

    def command(self, verb: str, *words: str, **limits: Any) -> Command:
        """The command for a verb, or "not observed".

        Args:
            verb: One of `COMMANDS`.
            words: What follows it.
            limits: Other fields of `Command`.
        """
        first = {**COMMANDS, **self.commands}[verb]
        if first is None:
            not_observed(f"a command for {verb!r} (TransportResource.commands)")
        limits.setdefault("timeout_s", self.patience_s * self.clock)
        return Command((*first, *words), **limits)

    @property
    def glance_s(self) -> float:
        """How long to look at what must not go on."""
        return max(0.5, self.seconds)

    @property
    def brief_s(self) -> float:
        """A time-out that a command may run into, and that is long enough for it to start."""
        return max(0.3, self.seconds)

    @property
    def forever(self) -> str:
        """Seconds of sleep that outlast every test and still end."""
        return self.payload_seconds(2 * self.test_limit_s)
