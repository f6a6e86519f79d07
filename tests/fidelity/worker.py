"""The program that is recorded: `python -m tests.fidelity.worker PLACE ASYNC_WRITER`.

In PLACE each change gets a directory, its number; after it a mark. Prints a pickle of what each
directory was at its mark, or None where the filesystem cannot do such a thing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.oracle import system
from tests.system import harness

from .changes import CHANGES

SIZE = 65536
NOT_HERE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.EPERM, errno.ENOSYS})

_kept: list[Any] = []


def keep(thing: Any) -> Any:
    """Lives on, so that a mapping is not unmapped before the mark."""
    _kept.append(thing)
    return thing


def child(act: Callable[[], object]) -> None:
    """In a forked process, waited for."""
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def source() -> int:
    """A descriptor of another file, of other bytes."""
    fd = os.open("source", os.O_RDWR | os.O_CREAT)
    os.write(fd, bytes(range(256)) * 256)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def twin() -> int:
    """A descriptor of a file of the same bytes."""
    fd = os.open("twin", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"0123456789abcdef" * (SIZE // 16))
    return fd


def direct() -> None:
    memory = mmap.mmap(-1, 8192)
    memory.write(b"D" * 8192)
    os.pwrite(os.open("file", os.O_WRONLY | os.O_DIRECT), memory, 4096)


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE + 100, SIZE + 100))
    os.write(os.open("file", os.O_WRONLY | os.O_APPEND), b"x" * 1000)


def half_way() -> None:
    memory = system.Memory(b"y" * 6000, guard=1)
    fd = os.open("file", os.O_WRONLY)
    for _ in range(2):  # the second fails at once
        try:
            system.write_from(fd, memory.base + 1000, 9000)
            memory.base = memory.address + 6000 - 1000
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise


def poke(m: mmap.mmap) -> None:
    there = ctypes.addressof(keep(ctypes.c_char.from_buffer(m)))
    text = keep(ctypes.create_string_buffer(b"poked"))
    parent = os.getpid()
    here, to = system.iovecs([(ctypes.addressof(text), 5)]), system.iovecs([(there + 300, 5)])
    child(lambda: system.call(311, parent, here, 1, to, 1, 0))


def crash() -> None:
    """Into a file `core`, where the kernel makes one."""
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        raise OSError(errno.EOPNOTSUPP, "core dumps go elsewhere")
    # Of a small program: an interpreter that was forked has much in it.
    run("sh", "-c", "ulimit -c unlimited; sh -c 'kill -ABRT $$'; test $? = 134")


def flags_of(fd: int) -> int:
    """FS_IOC_GETFLAGS."""
    flags = bytearray(8)
    fcntl.ioctl(fd, 0x80086601, flags)
    return int.from_bytes(flags[:4], "little")


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def asynchronous(way: str) -> None:
    run(sys.argv[2], way)


NAMES = {
    "asynchronous": asynchronous, "child": child, "crash": crash, "direct": direct, "fcntl": fcntl,
    "flags_of": flags_of, "half_way": half_way, "keep": keep, "limited": limited, "mmap": mmap, "os": os, "poke": poke,
    "run": run, "socket": socket, "source": source, "system": system, "twin": twin,
}  # fmt: skip


def main() -> None:
    place = Path(sys.argv[1])
    seen: list[harness.Truth | None] = []
    for number, change in enumerate(CHANGES):
        directory = place / str(number)
        directory.mkdir()
        os.chdir(directory)
        Path("file").write_bytes(b"0123456789abcdef" * (SIZE // 16))
        fd = os.open("file", os.O_RDWR)
        try:
            exec(change.code, {**NAMES, "fd": fd})
            possible = True
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            possible = False
        try:
            os.open(f"/.diffkeeper/mark/change-{number}", os.O_RDONLY)
        except FileNotFoundError:
            seen.append(harness.truth(directory) if possible else None)
    sys.stdout.buffer.write(pickle.dumps(seen))


if __name__ == "__main__":
    main()
