"""Directories in which many names came and went: what was in them at a moment, without going through all that ever was.

Owns the tables HERE and GONE, and which directories have entries there: those with far more names that have gone than
are there. NAMES has all of these as well, name by name, which is what a name is looked up in.

A name means a node for an interval of seqs. Intervals that have ended make an interval tree (Edelsbrunner, 1980) that
needs no balancing, as numbers are its nodes already: an interval lies at the one number that parts it first when all
numbers are halved again and again, and a moment is only in intervals at the numbers that it comes by itself, one for
each halving. Those at one number were all there at once: a listing costs what a directory held at some dozen moments.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .codec import damaged
from .db import Txn
from .names import LATEST, U64, node_of
from .tables import Table

MANY = 512
"""Names that have gone from a directory before it is looked at the first time."""
TIMES = 4
"""It is taken in when so many times more are gone than are there."""
MOST = 20_000  # directories whose names are counted
_PAIR = struct.Struct(">QQ")
_HALVINGS = LATEST.bit_length()


def middle(first: int, last: int) -> int:
    """The number at which an interval lies. Both ends are in the interval."""
    halving = max((first ^ last).bit_length() - 1, 0)
    return (first >> halving + 1 << halving + 1) | 1 << halving


def middles(seq: int) -> Iterator[int]:
    """Those at which the intervals lie that a moment is in."""
    for halving in range(_HALVINGS):
        yield (seq >> halving + 1 << halving + 1) | 1 << halving


def is_kept(txn: Txn, parent: int) -> bool:
    """Whether a directory is in these tables."""
    return _are_there(txn) and txn.get(Table.HERE, U64.pack(parent)) is not None


def _are_there(txn: Txn) -> bool:
    return txn.has(Table.HERE) and txn.has(Table.GONE)  # an older index has neither


def keep(txn: Txn, parent: int) -> tuple[bool, int]:
    """Take in a directory, all of whose names are in NAMES, if so many are gone; and how many are there."""
    here, gone = 0, 0
    for _, _, until, _ in _intervals(txn, parent):
        here += until == LATEST
        gone += until < LATEST
    if gone < TIMES * here:
        return False, here
    txn.put(Table.HERE, U64.pack(parent), b"")
    for stem, since, until, node in _intervals(txn, parent):
        if until == LATEST:
            txn.put(Table.HERE, stem[:-1], _PAIR.pack(since, node))
        else:
            txn.put(Table.GONE, _gone_key(parent, stem, since, until), _PAIR.pack(until, node))
    return True, here


class Churn:
    """Names at the cursor, of all directories; `flush` before the batch is committed.

    How many names have gone is counted anew by each indexer.
    """

    def __init__(self) -> None:
        self._left: dict[int, int] = {}  # names that may go from a directory before it is looked at; 0: it is kept
        self._here: dict[bytes, bytes | None] = {}  # entries of HERE that are to be put, or deleted,
        self._fresh = set[bytes]()  # those of them that are not there yet,
        self._gone: dict[bytes, bytes] = {}  # and of GONE

    def note(self, txn: Txn, parent: int, name: bytes, seq: int, node: int) -> bool:
        """From `seq` on a name means `node`; 0: nothing. Says whether to `look` at the directory."""
        left = self._left.get(parent)
        if left is None:
            left = self._left[parent] = 0 if is_kept(txn, parent) else MANY
        if not left:
            self._assign(txn, parent, U64.pack(parent) + name, seq, node)
        elif not node:
            self._left[parent] = left - 1
            return left == 1
        return False

    def look(self, txn: Txn, parent: int) -> None:
        """Take in a directory if so many names are gone. All are in NAMES."""
        kept, here = keep(txn, parent)
        if len(self._left) > MOST:
            self._left.clear()
        self._left[parent] = 0 if kept else max(MANY, TIMES * here)

    def _assign(self, txn: Txn, parent: int, key: bytes, seq: int, node: int) -> None:
        waits = key in self._here
        before = self._here[key] if waits else txn.get(Table.HERE, key)
        if before is None:
            if not waits:
                self._fresh.add(key)
        else:
            since, was = _pair(before)
            if since < seq:
                self._gone[_gone_key(parent, key + b"\0", since, seq)] = _PAIR.pack(seq, was)
        if node:
            self._here[key] = _PAIR.pack(seq, node)
        elif key in self._fresh:
            self._fresh.discard(key)
            self._here.pop(key, None)
        else:
            self._here[key] = None

    def flush(self, txn: Txn) -> None:
        txn.put_all(Table.GONE, self._gone)
        txn.put_all(Table.HERE, {key: value for key, value in self._here.items() if value is not None})
        for key, value in self._here.items():
            if value is None:
                txn.delete(Table.HERE, key)
        self._gone.clear()
        self._here.clear()
        self._fresh.clear()


def listed(txn: Txn, parent: int, seq: int) -> list[tuple[bytes, int]]:
    """Name and node of everything in a directory that is kept, by name."""
    prefix = U64.pack(parent)
    found: dict[bytes, int] = {}
    for key, value in txn.scan(Table.HERE, prefix):
        if len(key) > len(prefix):
            since, node = _pair(value)
            if since <= seq:
                found[key[8:]] = node
    for number in middles(seq):
        for key, value in txn.scan(Table.GONE, prefix + U64.pack(number)):
            if len(key) < 26 or key[-9]:
                raise damaged("a name that has gone is cut off")
            until, node = _pair(value)
            if int.from_bytes(key[-8:], "big") <= seq < until:
                found[key[16:-9]] = node
    return sorted(found.items())


def problems(txn: Txn) -> Iterator[str]:
    """Where these tables do not say what NAMES does."""
    parent = b""
    for key, _ in txn.scan(Table.HERE) if _are_there(txn) else ():
        if key[:8] == parent:
            continue
        parent, number = key[:8], int.from_bytes(key[:8], "big")
        entries, missing = 1, 0
        for stem, since, until, node in _intervals(txn, number):
            entries += 1
            if until == LATEST:
                missing += txn.get(Table.HERE, stem[:-1]) != _PAIR.pack(since, node)
            else:
                missing += txn.get(Table.GONE, _gone_key(number, stem, since, until)) != _PAIR.pack(until, node)
        found = sum(1 for table in (Table.HERE, Table.GONE) for _ in txn.scan(table, parent))
        if missing or found != entries:
            yield f"what came and went in directory {number} is not what its names say"


def _intervals(txn: Txn, parent: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Of each name in a directory, whenever it meant something: its key in NAMES but for the seq, since, until, node.

    `until` of what is there is LATEST.
    """
    last, since, node = b"", 0, 0
    for key, value in txn.scan(Table.NAMES, U64.pack(parent)):
        stem, at = key[:-8], int.from_bytes(key[-8:], "big")
        if last and node:
            yield last, since, at if stem == last else LATEST, node
        last, since, node = stem, at, node_of(value)
    if last and node:
        yield last, since, LATEST, node


def _gone_key(parent: int, stem: bytes, since: int, until: int) -> bytes:
    return U64.pack(parent) + U64.pack(middle(since, until - 1)) + stem[8:] + U64.pack(since)


def _pair(value: bytes) -> tuple[int, int]:
    if len(value) != _PAIR.size:
        raise damaged("a name leads nowhere")
    since, node = _PAIR.unpack(value)
    return since, node
