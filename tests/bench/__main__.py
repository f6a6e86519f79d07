"""Measure, keep the figures in docs/benchmarks/, and write docs/benchmarks.md.

    python -m tests.bench [--quick] [--rounds N] [--part PART]... [--page] [WORKLOAD...]

Each figure is kept as soon as it is there, in the place of the one of before. `--quick`: smaller, fewer rounds, no
peers, printed and not kept. `--page`: measure nothing, write the page anew from the figures there are. A run that lost
an event or did not do its work ends the bench.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import capture, growth, ignored, index, look, page, peers, size
from .material import clean_environment
from .measure import Plan, Row, machine

PARTS = ("capture", "ignored", "index", "size", "look", "growth")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("workloads", nargs="*", help="of the part `capture` only rows with one of these words")
    arguments = parser.parse_args()
    if not arguments.page:
        measure(arguments)
    if not arguments.quick:
        page.write()


def measure(arguments: argparse.Namespace) -> None:
    if not arguments.quick:
        peers.check()
    with tempfile.TemporaryDirectory(prefix="diffkeeper-bench-", dir="/dev/shm") as top:
        clean_environment(Path(top))
        plan = Plan(arguments.quick, arguments.rounds or (1 if arguments.quick else 3), Path(top))
        parts = arguments.part or (["capture"] if arguments.workloads else PARTS)
        for part in parts:
            if part == "growth":
                _grow(plan)
            else:
                _part(part, plan, arguments.workloads)


def _load() -> float:
    return round(os.getloadavg()[0], 1)


def _grow(plan: Plan) -> None:
    load = _load()
    curves = growth.curves(plan)
    for what, found in curves.items():
        print(f"{what:52}", *(f"{int(events):>11,}: {figure:.3f} s" for events, figure in found.items()), flush=True)
    if plan.quick:
        return
    file = _keep("growth", plan, {"curves": curves, "load": [load, load], "date": _today()})
    plot = Path(__file__).with_name("plot.py")
    subprocess.run([peers.BIN / "python", plot, file, file.with_suffix(".svg")], check=True)


def _part(part: str, plan: Plan, workloads: list[str]) -> None:
    measured: dict[str, Callable[[], Iterable[Row]]] = {
        "capture": lambda: capture.rows(plan, workloads),
        "ignored": lambda: ignored.rows(plan),
        "index": lambda: index.rows(plan),
        "size": lambda: size.rows(plan),
        "look": lambda: look.rows(plan),
    }
    kept = {row["what"]: row for row in page.figures(part).get("rows", ())}
    done = set()
    load = _load()
    for row in measured[part]():
        print(_line(row), flush=True)
        kept[row.what] = {**asdict(row), "load": load, "date": _today()}
        load = _load()
        done.add(row.what)
        if not plan.quick:
            _keep(part, plan, {"rows": list(kept.values())})
    if not (plan.quick or workloads):  # rows that there are no more
        _keep(part, plan, {"rows": [row for what, row in kept.items() if what in done]})


def _today() -> str:
    return dt.datetime.now(tz=dt.UTC).date().isoformat()


def _line(row: Row) -> str:
    bar = "" if row.bar is None else f"{'>=' if row.least else '<='} {row.bar:g}"
    others = ", ".join(f"{name} {figure:.2f}" for name, figure in row.peers.items())
    return f"{row.what:52}{row.figure:10.3f} {row.unit:15}{bar:9}{'' if row.met else 'NOT MET':9}{others}"


def _keep(part: str, plan: Plan, found: dict[str, Any]) -> Path:
    figures = {
        "command": f"python -m tests.bench --part {part} --rounds {plan.rounds}", "rounds": plan.rounds,
        "machine": machine(), "versions": peers.versions(), **found,
    }  # fmt: skip
    file = page.FIGURES / f"{part}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return file


if __name__ == "__main__":
    main()
