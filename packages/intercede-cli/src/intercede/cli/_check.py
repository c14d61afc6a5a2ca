"""`check`: what resources can do, tried with two tiny jobs each, all resources at the same time.

A thread each, since they go through the synchronous facade. The first Ctrl-C breaks the checks off and waits until they have cleared up
behind themselves; the second leaves at once, and says what is left.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence
from typing import Final

import anyio

from ._checking import Check
from ._configuration import Configuration
from ._exits import ExitCode
from ._findings import left_text, report
from ._interrupts import Interrupts
from ._screen import Screen
from ._steps import Step

__all__ = ["check"]

_LOOK_S: Final = 0.05


async def check(
    options: argparse.Namespace,
    configuration: Configuration,
    screen: Screen,
    interrupts: Interrupts,
) -> int:
    """Check resources, and show what was found.

    Returns:
        The exit code.
    """
    names = list(dict.fromkeys(options.resources)) or list(configuration.described)
    for name in names:
        configuration.require(name)

    def tell() -> None:
        interrupts.announced = True
        screen.note("interrupted: clearing up; Ctrl-C again leaves what is there")

    with screen.watch(names, len(Step)) as watch:
        checks = [Check(configuration, name, options.timeout, watch) for name in names]
        with interrupts.noted(tell) as interrupted:
            try:
                await _all_over(checks, interrupted)
            finally:
                for one in checks:
                    one.abandon()
                    if interrupted.is_set() and one.course.leaves_something:
                        screen.note(left_text(one.course))
    for one in checks:
        if one.fault is not None:
            raise one.fault
    if interrupted.is_set():
        return ExitCode.INTERRUPTED
    return report([one.course for one in checks], screen)


async def _all_over(checks: Sequence[Check], interrupted: anyio.Event) -> None:
    """Run the checks to their end, which comes sooner once somebody has interrupted them."""
    # Daemons: who is not waited for any more must not keep the process.
    running = [threading.Thread(target=one.run, daemon=True) for one in checks]
    for thread in running:
        thread.start()
    stopping = False
    while any(thread.is_alive() for thread in running):
        if interrupted.is_set() and not stopping:
            stopping = True
            for one in checks:
                threading.Thread(target=one.stop, daemon=True).start()
        await anyio.sleep(_LOOK_S)
