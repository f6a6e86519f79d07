"""System calls that Python has no words for, by number, for x86-64.

Each raises OSError as the functions of `os` do, and says nothing of what operations mean.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
_OPENAT2, _PROCESS_VM_WRITEV, _FUTIMESAT, _FILE_SETATTR = 437, 311, 261, 469
_MMAP, _MPROTECT, _MUNMAP, _MREMAP, _MSYNC = 9, 10, 11, 25, 26
_IO_SETUP, _IO_DESTROY, _IO_GETEVENTS, _IO_SUBMIT = 206, 207, 208, 209


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

    @property
    def pointer(self) -> ctypes.c_void_p:
        """For functions of C."""
        return ctypes.c_void_p(self.address)

    def free(self) -> None:
        munmap(self.base, self.size)


READ, READ_WRITE = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE


def map_shared(fd: int, offset: int, length: int, protection: int) -> int:
    """The address of so many bytes of a file; stores to it are stores to the file."""
    return call(_MMAP, 0, length, protection, mmap.MAP_SHARED, fd, offset)


def map_over(address: int, length: int) -> None:
    """Pages of nobody where something else was mapped."""
    call(_MMAP, address, length, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, 0)


def munmap(address: int, length: int) -> None:
    call(_MUNMAP, address, length)


def mprotect(address: int, length: int, protection: int) -> None:
    call(_MPROTECT, address, length, protection)


def mremap(address: int, length: int, longer: int) -> int:
    """The new address: it may move."""
    return call(_MREMAP, address, length, longer, 1)


def msync(address: int, length: int) -> None:
    call(_MSYNC, address, length, 4)


def store(address: int, data: bytes) -> None:
    """Plain machine instructions, no call: the kernel takes no part in it."""
    ctypes.memmove(address, data, len(data))


def process_vm_writev(pid: int, address: int, size: int, to: int) -> None:
    call(_PROCESS_VM_WRITEV, pid, iovecs([(address, size)]), 1, iovecs([(to, size)]), 1, 0)


def submit(writes: Sequence[tuple[int, int, int, int, bool]]) -> list[int]:
    """Linux AIO: writes of (fd, address, size, offset, whether as vectors), at once; waits, and says how each ended."""
    context = ctypes.create_string_buffer(8)
    call(_IO_SETUP, len(writes), context)
    owner = int.from_bytes(context.raw, "little")
    held, blocks = [], []
    try:
        for number, (fd, address, size, offset, vectors) in enumerate(writes):
            code, place, count = _PWRITE_REQUEST, address, size
            if vectors:
                held.append(iovecs([(address, size // 2), (address + size // 2, size - size // 2)]))
                code, place, count = _PWRITEV_REQUEST, ctypes.addressof(held[-1]), 2
            block = struct.pack("<QIiHhIQQqQII", number, 0, 0, code, 0, fd, place, count, offset, 0, 0, 0)
            blocks.append(ctypes.create_string_buffer(block, 64))
        pointers = ctypes.create_string_buffer(b"".join(struct.pack("<Q", ctypes.addressof(each)) for each in blocks))
        taken = call(_IO_SUBMIT, owner, len(blocks), pointers)
        events = ctypes.create_string_buffer(32 * taken)
        done = 0
        while done < taken:
            left, place = taken - done, ctypes.addressof(events) + 32 * done
            done += _interrupted(_IO_GETEVENTS, owner, left, left, place, 0)
        found = dict(struct.unpack_from("<Q8xq", events, 32 * each) for each in range(taken))
        return [found[number] for number in sorted(found)]
    finally:
        call(_IO_DESTROY, owner)


_PWRITE_REQUEST, _PWRITEV_REQUEST = 1, 8


def _interrupted(number: int, *arguments: int) -> int:
    """A call that is made again after a signal: being stopped and continued is one."""
    while True:
        with contextlib.suppress(InterruptedError):
            return call(number, *arguments)


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


def file_setattr(dirfd: int, path: bytes, flags: int) -> None:
    """FS_XFLAG_* of a file; of the descriptor itself where the path is empty. Since Linux 6.17."""
    call(_FILE_SETATTR, dirfd, path, struct.pack("<QIIII", flags, 0, 0, 0, 0), 24, 0 if path else AT_EMPTY_PATH)


def has_file_setattr() -> bool:
    try:
        file_setattr(-1, b"", 0)
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def mount(source: bytes, target: bytes, kind: bytes, flags: int) -> None:
    call(165, source, target, kind, flags, 0)


def unshare(flags: int) -> None:
    call(272, flags)
