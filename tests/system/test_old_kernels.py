"""Older kernels: they have no functions to call, and do not tell what a call changed or what an io_uring does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Op
from tests.system import harness
from tests.system.test_record import EVERY_CALL, SIZES


def record(trace: Path, script: str, cwd: Path, *options: str) -> None:
    """Record a Python script by `old_kernel`, whose options these are."""
    words = [sys.executable, "-m", "tests.system.old_kernel", *options, str(trace), sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(words, cwd=cwd, env=environment, check=True)


@pytest.mark.parametrize("script", [EVERY_CALL, SIZES], ids=["every call", "sizes"])
def test_a_kernel_whose_functions_cannot_be_called(workspace: Path, trace: Path, script: str) -> None:
    """Where programs cannot load from any address nor copy into the ring, as before Linux 6.17, all is the same."""
    record(trace, script, workspace)
    harness.assert_faithful(trace, workspace)


MAKES = """
import os
os.umask(0o077)
os.mkdir('private'); os.mkfifo('private/pipe'); os.symlink('x', 'private/link')
os.umask(0)
os.mkdir('open', 0o3777); os.mkdir('shared/sub'); os.mkfifo('shared/sub/pipe')
os.setresuid(1000, 1000, 0)
os.mkdir('open/own'); os.mkfifo('open/own/pipe')
"""


def test_a_kernel_that_does_not_tell_what_calls_change(workspace: Path, trace: Path) -> None:
    """Before Linux 6.13: what is made has its mode and owner all the same, before anything is put right at the end."""
    (workspace / "shared").mkdir()
    os.chown(workspace / "shared", 0, 1234)
    (workspace / "shared").chmod(0o2777)
    record(trace, MAKES, workspace, "--untold")
    with diffkeeper.open(trace) as opened:
        last = max(event.seq for event in opened.events() if event.op is not Op.HEAL)
        assert any("inode_set_ctime_to_ts" in note for note in opened.reader.session.notes)
    recorded, real = harness.recorded(trace, f"e{last}"), harness.truth(workspace)
    without_times = [{path: replace(each, mtime=0) for path, each in tree.items()} for tree in (recorded, real)]
    assert without_times[0] == without_times[1]
    assert len(real) == 10


RING = """
import ctypes
assert ctypes.CDLL(None, use_errno=True).syscall(425, 4, ctypes.create_string_buffer(120)) >= 0
"""


def test_a_kernel_that_does_not_tell_of_io_uring(workspace: Path, trace: Path) -> None:
    """Before Linux 6.4: whoever makes a ring may do anything through it, so that is a loss; here it is none."""
    lost = {}
    for name, options in {"here": [], "untold": ["--untold"]}.items():
        each = trace.with_name(name)
        record(each, RING, workspace, *options)
        lost[name] = harness.info(each)["lost"]
    assert lost == {"here": 0, "untold": 1}
