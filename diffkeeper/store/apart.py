"""Where names are that a process with mounts of its own passed: told by what its call touched.

Owns the choice of the directories. Each that the call touched may be it; what is known of the tree and what touched
inodes say of their own names speaks against some, and the text of the path, whose beginning means nothing here, against
others.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Sequence
from typing import NamedTuple

from ..wire import Flag, Inode, Record, WireOp, name_tag
from .nodes import Nodes
from .state import NodeState
from .walk import Place

_EXCHANGE = 2
_IMPOSSIBLE, _UNLIKELY, _ODD = 100, 10, 1
"""How much speaks against a directory: the tree does not allow it; an inode says otherwise; it is spelt otherwise."""


class Found(NamedTuple):
    """The places of a call's names, none when it touched no directory that is known. `sure`: they can be no others."""

    places: list[Place]
    sure: bool = True


class _Directory(NamedTuple):
    """One that the call touched: what it says of itself now, and what is known of it."""

    stamp: Inode
    state: NodeState

    def holds(self, stamp: Inode, name: bytes) -> bool:
        return (stamp.dev, stamp.parent, stamp.tag) == (self.stamp.dev, self.stamp.ino, name_tag(name))


def is_apart(record: Record) -> bool:
    return bool(record.flags & Flag.APART)


def places(nodes: Nodes, record: Record, old: bytes, new: bytes | None = None) -> Found:
    """Where a call's names are, that of `old` and that of `new`. Of a LINK only the new one is asked for."""
    names = [_last(path) for path in (old, new) if path is not None]
    clues = _Clues(nodes, record, names)
    if not clues.directories:
        return Found([], sure=not clues.unknown)
    said: dict[tuple[_Directory, ...], int]
    if new is None:
        said = {(one,): clues.against(one, names[0], old) for one in clues.directories}
    else:
        said = {
            (one, other): clues.against_move(one, other, *names) + clues.spelt(one, 0, old) + clues.spelt(other, 1, new)
            for one, other in itertools.product(clues.directories, repeat=2)
        }
    least = min(said.values())
    best = [at for at, much in said.items() if much == least]
    if least >= _IMPOSSIBLE and not clues.changed:
        return Found([])  # as two names of one file were renamed to each other: what was touched, earlier calls touched
    found = [_place(nodes, one.state, name) for one, name in zip(best[0], names, strict=True)]
    return Found(found, len(best) == 1 and least < _IMPOSSIBLE and not clues.unknown)


def linked(nodes: Nodes, record: Record, old: bytes) -> NodeState | None:
    """The file that a LINK gave another name; without an `old` one what the call started from. None: not known.

    Of what was touched, the latest that has more names than are known. overlayfs touches only the file below, which has
    the same number.
    """
    if not old:
        return nodes.find(record.inodes[0].identity)
    device = next((one.stamp.dev for one in _Clues(nodes, record).directories), 0)
    for stamp in (stamp for stamp in record.inodes[2:] if not stat.S_ISDIR(stamp.mode)):
        identity = stamp.identity if stamp.dev == device else (device, stamp.ino, 0)
        state = nodes.find(identity) or nodes.noted(identity)
        if state and stat.S_IFMT(stamp.mode) == stat.S_IFMT(state.mode) and stamp.nlink > state.names > 0:
            return state
    return None


