"""What the system tests share: recording with the real command line, and comparing a moment with the truth.

Owns `record()` (a subprocess of the installed diffkeeper), `Truth` (what a real directory is: names,
types, content, modes, owners, times, links) and `recorded()` (the same, read from a trace).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffkeeper
from diffkeeper.record.baseline import xattrs_of
from diffkeeper.record.contents import data_ranges
from diffkeeper.record.deep import within_reach

HUGE = 64 << 20
"""From this size on only what is not a hole is looked at."""
BLOCK = 1 << 16
DIFFKEEPER = [sys.executable, "-m", "diffkeeper"]


@dataclass(frozen=True)
class Entry:
    """One path as stat(), readlink() and read() show it."""

    mode: int
    uid: int
    gid: int
    size: int | None  # of regular files
    mtime: int
    nlink: int | None  # of all but directories, whose count a filesystem makes up
    target: str | None
    digest: str | None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()  # user.* and ACLs


Truth = dict[str, Entry]


def chosen(xattrs: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(sorted(item for item in xattrs.items() if item[0].startswith((b"user.", b"system.posix_acl_"))))


def digest_of(size: int, spans: Iterable[tuple[int, int]], read: Callable[[int, int], bytes]) -> str:
    """Of all bytes; of a huge file: of its blocks that are not zero, and where. `read` takes offset and size."""
    digest = hashlib.sha256()
    if size < HUGE:
        spans = [(0, size)]
    done = 0
    for start, length in spans:
        for offset in range(max(start // BLOCK * BLOCK, done), start + length, BLOCK):
            done = offset + BLOCK
            data = read(offset, BLOCK)
            if size < HUGE:
                digest.update(data)
            elif data.strip(b"\0"):
                digest.update(offset.to_bytes(8) + data)
    return digest.hexdigest()


def digest_of_file(path: Path | bytes, size: int) -> str:
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        return digest_of(size, data_ranges(fd, size), lambda offset, count: os.pread(fd, count, offset))


def truth(root: Path, *, leave_out: Sequence[Path] = ()) -> Truth:
    """Everything under a real directory, the directory itself as "."; however deep it is."""
    top, unwanted = os.fsencode(root), {os.fsencode(path) for path in leave_out}
    found: Truth = {}
    pending = [top]
    while pending:
        path = pending.pop()
        with within_reach(path) as near:
            entry = found[os.path.relpath(os.fsdecode(path), root)] = _entry(near)
            if stat.S_ISDIR(entry.mode):
                inside = (os.path.join(path, name) for name in os.listdir(near))
                pending += [path for path in inside if path not in unwanted]
    return found


def _entry(path: bytes) -> Entry:
    status = os.lstat(path)
    is_file = stat.S_ISREG(status.st_mode)
    return Entry(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if is_file else None,
        mtime=status.st_mtime_ns,
        nlink=None if stat.S_ISDIR(status.st_mode) else status.st_nlink,
        target=os.fsdecode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else None,
        digest=digest_of_file(path, status.st_size) if is_file else None,
        xattrs=chosen(xattrs_of(path)),
    )


def recorded(trace: Path, moment: str, below: str = "") -> Truth:
    """The same from a trace: the tree at a moment, or a directory in it."""
    found: Truth = {}
    with diffkeeper.open(trace) as opened:
        reader = opened.reader
        seq = opened.moment(moment).seq
        top = opened.roots[0] + (b"/" + os.fsencode(below) if below else b"")
        node = reader.resolve(top, seq)
        assert node is not None, f"{top!r} is not in @{moment}"
        pending = [(".", node)]
        while pending:
            path, node = pending.pop()
            attrs = reader.attrs(node, seq)
            assert attrs is not None, path
            digest = ""
            if attrs.is_file:
                spans = reader.extents(node, seq) if attrs.size >= HUGE else ()
                digest = digest_of(attrs.size, spans, partial(reader.read, node, seq))
            found[path] = Entry(
                mode=attrs.mode,
                uid=attrs.uid,
                gid=attrs.gid,
                size=attrs.size if attrs.is_file else None,
                mtime=attrs.mtime,
                nlink=None if attrs.is_dir else attrs.nlink,
                target=os.fsdecode(attrs.target) if attrs.is_symlink else None,
                digest=digest if attrs.is_file else None,
                xattrs=chosen(attrs.xattrs),
            )
            if attrs.is_dir:
                for name, child in reader.children(node, seq):
                    pending.append((os.path.normpath(os.path.join(path, os.fsdecode(name))), child))
    return found


def assert_same(actual: Truth, expected: Truth) -> None:
    """Equal, or a message that names the first paths that are not."""
    wrong = [path for path in sorted({*actual, *expected}) if actual.get(path) != expected.get(path)]
    lines = [f"{path}:\n  recorded {actual.get(path)}\n  real     {expected.get(path)}" for path in wrong[:8]]
    assert not wrong, f"{len(wrong)} paths differ\n" + "\n".join(lines)


def run(*arguments: str | Path, as_user: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """diffkeeper with these arguments, its output captured as text.

    Another user keeps the capability to read: the Python that runs the tests may be root's alone.
    """
    options = {"capture_output": True, "text": True, "timeout": 300, **options}
    words = [*DIFFKEEPER, *map(str, arguments)]
    if as_user:
        capabilities = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        words = ["setpriv", f"--reuid={as_user}", f"--regid={as_user}", "--clear-groups", *capabilities, *words]
    return subprocess.run(words, check=False, **options)


def record(
    trace: Path, command: Sequence[str | Path], *, cwd: Path, options: Sequence[str | Path] = (), **rest: Any
) -> subprocess.CompletedProcess[str]:
    """`diffkeeper record` of a command in a directory that is its root."""
    return run("record", "-o", trace, *options, "--", *command, cwd=cwd, **rest)


def info(trace: Path) -> Mapping[str, Any]:
    result = run("info", trace, "--json")
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def assert_faithful(trace: Path, root: Path, *, leave_out: Sequence[Path] = ()) -> Mapping[str, Any]:
    """The last moment equals the directory, nothing was lost, nothing had to be healed. Says what `info` said."""
    facts = info(trace)
    assert_same(recorded(trace, "end"), truth(root, leave_out=leave_out))
    assert facts["lost"] in ({}, 0), facts["lost"]
    assert facts["verified"]["mismatches"] == 0, facts["verified"]
    return facts


def small_ring(ring_bytes: int, script: str, workspace: Path, trace: Path) -> subprocess.Popen[bytes]:
    """A recorder whose ring is far too small for the Python script that it records."""
    words = [sys.executable, "-m", "tests.system.small_ring", str(trace), str(ring_bytes), sys.executable, "-c", script]
    return subprocess.Popen(words, cwd=workspace, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until a condition holds; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def process_state(pid: int) -> str:
    """One letter, as ps(1) has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
