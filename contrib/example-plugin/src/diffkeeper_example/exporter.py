"""The sha256 exporter."""

import hashlib
from pathlib import Path
from typing import BinaryIO, ClassVar

from diffkeeper.exporting import Exported, Meter, Selection, cost, entries, opened, weight
from diffkeeper.plugins import Exporter
from diffkeeper.progress import Progress
from diffkeeper.trace import Trace


class Sha256Exporter(Exporter):
    """The digest of each file at a moment, as `sha256sum --check` takes them."""

    streams: ClassVar[bool] = True
    unit: ClassVar[str] = "files"

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        count = size = 0
        meter = Meter(progress, weight(trace, selection))
        with opened(destination) as out:
            for entry in entries(trace, selection):
                meter.add(cost(entry))
                if not entry.attrs.is_file:
                    continue
                digest = hashlib.sha256()
                for chunk in trace.reader.chunks(entry.node, selection.moment.seq):
                    digest.update(chunk)
                out.write(line(digest.hexdigest().encode(), entry.path))
                count += 1
                size += entry.attrs.size
        return Exported(count, size)


def line(digest: bytes, path: bytes) -> bytes:
    """One line; sha256sum marks names that had to be escaped with a backslash in front."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != path else b"") + digest + b"  " + escaped + b"\n"
