"""Where events are: their blocks by number and by time.

Owns what is remembered of the EVENTS table between calls. What a block is belongs to `blocks`.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from ..arrays import is_loaded
from ..model import Event
from .blocks import (
    BLOCK_EVENTS,
    HEAD,
    Columns,
    Rows,
    decode,
    decode_plainly,
    decode_rows,
    event_of,
    row_of,
    rows_of,
    times_of,
)
from .codec import Column, damaged, unpack
from .db import Txn
from .names import U64
from .tables import Table

_PLAINLY = 4  # blocks that are decoded without numpy: as long as it takes to load
_KEPT = 8  # blocks
_NEVER = (1 << 63) - 1  # a time


class BlockRef(NamedTuple):
    first: int
    events: int
    first_time: int
    last_time: int


class EventIndex:
    """Finds events by seq and by time. Remembers decoded blocks, and where blocks begin, until `forget`."""

    def __init__(self) -> None:
        self._refs: list[BlockRef] = []
        self._looked = False  # `_refs` are all there are
        self._decoded: OrderedDict[int, tuple[Columns | list[list[int]], list[bytes]]] = OrderedDict()
        self._timed: dict[int, Sequence[int] | Column] = {}  # of blocks of which no more was asked
        self._met = 0

    def forget(self) -> None:
        """Something was indexed meanwhile."""
        self._looked = False
        self._decoded.clear()
        self._timed.clear()

    def refs(self, txn: Txn) -> list[BlockRef]:
        """All blocks, in order, checked to leave no hole. Reads only those that are new."""
        if self._looked:
            return self._refs
        while self._refs and not self._is_there(txn, self._refs[-1]):
            self._refs.pop()
        after = self._refs[-1].first + self._refs[-1].events if self._refs else 1
        for key, value in txn.scan(Table.EVENTS, start=U64.pack(after)):
            count, first_time, last_time, _ = unpack(HEAD, value)
            first = int.from_bytes(key, "big")
            if first != after or not count or first_time > last_time:
                raise damaged(f"the timeline breaks off at event {after}")
            self._refs.append(BlockRef(first, count, first_time, last_time))
            after += count
        self._looked = True
        return self._refs

    def _is_there(self, txn: Txn, ref: BlockRef) -> bool:
        """Whether a block is as it was; so are those before it, for only the last ones are ever joined."""
        value = txn.get(Table.EVENTS, U64.pack(ref.first))
        return value is not None and unpack(HEAD, value)[0] == ref.events

    def rows(self, txn: Txn, seq: int) -> Rows:
        """The block that has `seq`, which must exist, as numbers. Not kept."""
        refs = self.refs(txn)
        at = self._find(txn, seq)
        following = refs[at + 1].first_time if at + 1 < len(refs) else _NEVER
        plainly = self._plainly(refs[at])
        return decode_rows(refs[at].first, self._value(txn, refs[at]), following, plainly=plainly)

    def block(self, txn: Txn, seq: int) -> list[Event]:
        """The events of the block that has `seq`, which must exist."""
        ref = self.refs(txn)[self._find(txn, seq)]
        columns, strings = self._columns(txn, ref)
        return [event_of(number, row, strings) for number, row in enumerate(rows_of(columns), ref.first)]

    def event(self, txn: Txn, seq: int) -> Event:
        """One event, which must exist."""
        ref = self.refs(txn)[self._find(txn, seq)]
        columns, strings = self._columns(txn, ref)
        return event_of(seq, row_of(columns, seq - ref.first), strings)

    def time(self, txn: Txn, seq: int) -> int:
        """When an event was, which must exist."""
        ref = self.refs(txn)[self._find(txn, seq)]
        if seq == ref.first + ref.events - 1:
            return ref.last_time
        return ref.first_time if seq == ref.first else int(self._times(txn, ref)[seq - ref.first])

    def _find(self, txn: Txn, seq: int) -> int:
        """Number of the block that has an event."""
        refs = self.refs(txn)
        at = bisect.bisect_right(refs, seq, key=lambda ref: ref.first) - 1
        if at < 0 or seq >= refs[at].first + refs[at].events:
            raise damaged(f"event {seq} is missing")
        return at

    def _value(self, txn: Txn, ref: BlockRef) -> bytes:
        value = txn.get(Table.EVENTS, U64.pack(ref.first))
        if value is None or unpack(HEAD, value)[0] != ref.events:
            raise damaged(f"event {ref.first} is missing")
        return value

    def _plainly(self, ref: BlockRef) -> bool:
        """No block of ours is larger; of a stranger's, lists would take four times the memory of arrays."""
        self._met += 1
        return self._met <= _PLAINLY and ref.events <= BLOCK_EVENTS and not is_loaded()

    def _columns(self, txn: Txn, ref: BlockRef) -> tuple[Columns | list[list[int]], list[bytes]]:
        found = self._decoded.get(ref.first)
        if found is None:
            understand = decode_plainly if self._plainly(ref) else decode
            found = self._decoded[ref.first] = understand(self._value(txn, ref))
        self._decoded.move_to_end(ref.first)
        while len(self._decoded) > _KEPT:
            self._decoded.popitem(last=False)
        return found

    def _times(self, txn: Txn, ref: BlockRef) -> Sequence[int] | Column:
        if (known := self._decoded.get(ref.first)) is not None:
            return known[0][0]
        if (times := self._timed.get(ref.first)) is None:
            if len(self._timed) >= _KEPT:
                self._timed.clear()
            times = self._timed[ref.first] = times_of(self._value(txn, ref), plainly=self._plainly(ref))
        return times

    def seq_at(self, txn: Txn, time: int) -> int:
        """The last seq whose time is at or before `time`; 0: none."""
        refs = self.refs(txn)
        low, high = 0, len(refs)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if refs[middle].first_time <= time else (low, middle)
        if not low:
            return 0
        ref = refs[low - 1]
        if ref.last_time <= time:
            return ref.first + ref.events - 1
        return ref.first - 1 + bisect.bisect_right(self._times(txn, ref), time)
