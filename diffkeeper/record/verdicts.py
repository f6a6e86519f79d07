"""Which paths the kernel half leaves out: the answers to what it asks.

The kernel half asks about each inode that it tells of (bpf/verdicts.h), by a copy of its BIND in a ring of its own, and
nobody waits. Calls on what is rejected here are not recorded from then on; until then, and where nothing was answered,
the indexer leaves them out. RENAME and LINK come by that ring, too: what gets a name that is recorded, and had none,
is read and told here. Does not decide what a filter means, nor drain the ring of events.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from ..filtering import KEPT, Filters
from ..paths import below_root
from ..wire import Flag, Inode, Record, WireOp, kernel_path, records, strings
from .baseline import Baseline
from .kernel import FILTERS, QUESTIONS_BYTES, Kernel
from .mounting import Mounting
from .ring import Ring

RENAME_EXCHANGE = 2
_KNOWN_PLACES = 200_000


class Verdicts:
    """The answers of one recording. `tell` makes the passes over what comes to be recorded."""

    def __init__(self, filters: Filters, roots: Sequence[bytes], tell: Callable[[], Baseline]) -> None:
        self._filters, self._roots, self._tell = filters, roots, tell
        self._places: dict[tuple[int, int, int], bytes] = {}  # directories that paths start from
        self._ring: Ring | None = None

    def connect(self, kernel: Kernel, mounting: Mounting) -> None:
        """Answer from now on. Where the kernel half cannot ask, nothing is left out by it."""
        self._mounting = mounting
        if self._filters.judges_paths and kernel.judge():
            self._kernel = kernel
            self._ring = Ring(kernel.questions_fd, QUESTIONS_BYTES)

    @property
    def asked(self) -> int:
        """The position up to which there are questions."""
        return self._ring.produced if self._ring else 0

    def answer(self, upto: int) -> None:
        """The questions before this position. Records that are older must have been drained from the ring of events."""
        ring = self._ring
        while ring is not None and ring.consumed < upto and (span := ring.span(upto)) is not None:
            for record in records(span):
                if record.op == WireOp.BIND:
                    self._judge(record)
                else:
                    self._moved(record)
            ring.release(span)

    def close(self) -> None:
        if self._ring:
            self._ring.close()
            self._ring = None

    def _judge(self, record: Record) -> None:
        inode, path = record.inodes[0], kernel_path(record.payload)
        if record.flags & Flag.APART:
            seen = self._mounting.mounts.path(inode.dev, path)
            if seen is None:
                return
            path = seen
        is_dir = stat.S_ISDIR(inode.mode)
        if is_dir:
            if len(self._places) >= _KNOWN_PLACES:
                self._places.clear()
            self._places[inode.identity] = path
        if record.flags & Flag.INEXACT:  # only the end of its path is known
            return
        for above in range(record.length + 1):
            index = self._filters.rejected_by(path, is_dir) if below_root(path, self._roots) is not None else KEPT
            if index == KEPT:  # as is all that is above it
                break
            if index < FILTERS:
                self._filters.name(path, is_dir)
                self._kernel.reject(record.offset, above, index)
            path, is_dir = path.rpartition(b"/")[0], True

    def _moved(self, record: Record) -> None:
        """Something has another name, and perhaps is recorded from now on. `length`: its writer stands still."""
        if record.flags & Flag.APART:  # what its paths mean is found out by the indexer
            return
        old, new, _ = strings(record.payload, 2)
        source, target = self._path(record.inodes[0], old), self._path(record.inodes[1], new)
        if source is None or target is None:
            return
        exchanges = record.op == WireOp.RENAME and record.offset & RENAME_EXCHANGE
        for before, now in ((source, target), (target, source)) if exchanges else ((source, target),):
            if below_root(now, self._roots) and self._comes(before, now):
                self._tell().tell(now, 0 if record.length else int(Flag.INEXACT))

    def _comes(self, before: bytes, now: bytes) -> bool:
        """Whether what is at a path now was left out at the one it had before."""
        if not any(self._is_rejected(before, is_dir) for is_dir in (False, True)):
            return False
        try:
            is_dir = stat.S_ISDIR(os.lstat(now).st_mode)
        except OSError:  # it has gone on
            return False
        return self._is_rejected(before, is_dir) and not self._is_rejected(now, is_dir)

    def _is_rejected(self, path: bytes, is_dir: bool) -> bool:
        return self._filters.rejected_by(path, is_dir) != KEPT

    def _path(self, base: Inode, path: bytes) -> bytes | None:
        """Where a path leads that starts from a directory, its last name as it stands."""
        start = self._places.get(base.identity)
        if start is None:
            return None
        directory, name = os.path.split(path.strip(b"/"))
        return os.path.join(os.path.realpath(os.path.join(start, directory)) if directory else start, name)
