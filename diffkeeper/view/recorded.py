"""What was recorded, at one moment: directories, and everything that stands in them.

Owns which node of the store appears where in a moment and which inode it shares.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from diffkeeper.model import ROOT_NODE, Attrs

from .roots import join
from .tree import Entry, Kind, Place, directory_attrs

if TYPE_CHECKING:
    from diffkeeper.trace import Trace


class At(NamedTuple):
    """A moment as it was spelt.

    Two spellings of one moment are two directories: sharing an inode, the kernel would move the one
    to where the other was looked up, and `pwd` in it would change.
    """

    seq: int
    spelling: bytes


def moment_top(trace: Trace, at: At) -> Entry:
    """The top directory of a moment: the root, or with several roots the way to them."""
    top = trace.layout.top
    if trace.layout.ways:
        return _entry(Way(trace, at, top))
    node = trace.reader.resolve(top, at.seq)
    found = recorded(trace, at, node) if node is not None else None
    return found or _entry(Gone(trace, at))


def outside_top(trace: Trace, at: At) -> Entry:
    """What was seen outside the roots at a moment, from "/" down; the roots are left out."""
    nodes = (trace.reader.resolve(root, at.seq) for root in trace.roots)
    roots = frozenset(node for node in nodes if node is not None)
    attrs = None if ROOT_NODE in roots else trace.reader.attrs(ROOT_NODE, at.seq)
    return Entry(Directory(trace, at, ROOT_NODE, roots), attrs) if attrs else _entry(Gone(trace, at))


def recorded(trace: Trace, at: At, node: int, without: frozenset[int] | None = None) -> Entry | None:
    """A node at a moment; None when it has no attributes then."""
    attrs = trace.reader.attrs(node, at.seq)
    return None if attrs is None else _recorded(trace, at, node, attrs, without)


def _recorded(trace: Trace, at: At, node: int, attrs: Attrs, without: frozenset[int] | None) -> Entry:
    if attrs.is_dir:
        return Entry(Directory(trace, at, node, without), attrs)
    return Entry(File(trace, at.seq, node, attrs), attrs)


def _entry(place: Place) -> Entry:
    return Entry(place, place.attrs())


class Directory(Place):
    """A recorded directory at a moment.

    `without` is for what is seen outside the roots: the nodes that are not, here or below. The two
    views have inodes of their own, as a directory has its place in each.
    """

    __slots__ = ("_at", "_node", "_trace", "_without")

    def __init__(self, trace: Trace, at: At, node: int, without: frozenset[int] | None = None) -> None:
        super().__init__((Kind.DIRECTORY if without is None else Kind.OUTSIDE, *at, node))
        self._trace, self._at, self._node, self._without = trace, at, node, without

    def attrs(self) -> Attrs:
        return self._trace.reader.attrs(self._node, self._at.seq) or self._refuse(errno.ESTALE)

    def lookup(self, name: bytes) -> Entry | None:
        child = self._trace.reader.lookup(self._node, name, self._at.seq)
        if child is None or (self._without is not None and child in self._without):
            return None
        return recorded(self._trace, self._at, child, self._without)

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        trace, at, without = self._trace, self._at, self._without
        listing = trace.reader._listing(self._node, at.seq)  # noqa: SLF001 - shared, and so not for plugins
        if listing.shown is None:  # a directory has its place in one moment only; all else is the same as long as this
            listing.shown = [
                None if attrs.is_dir else Entry(File(trace, at.seq, child, attrs), attrs)
                for _, child, attrs in listing.entries
            ]
        for (name, child, attrs), entry in zip(listing.entries, listing.shown, strict=True):
            if without is None or child not in without:
                yield name, entry or Entry(Directory(trace, at, child, without), attrs)


class File(Place):
    """A recorded version of anything but a directory. Met at any moment that has this version."""

    __slots__ = ("_node", "_seq", "_trace")

    def __init__(self, trace: Trace, seq: int, node: int, attrs: Attrs) -> None:
        self.key = Kind.FILE, node, attrs.version, attrs.changed, attrs.nlink  # what Place does: there are many files
        self._trace, self._seq, self._node = trace, seq, node

    def attrs(self) -> Attrs:
        return self._trace.reader.attrs(self._node, self._seq) or self._refuse(errno.ESTALE)

    def read(self, offset: int, size: int) -> bytes:
        return self._trace.reader.read(self._node, self._seq, offset, size)


class Way(Place):
    """A directory above several roots: only what leads to a root is in it."""

    __slots__ = ("_at", "_path", "_trace")

    def __init__(self, trace: Trace, at: At, path: bytes) -> None:
        super().__init__((Kind.WAY, *at, path))
        self._trace, self._at, self._path = trace, at, path

    def attrs(self) -> Attrs:
        return directory_attrs(self._trace.session.started, 2 + len(self._trace.layout.ways[self._path]))

    def lookup(self, name: bytes) -> Entry | None:
        path = join(self._path, name)
        if path in self._trace.layout.ways:
            return _entry(Way(self._trace, self._at, path))
        if path not in self._trace.roots:
            return None
        node = self._trace.reader.resolve(path, self._at.seq)
        return recorded(self._trace, self._at, node) if node is not None else None

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        for name in self._trace.layout.ways[self._path]:
            entry = self.lookup(name)
            if entry is not None:
                yield name, entry


class Gone(Place):
    """An empty directory, in place of a root that is not there at a moment."""

    __slots__ = ("_trace",)

    def __init__(self, trace: Trace, at: At) -> None:
        super().__init__((Kind.GONE, *at))
        self._trace = trace

    def attrs(self) -> Attrs:
        return directory_attrs(self._trace.session.started)

    def lookup(self, name: bytes) -> Entry | None:
        del name
        return None

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        return iter(())
