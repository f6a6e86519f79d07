"""One record after the other to its effect on the tables.

Owns the hot path (WRITE on a known file), the other calls on data, and identities. Names are in `calls`, attributes
in `attributes`, what was found by looking in `standing`, the rest in `course`;
transactions are in `indexer`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from msgspec import structs

from ..filtering import merged
from ..model import Fidelity, Op, Session
from ..mounts import Mounts, unpack
from ..wire import (
    EVENT,
    INODE,
    Flag,
    Inode,
    Record,
    WireOp,
    decode,
    encode,
    kernel_path,
)
from . import runs
from .attributes import Attributes
from .blocks import BLOCK_EVENTS, NONE
from .calls import CAPABILITY, Calls
from .codec import damaged
from .course import Course
from .db import Table, Txn
from .differing import Choice
from .earlier import Earlier
from .nodes import Nodes
from .standing import Standing
from .state import Identity, NodeState
from .targets import Targets, first_inode, first_string
from .timeline import Call, Progress, Timeline
from .walk import Place, Walker
from .writer import ContentWriter

_WRITE = EVENT.size + INODE.size  # bytes of a write's record before those that it wrote
_MAX_FILLS = 256  # ranges that are read within moments; what could not be read never comes
_MAX_CALLS = 65536  # calls of which pieces are awaited; a killed thread's never come


class Replay:
    """The state of indexing at the cursor. `begin` before use and after each transaction."""

    def __init__(self, session: Session, progress: Progress, earlier: Earlier) -> None:
        self.progress = progress
        self.timeline = Timeline(progress)
        self.writer = ContentWriter(Choice(*session.differ))
        self.nodes = Nodes(session, self.writer, progress.next_node)
        self._course = Course(self.timeline, session)
        self._targets = Targets(self.timeline, self.nodes, self.writer, self._course)
        self._calls = Calls(self._targets, self.timeline, self.nodes, self.writer, self._course)
        self._walker = Walker(self.nodes)
        self._roots = session.roots
        self._see_mounts()
        self._trust = {trust: session.fidelity.get(trust.label, 0) for trust in Fidelity}
        self._standing = Standing(
            self._targets, self._calls, self.timeline, self.nodes, self.writer, session.mismatches, earlier, self.gap
        )
        self._apply: dict[int, Callable[[Record], None]] = {
            **self._calls.apply,
            **Attributes(self._targets, self.timeline, self.nodes, self.writer, self._is_idle).apply,
            WireOp.BIND: self._bind,
            WireOp.MOUNTS: self._mount,
            WireOp.WRITE: self._write,
            WireOp.OPEN: self._open,
            WireOp.TRUNCATE: self._truncate,
            WireOp.DIRTY: self._dirty,
            WireOp.ZERO: self._zero,
            WireOp.FILL: self._fill,
            **self._course.apply,
            **self._standing.apply,
            WireOp.END: self._end,
        }

    def begin(self, txn: Txn) -> None:
        self.txn = self.timeline.txn = self.nodes.txn = self.writer.txn = txn
        if not txn.count(Table.ATTRS):
            top = self.nodes.root()
            self.nodes.put_attrs(top, 0)

    def finish(self, *, forget: bool) -> Session:
        """Put all that is pending into the transaction, so that it can be committed; returns the totals so far."""
        self.nodes.save(forget=forget)
        self.timeline.buffer.flush(self.txn)
        progress = self.progress
        progress.seq, progress.time = self.timeline.seq, self.timeline.time
        progress.next_node = self.nodes.next_node
        fidelity = {trust.label: count for trust, count in self._trust.items() if count}
        return structs.replace(
            self._course.session, events=self.timeline.seq, fidelity=fidelity, mismatches=self._standing.mismatches,
            notes=tuple(dict.fromkeys((*self._course.session.notes, *self.writer.notes()))),
            filtered=merged(self._course.session.filtered, self.nodes.filters.report()),
        )  # fmt: skip

    def span(self, span: bytes) -> None:
        """Apply a journal frame's records. Raises TraceDamagedError."""
        view = memoryview(span)
        for found in runs.walk(span):
            if not isinstance(found, runs.Run):
                self._one(view, *found)
            elif not self._run(found):
                for place, size in zip(found.places.tolist(), found.sizes.tolist(), strict=True):
                    self._one(view, place - _WRITE, _WRITE + size)

    def _one(self, view: memoryview, start: int, size: int) -> None:
        """Apply the record in `size` bytes at `start`."""
        time, pid, _, op, flags, count, length, offset, whole = EVENT.unpack_from(view, start)
        if op == 2 and not flags and count == 1 and whole == length and _WRITE + length <= size:
            # A whole write on a file that is known and unchanged but for its content: most of all records.
            ino, dev, gen, _, mtime, ctime, _, mode, uid, gid, _, _, _ = INODE.unpack_from(view, start + EVENT.size)
            state = self._unchanged((dev, ino, gen), mode, uid, gid)
            if state is not None and whole:
                timeline = self.timeline
                timeline.tick(time)
                timeline.seq = seq = timeline.seq + 1
                state.mtime, state.ctime = mtime, ctime
                self.writer.write(state, seq, offset, view[start + _WRITE : start + _WRITE + length])
                timeline.buffer.write(timeline.time, pid, state.path, state.node, offset, length, state.outside)
                self._trust[Fidelity.EXACT] += 1
                if seq - timeline.buffer.first + 1 >= BLOCK_EVENTS:
                    timeline.buffer.flush(self.txn)
                return
        self._record(decode(view, start, size))

    def _run(self, run: runs.Run) -> bool:
        """Apply many writes at once. False: nothing was done, as a file is not known, or has changed."""
        states = [state for file in run.files if (state := self._unchanged(*file)) is not None]
        if len(states) < len(run.files):
            return False
        first = self.timeline.writes(run, states)
        for number, rows in run.by_file():
            state, part = states[number], run.part(rows)
            if len(rows) >= runs.LEAST:
                self.writer.write_run(state, first + rows, part)
                state.mtime, state.ctime = int(part.mtimes[-1]), int(part.ctimes[-1])
            else:
                self._few(state, (first + rows).tolist(), part)
        self._trust[Fidelity.EXACT] += len(run)
        return True

    def _few(self, state: NodeState, seqs: list[int], run: runs.Run) -> None:
        columns = (run.offsets, run.sizes, run.mtimes, run.ctimes, run.places)
        table = zip(seqs, *(column.tolist() for column in columns), strict=True)
        for seq, offset, size, state.mtime, state.ctime, place in table:
            self.writer.write(state, seq, offset, run.span[place : place + size])

    def _unchanged(self, ident: Identity, mode: int, uid: int, gid: int) -> NodeState | None:
        """A file of which a write can change nothing but the content and its times. Its path is up to date."""
        state = self.nodes.find(ident)
        if state is None or state.mode != mode or state.uid != uid or state.gid != gid or CAPABILITY in state.xattrs:
            return None
        if state.path_age != self.nodes.age:
            self.nodes.path(state)
        return None if state.hidden else state

    def _record(self, record: Record) -> None:
        apply = self._apply.get(record.op)
        if apply is None:
            raise damaged(f"a record has the unknown kind {record.op}")
        self.timeline.tick(record.time)
        apply(record)
        if self.nodes.crowded:
            self.nodes.save(forget=True)

    def gap(self, cause: bytes) -> None:
        """Records are missing here, nobody knows how many."""
        self.give_up_waiting()
        self.span(encode(WireOp.GAP, payload=cause))

    def give_up_waiting(self) -> None:
        """The pieces of calls that have not come by now never will: those calls are not exact."""
        for call in self.progress.writes.values():
            self._give_up(call)
        self.progress.writes.clear()
        self.progress.fills.clear()

    def _give_up(self, call: Call | None) -> None:
        if call is not None and call.trust != Fidelity.UNKNOWN:
            self._distrust(call, Fidelity.UNKNOWN)
            self._doubt(self.nodes.get(call.node), Fidelity.UNKNOWN, call.seq)

    def _end(self, record: Record) -> None:
        self.give_up_waiting()
        self._course.apply[WireOp.END](record)

    # -- identities --------------------------------------------------------------------------

    def _mount(self, record: Record) -> None:
        """What paths lead to, from here on."""
        self.progress.mounts = bytes(record.payload)
        self._see_mounts()

    def _see_mounts(self) -> None:
        self._mounts = Mounts(unpack(self.progress.mounts), self._roots)
        self.nodes.devices = frozenset(mount.device for mount in self._mounts.table)
        self.nodes.overlays = frozenset(mount.device for mount in self._mounts.table if mount.kind == b"overlay")

    def _bind(self, record: Record) -> None:
        inode, path = first_inode(record), kernel_path(record.payload)
        ident = (inode.dev, inode.ino, inode.gen)
        seq = self.timeline.seq
        known = self.nodes.find(ident)
        if known is None and stat.S_ISDIR(inode.mode) and (noted := self.nodes.noted(ident)):
            # Its path is told as it is after the call, which may have been the one that moved it.
            self.nodes.bind(ident, noted)
            return
        gone = bool(record.flags & Flag.GONE)
        if path == b"/" and not stat.S_ISDIR(inode.mode):  # in no directory: shared memory, or a whole device
            return
        if known is not None and (gone or (known.names and not self.nodes.is_hidden(known))):
            return
        top = None
        if record.flags & Flag.APART:
            if record.flags & Flag.INEXACT:  # only the end of its path is known
                return
            seen = self._mounts.path(inode.dev, path)
            top, path = (self.nodes.unseen_filesystem(inode.dev), path) if seen is None else (None, seen)
        place = self._walker.literal(path, seq, top)
        if known is not None and (place.node is None or place.node.ident):
            return
        state = place.node
        if gone:
            state = self._targets.node_of(inode)
            state.parent, state.name, state.path_age = place.parent.node, place.name, -1
            return
        if state is not None and stat.S_IFMT(state.mode) != stat.S_IFMT(inode.mode):
            self._calls.drop(state, place.parent, place.name, seq)
            state = None
        if state is None:
            state = self.nodes.implicit(place.parent, place.name, seq, inode.mode)
            state.fidelity = Fidelity.PARTIAL
        self.nodes.bind(ident, state)
        if state.implicit:
            self._targets.seen(state, inode, seq)

    # -- data --------------------------------------------------------------------------------

    def _file(self, record: Record) -> tuple[NodeState, bytes] | None:
        """The file of a call with a descriptor, and its path; None: it is no concern of ours."""
        state = self._targets.node_of(first_inode(record))
        path = self.nodes.path(state)
        if not state.hidden:
            return state, path
        if not record.flags & Flag.CONT:
            self.nodes.pass_over(path, is_dir=state.is_dir)
        return None

    def _touch(self, state: NodeState, inode: Inode, seq: int, *, by_call: bool = True) -> None:
        """Times after a change of content; they are in its rows. The rest only if it changed.

        `by_call`: a system call takes a capability away; a store to mapped memory does not.
        """
        same = (state.mode, state.uid, state.gid) == (inode.mode, inode.uid, inode.gid)
        self._targets.take_inode(state, inode)
        if (by_call and state.drop_xattr(CAPABILITY)) or not same:
            self.nodes.put_attrs(state, seq)

    def _write(self, record: Record) -> None:
        found = self._file(record)
        if found is None or not record.length:
            return
        state, path = found
        size = len(record.payload)
        call = self.progress.writes.get(record.tid) if record.flags & Flag.CONT else None
        if call is None or call.node != state.node:
            trust = Fidelity.UNKNOWN if record.flags & Flag.INEXACT else Fidelity.EXACT
            seq = self.timeline.event(
                record, Op.WRITE, path, node=state.node, offset=record.offset, size=record.length, trust=trust,
                outside=state.outside,
            )  # fmt: skip
            self._trust[trust] += 1
            self._give_up(self.progress.writes.pop(record.tid, None))
            call = Call(seq, state.node, record.length, trust=trust)
            _await(self.progress.writes, record.tid, call)
        elif record.flags & Flag.INEXACT and call.trust != Fidelity.UNKNOWN:
            self._distrust(call, Fidelity.UNKNOWN)
        self._touch(state, record.inodes[0], call.seq)
        self.writer.write(state, call.seq, record.offset, record.payload)
        self._doubt(state, Fidelity(call.trust), call.seq)
        call.left -= size
        if call.left <= 0:
            del self.progress.writes[record.tid]

    def _distrust(self, call: Call, trust: Fidelity) -> None:
        self.timeline.buffer.set_trust(self.txn, call.seq, trust)
        self._trust[Fidelity(call.trust)] -= 1
        self._trust[trust] += 1
        call.trust = trust

    def _doubt(self, state: NodeState, trust: Fidelity, seq: int) -> None:
        """A node is only as sure as the least sure of its bytes."""
        if trust > state.fidelity:
            state.fidelity = trust
            self.nodes.put_attrs(state, max(seq, state.changed))

    def _open(self, record: Record) -> None:
        if record.flags & Flag.CREATED:
            self._create(record)
        elif record.flags & Flag.TRUNC and (found := self._file(record)):
            state, path = found
            seq = self.timeline.event(
                record, Op.TRUNCATE, path, node=state.node, size=0, outside=state.outside, offset=NONE
            )
            self._cut(state, seq, 0, record.inodes[0])

    def _create(self, record: Record) -> None:
        if len(record.inodes) < 2:
            raise damaged("a file was made in no directory")
        inode, name = record.inodes[0], first_string(record.payload)
        ident = (inode.dev, inode.ino, inode.gen)
        parent = self._targets.node_of(record.inodes[1])
        place = Place(parent, name, self.nodes.child(parent, name) if name else None)
        where = self._walker.where(place)
        outside, hidden = self.nodes.judge(where)
        if hidden:  # bound all the same: its identity may have been another file's
            state = self.nodes.new(inode.mode, parent=parent.node, name=name)
            self.nodes.bind(ident, state)
            self.nodes.pass_over(where)
            if name and not self.nodes.is_hidden(parent):
                self._targets.take_inode(parent, record.inodes[1])
                self.nodes.put_attrs(parent, self.timeline.seq)
            return
        early = place.node is not None and place.node.implicit and place.node.ident == ident
        node = place.node.node if early and place.node else self.nodes.next_node
        seq = self.timeline.event(record, Op.CREATE, where, node=node, outside=outside)
        if early and place.node:  # another thread used the file before this call returned
            state = place.node
            state.implicit, state.fidelity = False, Fidelity.EXACT
        else:
            if place.node is not None:
                self._calls.drop(place.node, parent, name, seq)
            state = self.nodes.new(inode.mode, version=seq, parent=parent.node)
            if name:
                self.nodes.give(state, parent, name, seq)
            self.nodes.bind(ident, state)
        self._targets.take_inode(state, inode)
        self.nodes.put_attrs(state, seq)
        if name:
            self._targets.take_inode(parent, record.inodes[1])
            self.nodes.put_attrs(parent, seq)
        self._calls.inherit(state, parent)

    def _truncate(self, record: Record) -> None:
        found = self._targets.target(record, first_string(record.payload))
        if found is None or not found[0].is_file:
            return
        state, path = found
        outside = self.nodes.judge(path)[0]
        seq = self.timeline.event(
            record, Op.TRUNCATE, path, node=state.node, size=record.offset, outside=outside, offset=NONE
        )
        if not record.flags & Flag.PATH:
            self._cut(state, seq, record.offset, record.inodes[0])
            return
        if state.size == record.offset == 0 and self._mounts.kind(path) == b"xfs":
            if state.drop_xattr(CAPABILITY):  # which is before it finds that an empty file can be left alone
                self._targets.stamped(record, 1, (state,), seq)
            return
        if state.size != record.offset:  # else a stamp says whether times were set
            state.mtime = state.ctime = self.timeline.wall
        state.drop_xattr(CAPABILITY)
        if record.length:  # not root's: the set-id bits go, of which tmpfs says nothing where the size stays
            state.mode &= ~(stat.S_ISUID | (stat.S_ISGID if state.mode & stat.S_IXGRP else 0))
        self._targets.stamped(record, 1, (state,), seq)
        self._cut(state, seq, record.offset, None)

    def _cut(self, state: NodeState, seq: int, size: int, inode: Inode | None) -> None:
        if inode is not None:
            self._touch(state, inode, seq)
        self.writer.cut(state, seq, size)
        if size == 0 and state.fidelity != Fidelity.EXACT:
            state.fidelity = Fidelity.EXACT
            self.nodes.put_attrs(state, seq)

    def _dirty(self, record: Record) -> None:
        fills = self.progress.fills
        fills.pop(record.time, None)
        if found := self._file(record):
            state, path = found
            trust = Fidelity.UNKNOWN if record.length else Fidelity.EXACT
            seq = self.timeline.event(
                record, Op.WRITE, path, node=state.node, offset=record.offset, size=record.length, trust=trust,
                outside=state.outside,
            )  # fmt: skip
            self._trust[trust] += 1
            self._touch(state, record.inodes[0], seq, by_call=bool(record.tid and record.length))  # 0: mapped pages
            if record.flags & Flag.TRUNC:
                self.writer.cut(state, seq, record.inodes[0].size)
            told = self.progress.writes.get(record.tid)
            if told is not None and (told.node, told.left) == (state.node, record.length):
                del self.progress.writes[record.tid]  # the rest of that write: it comes from the file
            self.writer.grow(state, seq, record.offset, record.length)
            if not record.length:  # only times changed: nothing comes to fill it
                return
            before = min((call.before for call in fills.values() if call.node == state.node), default=state.fidelity)
            call = Call(
                seq, state.node, record.length, state.mtime, state.ctime, Fidelity.UNKNOWN, before, record.tid
            )  # fmt: skip
            _await(fills, record.time, call, _MAX_FILLS)
            self._doubt(state, Fidelity.UNKNOWN, seq)

    def _is_idle(self, state: NodeState, path: bytes, inode: Inode) -> bool:
        """btrfs does nothing, and takes no capability away, where there is a hole already."""
        return inode.ctime == state.ctime and self._mounts.kind(path) == b"btrfs"

    def _zero(self, record: Record) -> None:
        if found := self._file(record):
            state, path = found
            seq = self.timeline.event(
                record, Op.WRITE, path, node=state.node, offset=record.offset, size=record.length, outside=state.outside
            )
            self._trust[Fidelity.EXACT] += 1
            inode = record.inodes[0]
            self._touch(state, inode, seq, by_call=not self._is_idle(state, path, inode))
            self.writer.zero(state, seq, record.offset, record.length)

    def _fill(self, record: Record) -> None:
        fills = self.progress.fills
        call = fills.get(record.time)
        if call is None or call.tid != record.tid:
            return
        state = self.nodes.get(call.node)
        trust = Fidelity.REREAD if record.flags & Flag.INEXACT else Fidelity.EXACT
        if call.trust in (Fidelity.UNKNOWN, Fidelity.EXACT) and call.trust != trust:
            self._distrust(call, trust)
        now = state.mtime, state.ctime
        state.mtime, state.ctime = call.mtime, call.ctime
        if record.payload:
            self.writer.write(state, call.seq, record.offset, record.payload)
        elif record.length:
            self.writer.zero(state, call.seq, record.offset, record.length)
        state.mtime, state.ctime = now
        call.left -= len(record.payload) or record.length
        if call.left <= 0:
            del fills[record.time]
            awaited = any(other.node == call.node for other in fills.values())
            state.fidelity = Fidelity.UNKNOWN if awaited else Fidelity(max(call.before, call.trust))
            self.nodes.put_attrs(state, max(call.seq, state.changed))


def _await(calls: dict[int, Call], key: int, call: Call, most: int = _MAX_CALLS) -> None:
    calls[key] = call
    if len(calls) > most:
        del calls[next(iter(calls))]
