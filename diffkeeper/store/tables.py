"""The tables of a store, and what their keys are.

What the values mean belongs to the modules that write them. All integers in keys are big-endian, so
that byte order is number order.
"""

from __future__ import annotations

import enum


class Table(enum.Enum):
    """Each table: key -> value. Node, seq and time are u64; a digest is 32 bytes of BLAKE3."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and every get and put needs it

    META = b"meta"  # name -> see `session`, `indexer`: totals, cursor, what the indexer must remember
    EVENTS = b"events"  # first seq -> block of events (`blocks`)
    NAMES = b"names"  # parent node, name, NUL, seq -> node that has the name from seq on, 0: nothing has
    HERE = b"here"  # parent node, name -> seq, node: what it means now, of some directories (`churn`); not in format 2
    GONE = b"gone"  # parent node, number, name, NUL, seq -> seq, node: what it meant from the first to the second
    ATTRS = b"attrs"  # node, seq -> attributes from seq on (`nodes`)
    XATTRS = b"xattrs"  # node, name, NUL, seq -> extended attribute from seq on (`xattrs`); not in format 1
    CONTENT = b"content"  # node, first seq, part u32 -> block of extents (`content`)
    BLOBS = b"blobs"  # digest of the bytes -> how to get them (`patches`)
    BASES = b"bases"  # digest of a blob that some patch needs -> nothing
    MARKS = b"marks"  # seq -> time, name
    PROCESSES = b"processes"  # pid u32, seq -> the process from seq on (`processes`)
    # For the indexer alone, at the cursor:
    NODES = b"nodes"  # node -> its state (`nodes`)
    LINKS = b"links"  # node, parent node, name -> nothing: the names it has now
    IDENTS = b"idents"  # dev u32, ino u64, gen u32 -> node the kernel's identity is bound to
    HANDLES = b"handles"  # handle u64 -> node whose CONTENT records carry it


NOT_ALWAYS = frozenset((Table.XATTRS, Table.HERE, Table.GONE))  # `Txn.has`
FOR_INDEXER = frozenset((Table.NODES, Table.LINKS, Table.IDENTS, Table.HANDLES))
