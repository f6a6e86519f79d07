"""TraceBuilder: traces made without a kernel, from a small filesystem kept in memory.

Owns a model of what a kernel would do (inodes with identities, links, times, sizes) and the
records it would emit, in the layout of bpf/event.h; `build()` writes them as a real journal and
indexes that. The model is also the answer that tests compare with: `tree()` says what stands
where right now. Paths are text or bytes, under the first root unless absolute. Every operation
returns the number of the event it makes.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from diffkeeper.journal import JournalWriter
from diffkeeper.model import Attrs, Session
from diffkeeper.store import indexer
from diffkeeper.store.codec import pack_attrs, pack_value
from diffkeeper.store.session import FORMAT, write_facts
from diffkeeper.wire import Flag, Inode, WireOp, Wrong, encode, name_tag

DEVICE, OVERLAY_DEVICE = 0x800001, 0x2A
BOOT, WALL = 1_000_000_000_000, 1_700_000_000_000_000_000  # monotonic and real time of the command's start
STEP = 1_000_000


def to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def packed_attrs(attrs: Attrs) -> bytes:
    """A value of ATTRS in which all extended attributes stand."""
    return pack_attrs(
        attrs.mode, attrs.uid, attrs.gid, attrs.nlink, attrs.rdev, attrs.size, attrs.mtime, attrs.ctime,
        attrs.version, attrs.changed, attrs.fidelity, attrs.target, pack_value(attrs.xattrs),
    )  # fmt: skip


STALE = Inode(0, 1 << 20, 7, mode=stat.S_IFDIR | 0o700, uid=4711, parent=100)


@dataclass(eq=False)
class Node:
    """One inode of the model. `entries` of a directory, `data` of a regular file."""

    ino: int
    mode: int
    gen: int = 7
    uid: int = 1000
    gid: int = 1000
    mtime: int = WALL - 10**9
    ctime: int = WALL - 10**9
    nlink: int = 1
    rdev: int = 0
    target: bytes = b""
    data: bytearray = field(default_factory=bytearray)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, Node] = field(default_factory=dict)
    parent: Node | None = None

    @property
    def size(self) -> int:
        return len(self.target) if stat.S_ISLNK(self.mode) else len(self.data)


class Open:
    """A descriptor: lets a test write to a file whatever became of its name."""

    def __init__(self, builder: TraceBuilder, node: Node) -> None:
        self._builder, self.node = builder, node

    def write(self, data: bytes, offset: int | None = None, **when: Any) -> int:
        return self._builder.write_node(self.node, data, offset, **when)


class TraceBuilder:
    """A recording in the making. `stamps=False`: calls carry no stamps; `overlay`: twice as many, as overlayfs does."""

    def __init__(
        self, path: Path, roots: tuple[str | bytes, ...] = (b"/opt/root",), *, stamps: bool = True,
        overlay: bool = False, frame: int = 64,
    ) -> None:
        self.path = path
        self.roots = tuple(to_bytes(root) for root in roots)
        self.pid, self.now, self.seq, self.handle = 100, 0, 0, 0
        self._stamps, self._overlay, self._frame = stamps, overlay, frame
        self._records: list[bytes] = []
        self._bound: set[Node] = set()
        self._next_ino, self._free_inos = 100, list[int]()
        self.reuse_inodes = False
        self.same = False
        """The content of the baseline is as it was in the recording before, and comes from there."""
        self.apart: random.Random | None = None
        """Calls are of a process with mounts of its own from now on; this shuffles what they say they touched."""
        self.touched_before: list[str | bytes] = []
        """By calls of other kinds of the same thread: said again by those with paths."""
        self.differ: tuple[str, Mapping[str, str]] = ("auto", {})
        self.filters: tuple[tuple[str, Mapping[str, str]], ...] = ()
        self._top = self._new(stat.S_IFDIR | 0o755)
        self._top.parent = self._top
        for root in self.roots:
            self._directory(root)

    # -- what stands there -------------------------------------------------------------------

    def absolute(self, path: str | bytes) -> bytes:
        name = to_bytes(path)
        return name if name.startswith(b"/") else (self.roots[0] + b"/" + name).rstrip(b"/")

    def node(self, path: str | bytes) -> Node:
        """The model's inode at a path, symlinks not followed; KeyError when there is none."""
        node = self._top
        for part in self.absolute(path).split(b"/"):
            node = node.entries[part] if part else node
        return node

    def inode(self, path: str | bytes) -> Inode:
        """What a record would say of what is at a path now."""
        return self._inode(self.node(path))

    def exists(self, path: str | bytes) -> bool:
        try:
            return bool(self.node(path))
        except KeyError:
            return False

    def tree(self, path: str | bytes = b"") -> dict[bytes, tuple[Any, ...]]:
        """Absolute path -> (mode, uid, gid, nlink, mtime, bytes or target) of everything under `path`."""
        return dict(self._walk(self.absolute(path), self.node(path)))

    def _walk(self, path: bytes, node: Node) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        content = node.target if stat.S_ISLNK(node.mode) else bytes(node.data)
        yield path, (node.mode, node.uid, node.gid, node.nlink, node.mtime, content)
        for name, child in sorted(node.entries.items()):
            yield from self._walk(path + b"/" + name, child)

    # -- before and around the command -------------------------------------------------------

    def baseline(self, files: Mapping[Any, bytes | dict[str, Any] | None] = {}) -> None:
        """What stood under the roots before. Value: content; None: directory; or a dict of `content`,
        `mode`, `uid`, `gid`, `mtime`, `target` (symlink), `link` (path of a file given earlier), `xattrs`, `rdev`."""
        given: list[tuple[bytes, Node, bytes]] = [(root, self.node(root), b"") for root in self.roots]
        for path, value in files.items():
            entry: dict[str, Any] = {"dir": True} if value is None else {"content": value}
            entry = dict(value) if isinstance(value, dict) else entry
            is_dir = to_bytes(path).endswith(b"/")
            where = self.absolute(to_bytes(path).rstrip(b"/"))
            parent, name = self._directory(where.rpartition(b"/")[0], given), where.rpartition(b"/")[2]
            if first := entry.pop("link", None):
                node = self.node(first)
                node.nlink += 1
                parent.entries[name] = node
                given.append((where, node, self.absolute(first)))
                continue
            kind = stat.S_IFDIR if entry.pop("dir", is_dir) else stat.S_IFREG
            kind = stat.S_IFLNK if "target" in entry else kind
            mode = entry.pop("mode", 0o755 if kind == stat.S_IFDIR else 0o777 if kind == stat.S_IFLNK else 0o644)
            content = bytearray(entry.pop("content", b""))
            node = self._new(mode if stat.S_IFMT(mode) else kind | mode, data=content, **entry)
            node.target = to_bytes(node.target)
            self._attach(parent, name, node)
            given.append((where, node, b""))
        for where, node, first in given:
            self._snapshot(WireOp.SNAPSHOT, where, node, first)

    def _directory(self, path: bytes, given: list[tuple[bytes, Node, bytes]] | None = None) -> Node:
        node, where = self._top, b""
        for part in filter(None, path.split(b"/")):
            where += b"/" + part
            if part not in node.entries:
                self._attach(node, part, self._new(stat.S_IFDIR | 0o755))
                if given is not None:
                    given.append((where, node.entries[part], b""))
            node = node.entries[part]
        return node

    def _snapshot(
        self, op: WireOp, path: bytes, node: Node, first: bytes = b"", wrong: Wrong = Wrong.CONTENT
    ) -> None:
        regular = stat.S_ISREG(node.mode) and not first and bool(wrong & (Wrong.NAME | Wrong.KIND | Wrong.CONTENT))
        self.handle += regular
        xattrs = msgspec.msgpack.encode(node.xattrs) if node.xattrs else b""
        self.emit(
            op, inodes=(self._inode(node),), offset=self.handle if regular else 0, flags=Flag.LINK if first else 0,
            length=wrong if op == WireOp.HEAL else 0,
            payload=path + b"\0" + (first or node.target) + b"\0" + xattrs,
        )
        if self.same and regular and node.data:
            self.emit(WireOp.SAME, length=self.handle, payload=path)
            return
        for at in range(0, len(node.data) if regular else 0, 1 << 22):
            self.emit(WireOp.CONTENT, offset=at, length=self.handle, payload=bytes(node.data[at : at + (1 << 22)]))

    def begin(self) -> None:
        self.emit(WireOp.BEGIN, offset=WALL)

    def end(self, status: int = 0, at: float | None = None) -> None:
        self._tick(at)
        self.emit(WireOp.END, offset=status)

    def heal(
        self, path: str | bytes, content: bytes | None = None, wrong: Wrong = Wrong.NAME, **attributes: Any
    ) -> int:
        """Found after the command: nothing at `path` (content None), or a file with these bytes."""
        self.seq += 1
        where = self.absolute(path)
        parent, name = self.node(where.rpartition(b"/")[0]), where.rpartition(b"/")[2]
        if content is None:
            self._detach(parent, name)
            self.emit(WireOp.HEAL, flags=Flag.GONE, length=wrong, payload=where + b"\0\0")
            return self.seq
        node = parent.entries.get(name) or self._new(stat.S_IFREG | 0o644)
        node.data[:] = content
        for key, value in attributes.items():
            setattr(node, key, value)
        if name not in parent.entries:
            self._attach(parent, name, node)
        self._snapshot(WireOp.HEAL, where, node, wrong=wrong)
        return self.seq

    def settle(self, fact: str) -> None:
        self.emit(WireOp.SETTLE, payload=fact.encode())

    def gap(self, count: int, cause: str, at: float | None = None) -> int:
        self._tick(at)
        return self._event(WireOp.GAP, offset=count, payload=cause.encode())

    # -- calls -------------------------------------------------------------------------------

    def open(self, path: str | bytes, at: float | None = None, trunc: bool = False) -> Open:
        """A descriptor on an existing file; an event only with `trunc`."""
        node = self.node(path)
        self._bind(node, self.absolute(path))
        if trunc:
            self._tick(at)
            node.data.clear()
            self._touch(node)
            self._event(WireOp.OPEN, flags=Flag.TRUNC, inodes=(self._inode(node),))
        return Open(self, node)

    def use(self, *paths: str | bytes) -> None:
        """Something is done that makes these inodes known."""
        for path in paths:
            self._bind(self.node(path), self.absolute(path))

    def create(self, path: str | bytes, content: bytes = b"", mode: int = 0o644, at: float | None = None) -> int:
        """open(O_CREAT|O_EXCL), and a write when there is content."""
        self._tick(at)
        where, parent, name = self._place(path)
        node = self._new(stat.S_IFREG | mode, mtime=self._wall, ctime=self._wall)
        self._attach(parent, name, node)
        self._touch(parent)
        self._bind(parent, where.rpartition(b"/")[0])
        self._bound.add(node)
        self._event(WireOp.OPEN, flags=Flag.CREATED, inodes=(self._inode(node), self._inode(parent)), payload=name)
        return self.write(path, content) if content else self.seq

    def write(
        self, path: str | bytes, data: bytes, offset: int | None = None, at: float | None = None, **how: Any
    ) -> int:
        """pwrite(2) at `offset`, or an append."""
        self._bind(self.node(path), self.absolute(path))
        return self.write_node(self.node(path), data, offset, at, **how)

    def write_node(
        self, node: Node, data: bytes, offset: int | None = None, at: float | None = None, *, piece: int = 0,
        tid: int = 0,
    ) -> int:
        """`piece`: bytes per record, as a large write is cut up."""
        self._tick(at)
        offset = len(node.data) if offset is None else offset
        node.data.extend(bytes(max(0, offset - len(node.data))))
        node.data[offset : offset + len(data)] = data
        self._touch(node)
        self.seq += 1
        for start in range(0, len(data), piece or max(1, len(data))):
            part = data[start : start + piece] if piece else data
            self.emit(
                WireOp.WRITE, inodes=(self._inode(node),), offset=offset + start, length=len(data), payload=part,
                flags=Flag.CONT if start else 0, tid=tid or self.pid,
            )
        return self.seq

    def rewrite(self, path: str | bytes, content: bytes, at: float | None = None) -> int:
        """open(O_TRUNC) and one write."""
        self.open(path, at, trunc=True)
        return self.write(path, content)

    def truncate(self, path: str | bytes, size: int, at: float | None = None) -> int:
        """truncate(2). Where the size stays, times are set if a stamp says so: some filesystems leave them."""
        self._tick(at)
        node = self.node(path)
        changes = size != len(node.data)
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))
        if changes or self._stamps:
            self._touch(node)
        return self._path_call(WireOp.TRUNCATE, path, (node,), offset=size)

    def zero(self, path: str | bytes, offset: int, length: int, at: float | None = None) -> int:
        """fallocate(2) that clears a range, within the file or as far beyond as it may grow it."""
        self._tick(at)
        node = self.node(path)
        node.data.extend(bytes(max(0, offset + length - len(node.data))))
        node.data[offset : offset + length] = bytes(length)
        self._touch(node)
        self._bind(node, self.absolute(path))
        return self._event(WireOp.ZERO, inodes=(self._inode(node),), offset=offset, length=length)

    def chmod(self, path: str | bytes, mode: int, at: float | None = None) -> int:
        self._tick(at)
        node = self.node(path)
        node.mode, node.ctime = stat.S_IFMT(node.mode) | mode, self._wall
        return self._path_call(WireOp.CHMOD, path, (node,), offset=mode)

    def chown(self, path: str | bytes, uid: int, gid: int, at: float | None = None) -> int:
        self._tick(at)
        node = self.node(path)
        node.uid, node.gid, node.ctime = uid, gid, self._wall
        return self._path_call(WireOp.CHOWN, path, (node,), offset=uid, length=gid, flags=Flag.NOFOLLOW)

    def utime(self, path: str | bytes, mtime: int, at: float | None = None) -> int:
        self._tick(at)
        node = self.node(path)
        node.mtime, node.ctime = mtime, self._wall
        return self._path_call(WireOp.UTIME, path, (node,), length=mtime, flags=Flag.NOFOLLOW)

    def setxattr(self, path: str | bytes, name: bytes, value: bytes, at: float | None = None) -> int:
        self._tick(at)
        node = self.node(path)
        node.xattrs[name], node.ctime = value, self._wall
        rest = b"\0" + name + b"\0" + value
        return self._path_call(WireOp.SETXATTR, path, (node,), length=len(value), rest=rest, flags=Flag.NOFOLLOW)

    def removexattr(self, path: str | bytes, name: bytes, at: float | None = None) -> int:
        self._tick(at)
        node = self.node(path)
        del node.xattrs[name]
        node.ctime = self._wall
        rest = b"\0" + name + b"\0"
        return self._path_call(WireOp.REMOVEXATTR, path, (node,), rest=rest, flags=Flag.NOFOLLOW)

    def mkdir(self, path: str | bytes, mode: int = 0o755, at: float | None = None) -> int:
        return self._make(WireOp.MKDIR, path, stat.S_IFDIR | mode, at, offset=mode)

    def mkfifo(self, path: str | bytes, mode: int = 0o644, at: float | None = None) -> int:
        return self._make(WireOp.MKNOD, path, stat.S_IFIFO | mode, at, offset=stat.S_IFIFO | mode)

    def symlink(self, target: str | bytes, path: str | bytes, at: float | None = None) -> int:
        rest = b"\0" + to_bytes(target) + b"\0"
        return self._make(WireOp.SYMLINK, path, stat.S_IFLNK | 0o777, at, rest=rest, target=to_bytes(target))

    def _make(
        self, op: WireOp, path: str | bytes, mode: int, at: float | None, *, offset: int = 0, rest: bytes = b"",
        target: bytes = b"",
    ) -> int:
        self._tick(at)
        _, parent, name = self._place(path)
        node = self._new(mode, mtime=self._wall, ctime=self._wall, target=target)
        self._attach(parent, name, node)
        self._touch(parent)
        return self._path_call(op, path, (node, parent), offset=offset, rest=rest)

    def link(self, old: str | bytes, new: str | bytes, at: float | None = None) -> int:
        self._tick(at)
        _, parent, name = self._place(new)
        node = self.node(old)
        if self.apart:
            self.use(old)
        parent.entries[name] = node
        node.nlink, node.ctime = node.nlink + 1, self._wall
        self._touch(parent)
        return self._path_call(WireOp.LINK, old, (node, parent), other=new)

    def rename(self, old: str | bytes, new: str | bytes, flags: int = 0, at: float | None = None) -> int:
        """rename(2), or with flags 2 an exchange."""
        self._tick(at)
        _, source, old_name = self._place(old)
        _, target, new_name = self._place(new)
        moved, replaced = source.entries[old_name], target.entries.get(new_name)
        self.seq -= moved is replaced  # two names of one file: nothing happens, no event
        stamped = [moved] if source is target else [moved, target]
        if moved is not replaced:
            if flags & 2 and replaced:
                self._detach(source, old_name, keep=True)
                self._detach(target, new_name, keep=True)
                self._attach(source, old_name, replaced)
                stamped.append(replaced)
            else:
                self._detach(source, old_name, keep=True)
                if replaced:
                    self._detach(target, new_name)
                    stamped.append(replaced)
            self._attach(target, new_name, moved)
            for node in [*stamped[2:], moved]:
                node.ctime = self._wall
            self._touch(source)
            self._touch(target)
        touched = () if self.apart and moved is replaced else (source, *stamped)
        return self._path_call(WireOp.RENAME, old, touched, other=new, offset=flags)

    def unlink(self, path: str | bytes, at: float | None = None) -> int:
        return self._remove(WireOp.UNLINK, path, at)

    def rmdir(self, path: str | bytes, at: float | None = None) -> int:
        return self._remove(WireOp.RMDIR, path, at)

    def _remove(self, op: WireOp, path: str | bytes, at: float | None) -> int:
        self._tick(at)
        _, parent, name = self._place(path)
        node = parent.entries[name]
        self._detach(parent, name)
        node.ctime = self._wall
        self._touch(parent)
        return self._path_call(op, path, (parent, node))

    # -- processes and marks -----------------------------------------------------------------

    def fork(self, child: int, at: float | None = None, comm: str = "sh") -> int:
        self._tick(at)
        return self._event(WireOp.FORK, offset=child, length=1000, payload=comm.encode())

    def exec(self, *argv: str, at: float | None = None, comm: str | None = None) -> int:
        self._tick(at)
        name = comm or argv[0].rpartition("/")[2][:15]
        return self._event(WireOp.EXEC, length=1000, payload=os.fsencode("\0".join((name, *argv))))

    def exit(self, status: int = 0, at: float | None = None) -> int:
        self._tick(at)
        return self._event(WireOp.EXIT, offset=status)

    def mark(self, name: str, at: float | None = None) -> int:
        self._tick(at)
        return self._event(WireOp.MARK, payload=name.encode())

    # -- records -----------------------------------------------------------------------------

    def emit(self, op: WireOp, **fields: Any) -> None:
        """A record as it is, for what the calls above do not do. Does not count an event."""
        self._records.append(encode(op, **{"time": BOOT + self.now, "pid": self.pid, **fields}))

    def journal(self) -> Path:
        """Write session.json and the journal, not yet indexed; returns the trace directory."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_facts(self.path, Session(
            format=FORMAT, version="0", command=("sh", "-c", "test"), cwd=self.roots[0], roots=self.roots,
            trace=b"/opt/trace", started=WALL, host="host", kernel="6.1.0",
            differ=self.differ, filters=self.filters,
        ))  # fmt: skip
        writer = JournalWriter(self.path / "journal")
        for start in range(0, len(self._records), self._frame):
            writer.append(b"".join(self._records[start : start + self._frame]))
        writer.close()
        self._records.clear()
        return self.path

    def build(self) -> Path:
        """Write and index the recording; returns the trace directory."""
        indexer.index(self.journal())
        return self.path

    def _event(self, op: WireOp, **fields: Any) -> int:
        self.emit(op, **fields)
        self.seq += 1
        return self.seq

    def _path_call(
        self, op: WireOp, path: str | bytes, stamped: tuple[Node, ...], *, other: str | bytes | None = None,
        rest: bytes = b"", flags: int = 0, **fields: Any,
    ) -> int:
        bases, payload = [], b""
        for name in (path,) if other is None else (path, other):
            inside = not to_bytes(name).startswith(b"/")
            base = self.node(self.roots[0]) if inside else self._top
            self._bind(base, self.roots[0] if inside else b"/")
            bases.append(self._inode(base))
            payload += to_bytes(name) + (b"" if other is None else b"\0")
        stamps = list(dict.fromkeys(stamped)) if self._stamps else []
        named = STALE
        if self.apart:
            flags |= Flag.APART
            if op in (WireOp.MKDIR, WireOp.MKNOD, WireOp.SYMLINK):
                named = self._named(stamps[0], other or path)
            stamps = list(dict.fromkeys((*stamps, *map(self.node, self.touched_before))))
            self.apart.shuffle(stamps)
            payload = payload.replace(self.roots[0], b"/elsewhere")
        inodes = [self._inode(node) for node in stamps]
        if self._overlay:
            shift = 10**6
            upper = [
                inode._replace(dev=DEVICE, ino=inode.ino + shift, parent=inode.parent and inode.parent + shift)
                for inode in inodes
            ]
            inodes = [both for pair in zip(upper, inodes, strict=True) for both in pair][:8]
        # Nine slots as the kernel side has them: one inode may come twice, and what is in an empty one means nothing.
        slots = [*(inodes + inodes[:1] + [STALE] * 8)[:8], named] if self._stamps else []
        return self._event(op, inodes=(*bases, *slots), payload=payload + rest, flags=Flag.PATH | flags, **fields)

    def _bind(self, node: Node, path: bytes) -> None:
        if node not in self._bound:
            self._bound.add(node)
            leaf_first = b"".join(part + b"\0" for part in reversed(path.split(b"/")) if part)
            self.emit(WireOp.BIND, inodes=(self._inode(node),), payload=leaf_first)

    def _inode(self, node: Node) -> Inode:
        return Inode(
            node.ino, OVERLAY_DEVICE if self._overlay else DEVICE, node.gen, node.size, node.mtime, node.ctime,
            *self._place_of(node, node.mode, node.uid, node.gid, node.nlink, node.rdev),
        )  # fmt: skip

    def _named(self, node: Node, path: str | bytes) -> Inode:
        """What a directory's entry says of a node, as the kernel side looks it up."""
        _, parent, name = self._place(path)
        return self._inode(node)._replace(parent=parent.ino, tag=name_tag(name))

    # -- the model ---------------------------------------------------------------------------

    @property
    def _wall(self) -> int:
        return WALL + self.now

    def _tick(self, at: float | None) -> None:
        self.now = self.now + STEP if at is None else round(at * 1e9)

    def _touch(self, node: Node) -> None:
        node.mtime = node.ctime = self._wall

    def _new(self, mode: int, **attributes: Any) -> Node:
        if self.reuse_inodes and self._free_inos:
            node = Node(self._free_inos.pop(), mode, gen=8 + self.now, **attributes)
        else:
            node = Node(self._next_ino, mode, **attributes)
            self._next_ino += 1
        node.nlink = 2 if stat.S_ISDIR(mode) else 1
        return node

    def _place(self, path: str | bytes) -> tuple[bytes, Node, bytes]:
        where = self.absolute(path)
        directory, _, name = where.rpartition(b"/")
        return where, self.node(directory or b"/"), name

    def _place_of(self, node: Node, *middle: int) -> tuple[int, ...]:
        """Parent and tag as the kernel side tells them: not for a file with no name left, or with several."""
        one = node.nlink == 1 or stat.S_ISDIR(node.mode)
        names = [name for name, entry in node.parent.entries.items() if entry is node] if node.parent and one else []
        if not names or node.parent is None:
            return (0, *middle, 0)
        return (node.parent.ino, *middle, name_tag(names[0]))

    def _attach(self, parent: Node, name: bytes, node: Node) -> None:
        parent.entries[name] = node
        node.parent = parent
        parent.nlink += stat.S_ISDIR(node.mode)

    def _detach(self, parent: Node, name: bytes, *, keep: bool = False) -> None:
        """Take a name away; unless `keep`, the inode loses the link too."""
        node = parent.entries.pop(name)
        directory = stat.S_ISDIR(node.mode)
        parent.nlink -= directory
        if not keep:
            node.nlink = 0 if directory else node.nlink - 1
            if node.nlink == 0:
                self._free_inos.append(node.ino)
