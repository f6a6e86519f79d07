"""The same recording on each filesystem people use: inode numbers, times and stamps differ, the truth does not."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from tests.system import harness
from tests.system.test_record import EVERY_CALL

MORE = """
set -e
echo more >> before; mv olddir newdir; rm newdir/z; cp -a before copy; cp -r newdir newer
sqlite3 db "create table t(a); insert into t values (1), (2)"
setfacl -m u:1:rw copy
"""
ATTRIBUTES = (
    "setfattr -n user.colour -v blue copy; setfattr -x user.colour copy; setfattr -n user.shape -v round before"
)


def test_every_call_on_every_filesystem(filesystem: Path, trace: Path) -> None:
    """Every call of the recorded families, cp -a, xattrs, ACLs and sqlite: the end equals the directory, unhealed."""
    work = filesystem / "work"
    (work / "olddir").mkdir(parents=True)
    (work / "olddir/z").write_text("z")
    (work / "before").write_text("hello\n")
    script = f'{sys.executable} -c "$EVERY_CALL" && {MORE}'
    with suppress(OSError):  # tmpfs has no attributes of users before Linux 6.6
        os.setxattr(work / "before", "user.before", b"there")
        script += ATTRIBUTES
    command = ["env", f"EVERY_CALL={EVERY_CALL}", "sh", "-c", script]
    result = harness.record(trace, command, cwd=work)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, work)


def test_an_overlay_and_what_lies_below(filesystem: Path, trace: Path) -> None:
    """Files of the lower layer are written, renamed and removed (elsewhere: files that were there before)."""
    low = filesystem / "low/sub"
    low.mkdir(parents=True, exist_ok=True)
    (low.parent / "file").touch()
    (low / "other").touch()
    script = "echo more >> low/file; cd low/sub; mv other moved; chmod 600 moved; cd ..; rm -r sub; mkdir sub"
    result = harness.record(trace, ["sh", "-c", script], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, filesystem)


def test_a_directory_moved_from_within(filesystem: Path, trace: Path) -> None:
    """The new path starts at the descriptor of the very directory that moves, which nobody has used before."""
    work = filesystem / "work"
    (work / "one/two/three").mkdir(parents=True)
    (work / "one/two/there").write_text("goes with it")
    script = """
import os
fd = os.open("one/two", os.O_DIRECTORY)
os.rename("one/two", "../../moved", dst_dir_fd=fd)
open("moved/three/file", "w").write("x")
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=work)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, work)


def test_a_whiteout_that_was_taken_back(filesystem: Path, trace: Path) -> None:
    """A rename with a whiteout that fails at the last has set times of a directory that nobody used before."""
    work = filesystem / "work"
    (work / "one/full/there").mkdir(parents=True)
    (work / "one/empty").mkdir()
    script = """
import ctypes, time
time.sleep(0.02)  # the clock of files goes on
done = ctypes.CDLL(None).syscall(316, -100, b"one/empty", -100, b"one/full", 4)
assert done == -1, done
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=work)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, work)


def test_writes_that_end_short(filesystem: Path, trace: Path) -> None:
    """The end of a buffer cannot be read: what the filesystem leaves behind what was written is recorded as it is."""
    work = filesystem / "work"
    work.mkdir()
    script = f"""
import contextlib, os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.oracle import system
for number in range(30):
    fd = os.open(f"file{{number}}", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 1 << 20)
    memory = system.Memory(bytes(range(1, 256)) * 2, guard=2)
    with contextlib.suppress(OSError):  # EFAULT, where nothing was written
        assert system.write_from(fd, memory.address, 610, 8502) <= 510
    with contextlib.suppress(OSError):
        assert system.pwritev2(fd, [(memory.address, 255), (memory.address + 255, 355)], 308502, 0) <= 510
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=work)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, work)
