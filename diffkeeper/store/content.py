"""Blocks of extents: what was written to a node.

Owns the CONTENT table: (node, first seq, part) -> rows (seq, kind, offset, length, times) and the
written bytes, as blobs or inline: one after the other as they were written, or, where writes jumped
about, in the order of their places, so that a reader who goes through the file needs each blob once.
A block with RESET begins from an empty file, so a read goes back to the last of those and no further.
Blocks with their bytes inline are joined as they become many; what another had read of them is then gone.
Which blocks are made when belongs to `writer`, their making to `packing`; how bytes at a moment are put together to
`assembly`, what stat() said then to `outcome`; blobs belong to `patches`.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from operator import itemgetter

from msgspec import Struct

from ..arrays import np
from .codec import (
    MAX_BLOB,
    MAX_COLUMNS,
    Column,
    damaged,
    decompress,
    pack_rows,
    unpack_columns,
    unpack_numbers,
    wrapped,
)
from .names import LATEST
from .patches import DIGEST, digest_of

WRITE, CUT, GROW, ZERO = 0, 1, 2, 3
"""Kinds of row: bytes at an offset; the size becomes `offset`; bytes that nobody saw; zeroes (a hole)."""
RESET, KEYFRAME, INLINE, CUTS, FEW, SORTED, PACKED = 1, 2, 4, 8, 16, 32, 64
"""Flags of a block. KEYFRAME: its rows say again what earlier blocks said. FEW: they are not columns, but a list.
SORTED: the bytes are in the order of their offsets, in blobs of about CHUNK bytes. PACKED: INLINE, and compressed."""
CHUNK = 128 << 10
FEW_ROWS = 16
INLINE_LIMIT = 256  # more than that, inline, is PACKED
JOIN_BYTES, JOIN_ROWS = 64 << 10, 4096
"""Most of a block that is joined from others."""
ROW = 6  # seq, kind, offset, length, mtime, ctime - mtime (wrapped)

KEY = struct.Struct(">QQI")
HEAD = struct.Struct("<BIQQQQQqqQII")


class Head(Struct, frozen=True, gc=False):
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


class Ref(Struct, frozen=True, gc=False):
    key: bytes
    first: int
    part: int
    head: Head


class Payload(Struct, frozen=True, gc=False):
    """Where a block's bytes are."""

    size: int
    starts: list[int]  # where in it each blob begins; no row's bytes are in two
    digests: list[bytes]  # of the blobs; none: inline
    inline: bytes

    @property
    def digest(self) -> bytes:
        """Of all of it, if that is one blob."""
        return self.digests[0] if len(self.digests) == 1 else b""

    def holds(self, data: bytes) -> bool:
        """Whether it is `data`, as far as one digest tells: no blob is read. False where there are several."""
        return self.digest == digest_of(data) if self.digests else self.inline == data


FewRow = tuple[int, int, int, int, int, int, int]
"""seq, kind, offset, length, mtime, ctime, place"""


class Few(Struct, frozen=True, gc=False):
    """The rows of a block that has so few that columns would cost more: most blocks of a tree."""

    rows: list[FewRow]
    payload: Payload

    def count(self, seq: int) -> int:
        """How many rows there are up to `seq`."""
        return bisect_right(self.rows, seq, key=itemgetter(0))

    def times(self, at: int) -> tuple[int, int, int]:
        """seq, mtime and ctime of a row."""
        seq, _, _, _, mtime, ctime, _ = self.rows[at]
        return seq, mtime, ctime

    def size(self, before: int, count: int) -> int:
        """Size of the file after the first `count` rows."""
        for _, kind, offset, length, _, _, _ in self.rows[:count]:
            before = offset if kind == CUT else max(before, offset + length)
        return before

    def seqs(self) -> list[int]:
        return [row[0] for row in self.rows]

    def table(self) -> array[int]:
        """As `encode` takes them."""
        return array("q", [number for row in self.rows for number in (*row[:5], wrapped(row[5] - row[4]))])

    def runs(self, count: int) -> list[tuple[int, int, int, int]]:
        """The first `count` rows as kind, offset, length, place. GROW rows go: they change no bytes anyone saw."""
        return [(row[1], row[2], row[3], row[6]) for row in self.rows[:count] if row[1] != GROW]


