"""Blocks of extents: what was written to a node, and how its bytes at a moment are put together.

Owns the CONTENT table: (node, first seq, part) -> rows (seq, kind, offset, length, times) and the
written bytes, as blobs or inline: one after the other as they were written, or, where writes jumped
about, in the order of their places, so that a reader who goes through the file needs each blob once.
A block with RESET begins from an empty file, so a read goes back to the last of those and no further.
Which blocks are made when belongs to `writer`; blobs belong to `patches`.
"""

from __future__ import annotations

import itertools
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
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
from .layers import visible
from .names import LATEST, U64
from .patches import DIGEST, BlobReader

WRITE, CUT, GROW, ZERO = 0, 1, 2, 3
"""Kinds of row: bytes at an offset; the size becomes `offset`; bytes that nobody saw; zeroes (a hole)."""
RESET, KEYFRAME, INLINE, CUTS, FEW, SORTED = 1, 2, 4, 8, 16, 32
"""Flags of a block. KEYFRAME: its rows say again what earlier blocks said. FEW: they are not columns, but a list.
SORTED: the bytes are in the order of their offsets, in blobs of about CHUNK bytes."""
CHUNK = 256 << 10
REGION = 32 << 20  # bytes of a file of which a reader finds out at once where they are
FEW_ROWS = 16
INLINE_LIMIT = 256
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
    starts: list[int]  # where in the payload each blob begins; no row's bytes are in two
    digests: list[bytes]  # of the blobs; none: inline
    inline: bytes
    size: int  # of the payload

    @property
    def digest(self) -> bytes:
        """Of the payload, if that is one blob."""
        return self.digests[0] if len(self.digests) == 1 else b""


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
    rows: array[int], flags: int, before: int, after: int, payload: bytes, digests: Sequence[bytes]
) -> bytes:
    """`rows`: ROW numbers for each, at least one. `digests` of the stored payload; none: inline."""
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
    flags |= (0 if digests else INLINE) | (CUTS if cuts else 0)
    mtime = rows[-2]
    head = Head(
        flags, count, rows[-ROW], before, after, low, high, mtime, mtime + rows[-1], len(payload), len(raw), len(packed)
    )
    return _HEAD.pack(*head) + packed + (b"".join(digests) or payload)


def arranged(rows: array[int], payload: bytes) -> list[bytes]:
    """The payload in the order of the rows' offsets, cut as SORTED says; [] where it is better left as it is."""
    if len(payload) <= CHUNK or len(rows) <= FEW_ROWS * ROW:
        return []
    table = np.frombuffer(rows, np.int64).reshape(-1, ROW)
    written = table[table[:, 1] == WRITE]
    offsets, lengths = written[:, 2], written[:, 3]
    if (np.diff(offsets) >= 0).all():
        return []
    was = np.cumsum(lengths) - lengths
    places, starts = _sorted_places(offsets, lengths)
    order = np.argsort(places, kind="stable")
    spans = zip(was[order].tolist(), (was + lengths)[order].tolist(), strict=True)
    joined = b"".join([payload[start:end] for start, end in spans])
    return [joined[start:end] for start, end in itertools.pairwise([*starts, len(joined)])]


