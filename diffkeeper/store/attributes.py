"""Calls that change attributes: what each does to a node at the cursor.

Owns CHMOD, CHOWN, UTIME, FLAGS and the xattr calls. Which node a record means, and what its stamps say, is in
`targets`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from ..model import Op
from ..wire import TIME_NOW, TIME_OMIT, Flag, Inode, Record, WireOp, strings
from . import acl
from .blocks import NONE
from .data import CAPABILITY
from .nodes import Nodes
from .state import NodeState
from .targets import Targets, first_inode, first_string
from .timeline import Timeline
from .writer import ContentWriter

_FLAGS = {
    0x1: "s", 0x2: "u", 0x4: "c", 0x8: "S", 0x10: "i", 0x20: "a", 0x40: "d", 0x80: "A", 0x800: "E", 0x1000: "I",
    0x4000: "j", 0x8000: "t", 0x10000: "D", 0x20000: "T", 0x80000: "e", 0x100000: "V", 0x800000: "C",
    0x2000000: "x", 0x20000000: "P", 0x40000000: "F",
}  # fmt: skip
"""FS_*_FL of include/uapi/linux/fs.h, as chattr(1) and lsattr(1) spell them."""
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_UNCHANGED = 0xFFFFFFFF  # of an owner


class Attributes:
    """Applies one record at a time; `apply` maps an op to what does it. `is_idle`: whether a call left a file alone."""

    def __init__(
        self, targets: Targets, timeline: Timeline, nodes: Nodes, writer: ContentWriter,
        is_idle: Callable[[NodeState, bytes, Inode], bool],
    ) -> None:  # fmt: skip
        self._targets, self._timeline, self._nodes, self._writer = targets, timeline, nodes, writer
        self._is_idle = is_idle
        self.apply: dict[int, Callable[[Record], None]] = {
            WireOp.CHMOD: self._chmod,
            WireOp.CHOWN: self._chown,
            WireOp.UTIME: self._utime,
            WireOp.FLAGS: self._flags,
            WireOp.SETXATTR: self._xattr,
            WireOp.REMOVEXATTR: self._xattr,
        }

    def _chmod(self, record: Record) -> None:
        if found := self._targets.target(record, first_string(record.payload)):
            found[0].mode = stat.S_IFMT(found[0].mode) | record.offset & 0o7777
            self._changed(record, Op.CHMOD, *found, detail=b"%04o" % (record.offset & 0o7777))
            self._follow(found[0])

    def _follow(self, state: NodeState) -> None:
        """An access ACL says what the mode says."""
        if acl.ACCESS in state.xattrs:
            state.set_xattr(acl.ACCESS, acl.with_mode(state.xattrs[acl.ACCESS], state.mode))
            self._nodes.put_attrs(state, state.changed)

    def _chown(self, record: Record) -> None:
        if found := self._targets.target(record, first_string(record.payload)):
            state, uid, gid = found[0], record.offset & _UNCHANGED, record.length & _UNCHANGED
            state.uid = state.uid if uid == _UNCHANGED else uid
            state.gid = state.gid if gid == _UNCHANGED else gid
            if state.is_file:
                state.mode &= ~_SET_IDS
            if not state.is_dir:
                state.drop_xattr(CAPABILITY)
            self._changed(record, Op.CHOWN, *found, detail=b"%d:%d" % (state.uid, state.gid))

    def _utime(self, record: Record) -> None:
        if found := self._targets.target(record, first_string(record.payload)):
            if record.flags & Flag.TRUNC and not self._is_idle(*found, first_inode(record)):
                found[0].drop_xattr(CAPABILITY)  # a write that fails, or a fallocate, has taken it away
            if record.flags & Flag.TRUNC and found[0].is_file and found[0].size != record.offset:
                self._resized(record, *found)
                return
            time = record.length - (1 << 64) if record.length >> 63 else record.length
            if time != TIME_OMIT:
                found[0].mtime = self._timeline.wall if time == TIME_NOW else time
            self._changed(record, Op.UTIME, *found)

    def _resized(self, record: Record, state: NodeState, path: bytes) -> None:
        """A call that failed, or that only made room, left another size."""
        seq = self._timeline.event(
            record, Op.TRUNCATE, path, node=state.node, size=record.offset, outside=state.outside, offset=NONE
        )
        self._targets.take_inode(state, record.inodes[0])
        self._nodes.put_attrs(state, seq)
        self._writer.cut(state, seq, record.offset)

    def _flags(self, record: Record) -> None:
        """Told, not kept: no moment and no export has them."""
        if found := self._targets.target(record, first_string(record.payload)):
            names = "".join(letter for bit, letter in _FLAGS.items() if record.offset & bit)
            self._changed(record, Op.CHATTR, *found, detail=f"={names}".encode())

    def _xattr(self, record: Record) -> None:
        rest, path = bytes(record.payload), b""
        if record.flags & Flag.PATH:
            path, rest = strings(rest, 1)
        name, value = strings(rest, 1)
        if found := self._targets.target(record, path):
            op = Op.SETXATTR if record.op == WireOp.SETXATTR else Op.REMOVEXATTR
            if op is Op.SETXATTR and name == acl.ACCESS and (bits := acl.permissions(value)) is not None:
                found[0].mode = found[0].mode & ~0o777 | bits
            if op is Op.SETXATTR and not (name == acl.ACCESS and acl.is_only_mode(value)):
                found[0].set_xattr(name, value)
            else:
                found[0].drop_xattr(name)
            self._changed(record, op, *found, detail=name)

    def _changed(self, record: Record, op: Op, state: NodeState, path: bytes, detail: bytes = b"") -> None:
        state.ctime = self._timeline.wall
        outside = self._nodes.judge(path)[0]
        seq = self._timeline.event(record, op, path, node=state.node, outside=outside, detail=detail)
        if record.flags & Flag.PATH:
            self._targets.stamped(record, 1, (state,), seq)
        else:
            self._targets.take_inode(state, record.inodes[0])
            self._nodes.put_attrs(state, seq)
