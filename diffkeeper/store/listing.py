"""What stat() said of a node at a moment, and of everything in a directory.

Owns the span of such an answer, from which event on it holds and until which, and the memory of answers: at another
moment within its span, nothing is asked for again. Names come from `names`; attributes are what `nodes` stored, and of
a file what `content` knows better: its size, and the times of writes.
"""

from __future__ import annotations

import stat

from msgspec import Struct

from ..model import Attrs
from . import names, xattrs
from .assembly import ContentReader
from .codec import attrs_fields
from .content import decode_outcome
from .db import Table, Txn
from .names import LATEST, U64

MOST = 20_000
"""Nodes whose attributes are remembered, and entries of directories."""

Entry = tuple[bytes, int, Attrs]
"""Name, node, attributes."""


class Span(Struct, frozen=True, gc=False):
    """Attributes, and from which event on they were so, until which."""

    attrs: Attrs
    first: int
    end: int


class Listing(Struct, frozen=True, gc=False):
    """The entries of a directory, likewise."""

    entries: list[Entry]
    first: int
    end: int


def attrs_at(txn: Txn, content: ContentReader, node: int, seq: int) -> Attrs | None:
    """What stat() said of a node at a moment; None when it did not exist by then."""
    found = span_at(txn, content, node, seq)
    return None if found is None else found.attrs


def span_at(txn: Txn, content: ContentReader, node: int, seq: int) -> Span | None:
    prefix = U64.pack(node)
    limit = prefix + U64.pack(seq + 1)  # of both tables, whose keys begin in the same way
    found, after = txn.around(Table.ATTRS, prefix, limit)
    if found is None:
        return None
    first = int.from_bytes(found[0][8:], "big")
    end = int.from_bytes(after[8:], "big") if after else LATEST
    mode, uid, gid, size, mtime, ctime, nlink, rdev, target, extended, version, changed, fidelity = attrs_fields(
        found[1], lambda: xattrs.at(txn, content.blobs, node, seq)
    )
    if stat.S_ISREG(mode):
        written, after = txn.around(Table.CONTENT, prefix, limit)
        until = int.from_bytes(after[8:16], "big") if after else LATEST
        if written is not None:
            size, last, wrote, altered = decode_outcome(*written)
            if last > seq:
                size, last, wrote, altered, until = content.outcome_within(txn, written, seq)
            if last >= first:
                first, mtime, ctime = last, wrote, altered
            version = max(version, last)
        end = min(end, until)
    attrs = Attrs(mode, uid, gid, size, mtime, ctime, nlink, rdev, target, extended, version, changed, fidelity)
    return Span(attrs, first, end)


class Memory:
    """Answers, for as long as they hold. Only of moments of which nothing more can come."""

    def __init__(self, content: ContentReader) -> None:
        self._content = content
        self._spans: dict[int, Span] = {}
        self._listings: dict[int, Listing] = {}
        self._listed = 0  # entries of these

    def clear(self) -> None:
        self._spans.clear()
        self._listings.clear()
        self._listed = 0

    def attrs(self, node: int, seq: int) -> Attrs | None:
        """None: it is not known any more, or not yet."""
        span = self._spans.get(node)
        return span.attrs if span is not None and span.first <= seq < span.end else None

    def entries(self, parent: int, seq: int) -> list[Entry] | None:
        """As `attrs`. The same list as long as it is the same."""
        listing = self._listings.get(parent)
        return listing.entries if listing is not None and listing.first <= seq < listing.end else None

    def find_attrs(self, txn: Txn, node: int, seq: int, *, keep: bool) -> Span | None:
        span = span_at(txn, self._content, node, seq)
        if keep and span is not None and _is_light(span.attrs):
            if len(self._spans) >= MOST:
                self._spans.clear()
            self._spans[node] = span
        return span

    def find_entries(self, txn: Txn, parent: int, seq: int, *, keep: bool) -> list[Entry]:
        """By name; those of which nothing is known are left out."""
        found, first, end = names.listed(txn, parent, seq)
        entries: list[Entry] = []
        light = len(found) <= MOST
        for name, node in found:
            span = self._spans.get(node)
            if span is None or not span.first <= seq < span.end:
                span = self.find_attrs(txn, node, seq, keep=keep)
                light = light and span is not None and _is_light(span.attrs)
            if span is not None:
                entries.append((name, node, span.attrs))
                first = max(first, span.first)
                end = min(end, span.end)
        if keep and light:
            self._listed += len(entries)
            if parent in self._listings:
                self._listed -= len(self._listings[parent].entries)
            if self._listed > MOST:
                self._listings.clear()
                self._listed = len(entries)
            self._listings[parent] = Listing(entries, first, end)
        return entries


def _is_light(attrs: Attrs) -> bool:
    """Whether it costs little memory to remember attributes."""
    return not attrs.xattrs or sum(map(len, attrs.xattrs.values())) <= xattrs.FEW
