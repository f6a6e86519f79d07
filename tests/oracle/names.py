"""Operations on names: made, linked, moved, taken away; and on what an actor stands on or holds open."""

from __future__ import annotations

import os
import socket
import stat

from . import system
from .hands import Args, Hands


def _or_cwd(dirfd: int | None) -> int:
    return system.AT_FDCWD if dirfd is None else dirfd


def create(hands: Hands, args: Args) -> None:
    os.close(hands.open(args))


def mkdir(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.mkdir(path, args["mode"], dir_fd=dirfd)


def mknod(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.mknod(path, args["mode"], args["rdev"], dir_fd=dirfd)


def bind_socket(hands: Hands, args: Args) -> None:
    """bind(2) of a Unix socket makes a name; it takes short paths only."""
    with hands.at(args["path"]) as (_, path), socket.socket(socket.AF_UNIX) as made:
        if len(path) > 100:
            raise OSError(36, "too long for a socket")
        made.bind(path)


def symlink(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.symlink(hands.text(args["target"]), path, dir_fd=dirfd)


def link(hands: Hands, args: Args) -> None:
    with (
        hands.at(args["path"], args["at"]) as (olddir, old),
        hands.at(args["new"], args["at2"]) as (newdir, new),
    ):
        system.linkat(_or_cwd(olddir), old, _or_cwd(newdir), new, args["flags"])


def rename(hands: Hands, args: Args) -> None:
    with (
        hands.at(args["path"], args["at"]) as (olddir, old),
        hands.at(args["new"], args["at2"]) as (newdir, new),
    ):
        if args["flags"] is None:
            os.rename(old, new, src_dir_fd=olddir, dst_dir_fd=newdir)
        else:
            system.renameat2(_or_cwd(olddir), old, _or_cwd(newdir), new, args["flags"])


def unlink(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.unlink(path, dir_fd=dirfd)


def rmdir(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.rmdir(path, dir_fd=dirfd)


def rmtree(hands: Hands, args: Args) -> None:
    """All that is in a directory, and the directory. Not shutil's, which walks by paths that may be too long."""
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dirfd)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(path, dir_fd=dirfd)


def _empty(fd: int) -> None:
    for name in os.listdir(fd):
        if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                _empty(below)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)


def tmpfile(hands: Hands, args: Args) -> None:
    """A file without a name, written, and given one: by AT_EMPTY_PATH, by /proc, or never."""
    with hands.at(args["directory"], args["at"]) as (dirfd, path):
        fd = os.open(path, os.O_TMPFILE | os.O_RDWR, args["mode"], dir_fd=dirfd)
    try:
        os.write(fd, b"made without a name")
        with hands.at(args["new"], args["at2"]) as (newdir, new):
            if args["how"] == "empty":
                system.linkat(fd, b"", _or_cwd(newdir), new, system.AT_EMPTY_PATH)
            elif args["how"] == "proc":
                source = b"/proc/self/fd/%d" % fd
                system.linkat(system.AT_FDCWD, source, _or_cwd(newdir), new, system.AT_SYMLINK_FOLLOW)
        os.write(fd, b", and written on")
    finally:
        os.close(fd)


def deep(hands: Hands, args: Args) -> None:
    """Directories in one another, by steps, until no path is long enough to name the innermost at once."""
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.mkdir(path, 0o755, dir_fd=dirfd)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=dirfd)
    try:
        for level in range(args["levels"]):
            name = (b"%02d" % level).ljust(args["length"], b"-")
            os.mkdir(name, 0o755, dir_fd=fd)
            fd, above = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd), fd
            os.close(above)
        file = os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
        os.write(file, b"far below")
        os.close(file)
        os.rename("file", "renamed", src_dir_fd=fd, dst_dir_fd=fd)
        os.setxattr(fd, "user.deep", b"yes")
    finally:
        os.close(fd)


def chdir(hands: Hands, args: Args) -> None:
    path = hands.root + b"/" + os.fsencode(args["path"])
    if not args["fchdir"]:
        os.chdir(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)


def keep(hands: Hands, args: Args) -> None:
    """Open a file and keep it open."""
    hands.keep(args["slot"], hands.open(args))


def duplicate(hands: Hands, args: Args) -> None:
    if args["of"] in hands.slots:
        hands.keep(args["slot"], os.dup(hands.slots[args["of"]]))


def close(hands: Hands, args: Args) -> None:
    hands.drop(args["slot"])
