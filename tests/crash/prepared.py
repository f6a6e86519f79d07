"""Many kills of one prepared trace: of the server of a mount, and of whoever finishes an index.

Owns `Mounts` and `Openers`: each records one story, and `kill()` then is one point, in a forked process that does
just what the command would. A point raises AssertionError where a promise is broken.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import diffkeeper
from diffkeeper.errors import DiffKeeperError
from diffkeeper.journal import JOURNAL, segments
from diffkeeper.store import indexer
from diffkeeper.view import mount as mounts
from tests.crash import cases
from tests.crash.cases import Case
from tests.crash.story import EXIT_CODE

ENDS_WITHIN = 30.0
"""Seconds after which nobody may wait any longer for a server that was killed."""
COMMIT_BYTES = 1 << 15
"""So that an index of a short story is made in some dozen transactions, and kills come between and in them."""


def _forked(work: Callable[[], object]) -> int:
    """A process that does something and ends, with 0 when that went well; its output goes nowhere."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        work()
        status = 0
    finally:
        os._exit(status)


def _reap(pid: int, seconds: float = ENDS_WITHIN) -> int:
    """Its exit code. AssertionError when it does not end."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"process {pid} did not end within {seconds} s")
        time.sleep(0.002)


class Mounts:
    """One trace, and a place where it is mounted again and again."""

    STEPS = 400

    def __init__(self, folder: Path, seed: int) -> None:
        self._case = Case("mount", seed, 0, count=self.STEPS, pause=0)
        self._trace, self._point = folder / "trace", folder / "mnt"
        (folder / "work/w0").mkdir(parents=True)
        self._point.mkdir()
        words = cases.story_words(self._case)
        command = [*cases.DIFFKEEPER, "record", "-o", str(self._trace), "--", *words]
        place, environment = folder / "work", cases.environment()
        recorded = subprocess.run(command, cwd=place, env=environment, check=False, capture_output=True)
        assert recorded.returncode == EXIT_CODE, recorded.stderr
        self._expected = cases.world(self._case, 0, self.STEPS).shown()
        self._took = 0.2  # seconds until a mount can be used

    def kill(self, chance: random.Random) -> str:
        """Kill the server while it starts or while somebody reads: they get errors, and it can be mounted again."""
        stop, told = os.pipe()
        reader = _forked(lambda: self._read(stop))
        server = self._serve()
        time.sleep(chance.uniform(0, 3 * self._took))
        phase = "mounted" if cases.state(server) and self._is_mounted() else "starting"
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        os.write(told, b"x")
        status = _reap(reader)
        os.close(stop)
        os.close(told)
        assert status == 0, f"who read from the mount ended with {status}"
        self._mount_again()
        return phase

    def _mount_again(self) -> None:
        begun = time.monotonic()
        server = self._serve()
        try:
            while not self._is_mounted():
                assert time.monotonic() - begun < ENDS_WITHIN and cases.state(server) != "Z", "it cannot be mounted"
                time.sleep(0.005)
            self._took = time.monotonic() - begun
            cases.assert_same(cases.real(self._point / "@end/w0"), self._expected, "the second mount")
        finally:
            with suppress(DiffKeeperError):
                mounts.umount(self._point)
            status = _reap(server)
        assert status == 0, f"the second mount ended with {status}"

    def close(self) -> None:
        with suppress(DiffKeeperError):
            mounts.umount(self._point)
        outcome = cases.Outcome()
        cases.check_trace(self._case, self._trace, outcome, began=True, sure=0)

    def _serve(self) -> int:
        return _forked(lambda: mounts.mount(self._trace, self._point, foreground=True))

    def _is_mounted(self) -> bool:
        with suppress(OSError):
            os.statvfs(self._point)  # a dead mount's names may still be known, but this is asked of the server
            return (self._point / "latest").is_symlink()
        return False

    def _read(self, stop: int) -> None:
        """All there is in two moments, until the server is gone or it is told to stop: then errors are no surprise."""
        os.set_blocking(stop, False)
        while True:
            try:
                for moment in ("@e9", "@end"):
                    for directory, _, files in os.walk(self._point / moment, onerror=_raised):
                        for name in files:
                            path = os.path.join(directory, name)
                            if not os.path.islink(path):
                                Path(path).read_bytes()
            except FileNotFoundError:
                time.sleep(0.001)  # not mounted yet
            except OSError as error:
                if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                    return
                raise
            with suppress(BlockingIOError):
                os.read(stop, 1)
                return


def _raised(error: OSError) -> None:
    raise error


class Openers:
    """A trace whose recorder and indexer were killed at once: most of its journal is still to be indexed."""

    STEPS = 1500

    def __init__(self, folder: Path, seed: int) -> None:
        self._case = Case("opener", seed, 0, workers=2, count=self.STEPS, pause=0.001)
        self._whole, self._trace = folder / "whole", folder / "trace"
        cases.killed_recording(self._case, folder, self._whole)
        assert segments(self._whole / JOURNAL), "nothing is left to index"
        begun = time.monotonic()
        self._begin()
        assert _reap(self._open()) == 0
        self._took = time.monotonic() - begun
        with diffkeeper.open(self._trace) as opened:
            self._events = list(opened.events())
        self._begin()

    def kill(self, chance: random.Random) -> str:
        """Kill whoever is at it; one that comes to the end finds what nobody disturbed would have found."""
        opener = self._open()
        time.sleep(chance.uniform(0, self._took))
        phase = "finishing an index" if cases.state(opener) != "Z" else cases.MISSED
        os.kill(opener, signal.SIGKILL)
        os.waitpid(opener, 0)
        if not indexer.unfinished(self._trace) or chance.random() < 0.25:
            self.close()
            self._begin()
        return phase

    def close(self) -> None:
        outcome = cases.Outcome()
        cases.check_trace(self._case, self._trace, outcome, began=True, sure=0)
        with diffkeeper.open(self._trace) as opened:
            assert list(opened.events()) == self._events, "other events than without a kill"

    def _begin(self) -> None:
        shutil.rmtree(self._trace, ignore_errors=True)
        shutil.copytree(self._whole, self._trace)

    def _open(self) -> int:
        def work() -> None:
            indexer.COMMIT_BYTES = COMMIT_BYTES
            diffkeeper.open(self._trace).close()

        return _forked(work)
