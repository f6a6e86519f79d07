"""Paths that are longer than a system call takes: reached a part at a time.

Owns `within_reach` alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 3800
"""Bytes of a path that is used as it is: the kernel takes 4,095, and a name more may be put behind it."""


@contextmanager
def within_reach(path: bytes) -> Iterator[bytes]:
    """A path of any length as one that system calls take, for as long as the block lasts.

    A long one becomes `/proc/self/fd/N/REST`. OSError when a directory on the way cannot be passed.
    """
    if len(path) <= LONGEST:
        yield path
        return
    fd = -1
    try:
        while len(path) > LONGEST:
            cut = path.rindex(b"/", 0, LONGEST)
            part, path = path[:cut], path[cut + 1 :]
            deeper = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd if fd >= 0 else None)
            if fd >= 0:
                os.close(fd)
            fd = deeper
        yield b"/proc/self/fd/%d/%s" % (fd, path)
    finally:
        if fd >= 0:
            os.close(fd)
