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
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.crash.cases import Case, run

Maker = Callable[[random.Random], Case]


def _seed(chance: random.Random) -> int:
    return chance.randrange(1 << 30)


def recorder(chance: random.Random) -> Case:
    """At any time from its start to after its end, at ease or with writers held by a ring that is far too small."""
    if chance.random() < 0.5:
        return Case("recorder", _seed(chance), chance.uniform(0.05, 3.2), count=2000, pause=0.005)
    workers, stall = chance.choice((1, 4)), chance.choice((0, 0.2))
    delay = chance.uniform(0.5, 2.5)
    return Case("recorder", _seed(chance), delay, workers, 3000, 0, ring_bytes=1 << 19, large=20_000, stall=stall)


VICTIMS: dict[str, Maker] = {
    "recorder": recorder,
    "indexer": lambda chance: Case("indexer", _seed(chance), chance.uniform(0.3, 2.8), count=2000, pause=0.004),
    "opener": lambda chance: Case("opener", _seed(chance), chance.uniform(1.0, 2.5), 2, 4000, 0.001),
    "mount": lambda chance: Case("mount", _seed(chance), chance.uniform(0, 0.5)),
    "disk": lambda chance: Case("disk", _seed(chance), chance.randrange(2 << 20, 16 << 20), count=3000, pause=0),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--points", type=int, default=200, help="crashes of each victim")
    parser.add_argument("--victim", action="append", choices=VICTIMS)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--case", help="run this case only, as a broken one was printed")
    options = parser.parse_args()
    if options.case:
        print(run(Case(**json.loads(options.case))))
        return 0
    figures = {}
    broken = 0
    for victim in options.victim or VICTIMS:
        chance = random.Random(f"{victim} {options.seed}")
        phases: Counter[str] = Counter()
        started = time.monotonic()
        failures, events, held, told = list[str](), 0, 0, 0
        for _ in range(options.points):
            case = VICTIMS[victim](chance)
            try:
                outcome = run(case)
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"{error}; again: --case '{json.dumps(asdict(case))}'")
                print(f"{victim}: {failures[-1]}", flush=True)
                continue
            phases[outcome.phase] += 1
            events += outcome.events
            held += outcome.stopped
            told += bool(outcome.lost)
        broken += len(failures)
        figures[victim] = {
            "points": options.points, "broken": len(failures), "phases": dict(sorted(phases.items())),
            "steps_compared": events, "held_when_killed": held, "traces_that_tell_a_loss": told,
            "seconds": round(time.monotonic() - started),
        }  # fmt: skip
        print(f"{victim}: {json.dumps(figures[victim])}", flush=True)
    if options.json:
        facts = {"command": "make crash", "seed": options.seed, "kernel": platform.release(), "victims": figures}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
