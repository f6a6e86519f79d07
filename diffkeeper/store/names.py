"""The tree: which node a name in a directory meant at a moment.

Owns the NAMES table. A name is an entry per change, (parent, name, seq) -> node, so a directory
moves with one entry whatever is in it, and "at a moment" is one seek. Attributes and content of
the nodes are elsewhere.
"""

from __future__ import annotations

import struct

from ..model import ROOT_NODE
from .codec import damaged
from .db import Txn
from .tables import Table

U64 = struct.Struct(">Q")
LATEST = (1 << 63) - 1
"""A seq no event reaches: the state as far as indexed."""
MAX_NAME = 255


def entry(parent: int, name: bytes, seq: int, node: int) -> tuple[bytes, bytes]:
    """What says in NAMES that from `seq` on the name means `node`; 0: nothing."""
    if not 0 < len(name) <= MAX_NAME or b"\0" in name or b"/" in name:
        raise damaged(f"a file cannot be called {name[:64]!r}")
    return U64.pack(parent) + name + b"\0" + U64.pack(seq), U64.pack(node)


def lookup(txn: Txn, parent: int, name: bytes, seq: int) -> int | None:
    if len(name) > MAX_NAME or b"\0" in name:
        return None
    stem = U64.pack(parent) + name + b"\0"
    found = txn.floor(Table.NAMES, stem, stem + U64.pack(seq))
    return (node_of(found[1]) or None) if found else None


def resolve(txn: Txn, path: bytes, seq: int) -> int | None:
    """The node at an absolute path; symlinks are not followed, "." and ".." are names like others."""
    node: int | None = ROOT_NODE
    for part in path.split(b"/"):
        if part and node is not None:
            node = lookup(txn, node, part, seq)
    return node


def children(txn: Txn, parent: int, seq: int) -> list[tuple[bytes, int]]:
    """Name and node of everything in a directory, by name."""
    return listed(txn, parent, seq)[0]


def listed(txn: Txn, parent: int, seq: int) -> tuple[list[tuple[bytes, int]], int, int]:
    """`children`, from which event on the directory has had just these names for just these nodes, and until which."""
    prefix, limit = U64.pack(parent), U64.pack(seq + 1)
    result: list[tuple[bytes, int]] = []
    last, since, until = b"", U64.pack(0), U64.pack(LATEST)
    with txn.seek(Table.NAMES) as cursor:
        cursor.set_range(prefix)
        key, value = cursor.item()  # of nothing, beyond the last entry
        while key.startswith(prefix):
            stem, at, node = key[:-8], key[-8:], 0
            if len(stem) < 10 or stem[-1]:
                raise damaged("a name is cut off")
            if stem <= last:  # the pages lead back to where the cursor was: there is no end of it
                raise damaged("names are out of order")
            last = stem
            if at < limit:
                node = node_of(value)
                cursor.next()
                key, value = cursor.item()
            if key.startswith(stem):  # the usual case is one version, and the cursor at the next name
                if at < limit and key[-8:] < limit:
                    found = cursor.set_range(stem + limit)
                    key = cursor.key()
                    found = cursor.prev() if found else cursor.last()
                    at, node = cursor.key()[-8:], node_of(cursor.value())
                if key.startswith(stem):
                    until = min(until, key[-8:])
                cursor.set_range(stem[:-1] + b"\1")
                key, value = cursor.item()
            if since < at < limit:
                since = at
            if node:
                result.append((stem[8:-1], node))
    return result, int.from_bytes(since, "big"), int.from_bytes(until, "big")


def namings(txn: Txn, parent: int, name: bytes | None = None) -> list[tuple[bytes, int, int]]:
    """Everything that names in a directory ever meant, or that one name did: name, seq, node from then on.

    By name, then seq; node 0: nothing from then on.
    """
    prefix = U64.pack(parent) + (b"" if name is None else name + b"\0")
    result: list[tuple[bytes, int, int]] = []
    for key, value in txn.scan(Table.NAMES, prefix):
        if len(key) < 18 or key[-9]:
            raise damaged("a name is cut off")
        result.append((key[8:-9], int.from_bytes(key[-8:], "big"), node_of(value)))
    return result


def node_of(value: bytes) -> int:
    """Of an entry; 0: nothing. Raises TraceDamagedError."""
    if len(value) != 8:
        raise damaged("a name leads nowhere")
    return int.from_bytes(value, "big")
