"""The recorder itself in a container: process numbers and clocks are others than the kernel's own there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Op

from . import harness
from .test_errors import assert_refused

ALL_KINDS = """
import ctypes, mmap, os, threading, time
out = os.open('out', os.O_CREAT | os.O_RDWR)
os.write(out, b'x' * 100_000)
def copy(name):
    assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES: descriptors of its own
    file = os.open(name, os.O_CREAT | os.O_RDWR)
    assert os.copy_file_range(out, file, 65536, 0, 0) == 65536
    os.pwrite(file, b'later', 10)
for number in range(20):
    thread = threading.Thread(target=copy, args=[f'copy{number}'])
    thread.start()
    thread.join()
memory = mmap.mmap(out, 8192)
memory[4096:4100] = b'mine'
memory.flush()
memory.close()
pid = os.fork()
if not pid:
    os.rename('out', 'moved')
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
open('numbers', 'w').write(f'{os.getpid()} {pid}')
time.sleep(0.1)
"""

CONTAINED = ("unshare", "--pid", "--fork", "--mount-proc")


def start(prefix: Sequence[str], trace: Path, workspace: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Mapped files are looked at when they are flushed, and not in between, when their writer runs on."""
    words = [*prefix, *harness.DIFFKEEPER, "record", "-o", str(trace), "--mmap-interval", "off", "--", *command]
    return subprocess.run(words, cwd=workspace, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "prefix",
    [CONTAINED, CONTAINED * 2, ("unshare", "--time", "--fork", "--monotonic", "77", "--boottime", "1000000")],
    ids=["pid", "pid within pid", "time"],
)
def test_in_a_namespace(prefix: Sequence[str], workspace: Path, trace: Path) -> None:
    """All is exact, processes have the numbers that they see themselves, and time goes as it does elsewhere.

    What has to stand still for that is done by the command itself: a child whose parent may be about to wait runs on.
    """
    result = start(prefix, trace, workspace, sys.executable, "-c", ALL_KINDS)
    assert result.returncode == 0, result.stderr
    facts = harness.assert_faithful(trace, workspace)
    assert sum(facts["fidelity"].values()) == facts["fidelity"]["exact"] > 20
    first, second = map(int, (workspace / "numbers").read_text().split())
    with diffkeeper.open(trace) as opened:
        assert {first, second} <= opened.processes().keys()
        assert {event.pid for event in opened.events(path=bytes(workspace / "numbers"))} == {first}
        assert [event.pid for event in opened.events(op="rename")] == [second]
        duration = opened.session.duration
        assert duration is not None
        assert 10**8 < duration < 60 * 10**9
        times = [event.time for event in opened.events() if event.op in (Op.WRITE, Op.RENAME)]
        assert times == sorted(times)
        assert 0 < times[0] <= times[-1] < duration


def test_processes_outside_are_none_of_ours(workspace: Path, trace: Path) -> None:
    """One of another namespace that has the number of a process of the command is not taken for it."""
    other = "sleep 0.1; while ! [ -e end ]; do date > outside; done"
    command = "for i in 1 2 3 4 5; do echo $i > inside$i; sleep 0.1; done; touch end"
    outside = subprocess.Popen(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", other], cwd=workspace)
    try:
        result = start(CONTAINED, trace, workspace, "sh", "-c", command)
    finally:
        (workspace / "end").touch()
        assert outside.wait(60) == 0
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        written = {event.path.rpartition(b"/")[2] for event in opened.events(op="write")}
    assert written == {b"inside%d" % number for number in range(1, 6)}


def test_orphans_are_reaped_by_the_first_process(workspace: Path, trace: Path) -> None:
    """Which the recorder is in a container: whoever waits for a daemon of its own to be gone would do so for ever."""
    script = """
import os, time
held, hold = os.pipe()
told, tell = os.pipe()
if not os.fork():
    if not (pid := os.fork()):
        os.close(hold)
        os.read(held, 1)
        os._exit(0)
    os.write(tell, str(pid).encode())
    os._exit(0)
os.wait()
daemon = int(os.read(told, 9))
assert os.stat(f'/proc/{daemon}')
os.close(hold)
while os.path.exists(f'/proc/{daemon}'): time.sleep(0.01)
open('gone', 'w').close()
"""
    result = start(CONTAINED, trace, workspace, sys.executable, "-c", script)
    assert result.returncode == 0, result.stderr
    assert (workspace / "gone").exists()


@pytest.mark.parametrize(
    ("prefix", "word"),
    [
        (("unshare", "--map-root-user"), "--privileged"),
        (("unshare", "--pid", "--fork"), "--mount-proc"),
        (("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"), "/proc is not mounted"),
    ],
    ids=["user", "another's /proc", "no /proc"],
)
def test_where_nothing_can_be_recorded(prefix: Sequence[str], word: str, workspace: Path, trace: Path) -> None:
    """77 and one line that says why; the command is not run."""
    assert_refused(start(prefix, trace, workspace, "touch", "ran"), 77, word)
    assert not (workspace / "ran").exists()
    assert not trace.exists()
