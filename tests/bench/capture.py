"""What recording costs the command: each workload bare and recorded in turn, and under other tracers.

The command times itself, so what is before and after it does not count into the ratio; both have rows of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffkeeper.record.earlier import longest_dirty
from tests.filesystems import mounted

from . import peers
from .material import Memory, bytes_of, facts, fresh, tree, worker
from .measure import DIFFKEEPER, PYTHON, NotComparedError, Plan, Row, expect, in_turn, run, seconds

TIMER = (
    "import subprocess,sys,time; a=time.monotonic(); c=subprocess.call(sys.argv[2:]); b=time.monotonic(); "
    "open(sys.argv[1],'w').write(f'{a} {b}'); sys.exit(c)"
)
SQLITE = (
    "for i in 1 2 3 4 5; do sqlite3 db 'create table if not exists t(a,b); "
    "insert into t select value, hex(value) from generate_series(1,100000)'; done"
)
GCC = "for f in part*.c; do gcc -O2 -c $f; done"
REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = ("test_moments", "test_paths", "test_wire", "test_textdiff", "test_differs", "test_trace", "test_diffing")


def _nothing(where: Path) -> None:
    """Nothing stands there before."""
    del where


def _sources(where: Path) -> None:
    for number in range(6):
        shutil.copy(Path(__file__).with_name("work.c"), where / f"part{number}.c")


def _library(where: Path) -> None:
    shutil.copytree(os.path.dirname(json.__file__), where / "json")
    for name in ("asyncio", "email", "unittest"):
        shutil.copytree(Path(os.__file__).parent / name, where / name)


def _repository(where: Path) -> None:
    for number in range(400):
        (where / "origin" / f"d{number % 20}").mkdir(parents=True, exist_ok=True)
        (where / "origin" / f"d{number % 20}" / f"f{number}").write_text(f"line {number}\n" * 100)
    git = [
        "git",
        "-C",
        str(where / "origin"),
        "-c",
        "user.email=a@b",
        "-c",
        "user.name=a",
        "-c",
        "init.defaultBranch=main",
    ]
    run([*git, "init", "-q"])
    run([*git, "add", "."])
    run([*git, "commit", "-qm", "one"])
    for number in range(0, 400, 2):
        (where / "origin" / f"d{number % 20}" / f"f{number}").write_text(f"other {number}\n" * 100)
    run([*git, "commit", "-qam", "two"])


def _suite(where: Path) -> None:
    for name in ("tests", "diffkeeper", "plugins", "bpf"):
        shutil.copytree(REPOSITORY / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", where)


@dataclass(frozen=True)
class Workload:
    name: str
    command: tuple[str, ...]
    events: int  # at least so many must be recorded
    bar: float
    prepare: Callable[[Path], None] = _nothing
    real: bool = False  # a program no one here wrote
    times: int = 1  # in each round: more where a run is over soon

    def argv(self, plan: Plan) -> list[str]:
        """Of our own workloads, the second word is how often: in a quick bench less."""
        what, *words = (part.replace("{work}", worker(plan)).replace("{python}", PYTHON) for part in self.command)
        return [what, *words] if self.real else [what, words[0], str(plan.size(int(words[1]))), words[2]]


CLONE = "git clone -q origin copy && cd copy && git checkout -q HEAD~1 && git checkout -q main"
WORKLOADS = (
    Workload("1,000,000 x 64 B writes", ("{work}", "appends", "1000000", "64"), 1_000_000, 1.9, times=3),
    Workload("200,000 x 4 KiB writes", ("{work}", "appends", "200000", "4096"), 200_000, 1.6),
    Workload("400 x 1 MiB writes", ("{work}", "appends", "400", "1048576"), 400, 1.7),
    Workload("5,000 x create, rename, unlink", ("{work}", "names", "5000", "0"), 15_000, 1.5, times=5),
    Workload("1,000,000 x stat", ("{work}", "stats", "1000000", "0"), 0, 1.25),
    Workload("sqlite, 5 x 100,000 inserts", ("sh", "-c", SQLITE), 1000, 1.03, real=True, times=5),
    Workload("gcc, 6 files", ("sh", "-c", GCC), 20, 1.05, _sources, real=True, times=3),
    Workload("python compileall", ("{python}", "-m", "compileall", "-qf", "."), 200, 1.05, _library, real=True),
    Workload("git clone, two checkouts", ("sh", "-c", CLONE), 1000, 1.05, _repository, real=True, times=5),
    Workload(
        "pytest, seven files of this project's own suite",
        ("{python}", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/unit/{name}.py" for name in SUITE)),
        200, 1.05, _suite, real=True,
    ),
)  # fmt: skip


@dataclass
class Timed:
    """Seconds of the command alone, from our start to its own, and from its end to ours."""

    alone: float
    before: float
    after: float


def timed(plan: Plan, workload: Workload, prefix: Sequence[str]) -> Timed:
    """Run in a fresh directory."""
    work, said = fresh(plan.top / "work"), plan.top / "seconds"
    workload.prepare(work)
    began = time.monotonic()
    run([*prefix, PYTHON, "-c", TIMER, str(said), *workload.argv(plan)], cwd=work)
    start, end = map(float, said.read_text().split())
    return Timed(end - start, start - began, time.monotonic() - end)


def rows(plan: Plan, chosen: Sequence[str]) -> Iterator[Row]:
    """One after the other, as they are measured. `chosen`: only rows with one of these words in their names."""

    def is_chosen(name: str) -> bool:
        return not chosen or any(word in name for word in chosen)

    ready: list[Row] = []
    for workload in WORKLOADS:
        if is_chosen(workload.name):
            cost, waiting = _workload(plan, workload)
            yield cost
            ready += [waiting] if workload.real else []
    yield from ready
    for name, rows_of in (("record -- true", _start), ("baseline", _baseline), ("memory", _memory)):
        if is_chosen(name):
            yield from rows_of(plan)


def _workload(plan: Plan, workload: Workload) -> tuple[Row, Row]:
    trace = plan.top / "trace"
    after: list[float] = []
    held = "0"

    def recorded() -> float:
        nonlocal held
        result = timed(plan, workload, [*DIFFKEEPER, "record", "--force", "-o", str(trace), "--"])
        said = facts(trace)
        if said["lost"] or said["events"] < (workload.events if workload.real else plan.size(workload.events)):
            raise NotComparedError(f"{workload.name}: {said['events']} events, lost {said['lost']}: not compared")
        held = next((note.split()[2] for note in said["notes"] if note.startswith("held")), "0")
        after.append(result.after / result.alone)
        return result.alone

    median = in_turn(
        plan.rounds * workload.times, {"bare": lambda: timed(plan, workload, []).alone, "recorded": recorded}
    )
    others = {} if plan.quick else _others(plan, workload)
    note = f"{median['bare']:.3f} s bare; writers held {held} times"
    cost = Row(workload.name, median["recorded"] / median["bare"], "x", workload.bar, peers=others, note=note)
    later = sorted(after)[len(after) // 2]
    return cost, Row(f"ready after the end of: {workload.name}", later, "x", 0.15, note="of the command's run time")


def _others(plan: Plan, workload: Workload) -> dict[str, float]:
    """Other tracers, once. Of our own workloads a tenth, against a tenth: some take minutes for the whole."""
    less = replace(plan, quick=True)
    bare = in_turn(plan.rounds, {"bare": lambda: timed(less, workload, []).alone})["bare"]
    return {name: timed(less, workload, prefix).alone / bare for name, prefix in peers.tracers(plan.top).items()}


def _start(plan: Plan) -> list[Row]:
    """A command that does nothing, where nothing is."""
    where = fresh(plan.top / "empty")
    command = [*DIFFKEEPER, "record", "--force", "-o", str(plan.top / "trace"), "--", "true"]
    median = in_turn(max(plan.rounds, 5), {"record": lambda: seconds(lambda: run(command, cwd=where))})
    return [Row("record -- true, in an empty directory", median["record"], "s", 0.6)]


def _baseline(plan: Plan) -> list[Row]:
    """A tree that stands there before, once and again."""
    files, size = plan.size(10_000), plan.size(500_000_000)
    where = tree(fresh(plan.top / "standing"), files, size)
    first = in_turn(plan.rounds, {"first": lambda: _until_begun(plan, where)})["first"]
    empty = fresh(plan.top / "empty")
    begun = in_turn(3, {"start": lambda: _until_begun(plan, empty)})["start"]
    _until_begun(plan, where)  # the recording that the next one replaces
    again = in_turn(plan.rounds, {"again": lambda: _until_begun(plan, where)})["again"]
    shutil.rmtree(where)
    amount, less = f"{files:,} files, {size // 1_000_000} MB", "until the command begins, less that of an empty one"
    read = "tmpfs has no times that tell of stores to mapped memory: all is read again"
    rows = [
        Row(f"baseline of {amount}", first - begun, "s", 1.5, note=less),
        Row("baseline again, nothing changed", again - begun, "s", 0.5, note=read),
    ]
    return rows if plan.quick else [*rows, _again_on_ext4(plan, files, size, begun)]


def _again_on_ext4(plan: Plan, files: int, size: int, begun: float) -> Row:
    """Where times can be trusted, once the files are old enough for that."""
    with mounted("ext4", fresh(plan.top / "ext4"), f"{3 * size}") as point:
        where = tree(fresh(point / "standing"), files, size)
        time.sleep(longest_dirty() / 1e9 + 1)
        _until_begun(plan, where)
        again = in_turn(plan.rounds, {"again": lambda: _until_begun(plan, where)})["again"]
    recalled = [note for note in facts(plan.top / "trace")["notes"] if note.startswith(f"{files:,} files were as")]
    expect("files that were not read again", len(recalled), 1)
    return Row("baseline again, nothing changed, on ext4", again - begun, "s", 0.5, note="no file is read")


def _until_begun(plan: Plan, where: Path) -> float:
    said, began = plan.top / "seconds", time.monotonic()
    run(
        [*DIFFKEEPER, "record", "--force", "-o", str(plan.top / "trace"), "--", PYTHON, "-c", TIMER, str(said), "true"],
        cwd=where,
    )
    return float(said.read_text().split()[0]) - began


def _memory(plan: Plan) -> list[Row]:
    """What the recorder takes while a long command runs, and until it is ready."""
    rows = []
    for what, count, each, name in (
        ("appends", plan.size(3_000_000), 1, "recorder's memory"),
        ("names", plan.size(300_000), 3, "recorder's memory, files that come and go"),
    ):
        where, trace = fresh(plan.top / "work"), plan.top / "trace"
        command = [*DIFFKEEPER, "record", "--force", "-o", str(trace), "--", worker(plan), what, str(count), "64"]
        recorder = subprocess.Popen(command, cwd=where, stderr=subprocess.DEVNULL)
        with Memory(recorder.pid) as memory:
            recorder.wait()
        if facts(trace)["events"] < count * each or not bytes_of(trace):
            raise NotComparedError(f"{name}: events are missing")
        note = f"its own, ring apart, at most, in {count * each:,} events"
        rows.append(Row(name, memory.peak, "MB", 120, note=note))
    return rows
