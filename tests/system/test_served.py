"""Filesystems that the kernel does not know all about: a program serves them, or takes one name for another."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Fidelity, Op
from tests.filesystems import unmount
from tests.system import harness

CHANGES = """
import mmap, os, shutil, sys
os.mkdir('d')
with open('d/a', 'w') as file:
    file.write('hello')
with open('d/b', 'wb') as file:
    file.write(b'x' * 10_000)
os.rename('d/a', 'd/c')
os.link('d/c', 'd/e')
os.symlink('c', 'd/s')
with open('d/b', 'r+b') as file:
    file.seek(5000)
    file.write(b'yyyy')
    file.truncate(7000)
os.setxattr('d/b', 'user.told', b'1')
with open('log', 'ab', buffering=0) as file:
    for number in range(100):
        file.write(b'%d' % number)
try:
    open('/.diffkeeper/mark/middle')
except FileNotFoundError:
    pass
shutil.copytree('.', sys.argv[1], symlinks=True)
with open('log', 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[:4] = b'over'
    mapped.flush()
os.unlink('d/e')
os.rename('d', 'new')
os.chmod('new/b', 0o600)
"""
OTHER_CASE = """
import os
os.mkdir('Foo')
with open('foo/Bar', 'w') as file:
    file.write('one')
with open('FOO/bar', 'a') as file:
    file.write('two')
os.rename('foo/BAR', 'foo/baz')
os.rename('Foo', 'foo2')
os.rename('FOO2', 'Foo2')
with open('gone', 'w') as file:
    file.write('1')
os.unlink('GONE')
os.mkdir('q')
os.mkdir('Q/r')
"""


@contextmanager
def served(*command: str | Path) -> Iterator[Path]:
    """A mount by a program; the last word is where."""
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    try:
        yield Path(command[-1])
    finally:
        unmount(Path(command[-1]))


def held(found: harness.Truth) -> dict[str, tuple[object, ...]]:
    """Of each path what a copy has as well."""
    return {path: (entry.size, entry.target, entry.digest, entry.xattrs) for path, entry in found.items()}


def test_what_another_program_serves(tmp_path: Path, trace: Path) -> None:
    """Names and bytes are exact at every moment. The times that the server gives are known at the end, and all that is
    healed: no byte is told again for that."""
    behind, at, copy = tmp_path / "behind", tmp_path / "at", tmp_path / "copy"
    behind.mkdir()
    at.mkdir()
    with served("bindfs", behind, at):
        result = harness.record(trace, [sys.executable, "-c", CHANGES, copy], cwd=at)
        assert result.returncode == 0, result.stderr
        harness.assert_same(harness.recorded(trace, "end"), harness.truth(at))
    facts = harness.info(trace)
    assert not facts["lost"]
    assert set(facts["verified"]["wrong"]) <= {"times"}
    assert held(harness.recorded(trace, "middle")) == held(harness.truth(copy))
    with diffkeeper.open(trace) as opened:
        node = opened.reader.resolve(bytes(at / "log"), opened.reader.last_seq)
        assert node is not None
        last = opened.reader.attrs(node, opened.reader.last_seq)
        healed = [event.seq for event in opened.events() if event.op is Op.HEAL]
        assert {event.fidelity for event in opened.events() if not event.outside} == {Fidelity.EXACT}
        assert last is not None
        assert healed and last.version < min(healed)


def test_names_in_another_case(tmp_path: Path, trace: Path) -> None:
    """Where upper and lower case are the same, the last moment has each file once, by the name that it has there."""
    at, image = tmp_path / "at", tmp_path / "image"
    at.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ntfs", "--force", "--quick", image], check=True, capture_output=True)
    with served("lowntfs-3g", "-o", "permissions,ignore_case", image, at):
        result = harness.record(trace, [sys.executable, "-c", OTHER_CASE], cwd=at)
        assert result.returncode == 0, result.stderr
        assert sorted(harness.truth(at)) == [".", "foo2", "foo2/baz", "q", "q/r"]
        harness.assert_same(harness.recorded(trace, "end"), harness.truth(at))
    facts = harness.info(trace)
    assert not facts["lost"]
    assert facts["verified"]["wrong"]["name"]


def test_what_somebody_has_mounted_for_themselves(workspace: Path, trace: Path) -> None:
    """A filesystem of a user's, which root may not even stat: it is named, and the rest of its directory recorded."""
    for name in ("before", "mine", "zoo"):
        (workspace / name).mkdir()
        (workspace / name / "file").write_text(name)
    mount = ctypes.CDLL(None, use_errno=True).mount
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=12345,group_id=12345".encode()
    assert mount(b"theirs", os.fsencode(workspace / "mine"), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    try:
        with pytest.raises(PermissionError):
            os.stat(workspace / "mine")
        result = harness.record(trace, ["sh", "-c", "echo new > zoo/file; echo new > new"], cwd=workspace)
    finally:
        subprocess.run(["umount", workspace / "mine"], check=True)
        os.close(device)
    facts = harness.info(trace)
    assert result.returncode == facts["lost"] == facts["verified"]["mismatches"] == 0, result.stderr
    assert f"not readable: {workspace / 'mine'}" in facts["notes"]
    start = harness.recorded(trace, "start")
    assert set(start) == {".", "before", "before/file", "zoo", "zoo/file"}
    with diffkeeper.open(trace) as opened:
        assert (opened.at("start") / "zoo/file").read_text() == "zoo"
