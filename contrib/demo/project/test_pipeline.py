"""The flaky test: it watches a pipeline at work, and most of the time it passes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unittest
from pathlib import Path

from pipeline import STEPS


class WatchingAPipeline(unittest.TestCase):
    def test_status_counts_up_to_done(self) -> None:
        folder = Path("work")
        folder.mkdir()
        worker = subprocess.Popen([sys.executable, "pipeline.py", str(folder)])
        self.addCleanup(worker.wait)
        while not (folder / "part-01.txt").exists():
            time.sleep(0.01)

        seen = 0
        state = "running"
        while state != "done":
            time.sleep(0.12)
            text = (folder / "status.json").read_text()
            try:
                status = json.loads(text)
            except ValueError as error:
                name_this_moment("broken")
                self.fail(f"status.json is not JSON: {error}")
            self.assertGreaterEqual(len(status["finished"]), seen)
            seen, state = len(status["finished"]), status["state"]
        self.assertEqual(seen, STEPS)


def name_this_moment(name: str) -> None:
    """A mark for the recorder, if there is one: opening a file that does not exist is all it takes."""
    try:
        open(f"/.diffkeeper/mark/{name}").close()
    except OSError:
        pass


if __name__ == "__main__":
    unittest.main()
