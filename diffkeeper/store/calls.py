"""Calls that change names: what each does to the tree at the cursor.

Owns MKDIR, MKNOD, SYMLINK, LINK, RENAME, UNLINK and RMDIR, and what a record points at. Where a stamp tells what an
inode said afterwards, that counts; else the call's own arguments. Calls on attributes are next door (`attributes`).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence

from ..model import ROOT_NODE, Fidelity, Op
from ..wire import Flag, Inode, Record, WireOp, strings
from . import acl, apart, processes
from .codec import damaged
from .course import Course
from .nodes import MAX_DEPTH, Nodes
from .stamps import match
from .state import NodeState
from .timeline import Timeline
from .walk import Place, Walker
from .writer import ContentWriter

AT_SYMLINK_FOLLOW = 0x400
RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4
UNCHANGED = 0xFFFFFFFF
UNDECIDED = b"a name that a process with mounts of its own passed may be in several directories"

CAPABILITY = b"security.capability"
"""Goes when a file is written, cut or given away."""


class Calls:
    """Applies one record at a time; `apply` maps an op to what does it."""

    def __init__(self, timeline: Timeline, nodes: Nodes, writer: ContentWriter, course: Course) -> None:
        self._timeline, self._nodes, self._writer, self._course = timeline, nodes, writer, course
        self._walker = Walker(nodes)
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

    # -- what a record points at -------------------------------------------------------------

    def node_of(self, inode: Inode) -> NodeState:
        """The node an inode is; one without a name, when its identity was never bound."""
        nodes = self._nodes
        state = nodes.find((inode.dev, inode.ino, inode.gen))
        if state is not None and stat.S_IFMT(state.mode) == stat.S_IFMT(inode.mode):
            return state
        state = nodes.new(inode.mode, fidelity=Fidelity.UNKNOWN, version=self._timeline.seq)
        nodes.bind((inode.dev, inode.ino, inode.gen), state)
        self.seen(state, inode, self._timeline.seq)
        return state

    def seen(self, state: NodeState, inode: Inode, seq: int) -> None:
        """Take over attributes and size of an inode whose content was never seen."""
        self.take_inode(state, inode)
        if state.is_file and inode.size:
            self._writer.cut(state, seq, inode.size)
        self._nodes.put_attrs(state, seq)

    def take_inode(self, state: NodeState, inode: Inode) -> None:
        """What the inode said when the call returned. The size of a regular file comes from its writes alone."""
        state.mode, state.uid, state.gid = inode.mode, inode.uid, inode.gid
        state.mtime, state.ctime, state.rdev = inode.mtime, inode.ctime, inode.rdev
        if state.is_dir:
            state.nlink = inode.nlink
        if not state.is_file:
            state.size = inode.size

    def target(self, record: Record, path: bytes) -> tuple[NodeState, bytes] | None:
        """Node and path that a call on one file means, in either form; None: it is no concern of ours."""
        nodes = self._nodes
        inode = first_inode(record)
        if not record.flags & Flag.PATH:
            state = self.node_of(inode)
            where = nodes.path(state)
            if not state.hidden:
                return state, where
            nodes.pass_over(where, is_dir=state.is_dir)
            return None
        place, where = self.place(record, 0, path, follow=not record.flags & Flag.NOFOLLOW)
        if nodes.judge(where)[1]:
            reached = self._reached_all([stamp for stamp in record.inodes[1:] if stamp.ino])
            if reached is not None:  # by a path that names nothing in our tree (/dev/fd/N)
                return reached, nodes.path(reached)
            nodes.pass_over(where)
            return None
        stamps = [stamp for stamp in record.inodes[1:] if stamp.ino]
        if place.node is not None:
            return place.node, where
        if reached := self._reached_all(stamps):
            return reached, nodes.path(reached)
        return self._unseen(place, stamps), where

    def _reached(self, stamps: Sequence[Inode]) -> NodeState | None:
        """The file that one of the stamps is of."""
        for stamp in stamps:
            state = self._nodes.find((stamp.dev, stamp.ino, stamp.gen))
            if state is not None and not state.hidden:
                return state
        return None

    def _reached_all(self, stamps: Sequence[Inode]) -> NodeState | None:
        """The file that was changed last, if all that the call touched is known: then it met nothing new."""
        known = [self._reached([stamp]) for stamp in stamps]
        if not known:
            return None
        newest = max(range(len(stamps)), key=lambda at: stamps[at].ctime)
        return known[newest] if None not in known else None

    def place(self, record: Record, base: int, path: bytes, *, follow: bool) -> tuple[Place, bytes]:
        if len(record.inodes) <= base:
            raise damaged("a record lacks the directory its path starts from")
        start = self.node_of(record.inodes[base])
        top = self._timeline.progress.tops.get(record.pid, ROOT_NODE)
        place = self._walker.place(start, path, self._timeline.seq, follow=follow, top=top)
        return place, self._walker.where(place)

    def _places(self, record: Record, old: bytes, new: bytes | None = None) -> list[tuple[Place, bytes]]:
        """Where the names of a call are, and their paths; empty when nothing tells."""
        if apart.is_apart(record):
            found = apart.places(self._nodes, record, old, new)
            places = [(place, self._walker.where(place)) for place in found.places]
            if not found.sure:
                self._undecided(record, [where for _, where in places])
            return places
        paths = (old,) if new is None else (old, new)
        return [self.place(record, base, path, follow=False) for base, path in enumerate(paths)]

    def _undecided(self, record: Record, told: Sequence[bytes]) -> None:
        """What a call of a process apart did may have been done elsewhere, or to something else."""
        if not told:
            self._course.missed(record, UNDECIDED)
        elif any(not outside and not hidden for outside, hidden in map(self._nodes.judge, told)):
            self._course.missed(record, UNDECIDED, path=told[0], to=told[-1])

    def _unseen(self, place: Place, stamps: Sequence[Inode], into: NodeState | None = None) -> NodeState:
        """A node for something that stood there before anyone looked. `into`: the directory it is in now."""
        seq = self._timeline.seq
        told = [stamp for stamp in stamps if stamp.ino and self._nodes.find((stamp.dev, stamp.ino, stamp.gen)) is None]
        if into is not None and into.ident is not None:
            told = [stamp for stamp in told if (stamp.dev, stamp.parent) == (into.ident[0], into.ident[1])] or told
        told.sort(key=lambda stamp: stat.S_ISDIR(stamp.mode))
        state = self._nodes.implicit(place.parent, place.name, seq, told[0].mode if told else stat.S_IFREG | 0o644)
        state.fidelity = Fidelity.PARTIAL
        if told:
            self.seen(state, told[0], seq)
        return state

    def stamped(
        self, record: Record, bases: int, touched: Sequence[NodeState], seq: int, fresh: NodeState | None = None
    ) -> None:
        """Attributes after the call: the stamps where they are, what the caller already set where not."""
        devices = {inode.dev for inode in record.inodes[:bases]}
        found = {
            # What an earlier call of the thread touched has a stamp as well. It is of no use unless it is newer than
            # what we know: overlayfs has the times of a file that was written through memory only when it is asked.
            state: inode
            for state, inode in match(self._nodes, record.inodes[bases:], touched, fresh, devices).items()
            if state in touched or inode.ctime > state.ctime
        }
        for state, inode in found.items():
            self.take_inode(state, inode)
        if fresh is not None and fresh not in found:
            # Some filesystems say nothing of an inode they have just made; it is as old as the entry in its directory.
            parent = next((inode for state, inode in found.items() if state.node == fresh.parent), None)
            fresh.mtime = fresh.ctime = parent.mtime if parent else self._timeline.wall
        for state in {**dict.fromkeys(touched), **dict.fromkeys(found)}:
            self._nodes.put_attrs(state, seq)

    def drop(self, state: NodeState, parent: NodeState, name: bytes, seq: int) -> None:
        """A name goes away, and a directory with it."""
        self._nodes.take(state, parent, name, seq)
        state.ctime = self._timeline.wall
        if state.is_dir:
            parent.nlink -= 1
            state.nlink = 0
        self._nodes.put_attrs(state, seq)

    # -- calls -------------------------------------------------------------------------------

    def _make(self, record: Record) -> None:
        path, target = (*bytes(record.payload).split(b"\0", 1), b"")[:2]
        op, mode, rdev = Op.MKDIR, stat.S_IFDIR | record.offset & 0o1777 & ~0o022, 0
        if record.op == WireOp.SYMLINK:
            op, mode, target = Op.SYMLINK, stat.S_IFLNK | 0o777, first_string(target)
        elif record.op == WireOp.MKNOD:
            kind = stat.S_IFMT(record.offset) or stat.S_IFREG
            op, mode, rdev = Op.MKNOD, kind | record.offset & 0o7777 & ~0o022, record.length & UNCHANGED
        found = self._places(record, path)
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
        state = self._fresh(place, mode, record.pid, seq)
        if state.is_dir and not state.implicit:
            state.nlink = 2
            place.parent.nlink += 1
        state.implicit = False
        state.rdev = rdev
        if op is Op.SYMLINK:
            state.target, state.size = target, len(target)
        place.parent.mtime = place.parent.ctime = self._timeline.wall
        self.stamped(record, 1, (state, place.parent), seq, fresh=state)
        if op is not Op.SYMLINK:
            self.inherit(state, place.parent)

    def _passed_over_in(self, place: Place, record: Record) -> None:
        """What is left out was made or removed in a directory that is recorded: its times are other ones."""
        parent = place.parent
        if place.name and not self._nodes.is_hidden(parent):
            parent.mtime = parent.ctime = self._timeline.wall
            self.stamped(record, 1, (parent,), self._timeline.seq)

    def inherit(self, state: NodeState, parent: NodeState) -> None:
        """A directory may say what ACLs is made in it gets; `state` was just made there and has its mode."""
        if acl.DEFAULT in parent.xattrs:
            for name, value in acl.inherited(parent.xattrs, state.mode, is_dir=state.is_dir).items():
                state.set_xattr(name, value)
            self._nodes.put_attrs(state, state.changed)

    def _fresh(self, place: Place, mode: int, pid: int, seq: int) -> NodeState:
        """The node a call made at a place. A directory that was met before its MKDIR is that one."""
        old = place.node
        if old is not None:
            if old.implicit and old.is_dir and stat.S_ISDIR(mode):
                old.fidelity = Fidelity.EXACT
                return old
            self.drop(old, place.parent, place.name, seq)
        process = processes.at(self._timeline.txn, pid)
        uid = place.parent.uid if process is None else process.uid
        wall = self._timeline.wall
        state = self._nodes.new(mode, uid=uid, gid=place.parent.gid, mtime=wall, ctime=wall, version=seq)
        self._nodes.give(state, place.parent, place.name, seq)
        return state

    def _link(self, record: Record) -> None:
        old, new, _ = strings(record.payload, 2)
        if apart.is_apart(record):
            found = self._places(record, new)
            if not found:
                return
            place, where = found[0]
        else:
            place, where = self.place(record, 1, new, follow=False)
        state, source = self._linked(record, old, place)
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
        self.stamped(record, 2, (state, place.parent), seq)
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

    def _linked(self, record: Record, old: bytes, new: Place) -> tuple[NodeState, bytes]:
        """The file a LINK gives another name. Of /proc/self/fd/N, where no one looked what it is, its stamp tells."""
        if apart.is_apart(record):
            touched = apart.linked(self._nodes, record, old)
            if touched is None:
                self._undecided(record, [self._walker.where(new)])
                touched = self._nodes.new(stat.S_IFREG | 0o644, fidelity=Fidelity.UNKNOWN, version=self._timeline.seq)
            return touched, self._nodes.path(touched)
        if old.startswith(b"/proc/"):
            for stamp in record.inodes[2:]:
                state = self._reached([stamp])
                if state is not None and not state.is_dir:
                    return state, self._nodes.path(state)
        place, where = self.place(record, 0, old, follow=bool(record.offset & AT_SYMLINK_FOLLOW))
        stamps = [stamp for stamp in record.inodes[2:] if stamp.ino and not stat.S_ISDIR(stamp.mode)]
        if place.node is None and (reached := self._reached_all(stamps)):
            return reached, self._nodes.path(reached)
        return place.node or self._unseen(place, stamps), where

    def _rename(self, record: Record) -> None:
        old, new, _ = strings(record.payload, 2)
        found = self._places(record, old, new)
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
        moved, replaced = source.node or self._unseen(source, record.inodes[2:], target.parent), target.node
        if moved is replaced:
            return  # two names of one file: rename(2) does nothing
        exchange = bool(record.offset & RENAME_EXCHANGE)
        if exchange and replaced is None:
            replaced = self._unseen(target, ())
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
        self.stamped(record, 2, touched, seq, fresh=white)
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
            touched = [target.parent, self._unseen(Place(target.parent, target.name, None), record.inodes[2:])]
        touched[0].mtime = touched[0].ctime = self._timeline.wall
        self.stamped(record, 2, touched, seq)
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
        self._timeline.progress.set_top(record.pid, self.node_of(first_inode(record)).node)

    def _unlink(self, record: Record) -> None:
        found = self._places(record, first_string(record.payload))
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
        self.stamped(record, 1, touched, seq)


def first_string(payload: memoryview | bytes) -> bytes:
    """A path, closed by a NUL or by the end."""
    return bytes(payload).split(b"\0", 1)[0]


def first_inode(record: Record) -> Inode:
    if not record.inodes:
        raise damaged("a record lacks its inode")
    return record.inodes[0]
