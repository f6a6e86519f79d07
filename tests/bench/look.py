"""How fast a trace is looked at: through its mount and without, beside other archives and real directories."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import diffkeeper

from . import peers
from .material import Memory, fresh, is_loaded, mounted, record, server_of, tree, worker
from .measure import DIFFKEEPER, Plan, Row, expect, in_turn, run, seconds

Runs = dict[str, Callable[[], float]]


class Material:
    """A recording of a life in a tree, and the same tree twice: as it was before its last change and after."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.events, self.files = plan.size(1_000_000), plan.size(10_000)
        self.after = tree(fresh(plan.top / "tree"), self.files, plan.size(500_000_000))
        self.trace = plan.top / "life"
        record(self.trace, [worker(plan), "life", str(self.events), "64", str(self.files)], self.after, self.events)
        self.before = plan.top / "tree-before"
        shutil.rmtree(self.before, ignore_errors=True)
        run([*DIFFKEEPER, "export", str(self.trace), "--time", "before", "--out", str(self.before)])
        said = run(["diff", "-rq", str(self.before), str(self.after)], ok=(1,))
        expect("diff of the two trees", said.count("\n"), 1)
        self.at = plan.top / "mount"

    def mounted(self) -> AbstractContextManager[float]:
        return mounted([*DIFFKEEPER, "mount", str(self.trace), str(self.at)], self.at, "")


def rows(plan: Plan) -> list[Row]:
    material = Material(plan)
    keepers: list[peers.Borg | peers.Restic] = []
    if not plan.quick:
        keepers = [peers.Borg(plan.top / "borg"), peers.Restic(plan.top / "restic")]
        for keeper in keepers:
            for top in (material.before, material.after):
                keeper.snapshot(top)
    found = [*_tree(material, keepers), *_second_read(material), *_without_a_mount(material)]
    for keeper in keepers:
        shutil.rmtree(keeper.where)
    return [*found, *_small_files(plan), *_large_file(plan)]


def _ratarmount(archive: Path, at: Path) -> list[str]:
    return [str(peers.BIN / "ratarmount"), "-f", "-c", str(archive), str(at)]


# -- a tree ------------------------------------------------------------------------------------


