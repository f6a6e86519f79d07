"""What stands somewhere, as someone who looked found it: before the command, or after it.

Owns SNAPSHOT, CONTENT, SAME and HEAL, and the table HANDLES. None says anything of the directory that
an entry is in: each directory has a record of its own.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable

from ..errors import DiffKeeperError
from ..model import FROM_OUTSIDE, Fidelity, Op, Session
from ..wire import Flag, Record, WireOp, Wrong, strings
from .blocks import NONE
from .calls import Calls
from .codec import damaged, unpack_value
from .earlier import MISSING, Earlier
from .names import U64
from .nodes import Nodes
from .patches import StoredBlob
from .state import NodeState
from .tables import Table
from .targets import Targets, first_inode
from .timeline import Timeline
from .walk import Walker
from .writer import ContentWriter

_WRONG = (1 << len(Wrong)) - 1


class Standing:
    """Applies one record at a time. `mismatches`: HEAL records so far, `wrong`: in what that was, `others`: how many
    of them tell what others have changed."""

    def __init__(
        self, targets: Targets, calls: Calls, timeline: Timeline, nodes: Nodes, writer: ContentWriter, session: Session,
        earlier: Earlier, gap: Callable[[bytes], None],
    ) -> None:  # fmt: skip
        """`session`: as far as it was indexed before. `gap` is told what was lost."""
        self._targets, self._calls = targets, calls
        self._timeline, self._nodes, self._writer = timeline, nodes, writer
        self._walker = Walker(nodes)
        self._earlier, self._gap = earlier, gap
        self.mismatches, self.wrong, self.others = session.mismatches, Counter(session.wrong), session.others
        self.apply: dict[int, Callable[[Record], None]] = {
            WireOp.SNAPSHOT: self._snapshot,
            WireOp.CONTENT: self._content,
            WireOp.SAME: self._same,
            WireOp.HEAL: self._heal,
        }

    def _snapshot(self, record: Record) -> None:
        path, other, xattrs = strings(record.payload, 2)
        state = self._stand(record, path, other, xattrs, self._timeline.seq)
        self._nodes.note(record.inodes[0], state)

    def _heal(self, record: Record) -> None:
        path, other, xattrs = strings(record.payload, 2)
        gone = record.flags & Flag.GONE
        seq, outside = self._timeline.seq + 1, self._nodes.judge(path)[0]
        state = self._absent(path, seq) if gone else self._stand(record, path, other, xattrs, seq)
        size = NONE if gone or not stat.S_ISREG(record.inodes[0].mode) else record.inodes[0].size
        node, wrong = state.node if state else 0, Wrong(record.length & _WRONG)
        detail = (FROM_OUTSIDE if Wrong.OTHERS in wrong else "") + ", ".join(wrong.labels)
        self._timeline.event(record, Op.HEAL, path, node=node, size=size, outside=outside, detail=detail.encode())
        self.mismatches += 1
        self.others += Wrong.OTHERS in wrong
        self.wrong.update(wrong.labels)

    def _absent(self, path: bytes, seq: int) -> NodeState | None:
        place = self._walker.literal(path, seq)
        if place.node is not None and place.name:
            self._calls.drop(place.node, place.parent, place.name, seq)
        return place.node

    def _stand(self, record: Record, path: bytes, other: bytes, xattrs: bytes, seq: int) -> NodeState:
        """What a SNAPSHOT or HEAL says stands at a path. It says nothing of the directory it is in."""
        inode, place = first_inode(record), self._walker.literal(path, seq)
        linked = self._walker.literal(other, seq).node if record.flags & Flag.LINK else None
        state = place.node
        wrong = state is not None and (
            stat.S_IFMT(state.mode) != stat.S_IFMT(inode.mode) or (linked is not None and linked is not state)
        )
        if state is not None and wrong and place.name:
            self._nodes.take(state, place.parent, place.name, seq)
            self._nodes.put_attrs(state, seq)
            state = None
        if state is None:
            state = linked or self._nodes.new(inode.mode, version=seq)
            self._nodes.give(state, place.parent, place.name, seq)
        self._targets.take_inode(state, inode)
        state.implicit, state.dirty = False, True
        if record.flags & Flag.LINK:  # what it holds, and its xattrs, came with its first name
            self._nodes.put_attrs(state, seq)
            return state
        state.altered += tuple(state.xattrs)
        state.xattrs = unpack_value(xattrs, dict[bytes, bytes]) if xattrs else {}
        state.altered += tuple(state.xattrs)
        if stat.S_ISLNK(inode.mode):
            state.target, state.size = other, len(other)
            self._nodes.turn()
        elif state.is_file:
            self._resized(state, record.offset, inode.size, seq)
            if record.flags & Flag.INEXACT:
                state.fidelity = max(state.fidelity, Fidelity.REREAD)
        self._nodes.put_attrs(state, seq)
        return state

    def _resized(self, state: NodeState, handle: int, size: int, seq: int) -> None:
        """With a handle the whole content follows in CONTENT records; without, only the size is right now."""
        if handle:
            if state.block_first >= 0 or state.pending:
                self._writer.cut(state, seq, 0)
            state.fidelity = Fidelity.EXACT
            self._timeline.txn.put(Table.HANDLES, U64.pack(handle), U64.pack(state.node))
        if state.size != size:
            self._writer.cut(state, seq, size)

    def _given(self, record: Record) -> NodeState:
        node = self._timeline.txn.get(Table.HANDLES, U64.pack(record.length))
        if node is None:
            raise damaged("content came for a file that was not given")
        return self._nodes.get(int.from_bytes(node, "big"))

    def _content(self, record: Record) -> None:
        state = self._given(record)
        if record.flags & Flag.INEXACT:  # it could not be read
            self._unknown(state)
        else:
            self._writer.write(state, state.version, record.offset, record.payload)

    def _same(self, record: Record) -> None:
        state = self._given(record)
        try:
            found = self._earlier.content(bytes(record.payload), state.size)
            if isinstance(found, StoredBlob):
                self._writer.adopt(state, state.version, found)
                return
            for offset, data in found:
                self._writer.write(state, state.version, offset, data)
        except (DiffKeeperError, OSError):  # that recording was damaged meanwhile
            self._unknown(state)
            self._gap(MISSING)

    def _unknown(self, state: NodeState) -> None:
        state.fidelity = Fidelity.UNKNOWN
        self._nodes.put_attrs(state, state.version)
