"""`python -m tests.oracle`: random operations recorded and compared, for a number of seeds or for a time."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import filesystems
from .grammar import GROUPS
from .shrink import shrink
from .trials import Task, Trial, WorkerError, run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--filesystem", action="append", choices=["here", *filesystems.KINDS, *filesystems.FULL],
                        help=f"default: {', '.join(filesystems.KINDS)}")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--seeds", type=int, default=2, help="how many on each filesystem (default 2)")
    parser.add_argument("--operations", type=int, default=1000, help="of each recording (default 1000)")
    parser.add_argument("--time", type=float, help="go on with further seeds for so many seconds")
    parser.add_argument("--groups", default="", help=f"commas between: {', '.join(GROUPS)}")
    parser.add_argument("--ring", type=int, help="record with a ring of so many bytes: a small one is often full")
    parser.add_argument("--script", type=Path, help="do a script that a shrunken failure left, instead")
    parser.add_argument("--no-shrink", action="store_true", help="tell the first wrong moment as it is")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first wrong moment")
    parser.add_argument("--keep", type=Path, help="copy the trace of the last recording here")
    parser.add_argument("--report", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--add", action="store_true", help="add them to those of the report that is there")
    return parser.parse_args()


def _tell(trial: Trial, kind: str, seconds: float) -> None:
    verdict = trial.verdict
    print(
        f"{kind:8} seed {trial.task.seed:>5}: {trial.operations} operations ({sum(verdict.outcomes.values())} did"
        f" something), {verdict.moments} moments, {len(verdict.wrong)} wrong, {len(verdict.marked)} marked,"
        f" {trial.healed} healed, {trial.lost} lost, {seconds:.1f} s",
        flush=True,
    )


def _explain(trial: Trial, place: Path, *, small: bool, links: bool) -> None:
    print(*trial.verdict.wrong[:1], *trial.verdict.marked[:1], sep="\n")
    print("what goes wrong, and where:")
    for onset, numbers in sorted(trial.verdict.onsets.items()):
        print(f"  {' '.join(onset)}: {len(numbers)} times, {numbers[:5]}")
    if not small or not trial.verdict.wrong:
        return
    print("shrinking ...", flush=True)
    task = shrink(trial, place, links=links)
    again = run(task, place, first=True, mounts=0, sample=0, links=links)
    text = json.dumps({"prologue": task.prologue, "script": task.script})
    name = Path(tempfile.gettempdir(), f"oracle-{trial.task.seed}.json")
    name.write_text(text)
    print(f"seed {trial.task.seed}, in {name}:")
    for title, script in (("before", task.prologue), ("recorded", task.script)):
        for operation in script or ():
            print(f"  {title}: {json.dumps(operation)}")
    print(again.verdict.wrong[0] if again.verdict.wrong else "(not every time)")


class Report:
    """Figures of all trials so far; written after each one, so that what is cut off counts as far as it came."""

    def __init__(self, path: Path | None, kinds: Sequence[str], groups: Sequence[str], *, add: bool) -> None:
        self._path, self._groups = path, groups
        self._began = time.monotonic()
        self._command = f'make fuzz FUZZ="{" ".join(sys.argv[1:])}"'
        self._before = json.loads(path.read_text()) if path and add and path.exists() else {}
        told = self._before.get("filesystems", {})
        self.totals = {kind: Counter(told.get(kind, {})) for kind in {**told, **dict.fromkeys(kinds)}}
        self.succeeded = Counter(self._before.get("succeeded", {}))

    def take(self, kind: str, trial: Trial) -> None:
        """A trial that came to its end."""
        verdict = trial.verdict
        self.totals[kind].update(
            operations=trial.operations, moments=verdict.moments, wrong=len(verdict.wrong),
            marked=len(verdict.marked), mounted=verdict.mounted, healed=trial.healed, lost=trial.lost, failed=0,
        )  # fmt: skip
        self.succeeded.update(verdict.outcomes)

    def write(self) -> dict[str, int]:
        """The sums, which are also written where the report was asked for."""
        names = dict.fromkeys(name for counts in self.totals.values() for name in counts)
        total = {name: sum(counts[name] for counts in self.totals.values()) for name in names}
        before = self._before.get("commands", [self._before["command"]] if self._before else [])
        report = {
            "command": self._command, "commands": [*before, self._command], "groups": self._groups,
            "seconds": self._before.get("seconds", 0) + round(time.monotonic() - self._began),
            "left_out": filesystems.LEAVE_OUT, "filesystems": self.totals, "total": total, "succeeded": self.succeeded,
        }  # fmt: skip
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
        return total


def _try(words: argparse.Namespace, kind: str, task: Task, report: Report) -> bool:
    """Whether one recording went right. `failed` counts those that came to no verdict."""
    with tempfile.TemporaryDirectory(prefix="oracle-fs-") as top, filesystems.fresh(kind, Path(top)) as place:
        os.chmod(top, 0o755)
        start = time.monotonic()
        try:
            links = kind in filesystems.COUNT_LINKS
            trial = run(task, place, links=links, keep=words.keep, ring=words.ring)
        except (WorkerError, AssertionError, LookupError) as error:
            print(f"{kind:8} seed {task.seed:>5}: no verdict: {error!r}", flush=True)
            report.totals[kind]["failed"] += 1
            return False
        _tell(trial, kind, time.monotonic() - start)
        report.take(kind, trial)
        report.write()
        if trial.verdict.wrong or trial.verdict.marked:
            _explain(trial, place, small=not words.no_shrink, links=links)
        return not trial.verdict.wrong


def main() -> int:
    """Exit code 1 when a moment was wrong, or a recording failed."""
    words = _arguments()
    groups = tuple(words.groups.split(",")) if words.groups else GROUPS
    kinds = words.filesystem or list(filesystems.KINDS)
    report = Report(words.report, kinds, groups, add=words.add)
    script = json.loads(words.script.read_text()) if words.script else {}
    began, seed, good = time.monotonic(), words.seed, True
    while good or words.keep_going:
        for kind in kinds:
            chosen = tuple(group for group in groups if group not in filesystems.LEAVE_OUT.get(kind, ()))
            task = Task(seed=str(seed), count=words.operations, groups=chosen, **script)
            good &= _try(words, kind, task, report)
            if not good and not words.keep_going:
                break
        seed += 1
        if words.script or (time.monotonic() - began > words.time if words.time else seed >= words.seed + words.seeds):
            break
    print(json.dumps(report.write()))
    return int(not good)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing stays mounted
    sys.exit(main())
