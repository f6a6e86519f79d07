"""System calls that Python has no words for, by number, for x86-64.

Each raises OSError as the functions of `os` do, and says nothing of what operations mean.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_FOLLOW = 0x400
AT_SYMLINK_NOFOLLOW = 0x100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
RWF_APPEND, RWF_DSYNC = 0x10, 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT, FALLOC_UNSHARE = 1, 2, 8, 16, 32, 64
FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
O_TMPFILE = os.O_TMPFILE
PAGE = mmap.PAGESIZE

_PWRITEV2, _VMSPLICE = 328, 278
_FALLOCATE, _LINKAT, _RENAMEAT2, _FCHMODAT2, _SETXATTRAT, _REMOVEXATTRAT = 285, 265, 316, 452, 463, 466
_OPENAT2, _MKNODAT, _PROCESS_VM_WRITEV, _MPROTECT, _FUTIMESAT = 437, 259, 311, 10, 261


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """syscall(2). Integers are passed as 64 bits, bytes as the address of a copy that ends with a NUL."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Memory:
    """Anonymous pages, the last `guard` of which cannot be touched. For buffers that end in the midst of a call."""

    def __init__(self, data: bytes, guard: int = 0) -> None:
        room = (len(data) + PAGE - 1) // PAGE * PAGE or PAGE
        self.size = room + guard * PAGE
        self.base = int(_libc.mmap(None, self.size, mmap.PROT_READ | mmap.PROT_WRITE,
                                   mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))  # fmt: skip
        self.address = self.base + room - len(data) if guard else self.base
        ctypes.memmove(self.address, data, len(data))
        if guard:
            call(_MPROTECT, self.base + room, guard * PAGE, 0)

    def free(self) -> None:
        call(11, self.base, self.size)


def iovecs(parts: Sequence[tuple[int, int]]) -> ctypes.Array[ctypes.c_char]:
    """struct iovec[] of (address, length)."""
    return ctypes.create_string_buffer(b"".join(struct.pack("<QQ", *part) for part in parts))


def write_from(fd: int, address: int, size: int, offset: int | None = None) -> int:
    return call(1, fd, address, size) if offset is None else call(18, fd, address, size, offset)


def pwritev2(fd: int, parts: Sequence[tuple[int, int]], offset: int, flags: int) -> int:
    return call(_PWRITEV2, fd, iovecs(parts), len(parts), offset, 0, flags)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    call(_FALLOCATE, fd, mode, offset, length)


def clone_range(fd: int, source: int, offset: int, length: int, to: int) -> None:
    fcntl.ioctl(fd, FICLONERANGE, struct.pack("<qQQQ", source, offset, length, to))


def dedupe(source: int, offset: int, length: int, fd: int, to: int) -> None:
    fcntl.ioctl(source, FIDEDUPERANGE, bytearray(struct.pack("<QQHHIqQQiI", offset, length, 1, 0, 0, fd, to, 0, 0, 0)))


def linkat(olddir: int, old: bytes, newdir: int, new: bytes, flags: int) -> None:
    call(_LINKAT, olddir, old, newdir, new, flags)


def renameat2(olddir: int, old: bytes, newdir: int, new: bytes, flags: int) -> None:
    call(_RENAMEAT2, olddir, old, newdir, new, flags)


def fchmodat2(dirfd: int, path: bytes, mode: int, flags: int) -> None:
    call(_FCHMODAT2, dirfd, path, mode, flags)


def setxattrat(dirfd: int, path: bytes, at_flags: int, name: bytes, value: bytes) -> None:
    held = ctypes.create_string_buffer(value, len(value) or 1)
    arguments = ctypes.create_string_buffer(struct.pack("<QII", ctypes.addressof(held), len(value), 0), 16)
    call(_SETXATTRAT, dirfd, path, at_flags, name, arguments, 16)


def removexattrat(dirfd: int, path: bytes, at_flags: int, name: bytes) -> None:
    call(_REMOVEXATTRAT, dirfd, path, at_flags, name)


def openat2(dirfd: int, path: bytes, flags: int, mode: int) -> int:
    how = ctypes.create_string_buffer(struct.pack("<QQQ", flags, mode, 0), 24)
    return call(_OPENAT2, dirfd, path, how, 24)


def futimesat(dirfd: int, path: bytes, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    call(_FUTIMESAT, dirfd, path, ctypes.create_string_buffer(struct.pack("<qqqq", *atime, *mtime), 32))


def vmsplice(pipe: int, address: int, size: int) -> int:
    return call(_VMSPLICE, pipe, iovecs([(address, size)]), 1, 0)


def chattr(fd: int, flags: int) -> None:
    """FS_IOC_SETFLAGS."""
    fcntl.ioctl(fd, 0x40086602, struct.pack("<q", flags))


def mount(source: bytes, target: bytes, kind: bytes, flags: int) -> None:
    call(165, source, target, kind, flags, 0)


def unshare(flags: int) -> None:
    call(272, flags)
