"""Backends, transports and schedulers by name.

A plugin is a distribution with an entry point in one of three groups. The entry point names a `BackendPlugin`, `ComposedBackendPlugin`,
`TransportPlugin` or `SchedulerPlugin`: a configuration class and what makes an object of it. Built-ins are found in the same way.

- Lazy: listing imports no plugin; a lookup imports one.
- Who wins: an explicit preference; else an outsider over a built-in, with a warning; two outsiders without a preference are an error.
- Gate: what a plugin makes is checked against its group's protocol, on the instance, before anybody uses it.

`{"type": "arc", ...}` makes that backend. `{"transport": ..., "scheduler": ..., "name": ...}` looks the two up and hands them to the
backend named `batch`; each is a table with a `type`, or a bare name, and flat keys are routed to the one part that has them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast

import attrs
from attrs import field, frozen

from ._collaborators import Scheduler, Transport
from ._credentials import CredentialProvider
from ._errors import (
    ConfigurationError,
    InterCEdeError,
    PluginBroken,
    PluginConflict,
    PluginNonConforming,
    PluginNotFound,
)
from ._json import structure
from ._protocols import JobBackend

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "BUILT_IN",
    "GROUPS",
    "BackendPlugin",
    "ComposedBackendPlugin",
    "Option",
    "Plugin",
    "PluginInfo",
    "Policy",
    "SchedulerPlugin",
    "TransportPlugin",
    "backend",
    "describe",
    "load",
    "options",
    "plugins",
    "scheduler",
    "transport",
]

C = TypeVar("C")

#: The distributions of this project. Any other that provides one of their names shadows them.
BUILT_IN: Final = frozenset(
    {
        "intercede-backend-arc",
        "intercede-backend-batch",
        "intercede-fake",
        "intercede-scheduler-direct",
        "intercede-scheduler-htcondor",
        "intercede-scheduler-slurm",
        "intercede-transport-local",
        "intercede-transport-ssh",
    }
)

#: What a resource may be called: one part of a job id that cannot be mistaken for an option or a path.
_RESOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,63}")


# ---------------------------------------------------------------- what an entry point names


@frozen
class TransportPlugin(Generic[C]):
    """A transport, for the group `intercede.transports`.

    Attributes:
        config: An attrs class: its fields are the keys of the configuration.
        make: Makes the transport. Does no I/O and needs no event loop (L1).
        summary: One line for people.
    """

    config: type[C]
    make: Callable[[C, CredentialProvider | None], Transport]
    summary: str = ""


@frozen
class SchedulerPlugin(Generic[C]):
    """A scheduler, for the group `intercede.schedulers`.

    Attributes:
        config: An attrs class: its fields are the keys of the configuration.
        make: Makes the scheduler.
        summary: One line for people.
    """

    config: type[C]
    make: Callable[[C], Scheduler]
    summary: str = ""


@frozen
class BackendPlugin(Generic[C]):
    """A backend that is one piece, for the group `intercede.backends`.

    Attributes:
        config: An attrs class: its fields are the keys of the configuration, besides `type` and `name`.
        make: Makes the backend from its configuration, the resource's name and the caller's credentials. Does no I/O (L1).
        summary: One line for people.
    """

    config: type[C]
    make: Callable[[C, str, CredentialProvider | None], JobBackend]
    summary: str = ""


@frozen
class ComposedBackendPlugin(Generic[C]):
    """A backend made of a transport and a scheduler, for the group `intercede.backends`.

    Attributes:
        config: An attrs class for what is neither the transport's nor the scheduler's.
        make: Makes the backend from its configuration, the resource's name and the two. The backend opens and closes the transport.
        summary: One line for people.
    """

    config: type[C]
    make: Callable[[C, str, Transport, Scheduler], JobBackend]
    summary: str = ""


Plugin: TypeAlias = (
    BackendPlugin[Any] | ComposedBackendPlugin[Any] | TransportPlugin[Any] | SchedulerPlugin[Any]
)
"""What an entry point of any group names."""


@frozen
class _Group:
    """One entry-point group.

    Attributes:
        protocol: What its plugins make.
        targets: What its entry points may name.
        singular: For messages, and the first guess at a missing plugin's distribution.
    """

    protocol: type
    targets: tuple[type, ...]
    singular: str


_GROUPS: Final[Mapping[str, _Group]] = {
    "backends": _Group(JobBackend, (BackendPlugin, ComposedBackendPlugin), "backend"),
    "transports": _Group(Transport, (TransportPlugin,), "transport"),
    "schedulers": _Group(Scheduler, (SchedulerPlugin,), "scheduler"),
}

#: The names of the groups; the entry-point group is `intercede.<name>`.
GROUPS: Final = tuple(_GROUPS)


# ---------------------------------------------------------------- the choice among plugins


def _normalised(name: str) -> str:
    """A distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _normalised_names(names: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(names, str):
        raise TypeError(f"allow must be a collection of distribution names: write [{names!r}]")
    return None if names is None else frozenset(map(_normalised, names))


def _preferences(prefer: Mapping[str, str]) -> Mapping[str, str]:
    for key in prefer:
        group, _, name = key.partition(".")
        if not name:
            raise ConfigurationError(
                "expected <group>.<name>", path=f"prefer.{key}", remedy="as in transports.ssh"
            )
        if group not in _GROUPS:
            raise ConfigurationError(
                f"{group!r} is not a group of plugins",
                path=f"prefer.{key}",
                candidates=GROUPS,
            )
    return {key: _normalised(distribution) for key, distribution in prefer.items()}


@frozen
class Policy:
    """Which plugins may be used.

    Attributes:
        prefer: By `<group>.<name>`, as in `transports.ssh`, the distribution that provides it.
        allow: The only distributions, besides the built-in ones, whose plugins are considered; None: all. Whoever provides a transport
            receives its keys.

    Raises:
        ConfigurationError: A preference names no group, or no name in it.
    """

    prefer: Mapping[str, str] = field(factory=dict, converter=_preferences, hash=False)
    allow: frozenset[str] | None = field(default=None, converter=_normalised_names)

    def allows(self, distribution: str) -> bool:
        """True if the distribution's plugins may be imported."""
        name = _normalised(distribution)
        return self.allow is None or name in self.allow or name in BUILT_IN


@frozen
class PluginInfo:
    """A plugin that is installed; it has not been imported.

    Attributes:
        name: As in the configuration.
        group: One of `GROUPS`.
        distribution: Who provides it.
        version: That distribution's.
        target: Module and attribute.
        shadowed: Another distribution's plugin of the same name is used instead.
        allowed: The policy lets it be used.
    """

    name: str
    group: str
    distribution: str
    version: str
    target: str
    shadowed: bool = False
    allowed: bool = True

    @property
    def built_in(self) -> bool:
        """True if the distribution is one of this project's."""
        return _normalised(self.distribution) in BUILT_IN


def _entry_points(group: str) -> list[tuple[PluginInfo, EntryPoint]]:
    from importlib.metadata import entry_points

    found = []
    for point in entry_points(group=f"intercede.{group}"):
        distribution, version = _provider(point)
        found.append((PluginInfo(point.name, group, distribution, version, point.value), point))
    return sorted(found, key=lambda pair: (pair[0].name, pair[0].distribution))


def _provider(point: EntryPoint) -> tuple[str, str]:
    """Name and version of its distribution; "?" for one that was half removed, which must not spoil the list of the others."""
    try:
        assert point.dist is not None
        return point.dist.name or "?", point.dist.version or "?"
    except Exception:
        return "?", "?"


def _chosen(candidates: list[PluginInfo], policy: Policy) -> PluginInfo | None:
    """Who wins among those that provide one name; None if nobody may.

    Raises:
        PluginConflict: Two outsiders, and no preference; or the preferred one is not there.
    """
    allowed = [info for info in candidates if policy.allows(info.distribution)]
    if not allowed:
        return None
    key = f"{allowed[0].group}.{allowed[0].name}"
    preferred = policy.prefer.get(key)
    if preferred is not None:
        for info in allowed:
            if _normalised(info.distribution) == preferred:
                return info
        raise PluginConflict(
            f"{key}: the preferred distribution {preferred!r} does not provide it",
            remedy=f"it is provided by {_named(allowed)}",
        )
    outsiders = [info for info in allowed if not info.built_in]
    if len(outsiders) > 1 or (not outsiders and len(allowed) > 1):
        raise PluginConflict(
            f"{key}: provided by {_named(outsiders or allowed)}",
            remedy=f'prefer one, as in Policy(prefer={{"{key}": "{allowed[0].distribution}"}})'
            ", or uninstall the others",
        )
    return outsiders[0] if outsiders else allowed[0]


def _named(infos: Iterable[PluginInfo]) -> str:
    return " and ".join(f"{info.distribution} {info.version} ({info.target})" for info in infos)


def plugins(policy: Policy | None = None) -> tuple[PluginInfo, ...]:
    """All plugins that are installed, in the order of groups and names. Imports none of them."""
    policy = policy or Policy()
    found: list[PluginInfo] = []
    for group in _GROUPS:
        infos = [info for info, _ in _entry_points(group)]
        for info in infos:
            rivals = [other for other in infos if other.name == info.name]
            try:
                winner = _chosen(rivals, policy)
            except PluginConflict:
                winner = None
            found.append(
                attrs.evolve(
                    info,
                    shadowed=winner is not None and winner != info,
                    allowed=policy.allows(info.distribution),
                )
            )
    return tuple(found)


def load(
    group: str, name: str, policy: Policy | None = None
) -> BackendPlugin[Any] | ComposedBackendPlugin[Any] | TransportPlugin[Any] | SchedulerPlugin[Any]:
    """Import the one plugin of this name, and nothing else.

    Args:
        group: One of `GROUPS`.
        name: As in the configuration.
        policy: Preferences and allow-list.

    Raises:
        PluginNotFound: Nobody provides it, or nobody who may.
        PluginConflict: Several do.
        PluginBroken: Its import failed; the cause is attached.
        PluginNonConforming: It is not a plugin of this group.
    """
    if group not in _GROUPS:
        raise ConfigurationError(f"{group!r} is not a group of plugins", candidates=GROUPS)
    return cast("Plugin", _looked_up(group, name, policy)[1])


def _looked_up(group: str, name: str, policy: Policy | None) -> tuple[PluginInfo, Any]:
    """Who provides the name, and what its entry point names."""
    policy = policy or Policy()
    points = _entry_points(group)
    rivals = [info for info, _ in points if info.name == name]
    info = _chosen(rivals, policy)
    if info is None:
        raise _not_found(group, name, [info for info, _ in points], rivals)
    losers = [other for other in rivals if other != info and policy.allows(other.distribution)]
    if losers and f"{group}.{name}" not in policy.prefer:
        import warnings

        warnings.warn(
            f"{group}.{name}: {_named([info])} shadows {_named(losers)};"
            " prefer one explicitly to silence this",
            RuntimeWarning,
            stacklevel=3,
        )
    return info, _imported(info, next(point for other, point in points if other == info))


def _imported(info: PluginInfo, point: EntryPoint) -> object:
    expected = _GROUPS[info.group].targets
    try:
        target = point.load()
    except (Exception, SystemExit) as error:
        raise PluginBroken(
            f"{_place(info)}: its import failed: {type(error).__name__}: {error}",
            remedy=_hidden_namespace(error) or f"mend or uninstall {info.distribution}",
        ) from error
    if not isinstance(target, expected):
        raise PluginNonConforming(
            f"{_place(info)}: it is a {type(target).__name__},"
            f" not a {' or '.join(kind.__name__ for kind in expected)}",
            remedy="the entry point must name such an object",
        )
    config: object = cast("Plugin", target).config
    if not (isinstance(config, type) and attrs.has(config)):
        raise PluginNonConforming(
            f"{_place(info)}: its config is {config!r}, not an attrs class",
            remedy=f"mend or replace {info.distribution}",
        )
    return target


def _place(info: PluginInfo) -> str:
    return (
        f"{_GROUPS[info.group].singular} {info.name!r} of {info.distribution} {info.version}"
        f" (entry point intercede.{info.group}: {info.name} = {info.target})"
    )


def _hidden_namespace(error: BaseException) -> str:
    """A remedy if a regular package `intercede` hides the namespace, as an unrelated early release on the package index does."""
    import sys

    if not isinstance(error, ModuleNotFoundError) or not (error.name or "").startswith("intercede"):
        return ""
    for name in ("intercede", "intercede.backend", "intercede.transport", "intercede.scheduler"):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is not None:
            return (
                f"{name} must be a namespace, and {origin} makes it a package that hides the others:"
                " uninstall the distribution that owns this file (the package index has an"
                " unrelated 'intercede' 0.0.1a1), then install 'intercede' again"
            )
    return ""


def _not_found(
    group: str,
    name: str,
    installed: list[PluginInfo],
    refused: list[PluginInfo],
) -> PluginNotFound:
    singular = _GROUPS[group].singular
    if refused:
        return PluginNotFound(
            f"{singular} {name!r} is provided only by {_named(refused)}, which the policy excludes",
            remedy=f"allow {refused[0].distribution!r}",
        )
    known = sorted({info.name for info in installed})
    near = difflib.get_close_matches(name, known, n=1)
    candidate = f"intercede-{singular}-{name}"
    if near:
        remedy = f"did you mean {near[0]!r}?"
    elif candidate in BUILT_IN:
        remedy = f"install the distribution {candidate}"
    else:
        remedy = "install the distribution that provides it"
    return PluginNotFound(
        f"no {singular} {name!r} is installed (installed: {', '.join(known) or 'none'})",
        remedy=remedy,
    )


# ---------------------------------------------------------------- configuration


def describe(help: str, *, unit: str = "") -> dict[str, str]:
    """Metadata for a field of a configuration class: `port: int = field(default=22, metadata=describe("TCP port"))`.

    Args:
        help: One sentence.
        unit: Of a number, as in "s" or "bytes".
    """
    return {"help": help, "unit": unit}


@frozen
class Option:
    """One key of a plugin's configuration.

    Attributes:
        name: The key.
        type: As written in the class.
        default: As text; None: the key is required.
        help: What it means.
        unit: Of a number.
    """

    name: str
    type: str
    default: str | None
    help: str
    unit: str


def options(config: type) -> tuple[Option, ...]:
    """The keys of a configuration class, for tables and help."""
    return tuple(_option(attribute) for attribute in attrs.fields(config) if attribute.init)


#: attrs' stubs call it a function; it is the class of a default that is made anew each time.
_FACTORY: Final[object] = attrs.Factory


def _option(attribute: attrs.Attribute[Any]) -> Option:
    kind: Any = attribute.type
    default: Any = attribute.default
    if type(default) is _FACTORY:
        default = default.factory()
    return Option(
        name=attribute.name,
        type=kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", ""),
        default=None if default is attrs.NOTHING else repr(default),
        help=attribute.metadata.get("help", ""),
        unit=attribute.metadata.get("unit", ""),
    )


def _gated(info: PluginInfo, made: object) -> Any:
    """Check what a plugin made, on the instance: protocols with data members have no `issubclass`."""
    import inspect

    protocol = _GROUPS[info.group].protocol
    if isinstance(made, protocol):
        return made
    missing = [
        member
        for member in _protocol_members(protocol)
        if inspect.getattr_static(made, member, None) is None
    ]
    raise PluginNonConforming(
        f"{_place(info)}: it made a {type(made).__name__} that is no {protocol.__name__}:"
        f" it lacks {', '.join(missing)}",
        remedy=f"mend or replace {info.distribution}",
    )


def _protocol_members(protocol: type) -> list[str]:
    """The names a protocol asks for (`typing.get_protocol_members` is new in 3.13)."""
    import inspect

    names: set[str] = set()
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False) and base.__module__ != "typing":
            names.update(inspect.get_annotations(base))
            names.update(name for name in base.__dict__ if _is_member(name))
    return sorted(names)


