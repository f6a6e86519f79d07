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

if TYPE_CHECKING:
    from diffkeeper.trace import Trace


@contextmanager
def open_with_bar(path: Path) -> Iterator[Trace]:
    """The trace at `path`, closed at the end. Raises what `diffkeeper.open` raises."""
    ui = open_ui()
    try:
        trace = diffkeeper.open(path, progress=lambda done, total: ui.progress("indexing", done, total))
    finally:
        ui.finish()
    with trace:
        yield trace
