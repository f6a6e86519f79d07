"""The bytes of a real file that are not holes, piece by piece, and digests of bytes.

Knows nothing of records: what the bytes are read for is the business of who asks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from blake3 import blake3

CONTENT_PIECE = 1 << 20
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def data_ranges(fd: int, size: int, at: int = 0) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not a hole, from `at` to `size`.

    Small holes are read: ext4 (Linux 6.18) was seen to tell of some where bytes were, not yet written back.
    """
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
