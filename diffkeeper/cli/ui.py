"""What the terminal sees: progress bars and colour.

Owns every decision about whether a stream is a terminal. Knows nothing of traces or commands.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, ParamSpec

import click

from diffkeeper.progress import Progress, Silent
from diffkeeper.wording import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

PATIENCE = 0.3
"""Seconds of work before a bar appears: quick work shows none."""

_INTERVAL = 0.1

P = ParamSpec("P")


def is_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def use_colour(stream: IO[str]) -> bool:
    """Whether to colour `stream`: a terminal, unless NO_COLOR is set (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def open_ui() -> Progress:
    """Progress on standard error: bars on a terminal; elsewhere notes only."""
    return Bars() if is_terminal(sys.stderr) else Notes()


def _where_it_can(said: Callable[P, None]) -> Callable[P, None]:
    """Nobody fails because what we say finds no way out: the terminal hung up, or the log's disk is full."""

    @functools.wraps(said)
    def quietly(*args: P.args, **kwargs: P.kwargs) -> None:
        with suppress(OSError):
            said(*args, **kwargs)

    return quietly


class Notes(Silent):
    """Prints notes, draws nothing: for pipes and logs."""

    @_where_it_can
    def note(self, text: str) -> None:
        click.echo(printable(text), err=True)


class Bars:
    """One bar per label, drawn by rich on standard error. rich is imported when a bar is due."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._drawn = 0.0
        self._bars: RichBars | None = None
        self._tasks: dict[str, TaskID] = {}

    @_where_it_can
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

    @_where_it_can
    def finish(self) -> None:
        bars, self._bars, self._since, self._tasks = self._bars, None, None, {}
        if bars is not None:
            bars.stop()

    @_where_it_can
    def note(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(printable(text), err=True)