class Block(Struct, frozen=True, gc=False):
    """The rows of a block as columns."""

    seq: Column
    kinds: Column
    offsets: Column
    lengths: Column
    mtimes: Column
    ctimes: Column
    places: Column  # where in the payload a row's bytes begin
    payload: Payload

    def count(self, seq: int) -> int:
        """As of `Few`, as are the others."""
        return int(np.searchsorted(self.seq, seq, "right"))

    def times(self, at: int) -> tuple[int, int, int]:
        return int(self.seq[at]), int(self.mtimes[at]), int(self.ctimes[at])

    def size(self, before: int, count: int) -> int:
        return size_after(before, self.kinds[:count], self.offsets[:count], self.lengths[:count])

    def seqs(self) -> list[int]:
        seqs: list[int] = self.seq.tolist()
        return seqs

    def table(self) -> array[int]:
        columns = (self.seq, self.kinds, self.offsets, self.lengths, self.mtimes, self.ctimes - self.mtimes)
        return array("q", pack_rows(len(self.seq), *columns))

    def runs(self, count: int) -> Column:
        """In four columns; writes that follow on each other are one."""
        kinds = self.kinds[:count]
        keep = kinds != GROW
        kinds = kinds[keep]
        if not len(kinds):
            return np.zeros((4, 0), np.int64)
        offsets, lengths, places = (column[:count][keep] for column in (self.offsets, self.lengths, self.places))
        joined = (
            (kinds[1:] == WRITE) & (kinds[:-1] == WRITE) & (offsets[1:] == offsets[:-1] + lengths[:-1])
            & (places[1:] == places[:-1] + lengths[:-1])
        )  # fmt: skip
        heads = np.flatnonzero(np.concatenate(([True], ~joined)))
        total = np.add.reduceat(lengths, heads)
        return np.stack((kinds[heads], offsets[heads], total, places[heads]))


def size_after(before: int, kinds: Column, offsets: Column, lengths: Column) -> int:
    """Size of a file after rows, of which it was `before` so large."""
    after = 0
    cuts = np.flatnonzero(kinds == CUT)
    if len(cuts):
        before, after = int(offsets[cuts[-1]]), int(cuts[-1]) + 1
    ends = (offsets + lengths)[after:]
    return max(before, int(ends.max())) if len(ends) else before


def block_key(node: int, first: int, part: int) -> bytes:
    return KEY.pack(node, first, part)


def decode_ref(key: bytes, value: bytes) -> Ref:
    first, part, head = ref_fields(key, value)
    return Ref(key, first, part, Head(*head))


