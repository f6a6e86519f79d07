"""Blocks of extents: what was written to a node, and how its bytes at a moment are put together.

Owns the CONTENT table: (node, first seq, part) -> rows (seq, kind, offset, length, times) and the
written bytes one after the other, as a blob or inline. A block with RESET begins from an empty
file, so a read goes back to the last of those and no further. Which blocks are made when belongs
to `writer`; blobs belong to `patches`.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from .codec import (
    MAX_BLOB,
    MAX_COLUMNS,
    Column,
    compress,
    damaged,
    decompress,
    pack_columns,
    pack_value,
    unpack,
    unpack_columns,
    unpack_value,
)
from .db import Table, Txn
from .names import LATEST, U64
from .patches import DIGEST, BlobReader

WRITE, CUT, GROW, ZERO = 0, 1, 2, 3
"""Kinds of row: bytes at an offset; the size becomes `offset`; bytes that nobody saw; zeroes (a hole)."""
RESET, KEYFRAME, INLINE, CUTS, FEW = 1, 2, 4, 8, 16
"""Flags of a block. KEYFRAME: its rows say again what earlier blocks said. FEW: they are not columns, but a list."""
FEW_ROWS = 16
INLINE_LIMIT = 256
KEPT_ROWS = 1 << 19  # of decoded blocks that are remembered
BLOCK_COST = 32  # a decoded block is kept at the cost of so many rows, however few it has
ROW = 6  # seq, kind, offset, length, mtime, ctime - mtime

_KEY = struct.Struct(">QQI")
_HEAD = struct.Struct("<BIQQQQQqqQII")


class Head(NamedTuple):
    flags: int
    rows: int
    last: int  # seq of the last row
    before: int  # size of the file before the block and after it
    after: int
    low: int  # all extents lie in low..high
    high: int
    mtime: int  # after the last row
    ctime: int
    payload: int  # bytes written in all
    columns: int  # bytes of the columns
    packed: int  # the same compressed


class Ref(NamedTuple):
    key: bytes
    first: int
    part: int
    head: Head


class Block(NamedTuple):
    seqs: Column
    kinds: Column
    offsets: Column
    lengths: Column
    mtimes: Column
    ctimes: Column
    places: Column  # where in the payload a row's bytes begin
    digest: bytes  # of the payload's blob; b"": inline
    inline: bytes


class State(NamedTuple):
    """What the blocks say of a node at a moment. `last`: the latest block that had begun."""

    size: int
    version: int
    mtime: int
    ctime: int
    last: Ref


def block_key(node: int, first: int, part: int) -> bytes:
    return _KEY.pack(node, first, part)


def encode(
    rows: array[int], flags: int, before: int, after: int, payload: bytes | bytearray, digest: bytes
) -> bytes:
    """`rows`: ROW numbers for each, at least one. `digest` of the stored payload; b"": it is short, keep it inline."""
    count = len(rows) // ROW
    if count <= FEW_ROWS:  # most files of a tree: numpy would cost more than it saves
        spans = [(rows[at + 2], rows[at + 3]) for at in range(0, len(rows), ROW) if rows[at + 1] != CUT]
        low = min((offset for offset, _ in spans), default=0)
        high = max((offset + length for offset, length in spans), default=0)
        raw = packed = pack_value(rows.tolist())
        cuts = len(spans) < count
        flags |= FEW
    else:
        table = np.frombuffer(rows, np.int64).reshape(-1, ROW)
        kinds, offsets, lengths = table[:, 1], table[:, 2], table[:, 3]
        extents = kinds != CUT
        low = int(offsets[extents].min()) if extents.any() else 0
        high = int((offsets + lengths)[extents].max()) if extents.any() else 0
        raw = pack_columns([np.ascontiguousarray(column) for column in table.T])
        packed = compress(raw)
        cuts = not extents.all()
    flags |= (0 if digest else INLINE) | (CUTS if cuts else 0)
    mtime = rows[-2]
    head = Head(
        flags, count, rows[-ROW], before, after, low, high, mtime, mtime + rows[-1], len(payload), len(raw), len(packed)
    )
    return _HEAD.pack(*head) + packed + (digest or payload)


def decode_ref(key: bytes, value: bytes) -> Ref:
    _, first, part = unpack(_KEY, key)
    head = Head(*unpack(_HEAD, value))
    if first > head.last or head.payload > MAX_BLOB or max(head.before, head.after, head.high) > LATEST:
        raise damaged("a block of content makes no sense")
    return Ref(key, first, part, head)


def decode(ref: Ref, value: bytes) -> Block:
    head = ref.head
    at = _HEAD.size + head.packed
    seqs, kinds, offsets, lengths, mtimes, ctimes = _columns(head, memoryview(value)[_HEAD.size : at])
    sound = (
        head.rows > 0
        and seqs[0] == ref.first and seqs[-1] == head.last and bool((np.diff(seqs) >= 0).all())
        and bool((offsets >= 0).all()) and bool((lengths >= 0).all()) and bool((offsets <= LATEST - lengths).all())
        and 0 <= int(kinds.min()) <= int(kinds.max()) <= ZERO
    )  # fmt: skip
    if not sound:
        raise damaged("the rows of a block of content make no sense")
    written = np.where(kinds == WRITE, lengths, 0)
    if int(written.max()) > MAX_BLOB or int(written.sum()) != head.payload:
        raise damaged("a block of content has another number of bytes than its rows say")
    tail = value[at:]
    if len(tail) != (head.payload if head.flags & INLINE else DIGEST):
        raise damaged("a block of content is cut off")
    inline = head.flags & INLINE
    places = np.cumsum(written) - written
    return Block(
        seqs, kinds, offsets, lengths, mtimes, ctimes + mtimes, places, b"" if inline else tail, tail if inline else b""
    )


def _columns(head: Head, packed: memoryview) -> list[Column]:
    if not head.flags & FEW:
        return unpack_columns(decompress(packed, head.columns, MAX_COLUMNS), head.rows, ROW)[0]
    numbers = unpack_value(packed, list[int])
    if len(numbers) != head.rows * ROW or head.rows > FEW_ROWS:
        raise damaged("a block of content has another number of rows than it says")
    try:
        return list(np.array(numbers, np.int64).reshape(-1, ROW).T)
    except OverflowError as error:
        raise damaged("a number in a block of content does not fit") from error


class ContentReader:
    """Sizes, bytes and extents of nodes at moments. Keeps a few decoded blocks: none ever changes."""

    def __init__(self, blobs: BlobReader) -> None:
        self.blobs = blobs
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._merged: dict[bytes, Column] = {}  # of those in _blocks, when all their rows count
        self._rows = 0
        self._plans: OrderedDict[bytes, list[Ref]] = OrderedDict()

    def block(self, txn: Txn, ref: Ref) -> Block:
        found = self._blocks.get(ref.key)
        if found is None:
            value = txn.get(Table.CONTENT, ref.key)
            if value is None:
                raise damaged("a block of content is missing")
            found = self._blocks[ref.key] = decode(ref, value)
            self._rows += ref.head.rows + BLOCK_COST
            while self._rows > KEPT_ROWS and len(self._blocks) > 1:
                key, gone = self._blocks.popitem(last=False)
                self._rows -= len(gone.seqs) + BLOCK_COST
                self._merged.pop(key, None)
        self._blocks.move_to_end(ref.key)
        return found

    def state(self, txn: Txn, node: int, seq: int) -> State | None:
        """None: nothing was written by then."""
        found = txn.floor(Table.CONTENT, U64.pack(node), block_key(node, seq, 0xFFFFFFFF))
        if found is None:
            return None
        ref = decode_ref(*found)
        head = ref.head
        if head.last <= seq:
            return State(head.after, head.last, head.mtime, head.ctime, ref)
        block = self.block(txn, ref)
        rows = int(np.searchsorted(block.seqs, seq, "right"))
        at = rows - 1
        return State(_size(ref, block, rows), int(block.seqs[at]), int(block.mtimes[at]), int(block.ctimes[at]), ref)

    def plan(self, txn: Txn, node: int, last: Ref) -> list[Ref]:
        """The blocks from the last RESET to `last`, in order."""
        plan = self._plans.get(last.key)
        if plan is None:
            plan = [last]
            prefix = U64.pack(node)
            with txn.seek(Table.CONTENT) as cursor:
                found = cursor.set_key(last.key)
                while found and not plan[-1].head.flags & RESET:
                    found = cursor.prev() and cursor.key().startswith(prefix)
                    if found:
                        plan.append(decode_ref(*cursor.item()))
            plan.reverse()
            self._plans[last.key] = plan
            while len(self._plans) > 64:
                self._plans.popitem(last=False)
        return plan

    def _runs(self, ref: Ref, block: Block, seq: int) -> Column:
        """The rows of a block that count at `seq` as runs: columns kind, offset, length, place."""
        if ref.head.last > seq:
            return _merge(block, int(np.searchsorted(block.seqs, seq, "right")))
        runs = self._merged.get(ref.key)
        if runs is None:
            runs = self._merged[ref.key] = _merge(block, len(block.seqs))
        return runs

    def read(self, txn: Txn, node: int, seq: int, offset: int, size: int, state: State | None = None) -> bytes:
        """Bytes of a node; short at its end, zeroes in holes. `state`: of that moment, if it is known."""
        state = state or self.state(txn, node, seq)
        if state is None or offset >= state.size or size <= 0:
            return b""
        end = min(offset + size, state.size)
        result = bytearray(end - offset)
        for ref in self.plan(txn, node, state.last):
            if not ref.head.flags & CUTS and (ref.head.high <= offset or ref.head.low >= end):
                continue
            block = self.block(txn, ref)
            runs = self._runs(ref, block, seq)
            touching = (runs[1] < end) & (runs[1] + runs[2] > offset) | (runs[0] == CUT)
            payload = None
            for kind, at, length, place in runs[:, touching].T.tolist():
                if kind == CUT:
                    keep = max(at - offset, 0)
                    result[keep:] = bytes(max(len(result) - keep, 0))
                    continue
                start, stop = max(at, offset), min(at + length, end)
                if kind == ZERO:
                    result[start - offset : stop - offset] = bytes(stop - start)
                    continue
                if payload is None:
                    payload = memoryview(self.payload(txn, block))
                result[start - offset : stop - offset] = payload[place + start - at : place + stop - at]
        return bytes(result)

    def payload(self, txn: Txn, block: Block) -> bytes:
        data = self.blobs.get(txn, block.digest) if block.digest else block.inline
        if len(data) != int(block.places[-1]) + (int(block.lengths[-1]) if block.kinds[-1] == WRITE else 0):
            raise damaged("a blob is not as long as the rows that use it say")
        return data

    def extents(self, txn: Txn, node: int, seq: int) -> list[tuple[int, int]]:
        """(offset, length) of what was written, in order and apart; the rest are holes."""
        state = self.state(txn, node, seq)
        if state is None:
            return []
        edges: list[int] = []
        for ref in self.plan(txn, node, state.last):
            for kind, offset, length, _ in self._runs(ref, self.block(txn, ref), seq).T.tolist():
                if kind == CUT:
                    mark(edges, offset, 1 << 63, written=False)
                else:
                    mark(edges, offset, offset + length, written=kind == WRITE)
        return [(start, stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]

    def versions(self, txn: Txn, node: int) -> set[int]:
        """The seqs of all rows."""
        seqs: set[int] = set()
        for key, value in txn.scan(Table.CONTENT, U64.pack(node)):
            ref = decode_ref(key, value)
            if not ref.head.flags & KEYFRAME:
                seqs.update(decode(ref, value).seqs.tolist())
        return seqs


def mark(edges: list[int], low: int, high: int, *, written: bool) -> None:
    """Note low..high as written or as a hole. `edges`: where written ranges start and stop, in turn, ascending.

    Touching ranges become one. Costs a search and what it takes away, whatever the number of ranges.
    """
    if low < high:
        first, last = bisect_left(edges, low), bisect_right(edges, high)
        edges[first:last] = [edge for edge, at in ((low, first), (high, last)) if (at % 2 == 0) == written]


def _size(ref: Ref, block: Block, rows: int) -> int:
    """Size of the file after the first `rows` rows of a block."""
    size, after = ref.head.before, 0
    cuts = np.flatnonzero(block.kinds[:rows] == CUT)
    if len(cuts):
        size, after = int(block.offsets[cuts[-1]]), int(cuts[-1]) + 1
    ends = (block.offsets + block.lengths)[after:rows]
    return max(size, int(ends.max())) if len(ends) else size


def _merge(block: Block, rows: int) -> Column:
    """The first `rows` rows as runs (kind, offset, length, place): writes that follow on each other are one.

    GROW rows go: they change no bytes that anyone saw.
    """
    kinds = block.kinds[:rows]
    keep = kinds != GROW
    kinds = kinds[keep]
    offsets, lengths, places = (column[:rows][keep] for column in (block.offsets, block.lengths, block.places))
    if not len(kinds):
        return np.zeros((4, 0), np.int64)
    joined = (kinds[1:] == WRITE) & (kinds[:-1] == WRITE) & (offsets[1:] == offsets[:-1] + lengths[:-1])
    heads = np.flatnonzero(np.concatenate(([True], ~joined)))
    total = np.add.reduceat(lengths, heads)
    return np.stack((kinds[heads], offsets[heads], total, places[heads]))
