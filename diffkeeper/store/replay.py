"""One record after the other to its effect on the tables.

Owns the hot path (a whole WRITE on a known file), gaps, and what binds identities to paths: BIND and MOUNTS. Calls on
names are in `calls`, on attributes in `attributes`, all others on data in `data`; what was found by looking is in
`standing`, the rest in `course`; transactions are in `indexer`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from msgspec import structs

from ..filtering import merged
from ..model import Fidelity, Session
from ..mounts import Mounts, unpack
from ..wire import EVENT, INODE, Flag, Record, WireOp, encode, kernel_path, record_of
from . import runs, xattrs
from .attributes import Attributes
from .blocks import BLOCK_EVENTS
from .calls import Calls
from .codec import damaged
from .course import Course
from .data import CAPABILITY, Data
from .db import Txn
from .differing import Choice
from .earlier import Earlier
from .nodes import Nodes
from .standing import Standing
from .state import Identity, NodeState
from .tables import Table
from .targets import Targets, first_inode
from .timeline import Progress, Timeline
from .walk import Walker
from .writer import ContentWriter

_WRITE = EVENT.size + INODE.size  # bytes of a write's record before those that it wrote


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
        self._trust = {trust: session.fidelity.get(trust.label, 0) for trust in Fidelity}
        self.data = Data(self._targets, self._calls, self.timeline, self.nodes, self.writer, self._trust)
        self._roots = session.roots
        self._see_mounts()
        self._standing = Standing(
            self._targets, self._calls, self.timeline, self.nodes, self.writer, session, earlier, self.gap
        )
        self._apply: dict[int, Callable[[Record], None]] = {
            **self._calls.apply,
            **Attributes(self._targets, self.timeline, self.nodes, self.writer, self.data.is_idle).apply,
            **self.data.apply,
            WireOp.BIND: self._bind,
            WireOp.MOUNTS: self._mount,
            **self._course.apply,
            **self._standing.apply,
            WireOp.SETTLE: self._settle,
            WireOp.END: self._end,
        }

    def begin(self, txn: Txn) -> None:
        self.txn = self.timeline.txn = self.nodes.txn = self.writer.txn = txn
        if not txn.count(Table.ATTRS):
            top = self.nodes.root()
            self.nodes.put_attrs(top, 0)
            xattrs.begin(txn)

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
            wrong=dict(self._standing.wrong), others=self._standing.others,
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
        head = EVENT.unpack_from(view, start)
        time, pid, _, op, flags, count, length, offset, whole = head
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
        self._record(record_of(view, start, size, *head))

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
        self.timeline.caller = record.caller() if record.flags & Flag.PATH else None
        apply(record)
        if self.nodes.crowded:
            self.nodes.save(forget=True)

    def gap(self, cause: bytes) -> None:
        """Records are missing here, nobody knows how many."""
        self.data.give_up_waiting()
        self.span(encode(WireOp.GAP, payload=cause))

    def _settle(self, record: Record) -> None:
        self._course.apply[WireOp.SETTLE](record)
        self.nodes.pass_over_traces(self._course.session)

    def _end(self, record: Record) -> None:
        self.data.give_up_waiting()
        self._course.apply[WireOp.END](record)

    # -- identities --------------------------------------------------------------------------

    def _mount(self, record: Record) -> None:
        """What paths lead to, from here on."""
        self.progress.mounts = bytes(record.payload)
        self._see_mounts()

    def _see_mounts(self) -> None:
        self._mounts = self.data.mounts = Mounts(unpack(self.progress.mounts), self._roots)
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
            self.nodes.turn()
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
