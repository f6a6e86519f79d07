"""`check`: whether a store keeps its own promises.

Owns the walk over every table: each value decodes, each blob is what its digest says, each name
leads to a node with attributes, each block of content has its bytes, no event is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import DiffKeeperError
from . import churn, processes, session, xattrs
from .assembly import ContentReader
from .blocks import decode_block
from .codec import unpack_attrs
from .content import RESET, decode, decode_ref
from .db import Database, Txn
from .eventindex import EventIndex
from .listing import attrs_at
from .names import LATEST
from .patches import BlobReader
from .tables import Table


def problems(database: Database, content: ContentReader, blobs: BlobReader) -> Iterator[str]:
    """In words, one problem a line. A snapshot per table, so that a writer is not held up for long."""
    yield from database.structure()
    check = _Check(content, blobs)
    walks = (
        check.facts, check.events, check.names, churn.problems, check.attributes, check.extended, check.contents,
        check.blobs,
    )  # fmt: skip
    for walk in walks:
        try:
            with database.reading() as txn:
                content.forget()
                yield from walk(txn)
        except DiffKeeperError as error:
            yield str(error)


class _Check:
    def __init__(self, content: ContentReader, blobs: BlobReader) -> None:
        self._content, self._blobs = content, blobs

    def facts(self, txn: Txn) -> Iterator[str]:
        found = session.load(txn)
        refs = EventIndex().refs(txn)
        last = refs[-1].first + refs[-1].events - 1 if refs else 0
        if found is None:
            yield "nothing was indexed"
        elif found.events != last:
            yield f"the session counts {found.events} events, the timeline has {last}"
        processes.marks(txn)
        processes.everyone(txn)

    def events(self, txn: Txn) -> Iterator[str]:
        for key, value in txn.scan(Table.EVENTS):
            first = int.from_bytes(key, "big")
            try:
                decode_block(first, value)
            except DiffKeeperError as error:
                yield f"events from {first} on: {error}"

    def names(self, txn: Txn) -> Iterator[str]:
        before, places = (b"", 0), dict[int, bytes]()  # of directories, as it ends
        for key, value in txn.scan(Table.NAMES):
            if key[:-8] != before[0]:
                yield from self._place(txn, *before, places)
            before = key[:-8], int.from_bytes(value[:8], "big")
            seq, node = key[-8:], int.from_bytes(value, "big")
            if len(key) < 18 or key[-9] or len(value) != 8:
                yield f"a name is cut off: {key!r}"
            elif node and txn.floor(Table.ATTRS, value, value + seq) is None:
                since = int.from_bytes(seq, "big")
                yield f"{key[8:-9]!r} leads to node {node}, which has no attributes at event {since}"
            elif key[8:-9] in (b"", b".", b"..") or b"/" in key[8:-9] or b"\0" in key[8:-9]:
                yield f"no file can be called {key[8:-9]!r}"
        yield from self._place(txn, *before, places)

    def _place(self, txn: Txn, stem: bytes, node: int, places: dict[int, bytes]) -> Iterator[str]:
        if node and (attrs := attrs_at(txn, self._content, node, LATEST)) is not None and attrs.is_dir:
            if node in places:
                yield f"the directory {stem[8:-1]!r} is in two places: it is {places[node]!r}, too"
            places[node] = stem[8:-1]

    def attributes(self, txn: Txn) -> Iterator[str]:
        for key, value in txn.scan(Table.ATTRS):
            try:
                if unpack_attrs(value, dict).xattrs and not xattrs.are_there(txn):
                    yield f"node {int.from_bytes(key[:8], 'big')} has extended attributes where there are none"
            except DiffKeeperError as error:
                yield f"attributes of node {int.from_bytes(key[:8], 'big')}: {error}"

    def extended(self, txn: Txn) -> Iterator[str]:
        for key, value in txn.scan(Table.XATTRS) if txn.has(Table.XATTRS) else ():
            try:
                xattrs.name_of(key)
                xattrs.value_of(txn, self._blobs, value)
            except DiffKeeperError as error:
                yield f"extended attributes of node {int.from_bytes(key[:8], 'big')}: {error}"

    def contents(self, txn: Txn) -> Iterator[str]:
        before = b"", 0
        for key, value in txn.scan(Table.CONTENT):
            node = int.from_bytes(key[:8], "big")
            try:
                ref = decode_ref(key, value)
                block = decode(ref, value)
                self._content.prove(txn, block.payload)
                size = before[1] if before[0] == key[:8] else 0
                if not ref.head.flags & RESET and size != ref.head.before:
                    yield f"content of node {node} at event {ref.first} does not begin with the size it had"
                before = key[:8], ref.head.after
            except DiffKeeperError as error:
                yield f"content of node {node}: {error}"

    def blobs(self, txn: Txn) -> Iterator[str]:
        for table in (Table.BLOBS, Table.BASES):
            for digest, _ in txn.scan(table):
                try:
                    self._blobs.get(txn, digest)
                except DiffKeeperError as error:
                    yield str(error)
