"""Calls that change names: what each does to the tree at the cursor.

Owns MKDIR, MKNOD, SYMLINK, LINK, RENAME, UNLINK, RMDIR and CHROOT. What a record points at, and what its stamps say, is
in `targets`; calls on attributes and on data are next door (`attributes`, `data`).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence

from ..model import Fidelity, Op
from ..wire import Inode, Record, WireOp, strings
from . import acl, apart, processes
from .codec import damaged
from .course import Course
from .nodes import MAX_DEPTH, Nodes
from .state import NodeState
from .targets import Targets, first_inode, first_string
from .timeline import Timeline
from .walk import Place
from .writer import ContentWriter

RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4
_UMASK = 0o022  # most people's


class Calls:
    """Applies one record at a time; `apply` maps an op to what does it."""

    def __init__(
        self, targets: Targets, timeline: Timeline, nodes: Nodes, writer: ContentWriter, course: Course
    ) -> None:
        self._targets, self._timeline, self._nodes = targets, timeline, nodes
        self._writer, self._course = writer, course
        self.apply: dict[int, Callable[[Record], None]] = {
            WireOp.MKDIR: self._make,
            WireOp.MKNOD: self._make,
            WireOp.SYMLINK: self._make,
            WireOp.LINK: self._link,
            WireOp.RENAME: self._rename,
            WireOp.UNLINK: self._unlink,
            WireOp.RMDIR: self._unlink,
            WireOp.CHROOT: self._chroot,
        }

    def drop(self, state: NodeState, parent: NodeState, name: bytes, seq: int) -> None:
        """A name goes away, and a directory with it."""
        self._nodes.take(state, parent, name, seq)
        state.ctime = self._timeline.wall
        if state.is_dir:
            parent.nlink -= 1
            state.nlink = 0
        self._nodes.put_attrs(state, seq)

    def inherit(self, state: NodeState, parent: NodeState) -> None:
        """A directory may say what ACLs is made in it gets; `state` was just made there and has its mode."""
        if acl.DEFAULT in parent.xattrs:
            for name, value in acl.inherited(parent.xattrs, state.mode, is_dir=state.is_dir).items():
                state.set_xattr(name, value)
            self._nodes.put_attrs(state, state.changed)

    def _make(self, record: Record) -> None:
        path, target = (*bytes(record.payload).split(b"\0", 1), b"")[:2]
        op, mode, rdev = Op.MKDIR, stat.S_IFDIR | record.offset & 0o1777, 0
        if record.op == WireOp.SYMLINK:
            op, mode, target = Op.SYMLINK, stat.S_IFLNK | 0o777, first_string(target)
        elif record.op == WireOp.MKNOD:
            kind = stat.S_IFMT(record.offset) or stat.S_IFREG
            op, mode, rdev = Op.MKNOD, kind | record.offset & 0o7777, record.length & 0xFFFFFFFF
        found = self._targets.places(record, path)
        if not found:
            return
        place, where = found[0]
        outside, hidden = self._nodes.judge(where, is_dir=op is Op.MKDIR)
        if hidden or not place.name:
            self._nodes.pass_over(where, is_dir=op is Op.MKDIR)
            self._passed_over_in(place, record)
            return
        seq = self._timeline.event(
            record, op, where, to=target if op is Op.SYMLINK else None, outside=outside,
            node=0 if place.node else self._nodes.next_node,
        )  # fmt: skip
        state = self._fresh(place, mode & ~self._masked(place.parent, mode), record.pid, seq)
        if state.is_dir and not state.implicit:
            state.nlink = 2
            place.parent.nlink += 1
        state.implicit = False
        state.rdev = rdev
        if op is Op.SYMLINK:
            state.target, state.size = target, len(target)
        place.parent.mtime = place.parent.ctime = self._timeline.wall
        self._targets.stamped(record, 1, (state, place.parent), seq, fresh=state)
        if op is not Op.SYMLINK:
            self.inherit(state, place.parent)

    def _masked(self, parent: NodeState, mode: int) -> int:
        """Bits that the mode of what is made in a directory lacks: by its default ACL, or else by the umask."""
        if stat.S_ISLNK(mode):
            return 0
        allowed = acl.permissions(parent.xattrs.get(acl.DEFAULT, b""))
        if allowed is not None:
            return 0o777 & ~allowed
        return self._timeline.caller.mode & 0o777 if self._timeline.caller else _UMASK

    def _passed_over_in(self, place: Place, record: Record) -> None:
        """What is left out was made or removed in a directory that is recorded: its times are other ones."""
        parent = place.parent
        if place.name and not self._nodes.is_hidden(parent):
            parent.mtime = parent.ctime = self._timeline.wall
            self._targets.stamped(record, 1, (parent,), self._timeline.seq)

    def _fresh(self, place: Place, mode: int, pid: int, seq: int) -> NodeState:
        """The node a call made at a place. A directory that was met before its MKDIR is that one."""
        old = place.node
        if old is not None:
            if old.implicit and old.is_dir and stat.S_ISDIR(mode):
                old.fidelity = Fidelity.EXACT
                return old
            self.drop(old, place.parent, place.name, seq)
        parent, caller, wall = place.parent, self._timeline.caller, self._timeline.wall
        process = processes.at(self._timeline.txn, pid)
        uid, gid = parent.uid if process is None else process.uid, parent.gid
        if caller is not None:
            uid, gid = caller.uid, parent.gid if parent.mode & stat.S_ISGID else caller.gid
        if stat.S_ISDIR(mode):
            mode |= parent.mode & stat.S_ISGID
        state = self._nodes.new(mode, uid=uid, gid=gid, mtime=wall, ctime=wall, version=seq)
        self._nodes.give(state, parent, place.name, seq)
        return state

    def _link(self, record: Record) -> None:
        old, new, _ = strings(record.payload, 2)
        if apart.is_apart(record):
            found = self._targets.places(record, new)
            if not found:
                return
            place, where = found[0]
        else:
            place, where = self._targets.place(record, 1, new, follow=False)
        state, source = self._targets.linked(record, old, place)
        outside, hidden = self._nodes.judge(where)
        if hidden or not place.name or state.is_dir:
            self._nodes.pass_over(where)
            return
        seq = self._timeline.event(record, Op.LINK, source, to=where, node=state.node, outside=outside)
        if place.node is not None:
            self.drop(place.node, place.parent, place.name, seq)
        self._nodes.give(state, place.parent, place.name, seq)
        wall = self._timeline.wall
        state.ctime = place.parent.mtime = place.parent.ctime = wall
        self._targets.stamped(record, 2, (state, place.parent), seq)
        if self._nodes.judge(source)[1]:
            self._adopt(state, record.inodes[2:])

    def _adopt(self, state: NodeState, stamps: Sequence[Inode]) -> None:
        """What was left out until now is this node from now on, also to who has it open."""
        found = [
            stamp for stamp in stamps
            if stamp.ino and stat.S_IFMT(stamp.mode) == stat.S_IFMT(state.mode)
            and (known := self._nodes.find((stamp.dev, stamp.ino, stamp.gen))) is not None
            and known is not state and self._nodes.is_hidden(known)
        ]  # fmt: skip
        if len(found) == 1 and state.ident is None:
            self._nodes.bind((found[0].dev, found[0].ino, found[0].gen), state)

    def _rename(self, record: Record) -> None:
        old, new, _ = strings(record.payload, 2)
        found = self._targets.places(record, old, new)
        if not found:
            return
        (source, where), (target, to) = found
        nodes, timeline = self._nodes, self._timeline
        is_dir = source.node is not None and source.node.is_dir
        from_hidden, to_hidden = nodes.judge(where, is_dir=is_dir)[1], nodes.judge(to, is_dir=is_dir)[1]
        if not source.name or not target.name or (from_hidden and to_hidden):
            nodes.pass_over(where, is_dir=is_dir)
            return
        if from_hidden or to_hidden:
            self._rename_across(record, source, where, target, to, gone=to_hidden)
            return
        moved, replaced = source.node or self._targets.unseen(source, record.inodes[2:], target.parent), target.node
        if moved is replaced:
            return  # two names of one file: rename(2) does nothing
        exchange = bool(record.offset & RENAME_EXCHANGE)
        if exchange and replaced is None:
            replaced = self._targets.unseen(target, ())
        if self._makes_ring(moved, target.parent) or (exchange and self._makes_ring(replaced, source.parent)):
            self._course.missed(record, b"a directory was moved into itself", path=where, to=to)
            return  # it was not: something was missed, and the paths mean other things than here
        outside = nodes.judge(where)[0] and nodes.judge(to)[0]
        op = Op.EXCHANGE if exchange else Op.RENAME
        seq = timeline.event(record, op, where, to=to, node=moved.node, outside=outside)
        chief = (moved.parent, moved.name) == (source.parent.node, source.name)
        nodes.take(moved, source.parent, source.name, seq)
        if replaced is not None:
            if moved.is_file and replaced.is_file and not exchange:
                self._writer.replaced(replaced, moved)
            if exchange:
                nodes.take(replaced, target.parent, target.name, seq)
                nodes.give(replaced, source.parent, source.name, seq)
                nodes.moved(replaced)
                source.parent.nlink += replaced.is_dir
                target.parent.nlink -= replaced.is_dir
                replaced.ctime = timeline.wall
            else:
                self.drop(replaced, target.parent, target.name, seq)
        nodes.give(moved, target.parent, target.name, seq, chief=chief)
        nodes.moved(moved)
        source.parent.nlink -= moved.is_dir
        target.parent.nlink += moved.is_dir
        touched = [moved, source.parent, target.parent]
        for state in touched[1:]:
            state.mtime = state.ctime = timeline.wall
        moved.ctime = timeline.wall
        touched += [replaced] if replaced is not None else []
        white = None
        if record.offset & RENAME_WHITEOUT:
            white = self._fresh(Place(source.parent, source.name, None), stat.S_IFCHR, record.pid, seq)
            touched.append(white)
        self._targets.stamped(record, 2, touched, seq, fresh=white)
        if white is not None:
            self.inherit(white, source.parent)

    def _rename_across(
        self, record: Record, source: Place, where: bytes, target: Place, to: bytes, *, gone: bool
    ) -> None:
        """Out of what is recorded (`gone`), or into it, with content that nobody saw."""
        seq = self._timeline.event(
            record, Op.RENAME, where, to=to, node=source.node.node if source.node else 0, outside=False
        )
        if gone:
            if source.node is not None:
                self.drop(source.node, source.parent, source.name, seq)
                source.node.parent, source.node.name, source.node.path_age = target.parent.node, target.name, -1
                self._nodes.moved(source.node)  # what is in it is left out from now on, too
            touched = [source.parent]
        else:
            if target.node is not None:
                self.drop(target.node, target.parent, target.name, seq)
            touched = [target.parent, self._targets.unseen(Place(target.parent, target.name, None), record.inodes[2:])]
        touched[0].mtime = touched[0].ctime = self._timeline.wall
        self._targets.stamped(record, 2, touched, seq)
        if not gone:
            self._adopt(touched[1], record.inodes[2:])

    def _makes_ring(self, moved: NodeState | None, into: NodeState) -> bool:
        """Whether a directory would come to lie in itself. Raises TraceDamagedError where one does already."""
        above = into
        for _ in range(MAX_DEPTH):
            if moved is None or not moved.is_dir or not above.parent:
                return False
            if above is moved:
                return True
            above = self._nodes.get(above.parent)
        raise damaged("directories lie in one another in a ring")

    def _chroot(self, record: Record) -> None:
        """No file has changed; but ".." and symlinks lead elsewhere."""
        self._timeline.progress.set_top(record.pid, self._targets.node_of(first_inode(record)).node)

    def _unlink(self, record: Record) -> None:
        found = self._targets.places(record, first_string(record.payload))
        if not found:
            return
        place, where = found[0]
        outside, hidden = self._nodes.judge(where)
        if hidden or not place.name:
            self._nodes.pass_over(where)
            self._passed_over_in(place, record)
            return
        op = Op.UNLINK if record.op == WireOp.UNLINK else Op.RMDIR
        state = place.node
        seq = self._timeline.event(record, op, where, node=state.node if state else 0, outside=outside)
        touched = [place.parent]
        if state is not None:
            self.drop(state, place.parent, place.name, seq)
            touched.append(state)
        place.parent.mtime = place.parent.ctime = self._timeline.wall
        self._targets.stamped(record, 1, touched, seq)
