"""Crash recordings at random points and count the promises that were broken.

    python -m tests.crash [--points N] [--victim NAME]... [--seed N] [--json FILE]

Ends with 1 when a promise was broken; the line it prints for that has all that is needed to run the case again.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffkeeper.errors import DiffKeeperError
from tests.crash.cases import Case, run
from tests.crash.power import Cut

Maker = Callable[[random.Random], Case]


def _seed(chance: random.Random) -> int:
    return chance.randrange(1 << 30)


def recorder(chance: random.Random) -> Case:
    """At any time from its start to after its end, at ease or with writers held by a ring that is far too small.

    Counted in steps of the command where it runs: on a busy machine, seconds are spent before it begins.
    """
    seed, roll = _seed(chance), chance.random()
    if roll < 0.2:
        return Case("recorder", seed, chance.uniform(0.05, 2), count=1500, pause=0.005)
    if roll < 0.6:
        steps = min(1490, chance.randrange(10, 1900, 10))
        return Case("recorder", seed, chance.uniform(0, 0.1 if steps < 1490 else 1.2), 1, 1500, 0.005, steps=steps)
    workers, stall, steps = chance.choice((1, 4)), chance.choice((0, 0.2)), chance.randrange(10, 2990, 10)
    return Case(
        "recorder", seed, chance.uniform(0, 0.1), workers, 3000, 0, 1 << 19, large=20_000, steps=steps, stall=stall
    )


VICTIMS: dict[str, Maker] = {
    "recorder": recorder,
    "indexer": lambda chance: Case(
        "indexer", _seed(chance), chance.uniform(0, 0.5), count=1500, pause=0.004, steps=chance.randrange(0, 1490, 10)
    ),
    "opener": lambda chance: Case(
        "opener", _seed(chance), chance.uniform(0, 0.5), 2, 4000, 0.001, steps=chance.randrange(0, 3990, 10)
    ),
    "mount": lambda chance: Case("mount", _seed(chance), chance.uniform(0, 0.5)),
    "disk": lambda chance: Case("disk", _seed(chance), chance.randrange(2 << 20, 16 << 20), count=3000, pause=0),
}


def _cases(victim: str, points: int, seed: int) -> Iterator[Case]:
    chance = random.Random(f"{victim} {seed}")
    return (VICTIMS[victim](chance) for _ in range(points))


class _Tally(dict[str, Any]):
    """What came of the cases of one victim; always ready to be written."""

    def __init__(self) -> None:
        super().__init__(
            points=0, broken=0, phases={}, changes_compared=0, held_when_killed=0, traces_that_tell_a_loss=0, seconds=0
        )

    def add(self, case: Case) -> None:
        started = time.monotonic()
        try:
            outcome = run(case)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            self["broken"] += 1
            print(f"{case.victim}: {error}; again: --case '{json.dumps(asdict(case))}'", flush=True)
        else:
            if outcome.phase:
                self["phases"][outcome.phase] = self["phases"].get(outcome.phase, 0) + 1
            self["changes_compared"] += outcome.events
            self["held_when_killed"] += outcome.stopped
            self["traces_that_tell_a_loss"] += bool(outcome.lost)
        self["points"] += 1
        self["seconds"] = round(self["seconds"] + time.monotonic() - started, 1)


def power() -> tuple[dict[str, int], int]:
    """Cut a journal at every byte."""
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        cut = Cut(Path(folder))
        for size in range(cut.size + 1):
            try:
                cut.check(size)
            except (AssertionError, DiffKeeperError) as error:
                broken += 1
                print(f"power: cut at byte {size}: {error!r}", flush=True)
        return {"points": cut.size + 1, "broken": broken}, broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--points", type=int, default=200, help="crashes of each victim")
    parser.add_argument("--victim", action="append", choices=[*VICTIMS, "power"])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--case", help="run this case only, as a broken one was printed")
    options = parser.parse_args()
    if options.case:
        print(run(Case(**json.loads(options.case))))
        return 0
    figures: dict[str, object] = {}
    broken = 0
    if not options.victim or "power" in options.victim:
        figures["power"], broken = power()
        print(f"power: {json.dumps(figures['power'])}", flush=True)
    try:
        for victim in options.victim or VICTIMS:
            if victim != "power":
                figures[victim] = tally = _Tally()
                for case in _cases(victim, options.points, options.seed):
                    tally.add(case)
                print(f"{victim}: {json.dumps(tally)}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: the figures are of what was done until now")
    if options.json:
        facts = {"command": "make crash", "seed": options.seed, "kernel": platform.release(), "victims": figures}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if broken or any(isinstance(tally, _Tally) and tally["broken"] for tally in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
