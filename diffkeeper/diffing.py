"""What changed between two moments, from the index: the cost follows the change, not the tree.

Owns `Change` and the rule for what counts as one. The events between the moments name every path
that can differ; both moments are looked at there and nowhere else. Files are paired by path first
(a file that was replaced is modified, and one rewritten with the same bytes is not), then by
identity: what moved is renamed, a directory as one change. Access and change times, a directory's
own mtime and link counts are no difference.
"""

from __future__ import annotations

import enum
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from .errors import PluginError, TraceDamagedError
from .filtering import Filters, Spec
from .model import ROOT_NODE, Attrs, Moment, Op
from .paths import PathPatterns, paths_of
from .view.roots import join

if TYPE_CHECKING:
    from .store.reader import Reader
    from .trace import Trace

_NAMES = frozenset(
    {Op.CREATE, Op.MKDIR, Op.MKNOD, Op.SYMLINK, Op.LINK, Op.RENAME, Op.EXCHANGE, Op.UNLINK, Op.RMDIR, Op.HEAL}
)
_MOVES_DIRECTORIES = frozenset({Op.RENAME, Op.EXCHANGE, Op.RMDIR, Op.HEAL})
_TWO_PATHS = frozenset({Op.LINK, Op.RENAME, Op.EXCHANGE})
_NO_FILES = frozenset({Op.FORK, Op.EXEC, Op.EXIT, Op.MARK, Op.GAP})
_CHUNK = 1 << 20


class Kind(enum.StrEnum):
    """How a path differs. The value is what `diff --json` prints."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"  # other content or target
    ATTRIBUTES = "attributes"  # same content; other mode, owner, extended attributes, or mtime
    TYPE = "type"  # e.g. a file became a symlink
    RENAMED = "renamed"  # content or attributes may differ too


class Change(Struct, frozen=True):
    """One path that differs. `path` is absolute, as it is at `b` (of what was removed: as it was at `a`).

    `before` is None for what was added, `after` for what was removed. `renamed_from` is the path at
    `a` where that was another: for RENAMED, and for what differs in a directory that was renamed.
    The nodes are those that `Reader.read` takes, 0 where there is none. `rewritten`: the content or
    symlink target differs.
    """

    path: bytes
    kind: Kind
    before: Attrs | None
    after: Attrs | None
    renamed_from: bytes | None = None
    before_node: int = 0
    after_node: int = 0
    rewritten: bool = True


def diff(
    trace: Trace, a: Moment, b: Moment, paths: Sequence[str | bytes] = (), filters: Sequence[Spec] = ()
) -> Iterator[Change]:
    """What one sees changing from the tree at `a` to the tree at `b` (which may be earlier), sorted by path.

    `paths`: patterns as in `diffkeeper.paths`; a rename is shown when either name matches. `filters`: as in
    `Trace.diff`. Raises PluginError.
    """
    keeps = _kept(trace, filters, *sorted((a.seq, b.seq)))
    patterns = PathPatterns([os.fsencode(path) for path in paths], trace.roots)
    first, last = sorted((a.seq, b.seq))
    touched = _touched(trace.reader, first, last)
    before = _Side(trace, a.seq, touched)
    after = _Side(trace, b.seq, touched)
    changes = _Comparison(before, after, trace.roots).changes()
    for change in sorted(changes, key=lambda change: change.path):
        chosen = patterns.match(change.path) or (change.renamed_from and patterns.match(change.renamed_from))
        if chosen and keeps(change):
            yield change


def _kept(trace: Trace, specs: Sequence[Spec], first: int, last: int) -> Callable[[Change], bool]:
    """Whether filters keep a change between two events: its path, and an event that had a part in it."""
    filters = Filters.of(trace, specs)
    nodes: set[int] = set()
    paths: set[bytes] = set()
    for event in trace.reader.events(first + 1, last) if filters.judges_events and first < last else ():
        if event.op not in _NO_FILES and filters.keeps(event):
            nodes.add(event.node)
            paths.update(paths_of(event))

    def keeps(change: Change) -> bool:
        attrs = change.after or change.before
        is_dir = attrs is not None and attrs.is_dir
        names = {change.path, change.renamed_from or change.path}
        if not any(filters.keeps_path(path, is_dir) for path in names):
            return False
        return not filters.judges_events or not nodes.isdisjoint({change.before_node, change.after_node} - {0}) or (
            not paths.isdisjoint(names)
        )

    return keeps


Link = tuple[int, bytes]
"""A name as the tree has it: the directory's node, and the name in it."""


