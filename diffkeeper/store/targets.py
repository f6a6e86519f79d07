"""What a record points at: which nodes and places its inodes, paths and stamps mean, and what its inodes say of them.

Owns the choice between these where they disagree, and the nodes made for what nobody had seen before. Where a stamp
tells what an inode said afterwards, that counts; else what the caller set. What a call does to the nodes belongs to
`calls`, `attributes` and `data`; how paths are followed to `walk`, whose a stamp is to `stamps`, and names that a
process with mounts of its own passed to `apart`.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence

from ..model import ROOT_NODE, Fidelity
from ..wire import Flag, Inode, Record
from . import apart
from .codec import damaged
from .course import Course
from .nodes import Nodes
from .stamps import match
from .state import NodeState
from .timeline import Timeline
from .walk import Place, Walker
from .writer import ContentWriter

AT_SYMLINK_FOLLOW = 0x400
MAGIC = (b"/proc/", b"/dev/fd/", b"/dev/std")  # paths that are no names, but lead to what a process has open
UNTOLD = b"a change through a path in /proc, where nothing tells of which file"
UNDECIDED = b"a name that a process with mounts of its own passed may be in several directories"


class Targets:
    """Asked about one record at a time."""

    def __init__(self, timeline: Timeline, nodes: Nodes, writer: ContentWriter, course: Course) -> None:
        self._timeline, self._nodes, self._writer, self._course = timeline, nodes, writer, course
        self._walker = Walker(nodes)

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
        _, _, _, size, state.mtime, state.ctime, _, state.mode, state.uid, state.gid, nlink, state.rdev, _ = inode
        if state.is_dir:
            state.nlink = nlink
        if not state.is_file:
            state.size = size

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
            if self._timeline.caller is not None and where.startswith(MAGIC):
                self._course.missed(record, UNTOLD, path=where)
            nodes.pass_over(where)
            return None
        stamps = [stamp for stamp in record.inodes[1:] if stamp.ino]
        if place.node is not None:
            return place.node, where
        if reached := self._reached_all(stamps):
            return reached, nodes.path(reached)
        return self.unseen(place, stamps), where

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
        """Where a path leads from the record's inode number `base`, and as what path. Raises TraceDamagedError."""
        if len(record.inodes) <= base:
            raise damaged("a record lacks the directory its path starts from")
        start = self.node_of(record.inodes[base])
        top = self._timeline.progress.tops.get(record.pid, ROOT_NODE)
        place = self._walker.place(start, path, self._timeline.seq, follow=follow, top=top)
        return place, self._walker.where(place)

    def places(self, record: Record, old: bytes, new: bytes | None = None) -> list[tuple[Place, bytes]]:
        """Where the names of a call are, and their paths; empty when nothing tells."""
        if apart.is_apart(record):
            found = apart.places(self._nodes, record, old, new)
            places = [(place, self._walker.where(place)) for place in found.places]
            if not found.sure:
                self._undecided(record, [where for _, where in places])
            return places
        paths = (old,) if new is None else (old, new)
        return [self.place(record, base, path, follow=False) for base, path in enumerate(paths)]

    def linked(self, record: Record, old: bytes, new: Place) -> tuple[NodeState, bytes]:
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
        return place.node or self.unseen(place, stamps), where

    def _undecided(self, record: Record, told: Sequence[bytes]) -> None:
        """What a call of a process apart did may have been done elsewhere, or to something else."""
        if not told:
            self._course.missed(record, UNDECIDED)
        elif any(not outside and not hidden for outside, hidden in map(self._nodes.judge, told)):
            self._course.missed(record, UNDECIDED, path=told[0], to=told[-1])

    def unseen(self, place: Place, stamps: Sequence[Inode], into: NodeState | None = None) -> NodeState:
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
        caller = self._timeline.caller
        # Where no tracepoint told what was changed, the directories that the call started from may be among it.
        found = match(self._nodes, record.inodes[0 if caller else bases :], touched, fresh, devices)
        changed = dict.fromkeys(touched)
        if caller is not None:
            self._refine(touched, found)
        for state, inode in found.items():
            # What an earlier call of the thread touched has a stamp as well. It is of no use unless it is newer than
            # what we know: overlayfs has the times of a file that was written through memory only when it is asked.
            if state in changed or inode.ctime > state.ctime:
                changed[state] = None
                self.take_inode(state, inode)
        if fresh is not None and fresh not in found:
            # Some filesystems say nothing of an inode they have just made; it is as old as the entry in its directory.
            parent = next((found.get(state) for state in changed if state.node == fresh.parent), None)
            fresh.mtime = fresh.ctime = parent.mtime if parent else self._timeline.wall
        for state in changed:
            self._nodes.put_attrs(state, seq)

    def _refine(self, touched: Sequence[NodeState], found: Mapping[NodeState, Inode]) -> None:
        """The clock may have ticked since what was touched got its times: what is known of one of them is better."""
        time = self._timeline.wall
        told = max((found[state].ctime for state in touched if state in found), default=time)
        for state in touched:
            if state not in found:
                state.mtime = told if state.mtime == time else state.mtime
                state.ctime = told if state.ctime == time else state.ctime


def first_string(payload: memoryview | bytes) -> bytes:
    """A path, closed by a NUL or by the end."""
    return bytes(payload).split(b"\0", 1)[0]


def first_inode(record: Record) -> Inode:
    if not record.inodes:
        raise damaged("a record lacks its inode")
    return record.inodes[0]
