"""The command line: what may be said, and how it is read.

What follows `--` is the job's and is passed on byte for byte; nothing in it is taken for an option of ours.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final, NoReturn

from intercede.core import registry

from ._configuration import LOCAL
from ._exits import UsageError

__all__ = ["parse", "wants_json"]

_EXITS: Final = """\
exit codes: 0 all is well; 1 some job or item failed; 2 usage or configuration;
  3 the resource could not be used; 4 a submit whose end is not known; 130 Ctrl-C
"""

_RUN_EXITS: Final = """\
exit codes: the job's own (the highest of several copies), 128+N for signal N, 1 where
  there is none; 124 --timeout; 2 usage or configuration; 3 the resource could not be
  used; 4 a submit whose end is not known; 130 Ctrl-C (the copies are killed and purged)
"""

_CHECK_EXITS: Final = """\
exit codes: 0 each resource can do all that it offers; else the worst of: 1 something came
  out wrong; 2 usage, configuration, or the resource's table; 3 a resource could not be used;
  130 Ctrl-C (what was submitted is killed and purged)
"""

#: How long a step of a check may take by default.
_PATIENCE_S: Final = 300

_MEMORY_UNITS: Final[Mapping[str, int]] = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}
_TIME_UNITS: Final[Mapping[str, int]] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving, so that usage errors take the same way as all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            message,
            operation=self.prog.removeprefix("intercede "),
            remedy=f"see {self.prog} --help",
        )


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among our own options; also for a command line that does not parse."""
    return "--json" in _split(arguments)[0]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: It makes no sense.
        SystemExit: It asked for help or the version, which has been printed.
    """
    ours, command = _split(arguments)
    options = _parser().parse_args(ours)
    takes_command = options.action in ("run", "submit")
    if takes_command and not command:
        raise UsageError(
            "no command",
            operation=options.action,
            remedy=f"put it behind '--': intercede {options.action} -- COMMAND ARG...",
        )
    if command and not takes_command:
        raise UsageError(f"'--' has no meaning here: {command[0]!r}")
    if "ids" in options and (options.tag is None) == (not options.ids):
        raise UsageError("give job ids, or - for stdin, or --tag TAG", operation=options.action)
    options.command = command[:1] + [_as_sent(word) for word in command[1:]]
    return options


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(arguments)
    if "--" not in words:
        return words, []
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


def _as_sent(word: str) -> str:
    """A word of this process's command line as `intercede.core` carries bytes: UTF-8, whatever the locale."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="intercede",
        description="Run jobs elsewhere: here, or on any resource of intercede.toml.",
        epilog=_EXITS,
        parents=[_everywhere()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"intercede {version('intercede-cli')}"
    )
    parser.set_defaults(config=None, json=False, traceback=False)
    actions = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)

    def action(name: str, summary: str, *, exits: str = _EXITS) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=exits,
            parents=[_everywhere()],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    run = action("run", "Submit, wait, fetch, purge.", exits=_RUN_EXITS)
    _add_specification(run)
    _add_dest(run)
    run.add_argument("--keep", action="store_true", help="do not purge")
    run.add_argument(
        "--timeout",
        type=_seconds,
        metavar="TIME",
        help="kill what has not finished by then (90, 10m, 2h)",
    )

    _add_specification(action("submit", "Submit, and print the ids."))
    _add_ids(action("status", "Tell where jobs are."))
    fetch = action("fetch", "Bring the output of finished jobs.")
    _add_ids(fetch)
    _add_dest(fetch)
    _add_ids(action("kill", "End jobs."))
    _add_ids(action("purge", "Remove what a resource keeps of finished jobs."))
    find = action("find", "Print the ids of the jobs that were submitted with a tag.")
    find.add_argument("tag", type=_as_sent, metavar="TAG")
    _add_resource(find)

    check = action("check", "Try what resources can do, with two tiny jobs.", exits=_CHECK_EXITS)
    check.add_argument(
        "resources",
        nargs="*",
        metavar="RESOURCE",
        help="which (default: all of the configuration file)",
    )
    check.add_argument(
        "--timeout",
        type=_patience,
        default=_PATIENCE_S,
        metavar="TIME",
        help="how long each step may take (default: 5m)",
    )

    plugins = action("plugins", "Show what is installed.")
    views = plugins.add_subparsers(dest="view", metavar="VIEW", required=True)
    views.add_parser("list", help="list the plugins", parents=[_everywhere()], allow_abbrev=False)
    show = views.add_parser(
        "show", help="show a plugin and its options", parents=[_everywhere()], allow_abbrev=False
    )
    show.add_argument(
        "group",
        nargs="?",
        choices=registry.GROUPS,
        metavar="GROUP",
        help=f"one of {', '.join(registry.GROUPS)} (default: all)",
    )
    show.add_argument("name", metavar="NAME")
    return parser


