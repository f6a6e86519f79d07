"""Several processes at once on the same few names and one open file: the end is right, what was put right is counted.

    make race RACE="[--filesystem KIND]... [--seed N] [--seeds N] [--bursts N] [--report FILE]"

Which of two calls came first cannot always be known, so nothing is compared while they race. They race in bursts, with
a mark after each, when all stand still: how many paths a burst leaves wrong is a figure. Promised is the end: it equals
the directory, nothing is lost, and `check` finds nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import diffkeeper
from tests.system import harness

from . import filesystems

RACERS = 4
CALLS = 25
"""Of each racer in a burst."""
NAMES = ("a", "b", "c", "d/a", "d/b", "e/a")
REPOSITORY = Path(__file__).parents[2]

Racer = Callable[[random.Random, int], None]


def _shared(chance: random.Random, fd: int) -> None:
    """One position for all: they seek it away from under each other's writes."""
    text = b"%d" % os.getpid() * chance.randrange(1, 300)
    what = chance.randrange(5)
    if what == 0:
        os.lseek(fd, chance.randrange(20_000), os.SEEK_SET)
    elif what == 1:
        os.ftruncate(fd, chance.randrange(20_000))
    elif what == 2:
        os.pwrite(fd, text, chance.randrange(20_000))
    else:
        os.write(fd, text)


def _content(chance: random.Random, _: int) -> None:
    flags = chance.choice((os.O_APPEND, os.O_TRUNC, 0)) | os.O_CREAT | os.O_WRONLY
    fd = os.open(chance.choice(NAMES), flags, 0o644)
    try:
        os.write(fd, b"%d" % chance.randrange(1 << 30) * chance.randrange(1, 900))
    finally:
        os.close(fd)


def _names(chance: random.Random, _: int) -> None:
    one, other = chance.choice(NAMES), chance.choice(NAMES)
    what = chance.randrange(8)
    if what < 3:
        os.rename(one, other)
    elif what == 3:
        os.link(one, other)
    elif what == 4:
        os.symlink(other, one)
    elif what == 5:
        os.unlink(one)
    elif what == 6:
        os.mkdir(one)
    else:
        os.rmdir(one)


def _attributes(chance: random.Random, _: int) -> None:
    name = chance.choice(NAMES)
    what = chance.randrange(4)
    if what == 0:
        os.chmod(name, chance.choice((0o600, 0o644, 0o755)))
    elif what == 1:
        os.chown(name, chance.randrange(3), chance.randrange(3))
    elif what == 2:
        os.utime(name, ns=(1, chance.randrange(1 << 60)))
    else:
        os.truncate(name, chance.randrange(5000))


def _programs(chance: random.Random, _: int) -> None:
    """By way of vfork: what is held then is a parent that waits for its child to execute something else."""
    words = chance.choice((["cp", "{0}", "{1}"], ["mv", "-f", "{0}", "{1}"], ["sed", "-i", "s/1/2/", "{0}"]))
    spelt = [word.format(chance.choice(NAMES), chance.choice(NAMES)) for word in words]
    subprocess.run(spelt, check=False, capture_output=True, timeout=20)


KINDS: tuple[tuple[Racer, ...], ...] = (
    (_shared,), (_names,), (_content,), (_names, _content, _attributes), (_shared, _names, _content, _attributes),
    (_content, _programs),
)  # fmt: skip
"""What all racers of a burst do; the last with fewer calls, for each is a program."""


def _burst(seed: str, fd: int, racers: tuple[Racer, ...]) -> None:
    """All race, and end; who fails otherwise than with an errno ends the recording."""
    calls = CALLS // 6 if _programs in racers else CALLS
    hold, go = os.pipe()
    children = []
    for number in range(RACERS):
        child = os.fork()
        if not child:
            status = 1
            try:
                chance = random.Random(f"{seed} {number}")
                os.close(go)
                os.read(hold, 1)  # until all are there
                for _ in range(calls):
                    with suppress(OSError):
                        chance.choice(racers)(chance, fd)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    os.close(hold)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise RuntimeError("a racer failed")


def _spelt(tree: harness.Truth) -> dict[str, str]:
    return {path: repr(entry) for path, entry in tree.items()}


def _work(seed: str, bursts: int) -> None:
    """In the recording. On stdout a line for each burst: what is there then."""
    for name in ("d", "e"):
        os.mkdir(name)
    fd = os.open("shared", os.O_CREAT | os.O_RDWR, 0o644)
    for number in range(bursts):
        kind = number % len(KINDS)
        _burst(f"{seed} {number}", fd, KINDS[kind])
        diffkeeper.mark(f"b{number}")
        print(json.dumps({"kind": kind, "there": _spelt(harness.truth(Path()))}), flush=True)


def race(place: Path, seed: str, bursts: int) -> Counter[str]:
    """One recording; what came of it. Raises AssertionError where a promise is broken."""
    root, trace = place / "root", place / "trace"
    root.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-m", "tests.oracle.racing", "--work", seed, "--bursts", str(bursts)]
    with tempfile.TemporaryDirectory() as aside:
        trace = Path(aside, "trace")
        done = harness.record(trace, words, cwd=root, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        facts = harness.info(trace)
        harness.assert_same(harness.recorded(trace, "end"), harness.truth(root))
        assert facts["lost"] == 0, facts["lost_by_cause"]
        checked = harness.run("check", trace)
        assert checked.returncode == 0, checked.stdout
        found = Counter(bursts=bursts, events=facts["events"], healed=facts["verified"]["mismatches"], paths=0, wrong=0)
        before: dict[str, tuple[str | None, str | None]] = {}
        for number, line in enumerate(done.stdout.splitlines()):
            told = json.loads(line)
            there, recorded = told["there"], _spelt(harness.recorded(trace, f"b{number}"))
            pairs = {path: (recorded.get(path), there.get(path)) for path in {*recorded, *there}}
            wrong = {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
            new = [path for path, pair in wrong.items() if before.get(path) != pair]
            found.update({"paths": len(pairs), "wrong": len(new), f"wrong in {told['kind']}": len(new)})
            if os.environ.get("RACING_TELLS"):
                print(*(f"{number} {path}:\n  {wrong[path][0]}\n  {wrong[path][1]}" for path in new), sep="\n")
            before = wrong
        return found


def main() -> int:
    """Exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.racing", description=__doc__)
    parser.add_argument("--filesystem", action="append", choices=["here", *filesystems.KINDS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=4, help="recordings on each filesystem")
    parser.add_argument("--bursts", type=int, default=60)
    parser.add_argument("--report", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.work is not None:
        _work(words.work, words.bursts)
        return 0
    totals, broken = dict[str, Counter[str]](), 0
    for kind in words.filesystem or filesystems.KINDS:
        total = totals[kind] = Counter(recordings=0, broken=0)
        for seed in range(words.seed, words.seed + words.seeds):
            with tempfile.TemporaryDirectory(prefix="race-") as top, filesystems.fresh(kind, Path(top)) as place:
                total["recordings"] += 1
                try:
                    total.update(race(place, f"{kind} {seed}", words.bursts))
                except AssertionError as error:
                    total["broken"] += 1
                    broken += 1
                    print(f"{kind} {seed}: {error}", flush=True)
        print(kind, dict(total), flush=True)
    if words.report:
        command = f'make race RACE="--seed {words.seed} --seeds {words.seeds} --bursts {words.bursts}"'
        words.report.write_text(json.dumps({"command": command, "filesystems": totals}, indent=1) + "\n")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
