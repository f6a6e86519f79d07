"""Reading ranges that changed without a user buffer, while their writer stands still.

A `Request` (made by bpf/data.c) names a descriptor of a stopped process; this reads the range through
/proc/PID/fd and hands back FILL records. Does not stop or continue anybody.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ..wire import Flag, WireOp, encode, pieces
from .baseline import CONTENT_PIECE, Piece
from .kernel import Request


def fills(request: Request) -> Iterator[tuple[Piece, ...]]:
    """The pieces of each record that answers a request. What cannot be read becomes a GAP."""
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
        fd = open_file(request)
    except OSError as error:
        yield gap(error)
        return
    try:
        at, end = request.offset, request.offset + request.length
        while at < end:
            data = os.pread(fd, min(CONTENT_PIECE, end - at), at)
            if not data:
                break
            yield pieces(
                WireOp.FILL, time=request.time, pid=request.pid, tid=request.tid, flags=flags, offset=at, payload=data
            )
            at += len(data)
    except OSError as error:
        yield gap(error)
    finally:
        os.close(fd)


def open_file(request: Request) -> int:
    """The file, through the writer's descriptor; by its path where that is gone or another file's by now."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    link = f"/proc/{request.pid}/fd/{request.fd}"
    try:
        if os.fsencode(os.readlink(link)) == request.path or os.stat(link).st_ino == request.inode.ino:
            return os.open(link, flags)
    except (FileNotFoundError, ProcessLookupError):
        if not request.path:
            raise
    fd = os.open(request.path, flags | os.O_NOFOLLOW)
    if os.fstat(fd).st_ino != request.inode.ino:
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "the file was replaced meanwhile")
    return fd
