"""Damage traces until the time is up, and count what did not go as it should.

    python -m tests.hostile [--seconds N] [--cases N] [--mutation NAME]... [--seed N] [--json FILE] [--keep DIR]

Ends with 1 when something was wrong; such traces are kept in DIR.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.hostile import seeds
from tests.hostile.exercise import everything, in_child
from tests.hostile.mutate import MUTATIONS

SEEDS = {"indexed": seeds.indexed, "many": seeds.many, "journal": seeds.journal}
ONLY = {"journal_bytes": ["journal"], "journal_records": ["journal"], "facts": ["indexed", "journal"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--cases", type=int, default=1 << 60)
    parser.add_argument("--mutation", action="append", choices=MUTATIONS)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "diffkeeper-hostile")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="diffkeeper-hostile-"))
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    started = time.monotonic()
    try:
        made = {name: make(folder / name) for name, make in SEEDS.items()}
        for number in range(options.cases):
            if time.monotonic() - started > options.seconds:
                break
            chance = random.Random(f"{options.seed} {number}")
            mutation = chance.choice(options.mutation or list(MUTATIONS))
            seed = chance.choice(ONLY.get(mutation, ["indexed", "many"]))
            trace = seeds.copy(made[seed], folder / "trace")
            wrong = in_child(functools.partial(MUTATIONS[mutation], trace, chance), file_size=1 << 50)
            if wrong:
                raise RuntimeError(f"{mutation}: {wrong}")
            kept = options.keep / f"{options.seed}-{number}-{mutation}"
            damaged = seeds.copy(trace, folder / "damaged") if mutation != "members" else None
            wrong = in_child(functools.partial(everything, trace, folder / "out"))
            done[mutation] += 1
            if wrong:
                failed[mutation] += 1
                print(f"{mutation} of {seed}, kept as {kept}:\n{wrong}", flush=True)
                options.keep.mkdir(parents=True, exist_ok=True)
                if damaged:
                    shutil.copytree(damaged, kept, symlinks=True, dirs_exist_ok=True)
    finally:
        shutil.rmtree(folder)
    figures = {"seed": options.seed, "cases": dict(sorted(done.items())), "failed": dict(sorted(failed.items())),
               "seconds": round(time.monotonic() - started)}  # fmt: skip
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps({"command": "make fuzz-traces", **figures}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
