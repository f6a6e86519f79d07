"""Which node each inode of a record is.

Owns the matching of a path call's stamps (inodes whose ctime it changed) to the nodes it touched.
An identity that is bound says it; any other stamp must fit one touched node only, by kind and by
the directory it lies in, or it is left alone: overlayfs shows each inode twice, and a wrong
attribute is worse than none.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from ..wire import Inode
from .nodes import Nodes
from .state import Identity, NodeState


def match(
    nodes: Nodes, stamps: Sequence[Inode], touched: Sequence[NodeState], fresh: NodeState | None, devices: set[int]
) -> dict[NodeState, Inode]:
    """Touched node -> its stamp, as far as it is certain; unbound identities are bound.

    `fresh`: the touched node that the call made. `devices`: of the directories the call started from.
    """
    result: dict[NodeState, Inode] = {}
    unknown: list[Inode] = []
    for stamp in stamps:
        state = nodes.find(_identity(stamp))
        if state is not None and _fits(state, stamp) and not (fresh and state.names == 0):
            result[state] = stamp
        else:
            unknown.append(stamp)  # not seen before, or the number of an inode that is gone, used again
    known = {stamp.dev for stamp in result.values()} | {state.ident[0] for state in touched if state.ident}
    for state in touched:
        if state in result or state.ident is not None:
            continue
        candidates = [stamp for stamp in unknown if _fits(state, stamp) and _lies(nodes, state, stamp, result)]
        if known:
            candidates = [stamp for stamp in candidates if stamp.dev in known]
        else:  # the path may lead into another filesystem than the one it starts in
            candidates = [stamp for stamp in candidates if stamp.dev in devices] or candidates
        if len(candidates) > 1:
            candidates = _paired(state, candidates, unknown, touched)
        if len(candidates) == 1:
            unknown.remove(candidates[0])
            result[state] = candidates[0]
            known.add(candidates[0].dev)
            nodes.bind(_identity(candidates[0]), state)
    return result


def _paired(
    state: NodeState, candidates: list[Inode], unknown: list[Inode], touched: Sequence[NodeState]
) -> list[Inode]:
    """Of several candidates, those that lie in one another as the touched nodes do."""
    if any(other.node == state.parent for other in touched):
        return [one for one in candidates if any(_contains(other, one) for other in unknown)]
    if any(other.parent == state.node for other in touched):
        return [one for one in candidates if any(_contains(one, other) for other in unknown)]
    return candidates


def _contains(directory: Inode, entry: Inode) -> bool:
    return directory is not entry and directory.dev == entry.dev and directory.ino == entry.parent


def _identity(stamp: Inode) -> Identity:
    return stamp.dev, stamp.ino, stamp.gen


def _fits(state: NodeState, stamp: Inode) -> bool:
    """By type, and by links: a file that is gone has none, one that is there as many as names we know, or more."""
    if state.implicit and not state.is_dir:
        return True
    if stat.S_IFMT(state.mode) != stat.S_IFMT(stamp.mode):
        return False
    return state.is_dir or (stamp.nlink >= state.names and bool(stamp.nlink) == bool(state.names))


def _lies(nodes: Nodes, state: NodeState, stamp: Inode, found: dict[NodeState, Inode]) -> bool:
    """Whether the directory a stamp names can be the one the node is in."""
    if not stamp.parent or not state.parent or state.names > 1:
        return True
    parent = nodes.get(state.parent)
    if parent.ident is not None and parent.ident[0] == stamp.dev:
        return parent.ident[1] == stamp.parent
    other = found.get(parent)
    return other is None or other.dev != stamp.dev or other.ino == stamp.parent
