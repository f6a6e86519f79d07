"""fallocate in all its modes, the ioctls that were there before it: space that is had, cleared and moved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Op
from tests.filesystems import KINDS, mounted
from tests.oracle import system
from tests.programs.program import Place, Program, run
from tests.system import harness

CHANGES = """
import ctypes, errno, fcntl, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
NOT_HERE = errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL  # filesystems differ in what they can do
def allocate(mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        assert ctypes.get_errno() in NOT_HERE, os.strerror(ctypes.get_errno())
def older(request, offset, length):
    try:
        fcntl.ioctl(fd, request, struct.pack('hhqqiI4i', 0, 0, offset, length, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        assert error.errno in NOT_HERE, error
def moment(name):
    try: open(f'/.diffkeeper/mark/{name}')
    except OSError: pass
    with open(os.environ['ASK'], 'w') as ask: ask.write(name + chr(10))
    with open(os.environ['ANSWER']) as answer: answer.readline()
MIB = 1 << 20
changes = [
    lambda: os.write(fd, bytes(range(256)) * 400),
    lambda: allocate(0, 50_000, 10_000),
    lambda: allocate(0, 90_000, MIB),
    lambda: allocate(KEEP, 0, 4 * MIB),
    lambda: allocate(PUNCH | KEEP, 5000, 3000),
    lambda: allocate(PUNCH | KEEP, MIB, 1 << 30),
    lambda: allocate(PUNCH | KEEP, 1 << 40, MIB),
    lambda: allocate(ZERO, 10_000, 2000),
    lambda: allocate(ZERO | KEEP, MIB, MIB),
    lambda: os.pwrite(fd, b'end', 2 * MIB),
    lambda: allocate(COLLAPSE, 4096, 8192),
    lambda: allocate(INSERT, 8192, 4096),
    lambda: allocate(ZERO, 0, 3 * MIB),
    lambda: os.pwrite(fd, b'again' * 5000, 10_000),
    lambda: older(0x4030582a, 4 * MIB, 4096),
    lambda: older(0x4030582b, 11_000, 2000),
    lambda: older(0x40305839, 20_000, 2000),
    lambda: os.truncate('file', 22_222),
]
fd = os.open('file', os.O_CREAT | os.O_RDWR)
for number, change in enumerate(changes):
    change()
    moment(f'after-{number}')
"""


@pytest.mark.parametrize("kind", KINDS)
def test_space_that_is_had_cleared_and_moved(kind: str, tmp_path: Path) -> None:
    """Each moment as it was, past the end of the file too; all of it is exact."""
    program = Program("fallocate", '"$PYTHON" -c "$CHANGES"', {"CHANGES": CHANGES})
    with mounted(kind, tmp_path) as point:
        outcome = run(program, "quick", kind, Place(tmp_path, point))
    assert outcome.faults == []
    assert (outcome.moments, outcome.inexact) == (19, [])


def test_space_for_nothing_holds_nobody(tmp_path: Path) -> None:
    """A gigabyte that is had, given back and cleared is not read again: no writer stands still for it."""
    script = "for i in 1 2 3 4; do fallocate -l 1G file; fallocate -p -o 4K -l 1G file; fallocate -z -l 1G file; done"
    program = Program("much space", script, events=12)
    with mounted("ext4", tmp_path, "2G") as point:
        place = Place(tmp_path, point)
        outcome = run(program, "quick", "ext4", place)
    assert outcome.faults == []
    assert harness.info(place.trace)["notes"] == []


def test_a_sparse_file_that_is_moved_about_is_no_flood(workspace: Path, trace: Path) -> None:
    """Collapsing a range of a file of a terabyte that holds 8 KiB takes little journal, and every byte is right."""
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
fd = os.open('sparse', os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b'x' * 4096, 1 << 20); os.pwrite(fd, b'y' * 4096, 1 << 40)
assert libc.fallocate(fd, 8, 0, 65536) == 0, os.strerror(ctypes.get_errno())
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace, timeout=120)
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        file = opened.at("end") / "sparse"
        assert file.stat().st_size == (1 << 40) + 4096 - 65536
        with file.open("rb") as reader:
            reader.seek((1 << 20) - 65536)
            assert reader.read(4096) == b"x" * 4096
            reader.seek((1 << 40) - 65536)
            assert reader.read() == b"y" * 4096
    assert harness.info(trace)["fidelity"]["exact"] == 3
    assert harness.info(trace)["verified"]["mismatches"] == 0


def test_flags_of_chattr_are_told(workspace: Path, trace: Path) -> None:
    """Both calls that set them are events that say which there are now."""
    script = "touch file; chattr +dA file; chattr -d file; chattr +S ."
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        told = [event for event in opened.events() if event.op is Op.CHATTR]
    assert [set(event.detail[1:]) & set("dAS") for event in told] == [{"d", "A"}, {"A"}, {"S"}]
    harness.assert_faithful(trace, workspace)


@pytest.mark.skipif(not system.has_file_setattr(), reason="Linux 6.17 and later have file_setattr")
@pytest.mark.parametrize("where", ["-100, b'file'", "fd, b''"], ids=["path", "descriptor"])
def test_flags_set_by_file_setattr_are_told(where: str, tmp_path: Path, trace: Path) -> None:
    """As those that chattr sets."""
    opens = "import os; from tests.oracle import system; fd = os.open('file', os.O_RDWR | os.O_CREAT)"
    words = [sys.executable, "-c", f"{opens}; system.file_setattr({where}, 0xC0)"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with mounted("ext4", tmp_path) as root:
        result = harness.record(trace, words, cwd=root, env=environment)
        assert result.returncode == 0, result.stderr
        assert ", 0 lost;" in result.stderr
        harness.assert_faithful(trace, root)
    with diffkeeper.open(trace) as opened:
        (told,) = (event for event in opened.events() if event.op is Op.CHATTR)
    assert (told.path, set(told.detail[1:])) == (os.fsencode(root / "file"), {"d", "A"})


def test_bytes_that_a_filesystem_does_not_tell_of_yet(tmp_path: Path, trace: Path) -> None:
    """What was just written to a file without extents ext4 takes for a hole, until it is on the disk."""
    with mounted("ext4", tmp_path) as where:
        path = where / "image"
        path.touch()
        subprocess.run(["chattr", "-e", path], check=True)
        with path.open("r+b", buffering=0) as file:
            file.truncate(64 << 20)
            os.pwrite(file.fileno(), b"x" * 513, 100_000)
        assert harness.record(trace, ["sh", "-c", "echo y >> other"], cwd=where).returncode == 0
    with diffkeeper.open(trace) as opened, (opened.at("start") / "image").open("rb") as recorded:
        recorded.seek(99_999)
        assert recorded.read(515) == b"\0" + b"x" * 513 + b"\0"
