"""Reading ranges that changed without a user buffer, while their writer stands still.

A `Request` (made by bpf/data.c) names a descriptor of a stopped process; this reads the range through
/proc/PID/fd and hands back FILL records. Does not stop or continue anybody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..wire import Flag, WireOp, encode, pieces
from .baseline import CONTENT_PIECE, Piece
from .kernel import Request


def fills(request: Request) -> Iterator[tuple[Piece, ...]]:
    """The pieces of each record that answers a request. What cannot be read becomes a GAP."""
    common = {"time": request.time, "pid": request.pid, "tid": request.tid}
    flags = 0 if request.stopped else int(Flag.INEXACT)
    if not request.sent:  # the ring had no room for its DIRTY record
        yield (
            encode(
                WireOp.DIRTY, **common, flags=flags, inodes=(request.inode,), offset=request.offset, length=request.length
            ),
        )
    try:
        fd = os.open(f"/proc/{request.pid}/fd/{request.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        yield (encode(WireOp.GAP, **common, offset=1, payload=f"reread: {error.strerror}".encode()),)
        return
    try:
        at, end = request.offset, request.offset + request.length
        while at < end:
            data = os.pread(fd, min(CONTENT_PIECE, end - at), at)
            if not data:
                break
            yield pieces(WireOp.FILL, **common, flags=flags, offset=at, payload=data)
            at += len(data)
    except OSError as error:
        yield (encode(WireOp.GAP, **common, offset=1, payload=f"reread: {error.strerror}".encode()),)
    finally:
        os.close(fd)
