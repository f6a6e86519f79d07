"""One path after the command: is what stands there what the trace says of its end?

Reads both, and changes neither. What a file holds is told by a digest, where the trace has one of all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from ..model import Attrs
from ..store.reader import Reader
from ..wire import Wrong, instant
from .baseline import xattrs_of
from .contents import CONTENT_PIECE, OPEN, data_ranges

_KIND, _MODE = 0o170000, 0o7777
_LARGE = 16 << 20  # from here on holes are worth looking for


def wrong(
    reader: Reader, path: bytes, status: os.stat_result, node: int, recorded: Attrs, *, bytes_too: bool
) -> Wrong:
    """In what a node at the end is not what stands at a path. `bytes_too`: look at what files hold also where all else
    is as recorded.

    Raises OSError where that cannot be said.
    """
    if (status.st_mode ^ recorded.mode) & _KIND:
        return Wrong.KIND
    found = Wrong(0)
    if (status.st_mode ^ recorded.mode) & _MODE:
        found |= Wrong.MODE
    if (status.st_uid, status.st_gid) != (recorded.uid, recorded.gid):
        found |= Wrong.OWNER
    if instant(status.st_mtime_ns) != recorded.mtime:
        found |= Wrong.TIMES
    if stat.S_ISLNK(status.st_mode):
        return found | Wrong.TARGET if os.readlink(path) != recorded.target else found
    if _compared(xattrs_of(path)) != _compared(recorded.xattrs):
        found |= Wrong.XATTRS
    if stat.S_ISREG(status.st_mode) and (
        status.st_size != recorded.size or ((bytes_too or found) and not _holds(reader, path, node, status.st_size))
    ):
        found |= Wrong.CONTENT
    return found


def _holds(reader: Reader, path: bytes, node: int, size: int) -> bool:
    """Whether a file has the bytes that a node has at the end. `size`: of both."""
    return _same_data(reader, path, node, size) if size > _LARGE else _same_bytes(reader, path, node, size)


def _same_data(reader: Reader, path: bytes, node: int, size: int) -> bool:
    """Where either has data: a file may be terabytes long and hold a few bytes."""
    with open(path, "rb", buffering=0) as real:
        spans = sorted([*data_ranges(real.fileno(), size), *reader.extents(node, reader.last_seq)])
        done = 0
        for start, length in spans:
            for offset in range(max(start, done), start + length, CONTENT_PIECE):
                done = min(offset + CONTENT_PIECE, start + length)
                recorded = reader.read(node, reader.last_seq, offset, done - offset)
                if os.pread(real.fileno(), done - offset, offset) != recorded:
                    return False
    return True


def _same_bytes(reader: Reader, path: bytes, node: int, size: int) -> bool:
    real = os.open(path, OPEN)
    try:
        if reader.holds(node, reader.last_seq, os.read(real, size + 1)):
            return True
        offset = 0
        for recorded in reader.chunks(node, reader.last_seq, CONTENT_PIECE):
            if os.pread(real, len(recorded), offset) != recorded:
                return False
            offset += len(recorded)
        return not os.pread(real, 1, offset)
    finally:
        os.close(real)


def _compared(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What programs set; a security module labels files by itself."""
    return {name: value for name, value in xattrs.items() if name.startswith((b"user.", b"system.posix_acl_"))}
