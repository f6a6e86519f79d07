"""What the terminal sees: progress bars, colour, and text that is safe to print.

Owns every decision about whether a stream is a terminal. Knows nothing of traces or commands.
"""

from __future__ import annotations

import os
import sys
import time
from typing import IO, TYPE_CHECKING

import click

from diffkeeper.progress import Progress, Silent

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

PATIENCE = 0.3
"""Seconds of work before a bar appears: quick work shows none."""

_INTERVAL = 0.1


def is_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def use_colour(stream: IO[str]) -> bool:
    """Whether to colour `stream`: a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def open_ui() -> Progress:
    """Progress on standard error: bars on a terminal; elsewhere notes only."""
    return Bars() if is_terminal(sys.stderr) else Notes()


class Notes(Silent):
    """Prints notes, draws nothing: for pipes and logs."""

    def note(self, text: str) -> None:
        click.echo(printable(text), err=True)


class Bars:
    """One bar per label, drawn by rich on standard error. rich is imported when a bar is due."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._drawn = 0.0
        self._bars: RichBars | None = None
        self._tasks: dict[str, TaskID] = {}

    def progress(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        last = total and done >= total and label in self._tasks
        if now - self._since < PATIENCE or (now - self._drawn < _INTERVAL and not last):
            return
        self._drawn = now
        bars = self._bars or self._start()
        if label not in self._tasks:
            self._tasks[label] = bars.add_task(label, total=None, so_far="")
        so_far = f"{done:,}" if done and not total else ""  # where there is no end to measure by
        bars.update(self._tasks[label], completed=done, total=total or None, so_far=so_far)

    def _start(self) -> RichBars:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        words, so_far = TextColumn("{task.description}"), TextColumn("{task.fields[so_far]}")
        columns = (words, BarColumn(), TaskProgressColumn(), so_far, TimeRemainingColumn())
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bars.start()
        return self._bars

    def finish(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._since, self._tasks = None, None, {}

    def note(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(printable(text), err=True)


_NAMED_ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\x1b": r"\e"}


def printable(text: bytes | str) -> str:
    r"""`text` on one line with nothing in it that a terminal would obey.

    Bytes are taken as UTF-8. What is not UTF-8 and what is not printable (control characters,
    direction overrides, line separators) is shown as an escape such as `\xff` or `\n`.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if char in _NAMED_ESCAPES:
        return _NAMED_ESCAPES[char]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def human_size(count: int) -> str:
    """Bytes as at most four significant characters and a unit: `17 B`, `4.0 KiB`, `1.2 GiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1023.95:
            return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"
    return f"{amount / 1024:.1f} PiB"


def human_duration(nanoseconds: int) -> str:
    """`350ms`, `12.350s`, `2m14.350s`, `1h02m03s`."""
    milliseconds = nanoseconds // 1_000_000
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m{seconds:02}s"
    if minutes:
        return f"{minutes}m{seconds:02}.{milliseconds:03}s"
    return f"{seconds}.{milliseconds:03}s" if seconds else f"{milliseconds}ms"
