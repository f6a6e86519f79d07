"""Attributes at any moment.

Owns reading ATTRS together with what blocks of content say of size and times. `nodes` writes it.
"""

from __future__ import annotations

from msgspec import Struct

from ..model import Attrs
from . import xattrs
from .assembly import ContentReader, State
from .codec import unpack_attrs
from .db import Table, Txn
from .names import LATEST, U64


class Span(Struct, frozen=True, gc=False):
    """Attributes, and from which event on they were so, until which."""

    attrs: Attrs
    first: int
    end: int


def attrs_at(txn: Txn, reader: ContentReader, node: int, seq: int) -> Attrs | None:
    """What stat() said of a node at a moment; None when it did not exist by then."""
    found = attrs_span(txn, reader, node, seq)[0]
    return None if found is None else found.attrs


def attrs_span(txn: Txn, reader: ContentReader, node: int, seq: int) -> tuple[Span | None, State | None]:
    """The same, as long as it was so; and what the blocks of its content said, if it has any."""
    prefix = U64.pack(node)
    found, after = txn.around(Table.ATTRS, prefix, prefix + U64.pack(seq))
    if found is None:
        return None, None
    attrs = unpack_attrs(found[1], lambda: xattrs.at(txn, reader.blobs, node, seq))
    since = int.from_bytes(found[0][8:], "big")
    end = int.from_bytes(after[8:], "big") if after else LATEST
    if not attrs.is_file:
        return Span(attrs, since, end), None
    state, until = reader.state_span(txn, node, seq)
    if state is None:
        return Span(attrs, since, min(end, until)), None
    mtime, ctime = (state.mtime, state.ctime) if state.version >= since else (attrs.mtime, attrs.ctime)
    now = Attrs(
        attrs.mode, attrs.uid, attrs.gid, state.size, mtime, ctime, attrs.nlink, attrs.rdev, attrs.target,
        attrs.xattrs, max(state.version, attrs.version), attrs.changed, attrs.fidelity,
    )  # fmt: skip
    return Span(now, max(since, state.version), min(end, until)), state
