"""The parquet exporter: the events as a table, for DuckDB, pandas, Spark and the like. The only importer of pyarrow.

Owns the columns. pyarrow is an extra (`diffkeeper[parquet]`), so it is imported when an exporter is
made, and its absence is told in one line.
"""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from diffkeeper import happenings
from diffkeeper.errors import PluginError
from diffkeeper.eventlines import FIDELITIES, LABELS, Names
from diffkeeper.exporting import Exported, Selection, opened
from diffkeeper.model import Event, Op
from diffkeeper.plugins import Exporter

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

_ROWS = 1 << 16  # in a row group: what is in memory at once


class ParquetExporter(Exporter):
    """A Parquet table with a row per event; needs diffkeeper[parquet]."""

    streams: ClassVar[bool] = True
    of_range: ClassVar[bool] = True
    unit: ClassVar[str] = "events"

    def __init__(self, compression: str = "zstd") -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise PluginError(
                f"the exporter 'parquet' needs pyarrow ({error}): pip install 'diffkeeper[parquet]'"
            ) from error
        if compression not in ("zstd", "snappy", "gzip", "none"):
            raise PluginError(f"the exporter 'parquet' compresses with zstd, snappy, gzip or none, not {compression!r}")
        self._arrow, self._parquet, self._compression = pa, pq, compression

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        arrow, schema, rows = self._arrow, self._schema(), _Rows(trace)
        events = happenings.events(trace, selection, progress)
        count = size = 0
        with opened(destination) as file:
            sink = arrow.PythonFile(_Counted(file), mode="w")
            with self._parquet.ParquetWriter(sink, schema, compression=self._compression) as writer:
                while batch := list(islice(events, _ROWS)):
                    table = arrow.Table.from_pylist([rows.row(event) for event in batch], schema=schema)
                    writer.write_table(table)
                    count += len(batch)
                    size += sum(event.size or 0 for event in batch if event.op is Op.WRITE)
        return Exported(count, size)

    def _schema(self) -> Any:
        r"""The columns, with names that SQL has no other use for.

        Texts that are not UTF-8 have `\xff` escapes; `..._bytes` then hold what it really was.
        """
        a = self._arrow
        words, whole = a.dictionary(a.int32(), a.string()), a.int64()
        return a.schema([
            a.field("event", whole, nullable=False),
            a.field("seconds", a.float64(), nullable=False),  # from the start of the command
            a.field("nanoseconds", whole, nullable=False),
            a.field("wall", a.timestamp("ns", "UTC"), nullable=False),
            a.field("moment", a.string(), nullable=False),  # to paste
            a.field("op", words, nullable=False),
            a.field("path", a.string()), a.field("path_bytes", a.binary()),
            a.field("new_path", a.string()), a.field("new_path_bytes", a.binary()),
            a.field("pid", whole), a.field("comm", words),
            a.field("node", whole), a.field("position", whole), a.field("size", whole),
            a.field("fidelity", words, nullable=False), a.field("outside", a.bool_(), nullable=False),
            a.field("missed", whole), a.field("detail", a.string()),
        ])  # fmt: skip


_LATEST = (1 << 63) - 2  # ns that a timestamp holds, and one more is infinity to some: a stranger's clock may say more


class _Rows:
    def __init__(self, trace: Trace) -> None:
        self._trace, self._names = trace, Names(trace)

    def row(self, event: Event) -> dict[str, object]:
        display = self._trace.display
        path = display(event.path) if event.path else None
        to = event.to if event.to is None or event.op is Op.SYMLINK else display(event.to)
        return {
            "event": event.seq, "seconds": event.time / 1e9, "nanoseconds": event.time,
            "wall": max(-_LATEST, min(self._trace.session.started + event.time, _LATEST)),
            "moment": self._trace.stamp(event),
            "op": LABELS[event.op], "path": _text(path), "path_bytes": _odd(path),
            "new_path": _text(to), "new_path_bytes": _odd(to), "pid": event.pid or None,
            "comm": _text(self._names.comm(event).encode("utf-8", "surrogateescape")) if event.pid else None,
            "node": event.node or None, "position": event.offset, "size": event.size,
            "fidelity": FIDELITIES[event.fidelity], "outside": event.outside,
            "missed": event.count if event.op is Op.GAP else None,
            "detail": _text(event.detail.encode("utf-8", "surrogateescape")) if event.detail else None,
        }  # fmt: skip


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _odd(data: bytes | None) -> bytes | None:
    """Bytes that are not UTF-8; None for all others."""
    if data is None:
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    return None


class _Counted(io.RawIOBase):
    """A file to write to that knows how far it is, also where the one below cannot say."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        count = memoryview(data).nbytes
        self._file.write(data)
        self._at += count
        return count

    def flush(self) -> None:
        if not self._file.closed:  # who made it has closed it, and this one is flushed again when it goes
            self._file.flush()
