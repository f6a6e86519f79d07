"""The read side of a store: trees, bytes and events at any moment.

Owns snapshots (each call reads from one of its own, so that the store can grow meanwhile) and
what is remembered between calls. How things are stored belongs to the modules it asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import PathError
from ..model import Attrs, Event, Mark, Process, Session
from . import check, churn, differing, names, patches, processes, session, xattrs
from .assembly import ContentReader, State
from .blocks import Changes, Rows, changes
from .db import Database, Txn
from .eventindex import EventIndex
from .files import DATA_FILE
from .listing import Listing, Memory
from .names import U64
from .patches import BlobReader, StoredBlob
from .tables import Table


def open_reader(trace_dir: Path, *, trusted: bool = False) -> Reader:
    """Open a trace for reading, as far as it is indexed. `trusted`: it was made on this machine just now.

    Raises TraceMissingError, NotATraceError, TraceTooNewError, TraceDamagedError.
    """
    session.damage(trace_dir)  # what it is comes first: whether there is a trace at all, and one we understand
    return Reader(trace_dir, trusted=trusted)


class Reader:
    """Read-only; may be used while another process indexes. For one thread at a time.

    Nodes are numbers, ROOT_NODE is "/"; `seq` says after which event. Damage raises TraceDamagedError, a missing
    differ PluginError, both only where it is met.
    """

    def __init__(self, trace_dir: Path, *, trusted: bool = False) -> None:
        self._trace_dir = trace_dir
        self._database = Database(trace_dir / DATA_FILE, trusted=trusted)
        self._blobs = BlobReader()
        self._content = ContentReader(self._blobs)
        self._events = EventIndex()
        self._known = Memory(self._content)
        self._reading: tuple[int, int, State | None] = 0, 0, None  # the file that was read last
        self._version = -1  # of the store, in which what is remembered is so
        self._held: contextlib.AbstractContextManager[Txn] | None = None
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def _read(self) -> contextlib.AbstractContextManager[Txn]:
        return self._held or self._database.reading(self._notice)

    def _notice(self, version: int) -> None:
        """Where things are holds for as long as nothing is committed."""
        if version != self._version:
            self._version = version
            self._content.forget()
            self._events.forget()
            self._reading = 0, 0, None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """All that is read in the block is read from one snapshot: for who reads much while nobody indexes."""
        with self._read() as txn:
            self._held = contextlib.nullcontext(txn)
            try:
                yield
            finally:
                self._held = None

    def refresh(self) -> None:
        """Take notice of what was indexed since: moves `session` and `last_seq` on."""
        with self._read() as txn:
            refs = self._events.refs(txn)
            self.last_seq = refs[-1].first + refs[-1].events - 1 if refs else 0
            self.session: Session = session.known(txn, self._trace_dir, self.last_seq)
        self._ended = self.session.duration is not None
        self._known.clear()
        self._reading = 0, 0, None

    # -- the tree ----------------------------------------------------------------------------

    def resolve(self, path: bytes, seq: int) -> int | None:
        """The node at an absolute path; symlinks are not followed."""
        with self._read() as txn:
            return names.resolve(txn, path, seq)

    def lookup(self, parent: int, name: bytes, seq: int) -> int | None:
        with self._read() as txn:
            return names.lookup(txn, parent, name, seq)

    def children(self, parent: int, seq: int) -> Iterator[tuple[bytes, int]]:
        """Name and node of everything in a directory, sorted by name."""
        with self._read() as txn:
            found = churn.listed(txn, parent, seq) if churn.is_kept(txn, parent) else names.children(txn, parent, seq)
        return iter(found)

    def namings(self, parent: int, name: bytes | None = None) -> list[tuple[bytes, int, int]]:
        """What names in a directory, or the one given, ever meant: (name, seq, node from then on; 0: nothing)."""
        with self._read() as txn:
            return names.namings(txn, parent, name)

    def attrs(self, node: int, seq: int) -> Attrs | None:
        """None: there was no such node yet."""
        known = self._known.attrs(node, seq)
        if known is not None:
            return known
        with self._read() as txn:
            (span,) = self._known.find_attrs(txn, (node,), seq, keep=self._is_past(seq))
        return None if span is None else span.attrs

    def entries(self, parent: int, seq: int) -> list[tuple[bytes, int, Attrs]]:
        """`children`, and what stat() says of each; those of which nothing is known are left out."""
        return list(self._listing(parent, seq).entries)

    def _listing(self, parent: int, seq: int) -> Listing:
        """`entries`; the same object at all moments between which nothing changed, while it is remembered."""
        known = self._known.listing(parent, seq)
        if known is not None:
            return known
        with self._read() as txn:
            return self._known.find_listing(txn, parent, seq, keep=self._is_past(seq))

    def _is_past(self, seq: int) -> bool:
        """Whether nothing more can come of a moment."""
        return self._ended and seq <= self.last_seq

    def has_xattrs(self) -> bool:
        """Whether anything may have extended attributes at some moment."""
        with self._read() as txn:
            return xattrs.are_there(txn)

    # -- bytes -------------------------------------------------------------------------------

    def read(self, node: int, seq: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes; short at the end of the file. Zeroes where nothing was written or seen."""
        with self._read() as txn:
            return self._content.read(txn, node, seq, offset, size, self._state(txn, node, seq))

    def _state(self, txn: Txn, node: int, seq: int) -> State | None:
        if self._reading[:2] == (node, seq):
            return self._reading[2]
        state = self._content.state(txn, node, seq)
        if self._is_past(seq):
            self._reading = node, seq, state
        return state

    def chunks(self, node: int, seq: int, chunk: int = 1 << 20) -> Iterator[bytes]:
        """The whole content, `chunk` bytes at a time."""
        offset = 0
        while data := self.read(node, seq, offset, chunk):
            yield data
            offset += len(data)
            if len(data) < chunk:
                break

    def holds(self, node: int, seq: int, data: bytes) -> bool:
        """Whether a file's content is `data`, where that is told without putting it together.

        False: it is not, or it takes `read` to know.
        """
        with self._read() as txn:
            state = self._state(txn, node, seq)
            whole = None if state is None else self._content.whole(txn, seq, state)
            return whole is not None and whole.holds(data)

    def _blob(self, node: int, seq: int) -> StoredBlob | None:
        """All of a file's content as it is stored, where that is one blob that needs no other."""
        with self._read() as txn:
            state = self._state(txn, node, seq)
            whole = None if state is None else self._content.whole(txn, seq, state)
            found = patches.stored(txn, whole.digest) if whole is not None and whole.digest else None
            return found if found is not None and state is not None and found.size == state.size else None

    def extents(self, node: int, seq: int) -> list[tuple[int, int]]:
        """(offset, length) of data; the rest are holes."""
        with self._read() as txn:
            return self._content.extents(txn, node, seq)

    def versions(self, node: int) -> list[int]:
        """The seqs at which content or attributes changed, in order."""
        prefix = U64.pack(node)
        with self._read() as txn:
            seqs = self._content.versions(txn, node)
            seqs.update(int.from_bytes(key[8:], "big") for key, _ in txn.scan(Table.ATTRS, prefix))
        return sorted(seqs)

    # -- events ------------------------------------------------------------------------------

    def events(self, first: int = 1, last: int | None = None) -> Iterator[Event]:
        """Events `first` to `last` (default: as far as indexed now), in order."""
        last = self.last_seq if last is None else min(last, self.last_seq)
        seq = max(first, 1)
        while seq <= last:
            with self._read() as txn:
                events = self._events.block(txn, seq)
            start = seq - events[0].seq
            yield from events[start : start + last - seq + 1]
            seq = events[-1].seq + 1

    def event_rows(self, first: int, last: int) -> Iterator[Rows]:
        """The blocks that have the events from `first` to `last`, as numbers; there is more in the outer ones."""
        while first <= min(last, self.last_seq):
            with self._read() as txn:
                rows = self._events.rows(txn, first)
            yield rows
            first = rows.first + len(rows.rows)

    def event(self, seq: int) -> Event:
        """Raises PathError where there is no such event."""
        if not 1 <= seq <= self.last_seq:
            raise PathError(f"there is no event {seq}: they go from 1 to {self.last_seq}")
        with self._read() as txn:
            return self._events.event(txn, seq)

    def time_at(self, seq: int) -> int:
        """When an event was that exists, in ns since the command's start."""
        with self._read() as txn:
            return self._events.time(txn, seq)

    def seq_at(self, time_ns: int) -> int:
        """The last event at or before a time since the command's start; 0: none."""
        with self._read() as txn:
            return self._events.seq_at(txn, time_ns)

    def changes(self, thin: Callable[[set[bytes]], set[bytes]] | None = None) -> Changes:
        """Every path and node at which an event changed something, without making the events.

        `thin`: says what of paths is to be kept, whenever they have become many.
        """
        with self._read() as txn:
            return changes((value for _, value in txn.scan(Table.EVENTS)), thin)

    def marks(self) -> list[Mark]:
        with self._read() as txn:
            return processes.marks(txn)

    def processes(self) -> dict[int, Process]:
        """By pid; the last one, where a pid was used again."""
        with self._read() as txn:
            return processes.everyone(txn)

    def process_at(self, pid: int, seq: int) -> Process | None:
        with self._read() as txn:
            return processes.at(txn, pid, seq)

    def differs(self) -> dict[str, str]:
        """The differs that some content needs, by stored name (`bsdiff4/1`), and the distribution of each."""
        with self._read() as txn:
            return differing.needed(txn)

    # -- health ------------------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Everything that is wrong with the store, in words; nothing: it is healthy. Reads all of it."""
        if wrong := session.damage(self._trace_dir):
            yield wrong
        yield from check.problems(self._database, self._content, self._blobs)
