"""One crash at a time: what is killed when, and what must hold afterwards.

Owns `Case` (all that a crash depends on), `run()` (which raises AssertionError where a promise is
broken) and the promises themselves. Whoever calls becomes the reaper of orphans: call it in a
process of its own.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import diffkeeper
from diffkeeper.errors import NotATraceError, TraceMissingError
from diffkeeper.model import Event, Fidelity, Op
from diffkeeper.trace import Trace
from tests.crash.story import EXIT_CODE, LARGE, World, steps

Tree = dict[str, tuple[int, int, bytes]]
"""Path -> mode, links (0 for directories), content or target: what a World shows."""

MISSED = ""
"""The phase of whom the kill did not meet any more."""
PR_SET_CHILD_SUBREAPER = 36
SOURCE = Path(__file__).resolve().parent.parent.parent
DIFFKEEPER = [sys.executable, "-m", "diffkeeper"]
CHANGES = frozenset(Op) - {Op.FORK, Op.EXEC, Op.EXIT, Op.MARK, Op.GAP, Op.HEAL}
SURE_AFTER = 1.0
"""Seconds after which a change must have reached the journal: a hundred times what a recorder takes that can run."""
FREE_AFTER = 1.0
"""Seconds after which nothing may stand still any more once the recorder was killed."""


@dataclass(frozen=True)
class Case:
    """`victim`: recorder, indexer or disk. `delay`: seconds, or for disk the bytes left free."""

    victim: str
    seed: int
    delay: float
    workers: int = 1
    count: int = 2000
    pause: float = 0.005
    ring_bytes: int = 0  # 0: as usual
    large: int = LARGE
    steps: int = 0  # that the first worker has told before the delay begins
    stall: float = 0  # seconds for which the recorder stands still before it is killed, so that its writers do
    guardians: int = 0  # that are killed in the same instant


@dataclass
class Outcome:
    """What came of a case that kept all promises. `events`: of the story, in the trace."""

    phase: str = MISSED
    events: int = 0
    lost: int = 0
    stopped: int = 0  # processes that stood still when the kill came


def run(case: Case) -> Outcome:
    """Raises AssertionError."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    memory = "/dev/shm" if case.victim == "disk" else None  # a disk that is full need not be slow
    folder = Path(tempfile.mkdtemp(prefix="diffkeeper-crash-", dir=memory))
    try:
        if case.victim == "disk":
            with _small_disk(folder, int(case.delay)) as disk:
                return _recording(case, folder, disk / "trace")
        return _recording(case, folder, folder / "trace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- recorder, indexer, disk ------------------------------------------------------------


def _recording(case: Case, folder: Path, trace: Path) -> Outcome:
    work = folder / "work"
    outcome = Outcome()
    recorder, marks = start(case, trace, work)
    exits: dict[int, int] = {}
    if case.victim == "recorder":
        marks.follow(case.steps, case.delay)
        os.kill(recorder, signal.SIGSTOP if case.stall else 0)
        time.sleep(case.stall)
        outcome.stopped = sum(state(pid) == "T" for pid in _descendants(recorder))
        outcome.phase = _phase(recorder)
        for pid in (recorder, *_guardians_of(recorder)[: case.guardians]):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        _wait_all(exits, lambda: _nothing_stands_still(killed))
    elif case.victim == "indexer":
        marks.follow(case.steps, case.delay)
        victim = _indexer_of(recorder, trace)
        outcome.phase = "indexing" if victim else MISSED
        if victim:
            os.kill(victim, signal.SIGKILL)
        _wait_all(exits, lambda: None)
    else:
        outcome.phase = "recorded"
        _wait_all(exits, lambda: None)
    marks.close()
    began = EXIT_CODE << 8 in exits.values() or any(real(work / f"w{worker}") for worker in range(case.workers))
    if case.victim in ("indexer", "disk"):
        assert exits[recorder] == EXIT_CODE << 8, f"the recorder ended with {exits[recorder]:#x}"
    for worker in range(case.workers if began else 0):  # the command has come to its end, whatever became of us
        assert_same(real(work / f"w{worker}"), world(case, worker, case.count).shown(), "the real tree")
    if case.victim == "disk":
        (trace.parent / "filler").unlink()
    check_trace(case, trace, outcome, began=began, sure=marks.sure())
    return outcome


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}


def story_words(case: Case, told: int = -1) -> list[str]:
    """The command that tells the story of a case."""
    numbers = (case.workers, case.count, case.seed, case.pause, case.large, told)
    return [sys.executable, "-m", "tests.crash.story", *map(str, numbers)]


