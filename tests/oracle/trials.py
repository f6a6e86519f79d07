"""One recording of a worker, and the verdict on it.

Owns the places: a fresh directory far down on a filesystem, something in it before the recording begins
(the prologue: a script like any other, done unrecorded), the trace beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system import harness

from .compare import Verdict, compare
from .hands import JAIL, MOST_UP, Args

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Task:
    """What a worker is told. With scripts, seed and counts do not matter."""

    seed: str = "0"
    count: int = 300
    before: int = 40
    """Operations of the prologue."""
    groups: tuple[str, ...] = ()
    prologue: tuple[Args, ...] | None = None
    script: tuple[Args, ...] | None = None


@dataclass
class Trial:
    """What came of it."""

    task: Task
    verdict: Verdict = field(default_factory=Verdict)
    operations: int = 0
    healed: int = 0
    lost: int = 0
    prologue: list[Args] = field(default_factory=list)
    script: list[Args] = field(default_factory=list)


class WorkerError(Exception):
    """The recording or the worker failed: no verdict."""


@contextlib.contextmanager
def _directories(place: Path) -> Iterator[tuple[Path, Path, Path]]:
    """(root, elsewhere, what holds the trace); gone afterwards. Open to all: one of the actors is nobody special."""
    place.chmod(0o755)
    work = Path(tempfile.mkdtemp(dir=place))
    aside = Path(tempfile.mkdtemp(prefix="oracle-"))
    for path in (work, aside):
        path.chmod(0o755)
    root, elsewhere = (top.joinpath(*"p" * MOST_UP, name) for top, name in ((work, "root"), (aside, "elsewhere")))
    root.mkdir(parents=True)
    root.chmod(0o777)
    elsewhere.mkdir(parents=True)
    (root / JAIL).mkdir(mode=0o777)
    try:
        yield root, elsewhere, aside
    finally:
        shutil.rmtree(aside)
        subprocess.run(["rm", "-rf", work], check=True)  # its paths may be longer than Python's rmtree takes


def _operations(lines: Sequence[str]) -> list[Args]:
    return [told["operation"] for told in map(json.loads, lines) if told["operation"]]


def run(
    task: Task, place: Path, *, ring: int | None = None, keep: Path | None = None, **options: Any
) -> Trial:
    """Record a worker in a fresh directory below `place` and compare. `keep`: where the trace is copied to; `ring`:
    record with a ring of so many bytes. `options` go to `compare`."""
    trial = Trial(task)
    with _directories(place) as (root, elsewhere, aside):
        worker: list[str | Path] = [sys.executable, "-m", "tests.oracle.worker", root, elsewhere]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        given = {"seed": task.seed, "groups": list(task.groups)}
        told: dict[str, Any] = {**given, "seed": f"{task.seed} before", "count": task.before}
        if task.prologue is not None:
            told["script"] = task.prologue
        done = subprocess.run(
            worker, input=json.dumps(told), cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        _check(done)
        trial.prologue = _operations(done.stdout.splitlines())
        inherited = [os.open(root / name, os.O_CREAT | os.O_RDWR | flag, 0o644) for name, flag in _INHERITED.items()]
        try:
            told = {**given, "count": task.count, "inherited": inherited}
            if task.script is not None:
                told["script"] = task.script
            recorder: list[str | Path] = [*harness.DIFFKEEPER, "record", "-o", aside / "trace", "--"]
            if ring:
                recorder = [sys.executable, "-m", "tests.system.small_ring", aside / "trace", str(ring)]
            done = subprocess.run(
                [*recorder, *worker], input=json.dumps(told), cwd=root, env=environment, pass_fds=inherited,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            for fd in inherited:
                os.close(fd)
        _check(done)
        lines = done.stdout.splitlines()
        trial.script = _operations(lines)
        trial.operations = len(trial.script)
        facts = harness.info(aside / "trace")
        trial.healed, trial.lost = facts["verified"]["mismatches"], sum(facts["lost_by_cause"].values())
        if keep:
            shutil.rmtree(keep, ignore_errors=True)
            shutil.copytree(aside / "trace", keep)
        trial.verdict = compare(aside / "trace", lines, **options)
    return trial


_INHERITED = {"held": 0, "log held": os.O_APPEND}
"""Files that are open before the recording begins, in slots 8 and 9 of each actor."""


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise WorkerError(f"exit {done.returncode}: {done.stderr[-3000:]}")
