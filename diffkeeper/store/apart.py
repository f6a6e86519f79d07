"""Where names are that a process with mounts of its own passed: told by what its call touched.

Owns the choice of the directories. Of the path's text only the last name counts. What touched inodes say of their own
names and directories counts first, then which of the directories has the name.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from ..wire import Flag, Inode, Record, WireOp, name_tag
from .nodes import Nodes
from .state import NodeState
from .walk import Place

_EXCHANGE = 2


def is_apart(record: Record) -> bool:
    return bool(record.flags & Flag.APART)


def places(nodes: Nodes, record: Record, old: bytes, new: bytes | None = None) -> list[Place]:
    """Where a call's names are, that of `old` and that of `new`; empty when it touched no directory that is known.

    Of a LINK only the new one is asked for.
    """
    stamps = [stamp for stamp in record.inodes[2 if record.op in (WireOp.LINK, WireOp.RENAME) else 1 :] if stamp.ino]
    first, second = _last(old), _last(new or b"")
    given = (first, second) if record.offset & _EXCHANGE or new is None else (second,)
    found = _around(_directories(nodes, stamps), {name_tag(name) for name in given if name})
    if not found:
        return []
    if new is None:
        removes = record.op in (WireOp.UNLINK, WireOp.RMDIR)
        at = _having(nodes, found, first, stamps) if removes else _holder(stamps, found, first)[0]
        return [_place(nodes, at or found[0][1], first)]
    target, moved = _holder(stamps, found, second)
    others = [each for each in found if each[1] is not target] if first == second else found
    source = _holder(stamps, others, first)[0] if record.offset & _EXCHANGE else None
    if source is None:
        source = _having(nodes, others, first, [moved] if moved else [s for s in stamps if not stat.S_ISDIR(s.mode)])
    if source is None:  # in the same directory, unless there is another one, which nobody has looked into
        source = next((state for _, state in found if state is not target), found[0][1])
    if target is None:
        target = next((state for _, state in found if state is not source), source)
    return [_place(nodes, source, first), _place(nodes, target, second)]


def linked(nodes: Nodes, record: Record) -> NodeState | None:
    """The file that a LINK gave another name: the one that was touched last.

    overlayfs touches only the file below, which has the same number. None: it is not known.
    """
    stamps = [stamp for stamp in record.inodes[2:] if stamp.ino]
    device = next((stamp.dev for stamp, _ in _directories(nodes, stamps)), 0)
    for stamp in stamps:
        if not stat.S_ISDIR(stamp.mode):
            above = (device, stamp.ino, 0)
            return nodes.find(stamp.identity if stamp.dev == device else above)
    return None


def _directories(nodes: Nodes, stamps: Sequence[Inode]) -> list[tuple[Inode, NodeState]]:
    """Those that are there still and are known, the latest first: overlayfs touches its own after the one below."""
    found: list[tuple[Inode, NodeState]] = []
    for stamp in stamps:
        if not stat.S_ISDIR(stamp.mode) or not stamp.nlink or (found and stamp.dev != found[0][0].dev):
            continue
        state = nodes.find(stamp.identity)
        if state is not None and state.is_dir and all(state is not other for _, other in found):
            found.append((stamp, state))
    return found


def _around(found: list[tuple[Inode, NodeState]], tags: set[int]) -> list[tuple[Inode, NodeState]]:
    """Without those that have got one of the names, in another of them: it is in that one that the call did so."""
    within = {(stamp.dev, stamp.ino) for stamp, _ in found}
    return [each for each in found if each[0].tag not in tags or (each[0].dev, each[0].parent) not in within] or found


def _holder(
    stamps: Sequence[Inode], directories: Sequence[tuple[Inode, NodeState]], name: bytes
) -> tuple[NodeState | None, Inode | None]:
    """The directory in which something touched has this name now, as it says of itself; and what that is."""
    for stamp in stamps:
        if stamp.tag == name_tag(name):
            for directory, state in directories:
                if (stamp.dev, stamp.parent) == (directory.dev, directory.ino):
                    return state, stamp
    return None, None


def _having(
    nodes: Nodes, directories: Sequence[tuple[Inode, NodeState]], name: bytes, wanted: Sequence[Inode]
) -> NodeState | None:
    """The one that has the name by now; of several, where it is one of the `wanted`, or unknown, or of their kind."""
    identities, kinds = {stamp.identity for stamp in wanted}, {stat.S_IFMT(stamp.mode) for stamp in wanted}
    having = [(state, child) for _, state in directories if (child := nodes.child(state, name))]
    having.sort(
        key=lambda each: (
            each[1].ident not in identities, each[1].ident is not None, stat.S_IFMT(each[1].mode) not in kinds
        )
    )  # fmt: skip
    return having[0][0] if having else None


def _last(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2]


def _place(nodes: Nodes, directory: NodeState, name: bytes) -> Place:
    return Place(directory, name, nodes.child(directory, name))
