"""From the command line to the exit code: every error becomes one clear message here, and nowhere else."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, TextIO

import anyio

from intercede.core import InterCEdeError

from . import _jobs, _plugins
from ._arguments import parse, wants_json
from ._check import check
from ._configuration import Configuration, read_configuration
from ._exits import ExitCode, exit_code_of
from ._ids import read_ids
from ._interrupts import Interrupts
from ._run import run
from ._screen import Screen

__all__ = ["command"]

_Action = Callable[[argparse.Namespace, Configuration, Screen, Interrupts], Awaitable[int]]

_ACTIONS: Final[Mapping[tuple[str, str | None], _Action]] = {
    ("run", None): run,
    ("submit", None): _jobs.submit_only,
    ("check", None): check,
    ("find", None): _jobs.find,
    ("status", None): _jobs.status,
    ("fetch", None): _jobs.fetch,
    ("kill", None): _jobs.kill,
    ("purge", None): _jobs.purge,
    ("plugins", "list"): _plugins.list_plugins,
    ("plugins", "show"): _plugins.show_plugin,
}


def command(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    screen = Screen(as_json=wants_json(arguments))
    options: argparse.Namespace | None = None
    try:
        options = parse(arguments)
        configuration = read_configuration(options.config)
        if "ids" in options:  # before the event loop: Ctrl-C ends a read of stdin only there
            options.ids = read_ids(options.ids, screen)
        with _warnings_on(screen):
            return anyio.run(partial(_carried_out, options, configuration, screen))
    except SystemExit as leave:  # --help and --version have been printed
        screen.flush()
        return int(leave.code or 0)
    except KeyboardInterrupt:
        screen.interrupted(announced=False)
        return ExitCode.INTERRUPTED
    except (InterCEdeError, OSError) as error:
        if options is not None and options.traceback:
            raise
        screen.failed(error)
        return exit_code_of(error)


async def _carried_out(
    options: argparse.Namespace, configuration: Configuration, screen: Screen
) -> int:
    action = _ACTIONS[options.action, getattr(options, "view", None)]
    interrupts = Interrupts()
    with interrupts.listening(), anyio.CancelScope() as scope, interrupts.ending(scope):
        code = await action(options, configuration, screen, interrupts)
        if code != ExitCode.INTERRUPTED:
            return code
    screen.interrupted(announced=interrupts.announced)
    return ExitCode.INTERRUPTED


@contextmanager
def _warnings_on(screen: Screen) -> Iterator[None]:
    """A plugin that shadows another is a warning for people, not a line of source."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        screen.note(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
