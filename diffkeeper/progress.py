"""How long work reports how far it is, without knowing who looks.

Owns the `Progress` protocol and `Silent`, its do-nothing implementation for libraries, tests and
pipes. Drawing on a terminal is in `diffkeeper.cli.ui`.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress; calls are cheap, so report as often as is natural."""

    def progress(self, label: str, done: int, total: int) -> None:
        """`done` of `total` units of the work called `label`; a total of 0 means it is not known."""

    def finish(self) -> None:
        """The work is over: take the bar away. May be called again, and progress may follow."""

    def note(self, text: str) -> None:
        """One line for the user, shown whole and kept, above any bar."""


class Silent:
    """A Progress that shows nothing."""

    def progress(self, label: str, done: int, total: int) -> None:
        del label, done, total

    def finish(self) -> None:
        return

    def note(self, text: str) -> None:
        del text
