"""What the recording that this one replaces can tell of the files: which are as they were, and need not be read.

Owns TRACE/baseline (a digest of what stat() said of each file when it was read), and moving what is needed of a
replaced trace to TRACE/earlier, from where the indexer takes the content (`diffkeeper.store.earlier`).

A file is as it was when path, size, mtime and ctime are: nobody can set a ctime. What a store to
mapped memory changes gets its times late, when the page is written for the first time since it was
last written back; so a file counts only if its ctime was older than any page stays dirty when it
was read. Filesystems that give mapped files no times at all (tmpfs) are read anew.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from ..errors import DiffKeeperError
from ..store.earlier import DIRECTORY, MISSING
from ..store.files import DATA_FILE
from ..store.indexer import CUT_OFF, DAMAGED
from ..store.reader import open_reader
from ..store.session import FACTS_FILE
from . import scope
from .contents import hashed

BOOK = "baseline"
BOOK_LIMIT = 1 << 30
TRUSTED = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})
"""Filesystems that set the times of a file when a mapped page of it is written."""
_UNSURE = {cause.decode() for cause in (CUT_OFF, DAMAGED, MISSING)}
"""What a recording must not have lost, for then content of its baseline may be missing."""
_WRITEBACK = ("dirty_expire_centisecs", "dirty_writeback_centisecs")

DIGEST = 16


class Book(msgspec.Struct, array_like=True):
    """What TRACE/baseline holds. `looked`: when the files began to be read, in ns of the wall clock."""

    looked: int
    files: bytes  # DIGEST bytes of each: a million files are to take little memory
    xattrs: dict[bytes, bytes]  # as in a SNAPSHOT, of those files that have any


class Earlier:
    """What is known of files from before, and what is to be known of them next time."""

    def __init__(self, trace: Path) -> None:
        """`trace`: which has the earlier recording aside, or has none."""
        self._trace = trace
        before = _read(trace / DIRECTORY)
        self._known = frozenset(before.files[at : at + DIGEST] for at in range(0, len(before.files), DIGEST))
        self._xattrs = before.xattrs
        self._limit = before.looked - longest_dirty()
        self._points = {b"/": False} | {path: kind in TRUSTED for _, path, kind in scope.mounts()}
        self._looked = time.time_ns()
        self._now, self._xattrs_now = bytearray(), dict[bytes, bytes]()
        self.same = 0

    def recall(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The extended attributes of a file that is as it was; None: it has to be read."""
        if not self._known or status.st_ctime_ns > self._limit or _digest(path, status) not in self._known:
            return None
        if not self._is_trusted(os.path.dirname(path)):
            return None
        self.same += 1
        return self._xattrs.get(path, b"")

    def remember(self, path: bytes, status: os.stat_result, xattrs: bytes) -> None:
        self._now += _digest(path, status)
        if xattrs:
            self._xattrs_now[path] = xattrs

    def write(self) -> None:
        """For the next recording; without it that one reads everything. What was known is forgotten: it may be much."""
        with suppress(OSError), open(self._trace / BOOK, "xb", opener=_private) as file:
            file.write(msgspec.msgpack.encode(Book(self._looked, bytes(self._now), self._xattrs_now)))
        self._known, self._xattrs, self._now, self._xattrs_now = frozenset(), {}, bytearray(), {}

    def _is_trusted(self, directory: bytes) -> bool:
        while directory not in self._points:
            directory = os.path.dirname(directory)
        return self._points[directory]


def put_aside(trace: Path) -> None:
    """Empty the directory of a trace that is to be replaced, but keep what the new one can use in it."""
    needed = [trace / name for name in (FACTS_FILE, DATA_FILE, BOOK)]
    keep = needed if _is_useful(trace, needed) else []
    for path in trace.iterdir():
        if path in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if keep:
        aside = trace / DIRECTORY
        aside.mkdir(mode=0o700)
        for path in keep:
            path.rename(aside / path.name)


def _is_useful(trace: Path, needed: Iterable[Path]) -> bool:
    """Whether all is there, whole, and can be read, and room for another trace beside it.

    Whoever was killed before all was indexed has files in the index that are zeroes yet.
    """
    try:
        size = sum(path.stat(follow_symlinks=False).st_blocks * 512 for path in needed)
        room = os.statvfs(trace)
        if room.f_bavail * room.f_frsize < 2 * size or not _read(trace).files:
            return False
        with open_reader(trace) as reader:
            session = reader.session
            return session.duration is not None and not _UNSURE & session.lost.keys()
    except (OSError, DiffKeeperError):
        return False


def _read(directory: Path) -> Book:
    """What was noted of the files; nothing where that cannot be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(directory / BOOK, flags), "rb") as file:
            size = min(os.fstat(file.fileno()).st_size, BOOK_LIMIT)  # or read() makes room for the limit
            return msgspec.msgpack.decode(file.read(size), type=Book)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return Book(0, b"", {})


def _digest(path: bytes, status: os.stat_result) -> bytes:
    return hashed(b"%d %d %d %b" % (status.st_size, status.st_mtime_ns, status.st_ctime_ns, path))[:DIGEST]


def longest_dirty() -> int:
    """Twice the longest time that a written page is not written back, in ns; all there is if nobody knows."""
    try:
        return 2 * 10**7 * sum(int(Path("/proc/sys/vm", name).read_text()) for name in _WRITEBACK)
    except (OSError, ValueError):
        return time.time_ns()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
