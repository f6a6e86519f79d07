"""A real directory as a tree of facts, read so that nothing in it changes.

Owns `Entry`, which both sides of the comparison are made of, the digest of content (holes cost
nothing), and `Scanner`, which looks again only at what may have changed. Knows nothing of traces.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from blake3 import blake3

BLOCK = 4096
HUGE = 16 << 20
"""From this size on, content is taken by its data ranges: a file may be far larger than any disk."""


class Entry(NamedTuple):
    """One path as lstat(), readlink(), read() and getxattr() show it. `size`, `digest`: of regular files."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    nlink: int
    rdev: int
    target: str
    digest: str
    xattrs: tuple[tuple[str, str], ...]


Tree = dict[str, Entry]


def digest_of(size: int, ranges: Callable[[], Iterable[tuple[int, int]]], read: Callable[[int, int], bytes]) -> str:
    """Of a file's whole content. `ranges`: (offset, length) of all that may be other than zeroes."""
    digest = blake3()
    if size < HUGE:
        at = 0
        while at < size and (data := read(at, size - at)):
            digest.update(data)
            at += len(data)
        return digest.hexdigest(16)
    for offset, data in _blocks(ranges(), read):
        if data.strip(b"\0"):
            digest.update(b"%d:" % offset + data.ljust(BLOCK, b"\0"))
    return "sparse " + digest.hexdigest(16)


def _blocks(ranges: Iterable[tuple[int, int]], read: Callable[[int, int], bytes]) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each block that the ranges touch, once."""
    after = 0
    for start, length in ranges:
        at = max(start // BLOCK * BLOCK, after)
        while at < start + length:
            data = read(at, min(1 << 20, (start + length - at + BLOCK - 1) // BLOCK * BLOCK))
            if not data:
                return
            for offset in range(0, len(data), BLOCK):
                yield at + offset, data[offset : offset + BLOCK]
            at += (len(data) + BLOCK - 1) // BLOCK * BLOCK
        after = max(after, at)


class Scanner:
    """Looks at a directory again and again. Paths are relative to it, itself is "."."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._known: dict[str, tuple[tuple[int, ...], Entry]] = {}

    def scan(self, again: frozenset[str] = frozenset(), *, thorough: bool = False) -> tuple[Tree, list[str]]:
        """(what is new or other than at the last scan, what is gone).

        `again`: files whose content may have changed with none of their times; `thorough`: all of them.
        """
        seen: dict[str, tuple[tuple[int, ...], Entry]] = {}
        changed: Tree = {}
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._look(fd, b".", ".", os.fstat(fd), seen, changed, again, thorough)
            self._walk(fd, "", seen, changed, again, thorough)
        finally:
            os.close(fd)
        gone = [path for path in self._known if path not in seen]
        self._known = seen
        return changed, gone

    def _walk(
        self, fd: int, above: str, seen: dict[str, tuple[tuple[int, ...], Entry]], changed: Tree,
        again: frozenset[str], thorough: bool,
    ) -> None:  # fmt: skip
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        for name, status in found:
            path = above + name
            self._look(fd, os.fsencode(name), path, status, seen, changed, again, thorough)
            if stat.S_ISDIR(status.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                try:
                    self._walk(below, path + "/", seen, changed, again, thorough)
                finally:
                    os.close(below)

    def _look(
        self, fd: int, name: bytes, path: str, status: os.stat_result,
        seen: dict[str, tuple[tuple[int, ...], Entry]], changed: Tree, again: frozenset[str], thorough: bool,
    ) -> None:  # fmt: skip
        key = (status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_nlink, status.st_mode)
        before = self._known.get(path)
        if before is not None and before[0] == key and not thorough and path not in again:
            seen[path] = before
            return
        entry = _entry(fd, name, status)
        seen[path] = key, entry
        if before is None or before[1] != entry:
            changed[path] = entry


def _entry(fd: int, name: bytes, status: os.stat_result) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    digest = ""
    if kind == stat.S_IFREG:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=fd)
        try:
            digest = digest_of(
                status.st_size, lambda: _data_ranges(file, status.st_size),
                lambda at, length: os.pread(file, length, at),
            )  # fmt: skip
        finally:
            os.close(file)
    return Entry(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == stat.S_IFREG else 0,
        mtime=status.st_mtime_ns,
        nlink=status.st_nlink,
        rdev=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        target=os.fsdecode(os.readlink(name, dir_fd=fd)) if kind == stat.S_IFLNK else "",
        digest=digest,
        xattrs=_xattrs(b"/proc/self/fd/%d/%s" % (fd, name)),
    )


def _xattrs(path: bytes) -> tuple[tuple[str, str], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False).hex()) for name in names)


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    os.fsync(fd)  # or ext4 tells of none in a file without extents
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at - start
