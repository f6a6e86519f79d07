"""Files that are written through memory: which pages changed since we looked last.

Nothing tells of a store to a mapped page. So the files that the kernel half says are mapped, shared and
writable (bpf/mapped.c) are kept open here with a digest of each page, and looked at whenever a program comes to
a point from which on others count on its stores (msync, fsync, munmap, a mark, its end), and now and then between.
What differs becomes a DIRTY record with its FILL. Does not stop or continue anybody.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator

from ..wire import Flag, Inode, WireOp, encode, instant, pieces
from . import reread
from .baseline import Piece
from .contents import CONTENT_PIECE, data_ranges, hashed
from .kernel import Control, Kernel
from .namespaces import kernel_time
from .requests import Ask, Request

PAGE = mmap.PAGESIZE
SMALL = 1 << 18
"""Bytes of a file that are compared as a whole before they are looked at page by page."""

LARGEST = 1 << 30
"""Bytes of one file that are followed: a writer waits while they are read, half a second for so many."""

SHARE = 10
"""Looking between the calls takes at most one part in so many of the time."""

SLOWEST = 2.0
"""Seconds between two looks when nothing changes."""

_TID = 0  # of our records: no thread of the command has it

Emit = Callable[[Iterable[Piece]], None]


class _File:
    """One mapped file. `followed`: the bytes of it that may change; none while it is only readable."""

    def __init__(self, request: Request, asked: range) -> None:
        self.asked = asked
        self.followed = range(0)
        self._request = request
        self.inode = request.inode
        self._fd = -1
        self._digests: dict[int, bytes] = {}
        self._whole: bytes | None = None  # what the digests are of, where that is small and all of it is known
        self._times = (request.inode.mtime, request.inode.ctime)

    def follow(self, part: range, others: Callable[[], Iterable[int]], *, untouched: bool) -> bool:
        """Watch a part of it, too. False: it is too large, so only its first part is followed.

        `untouched`: nobody can have stored anything there yet, so what is there now is known. `others`: processes
        that may have the file open or mapped. OSError when it cannot be opened.
        """
        if self._fd < 0:
            self._fd = reread.open_file(self._request, others)
        known = self.followed
        start = min(part.start, known.start) if known else part.start
        stop = max(part.stop, known.stop)
        self.followed = range(start, min(stop, start + LARGEST))
        self._whole = None
        if untouched:
            self._digests.update((at, hashed(data)) for at, data in self._pages() if at not in known)
        return min(stop, os.fstat(self._fd).st_size) <= start + LARGEST

    def forget(self, part: range | None) -> None:
        """The pages of this part, or all, are to be told again, whatever is in them."""
        self._whole = None
        if part is None:
            self._digests.clear()
        else:
            for at in range(part.start, part.stop, PAGE):
                self._digests.pop(at, None)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _pages(self, whole: bytes | None = None) -> Iterator[tuple[int, memoryview]]:
        """(offset, bytes) of each page of the followed part that is not all hole. `whole`: that part, if it is read."""
        size = os.fstat(self._fd).st_size
        done = self.followed.start
        for start, length in data_ranges(self._fd, min(size, self.followed.stop), self.followed.start):
            offset = max(start // PAGE * PAGE, done)
            done = max(done, min(-(-(start + length) // PAGE) * PAGE, self.followed.stop))
            while offset < done:
                if whole is None:
                    piece = memoryview(os.pread(self._fd, min(CONTENT_PIECE, done - offset), offset))
                else:
                    piece = memoryview(whole)[offset - self.followed.start : done - self.followed.start]
                if not piece:
                    return
                for at in range(0, len(piece), PAGE):
                    yield offset + at, piece[at : at + PAGE]
                offset += CONTENT_PIECE

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of each run of pages that are not what they were."""
        whole, begin = None, self.followed.start
        if min(os.fstat(self._fd).st_size, self.followed.stop) - begin <= SMALL:
            whole = os.pread(self._fd, SMALL, begin)
            if whole == self._whole:
                return
        self._whole = whole
        start, run = 0, b""
        digests = self._digests
        for at, data in self._pages(whole):
            digest = hashed(data)
            if digests.get(at) == digest:
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
        status = os.fstat(self._fd)
        self._times = status.st_mtime_ns, status.st_ctime_ns
        return self.inode._replace(
            size=status.st_size, mtime=instant(status.st_mtime_ns), ctime=instant(status.st_ctime_ns),
            mode=status.st_mode, uid=status.st_uid, gid=status.st_gid, nlink=status.st_nlink,
        )  # fmt: skip

    def times_changed(self) -> bool:
        """Whether the times are other ones than when `status` was asked last."""
        status = os.fstat(self._fd)
        return (status.st_mtime_ns, status.st_ctime_ns) != self._times


