"""Which event it was after which something is no longer as it should be: the search for it.

Owns which moments come into question, and halving them. What it takes to try one is the caller's; which stretches of
events belong together is `diffkeeper.happenings`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from . import happenings
from .exporting import Selection
from .happenings import Ends
from .model import Event, Op

if TYPE_CHECKING:
    from .progress import Progress
    from .trace import Trace


class Verdict(enum.Enum):
    """Of a moment."""

    GOOD = "succeeds"
    BAD = "fails"
    UNKNOWN = "cannot tell"


class Found(Struct, frozen=True):
    """The last moment that is good and the first that is bad, as numbers of their events.

    `unknown`: how many between them cannot be told; it may have been any of these.
    """

    good: int
    bad: int
    unknown: int = 0


def moments(trace: Trace, good: int, selection: Selection, ends: Ends, progress: Progress) -> list[int]:
    """What comes into question after the event `good`, and until the selection's moment, which is the last."""
    marks_too = ends.per == "mark"
    found = [
        event.seq
        for event in ends.of(happenings.events(trace, selection, progress))
        if marks_too or event.op is not Op.MARK
    ]
    last = selection.moment.seq
    return [good, *(seq for seq in found if good < seq < last), last]


def search(seqs: Sequence[int], try_at: Callable[[int, int], Verdict]) -> Found:
    """Halve what lies between the first, which is good, and the last, which is bad.

    `try_at` is given one and how many are left besides.
    """
    low, high, unknown = 0, len(seqs) - 1, set[int]()
    while (at := _nearest(low, high, unknown)) is not None:
        verdict = try_at(seqs[at], high - low - 2)
        if verdict is Verdict.GOOD:
            low = at
        elif verdict is Verdict.BAD:
            high = at
        else:
            unknown.add(at)
    return Found(seqs[low], seqs[high], high - low - 1)


def _nearest(low: int, high: int, unknown: set[int]) -> int | None:
    """The one nearest to the middle that is not known to be unknown; None: there is none between."""
    middle = (low + high) // 2
    for away in range(high - low):
        for at in (middle - away, middle + away):
            if low < at < high and at not in unknown:
                return at
    return None


def culprits(trace: Trace, found: Found) -> Iterator[Event]:
    """The events between the two that changed files."""
    for event in trace.reader.events(found.good + 1, found.bad):
        if event.op not in happenings.NO_FILES:
            yield event
