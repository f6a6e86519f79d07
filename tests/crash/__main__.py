"""Crash recordings at random points and count the promises that were broken.

    python -m tests.crash [--points N] [--victim NAME]... [--seed N] [--json FILE]

A point is a kill that met its victim; where it had ended by itself, another is tried.

Ends with 1 when a promise was broken; the line it prints for that has all that is needed to run the case again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffkeeper.errors import DiffKeeperError
from tests.crash.blackout import Blackout
from tests.crash.cases import MISSED, Case, Outcome, run
from tests.crash.power import Cut
from tests.crash.prepared import Mounts, Openers

Maker = Callable[[random.Random], Case]
BROKEN = (AssertionError, DiffKeeperError, OSError, subprocess.SubprocessError)


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
        return Case("recorder", seed, chance.uniform(0, 0.1 if steps < 1490 else 0.5), 1, 1500, 0.005, steps=steps)
    workers, stall, steps = chance.choice((1, 4)), chance.choice((0, 0.2)), chance.randrange(10, 2990, 10)
    return Case(
        "recorder", seed, chance.uniform(0, 0.1), workers, 3000, 0, 1 << 19, large=20_000, steps=steps, stall=stall,
        guardians=chance.choice((0, 0, 1)),
    )  # fmt: skip


def indexer(chance: random.Random) -> Case:
    """At any time while the command runs and a little later; an index is finished soon after."""
    steps, delay = chance.randrange(10, 1490, 10), chance.uniform(0, 0.1)
    return Case("indexer", _seed(chance), delay, count=1500, pause=0.004, steps=steps)


def disk(chance: random.Random) -> Case:
    return Case("disk", _seed(chance), chance.randrange(2 << 20, 16 << 20), count=3000, pause=0)


CASES: dict[str, Maker] = {"recorder": recorder, "indexer": indexer, "disk": disk}
PREPARED: dict[str, Callable[[Path, int], Mounts | Openers]] = {"mount": Mounts, "opener": Openers}
VICTIMS = ("power", "blackout", *PREPARED, *CASES)


class Tally(dict[str, Any]):
    """What came of the points of one victim; always ready to be written. `missed`: the victim had ended by itself."""

    def __init__(self) -> None:
        super().__init__(
            points=0, missed=0, broken=0, phases={}, changes_compared=0, held_when_killed=0, traces_that_tell_a_loss=0,
            seconds=0,
        )  # fmt: skip
        self._started = time.monotonic()

    def add(self, phase: str, outcome: Outcome | None = None) -> None:
        if phase == MISSED:
            self["missed"] += 1
        else:
            self["points"] += 1
            self["phases"][phase] = self["phases"].get(phase, 0) + 1
        if outcome:
            self["changes_compared"] += outcome.events
            self["held_when_killed"] += outcome.stopped
            self["traces_that_tell_a_loss"] += bool(outcome.lost)
        self["seconds"] = round(time.monotonic() - self._started)

    def broke(self, what: str) -> None:
        self["points"] += 1
        self["broken"] += 1
        print(what, flush=True)


def cases(tally: Tally, victim: str, points: int, seed: int) -> None:
    """One case after the other, until the victim was met so many times."""
    chance = random.Random(f"{victim} {seed}")
    while tally["points"] < points:
        case = CASES[victim](chance)
        try:
            outcome = run(case)
        except BROKEN as error:
            tally.broke(f"{victim}: {error}; again: --case '{json.dumps(asdict(case))}'")
        else:
            tally.add(outcome.phase, outcome)


def prepared(tally: Tally, victim: str, points: int, seed: int, again: int) -> None:
    """Many kills of one trace. `again`: only the point of that number, as a broken one was printed."""
    with tempfile.TemporaryDirectory() as folder:
        victims = PREPARED[victim](Path(folder), seed)
        for number in itertools.count(again) if again else itertools.count(1):
            if tally["points"] >= (1 if again else points):
                break
            try:
                tally.add(victims.kill(random.Random(f"{victim} {seed} {number}")))
            except BROKEN as error:
                tally.broke(f"{victim}: {error!r}; again: --victim {victim} --seed {seed} --point {number}")
        victims.close()


def power(tally: Tally) -> None:
    """Cut a journal at every byte; in memory, as nothing here depends on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        cut = Cut(Path(folder))
        for size in range(cut.size + 1):
            try:
                cut.check(size)
                tally.add("cut")
            except BROKEN as error:
                tally.broke(f"power: cut at byte {size}: {error!r}")


def blackout(tally: Tally, points: int, seed: int) -> None:
    """Cut the power of one recording at random moments."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        victim = Blackout(Path(folder), seed, points)
        try:
            for number in range(points):
                try:
                    outcome = victim.check(number)
                    tally.add(outcome.phase, outcome)
                except BROKEN as error:
                    tally.broke(f"blackout: {error!r}; again: --victim blackout --seed {seed} (point {number})")
        finally:
            tally["seconds_behind"] = victim.behind
            victim.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--points", type=int, default=200, help="crashes of each victim")
    parser.add_argument("--victim", action="append", choices=VICTIMS)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--case", help="run this case only, as a broken one was printed")
    parser.add_argument("--point", type=int, default=0, help="run this point only, of a victim that is prepared")
    options = parser.parse_args()
    if options.case:
        print(run(Case(**json.loads(options.case))))
        return 0
    figures: dict[str, Tally] = {}
    try:
        for victim in options.victim or VICTIMS:
            figures[victim] = tally = Tally()
            if victim in CASES:
                cases(tally, victim, options.points, options.seed)
            elif victim in PREPARED:
                prepared(tally, victim, options.points, options.seed, options.point)
            elif victim == "blackout":
                blackout(tally, options.points, options.seed)
            else:
                power(tally)
            print(f"{victim}: {json.dumps(tally)}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: the figures are of what was done until now")
    if options.json:
        facts = {"command": "make crash", "seed": options.seed, "kernel": platform.release(), "victims": figures}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if any(tally["broken"] for tally in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
