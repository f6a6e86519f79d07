"""How fast a journal becomes an index, and what memory that takes: recorded for real, indexed afterwards, alone.

python -m tests.bench.index TRACE     index it; prints seconds, and MB of memory at most
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from diffkeeper.store import indexer

from .material import Memory, facts, fresh, record, worker
from .measure import PYTHON, Plan, Row, expect, in_turn, run


def rows(plan: Plan) -> list[Row]:
    small, large = plan.size(1_000_000), plan.size(200_000)
    one = _indexed(plan, "small", [worker(plan), "appends", str(small), "64"], small)
    other = _indexed(plan, "large", [worker(plan), "appends", str(large), "4096"], large)
    return [
        Row(f"indexing {small:,} x 64 B writes", small / one[0] / 1000, "1,000 events/s", 200, least=True),
        Row(f"indexing {large:,} x 4 KiB writes", large * 4096 / 1e6 / other[0], "MB/s", 300, least=True),
        Row("indexer's memory", max(one[1], other[1]), "MB", note="its own, at most"),
    ]


def _indexed(plan: Plan, name: str, command: list[str], events: int) -> tuple[float, float]:
    """Seconds, and MB."""
    journal, trace = plan.top / f"journal-{name}", plan.top / "trace"
    record(journal, command, fresh(plan.top / "work"), events, indexed=False)
    most = 0.0

    def once() -> float:
        nonlocal most
        shutil.rmtree(trace, ignore_errors=True)
        shutil.copytree(journal, trace, copy_function=os.link)
        took, memory = map(float, run([PYTHON, "-m", "tests.bench.index", str(trace)]).split())
        expect("indexing", facts(trace)["events"] >= events, True)
        most = max(most, memory)
        return took

    median = in_turn(plan.rounds, {name: once})[name]
    shutil.rmtree(journal)
    return median, most


def main() -> None:
    with Memory(os.getpid()) as memory:
        began = time.perf_counter()
        indexer.index(Path(sys.argv[1]))
        took = time.perf_counter() - began
    print(took, memory.peak)


if __name__ == "__main__":
    main()
