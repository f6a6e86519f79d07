"""Whatever is killed, and whatever disk is full: the command ends well, and the trace is a prefix of the truth.

The few points of a test run; `make crash` has hundreds.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.journal import JournalReader
from diffkeeper.wire import WireOp, records
from tests.crash.cases import Case
from tests.crash.power import Cut
from tests.system import harness


@pytest.mark.parametrize(
    "case",
    [
        Case("recorder", 1, 0.6),
        Case("recorder", 2, 1.1, count=1200, pause=0.01, steps=50),
        Case("recorder", 3, 0, workers=4, count=6000, pause=0, ring_bytes=1 << 19, large=20_000, steps=200, stall=0.3),
        Case("indexer", 4, 0.1, count=1000, steps=300),
        Case("disk", 7, 3 << 20, count=2500, pause=0),
        Case("disk", 8, 9 << 20, count=2500, pause=0),
    ],
    ids=lambda case: f"{case.victim}-{case.seed}",
)
def test_a_crash(case: Case) -> None:
    """In a process of its own, which adopts whom the dead leave behind."""
    words = [sys.executable, "-m", "tests.crash", "--case", json.dumps(case.__dict__)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    if case.stall:
        assert "stopped=4" in done.stdout


@pytest.mark.parametrize("victim", ["mount", "opener"])
def test_kills_of_one_trace(victim: str) -> None:
    """The server of a mount, or whoever finishes an index, killed a few times."""
    words = [sys.executable, "-m", "tests.crash", "--victim", victim, "--points", "4", "--seed", "5"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_power_cut(tmp_path: Path) -> None:
    """A journal cut where something begins or ends, and in between: what is left is indexed, and a tear is told."""
    cut = Cut(tmp_path)
    for size in sorted({*cut.corners(), *range(0, cut.size, 257)}):
        cut.check(size)


def test_a_killed_recorder_has_told_its_losses(workspace: Path, trace: Path) -> None:
    """What found no room in the ring, from a process that may not be stopped, is told when it happens."""
    script = """
import os, time
if not os.fork():
    os.setpgid(0, 0)
    open('ready', 'w').close()
    while not os.path.exists('../go'): time.sleep(0.01)
    for number in range(5000): open(f'f{number}', 'w').close()
    open('done', 'w').close()
while not os.path.exists('../end'): time.sleep(0.01)
"""
    recorder = harness.small_ring(1 << 16, script, workspace, trace)

    def told() -> bool:
        frames = JournalReader(trace / "journal").frames()
        return any(record.op == WireOp.GAP for payload, _ in frames for record in records(payload))

    try:
        harness.wait_for((workspace / "ready").exists)
        os.kill(recorder.pid, signal.SIGSTOP)
        (workspace.parent / "go").touch()
        harness.wait_for((workspace / "done").exists)
        os.kill(recorder.pid, signal.SIGCONT)
        harness.wait_for(told)
    finally:
        recorder.kill()
        recorder.wait()
        (workspace.parent / "end").touch()
    with diffkeeper.open(trace) as opened:
        assert opened.session.lost["ring full"] > 1000
        assert list(opened.problems()) == []


def test_writes_that_are_longer_than_the_ring(workspace: Path, trace: Path) -> None:
    """Each moment is exact all the same: what finds no room is read from the file, and nothing is lost."""
    script = """
import os
fd = os.open('out', os.O_CREAT | os.O_WRONLY)
for number in range(40):
    os.write(fd, bytes([65 + number]) * 100_000)
    os.write(fd, b'y' * 10)
    os.writev(fd, [bytes([97]) * 50_000, b'z' * 60_000])
os.pwrite(fd, b'last' * 500_000, 17)
os.close(fd)
"""
    assert harness.small_ring(1 << 16, script, workspace, trace).wait(120) == 0
    facts = harness.assert_faithful(trace, workspace)
    assert set(facts["fidelity"].items()) & {("unknown", 0), ("reread", 0), ("partial", 0)} == {
        ("unknown", 0), ("reread", 0), ("partial", 0),
    }  # fmt: skip
    expected = bytearray()
    with diffkeeper.open(trace) as opened:
        for event in opened.events(op="write"):
            if event.size == 10:
                number = len(expected) // 210_010
                expected += bytes([65 + number]) * 100_000
                assert (opened.at(event.seq) / "out").read_bytes() == bytes(expected) + b"y" * 10
                expected += b"y" * 10 + b"a" * 50_000 + b"z" * 60_000
    assert len(expected) == 40 * 210_010


def _held(workspace: Path, trace: Path) -> tuple[subprocess.Popen[bytes], int, list[int]]:
    """A recorder that stands still while its command does: with the command, and its own processes but the command."""
    script = """