def killed_recording(case: Case, folder: Path, trace: Path) -> None:
    """Record a story whose recorder and indexer are killed, the indexer before it has done much."""
    recorder, marks = start(case, trace, folder / "work")
    marks.follow(10, 0)
    os.kill(_indexer_of(recorder, trace), signal.SIGKILL)
    marks.follow(case.count - 10, 0)
    os.kill(recorder, signal.SIGKILL)
    marks.close()
    os.waitpid(recorder, 0)


def start(case: Case, trace: Path, work: Path) -> tuple[int, Progress]:
    """A recorder of the story in `work`, which is made, and how far its command is."""
    for worker in range(case.workers):
        (work / f"w{worker}").mkdir(parents=True)
    progress, told = os.pipe()
    story = story_words(case, told)
    if case.ring_bytes:
        words = [sys.executable, "-m", "tests.system.small_ring", trace, case.ring_bytes, *story]
    else:
        words = [*DIFFKEEPER, "record", "-o", trace, "--", *story]
    os.set_inheritable(told, True)
    recorder = os.fork()
    if not recorder:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.chdir(work)
        os.execve(sys.executable, list(map(str, words)), environment())
    os.close(told)
    return recorder, Progress(progress)


class Progress:
    """When the first worker had told how many steps it had done: `marks`."""

    def __init__(self, pipe: int) -> None:
        self.marks: list[tuple[float, int]] = []
        self._pipe, self._rest, self._started = pipe, b"", time.monotonic()
        os.set_blocking(pipe, False)
        self._killed = 0.0

    def follow(self, steps: int, seconds: float) -> None:
        """Read until so long after the start, or after so many steps; what comes later comes after the kill."""
        begun = self._started
        while steps and not any(count >= steps for _, count in self.marks):
            self._read()
            assert time.monotonic() - self._started < 60, "the command does not get on"
            time.sleep(0.002)
            begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            self._read()
            time.sleep(0.002)
        self._killed = time.monotonic()

    def close(self) -> None:
        self._read()
        os.close(self._pipe)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._pipe, 65536):
                *lines, self._rest = (self._rest + data).split(b"\n")
                self.marks += [(time.monotonic(), int(line)) for line in lines]

    def sure(self) -> int:
        """Steps that must be in the trace of a recorder that was killed."""
        return max((count for when, count in self.marks if when < self._killed - SURE_AFTER), default=0)


def _wait_all(exits: dict[int, int], meanwhile: Callable[[], None]) -> None:
    """Until no child and no orphan is left; their wait statuses."""
    deadline = time.monotonic() + 120
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            exits[pid] = status
            continue
        meanwhile()
        assert time.monotonic() < deadline, f"still there: {_descendants(os.getpid())}"
        time.sleep(0.005)


def _nothing_stands_still(killed: float) -> None:
    if time.monotonic() - killed > FREE_AFTER:
        still = [pid for pid in _descendants(os.getpid()) if state(pid) == "T"]
        assert not still, f"processes {still} stand still"


def _descendants(pid: int) -> list[int]:
    found, pending = list[int](), [pid]
    while pending:
        with suppress(OSError):
            children = Path(f"/proc/{pending[-1]}/task/{pending.pop()}/children").read_text().split()
            found += map(int, children)
            pending += map(int, children)
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _phase(recorder: int) -> str:
    """How far a recording is: its command has not begun, runs, or has ended."""
    for pid in _descendants(recorder):
        with suppress(OSError):
            if b"tests.crash.story" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpgid(pid) == os.getpgid(0):
                return "command"
    return "before or after" if state(recorder) not in ("", "Z") else MISSED


def _guardians_of(recorder: int) -> list[int]:
    found = []
    for pid in _descendants(recorder):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "dk-guardian\n":
                found.append(pid)
    return found


def _indexer_of(recorder: int, trace: Path) -> int:
    for pid in _descendants(recorder):
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/2") == str(trace / "indexer.log"):
                return pid
    return 0


# -- the promises --------------------------------------------------------------------------------