def _touched(reader: Reader, first: int, last: int) -> dict[int, set[bytes]]:
    """Directory node -> names in it that lead to something an event in (first, last] touched.

    Each event's paths are followed at the event, and where directories move also just before it.
    So whatever moved in between, the way to a file at either end is made of links found here.
    """
    names: dict[int, set[bytes]] = defaultdict(set)
    directories: dict[bytes, int] = {}
    seen: set[tuple[int, bytes]] = set()

    def follow(path: bytes, seq: int) -> int | None:
        """The node of a directory; the links on the way to it are noted."""
        if not path:
            return ROOT_NODE
        if path in directories:
            return directories[path]
        above, _, name = path.rpartition(b"/")
        parent = follow(above, seq)
        if parent is None:
            return None
        names[parent].add(name)
        node: int | None = reader.lookup(parent, name, seq)
        if node is not None:
            directories[path] = node
        return node

    def note(path: bytes, seq: int) -> None:
        above, _, name = path.rpartition(b"/")
        parent = follow(above, seq)
        if parent is not None and name:
            names[parent].add(name)

    for event in reader.events(first + 1, last) if first < last else ():
        if event.op in _NO_FILES:
            continue
        if event.op not in _NAMES:
            if (event.node, event.path) in seen:
                continue
            seen.add((event.node, event.path))
        paths = [path for path in (event.path, event.to if event.op in _TWO_PATHS else None) if path]
        if event.op in _MOVES_DIRECTORIES:
            for path in paths:
                note(path, event.seq - 1)
            directories.clear()
            seen.clear()
        for path in paths:
            note(path, event.seq)
    return names


def _once(directory: int, path: bytes, seen: set[int]) -> None:
    """A tree where a directory is in two places has no end."""
    if directory in seen:
        raise TraceDamagedError(f"damaged trace: the directory {path!r} is in two places at once")
    seen.add(directory)


class _Side:
    """The touched part of the tree at one moment: `links` to (node, path), only what a moment shows."""

    def __init__(self, trace: Trace, seq: int, touched: dict[int, set[bytes]]) -> None:
        self.reader, self.seq = trace.reader, seq
        self._known: dict[int, Attrs] = {}
        self.links: dict[Link, tuple[int, bytes]] = {}
        pending, directories = [(ROOT_NODE, b"/")], set[int]()
        while pending:
            directory, path = pending.pop()
            _once(directory, path, directories)
            for name in touched.get(directory, ()):
                where = join(path, name)
                node = self.reader.lookup(directory, name, seq)
                if node is None:
                    continue
                if trace.layout.inside(where):
                    self.links[directory, name] = node, where
                if self.attrs(node).is_dir:
                    pending.append((node, where))

    def attrs(self, node: int) -> Attrs:
        found = self._known.get(node) or self.reader.attrs(node, self.seq)
        if found is None:
            raise TraceDamagedError(f"damaged trace: node {node} has a name but no attributes at event {self.seq}")
        self._known[node] = found
        return found

    def beneath(self, directory: int, path: bytes, passing_over: set[int]) -> Iterator[tuple[Link, int, bytes]]:
        """Every name below a directory, touched or not, except what is in the directories passed over."""
        pending, directories = [(directory, path)], set[int]()
        while pending:
            above, where = pending.pop()
            _once(above, where, directories)
            for name, node in self.reader.children(above, self.seq):
                if node in passing_over:
                    continue
                yield (above, name), node, join(where, name)
                if self.attrs(node).is_dir:
                    pending.append((node, join(where, name)))

    def has(self, link: Link, node: int) -> bool:
        return self.links.get(link, (0, b""))[0] == node


