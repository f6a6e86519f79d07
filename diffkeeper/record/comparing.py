"""One path after the command: is what stands there what the trace says of its end?

Reads both, and changes neither. What a file holds is told by a digest, where the trace has one of all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from ..model import Attrs
from ..store.reader import Reader
from . import baseline

_MODE_MATTERS = 0o7777 | 0o170000
_LARGE = 16 << 20  # from here on holes are worth looking for


def same(
    reader: Reader, path: bytes, status: os.stat_result, node: int, recorded: Attrs, *, bytes_too: bool
) -> bool:
    """Whether what stands at a path is what a node is at the end. `bytes_too`: not only the size of what a file holds.

    Raises OSError where that cannot be said.
    """
    if (status.st_mode ^ recorded.mode) & _MODE_MATTERS:
        return False
    if (status.st_uid, status.st_gid, status.st_mtime_ns) != (recorded.uid, recorded.gid, recorded.mtime):
        return False
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path) == recorded.target
    if _compared(baseline.xattrs_of(path)) != _compared(recorded.xattrs):
        return False
    if not stat.S_ISREG(status.st_mode):
        return True
    if status.st_size != recorded.size:
        return False
    if not bytes_too:
        return True
    large = status.st_size > _LARGE
    return _same_data(reader, path, node, status.st_size) if large else _same_bytes(reader, path, node, status.st_size)


def _same_data(reader: Reader, path: bytes, node: int, size: int) -> bool:
    """Where either has data: a file may be terabytes long and hold a few bytes."""
    with open(path, "rb", buffering=0) as real:
        spans = sorted([*baseline.data_ranges(real.fileno(), size), *reader.extents(node, reader.last_seq)])
        done = 0
        for start, length in spans:
            for offset in range(max(start, done), start + length, baseline.CONTENT_PIECE):
                done = min(offset + baseline.CONTENT_PIECE, start + length)
                recorded = reader.read(node, reader.last_seq, offset, done - offset)
                if os.pread(real.fileno(), done - offset, offset) != recorded:
                    return False
    return True


def _same_bytes(reader: Reader, path: bytes, node: int, size: int) -> bool:
    real = os.open(path, baseline.OPEN)
    try:
        if reader.holds(node, reader.last_seq, os.read(real, size + 1)):
            return True
        offset = 0
        for recorded in reader.chunks(node, reader.last_seq, baseline.CONTENT_PIECE):
            if os.pread(real, len(recorded), offset) != recorded:
                return False
            offset += len(recorded)
        return not os.pread(real, 1, offset)
    finally:
        os.close(real)


def _compared(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What programs set; a security module labels files by itself."""
    return {name: value for name, value in xattrs.items() if name.startswith((b"user.", b"system.posix_acl_"))}
