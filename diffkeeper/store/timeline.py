"""The cursor's place in the recording: number and time of events, and the buffer they go to.

Owns seq and the clock while indexing. What an event means is decided by `replay` and those it asks; how
events are stored, by `blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..arrays import np
from ..model import Fidelity, Op
from ..wire import Inode, Record
from .blocks import BLOCK_EVENTS, NONE, EventBuffer
from .db import Txn
from .runs import Run
from .state import NodeState

_MAX_TOPS = 65536  # processes that a chroot is known of; a stranger's journal may name any number


class Call(msgspec.Struct, array_like=True):
    """A call whose bytes still come: pieces of a WRITE, or the FILL of a DIRTY."""

    seq: int
    node: int
    left: int  # bytes
    mtime: int = 0
    ctime: int = 0
    trust: int = 0  # of what came so far
    before: int = Fidelity.EXACT  # the node's fidelity without this call
    tid: int = 0  # of a DIRTY


class Progress(msgspec.Struct):
    """What the indexer must remember between transactions, beside the tables."""

    seq: int = 0
    time: int = 0
    begun: int | None = None  # CLOCK_BOOTTIME at the command's start
    started: int = 0  # CLOCK_REALTIME then
    next_node: int = 2
    ended: bool = False
    writes: dict[int, Call] = {}  # by tid
    fills: dict[int, Call] = {}  # by the time of their DIRTY
    mounts: bytes = b""  # the payload of the last MOUNTS
    tops: dict[int, int] = {}  # by pid: the node that is "/" to it, where a chroot made it another

    def set_top(self, pid: int, node: int) -> None:
        """From now on the node is "/" to a process."""
        if len(self.tops) < _MAX_TOPS:
            self.tops[pid] = node


class Timeline:
    """Numbers events. `txn` is the batch of the moment."""

    def __init__(self, progress: Progress) -> None:
        self.txn: Txn
        self.progress = progress
        self.buffer = EventBuffer(progress.seq + 1)
        self.time = progress.time
        self.seq = progress.seq
        self.caller: Inode | None = None
        """What inodes get from who made the call of the moment, where the record says that."""

    @property
    def wall(self) -> int:
        """The time that inodes got from the last record, for those that no stamp tells of."""
        told = self.caller.ctime if self.caller else 0
        return told or self.progress.started + self.time

    def tick(self, time: int) -> None:
        """A record of this CLOCK_BOOTTIME time is next. Times never go back."""
        if self.progress.begun is not None:
            self.time = max(self.time, time - self.progress.begun)

    def writes(self, run: Run, states: Sequence[NodeState]) -> int:
        """Note a run of exact WRITEs, `states` being its files; returns the seq of the first."""
        first = self.seq + 1
        self.seq += len(run)
        begun = self.progress.begun
        times = np.full_like(run.times, self.time) if begun is None else run.times - begun
        times = np.maximum(np.maximum.accumulate(times), self.time)
        self.time = int(times[-1])
        at = 0
        while at < len(run):
            stop = min(at + BLOCK_EVENTS - len(self.buffer), len(run))
            self.buffer.writes(times[at:stop], run.part(slice(at, stop)), states)
            if len(self.buffer) >= BLOCK_EVENTS:
                self.buffer.flush(self.txn)
            at = stop
        return first

    def event(
        self, record: Record, op: Op, path: bytes = b"", *, to: bytes | None = None, node: int = 0, offset: int = NONE,
        size: int = NONE, trust: Fidelity = Fidelity.EXACT, outside: bool = False, count: int = 0, detail: bytes = b"",
    ) -> int:  # fmt: skip
        """Note the next event; returns its seq."""
        self.seq += 1
        self.buffer.add(
            self.time, op, record.pid, path, to, node, offset, size, trust, outside, count, detail
        )
        if len(self.buffer) >= BLOCK_EVENTS:
            self.buffer.flush(self.txn)
        return self.seq
