"""Records of bpf/event.h to Python and back.

Owns the byte layout on the Python side: `Record`, `records()` to walk a span, `encode()` to make
one. A span is what the kernel's ring buffer holds: for each record an 8-byte header (u32 length
with two flag bits, u32 unused), the record, padding to 8. This module does no I/O and knows
nothing of trees. Hostile input raises `TraceDamagedError` and nothing else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from .errors import TraceDamagedError

WIRE_VERSION = 1
EVENT = struct.Struct("<QIIHBBIQQ")
LATEST = (1 << 63) - 1  # ns
INODE = struct.Struct("<QIIQqqQIIIIII")
RING_HEADER = struct.Struct("<II")
RING_BUSY = 1 << 31
RING_DISCARD = 1 << 30
CALLER = 0xFFFFFFFF  # DK_CALLER
TIME_NOW, TIME_OMIT = -1, -2


class WireOp(enum.IntEnum):
    """enum dk_op of bpf/event.h (a test compares the two)."""

    BIND = 1
    WRITE = 2
    OPEN = 3
    TRUNCATE = 4
    CHMOD = 5
    CHOWN = 6
    UTIME = 7
    MKDIR = 8
    MKNOD = 9
    SYMLINK = 10
    LINK = 11
    RENAME = 12
    UNLINK = 13
    RMDIR = 14
    SETXATTR = 15
    REMOVEXATTR = 16
    FORK = 17
    EXEC = 18
    EXIT = 19
    MARK = 20
    DIRTY = 21
    ZERO = 22
    FLAGS = 23
    CHROOT = 24
    BEGIN = 32
    END = 33
    SNAPSHOT = 34
    CONTENT = 35
    FILL = 36
    GAP = 37
    HEAL = 38
    SETTLE = 39
    SAME = 40
    MOUNTS = 41


class Flag(enum.IntEnum):
    """enum dk_flag of bpf/event.h. Flags of a record are a plain int: the operators of IntFlag are slow Python."""

    PATH = 1
    CONT = 2
    CREATED = 4
    TRUNC = 8
    GONE = 16
    NOFOLLOW = 32
    LINK = 64
    APART = 64
    INEXACT = 128


class Wrong(enum.IntFlag):
    """enum dk_wrong of bpf/event.h: in what the recorded tree was not the real one, `length` of a HEAL."""

    NAME = 1
    KIND = 2
    MODE = 4
    OWNER = 8
    TIMES = 16
    TARGET = 32
    XATTRS = 64
    CONTENT = 128
    OTHERS = 256

    @property
    def labels(self) -> tuple[str, ...]:
        """The words for those that are set; by whom is not one of them."""
        return tuple(each.name.lower() for each in Wrong if each in self and each.name and each != Wrong.OTHERS)


class Inode(NamedTuple):
    """struct dk_inode. `identity` is (dev, ino, gen) as the kernel has them."""

    ino: int
    dev: int
    gen: int
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    parent: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    rdev: int = 0
    tag: int = 0

    @property
    def identity(self) -> tuple[int, int, int]:
        return self.dev, self.ino, self.gen


class Record(NamedTuple):
    """struct dk_event with its inodes and payload. `payload` may be a view into the span."""

    time: int
    pid: int
    tid: int
    op: int
    flags: int
    inodes: tuple[Inode, ...]
    offset: int
    length: int
    payload: memoryview | bytes

    def caller(self) -> Inode | None:
        """What inodes get from the caller, where that is told."""
        for inode in self.inodes:
            if inode.dev == CALLER and not inode.ino:
                return inode
        return None


def encode(
    op: WireOp,
    *,
    time: int = 0,
    pid: int = 0,
    tid: int | None = None,
    flags: int = 0,
    inodes: tuple[Inode, ...] = (),
    offset: int = 0,
    length: int = 0,
    payload: bytes | memoryview = b"",
) -> bytes:
    """One record with its ring header and padding, ready to stand in a span."""
    return b"".join(
        pieces(
            op, time=time, pid=pid, tid=tid, flags=flags, inodes=inodes, offset=offset, length=length, payload=payload
        )
    )


def pieces(
    op: WireOp,
    *,
    time: int = 0,
    pid: int = 0,
    tid: int | None = None,
    flags: int = 0,
    inodes: tuple[Inode, ...] = (),
    offset: int = 0,
    length: int = 0,
    payload: bytes | memoryview = b"",
) -> tuple[bytes, bytes | memoryview, bytes]:
    """What `encode` gives, in three parts, so that a large payload need not be copied."""
    body = EVENT.pack(
        time, pid, pid if tid is None else tid, op, flags, len(inodes), len(payload),
        offset & 0xFFFFFFFFFFFFFFFF, length & 0xFFFFFFFFFFFFFFFF,
    )  # fmt: skip
    stamps = b"".join(INODE.pack(*inode) for inode in inodes)
    size = len(body) + len(stamps) + len(payload)
    return b"".join((RING_HEADER.pack(size, 0), body, stamps)), payload, bytes(-size % 8)


def records(span: bytes | memoryview) -> Iterator[Record]:
    """The records of a span, in order. Discarded ring entries are passed over.

    Raises TraceDamagedError where a length does not fit.
    """
    view = memoryview(span)
    at, end = 0, len(view)
    while at < end:
        if at + 8 > end:
            raise TraceDamagedError("damaged journal: a record header is cut off")
        size = RING_HEADER.unpack_from(view, at)[0]
        discarded, size = size & RING_DISCARD, size & 0x3FFFFFFF
        start, at = at + 8, at + 8 + (size + 7 & ~7)
        if at > end:
            raise TraceDamagedError("damaged journal: a record is longer than its frame")
        if discarded:
            continue
        yield decode(view, start, size)


def decode(view: memoryview, start: int, size: int) -> Record:
    """The record in `size` bytes at `start` of a span. Raises TraceDamagedError."""
    if size < EVENT.size or start + size > len(view):
        raise TraceDamagedError("damaged journal: a record is shorter than its header")
    return record_of(view, start, size, *EVENT.unpack_from(view, start))


def record_of(
    view: memoryview, start: int, size: int, time: int, pid: int, tid: int, op: int, flags: int, count: int,
    payload: int, offset: int, length: int,
) -> Record:  # fmt: skip
    """The same, of whose header these are the fields."""
    body = start + EVENT.size
    data = body + count * INODE.size
    if data + payload > start + size:
        raise TraceDamagedError("damaged journal: a payload is longer than its record")
    inodes = tuple(map(Inode._make, INODE.iter_unpack(view[body:data]))) if count else ()
    return Record(time, pid, tid, op, flags, inodes, offset, length, view[data : data + payload])


def instant(time: int) -> int:
    """A time of an inode, in ns, as a record can tell it: in 64 bits, from 1677 to 2262. Filesystems know others."""
    return min(max(time, -LATEST), LATEST)


def name_tag(name: bytes) -> int:
    """A name in 32 bits, as bpf/stamps.h makes it: its length and its last three bytes."""
    return int.from_bytes(name[-3:], "little") << 8 | len(name) & 255


def kernel_path(payload: bytes | memoryview) -> bytes:
    """The absolute path that a BIND's leaf-first list of names spells."""
    names = bytes(payload).split(b"\0")[:-1]
    return b"/" + b"/".join(reversed(names))


def strings(payload: bytes | memoryview, count: int) -> list[bytes]:
    """The first `count` NUL-closed strings of a payload, then the rest as it is."""
    parts = bytes(payload).split(b"\0", count)
    if len(parts) <= count:
        raise TraceDamagedError("damaged journal: a path is not closed")
    return parts
