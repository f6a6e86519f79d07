"""What the kernel half does in several programs, as one would take the verifier too long: long paths, many buffers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from . import harness

DEEP = """
import os
for depth in (1, 20, 31, 32, 33, 63, 64, 65, 100, 200):
    path = 'a/' * depth
    with open(path + 'old', 'r+b') as file:
        file.write(b'new')
    source, target = os.open('source', os.O_RDONLY), os.open(path + 'copied', os.O_RDWR)
    assert os.copy_file_range(source, target, 6) == 6
    os.rename(path + 'moved', path + 'away')
"""


def test_paths_of_any_depth(workspace: Path, trace: Path) -> None:
    """A file that was there before is told by its path, however many directories that has, and read again by it."""
    (workspace / "source").write_text("source")
    directory = workspace
    for _ in range(200):
        directory /= "a"
        directory.mkdir()
        for name in ("old", "copied", "moved"):
            (directory / name).write_text(name)
    result = harness.record(trace, [sys.executable, "-c", DEEP], cwd=workspace)
    assert result.returncode == 0, result.stderr
    facts = harness.assert_faithful(trace, workspace)
    assert sum(facts["fidelity"].values()) == facts["fidelity"]["exact"]
    lines = map(json.loads, harness.run("timeline", trace, "--json").stdout.splitlines())
    told = [(line["op"], line["path"].count("a/")) for line in lines if line["op"] in ("write", "rename")]
    depths = (1, 20, 31, 32, 33, 63, 64, 65, 100, 200)
    assert told == [(op, depth) for depth in depths for op in ("write", "write", "rename")]


MANY = """
import os
file = os.open('file', os.O_CREAT | os.O_RDWR)
for count in (1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 500):
    parts = [bytes([65 + number % 26]) * (number % 5 * 100) for number in range(count)]
    os.writev(file, parts + [b'.'])
    os.pwritev(file, [b'<', *parts, b'>'], 10 * count)
for size in (262143, 262144, 262145, 1 << 20, (4 << 20) - 11, 4 << 20, 5 << 20):
    os.write(file, os.urandom(size))
    os.writev(file, [b'before', os.urandom(size), b'', b'after'])
"""


def test_writes_of_many_buffers(workspace: Path, trace: Path) -> None:
    """writev(2) of as many and as long buffers as one likes, empty ones too, is recorded as it is."""
    result = harness.record(trace, [sys.executable, "-c", MANY], cwd=workspace)
    assert result.returncode == 0, result.stderr
    facts = harness.assert_faithful(trace, workspace)
    assert sum(facts["fidelity"].values()) == facts["fidelity"]["exact"]


@pytest.mark.parametrize("names", [1, 8, 40])
def test_what_is_made_among_many(workspace: Path, trace: Path, names: int) -> None:
    """What mkdir, mknod and symlink make is known by the record of the call, whatever else is in the directory."""
    script = f"""
import os
for number in range({names}):
    os.mkdir(f'directory{{number}}'); os.symlink(f'target{{number}}', f'link{{number}}'); os.mkfifo(f'fifo{{number}}')
    os.chmod(f'directory{{number}}', 0o700); os.rmdir(f'directory{{number}}'); os.mkdir(f'directory{{number}}')
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
