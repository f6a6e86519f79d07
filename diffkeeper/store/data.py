"""Calls that change data: what each does to a file's content at the cursor.

Owns WRITE in pieces, DIRTY and the FILLs that come for it, ZERO, TRUNCATE and OPEN, which may make a file or cut it;
how far what they brought can be trusted; and the calls of which pieces are still awaited. A whole write on a file that
is known does not come here (`replay`). How content is stored belongs to `writer`, which node a record means to
`targets`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from ..model import Fidelity, Op
from ..mounts import Mounts
from ..wire import Flag, Inode, Record, WireOp
from .blocks import NONE
from .calls import Calls
from .codec import damaged
from .nodes import Nodes
from .state import NodeState
from .targets import Targets, first_inode, first_string
from .timeline import Call, Timeline
from .walk import Place, Walker
from .writer import ContentWriter

CAPABILITY = b"security.capability"
"""Goes when a file is written, cut or given away."""

_MAX_FILLS = 256  # ranges that are read within moments; what could not be read never comes
_MAX_CALLS = 65536  # calls of which pieces are awaited; a killed thread's never come


class Data:
    """Applies one record at a time; `apply` maps an op to what does it. `mounts` are those of the moment."""

    def __init__(
        self, targets: Targets, calls: Calls, timeline: Timeline, nodes: Nodes, writer: ContentWriter,
        trust: dict[Fidelity, int],
    ) -> None:  # fmt: skip
        """`trust`: how many events have which fidelity; others count there, too."""
        self.mounts: Mounts
        self._targets, self._calls = targets, calls
        self._timeline, self._nodes, self._writer = timeline, nodes, writer
        self._progress, self._trust = timeline.progress, trust
        self._walker = Walker(nodes)
        self.apply: dict[int, Callable[[Record], None]] = {
            WireOp.WRITE: self._write,
            WireOp.OPEN: self._open,
            WireOp.TRUNCATE: self._truncate,
            WireOp.DIRTY: self._dirty,
            WireOp.ZERO: self._zero,
            WireOp.FILL: self._fill,
        }

    def give_up_waiting(self) -> None:
        """The pieces of calls that have not come by now never will: those calls are not exact."""
        for call in self._progress.writes.values():
            self._give_up(call)
        self._progress.writes.clear()
        self._progress.fills.clear()

    def is_idle(self, state: NodeState, path: bytes, inode: Inode) -> bool:
        """btrfs does nothing, and takes no capability away, where there is a hole already."""
        return inode.ctime == state.ctime and self.mounts.kind(path) == b"btrfs"

    def _file(self, record: Record) -> tuple[NodeState, bytes] | None:
        """The file of a call with a descriptor, and its path; None: it is no concern of ours."""
        state = self._targets.node_of(first_inode(record))
        path = self._nodes.path(state)
        if not state.hidden:
            return state, path
        if not record.flags & Flag.CONT:
            self._nodes.pass_over(path, is_dir=state.is_dir)
        return None

    def _touch(self, state: NodeState, inode: Inode, seq: int, *, by_call: bool = True) -> None:
        """Times after a change of content; they are in its rows. The rest only if it changed.

        `by_call`: a system call takes a capability away; a store to mapped memory does not.
        """
        same = (state.mode, state.uid, state.gid) == (inode.mode, inode.uid, inode.gid)
        self._targets.take_inode(state, inode)
        if (by_call and state.drop_xattr(CAPABILITY)) or not same:
            self._nodes.put_attrs(state, seq)

    def _write(self, record: Record) -> None:
        found = self._file(record)
        if found is None or not record.length:
            return
        state, path = found
        size = len(record.payload)
        call = self._progress.writes.get(record.tid) if record.flags & Flag.CONT else None
        if call is None or call.node != state.node:
            trust = Fidelity.UNKNOWN if record.flags & Flag.INEXACT else Fidelity.EXACT
            seq = self._timeline.event(
                record, Op.WRITE, path, node=state.node, offset=record.offset, size=record.length, trust=trust,
                outside=state.outside,
            )  # fmt: skip
            self._trust[trust] += 1
            self._give_up(self._progress.writes.pop(record.tid, None))
            call = Call(seq, state.node, record.length, trust=trust)
            _await(self._progress.writes, record.tid, call)
        elif record.flags & Flag.INEXACT and call.trust != Fidelity.UNKNOWN:
            self._distrust(call, Fidelity.UNKNOWN)
        self._touch(state, record.inodes[0], call.seq)
        self._writer.write(state, call.seq, record.offset, record.payload)
        self._doubt(state, Fidelity(call.trust), call.seq)
        call.left -= size
        if call.left <= 0:
            del self._progress.writes[record.tid]

    def _give_up(self, call: Call | None) -> None:
        if call is not None and call.trust != Fidelity.UNKNOWN:
            self._distrust(call, Fidelity.UNKNOWN)
            self._doubt(self._nodes.get(call.node), Fidelity.UNKNOWN, call.seq)

    def _distrust(self, call: Call, trust: Fidelity) -> None:
        self._timeline.buffer.set_trust(self._timeline.txn, call.seq, trust)
        self._trust[Fidelity(call.trust)] -= 1
        self._trust[trust] += 1
        call.trust = trust

    def _doubt(self, state: NodeState, trust: Fidelity, seq: int) -> None:
        """A node is only as sure as the least sure of its bytes."""
        if trust > state.fidelity:
            state.fidelity = trust
            self._nodes.put_attrs(state, max(seq, state.changed))

    def _open(self, record: Record) -> None:
        if record.flags & Flag.CREATED:
            self._create(record)
        elif record.flags & Flag.TRUNC and (found := self._file(record)):
            state, path = found
            seq = self._timeline.event(
                record, Op.TRUNCATE, path, node=state.node, size=0, outside=state.outside, offset=NONE
            )
            self._cut(state, seq, 0, record.inodes[0])

    def _create(self, record: Record) -> None:
        if len(record.inodes) < 2:
            raise damaged("a file was made in no directory")
        inode, name = record.inodes[0], first_string(record.payload)
        ident = (inode.dev, inode.ino, inode.gen)
        parent = self._targets.node_of(record.inodes[1])
        place = Place(parent, name, self._nodes.child(parent, name) if name else None)
        where = self._walker.where(place)
        outside, hidden = self._nodes.judge(where)
        if hidden:  # bound all the same: its identity may have been another file's
            state = self._nodes.new(inode.mode, parent=parent.node, name=name)
            self._nodes.bind(ident, state)
            self._nodes.pass_over(where)
            if name and not self._nodes.is_hidden(parent):
                self._targets.take_inode(parent, record.inodes[1])
                self._nodes.put_attrs(parent, self._timeline.seq)
            return
        early = place.node is not None and place.node.implicit and place.node.ident == ident
        node = place.node.node if early and place.node else self._nodes.next_node
        seq = self._timeline.event(record, Op.CREATE, where, node=node, outside=outside)
        if early and place.node:  # another thread used the file before this call returned
            state = place.node
            state.implicit, state.fidelity = False, Fidelity.EXACT
        else:
            if place.node is not None:
                self._calls.drop(place.node, parent, name, seq)
            state = self._nodes.new(inode.mode, version=seq, parent=parent.node)
            if name:
                self._nodes.give(state, parent, name, seq)
                self._nodes.stands_at(state, where, outside)
            self._nodes.bind(ident, state)
        self._targets.take_inode(state, inode)
        self._nodes.put_attrs(state, seq)
        if name:
            self._targets.take_inode(parent, record.inodes[1])
            self._nodes.put_attrs(parent, seq)
        self._calls.inherit(state, parent)

    def _truncate(self, record: Record) -> None:
        found = self._targets.target(record, first_string(record.payload))
        if found is None or not found[0].is_file:
            return
        state, path = found
        outside = self._nodes.judge(path)[0]
        seq = self._timeline.event(
            record, Op.TRUNCATE, path, node=state.node, size=record.offset, outside=outside, offset=NONE
        )
        if not record.flags & Flag.PATH:
            self._cut(state, seq, record.offset, record.inodes[0])
            return
        if state.size == record.offset == 0 and self.mounts.kind(path) == b"xfs":
            if state.drop_xattr(CAPABILITY):  # which is before it finds that an empty file can be left alone
                self._targets.stamped(record, 1, (state,), seq)
            return
        if state.size != record.offset:  # else a stamp says whether times were set
            state.mtime = state.ctime = self._timeline.wall
        state.drop_xattr(CAPABILITY)
        user, group = record.length & 0xFFFF_FFFF, record.length >> 32
        if user:  # not root's: the set-id bits go, of which tmpfs and btrfs say nothing where the size stays
            keeps_group = state.gid == group and not state.mode & stat.S_IXGRP  # of their other groups nobody tells
            state.mode &= ~(stat.S_ISUID | (0 if keeps_group else stat.S_ISGID))
        self._targets.stamped(record, 1, (state,), seq)
        self._cut(state, seq, record.offset, None)

    def _cut(self, state: NodeState, seq: int, size: int, inode: Inode | None) -> None:
        if inode is not None:
            self._touch(state, inode, seq)
        self._writer.cut(state, seq, size)
        if size == 0 and state.fidelity != Fidelity.EXACT:
            state.fidelity = Fidelity.EXACT
            self._nodes.put_attrs(state, seq)

    def _dirty(self, record: Record) -> None:
        fills = self._progress.fills
        fills.pop(record.time, None)
        if found := self._file(record):
            state, path = found
            trust = Fidelity.UNKNOWN if record.length else Fidelity.EXACT
            seq = self._timeline.event(
                record, Op.WRITE, path, node=state.node, offset=record.offset, size=record.length, trust=trust,
                outside=state.outside,
            )  # fmt: skip
            self._trust[trust] += 1
            self._touch(state, record.inodes[0], seq, by_call=bool(record.tid and record.length))  # 0: mapped pages
            if record.flags & Flag.TRUNC:
                self._writer.cut(state, seq, record.inodes[0].size)
            told = self._progress.writes.get(record.tid)
            if told is not None and (told.node, told.left) == (state.node, record.length):
                del self._progress.writes[record.tid]  # the rest of that write: it comes from the file
            self._writer.grow(state, seq, record.offset, record.length)
            if not record.length:  # only times changed: nothing comes to fill it
                return
            before = min((call.before for call in fills.values() if call.node == state.node), default=state.fidelity)
            call = Call(
                seq, state.node, record.length, state.mtime, state.ctime, Fidelity.UNKNOWN, before, record.tid
            )  # fmt: skip
            _await(fills, record.time, call, _MAX_FILLS)
            self._doubt(state, Fidelity.UNKNOWN, seq)

    def _zero(self, record: Record) -> None:
        if found := self._file(record):
            state, path = found
            seq = self._timeline.event(
                record, Op.WRITE, path, node=state.node, offset=record.offset, size=record.length, outside=state.outside
            )
            self._trust[Fidelity.EXACT] += 1
            inode = record.inodes[0]
            self._touch(state, inode, seq, by_call=not self.is_idle(state, path, inode))
            self._writer.zero(state, seq, record.offset, record.length)

    def _fill(self, record: Record) -> None:
        fills = self._progress.fills
        call = fills.get(record.time)
        if call is None or call.tid != record.tid:
            return
        state = self._nodes.get(call.node)
        trust = Fidelity.REREAD if record.flags & Flag.INEXACT else Fidelity.EXACT
        if call.trust in (Fidelity.UNKNOWN, Fidelity.EXACT) and call.trust != trust:
            self._distrust(call, trust)
        now = state.mtime, state.ctime
        state.mtime, state.ctime = call.mtime, call.ctime
        if record.payload:
            self._writer.write(state, call.seq, record.offset, record.payload)
        elif record.length:
            self._writer.zero(state, call.seq, record.offset, record.length)
        state.mtime, state.ctime = now
        call.left -= len(record.payload) or record.length
        if call.left <= 0:
            del fills[record.time]
            awaited = any(other.node == call.node for other in fills.values())
            state.fidelity = Fidelity.UNKNOWN if awaited else Fidelity(max(call.before, call.trust))
            self._nodes.put_attrs(state, max(call.seq, state.changed))


def _await(calls: dict[int, Call], key: int, call: Call, most: int = _MAX_CALLS) -> None:
    calls[key] = call
    if len(calls) > most:
        del calls[next(iter(calls))]
