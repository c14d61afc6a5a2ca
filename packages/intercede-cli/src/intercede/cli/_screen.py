"""What the user sees.

stdout carries the result and nothing else; whatever is said besides goes to stderr. Colour and moving lines only on a terminal. Text
from elsewhere (names, reasons, a daemon's words) is escaped before it is shown, so that it cannot steer the terminal. A reader that has
gone away (`| head`) is no error: the rest is dropped.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from intercede.core import InterCEdeError, JobStatus, SubmitUncertain

from ._exits import error_document

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Progress", "Screen", "Watch", "escaped"]


def escaped(text: str) -> str:
    """The text on one line, with everything a terminal might obey written as an escape."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it (PEP 383)
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def _escaped_lines(text: str) -> str:
    """Several lines, all but the first indented: none of them can pass for a line of ours."""
    first, *others = text.splitlines() or [""]
    return "\n".join([escaped(first), *(f"    {escaped(line.strip())}" for line in others)])


def _is_terminal(stream: TextIO | None) -> bool:
    return (
        stream is not None
        and stream.isatty()
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    )


class Progress(Protocol):
    """Shows how far the copies are."""

    def show(self, counts: Mapping[JobStatus, int]) -> None:
        """The copies by status, now."""
        ...


class _Silence:
    def show(self, counts: Mapping[JobStatus, int]) -> None:
        pass


class _Lines:
    """A line whenever something has changed."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last = ""

    def show(self, counts: Mapping[JobStatus, int]) -> None:
        text = _in_words(counts)
        if text != self._last:
            self._last = text
            self._screen.note(text)


class _Bar:
    """One line that moves."""

    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def show(self, counts: Mapping[JobStatus, int]) -> None:
        done = sum(count for status, count in counts.items() if status.is_finished)
        self._bar.update(self._task, completed=done, description=_in_words(counts))
        self._bar.refresh()


class Watch(Protocol):
    """Shows how far several checks are. Called from any thread."""

    def show(self, name: str, done: int, text: str) -> None:
        """Of this one so many steps are done, and this is going on."""
        ...


class _Unwatched:
    def show(self, name: str, done: int, text: str) -> None:
        pass


class _WatchLines:
    """A line whenever something has changed."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last: dict[str, str] = {}

    def show(self, name: str, done: int, text: str) -> None:
        if self._last.get(name) != text:
            self._last[name] = text
            self._screen.note(f"{name}: {text}")


class _WatchBars:
    """A line each that moves."""

    def __init__(self, bars: RichProgress, tasks: Mapping[str, TaskID]) -> None:
        self._bars = bars
        self._tasks = tasks

    def show(self, name: str, done: int, text: str) -> None:
        self._bars.update(self._tasks[name], completed=done, now=escaped(text))


def _in_words(counts: Mapping[JobStatus, int]) -> str:
    shown = Counter(counts)
    return ", ".join(f"{shown[status]} {status}" for status in JobStatus if shown[status])


#: Colours of the statuses in tables on a terminal.
_STYLES: Mapping[str, str] = {
    JobStatus.SUCCESSFUL: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
    JobStatus.FINISHED_UNKNOWN: "red",
    JobStatus.UNKNOWN: "red",
    JobStatus.RUNNING: "cyan",
    JobStatus.HELD: "yellow",
    "ok": "green",
    "not offered": "dim",
    "not reached": "yellow",
}


