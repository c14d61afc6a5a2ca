"""`intercede.toml`: the resources by name with their credentials, and the choice among plugins.

The first file found is the only one read: `--config`, `$INTERCEDE_CONFIG`, `./intercede.toml`, `~/.config/intercede/intercede.toml`.
None is needed for this machine, which is the resource `local`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from intercede.core import (
    ConfigurationError,
    CredentialProvider,
    InterCEdeError,
    JobBackend,
    registry,
)

from ._credentials import NamedFiles, files_of

__all__ = ["LOCAL", "Configuration", "read_configuration"]

#: The resource that is always there.
LOCAL: Final = "local"

_BUILT_IN: Final[Mapping[str, Mapping[str, object]]] = {
    LOCAL: {"transport": "local", "scheduler": "direct"}
}

#: In a resource's table, what is the command's own; all other keys are the plugins'.
_CREDENTIALS: Final = "credentials"

_SECTIONS: Final = ("resources", "plugins")
_PLUGIN_KEYS: Final = ("allow", "prefer")


@frozen
class Configuration:
    """What the file says, or what holds without one.

    Attributes:
        origin: The file's name, "" without one.
        resources: Their tables by name, the built-in one included.
        policy: Which plugins may be used.
        described: The names of those that the file describes; without any, the built-in one's.
    """

    origin: str
    resources: Mapping[str, Mapping[str, object]]
    policy: registry.Policy
    described: tuple[str, ...] = (LOCAL,)

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[JobBackend]:
        """A resource's backend for use in the block, with its credentials.

        Raises:
            ConfigurationError, PluginError: As `backend`.
        """
        credentials = self.credentials(name)
        async with credentials, self.backend(name, credentials) as ce:
            yield ce

    def credentials(self, name: str) -> CredentialProvider:
        """What a resource's table `credentials` names, not yet opened. Whoever asks for it opens and closes it.

        Raises:
            ConfigurationError: There is no such resource, or that table is wrong.
        """
        self.require(name)
        with self._placed(name):
            files = files_of(self.resources[name].get(_CREDENTIALS, {}))
            return NamedFiles(files, name, self.origin or "intercede.toml")

    def backend(self, name: str, credentials: CredentialProvider) -> JobBackend:
        """The backend of a resource, not yet connected.

        Raises:
            ConfigurationError: There is no such resource, or its table is wrong.
            PluginError: As `registry.backend`.
        """
        self.require(name)
        table = {key: value for key, value in self.resources[name].items() if key != _CREDENTIALS}
        with self._placed(name):
            return registry.backend({**table, "name": name}, credentials, policy=self.policy)

    def require(self, name: str) -> None:
        """Return if there is such a resource.

        Raises:
            ConfigurationError: There is none; names what is there.
        """
        if name in self.resources:
            return
        near = difflib.get_close_matches(name, self.resources, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(
            f"no resource {name!r} in {self.origin or 'the built-in configuration'}",
            candidates=near or tuple(self.resources),
            remedy=f"{hint}known here: {', '.join(self.resources)}",
        )

    @contextmanager
    def _placed(self, name: str) -> Iterator[None]:
        """An error in the block is about a resource's table."""
        path = f"resources.{name}"
        place = f"{self.origin}: {path}" if self.origin else path
        try:
            yield
        except InterCEdeError as error:
            raise error.at(place, "") from error.__cause__


def read_configuration(given: str | None) -> Configuration:
    """Find the file and read it.

    Args:
        given: From the command line.

    Raises:
        ConfigurationError: A file that was named is not there, or its content is wrong; names the file and the key.
    """
    path = _found(given)
    if path is None:
        return Configuration("", _BUILT_IN, registry.Policy())
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", resource=str(path)) from None
    except ValueError as error:
        raise ConfigurationError(f"not TOML: {error}", resource=str(path)) from None
    try:
        _check_keys(document, _SECTIONS, "")
        described = tuple(_table(document, "resources", "resources")) or (LOCAL,)
        return Configuration(str(path), _resources(document), _policy(document), described)
    except ConfigurationError as error:
        raise error.at(str(path), "") from None


def _found(given: str | None) -> Path | None:
    named = given or os.environ.get("INTERCEDE_CONFIG")
    if named:
        return Path(named)
    places = (
        Path("intercede.toml"),
        Path("~/.config/intercede/intercede.toml").expanduser(),
    )
    return next((place for place in places if place.is_file()), None)


def _resources(document: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    resources = dict(_BUILT_IN)
    for name, table in _table(document, "resources", "resources").items():
        path = f"resources.{name}"
        if not isinstance(table, dict):
            raise ConfigurationError("expected a table", path=path, value=table)
        if "name" in table:
            raise ConfigurationError(
                "the table's own name is the resource's", path=f"{path}.name", remedy="remove it"
            )
        resources[name] = table
    return resources


def _policy(document: Mapping[str, object]) -> registry.Policy:
    section = _table(document, "plugins", "plugins")
    _check_keys(section, _PLUGIN_KEYS, "plugins.")
    prefer = _table(section, "prefer", "plugins.prefer")
    for key, distribution in prefer.items():
        if not isinstance(distribution, str):
            raise ConfigurationError(
                'expected "group.name" = "distribution"',
                path=f"plugins.prefer.{key}",
                value=distribution,
            )
    return registry.Policy(
        prefer={key: str(value) for key, value in prefer.items()}, allow=_allowed(section)
    )


def _allowed(section: Mapping[str, object]) -> frozenset[str] | None:
    if "allow" not in section:
        return None
    names = section["allow"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(
            "expected a list of distributions", path="plugins.allow", value=names
        )
    return frozenset(names)


def _table(document: Mapping[str, object], key: str, path: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError("expected a table", path=path, value=value)
    return value


def _check_keys(table: Mapping[str, object], known: tuple[str, ...], prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigurationError(
                "no such key",
                path=f"{prefix}{key}",
                value=table[key],
                candidates=near or known,
                remedy=f"did you mean {near[0]!r}?" if near else "",
            )
