"""Opening a trace from the command line: a recording that was cut off is indexed first, with a bar.

Owns only that; what a trace is and what can be wrong with it is `diffkeeper.trace`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import diffkeeper
from diffkeeper.cli.ui import open_ui
from diffkeeper.progress import Progress

if TYPE_CHECKING:
    from diffkeeper.trace import Trace


@contextmanager
def open_with_bar(path: Path, *, tells: bool = True) -> Iterator[Trace]:
    """The trace at `path`, closed at the end. Raises what `diffkeeper.open` raises.

    `tells`: where it is still being recorded that is said, on standard error.
    """
    ui = open_ui()
    try:
        trace = diffkeeper.open(path, progress=lambda done, total: ui.progress("indexing", done, total))
    finally:
        ui.finish()
    with trace:
        if tells:
            tell(ui, trace)
        yield trace


def tell(ui: Progress, trace: Trace) -> None:
    """Say that there is more to come, if there is."""
    if trace.recording:
        so_far = f"{trace.reader.last_seq:,} events"
        ui.note(f"{trace.path} is still being recorded: this is how it is after {so_far}")

