"""Content from the recording that this one replaced, of files that have not changed since.

Owns TRACE/earlier: the index of that recording, until the baseline of this one is indexed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from ..model import Fidelity
from .codec import damaged
from .patches import StoredBlob
from .reader import Reader, open_reader

DIRECTORY = "earlier"
PIECE = 1 << 20
MISSING = b"content of the recording before"
"""Cause of a gap: what is to be there is not."""


class Earlier:
    """Opened when it is first needed."""

    def __init__(self, trace_dir: Path) -> None:
        self._place = trace_dir / DIRECTORY
        self._reader: Reader | None = None
        self._held = ExitStack()
        self._last: tuple[bytes, int | None] = b"\0", None  # files come directory by directory

    def content(self, path: bytes, size: int) -> StoredBlob | Iterator[tuple[int, bytes]]:
        """What a file had that stood at a path before that recording's command.

        As it is stored, if that is one blob by itself; else (offset, bytes), holes left out.
        Raises TraceDamagedError where there is none of this size, and what reading that trace raises.
        """
        reader, node = self._find(path, size)
        return reader._blob(node, 0) or _pieces(reader, node, size)  # noqa: SLF001 - no business of plugins

    def _find(self, path: bytes, size: int) -> tuple[Reader, int]:
        if self._reader is None:
            if self._place.is_symlink():
                raise damaged("the recording before is elsewhere")
            self._reader = self._held.enter_context(open_reader(self._place))
        reader = self._reader
        directory, _, name = path.rpartition(b"/")
        if directory != self._last[0]:
            self._last = directory, reader.resolve(directory or b"/", 0)
        parent = self._last[1]
        node = None if parent is None else reader.lookup(parent, name, 0)
        attrs = None if node is None else reader.attrs(node, 0)
        if node is None or attrs is None or not attrs.is_file or attrs.size != size:
            raise damaged("the recording before does not have a file that it is said to have")
        if attrs.fidelity == Fidelity.UNKNOWN:
            raise damaged("the recording before could not read a file that it is said to have")
        return reader, node

    @property
    def is_there(self) -> bool:
        return self._place.is_dir()

    def drop(self) -> None:
        """Nobody needs it any more. A link in its place is left alone."""
        self._held.close()
        self._reader = None
        shutil.rmtree(self._place, ignore_errors=True)


def _pieces(reader: Reader, node: int, size: int) -> Iterator[tuple[int, bytes]]:
    for start, length in ((0, size),) if size <= PIECE else reader.extents(node, 0):
        for offset in range(start, start + length, PIECE):
            yield offset, reader.read(node, 0, offset, min(PIECE, start + length - offset))
