"""Reading ranges that changed without a user buffer, while their writer stands still.

A `Request` (made by bpf/data.c) names a descriptor of a stopped process; this reads the range through
/proc/PID/fd and hands back FILL records. Does not stop or continue anybody.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from ..wire import Flag, WireOp, encode, pieces
from .baseline import Piece
from .contents import CONTENT_PIECE, data_ranges
from .requests import Request


def fills(request: Request, others: Callable[[], Iterable[int]]) -> Iterator[tuple[Piece, ...]]:
    """The pieces of each record that answers a request. What cannot be read becomes a GAP.

    `others`: processes that may have the file open, too.
    """
    flags = 0 if request.stopped and request.fd >= 0 else int(Flag.INEXACT)

    def gap(error: OSError) -> tuple[Piece, ...]:
        cause = f"reread: {error.strerror}".encode()
        return (encode(WireOp.GAP, time=request.time, pid=request.pid, tid=request.tid, offset=1, payload=cause),)

    if not request.sent:  # the ring had no room for its DIRTY record
        yield pieces(
            WireOp.DIRTY, time=request.time, pid=request.pid, tid=request.tid, flags=flags,
            inodes=(request.inode,), offset=request.offset, length=request.length,
        )  # fmt: skip
    try:
        fd = open_file(request, others)
    except OSError as error:
        yield gap(error)
        return
    try:
        yield from _read(request, fd, flags)
    except OSError as error:
        yield gap(error)
    finally:
        os.close(fd)


def _read(request: Request, fd: int, flags: int) -> Iterator[tuple[Piece, ...]]:
    """The range, its holes told as such: a file of terabytes may hold little."""

    def fill(at: int, length: int, data: bytes = b"") -> tuple[Piece, ...]:
        return pieces(
            WireOp.FILL, time=request.time, pid=request.pid, tid=request.tid, flags=flags, offset=at, length=length,
            payload=data,
        )  # fmt: skip

    at, end = request.offset, min(request.offset + request.length, os.fstat(fd).st_size)
    for start, length in data_ranges(fd, end, at):
        if start > at:
            yield fill(at, start - at)
        at = start
        while at < start + length:
            data = os.pread(fd, min(CONTENT_PIECE, start + length - at), at)
            if not data:
                return
            yield fill(at, len(data), data)
            at += len(data)
    if at < end:
        yield fill(at, end - at)


def open_file(request: Request, others: Callable[[], Iterable[int]]) -> int:
    """The file, through the writer's descriptor; by its path where that is gone or another file's by now.

    Where it has no name any more, through whoever of the processes `others()` has it open or mapped.
    OSError when there is no way.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    link = f"/proc/{request.tid}/fd/{request.fd}"  # a thread may have a table of its own
    with suppress(OSError):
        if os.fsencode(os.readlink(link)) == request.path or os.stat(link).st_ino == request.inode.ino:
            return os.open(link, flags)
    # As the writer sees it first: it may have mounts of its own.
    for path in (b"/proc/%d/root%s" % (request.pid, request.path), request.path) if request.path else ():
        with suppress(OSError):
            fd = os.open(path, flags | os.O_NOFOLLOW)
            if os.fstat(fd).st_ino == request.inode.ino:
                return fd
            os.close(fd)
    names = {request.path, request.path + b" (deleted)"}
    for entry in _handles(dict.fromkeys((request.tid, request.pid, *others()))):
        with suppress(OSError):
            if request.apart or not request.path or _name(entry) in names:  # its name is by its own mounts
                fd = os.open(entry, flags)
                if os.fstat(fd).st_ino == request.inode.ino:
                    return fd
                os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "the file is gone")


def _name(link: str) -> bytes:
    """Where a link in /proc leads; nothing where that is longer than any path can be."""
    try:
        return os.fsencode(os.readlink(link))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return b""


def _handles(pids: Iterable[int]) -> Iterator[str]:
    """Links to all that processes have open or mapped."""
    for pid in pids:
        for directory in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
            with suppress(OSError):
                yield from (f"{directory}/{name}" for name in os.listdir(directory))
