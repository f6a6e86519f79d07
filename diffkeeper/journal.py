"""The append-only journal: what happened, as the kernel told it, in checked frames.

A journal is a directory of segments `00000001.seg`, `00000002.seg`, ... Each begins with
`SEGMENT_MAGIC` and holds frames: a 16-byte header (magic, length, the first 8 bytes of the BLAKE3
of both and the payload), then the payload, a span of records as `diffkeeper.wire` walks it.
BLAKE3 and not a CRC: it is three times as fast as zlib's here, and every byte passes through it.
This module does not look into spans. One writer, any number of readers; a torn tail (a crash in
the middle of a write) is where reading stops, and `JournalWriter` starts a new segment after it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from .errors import TraceDamagedError

SEGMENT_MAGIC = b"DKJRNL01"
SEGMENT_LIMIT = 256 << 20
FRAME = struct.Struct("<4sI8s")
FRAME_HEAD = struct.Struct("<4sI")
FRAME_MAGIC = b"DKFR"
IOV_MAX = 1024  # pieces that one writev(2) takes
FRAME_LIMIT = 64 << 20
"""Longest payload a reader accepts, and so the most it allocates for one frame."""


class Cursor(NamedTuple):
    """A place between two frames: segment number and byte offset in it."""

    segment: int = 1
    offset: int = len(SEGMENT_MAGIC)


def _check(*pieces: bytes | memoryview) -> bytes:
    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return digest.digest(8)


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.seg"


def segments(directory: Path) -> list[int]:
    """Numbers of the segments that are there, in order."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdigit())


class JournalWriter:
    """Appends spans. Not thread-safe. `bytes_written` counts payload bytes."""

    def __init__(self, directory: Path, owner: tuple[int, int] | None = None) -> None:
        """`owner`: uid and gid that the directory and every segment are given to."""
        directory.mkdir(mode=0o700, exist_ok=True)
        self._owner = owner
        if owner:
            os.chown(directory, *owner)
        self._directory = directory
        self._number = max(segments(directory), default=0)
        self._fd = -1
        self._size = 0
        self.bytes_written = 0
        self.rotate()

    def rotate(self) -> None:
        """Go on in a new segment; an indexer may delete the ones before it."""
        if self._fd >= 0:
            os.close(self._fd)
        self._number += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(segment_path(self._directory, self._number), flags, 0o600)
        if self._owner:
            os.fchown(self._fd, *self._owner)
        os.write(self._fd, SEGMENT_MAGIC)
        self._size = len(SEGMENT_MAGIC)

    def append(self, *pieces: bytes | memoryview) -> None:
        """Write the pieces as one frame, whole.

        OSError (disk full) leaves a tail that readers cut off. ValueError over FRAME_LIMIT.
        """
        length = sum(map(len, pieces))
        if length > FRAME_LIMIT:
            raise ValueError(f"a frame of {length} bytes is longer than readers accept: split it")
        head = FRAME_HEAD.pack(FRAME_MAGIC, length)
        left = [memoryview(head + _check(head, *pieces)), *(memoryview(piece) for piece in pieces)]
        while left:
            done = os.writev(self._fd, left[:IOV_MAX])
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if left:
                left[0] = left[0][done:]
        self._size += FRAME.size + length
        self.bytes_written += length
        if self._size >= SEGMENT_LIMIT:
            self.rotate()

    def cut(self) -> None:
        """After a failed append: drop the half-written frame, so that more can follow."""
        os.ftruncate(self._fd, self._size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JournalReader:
    """Reads frames from a cursor on; call `frames()` again to go on where the last call stopped."""

    def __init__(self, directory: Path, cursor: Cursor = Cursor()) -> None:
        self._directory = directory
        self.cursor = cursor
        self.torn = 0  # bytes passed over at torn tails

    def frames(self) -> Iterator[tuple[bytes, Cursor]]:
        """Each whole frame's payload, and the cursor after it. Ends at the end or at a torn tail.

        A torn tail in the last segment may still be growing; in an earlier one it is passed over
        and counted in `torn`.
        """
        while True:
            numbers = [n for n in segments(self._directory) if n >= self.cursor.segment]
            if not numbers:
                return
            if numbers[0] != self.cursor.segment:
                self.cursor = Cursor(numbers[0])
            yield from self._segment()
            later = [n for n in segments(self._directory) if n > self.cursor.segment]
            if not later:
                return
            size = segment_path(self._directory, self.cursor.segment).stat().st_size
            yield from self._segment()  # what was written between our last read and the new segment
            self.torn += max(0, size - self.cursor.offset)
            self.cursor = Cursor(later[0])

    def _segment(self) -> Iterator[tuple[bytes, Cursor]]:
        path = segment_path(self._directory, self.cursor.segment)
        try:
            file = open(path, "rb", buffering=0)
        except FileNotFoundError:
            return
        with file:
            if self.cursor.offset <= len(SEGMENT_MAGIC):
                magic = file.read(len(SEGMENT_MAGIC))
                if len(magic) < len(SEGMENT_MAGIC):
                    return
                if magic != SEGMENT_MAGIC:
                    raise TraceDamagedError(f"damaged journal: {path} does not begin as a segment does")
            file.seek(self.cursor.offset)
            while True:
                header = file.read(FRAME.size)
                if len(header) < FRAME.size:
                    return
                magic, length, check = FRAME.unpack(header)
                if magic != FRAME_MAGIC or length > FRAME_LIMIT:
                    return
                payload = file.read(length)
                if len(payload) < length or _check(header[: FRAME_HEAD.size], payload) != check:
                    return
                self.cursor = Cursor(self.cursor.segment, self.cursor.offset + FRAME.size + length)
                yield payload, self.cursor
