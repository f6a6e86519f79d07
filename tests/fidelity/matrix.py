"""Each change on one filesystem: was the moment after it what was there, and what do its events say of themselves?"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffkeeper
from tests.system import harness
from tests.system.test_async import SOURCE

from .changes import CHANGES

IMPOSSIBLE, WRONG = "impossible", "wrong"
TOP = Path(__file__).resolve().parents[2]


def measure(filesystem: Path, place: Path) -> dict[str, str]:
    """Name of each change -> the least sure fidelity of its events, WRONG, or IMPOSSIBLE on this filesystem.

    `filesystem`: an empty directory, recorded; `place`: one for the trace and a program.
    """
    writer, trace = place / "async_writer", place / "trace"
    subprocess.run(["gcc", "-o", writer, SOURCE, "-luring", "-laio"], check=True)
    command: list[str | Path] = [sys.executable, "-m", "tests.fidelity.worker", filesystem, writer]
    with open(place / "seen", "w+b") as output:
        options: dict[str, Any] = {"cwd": TOP, "capture_output": False, "stdout": output, "stderr": subprocess.PIPE}
        result = harness.run("record", "-o", trace, "--root", filesystem, "--", *command, **options)
        output.seek(0)
        seen: list[harness.Truth | None] = pickle.load(output)
    assert result.returncode == 0, result.stderr
    return {
        change.name: IMPOSSIBLE if truth is None else _verdict(trace, filesystem, number, truth)
        for number, (change, truth) in enumerate(zip(CHANGES, seen, strict=True))
    }


def _verdict(trace: Path, root: Path, number: int, truth: harness.Truth) -> str:
    try:
        harness.assert_same(harness.recorded(trace, f"change-{number}", str(number)), truth)
    except AssertionError:
        return WRONG
    with diffkeeper.open(trace) as opened:
        until = opened.moment(f"change-{number}")
        since = opened.moment(f"change-{number - 1}").seq + 1 if number else 1
        return max(event.fidelity for event in opened.events(since, until)).label
