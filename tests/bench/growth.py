"""How the cost of looking grows with the number of events, on the same tree."""

from __future__ import annotations

from pathlib import Path

from .look import _at_and_read, _compare, _find
from .material import fresh, mounted, record, tree, worker
from .measure import DIFFKEEPER, Plan, expect, in_turn, run, seconds

FILES = 1000
FIRST_LINES = DIFFKEEPER[0] + " timeline {} | head -5"
WHATS = ("mount ready", "find -size +1", "diff -rq", "diffkeeper diff", "timeline, first lines", "at + read of a file")


def curves(plan: Plan) -> dict[str, dict[str, float]]:
    """What is looked at -> events -> seconds."""
    found: dict[str, dict[str, float]] = {what: {} for what in WHATS}
    for events in (10_000, 100_000) if plan.quick else (10_000, 100_000, 1_000_000, 10_000_000):
        where = tree(fresh(plan.top / "tree"), FILES, 25_000_000)
        trace, at = plan.top / "growing", plan.top / "mount"
        record(trace, [worker(plan), "life", str(events), "64", str(FILES)], where, events)
        for what, figure in _looks(plan, trace, at, events).items():
            found[what][str(events)] = figure
    return found


def _looks(plan: Plan, trace: Path, at: Path, events: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {what: [] for what in WHATS}
    for _ in range(plan.rounds):
        with mounted([*DIFFKEEPER, "mount", str(trace), str(at)], at, "") as ready:
            figures["mount ready"].append(ready)
            figures["find -size +1"].append(_find(at / f"@e{events // 2}", FILES))
            figures["diff -rq"].append(_compare(at / "@before", at / "@after"))
        said = in_turn(1, {
            "diffkeeper diff": lambda: seconds(lambda: run([*DIFFKEEPER, "diff", trace, "before", "after"], ok=(1,))),
            "timeline, first lines": lambda: seconds(lambda: run(["sh", "-c", FIRST_LINES.format(trace)])),
            "at + read of a file": lambda: _at_and_read(trace, events),
        })  # fmt: skip
        for what, figure in said.items():
            figures[what].append(figure)
    expect("looks", all(figures.values()), True)
    return {what: sorted(found)[len(found) // 2] for what, found in figures.items()}
