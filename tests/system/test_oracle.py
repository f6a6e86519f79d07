"""Random operations, each moment of the recording held against what was there; `make fuzz` goes on where this ends.

What once went wrong stands here as the small script that the oracle made of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle import compare, filesystems, hands, racing, shrink
from tests.oracle.compare import Verdict, Wrong
from tests.oracle.found import FOUND
from tests.oracle.grammar import GROUPS
from tests.oracle.trials import Task, Trial, run


def assert_right(trial: Trial) -> None:
    """Each moment was compared, and equal; nothing was lost, and nothing had to be healed."""
    verdict = trial.verdict
    assert verdict.moments == trial.operations + 1
    assert not verdict.wrong, str(verdict.wrong[0])
    assert not verdict.marked, str(verdict.marked[0])
    assert (trial.lost, trial.healed) == (0, 0)


@pytest.mark.parametrize("kind", filesystems.KINDS)
def test_every_moment_is_what_was_there(kind: str, tmp_path: Path) -> None:
    """Random operations of every group on a filesystem of each kind: names, content, attributes, at each mark."""
    tmp_path.chmod(0o755)
    with filesystems.fresh(kind, tmp_path) as place:
        groups = tuple(group for group in GROUPS if group not in filesystems.LEAVE_OUT.get(kind, ()))
        trial = run(Task(seed=f"test {kind}", count=400, groups=groups), place, links=kind in filesystems.COUNT_LINKS)
    assert_right(trial)
    assert sum(trial.verdict.outcomes.values()) > 100  # the rest failed, which must change nothing
    assert trial.verdict.mounted > 0


@pytest.mark.parametrize("name", FOUND)
def test_what_once_went_wrong(name: str, tmp_path: Path) -> None:
    """The script that the oracle found goes right, on the filesystem where it did not."""
    found = FOUND[name]
    tmp_path.chmod(0o755)
    task = Task(prologue=found.before, script=found.script)
    with filesystems.fresh(found.kind, tmp_path) as place:
        trial = run(task, place, links=found.kind in filesystems.COUNT_LINKS)
    assert_right(trial)
    assert [operation for operation in trial.script if operation not in found.script] == []


def test_processes_that_race(tmp_path: Path) -> None:
    """Four processes on the same names and one file position: the end is right, nothing lost, the trace sound."""
    found = racing.race(tmp_path, "test", 24)
    assert found["events"] > 500


def test_the_oracle_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truth that is not what was recorded is told, with the moment, the path and the field."""
    script: tuple[hands.Args, ...] = (
        {"op": "mkdir", "path": "d", "at": "cwd", "mode": 0o755, "by": 0},
        {"op": "create", "path": "d/f", "at": "cwd", "flags": "wronly creat", "mode": 0o600, "by": 0},
    )
    tmp_path.chmod(0o755)
    # An owner that the worker cannot have seen: the comparison alone is on trial here.
    real = compare.entry_of
    monkeypatch.setattr(compare, "entry_of", lambda values: real(values)._replace(uid=4711))
    trial = run(Task(prologue=(), script=script), tmp_path, mounts=0)
    assert {wrong.number for wrong in trial.verdict.wrong} == {0, 1, 2}
    assert set(trial.verdict.wrong[2].paths) == {".", "d", "d/f", "held", "log held", hands.JAIL}
    assert "uid: recorded 0, real 4711" in str(trial.verdict.wrong[2])


def test_a_script_is_made_small() -> None:
    """Of many operations those are left without which it does not go wrong."""
    script = tuple({"op": "none", "number": number} for number in range(40))

    def fails(part: shrink.Script) -> bool:
        return {3, 17, 31} <= {operation["number"] for operation in part}

    assert [operation["number"] for operation in shrink.smallest(script, fails)] == [3, 17, 31]


def test_a_verdict_counts_what_begins(tmp_path: Path) -> None:
    """A wrong moment has a signature: the kinds of difference at its first path."""
    wrong = Wrong(1, {"op": "x"}, {}, {"a": (None, None)}, marked=False)
    assert wrong.signature() == ("missing",)
    assert Verdict().wrong == []