import os
fd = os.open('out', os.O_CREAT | os.O_WRONLY)
for number in range(20000): os.write(fd, b'x' * 4096)
open('finished', 'w').close()
"""
    recorder = harness.small_ring(1 << 19, script, workspace, trace)
    harness.wait_for(lambda: (workspace / "out").exists() and (workspace / "out").stat().st_size > 4 << 20)
    ours = [pid for pid in _children(recorder.pid) if os.getpgid(pid) != os.getpgid(recorder.pid)]
    (command,) = {*_children(recorder.pid)} - {*ours}
    ours += [further for pid in ours for further in _children(pid)]
    os.kill(recorder.pid, signal.SIGSTOP)
    harness.wait_for(lambda: harness.process_state(command) == "T")
    return recorder, command, ours


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0")


def test_the_guardians_have_a_name_of_their_own(workspace: Path, trace: Path) -> None:
    """Who kills all that is called like the recorder, in name or words, kills no guardian: nobody is left standing."""
    recorder, _, ours = _held(workspace, trace)
    own = Path(f"/proc/{recorder.pid}/comm").read_text()
    victims = [pid for pid in ours if Path(f"/proc/{pid}/comm").read_text() == own or b"small_ring" in _words(pid)]
    for pid in (*victims, recorder.pid):
        os.kill(pid, signal.SIGKILL)
    recorder.wait(60)
    assert len(ours) == 3 and len(victims) == 1  # the indexer, and no guardian
    harness.wait_for((workspace / "finished").exists)


@pytest.mark.parametrize("count", [1, 2])
def test_the_recorder_dies_with_guardians(workspace: Path, trace: Path, count: int) -> None:
    """kill -9 of the recorder and one guardian, or all of them, while the command is held: it goes on."""
    recorder, _, ours = _held(workspace, trace)
    guardians = [pid for pid in ours if _words(pid) == b"dk-guardian"]
    assert len(guardians) == 2
    for pid in (recorder.pid, *guardians[:count]):
        os.kill(pid, signal.SIGKILL)
    recorder.wait(60)
    harness.wait_for((workspace / "finished").exists)


def test_guardians_that_are_killed_harm_nothing(workspace: Path, trace: Path) -> None:
    """The command's exit code is the recorder's all the same, and the recording is whole."""
    words = [sys.executable, "-c", "import os, time\nwhile not os.path.exists('../go'): time.sleep(0.01)\nos._exit(9)"]
    recorder = subprocess.Popen([*harness.DIFFKEEPER, "record", "-o", trace, "--", *words], cwd=workspace)

    def guardians() -> list[int]:
        children = _children(recorder.pid)
        found = [*children, *(further for pid in children for further in _children(pid))]
        return [pid for pid in found if _words(pid) == b"dk-guardian"]

    harness.wait_for(lambda: len(guardians()) == 2)
    for pid in guardians():
        os.kill(pid, signal.SIGKILL)
    (workspace.parent / "go").touch()
    assert recorder.wait(60) == 9
    harness.assert_faithful(trace, workspace)


def test_a_trace_is_for_its_owner_alone(workspace: Path, trace: Path) -> None:
    """While it is recorded and afterwards: directories 0700, files 0600, whatever the umask."""
    script = f"""
import os, sys
for directory, _, files in os.walk({str(trace)!r}):
    for path in [directory, *(os.path.join(directory, name) for name in files)]:
        print(oct(os.lstat(path).st_mode & 0o777), path)
"""
    result = harness.run(
        "record", "-o", trace, "--", sys.executable, "-c", script, cwd=workspace, preexec_fn=lambda: os.umask(0)
    )
    assert result.returncode == 0, result.stderr
    seen = dict(line.split(" ", 1)[::-1] for line in result.stdout.splitlines())
    assert len(seen) >= 5 and any(path.endswith(".seg") for path in seen), seen
    for path, mode in seen.items():
        assert mode == ("0o700" if path in (str(trace), str(trace / "journal")) else "0o600"), (path, mode)
    for entry in [trace, *trace.rglob("*")]:
        assert stat.S_IMODE(entry.stat().st_mode) == (0o700 if entry.is_dir() else 0o600), entry
