"""The timeline: events in compressed blocks of columns.

Owns the EVENTS table: first seq -> a few thousand events, their paths and texts in a dictionary of
the block's own. A block never grows, so every commit ends one; only a late FILL changes a trust.
"""

from __future__ import annotations

import bisect
import os
import struct
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from operator import ne
from typing import NamedTuple, TypeAlias

from ..arrays import is_loaded, np
from ..model import Event, Fidelity, Op
from .codec import (
    MAX_COLUMNS,
    Column,
    compress,
    damaged,
    decompress,
    distinct,
    pack_columns,
    pack_rows,
    pack_strings,
    unpack,
    unpack_columns,
    unpack_lists,
    unpack_strings,
)
from .db import Txn
from .names import U64
from .runs import Run
from .state import NodeState
from .tables import Table

BLOCK_EVENTS = 4096

_HEAD = struct.Struct("<IqqI")  # events, time of the first and of the last, bytes before compression
_COLUMNS = 11  # time, op, pid, path, to, node, offset, size, trust, count, detail
_TRUST = 8
_OUTSIDE = 16  # in the trust column, beside the Fidelity
NONE = -1
_NEVER = (1 << 63) - 1  # a time
_EXACT, _EXACT_OUTSIDE = int(Fidelity.EXACT), Fidelity.EXACT | _OUTSIDE
_BY_OP = {int(op): op for op in Op}
_BY_TRUST = {int(trust): trust for trust in Fidelity}
Columns: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.int64]]"
_PLAINLY = 4  # blocks that are decoded without numpy: as long as it takes to load


class EventBuffer:
    """The block being filled. `first` is the seq of its first event."""

    def __init__(self, first: int) -> None:
        self._begin(first)

    def _begin(self, first: int) -> None:
        self.first = first
        self.rows = array("q")
        self.strings: dict[bytes, int] = {b"": 0}

    def __len__(self) -> int:
        return len(self.rows) // _COLUMNS

    def add(
        self, time: int, op: int, pid: int, path: bytes, to: bytes | None = None, node: int = 0,
        offset: int = NONE, size: int = NONE, trust: int = Fidelity.EXACT, outside: bool = False, count: int = 0,
        detail: bytes = b"",
    ) -> None:  # fmt: skip
        number = self.string
        other = NONE if to is None else number(to)
        trust |= _OUTSIDE if outside else 0
        text = number(path)
        self.rows.extend(
            (time, op, pid, text, other, node, offset, size, trust, count, number(detail) if detail else 0)
        )

    def write(self, time: int, pid: int, path: bytes, node: int, offset: int, size: int, outside: bool) -> None:
        """`add` for an exact WRITE, as fast as can be."""
        strings = self.strings
        text = strings.get(path)
        if text is None:
            text = strings[path] = len(strings)
        trust = _EXACT_OUTSIDE if outside else _EXACT
        self.rows.extend((time, 2, pid, text, NONE, node, offset, size, trust, 0, 0))

    def writes(self, times: Column, run: Run, states: Sequence[NodeState]) -> None:
        """`write` for a run, which there must be room for. `states`: its files."""
        here, which = np.unique(run.which, return_inverse=True)
        chosen = [states[number] for number in here.tolist()]
        paths = np.array([self.string(state.path) for state in chosen])[which]
        nodes = np.array([state.node for state in chosen])[which]
        trust = np.array([_EXACT_OUTSIDE if state.outside else _EXACT for state in chosen])[which]
        columns = (times, 2, run.pids, paths, NONE, nodes, run.offsets, run.sizes, trust, 0, 0)
        self.rows.frombytes(pack_rows(len(run), *columns))

    def string(self, text: bytes) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def flush(self, txn: Txn) -> None:
        """Store the block and begin the next."""
        count = len(self)
        if count:
            txn.put(Table.EVENTS, U64.pack(self.first), _encode(self.rows, list(self.strings)))
            self._begin(self.first + count)

    def set_trust(self, txn: Txn, seq: int, trust: Fidelity) -> None:
        """Say anew how far the bytes of event `seq` can be trusted."""
        if seq >= self.first:
            at = (seq - self.first) * _COLUMNS + _TRUST
            self.rows[at] = self.rows[at] & _OUTSIDE | trust
            return
        found = txn.floor(Table.EVENTS, b"", U64.pack(seq))
        if found is None:
            return
        first = int.from_bytes(found[0], "big")
        columns, strings = _decode(found[1])
        columns[_TRUST, seq - first] = columns[_TRUST, seq - first] & _OUTSIDE | trust
        txn.replace(Table.EVENTS, found[0], _encode(array("q", columns.T.tobytes()), strings))


