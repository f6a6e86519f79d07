"""The power fails while a command is recorded: what the disk has by then is all there is.

Owns `Blackout`: a recording onto a filesystem of its own, whose disk is copied in an instant (a clone of the file that
backs it) again and again. A clone has what was written to the disk, and nothing of what only memory had.
"""

from __future__ import annotations

import fcntl
import os
import random
import statistics
import subprocess
import time
from pathlib import Path

from tests.crash import cases
from tests.crash.cases import Case, Outcome

FICLONE = 0x40049409
SIZE = "192M"


class Blackout:
    """One recording and its clones. `folder` should be in memory: it must be faster than what is recorded."""

    STEPS = 4000

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self._case = Case("blackout", seed, 0, count=self.STEPS, pause=0.05)
        self._folder, self._host, self._disk = folder, folder / "host", folder / "disk"
        self._mounted: list[Path] = []
        self._behind: list[float] = []  # how far each cut takes the trace back
        try:
            self._record(count)
        except BaseException:
            self.close()
            raise

    def _mount(self, image: Path, point: Path, kind: str = "") -> None:
        if kind:
            subprocess.run(["truncate", "-s", "8G" if kind == "xfs" else SIZE, image], check=True)
            subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
        self._mounted.append(point)

    def _umount(self, point: Path) -> None:
        """The loop device of what was mounted in it lets go of its file a moment later."""
        deadline = time.monotonic() + 10
        while (done := subprocess.run(["umount", point], capture_output=True, check=False)).returncode:
            if time.monotonic() > deadline:
                raise AssertionError(done.stderr.decode())
            time.sleep(0.02)
        self._mounted.remove(point)

    def _record(self, count: int) -> None:
        self._mount(self._folder / "image", self._host, "xfs")
        self._mount(self._host / "image", self._disk, "ext4")
        os.sync()
        chance = random.Random(self._case.seed)
        recorder, progress = cases.start(self._case, self._disk / "trace", self._folder / "work")
        whole = self.STEPS / 10 * self._case.pause
        self._cuts = list[float]()
        for number, moment in enumerate(sorted(chance.uniform(0.1, whole) for _ in range(count))):
            progress.follow(0, moment)
            self._clone(number)
            self._cuts.append(time.monotonic())
        os.waitpid(recorder, 0)
        progress.close()
        self._marks = progress.marks

    def _clone(self, number: int) -> None:
        with open(self._host / "image", "rb") as source, open(self._host / f"clone{number}", "wb") as target:
            fcntl.ioctl(target, FICLONE, source.fileno())

    def check(self, number: int) -> Outcome:
        """What one of the clones holds. Raises AssertionError."""
        clone, point, outcome = self._host / f"clone{number}", self._folder / "after", Outcome("recording")
        self._mount(clone, point)
        try:
            cases.check_trace(self._case, point / "trace", outcome, began=False, sure=0)
        finally:
            self._umount(point)
            clone.unlink()
        lost_from = next((when for when, steps in self._marks if steps > outcome.events), self._cuts[number])
        self._behind.append(max(0, self._cuts[number] - lost_from))
        return outcome

    @property
    def behind(self) -> dict[str, float]:
        """Seconds that were lost before a cut."""
        if len(self._behind) < 2:
            return {}
        return {"median": round(statistics.median(self._behind), 2), "most": round(max(self._behind), 2)}

    def close(self) -> None:
        for point in list(reversed(self._mounted)):
            self._umount(point)
