"""A script that goes wrong, made small: delta debugging, with a recording for each attempt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from .hands import Args
from .trials import Task, Trial, WorkerError, run

Script = tuple[Args, ...]


def smallest(script: Script, fails: Callable[[Script], bool]) -> Script:
    """ddmin: a part of the script that still fails, none of whose operations can be left out."""
    parts = 2
    while len(script) > 1:
        size = -(-len(script) // parts)
        for at in range(0, len(script), size):
            rest = script[:at] + script[at + size :]
            if fails(rest):
                script, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(len(script), parts * 2)
    return script


def shrink(trial: Trial, place: Path, *, links: bool = True) -> Task:
    """The task of a trial that had a wrong moment, as small scripts that go wrong in the same way.

    `links` as `compare` has it.
    """
    wrong = trial.verdict.wrong[0]
    signature = wrong.signature()

    def fails(prologue: Script, script: Script) -> bool:
        task = dataclasses.replace(trial.task, prologue=prologue, script=script)
        try:
            again = run(task, place, first=True, mounts=0, sample=0, links=links)
        except WorkerError:
            return False
        return bool(again.verdict.wrong) and again.verdict.wrong[0].signature() == signature

    prologue, script = tuple(trial.prologue), tuple(trial.script[: wrong.number])
    if fails((), script):
        prologue = ()
    script = smallest(script, lambda less: fails(prologue, less))
    if prologue:
        prologue = smallest(prologue, lambda less: fails(less, script))
    return dataclasses.replace(trial.task, prologue=prologue, script=script)