class Mapped:
    """All files that are mapped now. `emit` takes the pieces of a record."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds between two looks at least; 0: only when something is synced."""
        self._interval = self._pause = interval
        self._files: dict[tuple[int, int], _File] = {}
        self._next = 0.0
        self._cuts = 0
        self._again: list[tuple[tuple[int, int], range | None]] = []  # parts to forget a second time
        self._widened: dict[int, int] = {}  # process -> when it asked last for more to be followed

    def connect(self, kernel: Kernel, drain: Callable[[int | None], bool]) -> None:
        """`drain` takes what is in the ring, up to a position or all, to the journal; says whether nothing is left."""
        self._kernel, self._drain = kernel, drain

    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return bool(self._files and self._interval) and time.monotonic() >= self._next

    def answer(self, request: Request, emit: Emit) -> None:
        """A file was mapped, or others count from here on on what is in it."""
        if request.kind is Ask.MAP:
            self._add(request, emit)
            return
        if request.kind is Ask.WIDEN:  # before the look: who is not held may have stored there, and unmapped it, by now
            self._widened[request.pid] = request.time
            for file in self._files.values():
                self._follow(file, range(file.asked.start, file.asked.start + LARGEST), request, emit)
        self._look(request, emit)

    def look(self, emit: Emit) -> None:
        """Emit what changed since the last look. What somebody writes meanwhile is in it or in the next one."""
        self._look(None, emit)

    def _look(self, request: Request | None, emit: Emit) -> None:
        if not self._files:
            return
        began = time.monotonic()
        parts = self._forget()
        # What is found now must come after the calls that changed these parts, or be found once more.
        all_told = self._drain(request.position if request else None)
        self._again = [] if all_told else parts
        # Asked before the look: whoever unmaps a file afterwards, its last stores may be missing from this one.
        mapped, many = self._kernel.mapped()
        changed = False
        for key, file in list(self._files.items()):
            mappers = mapped.get(key, set()) | many
            if file.followed:
                changed |= self._look_at(file, request, mappers, emit)
            if not mappers:
                self._drop(key)
        now = time.monotonic()
        self._pause = self._interval if changed or request else min(2 * self._pause, max(SLOWEST, self._interval))
        self._next = now + max(self._pause, SHARE * (now - began))

    def _forget(self) -> list[tuple[tuple[int, int], range | None]]:
        """What calls changed is not known any more: a store that undid it would look as if nothing had happened."""
        cuts = self._kernel.control[Control.CUTS]
        if cuts != self._cuts:
            self._cuts = cuts
            for file in self._files.values():
                file.forget(None)
        changed = list(self._kernel.changed_blocks())
        for key, part in (*self._again, *changed):
            if key in self._files:
                self._files[key].forget(part)
        return changed

    def _look_at(self, file: _File, request: Request | None, mappers: set[int], emit: Emit) -> bool:
        by_caller = request is not None and (request.pid in mappers or not mappers)
        pid = request.pid if request and by_caller else min(mappers, default=0)
        moment = request.time if request else kernel_time()
        is_alone = request is not None and request.stopped and by_caller and mappers <= {pid}
        flags = 0 if is_alone else Flag.INEXACT
        found = False
        try:
            for offset, data in file.changes():
                found = True
                inode = file.status()
                emit(pieces(WireOp.DIRTY, time=moment, pid=pid, tid=_TID, flags=flags, inodes=(inode,), offset=offset,
                            length=len(data)))  # fmt: skip
                emit(pieces(WireOp.FILL, time=moment, pid=pid, tid=_TID, flags=flags, offset=offset, payload=data))
            if not found and file.times_changed():
                inode = file.status()
                emit((encode(WireOp.UTIME, time=moment, pid=pid, tid=_TID, inodes=(inode,), length=inode.mtime),))
        except OSError as error:
            self._lose(moment, pid, error.strerror, emit)
        return found

    def _add(self, request: Request, emit: Emit) -> None:
        key = request.inode.dev, request.inode.ino
        part = range(request.offset, request.offset + request.length)
        if not self._files:
            self._next = time.monotonic() + self._interval
        file = self._files.setdefault(key, _File(request, part))
        file.asked = range(min(file.asked.start, part.start), max(file.asked.stop, part.stop))
        self._kernel.control[Control.MAPPED] = len(self._files)
        # Where requests come without end (PASSES), one may overtake another: an mprotect be known before its mmap.
        if request.writable or self._widened.get(request.pid, 0) > request.time:
            self._follow(file, part, request, emit)
            if not request.stopped:
                self._look(request, emit)

    def _follow(self, file: _File, part: range, request: Request, emit: Emit) -> None:
        try:
            self._kernel.follow(file.inode)
            if not file.follow(part, self._kernel.tracked, untouched=request.stopped):
                self._lose(request.time, request.pid, f"only {LARGEST >> 20} MiB of it are followed", emit)
        except OSError as error:
            self._lose(request.time, request.pid, error.strerror, emit)

    def _lose(self, moment: int, pid: int, cause: str | None, emit: Emit) -> None:
        emit((encode(WireOp.GAP, time=moment, pid=pid, offset=1, payload=f"mapped file: {cause}".encode()),))

    def _drop(self, key: tuple[int, int]) -> None:
        """Nobody has the file mapped any more."""
        file = self._files.pop(key)
        file.close()
        self._kernel.unfollow(file.inode)
        self._kernel.control[Control.MAPPED] = len(self._files)
