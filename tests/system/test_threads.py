"""A thread that is not a process's first stands still while what it changed is read, and has descriptors of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Fidelity, Op
from tests.system import harness

COPIES = 300
DEEP = "/".join(5 * ["d" * 250])  # longer than a path that the kernel hands over with a request
COPY_AND_OVERWRITE = f"""
import ctypes, os, sys, threading
def work():
    if sys.argv[1] == 'own':
        assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
    os.makedirs('{DEEP}')
    source = os.open('source', os.O_RDWR | os.O_CREAT)
    os.pwrite(source, b's' * 8192, 0)
    for _ in range({COPIES}):
        file = os.open('{DEEP}/file', os.O_RDWR | os.O_CREAT)
        os.copy_file_range(source, file, 8192, 0, 0)
        os.pwrite(file, b'later', 100)
        os.close(file)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("table", ["shared", "own"])
def test_what_a_thread_copied_is_read_before_it_goes_on(table: str, workspace: Path, trace: Path) -> None:
    """Every copy is recorded as it was, not with what the thread wrote next, whichever table its descriptors are in."""
    result = harness.record(trace, [sys.executable, "-c", COPY_AND_OVERWRITE, table], cwd=workspace)
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        copies = [event for event in opened.events() if event.op is Op.WRITE and event.path.endswith(b"/file")]
        copies = [event for event in copies if event.size == 8192]
        assert len(copies) == COPIES
        for event in copies:
            moment = opened.at(f"e{event.seq}")
            assert (moment / DEEP / "file").read_bytes() == b"s" * 8192
            assert event.fidelity is Fidelity.EXACT
    assert harness.info(trace)["lost"] == 0