def sorted_places(offsets: Column, lengths: Column) -> tuple[Column, list[int]]:
    """Where the bytes of each write are, and where the blobs begin, when they are in the order of their offsets."""
    order = np.argsort(offsets, kind="stable")
    along = np.cumsum(lengths[order]) - lengths[order]
    places = np.empty_like(along)
    places[order] = along
    return places, along[np.unique(along // CHUNK, return_index=True)[1]].tolist()


def ref_fields(key: bytes, value: bytes) -> tuple[int, int, tuple[int, ...]]:
    """Of a `Ref`, and of its `Head`."""
    try:
        _, first, part = KEY.unpack(key)
        head = HEAD.unpack_from(value)
    except struct.error as error:
        raise damaged("a block of content is cut off") from error
    _, _, last, before, after, _, high, _, _, payload, _, _ = head
    if first > last or payload > MAX_BLOB or before > LATEST or after > LATEST or high > LATEST:
        raise damaged("a block of content makes no sense")
    return first, part, head


def decode(ref: Ref, value: bytes) -> Block | Few:
    tail = value[HEAD.size + ref.head.packed :]
    if ref.head.flags & FEW:
        rows, written = few_rows(ref, value)
        return Few(rows, _payload(ref.head, written, [0], tail))
    return _decode_columns(ref, value, tail)


def _packed_rows(head: Head, value: bytes) -> memoryview:
    return memoryview(value)[HEAD.size : HEAD.size + head.packed]


def raw_columns(head: Head, value: bytes) -> bytes:
    """The columns of a block that is not FEW, as `codec` unpacks them."""
    return decompress(_packed_rows(head, value), head.columns, MAX_COLUMNS)


def is_one_write(head: Head) -> bool:
    """Whether all that the file holds after a block is what one write of that brought; it may have been cut as well."""
    rows = 2 if head.flags & CUTS else 1
    return head.rows == rows and head.low == 0 < head.payload == head.high == head.after


def one_write(ref: Ref, value: bytes) -> Payload:
    """The bytes of a block that `is_one_write`."""
    return _payload(ref.head, ref.head.payload, [0], value[HEAD.size + ref.head.packed :])


def few_rows(ref: Ref, value: bytes) -> tuple[list[FewRow], int]:
    """Of a block that is FEW: its rows, and how many bytes they brought."""
    head, numbers = ref.head, unpack_numbers(_packed_rows(ref.head, value))
    if len(numbers) != head.rows * ROW or not 0 < head.rows <= FEW_ROWS or head.flags & SORTED:
        raise damaged("a block of content has another number of rows than it says")
    rows: list[FewRow] = []
    place, before = 0, ref.first
    for seq, kind, offset, length, mtime, change in zip(*[iter(numbers)] * ROW, strict=True):
        ctime = wrapped(mtime + change)
        sound = (
            before <= seq and WRITE <= kind <= ZERO and 0 <= offset <= LATEST - length and length >= 0
            and -LATEST <= mtime <= LATEST and -LATEST <= ctime <= LATEST and (kind != WRITE or length <= MAX_BLOB)
        )  # fmt: skip
        if not sound:
            raise damaged("the rows of a block of content make no sense")
        rows.append((seq, kind, offset, length, mtime, ctime, place))
        if kind == WRITE:
            place += length
        before = seq
    if rows[0][0] != ref.first or before != head.last:
        raise damaged("the rows of a block of content make no sense")
    return rows, place


def _decode_columns(ref: Ref, value: bytes, tail: bytes) -> Block:
    head = ref.head
    columns = unpack_columns(raw_columns(head, value), head.rows, ROW)[0]
    seqs, kinds, offsets, lengths, mtimes, ctimes = columns
    sound = (
        head.rows > 0
        and seqs[0] == ref.first and seqs[-1] == head.last and bool((np.diff(seqs) >= 0).all())
        and bool((offsets >= 0).all()) and bool((lengths >= 0).all()) and bool((offsets <= LATEST - lengths).all())
        and 0 <= int(kinds.min()) <= int(kinds.max()) <= ZERO
    )  # fmt: skip
    if not sound:
        raise damaged("the rows of a block of content make no sense")
    written = np.where(kinds == WRITE, lengths, 0)
    if int(written.max()) > MAX_BLOB:
        raise damaged("a block of content has more bytes than it can have")
    places, starts = np.cumsum(written) - written, [0]
    if head.flags & SORTED:
        writes = kinds == WRITE
        places[writes], starts = sorted_places(offsets[writes], lengths[writes])
    payload = _payload(head, int(written.sum()), starts, tail)
    return Block(seqs, kinds, offsets, lengths, mtimes, ctimes + mtimes, places, payload)


def _payload(head: Head, written: int, starts: list[int], tail: bytes) -> Payload:
    if written != head.payload:
        raise damaged("a block of content has another number of bytes than its rows say")
    if head.flags & INLINE and head.flags & PACKED:
        tail = decompress(tail, written)
    if len(tail) != (written if head.flags & INLINE else DIGEST * len(starts)):
        raise damaged("a block of content is cut off")
    if head.flags & INLINE:
        return Payload(written, starts, [], tail)
    return Payload(written, starts, [tail[at : at + DIGEST] for at in range(0, len(tail), DIGEST)], b"")