def _encode(rows: array[int], strings: list[bytes]) -> bytes:
    table = np.frombuffer(rows, np.int64).reshape(-1, _COLUMNS)
    raw = pack_columns([np.ascontiguousarray(column) for column in table.T]) + pack_strings(strings)
    return _HEAD.pack(len(table), table[0, 0], table[-1, 0], len(raw)) + compress(raw)


def _raw(value: bytes) -> tuple[int, int, int, bytes]:
    """Events, time of the first and the last, and what is compressed."""
    count, first_time, last_time, size = unpack(_HEAD, value)
    return count, first_time, last_time, decompress(memoryview(value)[_HEAD.size :], size, MAX_COLUMNS)


def _decode(value: bytes) -> tuple[Columns, list[bytes]]:
    count, first_time, last_time, raw = _raw(value)
    columns, at = unpack_columns(raw, count, _COLUMNS)
    strings = unpack_strings(raw, at)
    time, op, pid, path, to, node, offset, length, trust, _, detail = columns
    sound = (
        count > 0 and strings and time[0] == first_time and time[-1] == last_time and (np.diff(time) >= 0).all()
        and np.isin(op, list(_BY_OP)).all() and np.isin(trust & (_OUTSIDE - 1), list(_BY_TRUST)).all()
        and min(pid.min(), path.min(), node.min(), detail.min()) >= 0
        and min(to.min(), offset.min(), length.min()) >= NONE and max(path.max(), to.max(), detail.max()) < len(strings)
    )  # fmt: skip
    if not sound:
        raise damaged("a block of events makes no sense")
    return np.array(columns), strings


def _decode_plainly(value: bytes) -> tuple[list[list[int]], list[bytes]]:
    """What `_decode` says, without numpy."""
    count, first_time, last_time, raw = _raw(value)
    columns, at = unpack_lists(raw, count, _COLUMNS)
    strings = unpack_strings(raw, at)
    time, op, pid, path, to, node, offset, length, trust, _, detail = columns
    sound = (
        count > 0 and strings and time[0] == first_time and time[-1] == last_time and sorted(time) == time
        and _BY_OP.keys() >= set(op) and _BY_TRUST.keys() >= {each & (_OUTSIDE - 1) for each in trust}
        and min(map(min, (pid, path, node, detail))) >= 0 and min(map(min, (to, offset, length))) >= NONE
        and max(map(max, (path, to, detail))) < len(strings)
    )  # fmt: skip
    if not sound:
        raise damaged("a block of events makes no sense")
    return columns, strings


def _row(columns: Columns | list[list[int]], at: int) -> list[int]:
    return [column[at] for column in columns] if isinstance(columns, list) else columns[:, at].tolist()


def _rows(columns: Columns | list[list[int]]) -> Iterable[Sequence[int]]:
    return zip(*columns, strict=True) if isinstance(columns, list) else columns.T.tolist()


class Rows(NamedTuple):
    """Events of a block as numbers, for who would only take Events apart again."""

    first: int  # seq
    rows: Sequence[Sequence[int]]  # time, op, pid, path, to, node, offset, size, trust, count, detail, as in the block
    strings: list[bytes]
    lasts: list[bool]  # whether the next event, if there is one, is in a later millisecond

    def event(self, at: int) -> Event:
        return _event(self.first + at, self.rows[at], self.strings)


