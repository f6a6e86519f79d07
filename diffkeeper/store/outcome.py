"""What stat() said of a file's content: its size, and the time and number of the last write.

Owns the answer after a block of writes, from its head alone, and in the middle of one, from the few columns that tell.
A listing asks for the content of every file in this way, and for no bytes.
"""

from __future__ import annotations

from ..arrays import np
from .codec import column_places, damaged, unpack_column, wrapped
from .content import CUTS, FEW, ROW, Block, Few, Payload, Ref, few_rows, raw_columns, ref_fields, size_after
from .names import LATEST

Within = tuple[int, int, int, int, int]
"""Size, seq of the last write, its mtime and ctime; and the seq of the write after that."""

_SEQ, _KIND, _OFFSET, _LENGTH, _MTIME, _CHANGE = range(ROW)
_UNREAD = Payload(0, [0], [], b"")


def after(key: bytes, value: bytes) -> tuple[int, int, int, int]:
    """Size, seq of the last write, its mtime and ctime, after a block."""
    _, _, (_, _, last, _, size, _, _, mtime, ctime, _, _, _) = ref_fields(key, value)
    return size, last, mtime, ctime


def within(ref: Ref, value: bytes, seq: int) -> Within:
    """After the rows up to `seq` of a block that has such rows, and later ones."""
    if ref.head.flags & FEW:
        return of_block(ref, Few(few_rows(ref, value)[0], _UNREAD), seq)
    rows, raw = ref.head.rows, raw_columns(ref.head, value)
    places = column_places(raw, rows, ROW)
    seqs = unpack_column(raw, rows, places[_SEQ])
    count = int(np.searchsorted(seqs, seq, "right"))
    if not 0 < count < rows:
        raise damaged("the rows of a block of content make no sense")
    size = ref.head.after
    if ref.head.flags & CUTS or ref.head.before != size:
        kinds, offsets, lengths = (unpack_column(raw, rows, places[at])[:count] for at in (_KIND, _OFFSET, _LENGTH))
        size = size_after(ref.head.before, kinds, offsets, lengths)
    mtime, change = (int(unpack_column(raw, rows, places[at])[count - 1]) for at in (_MTIME, _CHANGE))
    version, following = int(seqs[count - 1]), int(seqs[count])
    if not (ref.first <= version <= seq < following <= ref.head.last and 0 <= size <= LATEST):
        raise damaged("the rows of a block of content make no sense")
    return size, version, mtime, wrapped(mtime + change), following


def of_block(ref: Ref, block: Block | Few, seq: int) -> Within:
    """`within`, of a block that is decoded."""
    count = block.count(seq)
    version, mtime, ctime = block.times(count - 1)
    return block.size(ref.head.before, count), version, mtime, ctime, block.times(count)[0]
