"""The files that a store is in: what they must be before LMDB gets them, and how a copy takes their place.

Owns the name of each and the lock on their directory. What is in them belongs to `db` and `pages`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import TraceDamagedError
from . import pages

DATA_FILE = "index.lmdb"
LOCK_FILE = "index.lmdb-lock"
_READER_BYTES, _LOCK_HEAD = 64, 4096  # of the lock file: a line of cache for each reader, and what comes before them


@contextlib.contextmanager
def entrance(directory: Path, *, alone: bool = False) -> Iterator[None]:
    """Held, shared, while a store is opened, and alone while its files are replaced: by a lock on their directory."""
    fd = -1
    try:
        with contextlib.suppress(OSError):  # not every filesystem has locks for directories
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def is_there(path: Path) -> bool:
    """Whether there is a data file: before LMDB maps it, what it must be, and what its first pages must say."""
    for name in (path.with_name(LOCK_FILE), path):  # LMDB would follow links, and write to where they lead
        try:
            status = os.lstat(name)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise TraceDamagedError(f"damaged trace: {name} is not a file of its own: copy the trace again")
        if name == path and status.st_size:  # empty: a writer was killed before it wrote the first page
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                pages.metas(file)
            finally:
                os.close(file)
            return True
    return False


def allocate_lock(path: Path, readers: int) -> bool:
    """Give the lock file its blocks; False: the disk is full. LMDB writes to it through a map, which would kill us."""
    try:
        fd = os.open(path.with_name(LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return True  # one that cannot be written: LMDB says so, too
    try:
        os.posix_fallocate(fd, 0, _LOCK_HEAD + readers * _READER_BYTES)
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    finally:
        os.close(fd)
    return True


def replace(path: Path, by: Path) -> bool:
    """Put a copy in the place of a store that nobody has open; False, and the copy removed, if somebody has.

    The lock file belongs to the old one, and goes: its transaction numbers mean nothing for the copy. Nobody
    gets one of the new files and one of the old: whoever opens a store meanwhile waits.
    """
    with entrance(path.parent, alone=True):
        lock = os.open(path.with_name(LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # LMDB holds its first byte shared, while it is open
        except OSError:
            by.unlink()
            return False
        else:
            status = os.stat(path)
            os.chown(by, status.st_uid, status.st_gid)
            os.chmod(by, stat.S_IMODE(status.st_mode))
            os.rename(by, path)
            os.unlink(path.with_name(LOCK_FILE))
            return True
        finally:
            os.close(lock)
