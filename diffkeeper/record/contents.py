"""The bytes of a real file that are not holes, piece by piece, and digests of bytes.

Knows nothing of records: what the bytes are read for is the business of who asks.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from blake3 import blake3

CONTENT_PIECE = 1 << 20
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GETFLAGS, _EXTENTS, _EXT4 = 0x80086601, 0x80000, 0xEF53  # <linux/fs.h>, <linux/magic.h>
_STATFS = 256  # bytes, more than struct statfs has
_libc = ctypes.CDLL(None)


def data_ranges(fd: int, size: int, at: int = 0) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not a hole, from `at` to `size`.

    Small holes are read, and bytes that ext4 does not tell of are written back first.
    """
    with suppress(OSError):
        if _is_told_late(fd):
            os.fsync(fd)
    while at < size:
        try:
            start = min(os.lseek(fd, at, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # somebody has just cut the file
                return
            start = size
        if start - at <= CONTENT_PIECE and not _is_zero(os.pread(fd, start - at, at)):
            yield at, start - at
        if start == size:
            return
        try:
            at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError:
            return
        if at > start:
            yield start, at - start


def _is_told_late(fd: int) -> bool:
    """Whether bytes that are not on the disk yet may be told of as a hole: ext4, of a file without extents.

    Seen with Linux 6.18; `chattr -e` makes such a file. OSError.
    """
    if int.from_bytes(fcntl.ioctl(fd, _GETFLAGS, bytes(8))[:4], sys.byteorder) & _EXTENTS:
        return False
    found = ctypes.create_string_buffer(_STATFS)
    return not _libc.fstatfs(fd, found) and int.from_bytes(found.raw[:8], sys.byteorder) == _EXT4


def _is_zero(data: bytes) -> bool:
    return data.count(0) == len(data)


def contents(path: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of a regular file's data. OSError when it cannot be read."""
    fd = os.open(path, OPEN)
    try:
        if size <= CONTENT_PIECE:
            if data := os.pread(fd, size, 0):
                yield 0, data
            return
        for start, length in data_ranges(fd, size):
            for offset in range(start, start + length, CONTENT_PIECE):
                data = os.pread(fd, min(CONTENT_PIECE, start + length - offset), offset)
                if not data:
                    return
                yield offset, data
    finally:
        os.close(fd)


def hashed(data: bytes | memoryview) -> bytes:
    """32 bytes."""
    return blake3(data).digest()