def _sorted_places(offsets: Column, lengths: Column) -> tuple[Column, list[int]]:
    """Where the bytes of each write are, and where the blobs begin, when they are in the order of their offsets."""
    order = np.argsort(offsets, kind="stable")
    along = np.cumsum(lengths[order]) - lengths[order]
    places = np.empty_like(along)
    places[order] = along
    return places, along[np.unique(along // CHUNK, return_index=True)[1]].tolist()


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
    inline = head.flags & INLINE
    places, starts = np.cumsum(written) - written, [0]
    if head.flags & SORTED:
        writes = kinds == WRITE
        places[writes], starts = _sorted_places(offsets[writes], lengths[writes])
    if len(tail) != (head.payload if inline else DIGEST * len(starts)):
        raise damaged("a block of content is cut off")
    digests = [] if inline else [tail[at : at + DIGEST] for at in range(0, len(tail), DIGEST)]
    return Block(
        seqs, kinds, offsets, lengths, mtimes, ctimes + mtimes, places, starts, digests, tail if inline else b"",
        head.payload,
    )  # fmt: skip


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


class _Layout(NamedTuple):
    """Of a region of a file at a moment: what lies from where to where, ascending and apart; the rest are zeroes."""

    starts: list[int]
    stops: list[int]
    blocks: list[Ref]
    places: list[int]  # in the payloads of these

    def pieces(self, at: int, end: int) -> Iterator[tuple[int, int, Ref, int]]:
        """From number `at` on, those that begin before `end`."""
        while at < len(self.starts) and self.starts[at] < end:
            yield self.starts[at], self.stops[at], self.blocks[at], self.places[at]
            at += 1


class ContentReader:
    """Sizes, bytes and extents of nodes at moments. Keeps a few decoded blocks: none ever changes."""

    def __init__(self, blobs: BlobReader) -> None:
        self._blobs = blobs
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._merged: dict[bytes, Column] = {}  # of those in _blocks, when all their rows count
        self._rows = 0
        self._plans: OrderedDict[bytes, list[Ref]] = OrderedDict()
        self._layouts: OrderedDict[tuple[int, int, int, bytes], _Layout] = OrderedDict()
        self._pieces = 0  # in these

    def block(self, txn: Txn, ref: Ref) -> Block:
        found = self._blocks.get(ref.key)
        if found is None:
            value = txn.get(Table.CONTENT, ref.key)
            if value is None:
                raise damaged("a block of content is missing")
            found = self._blocks[ref.key] = decode(ref, value)
            self._rows += ref.head.rows
            while self._rows > 1 << 19 and len(self._blocks) > 1:
                key, gone = self._blocks.popitem(last=False)
                self._rows -= len(gone.seqs)
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
        for region in range(offset - offset % REGION, end, REGION):
            layout = self._layout(txn, node, seq, region, state)
            first, last = max(offset, region), min(end, region + REGION)
            at = max(bisect_right(layout.starts, first) - 1, 0)
            for start, stop, ref, place in layout.pieces(at, last):
                low, high = max(start, first), min(stop, last)
                if low < high:
                    bytes_of = self._bytes(txn, self.block(txn, ref), place + low - start, high - low)
                    result[low - offset : high - offset] = bytes_of
        return bytes(result)

    def _layout(self, txn: Txn, node: int, seq: int, region: int, state: State) -> _Layout:
        """Where the bytes of a region are. What has not changed since another moment is not looked for again."""
        key = node, region, state.version, state.last.key
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = self._lay_out(txn, node, seq, region, min(region + REGION, state.size), state)
            self._pieces += len(layout.starts)
            while len(self._layouts) > 256 or (self._pieces > 1 << 17 and len(self._layouts) > 1):
                self._pieces -= len(self._layouts.popitem(last=False)[1].starts)
        self._layouts.move_to_end(key)
        return layout

    def _lay_out(self, txn: Txn, node: int, seq: int, low: int, high: int, state: State) -> _Layout:
        refs = [
            ref
            for ref in self.plan(txn, node, state.last)
            if ref.head.flags & CUTS or (ref.head.high > low and ref.head.low < high)
        ]
        found = [self._runs(ref, self.block(txn, ref), seq) for ref in refs]
        chosen = [runs[:, (runs[0] == CUT) | ((runs[1] < high) & (runs[1] + runs[2] > low))] for runs in found]
        if len(chosen) == 1 and chosen[0].shape[1] == 1 and chosen[0][0, 0] == WRITE:  # most files of a tree
            _, start, length, place = chosen[0][:, 0].tolist()
            return _Layout([start], [min(start + length, high)], refs, [place])
        which = np.repeat(np.arange(len(refs)), [runs.shape[1] for runs in chosen])
        kinds, offsets, lengths, places = np.concatenate([np.zeros((4, 0), np.int64), *chosen], axis=1)
        begins = np.clip(offsets, low, high)
        ends = np.where(kinds == CUT, high, np.clip(offsets + lengths, low, high))
        starts, stops, tops = visible(begins, ends)
        seen = kinds[tops] == WRITE
        starts, stops, tops = starts[seen], stops[seen], tops[seen]
        if not len(starts):
            return _Layout([], [], [], [])
        places, which = places[tops] + starts - offsets[tops], which[tops]
        goes_on = (which[1:] == which[:-1]) & (starts[1:] == stops[:-1]) & (places[1:] - places[:-1] == np.diff(starts))
        heads = np.flatnonzero(np.concatenate(([True], ~goes_on)))
        stops = stops[np.append(heads[1:], len(stops)) - 1]
        return _Layout(
            starts[heads].tolist(), stops.tolist(), [refs[at] for at in which[heads].tolist()], places[heads].tolist()
        )

    def _bytes(self, txn: Txn, block: Block, place: int, size: int) -> bytes | memoryview:
        """`size` bytes of a block's payload from `place` on."""
        if not block.digests:
            return block.inline[place : place + size]
        parts: list[memoryview] = []
        at = bisect_right(block.starts, place) - 1
        while size > 0:
            blob = self._blob(txn, block, at)
            part = blob[place - block.starts[at] :][:size]
            place, size, at = place + len(part), size - len(part), at + 1
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _blob(self, txn: Txn, block: Block, at: int) -> memoryview:
        data = self._blobs.get(txn, block.digests[at])
        if len(data) != (*block.starts, block.size)[at + 1] - block.starts[at]:
            raise damaged("a blob is not as long as the rows that use it say")
        return memoryview(data)

    def payload(self, txn: Txn, block: Block) -> int:
        """Read all bytes of a block, so that what is wrong with them is found; returns how many there are."""
        return sum(len(self._blob(txn, block, at)) for at in range(len(block.digests))) or len(block.inline)

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
    joined = (
        (kinds[1:] == WRITE) & (kinds[:-1] == WRITE) & (offsets[1:] == offsets[:-1] + lengths[:-1])
        & (places[1:] == places[:-1] + lengths[:-1])
    )  # fmt: skip
    heads = np.flatnonzero(np.concatenate(([True], ~joined)))
    total = np.add.reduceat(lengths, heads)
    return np.stack((kinds[heads], offsets[heads], total, places[heads]))
