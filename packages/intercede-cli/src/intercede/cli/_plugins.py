"""`plugins list` and `plugins show`: what is installed, and what can be configured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from intercede.core import PluginNotFound, registry, unstructure

from ._configuration import Configuration
from ._exits import ExitCode
from ._interrupts import Interrupts
from ._screen import Screen

__all__ = ["list_plugins", "show_plugin"]


async def list_plugins(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """All plugins that are installed; none is imported."""
    infos = registry.plugins(configuration.policy)
    if screen.as_json:
        screen.document({"plugins": [unstructure(info) for info in infos]})
        return ExitCode.OK
    columns = ("group", "name", "distribution", "version", "target", "used")
    screen.table(
        columns,
        [
            (info.group, info.name, info.distribution, info.version, info.target, _used(info))
            for info in infos
        ],
    )
    return ExitCode.OK


def _used(info: registry.PluginInfo) -> str:
    if not info.allowed:
        return "no: not allowed"
    return "no: shadowed" if info.shadowed else "yes"


async def show_plugin(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """A plugin, and the keys of its configuration; all of that name where no group is given."""
    found = [
        (group, registry.load(group, options.name, configuration.policy))
        for group in _groups(options, configuration)
    ]
    if screen.as_json:
        screen.document(
            {
                "plugins": [
                    {
                        "group": group,
                        "name": options.name,
                        "summary": plugin.summary,
                        "options": [unstructure(o) for o in registry.options(plugin.config)],
                    }
                    for group, plugin in found
                ]
            }
        )
        return ExitCode.OK
    for group, plugin in found:
        screen.line(f"{group}.{options.name}: {plugin.summary}".removesuffix(": "))
        rows = [
            (option.name, option.type, _default(option), option.unit, option.help)
            for option in registry.options(plugin.config)
        ]
        if rows:
            screen.table(("option", "type", "default", "unit", "meaning"), rows)
        else:
            screen.line("no options")
    return ExitCode.OK


def _default(option: registry.Option) -> str:
    return "required" if option.default is None else option.default


def _groups(options: argparse.Namespace, configuration: Configuration) -> Sequence[str]:
    if options.group is not None:
        return [options.group]
    infos = registry.plugins(configuration.policy)
    groups = {info.group: None for info in infos if info.name == options.name}
    if not groups:
        installed = ", ".join(sorted({f"{info.group}.{info.name}" for info in infos}))
        raise PluginNotFound(
            f"no plugin {options.name!r} is installed (installed: {installed or 'none'})"
        )
    return list(groups)
