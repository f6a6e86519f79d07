"""The tar exporter: a moment as a POSIX pax archive, the same bytes whenever and wherever it is made.

Owns how recorded attributes are spelt in pax headers. Owners are numbers, names are sorted, and
nothing of the machine that exports goes in.
"""

from __future__ import annotations

import stat
import tarfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from diffkeeper.errors import TraceDamagedError
from diffkeeper.exporting import (
    Entry,
    Exported,
    Meter,
    Selection,
    content,
    cost,
    entries,
    fidelity_note,
    is_exact,
    opened,
    weight,
)
from diffkeeper.plugins import Exporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

_BLOCK = 64 << 10
_HOLES = 64 << 30
"""Most bytes of holes that are written as zeroes for one file: a stranger's trace can claim any size."""
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


class TarExporter(Exporter):
    """A POSIX (pax) tar archive, reproducible byte for byte."""

    streams: ClassVar[bool] = True

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        meter = Meter(progress, weight(trace, selection))
        with opened(destination) as file, self.packed(file) as archive:
            return self._write(trace, selection, archive, meter)

    def packed(self, file: BinaryIO) -> AbstractContextManager[BinaryIO]:
        """What the archive's bytes are written to, on their way to `file`."""
        return nullcontext(file)

    def _write(self, trace: Trace, selection: Selection, file: BinaryIO, meter: Meter) -> Exported:
        count = size = inexact = sockets = hollow = unspeakable = 0
        # "w|" never seeks, so that a file and a pipe get the same bytes.
        with tarfile.open(
            fileobj=file, mode="w|", bufsize=_BLOCK, format=tarfile.PAX_FORMAT,
            encoding="utf-8", errors="surrogateescape",
        ) as archive:
            for entry in entries(trace, selection):
                meter.add(cost(entry))
                if stat.S_IFMT(entry.attrs.mode) not in _TYPES:
                    sockets += 1
                    continue
                if _is_hollow(trace, entry, selection.moment.seq):
                    hollow += 1
                    continue
                info = _header(entry)
                unspeakable += sum(_keyword(name) is None for name in entry.attrs.xattrs)
                body = _Body(content(trace.reader, entry, selection.moment.seq), info.size) if info.size else None
                archive.addfile(info, body)
                archive.getmembers().clear()  # its memory of what it wrote, which would grow with every file
                count += 1
                size += info.size
                inexact += not is_exact(entry)
        notes = list[str]()
        if sockets:
            notes.append(f"{sockets} sockets left out: an archive cannot hold them")
        if hollow:
            notes.append(f"{hollow} files left out that are larger than {_HOLES >> 30} GiB and mostly holes")
        if unspeakable:
            plural = "s" if unspeakable > 1 else ""
            notes.append(f"{unspeakable} extended attribute{plural} left out: an archive holds only names in UTF-8")
        return Exported(count, size, (*notes, *fidelity_note(inexact)))


def _is_hollow(trace: Trace, entry: Entry, seq: int) -> bool:
    if not entry.attrs.is_file or entry.attrs.size <= _HOLES:
        return False
    return entry.attrs.size - sum(length for _, length in trace.reader.extents(entry.node, seq)) > _HOLES


def _header(entry: Entry) -> tarfile.TarInfo:
    attrs = entry.attrs
    info = tarfile.TarInfo(_text(entry.path) or ".")
    info.type = _TYPES[stat.S_IFMT(attrs.mode)]
    info.mode = stat.S_IMODE(attrs.mode)
    info.uid, info.gid = attrs.uid, attrs.gid
    info.mtime = attrs.mtime // 1_000_000_000
    headers = {"mtime": _seconds(attrs.mtime)} if attrs.mtime % 1_000_000_000 else {}
    named = ((_keyword(name), value) for name, value in sorted(attrs.xattrs.items()))
    headers.update((keyword, _text(value)) for keyword, value in named if keyword)
    info.pax_headers = headers
    if entry.link is not None:
        info.type, info.linkname = tarfile.LNKTYPE, _text(entry.link)
    elif attrs.is_symlink:
        info.linkname = _text(attrs.target)
    elif attrs.is_file:
        info.size = attrs.size
    elif not attrs.is_dir:
        # As stat() shows it: 12 bits of major, 20 of minor.
        info.devmajor, info.devminor = attrs.rdev >> 8 & 0xFFF, attrs.rdev & 0xFF | attrs.rdev >> 12 & 0xFFF00
    return info


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _keyword(name: bytes) -> str | None:
    """Of an extended attribute, as GNU tar spells it: "=" ends a keyword. None: it cannot be, as keywords are UTF-8."""
    try:
        return "SCHILY.xattr." + name.decode().replace("%", "%25").replace("=", "%3D")
    except UnicodeDecodeError:
        return None


def _seconds(nanoseconds: int) -> str:
    whole, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{rest:09d}".rstrip("0")


class _Body:
    """The bytes of one file, holes as zeroes, for tarfile to read from."""

    def __init__(self, pieces: Iterator[tuple[int, bytes]], size: int) -> None:
        self._pieces, self._size, self._at = pieces, size, 0
        self._next: tuple[int, bytes] | None = next(pieces, None)

    def read(self, count: int = -1, /) -> bytes:
        """The next `count` bytes, all that are left if negative."""
        left = self._size - self._at
        count = left if count < 0 else min(count, left)
        parts = []
        while count:
            start, data = self._next or (self._size, b"")
            part = bytes(min(count, start - self._at)) if start > self._at else data[self._at - start :][:count]
            if not part:
                raise TraceDamagedError("damaged trace: a file's content ends before its size")
            parts.append(part)
            self._at += len(part)
            count -= len(part)
            if self._next and self._at == start + len(data):
                self._next = next(self._pieces, None)
        return b"".join(parts)