def _is_member(name: str) -> bool:
    return name in ("__aenter__", "__aexit__") or not name.startswith("_")


def _made(info: PluginInfo, make: Callable[..., object], *arguments: object) -> Any:
    try:
        made = make(*arguments)
    except InterCEdeError:
        raise
    except Exception as error:
        raise PluginBroken(
            f"{_place(info)}: it could not be made: {type(error).__name__}: {error}",
            remedy=f"mend or uninstall {info.distribution}",
        ) from error
    return _gated(info, made)


def _part(config: Mapping[str, object], key: str) -> tuple[str, dict[str, object]]:
    """The type and the other keys of a part, given as a table or as a bare name."""
    value = config[key]
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping):
        raise ConfigurationError("expected a name or a table", path=key, value=value)
    table = dict(value)
    kind = table.pop("type", None)
    if not isinstance(kind, str):
        raise ConfigurationError(
            "missing" if kind is None else "expected a name",
            path=f"{key}.type",
            value=kind,
            remedy=_mistyped("type", table) if kind is None else "",
        )
    return kind, table


def transport(
    config: str | Mapping[str, object],
    credentials: CredentialProvider | None = None,
    *,
    policy: Policy | None = None,
) -> Transport:
    """A transport alone: `"local"`, or `{"type": "ssh", "host": ...}`.

    Raises:
        ConfigurationError, PluginError: As `backend`.
    """
    kind, table = _part({"transport": config}, "transport")
    info, plugin = _looked_up("transports", kind, policy)
    made = structure(plugin.config, table, path="transport")
    return cast("Transport", _made(info, plugin.make, made, credentials))