class _Comparison:
    """Pairs what stood at `before` with what stands at `after`. `gone` and `new` hold what has no pair yet."""

    def __init__(self, before: _Side, after: _Side, roots: Sequence[bytes]) -> None:
        self._before, self._after, self._roots = before, after, roots
        self._gone = {path: node for link, (node, path) in before.links.items() if not after.has(link, node)}
        self._new = {path: node for link, (node, path) in after.links.items() if not before.has(link, node)}
        self._whole: set[Link] = set()  # links below directories that are compared name by name
        self._moved: set[int] = set()  # directories that are the same under another name
        self._old_paths: dict[bytes, bytes] = {}  # of these, by their new ones

    def changes(self) -> Iterator[Change]:
        """All changes, in no order. To be called once."""
        yield from self._moved_directories()
        self._expand(self._before, self._gone)
        self._expand(self._after, self._new)
        for link, (node, path) in self._after.links.items():
            if link not in self._whole and self._before.has(link, node):
                yield from self._compare(node, node, path, self._before.links[link][1])
        for path in self._gone.keys() & self._new.keys():
            yield from self._compare(self._gone.pop(path), self._new.pop(path), path, path)
        yield from self._names_not_touched()
        yield from self._moved_files()
        for path, node in self._gone.items():
            yield Change(path, Kind.REMOVED, self._before.attrs(node), None, before_node=node)
        for path, node in self._new.items():
            yield Change(path, Kind.ADDED, None, self._after.attrs(node), after_node=node)

    def _moved_directories(self) -> Iterator[Change]:
        """Directories that have another name now. One that took the place of a removed one has not moved for
        whoever compares the two trees: it is compared with that one, name by name."""
        gone = {node: path for path, node in self._gone.items() if self._before.attrs(node).is_dir}
        new = {node: path for path, node in self._new.items() if self._after.attrs(node).is_dir}
        moved = gone.keys() & new.keys()
        while replacing := {node for node in moved if self._gone.get(new[node], node) in gone.keys() - moved}:
            moved -= replacing
        self._moved = set(moved)
        for node in moved:
            del self._gone[gone[node]], self._new[new[node]]
            if gone[node] == new[node]:
                yield from self._compare(node, node, new[node], new[node])
            else:
                self._old_paths[new[node]] = gone[node]
                attrs = self._before.attrs(node), self._after.attrs(node)
                yield Change(new[node], Kind.RENAMED, *attrs, gone[node], node, node, rewritten=False)

    def _expand(self, side: _Side, found: dict[bytes, int]) -> None:
        """Add to `found` all that is below its directories."""
        done: set[int] = set()
        for path in sorted(found):
            node = found[path]
            if node in done or not side.attrs(node).is_dir:
                continue
            for link, inner, where in side.beneath(node, path, self._moved):
                found[where] = inner
                self._whole.add(link)
                done.add(inner)

    def _names_not_touched(self) -> Iterator[Change]:
        """Other names of a file that was changed through one of them, and that no event mentions.

        Only where the link count says that there are such names is the tree walked for them.
        """
        known = Counter(node for node, _ in self._after.links.values())
        nodes = known.keys() | {node for node, _ in self._before.links.values()}
        wanted = set()
        for node in nodes:
            before = self._before.reader.attrs(node, self._before.seq)
            after = self._after.reader.attrs(node, self._after.seq)
            if not before or not after or after.is_dir or after.nlink <= known[node]:
                continue
            if after.version != before.version or _attributes(before) != _attributes(after):
                wanted.add(node)
        for root in self._roots if wanted else ():
            top = self._after.reader.resolve(root, self._after.seq)
            for link, node, path in self._after.beneath(top, root, set()) if top is not None else ():
                if node in wanted and link not in self._whole and link not in self._after.links:
                    yield from self._compare(node, node, path, self._former(path))

    def _moved_files(self) -> Iterator[Change]:
        former: dict[int, list[bytes]] = defaultdict(list)
        for path in sorted(self._gone, reverse=True):
            former[self._gone[path]].append(path)
        for path, node in sorted(self._new.items()):
            if former.get(node):
                old = former[node].pop()
                del self._gone[old], self._new[path]
                before, after = self._before.attrs(node), self._after.attrs(node)
                yield Change(path, Kind.RENAMED, before, after, old, node, node, self._rewritten(node, node))

    def _former(self, path: bytes) -> bytes:
        """The path at `before` of something that has not moved but in a directory that may have."""
        above, below = path, b""
        while above and above not in self._old_paths:
            above, _, name = above.rpartition(b"/")
            below = b"/" + name + below
        return self._old_paths.get(above, b"") + below

    def _compare(self, old: int, new: int, path: bytes, former: bytes) -> Iterator[Change]:
        """The change of one file or directory, if it is one."""
        former_path = None if former == path else former
        before, after = self._before.attrs(old), self._after.attrs(new)
        if stat.S_IFMT(before.mode) != stat.S_IFMT(after.mode):
            yield Change(path, Kind.TYPE, before, after, former_path, old, new)
        elif self._rewritten(old, new):
            yield Change(path, Kind.MODIFIED, before, after, former_path, old, new)
        elif _attributes(before) != _attributes(after):
            yield Change(path, Kind.ATTRIBUTES, before, after, former_path, old, new, rewritten=False)

    def _rewritten(self, old: int, new: int) -> bool:
        """Whether two nodes of the same type differ in content, symlink target or device number.

        What was written and cannot be read counts as different: that it is not, nobody can say.
        """
        before, after = self._before.attrs(old), self._after.attrs(new)
        if not before.is_file:
            return (before.target, before.rdev) != (after.target, after.rdev)
        if before.size != after.size:
            return True
        if old == new and before.version == after.version:
            return False
        one, other = self._before, self._after
        try:
            return any(
                one.reader.read(old, one.seq, at, _CHUNK) != other.reader.read(new, other.seq, at, _CHUNK)
                for at in range(0, before.size, _CHUNK)
            )
        except (PluginError, TraceDamagedError):
            return True


def _attributes(attrs: Attrs) -> tuple[object, ...]:
    """What counts as attributes. Making a file in a directory changes its mtime: that says nothing new."""
    return attrs.mode, attrs.uid, attrs.gid, dict(attrs.xattrs), 0 if attrs.is_dir else attrs.mtime
