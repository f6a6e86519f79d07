"""Extended attributes: a few stand among the attributes of their node, many have an entry per change.

Owns the XATTRS table and when it is used, and the META entry that says whether there are any at all. Every change of a
node stores its attributes again: of thousands of values, or of long ones, each such entry would be large. Once a node's
have gone to the table they stay there.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import patches
from .codec import damaged, pack_value
from .db import Txn
from .names import U64
from .state import NodeState
from .tables import Table

FEW = 512  # bytes that a node's may take among its attributes
SHORT = 256  # bytes of a value that stands in its entry
MOST = 256 << 20  # bytes that a reader makes of one node's; Linux lists no more than 64 KiB of names
MAX_NAME = 255
IN_TABLE = pack_value(1)
"""Stands among the attributes in place of the values."""
_ANY, _NONE, _SOME = b"xattrs", b"", b"\1"
"""The META entry: of a trace that was begun by an older version it is missing, and nobody knows."""
_GONE, _HERE, _BLOB = b"\0", b"\1", b"\2"  # what begins an entry: nothing, the value or its digest follows


def begin(txn: Txn) -> None:
    """Nothing is indexed yet."""
    txn.put(Table.META, _ANY, _NONE)


def are_there(txn: Txn) -> bool:
    """Whether anything may have had any at some moment."""
    return txn.get(Table.META, _ANY) != _NONE


def store(txn: Txn, state: NodeState, seq: int) -> bytes:
    """What of them stands among the attributes from `seq` on; the rest is put into the table."""
    if not are_there(txn):
        txn.replace(Table.META, _ANY, _SOME)
    altered, state.altered = state.altered, ()
    if not state.spread:
        packed = pack_value(state.xattrs) if state.xattrs else b""
        if len(packed) <= FEW:
            return packed
        state.spread, altered = True, tuple(state.xattrs)
    for name in dict.fromkeys(altered):
        _assign(txn, state.node, name, seq, state.xattrs.get(name))
    return IN_TABLE


def _assign(txn: Txn, node: int, name: bytes, seq: int, value: bytes | None) -> None:
    if not 0 < len(name) <= MAX_NAME or b"\0" in name:
        raise damaged(f"an extended attribute cannot be called {name[:64]!r}")
    entry = _GONE
    if value is not None:
        entry = _HERE + value if len(value) <= SHORT else _BLOB + patches.put(txn, value)
    txn.replace(Table.XATTRS, U64.pack(node) + name + b"\0" + U64.pack(seq), entry)


def at(txn: Txn, blobs: patches.BlobReader, node: int, seq: int) -> Mapping[bytes, bytes]:
    """Those that a node has in the table at a moment. Raises TraceDamagedError, and what `BlobReader.get` does."""
    prefix, limit = U64.pack(node), U64.pack(seq + 1)
    found: dict[bytes, bytes] = {}
    left, last = MOST, b""
    if not txn.has(Table.XATTRS):
        raise damaged("extended attributes are missing")
    with txn.seek(Table.XATTRS) as cursor:
        more = cursor.set_range(prefix)
        while more and (key := cursor.key()).startswith(prefix):
            stem = name_of(key)
            if stem <= last:  # as in `names.children`
                raise damaged("extended attributes are out of order")
            last = stem
            before = cursor.prev() if cursor.set_range(stem + limit) else cursor.last()
            if before and cursor.key()[:-8] == stem:
                value = cursor.value()
                left -= size_of(txn, value)
                if left < 0:
                    raise damaged(f"extended attributes claim more than {MOST} bytes")
                if (known := value_of(txn, blobs, value)) is not None:
                    found[stem[8:-1]] = known
            more = cursor.set_range(stem[:-1] + b"\1")
    return found


def name_of(key: bytes) -> bytes:
    """Node, name and NUL of an entry's key. Raises TraceDamagedError."""
    if len(key) < 18 or key[-9]:
        raise damaged("the name of an extended attribute is cut off")
    return key[:-8]


def size_of(txn: Txn, entry: bytes) -> int:
    return patches.load(txn, entry[1:]).size if entry[:1] == _BLOB else len(entry)


def value_of(txn: Txn, blobs: patches.BlobReader, entry: bytes) -> bytes | None:
    """The value; None: there is none from then on. Raises TraceDamagedError, and what `BlobReader.get` does."""
    if entry[:1] == _BLOB:
        return blobs.get(txn, entry[1:])
    if entry[:1] not in (_GONE, _HERE):
        raise damaged("an extended attribute makes no sense")
    return entry[1:] if entry[:1] == _HERE else None
