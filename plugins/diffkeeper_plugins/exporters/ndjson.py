"""The ndjson exporter: one JSON object a line for each event, and digests of the bytes.

Owns what it adds to the lines of `timeline --json` (`diffkeeper.eventlines`): `sha256` of the bytes
that an event wrote, and with `files` of the whole file after it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from diffkeeper import happenings
from diffkeeper.errors import DiffKeeperError
from diffkeeper.eventlines import WITH_CONTENT, JsonLines
from diffkeeper.exporting import Exported, Selection, opened
from diffkeeper.model import Event, Op
from diffkeeper.plugins import Exporter
from diffkeeper.wording import printable

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

LONGEST_WRITE = 0x7FFFF000
"""Bytes that one write(2) can write at most; an event that claims more was not made by a kernel."""

_REMEMBERED = 10_000


class NdjsonExporter(Exporter):
    """Events, one JSON object a line as 'timeline --json' has them, with digests of what was written."""

    streams: ClassVar[bool] = True
    of_range: ClassVar[bool] = True
    unit: ClassVar[str] = "events"

    def __init__(self, files: bool = False) -> None:
        self._files = files

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        lines, digests = JsonLines(trace), Digests(trace)
        count = size = 0
        damaged: list[str] = []
        with opened(destination) as file:
            for event in happenings.events(trace, selection, progress):
                line, more = lines.line(event), ""
                try:
                    if event.op is Op.WRITE and (event.size or 0) <= LONGEST_WRITE:
                        more = f', "sha256": "{digests.written(event)}"'
                        size += event.size or 0
                    if self._files and event.op in WITH_CONTENT and (whole := digests.whole(event)):
                        more += f', "file_sha256": "{whole}"'
                except DiffKeeperError as error:
                    damaged.append(f"{printable(trace.display(event.path))} at event {event.seq}: {error}")
                file.write((line[:-2] + more + line[-2:]).encode("ascii") if more else line.encode("ascii"))
                count += 1
        return Exported(count, size, damaged=tuple(damaged))


class Digests:
    """SHA-256, in hexadecimal, of what events wrote. A file that only grows is read once, not at every write."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._growing: OrderedDict[int, tuple[int, int, hashlib._Hash]] = OrderedDict()  # node -> version, size, state

    def written(self, event: Event) -> str:
        """Of the bytes that a WRITE put into its file."""
        digest = hashlib.sha256()
        for piece in happenings.data(self._trace, event):
            digest.update(piece)
        return digest.hexdigest()

    def whole(self, event: Event) -> str | None:
        """Of the whole file just after the event; None where there is none."""
        reader = self._trace.reader
        attrs = reader.attrs(event.node, event.seq) if event.node else None
        if attrs is None or not attrs.is_file:
            return None
        version, size, digest = self._growing.pop(event.node, (0, 0, hashlib.sha256()))
        before = reader.attrs(event.node, event.seq - 1)
        appended = event.op is Op.WRITE and event.offset == size and before is not None
        if not (appended and before and before.version == version and before.size == size):
            size, digest = 0, hashlib.sha256()
        while size < attrs.size and (piece := reader.read(event.node, event.seq, size, 1 << 20)):
            digest.update(piece)
            size += len(piece)
        self._growing[event.node] = attrs.version, size, digest
        if len(self._growing) > _REMEMBERED:
            self._growing.popitem(last=False)
        return digest.hexdigest()
