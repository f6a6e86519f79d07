"""Scripts that once went wrong, small as the oracle made them, and the filesystem it was on.

Each is a name for what was wrong; nothing else is here. A script is done by the actors that its
operations name; what stands in `before` is done before the recording begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from .attributes import acl
from .hands import Args

_ANY = 0xFFFFFFFF
_ACL = acl([(1, 6, _ANY), (2, 5, 1), (4, 4, _ANY), (16, 5, _ANY), (32, 4, _ANY)])
_DEFAULT, _ACCESS = "system.posix_acl_default", "system.posix_acl_access"


@dataclass(frozen=True)
class Found:
    """`kind` as in `filesystems`."""

    script: tuple[Args, ...]
    before: tuple[Args, ...] = ()
    kind: str = "here"


def _setxattr(path: str, name: str, value: str, **more: object) -> Args:
    return {"op": "setxattr", "path": path, "at": "cwd", "name": name, "value": value, "xat": False, "follow": True,
            "by": 0, **more}  # fmt: skip


def _write(path: str, **more: object) -> Args:
    return {"op": "write", "how": "write", "path": path, "at": "cwd", "flags": "rdwr creat", "seed": 7, "size": 5000,
            "offset": 0, "count": 1, "by": 0, **more}  # fmt: skip


def _mkdir(path: str, **more: object) -> Args:
    return {"op": "mkdir", "path": path, "at": "cwd", "mode": 0o755, "by": 0, **more}


def _fallocate(how: int, offset: int, length: int) -> Args:
    return {"op": "fallocate", "how": how, "offset": offset, "length": length, "path": "f", "at": "cwd", "by": 0}


def _rename(path: str, new: str, **more: object) -> Args:
    return {"op": "rename", "path": path, "at": "cwd", "new": new, "at2": "cwd", "flags": None, "by": 0, **more}


FOUND = {
    "chmod of a file with an ACL": Found((
        _write("f"),
        _setxattr("f", _ACCESS, _ACL),
        {"op": "chmod", "path": "f", "at": "cwd", "mode": 0o777, "by": 0},
        {"op": "chmod", "slot": 8, "mode": 0o700, "by": 0},
    )),
    "ACLs that are inherited": Found((
        _mkdir("d"),
        _setxattr("d", _DEFAULT, _ACL),
        _write("d/f"),
        _mkdir("d/sub"),
        {"op": "mknod", "path": "d/fifo", "at": "cwd", "mode": 0o10666, "rdev": 0, "by": 0},
        {"op": "tmpfile", "directory": "d", "at": "cwd", "mode": 0o644, "new": "made", "at2": "cwd", "how": "empty",
         "by": 0},
    )),
    "a capability that a write takes away": Found((
        _write("f"),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _write("f", size=10),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        {"op": "chown", "path": "f", "at": "cwd", "uid": 5, "gid": 5, "follow": True, "by": 0},
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        {"op": "truncate", "path": "f", "at": "abs", "size": 3, "by": 0},
    )),
    "a capability that a write takes away, and fails": Found((
        _write("f"),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _write("f", how="fault", size=0, offset=1),
    ), kind="btrfs"),
    "a capability that a fallocate takes away": Found((
        _write("f"),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(3, 10932, 4097),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(1, 20000, 4097),
    ), kind="tmpfs"),
    "setxattrat and removexattrat": Found((
        _write("f"),
        _setxattr("f", "user.one", "01", xat=True),
        _setxattr("f", "security.one", "02", xat=True, at="abs"),
        {"op": "removexattr", "path": "f", "at": "cwd", "name": "user.one", "xat": True, "follow": False, "by": 0},
    )),
    "a socket gets its name by bind": Found((
        _mkdir("d"), {"op": "bind_socket", "path": "d/socket", "by": 0}, {"op": "bind_socket", "path": "s", "by": 2},
    )),
    "a write that fails half-way": Found((
        _write("f"),
        _write("f", how="fault", size=0, offset=1),
        _write("f", how="fault", size=0, offset=100_000),
        _write("f", how="fault", size=3000, offset=20_000),
        _write("f", how="limit", size=3000, offset=30_000),
    )),
    "fallocate that changes times or sizes alone": Found((
        _write("f", size=10_000),
        _fallocate(1, 4096, 12288),
        _fallocate(0, 8000, 20_000),
        _fallocate(3, 40_000, 4096),
        _fallocate(17, 26_000, 40_000),
        _fallocate(8, 4096, 4096),
        _fallocate(32, 4096, 8192),
        _fallocate(8, 0, 1 << 20),
    )),
    "a whiteout, and one that failed": Found((
        _mkdir("d", mode=0o2775), _mkdir("full"), _write("full/f"), _write("d/a"),
        _rename("d/a", "d/b", flags=4),
        _rename("d", "full", flags=4),
    )),
    "a directory that the call which first meets it moves": Found(
        script=(_rename("d/f", "o", at="fd:d/deep", at2="fd:d/deep"),
                _rename("d", "other", at="fd:e/deep", flags=2)),
        before=(_mkdir("d"), _mkdir("d/deep"), _write("d/f"), _mkdir("e"), _mkdir("e/deep"), _write("other")),
    ),
    "a root that is known when its directory moves": Found(
        script=(_mkdir("d"), _mkdir("d/in"), _write("held"), _rename("d", "held", flags=2, at="fd:d/in")),
    ),
    "names with slashes behind them": Found((
        _mkdir("d", mode=0o2755),
        {"op": "chown", "path": "d", "at": "cwd", "uid": 0, "gid": 5, "follow": True, "by": 0},
        _mkdir("d/x/"), _mkdir("d/y///", by=2),
    ), kind="xfs"),
    "an empty file that is emptied": Found((
        {"op": "create", "path": "f", "at": "cwd", "flags": "wronly creat", "mode": 0o644, "by": 0},
        {"op": "truncate", "path": "f", "at": "abs", "size": 0, "by": 0},
    ), kind="xfs"),
    "an empty file with a capability that is emptied": Found((
        {"op": "create", "path": "f", "at": "cwd", "flags": "wronly creat", "mode": 0o644, "by": 0},
        {"op": "chmod", "path": "f", "at": "cwd", "mode": 0o4755, "by": 0},
        {"op": "setxattr", "name": "security.capability", "value": "0100000200040000000000000000000000000000",
         "flags": 0, "xat": False, "follow": True, "path": "f", "at": "cwd", "by": 0},
        {"op": "truncate", "path": "f", "at": "cwd", "size": 0, "by": 0},
    ), kind="xfs"),
    "set-id bits that a truncate takes away": Found((
        {"op": "create", "path": "f", "at": "cwd", "flags": "wronly creat", "mode": 0o644, "by": 2},
        {"op": "chmod", "path": "f", "at": "cwd", "mode": 0o6755, "by": 2},
        {"op": "truncate", "path": "f", "at": "abs", "size": 0, "by": 2},
    ), kind="tmpfs"),
    "stores through memory that only a mark makes sure of": Found((
        _write("f"),
        {"op": "map_keep", "map": 0, "page": 0, "pages": 2, "path": "f", "at": "cwd", "flags": "rdwr", "by": 1},
        {"op": "map_poke", "map": 0, "then": "", "seed": 1, "size": 10, "offset": 4090, "whole": False, "by": 1},
    )),
    "a page before those that were mapped first": Found((
        _write("f", size=10_000),
        {"op": "map_keep", "map": 0, "page": 2, "pages": 1, "path": "f", "at": "cwd", "flags": "rdwr", "by": 0},
        {"op": "map_store", "how": "mprotect", "more": 1, "seed": 1, "size": 100, "offset": 512, "whole": False,
         "page": 0, "pages": 2, "path": "f", "at": "cwd", "flags": "rdwr", "by": 0},
    )),
    "a request that fails, and sets times": Found(
        script=(_fallocate(8, 12288, 8192) | {"op": "ring_fallocate", "way": "plain", "worker": False},),
        before=(_write("f"),), kind="ext4",
    ),
    "a request that an overlay passes on to be refused": Found((
        _write("f"),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(17, 65536, 100_000) | {"op": "ring_fallocate", "way": "plain", "worker": False},
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(9, 65536, 100_000) | {"op": "ring_fallocate", "way": "plain", "worker": False},
        _fallocate(0, 65536, 0) | {"op": "ring_fallocate", "way": "plain", "worker": False},
        _fallocate(17, 65536, 100_000) | {"op": "ring_fallocate", "way": "plain", "worker": True},
    ), kind="overlay"),
    "a hole in a hole": Found((
        {"op": "create", "path": "f", "at": "cwd", "flags": "wronly creat", "mode": 0o644, "by": 0},
        {"op": "truncate", "path": "f", "at": "cwd", "size": 100_000, "by": 0},
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(3, 13347, 2482),
        _fallocate(3, 113347, 2482),
        _fallocate(3, 13347, 2482) | {"op": "ring_fallocate", "way": "plain", "worker": False},
        _fallocate(3, 13347, 2482) | {"op": "ring_fallocate", "way": "plain", "worker": True},
        _fallocate(3, 113347, 2482) | {"op": "ring_fallocate", "way": "plain", "worker": False},
        {"op": "truncate", "path": "f", "at": "cwd", "size": 9000, "by": 0},
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(3, 13347, 2482),
        _fallocate(3, 13347, 2482) | {"op": "ring_fallocate", "way": "plain", "worker": False},
    ), kind="btrfs"),
    "requests that nobody may make": Found((
        _write("f"),
        _setxattr("f", "security.capability", "0100000200040000000000000000000000000000"),
        _fallocate(0, 0, 100) | {"op": "ring_fallocate", "way": "plain", "worker": False, "flags": ""},
        {"op": "ring_write", "how": "write", "path": "f", "at": "cwd", "flags": "", "seed": 1, "size": 10,
         "offset": 0, "seek": None, "way": "plain", "worker": False, "by": 0},
    )),
    "a size on an overlay, by an absolute path": Found(
        script=({"op": "truncate", "path": "d/f", "at": "abs", "size": 100_000, "by": 0},),
        before=(
            _mkdir("d"),
            {"op": "create", "path": "d/f", "at": "cwd", "flags": "wronly creat", "mode": 0o644, "by": 0},
        ),
        kind="overlay",
    ),
    "a symlink that a chroot keeps in": Found(
        script=(_mkdir("d"), _write("f"),
                {"op": "symlink", "path": "d/l", "at": "cwd", "target": "../../../f", "by": 0},
                {"op": "chown", "path": "d/l", "at": "cwd", "uid": 5, "gid": 5, "follow": True, "by": 3},
                {"op": "chmod", "path": "d/l", "at": "cwd", "mode": 0o600, "by": 3},
                {"op": "link", "path": "d/l", "at": "cwd", "new": "other", "at2": "abs", "flags": 1024, "by": 3}),
    ),
    "a symlink that a chroot keeps at its top": Found(
        script=({"op": "symlink", "path": "l", "at": "cwd", "target": "..", "by": 0},
                {"op": "setxattr", "name": "user.a", "value": "31", "flags": 1, "xat": False, "follow": True,
                 "path": "l", "at": "cwd", "by": 3},
                {"op": "chmod", "path": "l", "at": "cwd", "mode": 0o750, "by": 3}),
    ),
    "a link on an overlay to what a symlink leads to in a chroot": Found((
        _mkdir("d"), _write("d/f"),
        {"op": "symlink", "path": "l", "at": "cwd", "target": "../d/f", "by": 0},
        {"op": "chmod", "path": "l", "at": "cwd", "mode": 0o600, "by": 3},
        {"op": "link", "path": "l", "at": "cwd", "new": "d/other", "at2": "cwd", "flags": 1024, "by": 3},
        {"op": "chmod", "path": "l", "at": "cwd", "mode": 0o640, "by": 3},
    ), kind="overlay"),
    "directories of an overlay, by absolute paths": Found((
        _mkdir("d", mode=0o2775, at="abs"),
        {"op": "chown", "path": "d", "at": "cwd", "uid": 0, "gid": 1000, "follow": True, "by": 0},
        _mkdir("d/e", at="abs"),
        {"op": "mknod", "path": "d/n", "at": "abs", "mode": 0o100664, "rdev": 0, "by": 2},
    ), kind="overlay"),
    "a file of an overlay that has two inodes of one number": Found((
        {"op": "tmpfile", "directory": ".", "at": "cwd", "mode": 0o644, "new": "f", "at2": "abs", "how": "proc",
         "by": 1},
        {"op": "utime", "how": "ns", "atime": 1, "mtime": 1_000_000_000, "follow": True, "path": "f", "at": "abs",
         "by": 1},
        {"op": "tmpfile", "directory": ".", "at": "cwd", "mode": 0o644, "new": "g", "at2": "abs", "how": "proc",
         "by": 1},
        {"op": "chmod", "path": "g", "at": "abs", "mode": 0o4755, "by": 1},
    ), kind="overlay"),
    "moved by a process apart to a directory of its new name": Found((
        _write("f"), _mkdir("d"), _mkdir("d/d"),
        {"op": "rename", "path": "f", "at": "cwd", "new": "d/d/d", "at2": "abs", "flags": 0, "by": 4},
        {"op": "rename", "path": "d/d/d", "at": "cwd", "new": "d/f", "at2": "abs", "flags": 0, "by": 4},
        {"op": "rename", "path": "d/f", "at": "cwd", "new": "d/d/d", "at2": "abs", "flags": 0, "by": 4},
    )),
    "a file without a name that a process apart writes to by io_uring": Found((
        {"op": "keep", "path": "f", "at": "cwd", "flags": "rdwr creat", "mode": 0o644, "slot": 0, "by": 4},
        {"op": "unlink", "path": "f", "at": "cwd", "by": 4},
        {"op": "ring_splice", "slot": 0, "seed": 3, "size": 4095, "offset": 0, "way": "plain", "worker": False,
         "by": 4},
    )),
    "a file of an overlay that nobody has used, linked by a process apart": Found(
        before=(_write("f"), _mkdir("d")),
        script=({"op": "link", "path": "f", "at": "abs", "new": "d/l", "at2": "cwd", "flags": 0, "by": 4},
                {"op": "chmod", "path": "d/l", "at": "abs", "mode": 0o600, "by": 4}),
        kind="overlay",
    ),
}  # fmt: skip
