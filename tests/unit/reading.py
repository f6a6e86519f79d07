"""What tests ask of a store again and again, by paths below the root."""

from __future__ import annotations

from diffkeeper.model import Attrs, Event
from diffkeeper.store.reader import Reader


def at(reader: Reader, path: str, seq: int | None = None) -> Attrs:
    seq = reader.last_seq if seq is None else seq
    node = reader.resolve(b"/opt/root/" + path.encode() if path[:1] != "/" else path.encode(), seq)
    assert node is not None, f"nothing at {path} after event {seq}"
    attrs = reader.attrs(node, seq)
    assert attrs is not None
    return attrs


def content(reader: Reader, path: str, seq: int | None = None) -> bytes:
    seq = reader.last_seq if seq is None else seq
    node = reader.resolve(b"/opt/root/" + path.encode() if path[:1] != "/" else path.encode(), seq)
    assert node is not None, f"nothing at {path} after event {seq}"
    return b"".join(reader.chunks(node, seq))


def events(reader: Reader) -> list[Event]:
    return list(reader.events())
