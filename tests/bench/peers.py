"""Other tools, as somebody would use them who wants the same: how each is called, and which version it is.

What `contrib/bench-peers.sh` installed: strace, restic and borg from Debian, ReproZip and ratarmount in .venv-bench.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from .material import fresh
from .measure import NotComparedError, run

BIN = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin"

_WORDS = {
    "RESTIC_PASSWORD": "bench",
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
}
_ENV = ["env", "-u", "PYTHONPATH", *(f"{name}={value}" for name, value in _WORDS.items())]
"""What stands before each of their commands."""


def check() -> None:
    """Raises where one is missing."""
    programs = [
        *(shutil.which(name) for name in ("strace", "restic", "borg", "git")),
        BIN / "ratarmount",
        BIN / "reprozip",
    ]
    if not all(program and os.access(program, os.X_OK) for program in programs):
        raise NotComparedError("peers are missing: run contrib/bench-peers.sh, or bench with --quick")


def versions() -> dict[str, str]:
    asked = {
        "strace": ["strace", "-V"], "restic": ["restic", "version"], "borg": ["borg", "--version"],
        "git": ["git", "--version"], "ratarmount": [str(BIN / "python"), "-m", "pip", "show", "ratarmount"],
        "ReproZip": [str(BIN / "python"), "-m", "pip", "show", "reprozip"],
    }  # fmt: skip
    found = {}
    for name, command in asked.items():
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found[name] = next((word for word in said.split() if word[:1].isdigit()), "?")
    return found


def tracers(top: Path) -> dict[str, list[str]]:
    """What stands before a command that is to be traced. strace sees what is done; neither keeps what is written."""
    reprozip = [str(BIN / "reprozip"), "trace", "-w", "--dont-identify-packages", "-d", str(top / "reprozip")]
    return {
        "strace": ["strace", "-f", "-qq", "-e", "trace=%file,%desc", "-o", "/dev/null"],
        "ReproZip": reprozip,
    }


class Borg:
    """A repository in which each snapshot is an archive named by its number."""

    name = "borg"

    def __init__(self, where: Path) -> None:
        self.where = fresh(where)
        self._count = 0
        run([*_ENV, "borg", "init", "--encryption=none", str(where)])

    def snapshot(self, tree: Path) -> None:
        self._count += 1
        run([*_ENV, "borg", "create", f"{self.where}::s{self._count}", "."], cwd=tree)

    def mount(self, at: Path) -> tuple[list[str], str, str]:
        """The command, and where the first and the last snapshot then are."""
        return [*_ENV, "borg", "mount", "-f", str(self.where), str(at)], "s1", f"s{self._count}"


class Restic:
    name = "restic"

    def __init__(self, where: Path) -> None:
        self.where = fresh(where)
        run([*_ENV, "restic", "-q", "init", "--repo", str(where)])

    def snapshot(self, tree: Path) -> None:
        run([*_ENV, "restic", "-q", "--repo", str(self.where), "backup", "."], cwd=tree)

    def mount(self, at: Path) -> tuple[list[str], str, str]:
        said = run([*_ENV, "restic", "--repo", str(self.where), "snapshots", "--json"])
        names = [snapshot["short_id"] for snapshot in json.loads(said)]
        command = [*_ENV, "restic", "--repo", str(self.where), "mount", str(at)]
        return command, f"ids/{names[0]}", f"ids/{names[-1]}"


class Git:
    name = "git gc"

    def __init__(self, where: Path) -> None:
        self.where = where
        shutil.rmtree(where, ignore_errors=True)
        run(["git", "init", "-q", "--bare", str(where)])

    def snapshot(self, tree: Path) -> None:
        git = ["git", f"--git-dir={self.where}", f"--work-tree={tree}", "-c", "user.email=a@b", "-c", "user.name=a"]
        run([*git, "add", "-A"])
        run([*git, "commit", "-qm", "next"])

    def finish(self) -> None:
        run(["git", f"--git-dir={self.where}", "gc", "-q", "--prune=now"])
