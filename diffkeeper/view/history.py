"""`history/PATH/eNNNN`: every version of the file that stood at a path.

Owns which nodes a path meant and when, through renames of the directories above it, and how their
versions are listed. A version is the very inode that the moments show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from diffkeeper.model import ROOT_NODE, Attrs

from .recorded import At, recorded
from .roots import join
from .tree import Entry, Kind, Place, directory_attrs

if TYPE_CHECKING:
    from diffkeeper.trace import Trace

_VERSION = re.compile(rb"e(\d{1,19})")


class Span(NamedTuple):
    """From event `first` to event `last`, both included, a path meant `node`."""

    node: int
    first: int
    last: int


def history_top(trace: Trace) -> Place:
    """The history of the moments' top directory."""
    spans = [Span(ROOT_NODE, 0, trace.reader.last_seq)]
    for name in filter(None, trace.layout.top.split(b"/")):
        spans = _below(trace, spans, name)
    return History(trace, trace.layout.top, spans)


def _below(trace: Trace, spans: list[Span], name: bytes) -> list[Span]:
    """What `name` meant in a directory that meant these nodes."""
    found: list[Span] = []
    for above in spans:
        namings = [(seq, node) for _, seq, node in trace.reader.namings(above.node, name)]
        for position, (seq, node) in enumerate(namings):
            end = namings[position + 1][0] - 1 if position + 1 < len(namings) else above.last
            first, last = max(seq, above.first), min(end, above.last)
            if node and first <= last:
                found.append(Span(node, first, last))
    return found


class History(Place):
    """A path through time: a directory of the versions of the file that stood there, and, where it
    was a directory, of the histories of all that was ever in it."""

    __slots__ = ("_path", "_spans", "_trace")

    def __init__(self, trace: Trace, path: bytes, spans: list[Span]) -> None:
        super().__init__((Kind.HISTORY, path))
        self._trace, self._path, self._spans = trace, path, spans

    def attrs(self) -> Attrs:
        return directory_attrs(self._trace.session.started)

    def lookup(self, name: bytes) -> Entry | None:
        path = join(self._path, name)
        spans = _below(self._trace, self._spans, name) if self._trace.layout.seen(path) else []
        if spans:
            return self._entry(path, spans)
        if match := _VERSION.fullmatch(name):
            seq = int(match[1])
            for span in self._files():
                if span.first <= seq <= span.last:
                    return recorded(self._trace, At(seq, b""), span.node)
        return None

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        names = {
            name
            for span in self._spans
            for name, seq, node in self._trace.reader.namings(span.node)
            if node and seq <= span.last
        }
        for name in sorted(names):
            path = join(self._path, name)
            spans = _below(self._trace, self._spans, name) if self._trace.layout.seen(path) else []
            if spans:
                yield name, self._entry(path, spans)
        yield from self._versions(names)

    def _entry(self, path: bytes, spans: list[Span]) -> Entry:
        place = History(self._trace, path, spans)
        return Entry(place, place.attrs())

    def _files(self) -> Iterator[Span]:
        for span in self._spans:
            attrs = self._trace.reader.attrs(span.node, span.first)
            if attrs is not None and not attrs.is_dir:
                yield span

    def _versions(self, taken: set[bytes]) -> Iterator[tuple[bytes, Entry]]:
        width = len(str(self._trace.reader.last_seq))  # so that names sort like numbers
        for span in self._files():
            changes = {seq for seq in self._trace.reader.versions(span.node) if span.first < seq <= span.last}
            for seq in sorted({span.first} | changes):
                name = b"e%0*d" % (width, seq)
                entry = recorded(self._trace, At(seq, b""), span.node) if name not in taken else None
                if entry is not None:
                    yield name, entry