def scheduler(config: str | Mapping[str, object], *, policy: Policy | None = None) -> Scheduler:
    """A scheduler alone: `"direct"`, or `{"type": "slurm", ...}`.

    Raises:
        ConfigurationError, PluginError: As `backend`.
    """
    kind, table = _part({"scheduler": config}, "scheduler")
    info, plugin = _looked_up("schedulers", kind, policy)
    made = structure(plugin.config, table, path="scheduler")
    return cast("Scheduler", _made(info, plugin.make, made))


def backend(
    config: Mapping[str, object],
    credentials: CredentialProvider | None = None,
    *,
    policy: Policy | None = None,
) -> JobBackend:
    """The backend that a configuration describes, not yet connected. Does no I/O besides importing the plugins it names.

    Args:
        config: `{"type": ...}`, or `{"transport": ..., "scheduler": ...}`; `name` names the resource in job ids (default: the types).
        credentials: The caller's provider; the caller closes it.
        policy: Preferences among plugins, and an allow-list.

    Returns:
        An object with exactly the abilities of this combination, to be used in `async with`.

    Raises:
        ConfigurationError: A key is unknown, missing, of the wrong type, or fits several parts; names it.
        PluginError: A plugin is missing, ambiguous, broken, or does not conform.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError("a resource's configuration is a table", value=config)
    table = dict(config)
    kind = table.pop("type", None)
    if kind is None and not {"transport", "scheduler"} & table.keys():
        raise ConfigurationError(
            "it says neither 'type' nor 'transport' and 'scheduler'",
            remedy=_mistyped("type", table)
            or 'as in {"transport": "local", "scheduler": "direct"}',
        )
    if kind is None:
        kind = "batch"
    if not isinstance(kind, str):
        raise ConfigurationError("expected a name", path="type", value=kind)
    info, plugin = _looked_up("backends", kind, policy)
    if isinstance(plugin, ComposedBackendPlugin):
        return _composed(info, plugin, table, credentials, policy)
    name = _resource_name(table.pop("name", kind))
    _refuse_unknown(table, [option.name for option in options(plugin.config)], ["type", "name"])
    made = structure(plugin.config, table)
    return cast("JobBackend", _made(info, plugin.make, made, name, credentials))


def _composed(
    info: PluginInfo,
    plugin: ComposedBackendPlugin[Any],
    table: dict[str, object],
    credentials: CredentialProvider | None,
    policy: Policy | None,
) -> JobBackend:
    for key in ("transport", "scheduler"):
        if key not in table:
            raise ConfigurationError(
                "missing", path=key, remedy=_mistyped(key, table) or "name a plugin"
            )
    transport_kind, transport_table = _part(table, "transport")
    scheduler_kind, scheduler_table = _part(table, "scheduler")
    own = table.pop(info.name, {})
    if not isinstance(own, Mapping):
        raise ConfigurationError("expected a table", path=info.name, value=own)
    del table["transport"], table["scheduler"]
    name = _resource_name(table.pop("name", f"{transport_kind}-{scheduler_kind}"))

    carrying, transports = _looked_up("transports", transport_kind, policy)
    speaking, schedulers = _looked_up("schedulers", scheduler_kind, policy)
    parts: dict[str, tuple[type, dict[str, object]]] = {
        "transport": (transports.config, transport_table),
        "scheduler": (schedulers.config, scheduler_table),
        info.name: (plugin.config, dict(own)),
    }
    _route(table, parts)
    configs: dict[str, object] = {
        key: structure(cls, values, path=key) for key, (cls, values) in parts.items()
    }
    carrier = _made(carrying, transports.make, configs["transport"], credentials)
    language = _made(speaking, schedulers.make, configs["scheduler"])
    return cast("JobBackend", _made(info, plugin.make, configs[info.name], name, carrier, language))


def _route(flat: Mapping[str, object], parts: Mapping[str, tuple[type, dict[str, object]]]) -> None:
    """Give each flat key to the one part that has it."""
    known = {
        part: [option.name for option in options(config)] for part, (config, _) in parts.items()
    }
    everything = {name for names in known.values() for name in names}
    _refuse_unknown(flat, sorted(everything), ["name", *parts])
    for key, value in flat.items():
        owners = [part for part, names in known.items() if key in names]
        if len(owners) > 1:
            places = [f"{part}.{key}" for part in owners]
            raise ConfigurationError(
                f"it could be {' or '.join(places)}",
                path=key,
                candidates=places,
                remedy="put it into the table of the one you mean",
            )
        values = parts[owners[0]][1]
        if key in values:
            raise ConfigurationError(f"given twice, also as {owners[0]}.{key}", path=key)
        values[key] = value


def _refuse_unknown(table: Mapping[str, object], known: list[str], ours: list[str]) -> None:
    """Refuse a key that no part has; those that the registry itself reads are candidates too."""
    for key in table:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), [*known, *ours], n=3)
        raise ConfigurationError(
            "no such key",
            path=str(key),
            candidates=near or [*known, *ours],
            remedy=f"did you mean {near[0]!r}?" if near else "",
        )


def _mistyped(key: str, table: Iterable[str]) -> str:
    """A remedy if one of the keys that are there was meant to be the missing one."""
    near = difflib.get_close_matches(key, [str(other) for other in table], n=1)
    return f"did you write {near[0]!r} for {key!r}?" if near else ""


def _resource_name(name: object) -> str:
    if isinstance(name, str) and _RESOURCE_NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        "not a name for a resource",
        path="name",
        value=name,
        remedy="use 1 to 64 of letters, digits and ._:@+-, beginning with a letter or digit",
    )
