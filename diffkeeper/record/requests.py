"""What the kernel half asks user space to look at: struct dk_request of bpf/maps.h.

Owns its meaning and its bytes. Who takes requests from the kernel is `kernel`, who answers them is `pump`.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from ..wire import INODE, Inode, kernel_path

_TAIL = struct.Struct("<QQQQIIiIIIIII4x")


class Ask(enum.IntEnum):
    """enum dk_request_kind of bpf/maps.h."""

    RANGE, MAP, WIDEN, SYNC, JUDGE, MOUNTS = range(6)


class Request(NamedTuple):
    """struct dk_request: something that user space is to look at while the caller stands still."""

    inode: Inode  # of RANGE and MAP
    time: int
    offset: int
    length: int
    position: int  # of the ring; records before it are older
    pid: int
    tid: int
    fd: int
    kind: Ask
    stopped: bool
    sent: bool  # RANGE: its DIRTY record is in the ring
    writable: bool  # MAP: from the beginning
    path: bytes  # of the file; empty: longer than a request holds, or nowhere to be seen
    apart: bool  # by way of a mount that the recorder does not have: the path begins at the root of its filesystem


def decode(raw: bytes) -> Request:
    """A request from the bytes of the kernel's."""
    (time, offset, length, position, pid, tid, fd, kind, stopped, sent, writable, size, apart) = _TAIL.unpack_from(
        raw, INODE.size
    )
    names = raw[INODE.size + _TAIL.size :][:size]
    return Request(
        Inode(*INODE.unpack_from(raw)), time, offset, length, position, pid, tid, fd, Ask(kind), bool(stopped),
        bool(sent), bool(writable), kernel_path(names) if size else b"", bool(apart),
    )  # fmt: skip
