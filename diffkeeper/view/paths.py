"""A moment's tree as Python paths: read-only, in the manner of pathlib.

Owns `MomentPath` and how symlinks are followed within a moment: a path is resolved in the world as
it was recorded, so an absolute link to a place under a root leads there, and one that leads
elsewhere leads nowhere. What stands where comes from the store's reader.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TextIO, overload

from diffkeeper.errors import PathError, TraceDamagedError
from diffkeeper.model import ROOT_NODE, Attrs, Moment

from .roots import join

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from diffkeeper.trace import Trace

MAX_LINKS = 40
READ_AHEAD = 1 << 17
_PIECE = 1 << 20


class Found(NamedTuple):
    """What a path led to: its node, the canonical path there, and what stat() says."""

    node: int
    path: bytes
    attrs: Attrs


class MomentPath:
    """One path at one moment; it need not exist. Build others with `/`.

    `path` is absolute, as recorded; `str()` is relative to the root where there is one root.
    Everything that reads raises PathError when the path does not exist or is of the wrong kind.
    """

    __slots__ = ("moment", "path", "trace")

    def __init__(self, trace: Trace, moment: Moment, path: bytes) -> None:
        self.trace, self.moment, self.path = trace, moment, path

    def __truediv__(self, other: str | bytes) -> MomentPath:
        added = os.fsencode(other)
        parts = [part for part in added.split(b"/") if part not in (b"", b".")]
        start = b"" if added.startswith(b"/") else self.path.rstrip(b"/")
        return MomentPath(self.trace, self.moment, b"/".join([start, *parts]) or b"/")

    def __str__(self) -> str:
        return os.fsdecode(self.trace.display(self.path))

    def __repr__(self) -> str:
        return f"<{self} @{self.moment.name}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MomentPath):
            return NotImplemented
        return (self.trace, self.moment.seq, self.path) == (other.trace, other.moment.seq, other.path)

    def __hash__(self) -> int:
        return hash((self.moment.seq, self.path))

    @property
    def name(self) -> str:
        """The last component."""
        return os.fsdecode(self.path.rpartition(b"/")[2])

    @property
    def parent(self) -> MomentPath:
        """The directory it is in, as written; that of the moment's top is the top."""
        if self.path == self.trace.layout.top:
            return self
        return MomentPath(self.trace, self.moment, self.path.rpartition(b"/")[0] or b"/")

    # -- what is there -----------------------------------------------------------------------

    def stat(self) -> os.stat_result:
        """As os.stat() would have said; `st_ino` is the node's number, `st_dev` 0."""
        return _stat_result(self._need(follow=True))

    def lstat(self) -> os.stat_result:
        return _stat_result(self._need(follow=False))

    def attrs(self, *, follow: bool = True) -> Attrs:
        """All that is known of it, extended attributes and fidelity too."""
        return self._need(follow=follow).attrs

    def exists(self) -> bool:
        return self._find(follow=True) is not None

    def is_dir(self) -> bool:
        found = self._find(follow=True)
        return found is not None and found.attrs.is_dir

    def is_file(self) -> bool:
        found = self._find(follow=True)
        return found is not None and found.attrs.is_file

    def is_symlink(self) -> bool:
        found = self._find(follow=False)
        return found is not None and found.attrs.is_symlink

    def readlink(self) -> str:
        """The target of a symlink, as it stands in the link."""
        found = self._need(follow=False)
        if not found.attrs.is_symlink:
            raise self._error("is not a symbolic link")
        return os.fsdecode(found.attrs.target)

    def resolve(self) -> MomentPath:
        """The same file by its canonical path."""
        return MomentPath(self.trace, self.moment, self._need(follow=True).path)

    # -- content -----------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        with self.open("rb") as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content as text, line ends as they are."""
        return self.read_bytes().decode(encoding, errors)

    @overload
    def open(self, mode: Literal["rb"]) -> BinaryIO: ...
    @overload
    def open(self, mode: Literal["r"] = "r", encoding: str = "utf-8", errors: str = "strict") -> TextIO: ...
    def open(
        self, mode: Literal["r", "rb"] = "r", encoding: str = "utf-8", errors: str = "strict"
    ) -> BinaryIO | TextIO:
        """A real file object, seekable; reads only what is asked for. Raises ValueError for other modes."""
        if mode not in ("r", "rb"):
            raise ValueError(f"a moment is read-only: open it with 'r' or 'rb', not {mode!r}")
        found = self._need(follow=True)
        if not found.attrs.is_file:
            raise self._error("is a directory" if found.attrs.is_dir else "is not a regular file")
        file = io.BufferedReader(_NodeFile(self, found), READ_AHEAD)
        return io.TextIOWrapper(file, encoding, errors) if mode == "r" else file

    # -- directories -------------------------------------------------------------------------

    def iterdir(self) -> Iterator[MomentPath]:
        """The entries of a directory, sorted by the bytes of their names."""
        for name, _ in self.entries():
            yield MomentPath(self.trace, self.moment, join(self.path, name))

    def walk(self) -> Iterator[tuple[MomentPath, list[str], list[str]]]:
        """Like os.walk(), top down, symlinks not followed: (directory, directories in it, the rest).

        Changing the list of directories steers the walk.
        """
        pending, seen = [self], set[int]()
        while pending:
            directory = pending.pop()
            node = directory.stat().st_ino
            if node in seen:
                raise TraceDamagedError(f"damaged trace: the directory {directory} is in two places at once")
            seen.add(node)
            below: list[str] = []
            rest: list[str] = []
            for name, attrs in directory.entries():
                (below if attrs.is_dir else rest).append(os.fsdecode(name))
            yield directory, below, rest
            pending += [directory / name for name in reversed(below)]

    def glob(self, pattern: str) -> Iterator[MomentPath]:
        """Paths below that match, part by part; `**` stands for any directories. As pathlib's."""
        parts = [part for part in pattern.split("/") if part]
        if not parts or pattern.startswith("/"):
            raise ValueError(f"not a relative pattern: {pattern!r}")
        seen: set[bytes] = set()
        for found in _matching(self, parts):
            if found.path not in seen:
                seen.add(found.path)
                yield found

    def rglob(self, pattern: str) -> Iterator[MomentPath]:
        """`glob` at any depth."""
        return self.glob(f"**/{pattern}")

    def entries(self) -> Iterator[tuple[bytes, Attrs]]:
        """Names in a directory, sorted, and what stands there, symlinks not followed."""
        reader, seq = self.trace.reader, self.moment.seq
        found = self._need(follow=True)
        if not found.attrs.is_dir:
            raise self._error("is not a directory")
        only = self.trace.layout.ways.get(found.path)
        for name, _, attrs in reader.entries(found.node, seq):
            if only is None or name in only:
                yield name, attrs

    # -- resolving ---------------------------------------------------------------------------

    def _need(self, *, follow: bool) -> Found:
        found = self._walk(follow=follow)
        if found is None:
            raise self._error("does not exist")
        return found

    def _error(self, what: str) -> PathError:
        return PathError(f"{self} {what} at @{self.moment.name}")

    def _find(self, *, follow: bool) -> Found | None:
        """What is there; None also for links that lead in circles, as pathlib has it."""
        try:
            return self._walk(follow=follow)
        except PathError:
            return None

    def _walk(self, *, follow: bool) -> Found | None:
        """Walk `path` as the kernel would, in the recorded tree; None when it leads nowhere we recorded."""
        reader, seq, links = self.trace.reader, self.moment.seq, 0
        trail: list[tuple[bytes, int]] = []  # name and node of each directory between "/" and here
        todo = self.path.split(b"/")[::-1]
        node = ROOT_NODE
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if trail:
                    trail.pop()
                node = trail[-1][1] if trail else ROOT_NODE
                continue
            child = reader.lookup(node, part, seq)
            attrs = reader.attrs(child, seq) if child is not None else None
            if child is None or attrs is None:
                return None
            if attrs.is_symlink and (follow or todo):
                links += 1
                if links > MAX_LINKS:
                    raise self._error("leads through too many symbolic links")
                if attrs.target.startswith(b"/"):
                    trail, node = [], ROOT_NODE
                todo += attrs.target.split(b"/")[::-1]
            elif todo and not attrs.is_dir:
                return None
            else:
                trail.append((part, child))
                node = child
        path = b"/" + b"/".join(name for name, _ in trail)
        final = reader.attrs(node, seq) if self.trace.layout.seen(path) else None
        return Found(node, path, final) if final is not None else None


