"""Programs no one here wrote, for long: each is recorded, its moments are compared, what was not exact is listed.

    python -m tests.programs [--size long|quick] [--filesystem KIND]... [--report FILE] [NAME...]

Without `--filesystem` each runs in the temporary directory; `all` stands for every kind. What is reported is
judged as it comes: a fault does not end the run, but its exit code is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.filesystems import KINDS, mounted

from . import everyday, fio, postgres, stress
from .program import Outcome, Place, Program, run

HERE = "here"
sys.setrecursionlimit(10_000)  # some make directories in one another, deeper than os.walk and rmtree can go otherwise

KINDS_AND_HERE = (*KINDS, HERE)
ALL = [*everyday.PROGRAMS, *postgres.PROGRAMS, *fio.PROGRAMS, *stress.EACH]
SPACE = "4G"


@contextmanager
def place_on(kind: str) -> Iterator[Place]:
    """A place to run in, on a filesystem of this kind or in the temporary directory; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="diffkeeper-programs-") as name:
        top = Path(name)
        top.chmod(0o755)  # a program may run as somebody else
        if kind == HERE:
            try:
                yield Place(top)
            finally:  # stress-ng now and then leaves a file that may only be appended to, which nobody can remove
                subprocess.run(["chattr", "-R", "-f", "-i", "-a", name], check=False, stderr=subprocess.DEVNULL)
        else:
            with mounted(kind, top, SPACE) as point:
                yield Place(top, point)


def chosen(kind: str, names: list[str]) -> list[Program]:
    """The programs that are meant: those whose name holds one of the words, and that work there."""
    wanted = [program for program in ALL if not names or any(name in program.name for name in names)]
    return [program for program in wanted if not program.only_on or kind in program.only_on]


def show(outcome: Outcome) -> None:
    fidelity = ", ".join(f"{count} {name}" for name, count in outcome.fidelity.items())
    lost = sum(outcome.lost.values())
    print(
        f"{outcome.program:34}{outcome.filesystem:9}{outcome.seconds:8.1f}{outcome.events:10}{lost:6}"
        f"{outcome.mismatches:8}{outcome.moments:9}  {fidelity}",
        flush=True,
    )
    for entry in outcome.inexact:
        print(f"    {entry['events']} {entry['fidelity']}: {entry['reason']} ({entry['example']})", flush=True)
    for fault in outcome.faults:
        print("    WRONG " + fault[:1500].replace("\n", "\n          "), flush=True)


def report(outcome: Outcome, path: Path) -> None:
    """Put a run among those of a report, for the page on fidelity; it takes the place of an earlier one of its kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [run for run in runs if (run["program"], run["filesystem"]) != (outcome.program, outcome.filesystem)]
    runs.append(dataclasses.asdict(outcome))
    runs.sort(key=lambda run: (KINDS_AND_HERE.index(run["filesystem"]), run["program"]))
    facts = {"command": f"make programs REPORT={path}", "kernel": platform.release(), "processors": os.cpu_count()}
    path.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--size", choices=("quick", "long"), default="long")
    parser.add_argument("--filesystem", action="append", choices=(*KINDS_AND_HERE, "all"), metavar="KIND")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the figures there, as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only programs whose name contains one of these")
    arguments = parser.parse_args()
    kinds = arguments.filesystem or [HERE]
    outcomes: list[Outcome] = []
    print(
        f"{'program':34}{'on':9}{'seconds':>8}{'events':>10}{'lost':>6}{'healed':>8}{'moments':>9}  fidelity",
        flush=True,
    )
    for kind in KINDS if "all" in kinds else kinds:
        for program in chosen(kind, arguments.names):
            with place_on(kind) as place:
                outcomes.append(run(program, arguments.size, kind, place))
            show(outcomes[-1])
            if arguments.report:  # after each: a run that is ended has its figures all the same
                report(outcomes[-1], arguments.report)
    wrong = sum(bool(outcome.faults) for outcome in outcomes)
    print(f"{len(outcomes)} runs, {sum(outcome.moments for outcome in outcomes)} moments compared, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
