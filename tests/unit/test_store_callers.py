"""Calls on kernels that do not tell which inodes they changed: what the caller gives to inodes stands for it."""

from __future__ import annotations

import stat
import struct

from diffkeeper.store import acl
from diffkeeper.store.reader import open_reader
from diffkeeper.store.targets import UNTOLD
from diffkeeper.wire import CALLER, Flag, Inode, WireOp
from tests.builder import WALL, TraceBuilder
from tests.unit.reading import at

TICK = 4_000_000
NOW = WALL + 5 * TICK


def caller(time: int, umask: int = 0o027) -> Inode:
    return Inode(0, CALLER, 0, mtime=time, ctime=time, mode=umask, uid=5, gid=6, nlink=0)


def test_what_is_made_is_as_the_caller_makes_it(builder: TraceBuilder) -> None:
    """Owner, group, mode and times; and the times of the directory that it is made in."""
    builder.baseline({"d": None})
    builder.use("")
    base = (builder.inode(""), caller(NOW))
    for op, payload, mode in (
        (WireOp.MKDIR, b"d/sub", 0o777), (WireOp.MKNOD, b"d/pipe", stat.S_IFIFO | 0o666),
        (WireOp.SYMLINK, b"d/link\0target\0", 0),
    ):  # fmt: skip
        builder.emit(op, flags=Flag.PATH, inodes=base, payload=payload, offset=mode)
    builder.end()
    with open_reader(builder.build()) as reader:
        modes = {"d/sub": stat.S_IFDIR | 0o750, "d/pipe": stat.S_IFIFO | 0o640, "d/link": stat.S_IFLNK | 0o777}
        for path, mode in modes.items():
            made = at(reader, path)
            assert (made.mode, made.uid, made.gid, made.mtime, made.ctime) == (mode, 5, 6, NOW, NOW), path
        assert at(reader, "d").mtime == NOW


def test_in_a_set_group_id_directory_the_group_is_the_directorys(builder: TraceBuilder) -> None:
    """And a directory that is made there does the same for what is made in it."""
    builder.baseline({"d": {"mode": stat.S_IFDIR | stat.S_ISGID | 0o755, "gid": 77}})
    builder.use("")
    base = (builder.inode(""), caller(NOW))
    builder.emit(WireOp.MKDIR, flags=Flag.PATH, inodes=base, payload=b"d/sub", offset=0o755)
    builder.emit(WireOp.MKNOD, flags=Flag.PATH, inodes=base, payload=b"d/sub/pipe", offset=stat.S_IFIFO | 0o600)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert (at(reader, "d/sub").gid, at(reader, "d/sub").mode & stat.S_ISGID) == (77, stat.S_ISGID)
        assert (at(reader, "d/sub/pipe").gid, at(reader, "d/sub/pipe").uid) == (77, 5)


def test_where_the_clock_ticked_meanwhile_the_directory_knows_better(builder: TraceBuilder) -> None:
    """What a call touched has one time, and the directory that its path starts from has it."""
    builder.baseline({"old": b"x"})
    builder.use("")
    base = builder.inode("")._replace(mtime=NOW, ctime=NOW)
    late = caller(NOW + TICK)
    builder.emit(WireOp.MKDIR, flags=Flag.PATH, inodes=(base, late), payload=b"sub", offset=0o755)
    builder.emit(WireOp.RENAME, flags=Flag.PATH, inodes=(base, base, late), payload=b"old\0new\0")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert [at(reader, path).mtime for path in ("", "sub")] == [NOW, NOW]
        assert at(reader, "new").ctime == NOW


def test_without_a_clock_times_are_those_of_the_record(builder: TraceBuilder) -> None:
    """A kernel that does not show its clock: the directory that the path starts from has the time all the same."""
    builder.baseline({"d": None})
    builder.use("")
    base = builder.inode("")._replace(mtime=NOW, ctime=NOW)
    builder.mark("here", at=1.0)
    builder.emit(WireOp.MKDIR, flags=Flag.PATH, inodes=(base, caller(0)), payload=b"d/sub", offset=0o755)
    builder.emit(WireOp.MKDIR, flags=Flag.PATH, inodes=(base, caller(0)), payload=b"sub", offset=0o755)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert at(reader, "d/sub").mtime == WALL + 10**9
        assert at(reader, "sub").mtime == NOW


def test_a_path_in_proc_that_nothing_tells_the_end_of_is_a_loss(builder: TraceBuilder) -> None:
    """What a process has open is changed through it, and which file that is cannot be known; else it is left out."""
    builder.baseline({"f": b"x"})
    builder.use("", "/")
    base = builder.inode("/")
    for path, told in ((b"/proc/77/fd/3", caller(NOW)), (b"/dev/fd/3", caller(NOW)), (b"/proc/77/fd/3", None)):
        inodes = (base, told) if told else (base,)
        builder.emit(WireOp.CHMOD, flags=Flag.PATH, inodes=inodes, payload=path, offset=0o600)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.session.lost == {UNTOLD.decode(): 2}


def test_an_acl_sets_the_mode(builder: TraceBuilder) -> None:
    """A file's access ACL its permissions; a directory's default ACL those of what is made there, not the umask."""
    entries = [(1, 7, 0xFFFFFFFF), (2, 6, 1), (4, 0, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 1, 0xFFFFFFFF)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    builder.baseline({"f": {"mode": stat.S_IFREG | 0o4640}, "d": {"mode": stat.S_IFDIR | 0o755}})
    builder.use("")
    base = (builder.inode(""), caller(NOW))
    for path, name in ((b"f", acl.ACCESS), (b"d", acl.DEFAULT), (b"f", acl.DEFAULT)):
        told = value if path == b"d" or name == acl.ACCESS else b"cut"
        payload = b"%b\0%b\0%b" % (path, name, told)
        builder.emit(WireOp.SETXATTR, flags=Flag.PATH, inodes=base, payload=payload, length=len(told))
    builder.emit(WireOp.MKNOD, flags=Flag.PATH, inodes=base, payload=b"d/pipe", offset=stat.S_IFIFO | 0o666)
    builder.emit(WireOp.SYMLINK, flags=Flag.PATH, inodes=base, payload=b"d/link\0target\0")
    builder.end()
    with open_reader(builder.build()) as reader:
        modes = {path: at(reader, path).mode for path in ("f", "d", "d/pipe", "d/link")}
    assert modes == {
        "f": stat.S_IFREG | 0o4761, "d": stat.S_IFDIR | 0o755, "d/pipe": stat.S_IFIFO | 0o660,
        "d/link": stat.S_IFLNK | 0o777,
    }  # fmt: skip
