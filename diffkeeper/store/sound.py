"""Which index files were looked at before and found sound, so that `pages` need not look at them again.

A file is told by its device, inode, size, times and last transaction: whoever writes to it changes these. But not
at once who has it mapped, or writes within the same tick of the clock; so what is kept for other processes is of
files of one's own, and some time old. What is not known here is looked at, which is never wrong.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from .. import cache

State = tuple[int, int, int, int, int, int]
"""Device, inode, size, mtime and ctime in ns, transaction."""

SETTLED = 2 * 10**9
"""ns that a file was left alone for before others are told of it."""
KEPT = 256  # of the last that were looked at
_LINE = 100

_here: set[State] = set()  # opening a trace opens its index twice


def is_known(state: State, owner: int) -> bool:
    return state in _here or (owner == os.geteuid() and _line(state) in _kept())


def remember(state: State, owner: int) -> None:
    _here.clear()
    _here.add(state)
    if owner == os.geteuid() and time.time_ns() - state[4] > SETTLED:
        cache.write(_path(), b"\n".join([*_kept()[1 - KEPT :], _line(state)]))


def _kept() -> list[bytes]:
    with suppress(OSError), _path().open("rb") as file:
        return file.read(KEPT * _LINE).split(b"\n")
    return []


def _path() -> Path:
    return cache.directory() / "sound"


def _line(state: State) -> bytes:
    return b"%x %x %x %x %x %x" % state
