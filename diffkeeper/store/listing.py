"""What stat() said of a node at a moment, and of everything in a directory.

Owns the span of such an answer, from which event on it holds and until which, and the memory of answers: at another
moment within its span, nothing is asked for again. Names come from `names`; attributes are what `nodes` stored, and of
a file what `content` knows better: its size, and the times of writes.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..model import Attrs
from . import churn, names, outcome, xattrs
from .assembly import ContentReader
from .codec import attrs_fields
from .db import Around, Txn
from .names import LATEST, U64
from .tables import Table

MOST = 20_000
"""Nodes whose attributes are remembered, and entries of directories."""

AT_ONCE = 1000
"""Nodes whose attributes are asked for in one pass."""

Entry = tuple[bytes, int, Attrs]
"""Name, node, attributes."""


class Span(Struct, frozen=True, gc=False):
    """Attributes, and from which event on they were so, until which."""

    attrs: Attrs
    first: int
    end: int


class Listing(Struct):
    """The entries of a directory, by name, likewise. What nothing is known of is left out.

    `shown` is for whoever shows them: what was made of them, so that it is made once.
    """

    entries: list[Entry]
    first: int
    end: int
    shown: Any = None


def attrs_at(txn: Txn, content: ContentReader, node: int, seq: int) -> Attrs | None:
    """What stat() said of a node at a moment; None when it did not exist by then."""
    (span,) = spans_at(txn, content, (node,), seq)
    return None if span is None else span.attrs


def spans_at(txn: Txn, content: ContentReader, nodes: Sequence[int], seq: int) -> list[Span | None]:
    """The same of many nodes. None: there is no such node yet."""
    at = U64.pack(seq + 1)
    limits = [U64.pack(node) + at for node in nodes]  # of both tables, whose keys begin in the same way
    stored = txn.around(Table.ATTRS, limits, U64.size)
    written = txn.around(Table.CONTENT, limits, U64.size)
    return [
        _span(txn, content, node, seq, attributes, block) if attributes[0] else None
        for node, attributes, block in zip(nodes, stored, written, strict=True)
    ]


def _span(txn: Txn, content: ContentReader, node: int, seq: int, attributes: Around, block: Around) -> Span:
    key, value, after = attributes
    first = int.from_bytes(key[8:], "big")
    end = int.from_bytes(after[8:], "big") if after else LATEST
    mode, uid, gid, size, mtime, ctime, nlink, rdev, target, extended, version, changed, fidelity = attrs_fields(
        value, lambda: xattrs.at(txn, content.blobs, node, seq)
    )
    if stat.S_ISREG(mode):
        key, value, after = block
        until = int.from_bytes(after[8:16], "big") if after else LATEST
        if key:
            size, last, wrote, altered = outcome.after(key, value)
            if last > seq:
                size, last, wrote, altered, until = content.outcome_within(txn, key, value, seq)
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

    def listing(self, parent: int, seq: int) -> Listing | None:
        """As `attrs`. The same one as long as it holds."""
        listing = self._listings.get(parent)
        return listing if listing is not None and listing.first <= seq < listing.end else None

    def find_attrs(self, txn: Txn, nodes: Sequence[int], seq: int, *, keep: bool) -> list[Span | None]:
        spans = spans_at(txn, self._content, nodes, seq)
        if keep:
            if len(self._spans) + len(nodes) > MOST:
                self._spans.clear()
            for node, span in zip(nodes, spans, strict=True):
                if span is not None and _is_light(span.attrs):
                    self._spans[node] = span
        return spans

    def find_listing(self, txn: Txn, parent: int, seq: int, *, keep: bool) -> Listing:
        if churn.is_kept(txn, parent):
            found, first, end = churn.listed(txn, parent, seq), seq, seq + 1
        else:
            found, first, end = names.listed(txn, parent, seq)
        spans = [self._spans.get(node) for _, node in found]
        unknown = [at for at, span in enumerate(spans) if span is None or not span.first <= seq < span.end]
        for start in range(0, len(unknown), AT_ONCE):
            places = unknown[start : start + AT_ONCE]
            nodes = [found[at][1] for at in places]
            for at, span in zip(places, self.find_attrs(txn, nodes, seq, keep=keep), strict=True):
                spans[at] = span
        entries = []
        for (name, node), span in zip(found, spans, strict=True):
            if span is not None:
                entries.append((name, node, span.attrs))
                first, end = max(first, span.first), min(end, span.end)
        listing = Listing(entries, first, end)
        # Attributes of what has none yet may come before `end`.
        if keep and len(entries) == len(found) <= MOST and all(_is_light(attrs) for _, _, attrs in entries):
            self._keep(parent, listing)
        return listing

    def _keep(self, parent: int, listing: Listing) -> None:
        before = self._listings.pop(parent, None)
        self._listed += len(listing.entries) - (len(before.entries) if before is not None else 0)
        if self._listed > MOST:
            self._listings.clear()
            self._listed = len(listing.entries)
        self._listings[parent] = listing


def _is_light(attrs: Attrs) -> bool:
    """Whether it costs little memory to remember attributes."""
    return not attrs.xattrs or sum(map(len, attrs.xattrs.values())) <= xattrs.FEW