class Screen:
    """stdout and stderr of one command.

    Args:
        as_json: stdout gets JSON only.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = _prepared(sys.stdout)
        self._err = _prepared(sys.stderr)
        self._dropped = False

    def document(self, document: object) -> None:
        """One JSON document on one line of stdout. ASCII: any locale can carry it."""
        self._write(self._out, json.dumps(document, separators=(",", ":")) + "\n")

    def line(self, text: str) -> None:
        """One line of the result."""
        self._write(self._out, f"{escaped(text)}\n")

    def note(self, text: str) -> None:
        """Something besides the result."""
        self._write(self._err, f"intercede: {_escaped_lines(text)}\n")

    def error(self, error: InterCEdeError | OSError) -> None:
        """Something that went wrong, for people. A submit that may have arrived comes with what to look for."""
        self.note(str(error) or type(error).__name__)
        if isinstance(error, SubmitUncertain):
            for handle in error.handles:
                self.note(f"perhaps submitted: {handle.id}")
            for resource, tag in sorted({(h.resource, h.tag) for h in error.handles if h.tag}):
                tag_word = shlex.quote(tag)
                self.note(f"look for it with: intercede find --resource {resource} {tag_word}")

    def failed(self, error: InterCEdeError | OSError) -> None:
        """What ended the command."""
        if self.as_json and not self._dropped:
            self.document({"error": error_document(error)})
        else:
            self.error(error)

    def interrupted(self, *, announced: bool) -> None:
        """Ctrl-C ended the command."""
        if self.as_json:
            message = {"type": "Interrupted", "message": "interrupted", "exit_code": 130}
            self.document({"error": message})
        elif not announced:
            self.note("interrupted")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of the result: a table on a terminal, aligned text elsewhere."""
        cells = [[escaped(cell) for cell in row] for row in rows]
        if _is_terminal(self._out):
            self._rich_table(columns, cells)
            return
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in [list(columns), *cells]:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._write(self._out, "  ".join(padded).rstrip() + "\n")

    def _rich_table(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        console = Console(file=self._out, highlight=False)
        with console.capture() as capture:
            console.print(table)
        self._write(self._out, capture.get())

    def copy_to_stdout(self, path: Path) -> None:
        """The bytes of a file, as they are."""
        self._copy(self._out, path)

    def copy_to_stderr(self, path: Path) -> None:
        """Likewise."""
        self._copy(self._err, path)

    @contextmanager
    def progress(self, total: int) -> Iterator[Progress]:
        """Shows on stderr how far `total` copies are, while the block runs."""
        if self.as_json:
            yield _Silence()
            return
        if not _is_terminal(self._err):
            yield _Lines(self)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        with RichProgress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(file=self._err, highlight=False),
            auto_refresh=False,
            transient=True,
        ) as bar:
            yield _Bar(bar, bar.add_task("submitted", total=total))

    @contextmanager
    def watch(self, names: Sequence[str], steps: int) -> Iterator[Watch]:
        """Shows on stderr how far these are, each of so many steps, while the block runs."""
        if self.as_json:
            yield _Unwatched()
            return
        if not _is_terminal(self._err):
            yield _WatchLines(self)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        with RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=14),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            console=Console(file=self._err, highlight=False),
            transient=True,
        ) as bars:
            tasks = {name: bars.add_task(escaped(name), total=steps, now="") for name in names}
            yield _WatchBars(bars, tasks)

    def flush(self) -> None:
        """Hand over what others have printed."""
        self._write(self._out, "")

    def _write(self, stream: TextIO | None, text: str) -> None:
        if stream is None:
            return
        with self._guarded(stream):
            stream.write(text)
            stream.flush()

    def _copy(self, stream: TextIO | None, path: Path) -> None:
        if stream is None:
            return
        with path.open("rb") as source, self._guarded(stream):
            shutil.copyfileobj(source, stream.buffer)
            stream.buffer.flush()

    @contextmanager
    def _guarded(self, stream: TextIO) -> Iterator[None]:
        """A reader that has gone is no error; a full disk behind stdout is one."""
        try:
            yield
        except OSError as error:
            self._drop(stream)
            if stream is self._out and not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, f"cannot write the output: {error.strerror}") from None

    def _drop(self, stream: TextIO) -> None:
        """Nobody reads any more. What the stream still holds must not fail again when the interpreter flushes it."""
        self._dropped = self._dropped or stream is self._out
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, stream.fileno())
        finally:
            os.close(sink)


def _prepared(stream: TextIO | None) -> TextIO | None:
    """A locale that lacks a character gets an escape in its place, not an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream
