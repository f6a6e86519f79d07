"""How large traces are, and how long it takes to keep every version of a file: beside restic, borg and git."""

from __future__ import annotations

import random
from functools import partial

import zstandard

from . import peers
from .material import bytes_of, check, fresh, record, worker
from .measure import DIFFKEEPER, PYTHON, Plan, Row, expect, in_turn, run, seconds

FILE = 1 << 20
EDITS, EDIT = 10, FILE // 1000  # together 1 %
ALL = """
import sys
from pathlib import Path
from tests.bench.size import version
for number in range(int(sys.argv[2])):
    Path(sys.argv[1]).write_bytes(version(number))
"""


def version(number: int) -> bytes:
    """The content of the file's version: words, of which ten stretches are others than in the version before."""
    global _known  # noqa: PLW0603 - one after the other
    if number < _known[0]:
        _known = (-1, bytearray())
    count, content = _known
    while count < number:
        count += 1
        chance = random.Random(count)
        if count == 0:
            content = bytearray(_words(chance, FILE))
            continue
        for _ in range(EDITS):
            at = chance.randrange(FILE - EDIT)
            content[at : at + EDIT] = _words(chance, EDIT)
    _known = count, content
    return bytes(content)


_known: tuple[int, bytearray] = (-1, bytearray())
_WORDS = [random.Random(word).randbytes(random.Random(word).randrange(2, 9)).hex().encode() for word in range(5000)]


def _words(chance: random.Random, size: int) -> bytes:
    return b" ".join(chance.choices(_WORDS, k=size // 3))[:size]


def rows(plan: Plan) -> list[Row]:
    return [_appends(plan), *_rewrites(plan)]


def _appends(plan: Plan) -> Row:
    """What a trace takes beside what was written."""
    events, work, trace = plan.size(1_000_000), fresh(plan.top / "work"), plan.top / "trace"
    record(trace, [worker(plan), "appends", str(events), "64"], work, events)
    written = len(zstandard.ZstdCompressor(level=3).compress((work / "out").read_bytes()))
    figure = (bytes_of(trace) - written) / events
    note = f"above what was written, compressed ({written / 1e6:.1f} MB)"
    return Row(f"trace of {events:,} x 64 B appends", figure, "B an event", 12, note=note)


def _rewrites(plan: Plan) -> list[Row]:
    versions, trace = plan.size(100), plan.top / "trace"
    sizes: dict[str, float] = {}

    def recorded() -> float:
        work = fresh(plan.top / "work")
        command = [*DIFFKEEPER, "record", "--force", "-o", str(trace), "--", PYTHON, "-c", ALL, "file", str(versions)]
        took = seconds(lambda: run(command, cwd=work))
        check(trace, 2 * versions)
        sizes["diffkeeper"] = bytes_of(trace)
        expect("the last version", (work / "file").read_bytes(), version(versions - 1))
        return took

    def kept(kind: type[peers.Borg | peers.Restic | peers.Git]) -> float:
        work = fresh(plan.top / "work")
        keeper = kind(plan.top / "keeper")

        def each() -> None:
            for number in range(versions):
                (work / "file").write_bytes(version(number))
                keeper.snapshot(work)
            if isinstance(keeper, peers.Git):
                keeper.finish()

        took = seconds(each)
        sizes[kind.name] = bytes_of(keeper.where)
        return took

    bare = seconds(lambda: run([PYTHON, "-c", ALL, "file", str(versions)], cwd=fresh(plan.top / "work")))
    others = () if plan.quick else (peers.Git, peers.Borg, peers.Restic)
    took = in_turn(plan.rounds, {"diffkeeper": recorded})
    took |= in_turn(1, {kind.name: partial(kept, kind) for kind in others})
    raw = versions * FILE
    share = {name: size / raw * 100 for name, size in sizes.items()}
    ours, ours_took = share.pop("diffkeeper"), took.pop("diffkeeper")
    what = f"{versions} rewrites of 1 MiB, 1 % changed"
    return [
        Row(f"{what}: size", ours, "% of raw", min(share.values(), default=5), peers=share,
            note=f"raw {raw / 1e6:.0f} MB"),
        Row(f"{what}: time", ours_took, "s", min(took.values(), default=None), peers=took,
            note=f"all of record; the program alone {bare:.2f} s"),
    ]  # fmt: skip
