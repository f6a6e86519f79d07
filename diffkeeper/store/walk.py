"""Paths as system calls resolve them, in the recorded tree at the cursor.

Owns "." and "..", symlinks, and what to do with directories that were never seen: outside the
roots the tree is sparse, so they are made on the way. Reads nothing of the real filesystem.
"""

from __future__ import annotations

import stat
from typing import NamedTuple, TypeVar

from ..model import ROOT_NODE
from .names import MAX_NAME
from .nodes import Nodes
from .state import NodeState

MAX_SYMLINKS = 40
WAYS = 4096  # directories that are not looked for again
_NO_NAME = b"", b".", b".."
_Way = TypeVar("_Way")


class Place(NamedTuple):
    """Where a path leads: a name in a directory, and the node there, if any. "/", ".", "..": no name."""

    parent: NodeState
    name: bytes
    node: NodeState | None


class Walker:
    """Resolves paths. `seq`: from when on the directories that it has to make are there."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def place(self, base: NodeState, path: bytes, seq: int, *, follow: bool, top: int = ROOT_NODE) -> Place:
        """Where `path` leads from `base` (the process's root, when it is absolute). `top`: that root's node, else.

        `follow`: a symlink in the last place is followed. Past 40 symlinks they are taken as they stand,
        as the kernel would have failed the call.
        """
        nodes = self._nodes
        head, inside, tail = path.rpartition(b"/")
        way = base.node, top, head
        has_name = tail not in _NO_NAME
        if has_name and (known := nodes.ways.get(way) if inside else base) is not None and known.is_dir:
            tail = tail[: MAX_NAME + 1]
            found = nodes.child(known, tail)
            if found is None or not (follow and stat.S_ISLNK(found.mode)):
                return Place(known, tail, found)
        above = base if path.startswith(b"/") else nodes.get(top)
        here, name, node = base, b"", base
        links = 0
        rest = [part for part in reversed(path.split(b"/")) if part]
        noted = not (inside and has_name)
        while rest:
            if len(rest) == 1 and not noted:  # only the last name is left
                noted = True
                _note(nodes.ways, way, node)
            part = rest.pop()
            if not node.is_dir:  # a file that the call saw as a directory: something was missed
                return Place(here, name, node)
            if part == b".":
                here, name = node, b""
                continue
            if part == b"..":
                node = node if node is above else nodes.get(node.parent or ROOT_NODE)
                here, name = node, b""
                continue
            part = part[: MAX_NAME + 1]
            found = nodes.child(node, part)
            if found is None:
                if not rest:
                    return Place(node, part, None)
                found = nodes.implicit(node, part, seq)
            if stat.S_ISLNK(found.mode) and (rest or follow) and links < MAX_SYMLINKS:
                links += 1
                rest.extend(step for step in reversed(found.target.split(b"/")) if step)
                if found.target.startswith(b"/"):
                    node = above
                here, name = node, b""
                continue
            here, name, node = node, part, found
        return Place(here, name, node)

    def literal(self, path: bytes, seq: int, top: NodeState | None = None) -> Place:
        """Where an absolute path without "." and ".." leads when no symlink is followed. `top`: what "/" is."""
        nodes = self._nodes
        here = top or nodes.get(ROOT_NODE)
        head, _, tail = path.rpartition(b"/")
        way = here.node, head
        if tail and (known := nodes.literal_ways.get(way)) is not None:
            return Place(known, tail, nodes.child(known, tail))
        parts = [part for part in path.split(b"/") if part]
        if not parts:
            return Place(here, b"", here)
        for part in parts[:-1]:
            found = nodes.child(here, part)
            if found is not None and not found.is_dir:
                nodes.take(found, here, part, seq)
                nodes.put_attrs(found, seq)
                found = None
            here = found or nodes.implicit(here, part, seq)
        if tail:
            _note(nodes.literal_ways, way, here)
        return Place(here, parts[-1], nodes.child(here, parts[-1]))

    def where(self, place: Place) -> bytes:
        """The absolute path of a place."""
        parent, name, _ = place
        above = parent.path if parent.path_age == self._nodes.age else self._nodes.path(parent)
        return above.rstrip(b"/") + b"/" + name if name else above


def _note(ways: dict[_Way, NodeState], way: _Way, directory: NodeState) -> None:
    if len(ways) >= WAYS:
        ways.clear()
    ways[way] = directory