def _matching(directory: MomentPath, parts: list[str]) -> Iterator[MomentPath]:
    """What is below `directory` and matches a pattern, given in parts."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        for below, _, _ in directory.walk():
            if rest:
                yield from _matching(below, rest)
            else:
                yield below
        return
    matches = re.compile(os.fsencode(fnmatch.translate(part))).match
    for name, attrs in directory.entries():
        path = directory / name
        if not matches(name):
            continue
        if not rest:
            yield path
        elif attrs.is_dir or (attrs.is_symlink and path.is_dir()):
            yield from _matching(path, rest)


class _NodeFile(io.RawIOBase):
    """A file's bytes at a moment; every read goes to the store."""

    def __init__(self, path: MomentPath, found: Found) -> None:
        self.name = str(path)
        self._reader, self._seq = path.trace.reader, path.moment.seq
        self._node, self._size, self._at = found.node, found.attrs.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readall(self) -> bytes:
        parts: list[bytes] = []
        while data := self._reader.read(self._node, self._seq, self._at, _PIECE):
            parts.append(data)
            self._at += len(data)
        return b"".join(parts)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._reader.read(self._node, self._seq, self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _stat_result(found: Found) -> os.stat_result:
    attrs = found.attrs
    mtime, ctime = attrs.mtime, attrs.ctime
    whole = (attrs.mode, found.node, 0, attrs.nlink, attrs.uid, attrs.gid, attrs.size)
    return os.stat_result(
        (*whole, mtime // 10**9, mtime // 10**9, ctime // 10**9),
        {
            "st_atime": mtime / 1e9, "st_mtime": mtime / 1e9, "st_ctime": ctime / 1e9,
            "st_atime_ns": mtime, "st_mtime_ns": mtime, "st_ctime_ns": ctime,
            "st_blksize": 4096, "st_blocks": -(-attrs.size // 512), "st_rdev": attrs.rdev,
        },
    )  # fmt: skip
