"""DiffKeeper: a flight recorder for the files a program touches.

The public API is here: `open` a trace, set a `mark` from the program that is recorded.

    trace = diffkeeper.open("diffkeeper-trace")
    moment = trace.at("2m14s")                  # a read-only path, like pathlib's
    text = (moment / "status.log").read_text()
    for event in trace.events(since="1m", path="*.log"): ...

Layout of the package; data flows downwards, and nothing looks back up:

    record/     what lives only while a command runs: kernel side, ring, baseline, child
    wire        bpf/event.h in Python: records as the kernel makes them
    journal     the append-only file of records
    store/      the journal, indexed: names, attributes, content patches, event blocks
    trace       the read-only facade over the store, and the way to open one
    view/       moments and their spelling, the tree at a moment, the mount
    diffing     what changed between two moments
    plugins     differs, event filters and exporters, and how they are found
    filtering   filters at work, while recording and afterwards
    cli/        one file for each command

    model, errors, progress: the words all of these use; testing: kits for authors of plugins
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .errors import DiffKeeperError
from .model import Attrs, Event, Fidelity, Mark, Moment, Op, Process, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from .trace import Trace

__version__ = "0.1.0"
__all__ = [
    "Attrs", "DiffKeeperError", "Event", "Fidelity", "Mark", "Moment", "Op", "Process", "Session",
    "__version__", "mark", "open",
]  # fmt: skip

MARK_DIRECTORY = "/.diffkeeper/mark/"
"""Where marks are set, by any language: a failing open() of a name in here is recorded."""


def open(  # noqa: A001 - diffkeeper.open(), like gzip.open()
    path: str | os.PathLike[str] = "diffkeeper-trace", *, progress: Callable[[int, int], None] | None = None
) -> Trace:
    """Open a recorded trace for reading; close it, or use it in a `with`.

    Finishes the index first if the recording was cut off; `progress` is told bytes done and bytes
    in all. Raises TraceMissingError, NotATraceError, TraceTooNewError, TraceDamagedError.
    """
    from .trace import open_trace  # not above: a program that only sets marks needs none of it

    return open_trace(path, progress=progress)


def mark(name: str) -> None:
    """Name this moment of the recording that runs now, as `@name`. Does nothing when none does; never raises."""
    try:
        os.close(os.open(MARK_DIRECTORY + name, os.O_RDONLY | os.O_CLOEXEC))
    except (OSError, ValueError):
        return  # the open is meant to fail: the recorder saw it
