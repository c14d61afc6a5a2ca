"""The command `intercede`, for people.

    intercede run --copies 3 --output '*.csv' -- ./analyse.sh --events 1000

Its commands, exit codes and JSON are documented in docs/command-line.md. Whatever it does, it does through `intercede.core`.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; None: this process's own.

    Returns:
        The exit code.
    """
    import sys

    try:
        # Imported here, so that Ctrl-C during the imports is one line as well.
        from ._app import command

        return command(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("intercede: interrupted\n")
        return 130
