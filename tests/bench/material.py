"""What is measured on: trees, recordings of known work, mounts. Everything lies below one directory on tmpfs."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from .measure import DIFFKEEPER, PYTHON, NotComparedError, Plan, expect, run

UNINDEXED = """
import sys
from diffkeeper.store import indexer
indexer.index = lambda *args, **options: None
indexer.main = lambda *args: 0
from diffkeeper.cli import main
main()
"""
"""Records as `diffkeeper` does, and leaves the journal as it is."""


def worker(plan: Plan) -> str:
    """The compiled `work.c`."""
    program = plan.top / "worker"
    if not program.exists():
        run(["cc", "-O2", "-Wall", "-o", program, Path(__file__).with_name("work.c")])
    return str(program)


def tree(top: Path, files: int, size: int) -> Path:
    """`files` files dNN/fNNNNN of together `size` bytes, three quarters of it without any order in them."""
    chance, each = random.Random(1), size // files
    for number in range(files):
        directory = top / f"d{number // 100:02d}"
        directory.mkdir(parents=True, exist_ok=True)
        noise = chance.randbytes(each * 3 // 4)
        (directory / f"f{number:05d}").write_bytes(noise + bytes(each - len(noise)))
    return top


def facts(trace: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run([*DIFFKEEPER, "info", str(trace), "--json"]))
    return found


def record(trace: Path, command: Sequence[str], where: Path, events: int, *, indexed: bool = True) -> dict[str, Any]:
    """Record a command in a directory. Ends the bench where less than `events` came of it, or anything was lost."""
    program = DIFFKEEPER if indexed else [PYTHON, "-c", UNINDEXED]
    run([*program, "record", "--force", "-o", str(trace), "--", *command], cwd=where)
    return check(trace, events) if indexed else {}


def check(trace: Path, events: int) -> dict[str, Any]:
    """What `info` says of a recording that has all it should have."""
    found = facts(trace)
    if found["lost"] or found["events"] < events:
        raise NotComparedError(f"{trace}: {found['events']} events, lost {found['lost']}: not compared")
    expect(f"{trace}: paths put right", found["verified"]["mismatches"], 0)
    return found


def bytes_of(directory: Path) -> int:
    """Of all files in it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


@contextmanager
def mounted(command: Sequence[str], where: Path, ready: str, *, stays: bool = False) -> Iterator[float]:
    """Mount; gives the seconds until `ls` of `ready` below `where` answers. `stays`: the command serves itself."""
    where.mkdir(exist_ok=True)
    began = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        if not stays and server.wait():
            said = server.stderr.read().decode(errors="replace") if server.stderr else ""
            raise NotComparedError(f"{' '.join(command)}: {said}")
        while not (os.path.ismount(where) and _lists(where / ready)):
            if time.perf_counter() - began > 60 or (stays and server.poll() is not None):
                raise NotComparedError(f"{' '.join(command)}: nothing is mounted")
            time.sleep(0.002)
        yield time.perf_counter() - began
    finally:
        for _ in range(100):
            if subprocess.run(
                ["umount", where], capture_output=True, check=False
            ).returncode == 0 or not os.path.ismount(where):
                break
            time.sleep(0.05)
        server.wait(timeout=30)


def _lists(path: Path) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


def server_of(where: Path) -> int:
    """The process that serves a mount of ours."""
    status = (where / ".diffkeeper/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("server:")).split()[-1])


def is_loaded(server: int) -> bool:
    """Whether a mount of ours has all that it loads in a thread of its own, once it is ready."""
    return len(os.listdir(f"/proc/{server}/task")) == 1


class Memory:
    """The most memory that a process had to itself while this was entered: `peak`, in MB.

    Pages of mapped files, of which LMDB's index is one, are the kernel's to take back, and not counted.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.peak = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            anonymous = next((line for line in lines if line.startswith("RssAnon:")), "RssAnon: 0 kB")
            self.peak = max(self.peak, int(anonymous.split()[1]) * 1024 / 1e6)
            if self._stop.wait(0.02):
                return


def clean_environment(top: Path) -> None:
    """What a user would see: modules are compiled once. Nothing of that is left in the source tree."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(top / "pycache")
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    modules = (
        "cli.timeline",
        "cli.diff",
        "cli.mount",
        "cli.info",
        "cli.export",
        "view.fuse",
        "view.hidden",
        "record.session",
    )
    run([PYTHON, "-c", "".join(f"import diffkeeper.{name}\n" for name in modules)])
