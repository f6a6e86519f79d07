"""The timeline: events in compressed blocks of columns.

Owns the EVENTS table: first seq -> a few thousand events, their paths and texts in a dictionary of
the block's own. Every commit ends one, which may be joined with the last ones; a late FILL changes a trust.
Blocks are found in `eventindex`.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from operator import ne
from typing import NamedTuple, TypeAlias

from ..arrays import np
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

HEAD = struct.Struct("<IqqI")  # events, time of the first and of the last, bytes before compression
_COLUMNS = 11  # time, op, pid, path, to, node, offset, size, trust, count, detail
_TRUST = 8
_TEXTS = (3, 4, 10)  # columns of numbers of strings
_OUTSIDE = 16  # in the trust column, beside the Fidelity
NONE = -1
MANY_PATHS = 1 << 17  # whose set takes 20 MB
_MOST_NODES = 1 << 28  # more than that no trace has that somebody can wait for
_NEVER = (1 << 63) - 1  # a time
_EXACT, _EXACT_OUTSIDE = int(Fidelity.EXACT), Fidelity.EXACT | _OUTSIDE
_BY_OP = {int(op): op for op in Op}
_BY_TRUST = {int(trust): trust for trust in Fidelity}
Columns: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.int64]]"


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
        following = self.first + len(self)
        if self.rows:
            while self._joined(txn):
                pass
            txn.put(Table.EVENTS, U64.pack(self.first), _encode(self.rows, list(self.strings)))
            self._begin(following)

    def _joined(self, txn: Txn) -> bool:
        """Take the last block back into this one, unless it is more than twice as large: as `writer` does."""
        last = txn.last(Table.EVENTS)
        if last is None:
            return False
        first, held = int.from_bytes(last[0], "big"), unpack(HEAD, last[1])[0]
        if first + held != self.first or held > 2 * len(self) or held + len(self) > BLOCK_EVENTS:
            return False
        columns, strings = decode(last[1])
        numbers = {text: number for number, text in enumerate(strings)}
        if len(numbers) < len(strings):
            return False  # not by us
        moved = np.array([numbers.setdefault(text, len(numbers)) for text in self.strings])
        rows = np.array(self.rows, np.int64).reshape(-1, _COLUMNS)
        for column in _TEXTS:
            rows[:, column] = np.where(rows[:, column] == NONE, NONE, moved[rows[:, column]])
        self.first, self.strings = first, numbers
        self.rows = array("q", columns.T.tobytes() + rows.tobytes())
        txn.delete(Table.EVENTS, last[0])
        return True

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
        columns, strings = decode(found[1])
        columns[_TRUST, seq - first] = columns[_TRUST, seq - first] & _OUTSIDE | trust
        txn.replace(Table.EVENTS, found[0], _encode(array("q", columns.T.tobytes()), strings))


def _encode(rows: array[int], strings: list[bytes]) -> bytes:
    table = np.frombuffer(rows, np.int64).reshape(-1, _COLUMNS)
    raw = pack_columns([np.ascontiguousarray(column) for column in table.T]) + pack_strings(strings)
    return HEAD.pack(len(table), table[0, 0], table[-1, 0], len(raw)) + compress(raw)


def _raw(value: bytes) -> tuple[int, int, int, bytes]:
    """Events, time of the first and the last, and what is compressed."""
    count, first_time, last_time, size = unpack(HEAD, value)
    return count, first_time, last_time, decompress(memoryview(value)[HEAD.size :], size, MAX_COLUMNS)


def decode(value: bytes) -> tuple[Columns, list[bytes]]:
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


def decode_plainly(value: bytes) -> tuple[list[list[int]], list[bytes]]:
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


def times_of(value: bytes, *, plainly: bool) -> Sequence[int] | Column:
    """Of the events of a block, and nothing else of it. `plainly`: without numpy."""
    count, first_time, last_time, raw = _raw(value)
    times: list[int] | Column
    if plainly:
        times = listed = unpack_lists(raw, count, 1)[0][0]
        in_order = sorted(listed) == listed
    else:
        times = unpack_columns(raw, count, 1)[0][0]
        in_order = bool((np.diff(times) >= 0).all())
    if not (count > 0 and in_order and times[0] == first_time and times[-1] == last_time):
        raise damaged("a block of events makes no sense")
    return times


def row_of(columns: Columns | list[list[int]], at: int) -> list[int]:
    return [column[at] for column in columns] if isinstance(columns, list) else columns[:, at].tolist()


def rows_of(columns: Columns | list[list[int]]) -> Iterable[Sequence[int]]:
    return zip(*columns, strict=True) if isinstance(columns, list) else columns.T.tolist()


class Rows(NamedTuple):
    """Events of a block as numbers, for who would only take Events apart again."""

    first: int  # seq
    rows: Sequence[Sequence[int]]  # time, op, pid, path, to, node, offset, size, trust, count, detail, as in the block
    strings: list[bytes]
    lasts: list[bool]  # whether the next event, if there is one, is in a later millisecond

    def event(self, at: int) -> Event:
        return event_of(self.first + at, self.rows[at], self.strings)


def decode_rows(first: int, value: bytes, following: int, *, plainly: bool = False) -> Rows:
    """The events of a block whose first has the seq `first`. `following`: time of the next block's first."""
    if plainly:
        lists, strings = decode_plainly(value)
        milliseconds = [time // 1_000_000 for time in (*lists[0], following)]
        return Rows(first, list(zip(*lists, strict=True)), strings, list(map(ne, milliseconds, milliseconds[1:])))
    columns, strings = decode(value)
    steps = np.diff(np.append(columns[0], following) // 1_000_000)
    return Rows(first, columns.T.tolist(), strings, (steps != 0).tolist())


def event_of(seq: int, row: Sequence[int], strings: Sequence[bytes]) -> Event:
    time, op, pid, path, to, node, offset, size, trust, count, detail = row
    return Event(
        seq, time, _BY_OP[op], pid, strings[path], None if to == NONE else strings[to], node,
        None if offset == NONE else offset, None if size == NONE else size, _BY_TRUST[trust & _OUTSIDE - 1],
        trust >= _OUTSIDE, count, os.fsdecode(strings[detail]) if detail else "",
    )  # fmt: skip


def decode_block(first: int, value: bytes) -> list[Event]:
    """The events of a block whose first has the seq `first`."""
    columns, strings = decode(value)
    return [event_of(seq, row, strings) for seq, row in enumerate(columns.T.tolist(), first)]


_WITH_PATH = [op for op in Op if op not in (Op.FORK, Op.EXEC, Op.EXIT, Op.MARK, Op.GAP)]
_TO_PATH = [Op.RENAME, Op.EXCHANGE, Op.LINK]


class Numbers:
    """A set of nodes: a byte for each up to the largest, as most are there."""

    def __init__(self) -> None:
        self._dense = np.zeros(0, np.bool_)
        self._others = set[int]()

    def update(self, numbers: Column) -> None:
        few = numbers[(numbers >= 0) & (numbers < _MOST_NODES)]
        if len(few) < len(numbers):
            self._others.update(numbers.tolist())
        if len(few) and few.max() >= len(self._dense):
            grown = np.zeros(2 * int(few.max()) + 2, np.bool_)
            grown[: len(self._dense)] = self._dense
            self._dense = grown
        self._dense[few] = True

    def __contains__(self, number: int) -> bool:
        return bool(self._dense[number]) if 0 <= number < len(self._dense) else number in self._others


class Changes(NamedTuple):
    """What events changed something at."""

    paths: set[bytes]  # as the events name them, new names among them
    moved: set[bytes]  # of those the new names: a directory's may be all that tells where what is in it has come to
    nodes: Numbers


def changes(blocks: Iterable[bytes], thin: Callable[[set[bytes]], set[bytes]] | None = None) -> Changes:
    """Of all events in blocks, without making the events.

    `thin`: says what of paths is to be kept, when they are many: who records for days may have used any number.
    """
    total, most = Changes(set(), set(), Numbers()), MANY_PATHS
    for value in blocks:
        if thin and len(total.paths) > most:
            total = Changes(thin(total.paths), thin(total.moved), total.nodes)
            most = max(MANY_PATHS, 2 * len(total.paths))
        columns, strings = decode(value)
        op, path, to = columns[1], columns[3], columns[4]
        here, new = np.isin(op, _WITH_PATH), np.isin(op, _TO_PATH) & (to != NONE)
        moved = {strings[index] for index in distinct(np.append(to[new], path[op == Op.EXCHANGE])).tolist()}
        total.paths.update({strings[index] for index in distinct(path[here]).tolist()}, moved)
        total.moved.update(moved)
        total.nodes.update(distinct(columns[5][here]))
    return total
