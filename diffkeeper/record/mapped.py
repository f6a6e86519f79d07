"""Files that are written through memory: which pages changed since we looked last.

Nothing tells of a store to a mapped page. So the files that the kernel half says are mapped, shared and
writable (bpf/mapped.c) are kept open here with a digest of each page, and looked at whenever a program comes to
a point from which on others count on its stores (msync, fsync, munmap, a mark, its end), and now and then between.
What differs becomes a DIRTY record with its FILL. Does not stop or continue anybody.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from blake3 import blake3

from ..wire import Flag, Inode, WireOp, encode, pieces
from . import reread
from .baseline import CONTENT_PIECE, Piece, data_ranges
from .kernel import Ask, Control, Kernel, Request

PAGE = mmap.PAGESIZE
LARGEST = 1 << 30
"""Bytes of one file that are followed: a writer waits while they are read, half a second for so many."""

SHARE = 10
"""Looking between the calls takes at most one part in so many of the time."""

SLOWEST = 2.0
"""Seconds between two looks when nothing changes."""

_ZERO = blake3(bytes(PAGE)).digest()
_TID = 0  # of our records: no thread of the command has it

Emit = Callable[[Iterable[Piece]], None]


class _File:
    """One mapped file. `followed`: the bytes of it that may change; none while it is only readable."""

    def __init__(self, inode: Inode, fd: int, asked: range) -> None:
        self.inode = inode
        self.fd = fd
        self.asked = asked
        self.followed = range(0)
        self._digests: dict[int, bytes] = {}
        self._times = (inode.mtime, inode.ctime)

    def follow(self, part: range) -> bool:
        """Take what is there now for what is known. False: it is too large, so only its first part is followed."""
        known = self.followed
        start = min(part.start, known.start) if known else part.start
        stop = max(part.stop, known.stop)
        self.followed = range(start, min(stop, start + LARGEST))
        for at, data in self._pages():
            if at not in known:
                self._digests[at] = blake3(data).digest()
        return min(stop, os.fstat(self.fd).st_size) <= start + LARGEST

    def _pages(self) -> Iterator[tuple[int, memoryview]]:
        """(offset, bytes) of each page of the followed part that is not all hole."""
        size = os.fstat(self.fd).st_size
        done = self.followed.start
        for start, length in data_ranges(self.fd, size):
            offset = max(start // PAGE * PAGE, done)
            done = max(done, min(-(-(start + length) // PAGE) * PAGE, self.followed.stop))
            while offset < done:
                piece = memoryview(os.pread(self.fd, min(CONTENT_PIECE, done - offset), offset))
                if not piece:
                    return
                for at in range(0, len(piece), PAGE):
                    yield offset + at, piece[at : at + PAGE]
                offset += CONTENT_PIECE

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of each run of pages that are not what they were."""
        start, run = 0, b""
        digests = self._digests
        for at, data in self._pages():
            digest = blake3(data).digest()
            if digests.get(at, _ZERO) == digest:
                continue
            digests[at] = digest
            if run and start + len(run) == at and len(run) < CONTENT_PIECE:
                run += data
                continue
            if run:
                yield start, run
            start, run = at, bytes(data)
        if run:
            yield start, run

    def status(self) -> Inode:
        """The inode as it is now, under the kernel's own identity."""
        status = os.fstat(self.fd)
        return self.inode._replace(
            size=status.st_size, mtime=status.st_mtime_ns, ctime=status.st_ctime_ns, mode=status.st_mode,
            uid=status.st_uid, gid=status.st_gid, nlink=status.st_nlink,
        )  # fmt: skip

    def times_changed(self, now: Inode) -> bool:
        """Whether the times are other ones than when this was asked last."""
        before, self._times = self._times, (now.mtime, now.ctime)
        return before != self._times


class Mapped:
    """All files that are mapped now. `emit` takes the pieces of a record."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds between two looks at least; 0: only when something is synced."""
        self._interval = self._pause = interval
        self._files: dict[tuple[int, int], _File] = {}
        self._next = 0.0

    def connect(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return bool(self._files and self._interval) and time.monotonic() >= self._next

    def answer(self, request: Request, emit: Emit) -> None:
        """A file was mapped, or others count from here on on what is in it."""
        if request.kind is Ask.MAP:
            self._add(request, emit)
            return
        self._look(request, emit)
        if request.kind is Ask.WIDEN:
            for file in self._files.values():
                file.follow(range(file.asked.start, file.asked.start + LARGEST))
        self._prune()

    def look(self, emit: Emit) -> None:
        """Emit what changed since the last look. What somebody writes meanwhile is in it or in the next one."""
        self._look(None, emit)

    def _look(self, request: Request | None, emit: Emit) -> None:
        began = time.monotonic()
        mappers = self._kernel.mappers() if self._files else []
        changed = False
        for file in self._files.values():
            if file.followed:
                changed |= self._look_at(file, request, mappers, emit)
        now = time.monotonic()
        self._pause = self._interval if changed or request else min(2 * self._pause, max(SLOWEST, self._interval))
        self._next = now + max(self._pause, SHARE * (now - began))

    def _look_at(self, file: _File, request: Request | None, mappers: list[int], emit: Emit) -> bool:
        pid = request.pid if request else next(iter(mappers), 0)
        moment = request.time if request else time.monotonic_ns()
        is_alone = request is not None and request.stopped and set(mappers) <= {pid}
        flags = 0 if is_alone else Flag.INEXACT
        found = False
        try:
            for offset, data in file.changes():
                found = True
                inode = file.status()
                emit(pieces(WireOp.DIRTY, time=moment, pid=pid, tid=_TID, flags=flags, inodes=(inode,), offset=offset,
                            length=len(data)))  # fmt: skip
                emit(pieces(WireOp.FILL, time=moment, pid=pid, tid=_TID, flags=flags, offset=offset, payload=data))
            inode = file.status()
            if file.times_changed(inode) and not found:
                emit((encode(WireOp.UTIME, time=moment, pid=pid, tid=_TID, inodes=(inode,), length=inode.mtime),))
        except OSError as error:
            cause = f"mapped file: {error.strerror}".encode()
            emit((encode(WireOp.GAP, time=moment, pid=pid, offset=1, payload=cause),))
        return found

    def _add(self, request: Request, emit: Emit) -> None:
        key = request.inode.dev, request.inode.ino
        part = range(request.offset, request.offset + request.length)
        try:
            file = self._files.get(key)
            if file is None:
                if not self._files:
                    self._next = time.monotonic() + self._interval
                file = self._files[key] = _File(request.inode, reread.open_file(request), part)
            if request.writable and not file.follow(part):
                raise OSError(errno.EFBIG, f"only {LARGEST >> 20} MiB of it are followed")
        except OSError as error:
            cause = f"mapped file: {error.strerror}".encode()
            emit((encode(WireOp.GAP, time=request.time, pid=request.pid, offset=0, payload=cause),))
        self._kernel.control[Control.MAPPED] = len(self._files)

    def _prune(self) -> None:
        """Let go of files that nobody has mapped any more."""
        mapped = self._kernel.mapped()
        if mapped is None:
            return
        for key in self._files.keys() - mapped:
            with suppress(OSError):
                os.close(self._files.pop(key).fd)
        self._kernel.control[Control.MAPPED] = len(self._files)
