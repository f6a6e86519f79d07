"""What stands under the roots before the command begins, as SNAPSHOT and CONTENT records.

Walks the real filesystem without following symlinks or crossing into pseudo filesystems; the trace
itself is left out, and so are others: else each would hold all that were made before it. The same reading
of one path serves `diffkeeper.record.verify`, which heals.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterable

import msgspec

from ..store.session import is_trace
from ..wire import Flag, Inode, WireOp, Wrong, encode, instant, pieces
from . import scope
from .contents import contents
from .deep import within_reach
from .earlier import Earlier
from .others import Fingerprints

_TELLS_CONTENT = int(Wrong.NAME | Wrong.KIND | Wrong.CONTENT)

Piece = bytes | memoryview

_GETVERSION = 0x80087601  # FS_IOC_GETVERSION of <linux/fs.h>

_DOUBLES = "trusted.SGI_ACL_"
"""What XFS keeps an ACL in, and shows to root a second time under this name."""


def inode_of(status: os.stat_result) -> Inode:
    """What stat() says, in the wire's words. Its identity is not the kernel's and must not be matched to one."""
    return Inode(
        ino=status.st_ino,
        dev=status.st_dev & 0xFFFFFFFF,
        gen=0,
        size=status.st_size,
        mtime=instant(status.st_mtime_ns),
        ctime=instant(status.st_ctime_ns),
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        nlink=status.st_nlink,
        rdev=status.st_rdev & 0xFFFFFFFF,
    )


def _generation(directory: bytes) -> int:
    """What tells apart inodes that have the same number in two subvolumes; 0: the filesystem does not say."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(fd, _GETVERSION, bytes(8))[:4], sys.byteorder)
    except OSError:
        return 0
    finally:
        os.close(fd)


def xattrs_of(path: bytes) -> dict[bytes, bytes]:
    """Extended attributes of a path, not following it; none where the filesystem has none."""
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(_DOUBLES)]
        return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError:
        return {}


def _packed_xattrs(path: bytes) -> bytes:
    found = xattrs_of(path)
    return msgspec.msgpack.encode(found) if found else b""


