"""What the suite must know of a resource before it can hold it to the contract.

Everything that differs from resource to resource stands here, and nothing of it in a test: how to reach it, how fast it is, what it
cannot do by nature, and what lets the suite look behind it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast, runtime_checkable

from attrs import field, frozen

from intercede.core import ConfigurationError, CredentialProvider, JobBackend, JobHandle

from ._probe import LocalProbe, Probe

__all__ = ["Faults", "Paced", "Resource", "described"]

#: Values that no resource can honour, by the field of `Resources`; and a resident program that is nowhere.
_ABSURD: Final[Mapping[str, int | str]] = {
    "cpus": 1_000_000,
    "memory_mb": 2**40,
    "nodes": 100_000,
    "gpus": 10_000,
    "queue": "contract-no-such-queue",
    "executable": "/no/such/program",
}


def _table(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigurationError("expected a table", value=values, operation="contract")
    return dict(values)


def _names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(values)


@runtime_checkable
class Faults(Protocol):
    """Makes the resource misbehave on purpose, for the rules about what a backend does then.

    Each method is an `async with` around a backend of the resource that misbehaves inside the block and is closed at its end. One that
    the set-up cannot bring about raises `LookupError`, and its rule is "not observed".
    """

    def status_fails(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        """The command or request that asks for the state of all jobs fails, each time."""
        ...

    def unreachable(self, config: Mapping[str, object]) -> AbstractAsyncContextManager[JobBackend]:
        """Nothing answers."""
        ...

    def row_is_garbage(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """What the resource says of this one job cannot be read."""
        ...

    def submit_answer_lost(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """A submit arrives, and its answer does not come back: the connection breaks once."""
        ...

    def lost_after_staging(
        self, config: Mapping[str, object]
    ) -> AbstractAsyncContextManager[JobBackend]:
        """The connection breaks for good when a submit has staged its files and submitted nothing."""
        ...

    def output_cut(
        self, config: Mapping[str, object], handle: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """The stream of this job's output ends early, as if that were its end."""
        ...

    def id_reused(
        self, config: Mapping[str, object], finished: JobHandle, running: JobHandle
    ) -> AbstractAsyncContextManager[JobBackend]:
        """The scheduler's id of the finished job, and all that its sandbox remembers of it, now names the running one."""
        ...


class Paced:
    """How long things take, for whatever is declared to be of some speed.

    Attributes:
        seconds: How long a trivial job, or command, takes.
        clock: How many of a payload's seconds pass in one.
    """

    __slots__ = ()

    seconds: float
    clock: float

    @property
    def patience_s(self) -> float:
        """How long to wait for a thing that takes about as long as a trivial job. Generous: a slow machine is no failure."""
        return 30 + 30 * self.seconds

    @property
    def test_limit_s(self) -> float:
        """How long a whole test may take."""
        return 4 * self.patience_s

    @property
    def clearing_s(self) -> float:
        """How long a test may take to clear up. Shorter: where it fails once it fails for every test."""
        return self.patience_s / 3

    @property
    def poll_s(self) -> float:
        """How long to wait between two looks."""
        return min(max(self.seconds / 10, 0.01), 10.0)

    def payload_seconds(self, real: float) -> str:
        """What to tell the payload to sleep, for so many seconds of ours."""
        return f"{real * self.clock:.3f}".rstrip("0").rstrip(".")


@frozen(kw_only=True)
class Resource(Paced):
    """One resource, as the suite sees it.

    In a configuration, `{unique}` inside any text becomes a name that no other test uses.

    Attributes:
        config: What `registry.backend` is given. The resource must be one on which nobody minds 200 short jobs.
        seconds: How long a trivial job takes here from submit to its end, as seen by polling. Waits and polls scale with it.
        clock: How many seconds pass for a payload while one passes here; other than 1 only for a fake.
        other_process: Another process that is given `config` sees the same jobs.
        narrow: A configuration under which one job runs at a time, so that others are seen to wait.
        limited: Configurations under which a fetch is limited: `bytes` to at most 100,000, `files` to at most 20, `seconds` to at most 0.2.
        honours: What this resource can do that most cannot: `url` (fetch an input), `destination` (upload an output), `container`.
        absurd: Values that it must refuse, by the field of `intercede.core.Resources`, and as `executable` a resident program that it
            lacks. A field it cannot judge is left out.
        probe: Looks at the host.
        faults: Makes the resource misbehave.
        credentials: Makes a provider for `registry.backend`; the suite opens and closes it. Another process makes its own if this can be
            pickled: a function of a module, or `functools.partial` of a class.
    """

    config: Mapping[str, Any] = field(converter=_table)
    seconds: float = 1.0
    clock: float = 1.0
    other_process: bool = False
    narrow: Mapping[str, Any] | None = None
    limited: Mapping[str, Mapping[str, Any]] = field(factory=dict, converter=_table)
    honours: frozenset[str] = field(default=frozenset(), converter=_names)
    absurd: Mapping[str, int | str] = field(default=_ABSURD, converter=_table)
    probe: Probe | None = None
    faults: Faults | None = None
    credentials: Callable[[], CredentialProvider] | None = None

    @classmethod
    def from_toml(cls, path: str | Path) -> Resource:
        """Read a description.

        The keys are the attributes; `probe`, `faults` and `credentials` are texts: `probe = "local:<directory>"` looks at this machine,
        with the sandboxes beneath that directory; otherwise `"module:name"` of something that is called without arguments.

        Raises:
            ConfigurationError: Not TOML, no `config`, or a key that is not known.
        """
        return cls(**described(path, [attribute.name for attribute in cls.__attrs_attrs__]))


def described(path: str | Path, known: Sequence[str]) -> dict[str, Any]:
    """What a description says, as arguments of the class with these attributes; `contract`, which names the class, is left out.

    Raises:
        ConfigurationError: Not TOML, no `config`, or a key that is not known.
    """
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", operation="contract") from None
    table.pop("contract", None)
    for key in table:
        if key not in known:
            raise ConfigurationError(
                "no such key", path=key, candidates=known, operation="contract"
            )
    if "config" not in table:
        raise ConfigurationError(
            "missing", path="config", remedy="add a table [config]", operation="contract"
        )
    for key in ("probe", "faults", "credentials"):
        if key in table:
            table[key] = _named(key, table[key])
    return table


def _named(key: str, text: object) -> object:
    """What a text of the description stands for."""
    module, colon, name = str(text).partition(":")
    if key == "probe" and module == "local" and colon:
        return LocalProbe(name)
    try:
        factory = cast("Callable[[], object]", getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"it cannot be imported: {error}",
            path=key,
            value=text,
            remedy='write "module:name"' + (' or "local:<directory>"' if key == "probe" else ""),
            operation="contract",
        ) from None
    return factory if key == "credentials" else factory()
