"""Runs in turn, medians, and the rows that are shown. Of a shared machine, read the ratios and not the seconds."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PYTHON = sys.executable
DIFFKEEPER = [str(Path(PYTHON).parent / "diffkeeper")]


@dataclass(frozen=True)
class Row:
    """One line of the page. `bar`: what was asked for, None: nothing; `least`: a figure must be at least that."""

    what: str
    figure: float
    unit: str
    bar: float | None = None
    least: bool = False
    peers: Mapping[str, float] = field(default_factory=dict)  # the same work by others, in the same unit
    note: str = ""

    @property
    def met(self) -> bool:
        return self.bar is None or (self.figure >= self.bar if self.least else self.figure <= self.bar)


@dataclass(frozen=True)
class Plan:
    """How much is done. `quick`: smaller, fewer rounds, no peers."""

    quick: bool
    rounds: int
    top: Path  # on tmpfs, so that no disk decides the figures

    def size(self, number: int) -> int:
        """A size of the full bench, or a tenth of it."""
        return number // 10 if self.quick else number


class NotComparedError(SystemExit):
    """A run did not do its work: no figure comes of it."""


def in_turn(rounds: int, runs: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The median of what each run says, one after the other in each round."""
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            figures[name].append(run())
    return {name: statistics.median(found) for name, found in figures.items()}


def run(command: Sequence[str | os.PathLike[str]], *, ok: Sequence[int] = (0,), **kwargs: Any) -> str:
    """Run to the end; what it printed. A failure ends the bench."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, **kwargs)
    if done.returncode not in ok:
        raise NotComparedError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stderr[-2000:]}")
    return str(done.stdout)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def expect(name: str, found: object, wanted: object) -> None:
    """A run is compared only where it did what the others did."""
    if found != wanted:
        raise NotComparedError(f"{name}: {found!r} instead of {wanted!r}: not compared")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "processors": f"{os.cpu_count()} x {model}", "memory": f"{memory:.0f} GiB",
        "Linux": platform.release().split("-")[0], "Python": platform.python_version(),
    }  # fmt: skip