class _Clues:
    """What a record says of directories that its names may be in, and of what has these names now."""

    def __init__(self, nodes: Nodes, record: Record, names: Sequence[bytes] = ()) -> None:
        self._nodes, self._record = nodes, record
        bases = 2 if record.op in (WireOp.LINK, WireOp.RENAME) else 1
        stamps = [stamp for stamp in record.inodes[bases:] if stamp.ino]
        self._stamps = {stamp.identity: stamp for stamp in reversed(stamps)}
        self.directories: list[_Directory] = []
        """Those that are there still and are known, the latest first: overlayfs touches its own after the one below."""
        self.unknown = False
        """There are others, where the recorder could have seen them; but for what has got one of the names just now.

        What is in no directory does not count: btrfs keeps its own tree in such an inode.
        """
        for stamp in stamps:
            if not stat.S_ISDIR(stamp.mode) or not stamp.nlink:
                continue
            state = nodes.find(stamp.identity) or nodes.noted(stamp.identity)
            if state is None and stamp.dev in nodes.devices and stamp.tag not in (0, *map(name_tag, names)):
                self.unknown = True
            near = not self.directories or stamp.dev == self.directories[0].stamp.dev
            if near and state and state.is_dir and all(state is not other for _, other in self.directories):
                self.directories.append(_Directory(stamp, state))
        self.changed = [one for one in self.directories if one.stamp.mtime != one.state.mtime]
        """Those that certainly have got or lost a name. The clock may have stood still for others."""

    def against(self, at: _Directory, name: bytes, path: bytes) -> int:
        """What speaks against a directory in which a name was made or removed."""
        op, there = self._record.op, self._nodes.child(at.state, name)
        if op in (WireOp.UNLINK, WireOp.RMDIR):
            said = self._against_end(there)
            said += _IMPOSSIBLE if there and there.is_dir != (op == WireOp.RMDIR) else 0
        else:
            said = _IMPOSSIBLE if there and not there.implicit else 0
            said += 0 if op == WireOp.LINK or at.holds(self._record.inodes[-1], name) else _UNLIKELY
        return said + self._unchanged(at) + self.spelt(at, 1 if op == WireOp.LINK else 0, path)

    def against_move(self, source: _Directory, target: _Directory, old: bytes, new: bytes) -> int:
        """What speaks against `old` in one directory having been renamed to, or exchanged with, `new` in the other."""
        moved, replaced = self._nodes.child(source.state, old), self._nodes.child(target.state, new)
        said = self._against_name(moved, target, new) + self._unchanged(source, target)
        if self._record.offset & _EXCHANGE:
            said += self._against_name(replaced, source, old)
        elif replaced is not None:
            said += self._against_end(replaced)
            said += _IMPOSSIBLE if moved and moved.is_dir != replaced.is_dir else 0
        within = moved is target.state or replaced is source.state
        return said + (_IMPOSSIBLE if within or moved is replaced else 0)

    def spelt(self, at: _Directory, base: int, path: bytes) -> int:
        """How much of the path's text calls the directory otherwise; one without any is where the call started."""
        above = [part for part in path.rstrip(b"/").split(b"/")[:-1] if part not in (b"", b".")]
        if not above:
            is_base = self._record.inodes[base].identity == at.stamp.identity
            return 0 if is_base or path.startswith(b"/") else _UNLIKELY
        above = above[1 - _UNLIKELY :]  # however long it is, what inodes say counts more
        state, said = at.state, len(above)
        while said and above[said - 1] == state.name and state.parent:
            state, said = self._nodes.get(state.parent), said - 1
        return _ODD * said

    def _against_name(self, node: NodeState | None, at: _Directory, name: bytes) -> int:
        """What speaks against a node having got a name by this call."""
        if node is None:
            return _IMPOSSIBLE
        if node.ident is None:
            return 0 if any(at.holds(stamp, name) for stamp in self._stamps.values()) else _ODD
        stamp = self._stamps.get(node.ident)
        if stamp is None:
            return _UNLIKELY
        return _IMPOSSIBLE if stamp.tag and not at.holds(stamp, name) else 0

    def _against_end(self, node: NodeState | None) -> int:
        """What speaks against a node having lost a name by this call."""
        if node is None:
            return _IMPOSSIBLE
        stamp = self._stamps.get(node.ident) if node.ident else None
        if stamp is None:
            return _ODD if node.ident is None else _UNLIKELY
        return 0 if stamp.nlink < max(node.names, node.is_dir) else _UNLIKELY

    def _unchanged(self, *at: _Directory) -> int:
        """A directory whose names change gets another mtime, if one does."""
        chosen = [one for one in at if self.changed and one not in self.changed]
        return _ODD * (len(chosen) + sum(one not in at for one in self.changed))


def _last(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2]


def _place(nodes: Nodes, directory: NodeState, name: bytes) -> Place:
    return Place(directory, name, nodes.child(directory, name))
