"""Which node each inode of a record is.

Owns the matching of a path call's stamps (inodes whose ctime it changed) to the nodes it touched.
An identity that is bound says it; any other stamp must fit one touched node only, by kind and by
the directory it lies in, or it is left alone: overlayfs shows each inode twice, and a wrong
attribute is worse than none.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from ..wire import Inode, name_tag
from .nodes import Nodes
from .state import Identity, NodeState


def match(
    nodes: Nodes, stamps: Sequence[Inode], touched: Sequence[NodeState], fresh: NodeState | None, devices: set[int]
) -> dict[NodeState, Inode]:
    """Touched node -> its stamp, as far as it is certain; unbound identities are bound.

    `fresh`: the touched node that the call made. `devices`: of the directories the call started from.
    """
    found: dict[NodeState, Inode] = {}
    unknown: list[Inode] = []
    for identity, stamp in _once(stamps).items():
        state = nodes.find(identity)
        if state is None and stat.S_ISDIR(stamp.mode) and (state := nodes.noted(identity)):
            nodes.bind(identity, state)
        # A directory's own name says nothing: where it is mounted it has another one.
        fits = state is not None and (_fits(state, stamp) or (state.is_dir and stat.S_ISDIR(stamp.mode)))
        if state is not None and fits and not (fresh and state.names == 0):
            found[state] = stamp
        else:
            unknown.append(stamp)  # not seen before, or the number of an inode that is gone, used again
    left = [state for state in touched if state not in found and state.ident is None]
    if not left or not unknown:
        return found
    # Of the touched nodes alone: what lies below an overlayfs may be known as well.
    known = {found[state].dev for state in touched if state in found}
    known |= {state.ident[0] for state in touched if state.ident}
    near = [stamp for stamp in unknown if stamp.dev in (known or devices)]
    # Without a known one, the path may lead into another filesystem than the one it starts in.
    unknown = near if known or near else unknown
    while left and unknown and (pair := _sure(nodes, left, unknown, found)):
        state, stamp = pair  # each one that is found may make another one sure
        found[state] = stamp
        nodes.bind(_identity(stamp), state)
        left.remove(state)
        unknown = [one for one in unknown if one is not stamp and one.dev == stamp.dev]
    if len(left) == 1:
        fitting = [one for one in unknown if _fits(left[0], one)]
        sure = [one for one in fitting if _lies_surely(nodes, left[0], one, found)]
        if twin := _twins(sure or fitting):
            found[left[0]] = twin
    return found


def _once(stamps: Sequence[Inode]) -> dict[Identity, Inode]:
    """Each identity with its latest stamp: overlayfs may have two inodes of one number, one from an older call."""
    latest: dict[Identity, Inode] = {}
    for stamp in stamps:
        if stamp.ino:
            latest.setdefault(_identity(stamp), stamp)
    return latest


def _twins(stamps: Sequence[Inode]) -> Inode | None:
    """One of two stamps that say the same in all but who they are: a file of overlayfs and the one below. Unbound."""
    if len(stamps) != 2 or stamps[0].dev == stamps[1].dev:
        return None
    one, other = (stamp._replace(ino=0, dev=0, gen=0, parent=0) for stamp in stamps)
    return stamps[0] if one == other else None


def _sure(
    nodes: Nodes, left: Sequence[NodeState], unknown: Sequence[Inode], found: dict[NodeState, Inode]
) -> tuple[NodeState, Inode] | None:
    """A node and a stamp that fit each other and nothing else: by its directory if that is known, else at all."""
    fitting = {state: [one for one in unknown if _fits(state, one)] for state in left}
    sure = {state: [one for one in ones if _lies_surely(nodes, state, one, found)] for state, ones in fitting.items()}
    maybe = {state: [one for one in ones if _lies_maybe(nodes, state, one, found)] for state, ones in fitting.items()}
    for table in (sure, maybe, _nested(maybe)):
        for state, candidates in table.items():
            if len(candidates) == 1 and sum(candidates[0] in others for others in table.values()) == 1:
                return state, candidates[0]
    return None


def _nested(table: dict[NodeState, list[Inode]]) -> dict[NodeState, list[Inode]]:
    """Of the candidates for a directory and for what is in it, those that lie in one another as well."""
    result = dict(table)
    for state, candidates in table.items():
        for other, others in table.items():
            if state.parent == other.node:
                result[state] = [one for one in candidates if any(one.parent == above.ino for above in others)]
                result[other] = [above for above in others if any(one.parent == above.ino for one in candidates)]
    return result


def _identity(stamp: Inode) -> Identity:
    return stamp.dev, stamp.ino, stamp.gen


def _fits(state: NodeState, stamp: Inode) -> bool:
    """By type, name and links: a file that is gone has none, one that is there as many as names we know, or more."""
    if stamp.tag and state.names == 1 and stamp.tag != name_tag(state.name):
        return False
    if state.implicit and not state.is_dir:
        return True
    if stat.S_IFMT(state.mode) != stat.S_IFMT(stamp.mode):
        return False
    return state.is_dir or (stamp.nlink >= state.names and bool(stamp.nlink) == bool(state.names))


def _lies_surely(nodes: Nodes, state: NodeState, stamp: Inode, found: dict[NodeState, Inode]) -> bool:
    """Whether the stamp names the very directory that the node is in."""
    if not stamp.parent or not state.parent or state.names > 1:
        return False
    parent = nodes.get(state.parent)
    known = found[parent].ino if parent in found else parent.ident[1] if parent.ident else None
    return known == stamp.parent


def _lies_maybe(nodes: Nodes, state: NodeState, stamp: Inode, found: dict[NodeState, Inode]) -> bool:
    """Whether nothing speaks against it."""
    if not stamp.parent or not state.parent or state.names > 1:
        return True
    parent = nodes.get(state.parent)
    return (parent not in found and parent.ident is None) or _lies_surely(nodes, state, stamp, found)