def _tree(material: Material, keepers: list[peers.Borg | peers.Restic]) -> list[Row]:
    """Mount, find, and compare, on a fresh mount each time."""
    names = ["ready", "find", "diff", "memory"]
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in names}

    def note(name: str, what: str, figure: float) -> None:
        figures[name].setdefault(what, []).append(figure)

    for _ in range(material.plan.rounds):
        with material.mounted() as ready:
            with Memory(server_of(material.at)) as memory:
                at = material.at
                note("ready", "diffkeeper", ready)
                note("find", "diffkeeper", _find(at / f"@e{material.events // 2}", material.files))
                note("diff", "diffkeeper", _compare(at / "@before", at / "@after"))
                run(["tar", "cf", "/dev/null", "-C", str(at / "@end"), "."])
            note("memory", "diffkeeper", memory.peak)
        for keeper in keepers:
            command, first, last = keeper.mount(material.at)
            with mounted(command, material.at, "", stays=True) as ready:
                note("ready", keeper.name, ready)
                note("find", keeper.name, _find(material.at / first, material.files))
                note("diff", keeper.name, _compare(material.at / first, material.at / last))
        note("diff", "real directories", _compare(material.before, material.after))
        note("find", "real directory", _find(material.before, material.files))
    median = {
        name: {what: sorted(all_)[len(all_) // 2] for what, all_ in found.items()} for name, found in figures.items()
    }
    amount = f"{material.events:,} events, {material.files:,} files"
    bars = {"ready": 0.3, "find": 0.5, "diff": 0.25, "memory": 80}
    whats = {
        "ready": f"mount ready, of {amount}", "find": "find -size +1 of a moment never looked at",
        "diff": "diff -rq @before @after, one file changed", "memory": "memory of the mount",
    }  # fmt: skip
    units = {"memory": "MB"}
    notes = {"memory": "its own, at most, with find, diff and tar of all"}
    found = []
    for name in names:
        ours = median[name].pop("diffkeeper")
        found.append(
            Row(whats[name], ours, units.get(name, "s"), bars[name], peers=median[name], note=notes.get(name, ""))
        )
    return found


def _find(top: Path, files: int) -> float:
    said = ""

    def work() -> None:
        nonlocal said
        said = run(["find", str(top), "-type", "f", "-size", "+1", "-name", "f*"])

    took = seconds(work)
    expect(f"find in {top}", said.count("\n"), files)
    return took


def _compare(one: Path, other: Path) -> float:
    said = ""

    def work() -> None:
        nonlocal said
        said = run(["diff", "-rq", str(one), str(other)], ok=(1,))

    took = seconds(work)
    expect(f"diff of {one} and {other}", said.count("\n"), 1)
    return took


def _second_read(material: Material) -> list[Row]:
    """Small files once more: the bytes are in the page cache, but each open still reaches the mount."""
    real = material.before
    with material.mounted():
        recorded = material.at / "@before"
        median = _again(material.plan, f"{recorded}/d0*/f*", f"{real}/d0*/f*")
    return [
        Row("second read of 1,000 files of 50 kB", median, "x", 1.2, note="of a real directory")
    ]


def _again(plan: Plan, recorded: str, real: str) -> float:
    """Reading what was read before, by the same with real files."""
    for what in (recorded, real):
        run(["sh", "-c", f"cat {what} >/dev/null"])
    median = in_turn(max(plan.rounds, 5), {
        "recorded": lambda: seconds(lambda: run(["sh", "-c", f"cat {recorded} >/dev/null"])),
        "real": lambda: seconds(lambda: run(["sh", "-c", f"cat {real} >/dev/null"])),
    })  # fmt: skip
    return median["recorded"] / median["real"]


def _without_a_mount(material: Material) -> list[Row]:
    trace, rounds = str(material.trace), material.plan.rounds

    def first_lines() -> float:
        return seconds(lambda: run(["sh", "-c", f"{DIFFKEEPER[0]} timeline {trace} | head -5"]))

    def everything() -> float:
        took = seconds(lambda: run(["sh", "-c", f"{DIFFKEEPER[0]} timeline {trace} --json > {trace}.json"]))
        with open(f"{trace}.json", "rb") as lines:
            expect("lines of the timeline", sum(1 for _ in lines) >= material.events, True)
        os.unlink(f"{trace}.json")
        return took

    def diff() -> float:
        said = ""

        def work() -> None:
            nonlocal said
            said = run([*DIFFKEEPER, "diff", trace, "before", "after"], ok=(1,))

        took = seconds(work)
        expect("diffkeeper diff", said.count("f00007"), 1)
        return took

    median = in_turn(rounds, {"first": first_lines, "all": everything, "diff": diff})
    return [
        Row("diffkeeper diff A B, one file changed", median["diff"], "s", 0.15),
        Row("timeline: first lines", median["first"], "s", 0.3),
        Row("timeline: all as JSON", material.events / median["all"] / 1000, "1,000 events/s", 300, least=True),
        Row("trace.at(m) + read of one small file", _at_and_read(material.trace, material.events) * 1000, "ms", 5),
    ]


def _at_and_read(trace: Path, events: int) -> float:
    """A file and a moment not looked at before, each time."""
    took = []
    with diffkeeper.open(trace) as opened:
        for number in range(1, 60):
            moment, file = f"e{events * number // 60}", f"d{number % 10:02d}/f{number % 10 * 100 + number:05d}"
            took.append(seconds(partial(_read, opened, moment, file)))
    return sorted(took)[len(took) // 2]


# -- others ------------------------------------------------------------------------------------


def _read(opened: diffkeeper.trace.Trace, moment: str, file: str) -> bytes:
    return (opened.at(moment) / file).read_bytes()


def _small_files(plan: Plan) -> list[Row]:
    files, at = plan.size(10_000), plan.top / "mount"
    small = tree(fresh(plan.top / "small"), files, files * 4096)
    trace, archive = plan.top / "small-trace", plan.top / "small.tar"
    record(trace, [worker(plan), "life", "10000", "64", str(files)], small, 10_000)
    run(["tar", "cf", str(archive), "-C", str(small), "."])
    keepers: list[peers.Borg | peers.Restic] = []
    if not plan.quick:
        keepers = [peers.Borg(plan.top / "borg"), peers.Restic(plan.top / "restic")]
        for keeper in keepers:
            keeper.snapshot(small)

    def ours() -> float:
        with mounted([*DIFFKEEPER, "mount", str(trace), str(at)], at, ""):
            return _tar(at / "@end", files)

    def of(keeper: peers.Borg | peers.Restic) -> float:
        command, _, last = keeper.mount(at)
        with mounted(command, at, "", stays=True):
            return _tar(at / last, files)

    def ratarmount() -> float:
        with mounted(_ratarmount(archive, at), at, "", stays=True):
            return _tar(at, files)

    runs: Runs = {"ours": ours, **{keeper.name: partial(of, keeper) for keeper in keepers}}
    runs |= {"real directory": lambda: _tar(small, files)} | ({} if plan.quick else {"ratarmount": ratarmount})
    median = in_turn(plan.rounds, runs)
    return [Row(f"tar of a moment, {files:,} files of 4 KiB", median.pop("ours"), "s", 2.0, peers=median)]


def _tar(top: Path, files: int) -> float:
    out = Path("/dev/shm") / f"bench-{os.getpid()}.tar"
    try:
        took = seconds(lambda: run(["tar", "cf", str(out), "-C", str(top), "."]))
        expect(f"tar of {top}", sum(1 for line in run(["tar", "tf", str(out)]).splitlines() if "/f" in line), files)
        return took
    finally:
        out.unlink(missing_ok=True)


def _large_file(plan: Plan) -> list[Row]:
    """512 MB that were there before, then 100,000 writes into them: half of these have happened."""
    size, writes, at = plan.size(512 << 20), plan.size(100_000), plan.top / "mount"
    size -= size % 4096
    where, trace = fresh(plan.top / "large"), plan.top / "large-trace"
    with open(where / "large", "wb") as file:
        file.writelines(os.urandom(min(1 << 20, size - file.tell())) for _ in range(0, size, 1 << 20))
    archive = plan.top / "large.tar"
    run(["tar", "cf", str(archive), "-C", str(where), "."])
    record(trace, [worker(plan), "places", str(writes), "4096"], where, writes)

    def whole(path: Path) -> float:
        took = seconds(lambda: run(["sh", "-c", f"cat {path} | tail -c 1 | wc -c"]))
        expect("size", path.stat().st_size, size)
        return took

    @contextmanager
    def fresh_mount() -> Iterator[Path]:
        with mounted([*DIFFKEEPER, "mount", str(trace), str(at)], at, ""):
            yield at / f"@e{writes // 2}" / "large"

    def ours() -> float:
        with fresh_mount() as path:
            return whole(path)

    def first_byte(*, at_rest: bool) -> float:
        with fresh_mount() as path:
            while at_rest and not is_loaded(server_of(at)):
                time.sleep(0.002)
            return seconds(lambda: path.open("rb", buffering=0).read(1)) * 1000

    def ratarmount() -> float:
        with mounted(_ratarmount(archive, at), at, "", stays=True):
            return whole(at / "large")

    runs: Runs = {
        "ours": ours, "first": partial(first_byte, at_rest=True), "at once": partial(first_byte, at_rest=False),
    }  # fmt: skip
    runs |= {"real file": lambda: whole(where / "large")}
    median = in_turn(plan.rounds, runs | ({} if plan.quick else {"ratarmount": ratarmount}))
    with fresh_mount() as path, Memory(server_of(at)) as memory:
        again = _again(plan, str(path), str(where / "large"))
    first, at_once, read = median.pop("first"), median.pop("at once"), median.pop("ours")
    what = f"{size >> 20} MiB at a middle moment, {writes:,} in-place writes"
    return [
        Row(
            f"read of {what}", read, "s", 1.0, peers=median, note="ratarmount and the real file: as it was at one time"
        ),
        Row(f"first byte of {what}", first, "ms", 50),
        Row("first byte of that, right after the mount is ready", at_once, "ms", note="which loads numpy meanwhile"),
        Row(f"second read of {what}", again, "x", 1.2, note="of a real file: the page cache answers"),
        Row(f"memory of the mount, {what}", memory.peak, "MB", 80, note="its own, at most"),
    ]
