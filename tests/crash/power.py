"""A power cut: the journal ends at any byte, and nothing of it was indexed.

Owns the small recording that is cut and what must hold of what is left: a prefix of its events, the
tree as it was after them, a gap where a frame was torn.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from diffkeeper.journal import SEGMENT_MAGIC, Cursor, JournalReader, segment_path
from diffkeeper.model import Op
from diffkeeper.store import indexer
from diffkeeper.store.reader import open_reader
from tests.builder import TraceBuilder
from tests.unit.test_store_replay import Script, tree_at

OPERATIONS = ("create", "append", "mkdir", "rewrite", "rename", "link", "pieces", "unlink", "chmod", "symlink")


class Cut:
    """The recording, with all that any part of it must be."""

    def __init__(self, folder: Path) -> None:
        builder = TraceBuilder(folder / "whole", frame=2)
        builder.baseline({"a": b"1", "d/b": b"22"})
        builder.begin()
        self._run = Script(builder)
        for number in range(14):
            self._run.step(OPERATIONS[number % len(OPERATIONS)], number * 31, number * 17, number * 41 % 900)
        builder.end()
        self._path, self._folder = builder.journal(), folder
        reader = JournalReader(self._path / "journal")
        self._ends = [Cursor().offset, *(end.offset for _, end in reader.frames())]
        self.size = segment_path(self._path / "journal", 1).stat().st_size
        shutil.copytree(self._path, folder / "indexed")
        indexer.index(folder / "indexed")
        with open_reader(folder / "indexed") as opened:
            self._events = list(opened.events())

    def corners(self) -> list[int]:
        """The sizes where something begins or ends, and one byte to either side."""
        return sorted({at + step for at in (0, *self._ends) for step in (-1, 0, 1) if 0 <= at + step <= self.size})

    def check(self, size: int) -> None:
        """What is left of the journal's first `size` bytes. Raises AssertionError."""
        trace = self._folder / "cut"
        shutil.rmtree(trace, ignore_errors=True)
        shutil.copytree(self._path, trace)
        with open(segment_path(trace / "journal", 1), "r+b") as file:
            file.truncate(size)
        torn = size > len(SEGMENT_MAGIC) and size not in self._ends
        indexer.index(trace)
        assert not indexer.unfinished(trace), size
        with open_reader(trace) as opened:
            assert list(opened.problems()) == [], size
            events = list(opened.events())
            if torn:
                assert events.pop().op is Op.GAP, size
            assert opened.session.lost == ({"journal cut off": 1} if torn else {}), size
            same = [event.seq for event in events] == list(range(1, len(events) + 1))
            assert same and self._alike(events), size
            if events and len(events) in self._run.trees:
                assert tree_at(opened, len(events)) == self._run.trees[len(events)], size

    def _alike(self, events: Iterable[object]) -> bool:
        """As in the whole recording; a call of which a piece is missing says so."""
        for found, event in zip(events, self._events, strict=False):
            if found != event:
                assert getattr(found, "op", None) is Op.WRITE and event.size and event.size > 100, (found, event)
        return True
