"""Operations on what stat() and getxattr() show: modes, owners, times, extended attributes, ACLs."""

from __future__ import annotations

import os
import struct

from . import system
from .hands import Args, Hands


def _fd(dirfd: int | None) -> int:
    return system.AT_FDCWD if dirfd is None else dirfd


def chmod(hands: Hands, args: Args) -> None:
    if "path" not in args:
        with hands.file(args) as fd:
            os.fchmod(fd, args["mode"])
        return
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        if args.get("flags"):
            system.fchmodat2(_fd(dirfd), path, args["mode"], args["flags"])
        else:
            os.chmod(path, args["mode"], dir_fd=dirfd)


def chown(hands: Hands, args: Args) -> None:
    if "path" not in args:
        with hands.file(args) as fd:
            os.fchown(fd, args["uid"], args["gid"])
        return
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.chown(path, args["uid"], args["gid"], dir_fd=dirfd, follow_symlinks=args["follow"])


def utime(hands: Hands, args: Args) -> None:
    """"how": ns (utimensat), now, old (futimesat, microseconds) or fd (futimens)."""
    times = (args["atime"], args["mtime"])
    if "path" not in args:
        with hands.file(args) as fd:
            os.utime(fd, ns=times)
        return
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        if args["how"] == "old":
            seconds = [(time // 10**9, time % 10**9 // 1000) for time in times]
            system.futimesat(_fd(dirfd), path, seconds[0], seconds[1])
        elif args["how"] == "now":
            os.utime(path, dir_fd=dirfd, follow_symlinks=args["follow"])
        else:
            os.utime(path, ns=times, dir_fd=dirfd, follow_symlinks=args["follow"])


def setxattr(hands: Hands, args: Args) -> None:
    value, name = bytes.fromhex(args["value"]), args["name"]
    if "path" not in args:
        with hands.file(args) as fd:
            os.setxattr(fd, name, value, args.get("flags", 0))
        return
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        if args["xat"]:
            at_flags = 0 if args["follow"] else system.AT_SYMLINK_NOFOLLOW
            system.setxattrat(_fd(dirfd), path, at_flags, os.fsencode(name), value)
        else:
            os.setxattr(_without(dirfd, path), name, value, args.get("flags", 0), follow_symlinks=args["follow"])


def removexattr(hands: Hands, args: Args) -> None:
    name = args["name"]
    if "path" not in args:
        with hands.file(args) as fd:
            os.removexattr(fd, name)
        return
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        if args["xat"]:
            at_flags = 0 if args["follow"] else system.AT_SYMLINK_NOFOLLOW
            system.removexattrat(_fd(dirfd), path, at_flags, os.fsencode(name))
        else:
            os.removexattr(_without(dirfd, path), name, follow_symlinks=args["follow"])


def _without(dirfd: int | None, path: bytes) -> bytes:
    """For calls that take no directory's descriptor: through /proc, as programs do."""
    return path if dirfd is None else b"/proc/self/fd/%d/%s" % (dirfd, path)


def acl(entries: list[tuple[int, int, int]]) -> str:
    """The value of system.posix_acl_* for (tag, permissions, id), in hex."""
    return (struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)).hex()


def chattr(hands: Hands, args: Args) -> None:
    """Flags that change nothing one could compare (nodump, noatime); the file must stay as it is recorded."""
    with hands.file(args) as fd:
        system.chattr(fd, args["attributes"])
