"""The bytes of a file at a moment, put together from what was written to it.

Owns `ContentReader`. What a block of writes is belongs to `content`, whole bytes by their digest to `patches`.
A read of few writes lays one over the other. Where there are many, what is to be seen of each is found out once
for a region of the file, so that a read costs what it reads, whatever was written before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from ..arrays import np
from . import outcome
from .codec import Column, damaged
from .content import (
    CUT,
    CUTS,
    JOIN_ROWS,
    KEYFRAME,
    RESET,
    WRITE,
    Block,
    Few,
    Payload,
    Ref,
    decode,
    decode_ref,
    is_one_write,
    one_write,
)
from .db import Txn
from .layers import visible
from .names import U64
from .patches import BlobReader
from .tables import Table

REGION = 32 << 20  # bytes of a file of which it is found out at once where they are
FEW_RUNS = 48  # rows that a read lays one over the other itself
_PIECES = 1 << 16  # of layouts that are kept
_ROWS = 1 << 18  # of blocks that are kept, in columns: 14 MB
_ROW_BYTES = 56


class State(Struct, frozen=True, gc=False):
    """What the blocks say of a node at a moment. `last`: the latest block that had begun."""

    size: int
    version: int
    mtime: int
    ctime: int
    last: Ref


class _Layout(NamedTuple):
    """Of a region of a file at a moment: what lies from where to where, ascending and apart; the rest are zeroes."""

    starts: list[int]
    stops: list[int]
    blocks: list[Ref]
    places: list[int]  # in the payloads of these

    def pieces(self, low: int, high: int) -> Iterator[tuple[int, int, Ref, int]]:
        """Those that are between two places, at least in part."""
        first = bisect_right(self.stops, low)
        chosen = slice(first, bisect_left(self.starts, high, first))
        return zip(self.starts[chosen], self.stops[chosen], self.blocks[chosen], self.places[chosen], strict=True)


class ContentReader:
    """Sizes, bytes and extents of nodes at moments. Keeps a few decoded blocks, which are right until `forget`."""

    def __init__(self, blobs: BlobReader) -> None:
        self.blobs = blobs
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._merged: dict[bytes, Column] = {}  # of those in _blocks, when all their rows count
        self._rows = 0
        self._plans: OrderedDict[bytes, list[Ref]] = OrderedDict()
        self._layouts: OrderedDict[tuple[int, int, int, bytes], _Layout] = OrderedDict()
        self._pieces = 0  # in these

    def forget(self) -> None:
        """What was indexed meanwhile may have joined blocks with those before them."""
        for kept in (self._blocks, self._merged, self._plans, self._layouts):
            kept.clear()
        self._rows = self._pieces = 0

    def block(self, txn: Txn, ref: Ref) -> Block | Few:
        known = self._blocks.get(ref.key)
        if known is not None:
            self._blocks.move_to_end(ref.key)
            return known
        found = decode(ref, self._value(txn, ref))
        if isinstance(found, Block):  # few rows take as long to keep as to decode, and most such files are read once
            self._blocks[ref.key] = found
            self._rows += _weight(found)
            while self._rows > _ROWS and len(self._blocks) > 1:
                key, gone = self._blocks.popitem(last=False)
                self._rows -= _weight(gone)
                self._merged.pop(key, None)
        return found

    def _value(self, txn: Txn, ref: Ref) -> bytes:
        value = txn.get(Table.CONTENT, ref.key)
        if value is None:
            raise damaged("a block of content is missing")
        return value

    def state(self, txn: Txn, node: int, seq: int) -> State | None:
        """None: nothing was written by then."""
        prefix = U64.pack(node)
        ((key, value, _),) = txn.around(Table.CONTENT, (prefix + U64.pack(seq + 1),), len(prefix))
        if not key:
            return None
        ref = decode_ref(key, value)
        head = ref.head
        if head.last <= seq:
            return State(head.after, head.last, head.mtime, head.ctime, ref)
        size, version, mtime, ctime, _ = self.outcome_within(txn, key, value, seq)
        return State(size, version, mtime, ctime, ref)

    def outcome_within(self, txn: Txn, key: bytes, value: bytes, seq: int) -> outcome.Within:
        """What stat() says of the content at a moment that is in the middle of a block."""
        ref = decode_ref(key, value)
        if key in self._blocks or ref.head.rows > JOIN_ROWS:  # so large that it is worth keeping
            return outcome.of_block(ref, self.block(txn, ref), seq)
        return outcome.within(ref, value, seq)

    def plan(self, txn: Txn, node: int, last: Ref) -> list[Ref]:
        """The blocks from the last RESET to `last`, in order."""
        if last.head.flags & RESET or not last.head.before:  # most files are written once
            return [last]
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

    def _runs(self, txn: Txn, ref: Ref, seq: int) -> Column:
        """The rows of a block that count at `seq` as runs: columns kind, offset, length, place."""
        block = self.block(txn, ref)
        if isinstance(block, Few):
            return np.array(block.runs(block.count(seq)), np.int64).reshape(-1, 4).T
        if ref.head.last > seq:
            return block.runs(block.count(seq))
        runs = self._merged.get(ref.key)
        if runs is None:
            runs = self._merged[ref.key] = block.runs(ref.head.rows)
        return runs

    def read(self, txn: Txn, node: int, seq: int, offset: int, size: int, state: State | None = None) -> bytes:
        """Bytes of a node; short at its end, zeroes in holes. `state`: of that moment, if it is known."""
        state = state or self.state(txn, node, seq)
        if state is None or offset >= state.size or size <= 0:
            return b""
        end = min(offset + size, state.size)
        parts: list[bytes | bytearray | memoryview] = []
        for region in range(offset - offset % REGION, end, REGION):
            low, high = max(offset, region), min(end, region + REGION)
            layout = self._layouts.get((node, region, state.version, state.last.key))
            if layout is None:
                refs = self._refs(txn, node, state, low, high)
                if sum(ref.head.rows for ref in refs) <= FEW_RUNS:
                    parts.append(self._overlay(txn, refs, seq, low, high))
                    continue
                layout = self._layout(txn, node, seq, region, state)
            done = low
            payloads: dict[bytes, Payload] = {}
            for start, stop, ref, at in layout.pieces(low, high):
                if start > done:
                    parts.append(bytes(start - done))
                    done = start
                payload = payloads.get(ref.key)
                if payload is None:
                    payload = payloads[ref.key] = self.block(txn, ref).payload
                place, size = at + done - start, min(stop, high) - done
                inline = payload.inline  # of which there may be hundreds of pieces, in a small file
                parts.append(inline[place : place + size] if inline else self._bytes(txn, payload, place, size))
                done += size
            if done < high:
                parts.append(bytes(high - done))
        return b"".join(parts)

    def whole(self, txn: Txn, seq: int, state: State) -> Payload | None:
        """What is all of a file's content: where that is writes of one block that followed on each other."""
        ref = state.last
        if ref.head.before and not ref.head.flags & RESET:
            return None
        if ref.head.last <= seq and is_one_write(ref.head):  # most files
            return one_write(ref, self._value(txn, ref))
        block, end = self.block(txn, ref), 0
        for kind, offset, length, place in block.runs(block.count(seq)) if isinstance(block, Few) else ():
            if kind == CUT and not end:
                continue
            if kind != WRITE or offset != end or place != end:
                return None
            end += length
        return block.payload if end == state.size == block.payload.size else None

    def _refs(self, txn: Txn, node: int, state: State, low: int, high: int) -> list[Ref]:
        """The blocks that have a say in what is at `low` to `high`."""
        return [
            ref
            for ref in self.plan(txn, node, state.last)
            if ref.head.flags & CUTS or (ref.head.high > low and ref.head.low < high)
        ]

    def _overlay(self, txn: Txn, refs: list[Ref], seq: int, low: int, high: int) -> bytes | bytearray | memoryview:
        """What is at `low` to `high`: what the blocks say of it laid one over the other."""
        result = bytearray(high - low)
        for ref in refs:
            block = self.block(txn, ref)
            runs = block.runs(block.count(seq)) if isinstance(block, Few) else self._runs(txn, ref, seq).T.tolist()
            if runs and ref is refs[-1]:
                kind, at, length, place = runs[-1]
                if kind == WRITE and at <= low and high <= at + length:  # most files of a tree were written at once
                    return self._bytes(txn, block.payload, place + low - at, high - low)
            for kind, at, length, place in runs:
                start, stop = max(at, low), high if kind == CUT else min(at + length, high)
                if start >= stop:
                    continue
                if kind == WRITE:
                    data = self._bytes(txn, block.payload, place + start - at, stop - start)
                    result[start - low : stop - low] = data
                else:
                    result[start - low : stop - low] = bytes(stop - start)
        return result

    def _layout(self, txn: Txn, node: int, seq: int, region: int, state: State) -> _Layout:
        """Where the bytes of a region are. What has not changed since another moment is not looked for again."""
        key = node, region, state.version, state.last.key
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = self._lay_out(txn, node, seq, region, min(region + REGION, state.size), state)
            self._pieces += len(layout.starts)
            while self._pieces > _PIECES and len(self._layouts) > 1:
                self._pieces -= len(self._layouts.popitem(last=False)[1].starts)
        self._layouts.move_to_end(key)
        return layout

    def _lay_out(self, txn: Txn, node: int, seq: int, low: int, high: int, state: State) -> _Layout:
        refs = self._refs(txn, node, state, low, high)
        found = [self._runs(txn, ref, seq) for ref in refs]
        chosen = [runs[:, (runs[0] == CUT) | ((runs[1] < high) & (runs[1] + runs[2] > low))] for runs in found]
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

    def _bytes(self, txn: Txn, payload: Payload, place: int, size: int) -> bytes | memoryview:
        """`size` bytes of a payload from `place` on."""
        if not payload.digests:
            return payload.inline[place : place + size]
        at = bisect_right(payload.starts, place) - 1
        begin = place - payload.starts[at]
        part = self._blob(txn, payload, at)[begin : begin + size]
        if len(part) == size:
            return part
        parts = [part]
        size -= len(part)
        while size > 0:
            at += 1
            parts.append(self._blob(txn, payload, at)[:size])
            size -= len(parts[-1])
        return b"".join(parts)

    def _blob(self, txn: Txn, payload: Payload, at: int) -> memoryview:
        data = self.blobs.get(txn, payload.digests[at])
        end = payload.starts[at + 1] if at + 1 < len(payload.starts) else payload.size
        if len(data) != end - payload.starts[at]:
            raise damaged("a blob is not as long as the rows that use it say")
        return memoryview(data)

    def prove(self, txn: Txn, payload: Payload) -> None:
        """Read all bytes of a block, so that what is wrong with them is found."""
        for at in range(len(payload.digests)):
            self._blob(txn, payload, at)

    def extents(self, txn: Txn, node: int, seq: int) -> list[tuple[int, int]]:
        """(offset, length) of what was written, in order and apart; the rest are holes."""
        state = self.state(txn, node, seq)
        if state is None:
            return []
        edges: list[int] = []
        for ref in self.plan(txn, node, state.last):
            for kind, offset, length, _ in self._runs(txn, ref, seq).T.tolist():
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
                seqs.update(decode(ref, value).seqs())
        return seqs


def _weight(block: Block) -> int:
    """What a block takes to keep, in rows."""
    return len(block.seq) + len(block.payload.inline) // _ROW_BYTES


def mark(edges: list[int], low: int, high: int, *, written: bool) -> None:
    """Note low..high as written or as a hole. `edges`: where written ranges start and stop, in turn, ascending.

    Touching ranges become one. Costs a search and what it takes away, whatever the number of ranges.
    """
    if low < high:
        first, last = bisect_left(edges, low), bisect_right(edges, high)
        edges[first:last] = [edge for edge, at in ((low, first), (high, last)) if (at % 2 == 0) == written]