def decode_rows(first: int, value: bytes, following: int, *, plainly: bool = False) -> Rows:
    """The events of a block whose first has the seq `first`. `following`: time of the next block's first."""
    if plainly:
        lists, strings = _decode_plainly(value)
        milliseconds = [time // 1_000_000 for time in (*lists[0], following)]
        return Rows(first, list(zip(*lists, strict=True)), strings, list(map(ne, milliseconds, milliseconds[1:])))
    columns, strings = _decode(value)
    steps = np.diff(np.append(columns[0], following) // 1_000_000)
    return Rows(first, columns.T.tolist(), strings, (steps != 0).tolist())


def _event(seq: int, row: Sequence[int], strings: Sequence[bytes]) -> Event:
    time, op, pid, path, to, node, offset, size, trust, count, detail = row
    return Event(
        seq, time, _BY_OP[op], pid, strings[path], None if to == NONE else strings[to], node,
        None if offset == NONE else offset, None if size == NONE else size, _BY_TRUST[trust & _OUTSIDE - 1],
        trust >= _OUTSIDE, count, os.fsdecode(strings[detail]) if detail else "",
    )  # fmt: skip


def decode_block(first: int, value: bytes) -> list[Event]:
    """The events of a block whose first has the seq `first`."""
    columns, strings = _decode(value)
    return [_event(seq, row, strings) for seq, row in enumerate(columns.T.tolist(), first)]


_WITH_PATH = [op for op in Op if op not in (Op.FORK, Op.EXEC, Op.EXIT, Op.MARK, Op.GAP)]
_TO_PATH = [Op.RENAME, Op.EXCHANGE, Op.LINK]


class Changes(NamedTuple):
    """What events changed something at."""

    paths: set[bytes]  # as the events name them, new names among them
    moved: set[bytes]  # of those the new names: a directory's may be all that tells where what is in it has come to
    nodes: set[int]


def changes(blocks: Iterable[bytes]) -> Changes:
    """Of all events in blocks, without making the events."""
    total = Changes(set(), set(), set())
    for value in blocks:
        columns, strings = _decode(value)
        op, path, to = columns[1], columns[3], columns[4]
        here, new = np.isin(op, _WITH_PATH), np.isin(op, _TO_PATH) & (to != NONE)
        moved = {strings[index] for index in distinct(np.append(to[new], path[op == Op.EXCHANGE])).tolist()}
        total.paths.update({strings[index] for index in distinct(path[here]).tolist()}, moved)
        total.moved.update(moved)
        total.nodes.update(distinct(columns[5][here]).tolist())
    return total


class BlockRef(NamedTuple):
    first: int
    events: int
    first_time: int
    last_time: int


class EventIndex:
    """Finds events by seq and by time; remembers what does not change: decoded blocks, and where blocks begin."""

    def __init__(self) -> None:
        self._refs: list[BlockRef] = []
        self._decoded: OrderedDict[int, tuple[Columns | list[list[int]], list[bytes]]] = OrderedDict()
        self._met = 0

    def refs(self, txn: Txn) -> list[BlockRef]:
        """All blocks, in order, checked to leave no hole. Reads only those that are new."""
        after = self._refs[-1].first + self._refs[-1].events if self._refs else 1
        for key, value in txn.scan(Table.EVENTS, start=U64.pack(after)):
            count, first_time, last_time, _ = unpack(_HEAD, value)
            first = int.from_bytes(key, "big")
            if first != after or not count or first_time > last_time:
                raise damaged(f"the timeline breaks off at event {after}")
            self._refs.append(BlockRef(first, count, first_time, last_time))
            after += count
        return self._refs

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
        return [_event(number, row, strings) for number, row in enumerate(_rows(columns), ref.first)]

    def event(self, txn: Txn, seq: int) -> Event:
        """One event, which must exist."""
        ref = self.refs(txn)[self._find(txn, seq)]
        columns, strings = self._columns(txn, ref)
        return _event(seq, _row(columns, seq - ref.first), strings)

    def _find(self, txn: Txn, seq: int) -> int:
        """Number of the block that has an event."""
        refs = self.refs(txn)
        at = bisect.bisect_right(refs, seq, key=lambda ref: ref.first) - 1
        if at < 0 or seq >= refs[at].first + refs[at].events:
            raise damaged(f"event {seq} is missing")
        return at

    def _value(self, txn: Txn, ref: BlockRef) -> bytes:
        value = txn.get(Table.EVENTS, U64.pack(ref.first))
        if value is None or unpack(_HEAD, value)[0] != ref.events:
            raise damaged(f"event {ref.first} is missing")
        return value

    def _plainly(self, ref: BlockRef) -> bool:
        """No block of ours is larger; of a stranger's, lists would take four times the memory of arrays."""
        self._met += 1
        return self._met <= _PLAINLY and ref.events <= BLOCK_EVENTS and not is_loaded()

    def _columns(self, txn: Txn, ref: BlockRef) -> tuple[Columns | list[list[int]], list[bytes]]:
        found = self._decoded.get(ref.first)
        if found is None:
            decode = _decode_plainly if self._plainly(ref) else _decode
            found = self._decoded[ref.first] = decode(self._value(txn, ref))
        self._decoded.move_to_end(ref.first)
        while len(self._decoded) > 8:
            self._decoded.popitem(last=False)
        return found

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
        return ref.first - 1 + bisect.bisect_right(self._columns(txn, ref)[0][0], time)
