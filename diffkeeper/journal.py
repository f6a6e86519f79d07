"""The append-only journal: what happened, as the kernel told it, in checked frames.

A journal is a directory of segments `00000001.seg`, `00000002.seg`, ... Each begins with
`SEGMENT_MAGIC` and holds frames: a 16-byte header (magic, length, the XXH3 of both and the payload),
then the payload, a span of records as `diffkeeper.wire` walks it. This module does not look into
spans. One writer, any number of readers. The writer holds a shared flock on the segment it writes,
so that whoever finds a torn tail (a crash in the middle of a write) can tell whether it may still
grow. What cannot be read is passed over and counted, never guessed at.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from xxhash import xxh3_64

from .errors import TraceDamagedError

SEGMENT_MAGIC = b"DKJRNL02"
JOURNAL = "journal"
"""The directory in a trace that holds the segments."""
SEGMENT_LIMIT = 256 << 20
FRAME = struct.Struct("<4sI8s")
FRAME_HEAD = struct.Struct("<4sI")
FRAME_MAGIC = b"DKFR"
IOV_MAX = 1024  # pieces that one writev(2) takes
SMALL = 4096  # bytes: pieces that are shorter, on average, are copied into one faster than handled each
FRAME_LIMIT = 64 << 20
"""Longest payload a reader accepts, and so the most it allocates for one frame."""


class Cursor(NamedTuple):
    """A place between two frames: segment number and byte offset in it."""

    segment: int = 1
    offset: int = len(SEGMENT_MAGIC)


def _check(*pieces: bytes | memoryview) -> bytes:
    digest = xxh3_64()  # against damage, not against forgery: nothing faster tells it
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.seg"


def segments(directory: Path) -> list[int]:
    """Numbers of the segments that are there, in order."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdigit())


def is_written(directory: Path, *, unknown: bool = True) -> bool:
    """Whether a writer is at work on the last segment; `unknown` where that cannot be known."""
    try:
        numbers = segments(directory)
        if not numbers:
            return False
        with open(_open_segment(segment_path(directory, numbers[-1])), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return unknown
    return False


def _open_segment(path: Path) -> int:
    """A stranger's segment may be anything: links are not followed, pipes not waited for."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


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
        """Go on in a new segment; indexers may delete those before it. OSError (disk full): nothing has changed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        path = segment_path(self._directory, self._number + 1)
        fd = os.open(path, flags, 0o600)
        try:
            if self._owner:
                os.fchown(fd, *self._owner)
            with suppress(OSError):  # a filesystem without locks: then nobody can tell that we are at work
                fcntl.flock(fd, fcntl.LOCK_SH)
            os.write(fd, SEGMENT_MAGIC)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        self.close()
        self._fd, self._number, self._size = fd, self._number + 1, len(SEGMENT_MAGIC)

    def append(self, *pieces: bytes | memoryview) -> None:
        """Write the pieces as one frame, whole.

        OSError (disk full): nothing of it stays, so that more can follow. ValueError over FRAME_LIMIT.
        """
        length = sum(map(len, pieces))
        if length > FRAME_LIMIT:
            raise ValueError(f"a frame of {length} bytes is longer than readers accept: split it")
        if self._size >= SEGMENT_LIMIT:
            self.rotate()
        if length < len(pieces) * SMALL:
            pieces = (b"".join(pieces),)
        head = FRAME_HEAD.pack(FRAME_MAGIC, length)
        left = [memoryview(head + _check(head, *pieces)), *(memoryview(piece) for piece in pieces)]
        try:
            self._write(left)
        except OSError:
            with suppress(OSError):
                self.cut()
            raise
        self._size += FRAME.size + length
        self.bytes_written += length

    def _write(self, left: list[memoryview]) -> None:
        at = 0
        while at < len(left):
            done = os.writev(self._fd, left[at : at + IOV_MAX])
            while at < len(left) and done >= len(left[at]):
                done -= len(left[at])
                at += 1
            if done:
                left[at] = left[at][done:]

    def cut(self) -> None:
        """Drop a half-written frame."""
        os.ftruncate(self._fd, self._size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JournalReader:
    """Reads frames from a cursor on; call `frames()` again to go on where the last call stopped.

    `torn`: bytes passed over so far, because they are damaged or because the rest of a frame never
    came; `missing`: segments that are not there. Both only grow.
    """

    def __init__(self, directory: Path, cursor: Cursor = Cursor()) -> None:
        self._directory = directory
        self.cursor = cursor
        self.torn = self.missing = 0

    def frames(self) -> Iterator[tuple[bytes, Cursor]]:
        """Each whole frame's payload, and the cursor after it. Ends at the end or at a torn tail.

        A torn tail in the last segment may still be growing (but see `pass_over`); in an earlier one it
        is passed over, as is a damaged frame that a sound one follows.
        """
        while True:
            numbers = [n for n in segments(self._directory) if n >= self.cursor.segment]
            if not numbers:
                return
            if numbers[0] != self.cursor.segment:
                self.missing += numbers[0] - self.cursor.segment
                self.cursor = Cursor(numbers[0])
            yield from self._segment()
            later = [n for n in segments(self._directory) if n > self.cursor.segment]
            if not later:
                return
            yield from self._segment()  # what was written between our last read and the new segment
            self._skip_rest(later[0])

    def pass_over(self) -> None:
        """Nobody writes any more: what is left of the last segment will never be a frame."""
        if self.cursor.segment in segments(self._directory):
            self._skip_rest(self.cursor.segment + 1)

    def rest(self) -> int:
        """Bytes after the cursor in its segment."""
        try:
            size = segment_path(self._directory, self.cursor.segment).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        return max(0, size - self.cursor.offset)

    def _skip_rest(self, following: int) -> None:
        rest = self.rest()
        self.torn += rest
        if rest or following in segments(self._directory):
            self.missing += following - self.cursor.segment - 1
            self.cursor = Cursor(following)

    def _segment(self) -> Iterator[tuple[bytes, Cursor]]:
        path = segment_path(self._directory, self.cursor.segment)
        try:
            descriptor = _open_segment(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return
            raise TraceDamagedError(f"damaged trace: {path}: {error.strerror}") from error
        with open(descriptor, "rb", buffering=0) as file:
            if file.read(len(SEGMENT_MAGIC)) != SEGMENT_MAGIC:
                return
            while True:
                number, start = self.cursor
                end, payload = _frame_at(file, start)
                if payload is None and (not end or _frame_at(file, end)[1] is None):
                    return
                self.cursor = Cursor(number, end)
                if payload is None:
                    self.torn += end - start
                else:
                    yield payload, self.cursor


def _frame_at(file: IO[bytes], offset: int) -> tuple[int, bytes | None]:
    """Where the frame at an offset ends (0: there is none, or not all of it), and its payload if it is sound."""
    file.seek(offset)
    header = file.read(FRAME.size)
    if len(header) < FRAME.size:
        return 0, None
    magic, length, check = FRAME.unpack(header)
    if magic != FRAME_MAGIC or length > FRAME_LIMIT:
        return 0, None
    payload = file.read(length)
    if len(payload) < length:
        return 0, None
    sound = _check(header[: FRAME_HEAD.size], payload) == check
    return offset + FRAME.size + length, payload if sound else None