def check_trace(case: Case, trace: Path, outcome: Outcome, *, began: bool, sure: int) -> None:
    """It opens, `check` passes, and each worker's tree is what it was after some number of steps."""
    checked = subprocess.run([*DIFFKEEPER, "check", trace], capture_output=True, text=True, check=False)
    try:
        opened = diffkeeper.open(trace)
    except (TraceMissingError, NotATraceError):
        assert not began, "the command ran, and there is no trace"
        outcome.phase = outcome.phase and "before the trace was made"
        return
    with opened:
        assert checked.returncode == 0, f"check: {checked.stdout}{checked.stderr}"
        outcome.lost = sum(opened.session.lost.values())
        for worker in range(case.workers):
            known = _check_worker(case, opened, worker)
            outcome.events += known
            told = 0 if worker else _events_of(case, 0, sure)
            assert known >= told, f"{known} changes are in the trace, {told} were made a second before the kill"
        whole = case.victim == "indexer"
        if whole:
            session = opened.session
            assert session.status == EXIT_CODE << 8 and not session.lost and session.mismatches == 0, session
            assert outcome.events == sum(_events_of(case, worker, case.count) for worker in range(case.workers))
        elif case.victim == "disk" and opened.session.duration is None:
            assert not outcome.lost or "journal" in str(opened.session.lost) or "disk" in str(opened.session.lost)


def _check_worker(case: Case, trace: Trace, worker: int) -> int:
    """Compare the last moment and one before it; says how many of the worker's steps are known."""
    below = trace.roots[0] + b"/w%d/" % worker
    events = [event for event in trace.events() if event.op in CHANGES and event.path.startswith(below)]
    if any(event.op is Op.HEAL for event in trace.events()):
        return len(events)
    known = len(events)
    for place in {known, random.Random(case.seed).randrange(known + 1)}:
        seq = events[place - 1].seq if place else 0
        if place == known:
            seq = trace.moment("end").seq
        elif place == 0:
            continue
        actual, then = _recorded(trace, worker, seq), world(case, worker, place, events=True)
        expected = then.shown()
        for name in _doubtful(events[place - 1], then, below) if place else ():
            actual.pop(name, None)
            expected.pop(name, None)
        assert_same(actual, expected, f"worker {worker} after {place} of {known} steps")
    return known


def _doubtful(last: Event, then: World, below: bytes) -> set[str]:
    """All names of the file that the last call wrote to, when the recorder died between the pieces of that call."""
    if last.op is Op.WRITE and last.fidelity is not Fidelity.EXACT:
        written = then.entries[os.fsdecode(last.path.removeprefix(below))]
        return {name for name, entry in then.entries.items() if entry is written}
    return set()


def _recorded(trace: Trace, worker: int, seq: int) -> Tree:
    found: Tree = {}
    top = trace.at(seq) / f"w{worker}"
    for directory, folders, files in top.walk() if top.is_dir() else ():
        for name in [*folders, *files]:
            path = directory / name
            attrs = path.attrs(follow=False)
            content = attrs.target if attrs.is_symlink else path.read_bytes() if attrs.is_file else b""
            shown = path.path[len(top.path) + 1 :]
            found[os.fsdecode(shown)] = attrs.mode, 0 if attrs.is_dir else attrs.nlink, content
    return found


def real(top: Path) -> Tree:
    found: Tree = {}
    for directory, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = Path(directory, name)
            status = path.lstat()
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.fsencode(os.readlink(path))
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            found[str(path.relative_to(top))] = status.st_mode, links, content
    return found


def world(case: Case, worker: int, count: int, *, events: bool = False) -> World:
    """After `count` steps, or after `count` of those that make an event."""
    world, done = World(), 0
    for number, step in enumerate(steps(case.seed + worker, case.large)):
        if done == count:
            break
        done += world.makes_event(step) if events else 1
        world.apply(number, step)
    return world


def _events_of(case: Case, worker: int, count: int) -> int:
    world, made = World(), 0
    for number, step in zip(range(count), steps(case.seed + worker, case.large), strict=False):
        made += world.makes_event(step)
        world.apply(number, step)
    return made


def assert_same(actual: Tree, expected: Tree, what: str) -> None:
    wrong = sorted(path for path in {*actual, *expected} if actual.get(path) != expected.get(path))

    def short(entry: tuple[int, int, bytes] | None) -> object:
        return entry and (oct(entry[0]), entry[1], len(entry[2]), entry[2][:40])

    lines = [f"{path}: {short(actual.get(path))}, should be {short(expected.get(path))}" for path in wrong[:4]]
    assert not wrong, f"{what}: {len(wrong)} paths differ: " + "; ".join(lines)


# -- the disk and the mount ----------------------------------------------------------------------


@contextmanager
def _small_disk(folder: Path, free: int) -> Iterator[Path]:
    """A filesystem of its own with that many bytes free."""
    image, point = folder / "image", folder / "disk"
    point.mkdir()
    subprocess.run(["truncate", "-s", "96M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        status = os.statvfs(point)
        with open(point / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - free))
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
