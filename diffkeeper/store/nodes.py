"""Nodes now, as they are indexed.

Owns the tables ATTRS, NODES, LINKS and IDENTS: making nodes, binding the kernel's identities to
them, giving and taking names, and the path that a node has at the cursor. Which event does what
to a node belongs to `replay` and those it asks.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Any

from ..filtering import Filters
from ..model import ROOT_NODE, Fidelity, Session
from ..wire import Inode
from . import names, xattrs
from .churn import Churn
from .codec import damaged
from .db import Txn
from .names import LATEST, U64
from .state import Identity, NodeState, unpack_state
from .tables import Table
from .writer import ContentWriter

CACHED_NODES = 50_000
WAITING = 8192  # entries that wait to be put in order
MAX_DEPTH = 4096
_IDENT, _PAIR = struct.Struct(">IQI"), struct.Struct(">QQ")
_NOTED = b"?"
_PSEUDO = (b"/proc", b"/sys", b"/dev")
S_IFDIR = 0o40000


def is_under(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


class Nodes:
    """The nodes of a trace that is being indexed. `txn` is the batch of the moment, `next_node` the next number."""

    def __init__(self, session: Session, writer: ContentWriter, next_node: int) -> None:
        self.txn: Txn
        self.next_node = next_node
        self.by_ident: dict[Identity, NodeState] = {}
        self._writer = writer
        self.pass_over_traces(session)
        self._roots, self._in_roots = session.roots, tuple(root.rstrip(b"/") + b"/" for root in session.roots)
        self._cache: dict[int, NodeState] = {}
        self._children: dict[tuple[int, bytes], NodeState | None] = {}  # as in NAMES now
        self._churn = Churn()
        self._attrs: dict[bytes, bytes] = {}  # entries of ATTRS that are not in the transaction yet,
        self._names: dict[bytes, bytes] = {}  # of NAMES,
        self._links: dict[bytes, bytes] = {}  # and of LINKS
        self.filters = Filters(session.filters, session.roots)
        self._chooses = self.filters.judges_paths
        self.devices: frozenset[int] = frozenset()
        """Of filesystems that the recorder sees."""
        self.overlays: frozenset[int] = frozenset()
        """Of these, the devices of overlayfs."""
        self.ways: dict[tuple[int, int, bytes], NodeState] = {}
        self.literal_ways: dict[tuple[int, bytes], NodeState] = {}
        """Directories that `walk` has come to, until the next `turn`."""
        self.age = 0
        """Of all cached paths: grows when a directory moves."""

    # -- nodes -------------------------------------------------------------------------------

    def new(self, mode: int, **fields: Any) -> NodeState:
        state = NodeState(self.next_node, mode, young=True, **fields)
        self.next_node += 1
        self._cache[state.node] = state
        return state

    def root(self) -> NodeState:
        """The directory "/", which nothing has to say is there."""
        state = NodeState(ROOT_NODE, S_IFDIR | 0o755, nlink=2, fidelity=Fidelity.UNKNOWN, implicit=True)
        self._cache[ROOT_NODE] = state
        return state

    def get(self, node: int) -> NodeState:
        state = self._cache.get(node)
        if state is None:
            data = self.txn.get(Table.NODES, U64.pack(node))
            if data is None:
                raise damaged(f"node {node} is missing")
            state = self._cache[node] = unpack_state(data)
        return state

    def save(self, *, forget: bool) -> None:
        """Store what changed, blocks and all. `forget`: start over with an empty cache."""
        self._writer.flush_all()
        self._put_waiting()
        made: dict[bytes, bytes] = {}
        for state in self._cache.values():
            if state.dirty:
                key, packed = U64.pack(state.node), state.packed()
                if state.stored:
                    self.txn.replace(Table.NODES, key, packed)
                else:
                    made[key] = packed
                state.dirty, state.stored = False, True
        self.txn.put_all(Table.NODES, made)
        if forget:
            self._cache.clear()
            self._children.clear()
            self.turn()
            self.by_ident.clear()

    @property
    def crowded(self) -> bool:
        return len(self._cache) + len(self._children) > 2 * CACHED_NODES

    def put_attrs(self, state: NodeState, seq: int) -> None:
        """What the node is from `seq` on, but for content."""
        state.changed = seq
        state.dirty = True
        extra = xattrs.store(self.txn, state, seq) if state.xattrs or state.altered or state.spread else b""
        self._attrs[_PAIR.pack(state.node, seq)] = state.packed_attrs(extra)
        if len(self._attrs) + len(self._names) > WAITING:
            self._put_waiting()

    def _put_waiting(self) -> None:
        """Nothing reads ATTRS while indexing, and names are looked up in NAMES only once nothing of them waits."""
        self.txn.put_all(Table.ATTRS, self._attrs)
        self.txn.put_all(Table.NAMES, self._names)
        self._attrs.clear()
        self._names.clear()
        self._churn.flush(self.txn)
        self._put_links()

    def _put_links(self) -> None:
        self.txn.put_all(Table.LINKS, self._links)
        self._links.clear()

    # -- identities --------------------------------------------------------------------------

    def find(self, ident: Identity) -> NodeState | None:
        """The node an identity is bound to."""
        state = self.by_ident.get(ident)
        if state is None:
            node = self.txn.get(Table.IDENTS, _IDENT.pack(*ident))
            if node is not None:
                state = self.by_ident[ident] = self.get(int.from_bytes(node, "big"))
        return state

    def note(self, inode: Inode, state: NodeState) -> None:
        """Of a directory that stood there before: what stat() said of it, mostly without the generation (0).

        On overlayfs of all, as calls tell of the file below.
        """
        device = _kernel_device(inode.dev)
        if state.is_dir or device in self.overlays:
            self.txn.put(Table.IDENTS, _IDENT.pack(device, inode.ino, inode.gen) + _NOTED, U64.pack(state.node))

    def noted(self, ident: Identity) -> NodeState | None:
        """What was noted as having an identity, unless it is bound or gone by now."""
        for generation in (ident[2], 0):
            node = self.txn.get(Table.IDENTS, _IDENT.pack(ident[0], ident[1], generation) + _NOTED)
            state = self.get(int.from_bytes(node, "big")) if node is not None else None
            if state is not None and state.ident is None and state.names:
                return state
        return None

    def bind(self, ident: Identity, state: NodeState) -> None:
        self.txn.put(Table.IDENTS, _IDENT.pack(*ident), U64.pack(state.node))
        self.by_ident[ident] = state
        state.ident = ident
        state.dirty = True

    def unseen_filesystem(self, device: int) -> NodeState:
        """The root of a filesystem that only recorded processes see: in no directory, so at no moment."""
        ident = (device, 0, 0)
        state = self.find(ident)
        if state is None:
            name = b"[filesystem %d:%d]" % (device >> 20, device & 0xFFFFF)
            state = self.new(S_IFDIR | 0o755, implicit=True, parent=ROOT_NODE, name=name, nlink=2, names=1)
            self.bind(ident, state)
        return state

    # -- names -------------------------------------------------------------------------------

    def child(self, parent: NodeState, name: bytes) -> NodeState | None:
        key = parent.node, name
        try:
            return self._children[key]
        except KeyError:
            if parent.young:
                return None
            node = names.lookup(self.txn, parent.node, name, LATEST)
            state = self._children[key] = self.get(node) if node else None
            return state

    def give(self, state: NodeState, parent: NodeState, name: bytes, seq: int, *, chief: bool = False) -> None:
        """A name for a node; a name that something else has must be taken first. Directories have one.

        `chief`: of several names, this is the one its path is told by from now on.
        """
        self._assign(parent, name, seq, state)
        self._links[_link(state, parent.node, name)] = b""
        if chief or not state.names:
            state.parent, state.name, state.path_age = parent.node, name, -1
        state.names, state.dirty = state.names + 1, True

    def take(self, state: NodeState, parent: NodeState, name: bytes, seq: int) -> None:
        self._assign(parent, name, seq, None)
        link = _link(state, parent.node, name)
        if self._links.pop(link, None) is None:
            self.txn.delete(Table.LINKS, link)
        if not state.is_file:
            self.turn()
        state.names, state.dirty = state.names - 1, True
        if state.names and (state.parent, state.name) == (parent.node, name):
            self._put_links()
            for key, _ in self.txn.scan(Table.LINKS, U64.pack(state.node)):
                state.parent, state.name, state.path_age = int.from_bytes(key[8:16], "big"), key[16:], -1
                break

    def _assign(self, parent: NodeState, name: bytes, seq: int, state: NodeState | None) -> None:
        key, node = names.entry(parent.node, name, seq, state.node if state else 0)
        self._names[key] = node
        self._children[parent.node, name] = state
        if self._churn.note(self.txn, parent.node, name, seq, state.node if state else 0):
            self._put_waiting()
            self._churn.look(self.txn, parent.node)

    def turn(self) -> None:
        """Paths may lead elsewhere from now on: a directory or a symlink has left its place, or leads elsewhere."""
        self.ways.clear()
        self.literal_ways.clear()

    def moved(self, state: NodeState) -> None:
        """A directory has another name: so has everything in it."""
        if state.is_dir:
            self.age += 1

    def path(self, state: NodeState) -> bytes:
        """The absolute path: the latest of its names, the last one if it has none, b"" if it never had."""
        if state.path_age == self.age:
            return state.path
        above, parts = state, list[bytes]()
        while above.node != ROOT_NODE and above.parent:
            parts.append(above.name)
            above = self.get(above.parent)
            if above.path_age == self.age:
                parts.append(above.path.lstrip(b"/"))
                break
            if len(parts) > MAX_DEPTH:
                raise damaged("directories lie in one another in a ring")
        named = parts or state.node == ROOT_NODE
        state.path = b"/" + b"/".join(filter(None, reversed(parts))) if named else b""
        state.path_age = self.age
        state.outside, state.hidden = self.judge(state.path, is_dir=state.is_dir)
        return state.path

    def stands_at(self, state: NodeState, path: bytes, outside: bool) -> None:
        """What `path` would find out; nothing is hidden that stands there."""
        state.path, state.path_age, state.outside, state.hidden = path, self.age, outside, False

    def is_hidden(self, state: NodeState) -> bool:
        """Whether what happens to a node is no concern of ours, where it is now."""
        self.path(state)
        return state.hidden

    def judge(self, path: bytes, *, is_dir: bool = False) -> tuple[bool, bool]:
        """Whether a path is outside all roots, and whether what happens there is no concern of ours."""
        if self._left_out(path, is_dir=is_dir):
            return False, True
        if path.startswith(self._in_roots) or path in self._roots:
            return False, False
        return True, any(is_under(path, top) for top in _PSEUDO) and not is_under(path, b"/dev/shm")

    def _left_out(self, path: bytes, *, is_dir: bool) -> bool:
        """The trace itself, others, and what a filter rejects: there is no name for it at any moment."""
        if path.startswith(self._in_traces) or path in self._traces:
            return True
        return self._chooses and not self.filters.keeps_path(path, is_dir)

    def pass_over_traces(self, session: Session) -> None:
        """The recording's own, and those that it met."""
        self._traces = session.trace, *session.traces
        self._in_traces = tuple(trace.rstrip(b"/") + b"/" for trace in self._traces)

    def pass_over(self, path: bytes, *, is_dir: bool = False) -> None:
        """A call is left out because of this path: if a filter is why, it counts."""
        if self.filters and not path.startswith(self._in_traces) and path not in self._traces:
            self.filters.count(path, is_dir)

    def implicit(self, parent: NodeState, name: bytes, seq: int, mode: int = S_IFDIR | 0o755) -> NodeState:
        """A node that must be there, for something was found under it or done to it. Hidden: it gets no name."""
        where = self.path(parent).rstrip(b"/") + b"/" + name
        if self._left_out(where, is_dir=stat.S_ISDIR(mode)):
            return self.new(mode, implicit=True, parent=parent.node, name=name)
        state = self.new(mode, fidelity=Fidelity.UNKNOWN, implicit=True, version=seq)
        state.nlink = 2 if state.is_dir else 1
        if state.is_dir:
            parent.nlink += 1
        self.give(state, parent, name, seq)
        self.put_attrs(state, seq)
        return state


def _kernel_device(device: int) -> int:
    """A device number of stat() as the kernel has it."""
    return os.major(device) << 20 | os.minor(device)


def _link(state: NodeState, parent: int, name: bytes) -> bytes:
    return _PAIR.pack(state.node, parent) + name