class Baseline:
    """One pass over the roots. `emit` takes the pieces of whole records."""

    def __init__(
        self,
        roots: Iterable[bytes],
        traces: Iterable[bytes],
        emit: Callable[[Iterable[Piece]], None],
        keep: Callable[[bytes, bool], bool],
        earlier: Earlier | None = None,
        before: Baseline | None = None,
        fingerprints: Fingerprints | None = None,
    ) -> None:
        """`traces`: to be left out; `run` adds those that it meets. `earlier`: knows files that need not be read.

        `before`: another pass, whose handles and numbers go on. `fingerprints`: takes those of all that `run` meets.
        """
        self._roots = tuple(roots)
        self.traces = set(traces)
        self._emit = emit
        self._keep = keep
        self._earlier = earlier
        self._fingerprints = fingerprints
        self._pseudo = scope.pseudo_mountpoints()
        self._subvolumes = scope.subvolume_devices()
        self._links: dict[tuple[int, int], bytes] = {}
        self._flags = 0
        self._seeks = False  # other traces
        self.handle: int = before.handle if before else 0
        self.files: int = before.files if before else 0
        self.unreadable: list[bytes] = before.unreadable if before else []

    def run(self) -> None:
        """Emit everything: symlinks around the roots, then each root from its top down."""
        self._seeks = True
        for path in scope.symlinks_around(self._roots):
            try:
                self.snapshot(path, os.lstat(path))
            except OSError:
                continue
        for root in self._roots:
            status = os.lstat(root)
            if self._fingerprints:
                self._fingerprints.note_root(root, status)
            self.snapshot(root, status)
            self._walk(root)
        self._seeks = False

    def tell(self, path: bytes, flags: int) -> None:
        """Emit one path and what is below it, as it is now. `flags`: of its records. What has gone on is left out."""
        self._flags = flags
        try:
            status = os.lstat(path)
            self.snapshot(path, status)
        except OSError:
            return
        if stat.S_ISDIR(status.st_mode):
            self._walk(path)

    def _walk(self, directory: bytes) -> None:
        pending = [directory]
        while pending:
            top = pending.pop()
            try:
                with within_reach(top) as near:
                    pending += self._list(top, near)
            except OSError:
                self.unreadable.append(top)

    def _list(self, top: bytes, near: bytes) -> list[bytes]:
        """Emit what is in one directory, which system calls reach at `near`; says which directories are."""
        directories = []
        device = os.stat(near).st_dev
        with os.scandir(near) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        met: list[tuple[bytes, os.stat_result | None]] = []
        for entry in found:
            path = entry.path if near is top else os.path.join(top, entry.name)
            try:
                is_dir = entry.is_dir(follow_symlinks=False)
                status = self._status(entry, path, is_dir)
                if status is not None:
                    self.snapshot(path, status, near=entry.path)
            except FileNotFoundError:
                continue  # it went while we looked; nothing recorded did that
            except OSError:  # what somebody has mounted for themselves alone, for instance: the rest is as it is
                self.unreadable.append(path)
                status = None
            met.append((entry.name, status))
            if status is not None and is_dir and path not in self._pseudo:
                directories.append(path)
        if self._fingerprints:
            self._fingerprints.note(top, device, met)
        return directories

    def _status(self, entry: os.DirEntry[bytes], path: bytes, is_dir: bool) -> os.stat_result | None:
        """What stat() says; None of what is left out."""
        if is_dir and self._seeks and path not in self.traces and is_trace(entry.path):
            self.traces.add(path)
            self._emit((encode(WireOp.SETTLE, payload=b"trace=" + path),))
        if path in self.traces or not self._keep(path, is_dir):
            return None
        return entry.stat(follow_symlinks=False)

    def snapshot(
        self,
        path: bytes,
        status: os.stat_result,
        op: WireOp = WireOp.SNAPSHOT,
        time: int = 0,
        *,
        near: bytes | None = None,
        wrong: Wrong = Wrong.NAME,
    ) -> None:
        """Emit one path: its attributes, and its content when it is a file. `near`: where system calls reach it.

        `wrong`, of a HEAL: what is not as it was recorded. A file's content is told again only if that is not.
        """
        near = near or path
        kind = stat.S_IFMT(status.st_mode)
        first = path
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
        target, flags = b"", self._flags
        if first != path:
            target, flags = first, flags | Flag.LINK
        elif kind == stat.S_IFLNK:
            target = os.readlink(near)
        is_file = kind == stat.S_IFREG and first == path
        known = self._earlier.recall(path, status) if is_file and self._earlier else None
        extra = b"" if first != path else _packed_xattrs(near) if known is None else known
        inode = inode_of(status)
        if kind == stat.S_IFDIR and (device := self._subvolumes.get(status.st_dev)) is not None:
            inode = inode._replace(dev=device & 0xFFFFFFFF, gen=_generation(near))
        with_content = bool(int(wrong) & _TELLS_CONTENT)
        self.handle += 1
        self.files += 1
        record = encode(
            op, time=time, flags=flags, inodes=(inode,), offset=self.handle if with_content else 0,
            length=wrong if op == WireOp.HEAL else 0, payload=b"".join((path, b"\0", target, b"\0", extra)),
        )  # fmt: skip
        self._emit((record,))
        if not is_file or not with_content:
            return
        try:
            if known is not None and status.st_size:
                self._emit((encode(WireOp.SAME, length=self.handle, payload=path),))
            elif status.st_size:
                for offset, data in contents(near, status.st_size):
                    self._emit(pieces(WireOp.CONTENT, time=time, offset=offset, length=self.handle, payload=data))
        except OSError:
            self._emit((encode(WireOp.CONTENT, time=time, flags=Flag.INEXACT, length=self.handle),))
            self.unreadable.append(path)
            return
        if self._earlier:
            self._earlier.remember(path, status, extra)
