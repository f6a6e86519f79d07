"""Rows and bytes made into a block of content.

Owns which form each has in a value of the CONTENT table: rows as columns or as a list, bytes inline or in the order
of their places. What the forms are belongs to `content`, which block is made to `writer`.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

from ..arrays import np
from .codec import compress, pack_columns, pack_value, wrapped
from .content import CHUNK, CUT, CUTS, FEW, FEW_ROWS, HEAD, INLINE, INLINE_LIMIT, PACKED, ROW, WRITE, sorted_places


def encode(
    rows: array[int], flags: int, before: int, after: int, size: int, where: Sequence[bytes] | bytes
) -> bytes:
    """`rows`: ROW numbers for each, at least one. `size` of the payload, and `where` it is: its blobs, or itself."""
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
    flags |= CUTS if cuts else 0
    if isinstance(where, bytes):
        packs = len(where) > INLINE_LIMIT
        flags |= INLINE | (PACKED if packs else 0)
        where = compress(where, check=True) if packs else where
    mtime, ctime = rows[-2], wrapped(rows[-2] + rows[-1])
    head = HEAD.pack(
        flags, count, rows[-ROW], before, after, low, high, mtime, ctime, size, len(raw), len(packed)
    )
    return head + packed + (where if isinstance(where, bytes) else b"".join(where))


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
    places, starts = sorted_places(offsets, lengths)
    order = np.argsort(places, kind="stable")
    spans = zip(was[order].tolist(), (was + lengths)[order].tolist(), strict=True)
    joined = b"".join([payload[start:end] for start, end in spans])
    return [joined[start:end] for start, end in itertools.pairwise([*starts, len(joined)])]
