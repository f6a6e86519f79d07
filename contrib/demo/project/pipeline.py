"""A small pipeline of steps that keeps `status.json` up to date, so that others can watch it.

It has a bug of the kind that shows once in a while, on somebody else's machine.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

STEPS = 60


class Pipeline:
    """Runs the steps one after the other and reports to `folder/status.json` after each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: list[dict[str, object]] = []
        self.report()

    def run(self) -> None:
        for number in range(1, STEPS + 1):
            self.finished.append(self.step(number))
            self.report()

    def step(self, number: int) -> dict[str, object]:
        """Make one artifact. Takes a while, never the same."""
        artifact = self.folder / f"part-{number:02}.txt"
        text = f"part {number}\n" * 200
        artifact.write_text(text)
        time.sleep(0.005 + number % 7 / 1000)
        digest = hashlib.sha512(text.encode()).hexdigest()
        return {"step": number, "artifact": artifact.name, "bytes": len(text), "sha512": digest}

    def report(self) -> None:
        state = "done" if len(self.finished) == STEPS else "running"
        with open(self.folder / "status.json", "w") as file:
            json.dump({"state": state, "steps": STEPS, "finished": self.finished}, file, indent=2)


if __name__ == "__main__":
    Pipeline(Path(sys.argv[1])).run()