def _everywhere() -> _Parser:
    """The options that every command has, before or behind its name. A new parser each time: they share their defaults."""
    options = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("--config", metavar="FILE", help="instead of the intercede.toml found")
    options.add_argument("--json", action="store_true", help="JSON on stdout, errors included")
    options.add_argument("--traceback", action="store_true", help="errors with where they arose")
    return options


def _add_resource(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resource",
        metavar="NAME",
        default=LOCAL,
        help="a resource of intercede.toml (default: local, this machine)",
    )


def _add_dest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dest",
        metavar="DIR",
        default="results",
        help="output goes to DIR/<submission>/<copy>/ (default: results)",
    )


def _add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="job ids; - reads ids or JSON handles from stdin"
    )
    parser.add_argument(
        "--tag", type=_as_sent, metavar="TAG", help="all jobs submitted with this tag"
    )
    _add_resource(parser)


def _add_specification(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [OPTION...] -- COMMAND [ARG...]"
    _add_resource(parser)
    add = parser.add_argument
    add("--copies", type=_number, default=1, metavar="N", help="how many (default: 1)")
    add(
        "--input",
        type=_input,
        action="append",
        default=[],
        metavar="NAME[=SOURCE]",
        help="a file or directory to put beside the job; repeatable",
    )
    add(
        "--output",
        type=_as_sent,
        action="append",
        default=[],
        metavar="PATTERN",
        help="what to bring back: a name, '*.csv', 'plots/'; repeatable",
    )
    add("--everything", action="store_true", help="bring back all files the job made")
    add(
        "--env",
        type=_variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of the job; repeatable",
    )
    add("--cpus", type=_number, default=1, metavar="N", help="cores per copy (default: 1)")
    add("--memory", type=_mebibytes, metavar="SIZE", help="per copy: 512 or 512M, 2G")
    add("--time", type=_seconds, metavar="TIME", help="limit per copy: 600, 10m, 2h")
    add("--gpus", type=_number, default=0, metavar="N", help="accelerators per copy")
    add("--nodes", type=_number, default=1, metavar="N", help="hosts per copy (default: 1)")
    add("--queue", type=_as_sent, metavar="NAME", help="queue or partition")
    add("--tag", type=_as_sent, metavar="TAG", help="a mark for `find` (default: one of its own)")
    add(
        "--resident",
        action="store_true",
        help="COMMAND is a program of the resource, not looked for here",
    )


# ---------------------------------------------------------------- values


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _mebibytes(text: str) -> int:
    return _with_unit(text.upper(), _MEMORY_UNITS, "a size, such as 512M or 2G")


def _seconds(text: str) -> int:
    return _with_unit(text.lower(), _TIME_UNITS, "a time, such as 90, 10m or 2h")


def _patience(text: str) -> int:
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError("nothing can be done in no time")
    return seconds


def _with_unit(text: str, units: Mapping[str, int], meant: str) -> int:
    match = re.fullmatch(r"([0-9]+)([A-Za-z]?)", text)
    if match is None or match[2] not in units:
        raise argparse.ArgumentTypeError(f"{text!r} is not {meant}")
    return int(match[1]) * units[match[2]]


def _input(text: str) -> tuple[str, str]:
    """The name in the work directory as it is sent, and the path here as this machine has it."""
    name, separator, source = text.partition("=")
    if separator and not source:
        raise argparse.ArgumentTypeError(f"{text!r} has nothing behind '='")
    return _as_sent(name), source if separator else name


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, _as_sent(value)
