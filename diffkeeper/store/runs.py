"""Runs of plain writes in a span: many records as columns, where one at a time would cost too much.

Owns finding them. A plain write is a record with all the bytes of its call; a run is many in a row, of whatever
files. Nearly all records of a busy program are in runs. What a run does to the tables is decided in `replay`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct

from ..arrays import np, npt
from ..wire import EVENT, INODE, RING_DISCARD, WireOp
from .codec import Column, damaged

BATCH = 16384  # records looked at in one go
LEAST = 24  # writes that are worth being a run, or a file's part of one
_LARGE = 1 << 62  # what is no number below this is left to whoever looks at records one by one

# A ring header, struct dk_event and its first struct dk_inode.
_RECORD = [
    ("size", "<u4"), ("ring", "<u4"),
    ("time", "<u8"), ("pid", "<u4"), ("tid", "<u4"), ("op", "<u2"), ("flags", "u1"), ("inodes", "u1"),
    ("bytes", "<u4"), ("offset", "<u8"), ("length", "<u8"),
    ("ino", "<u8"), ("dev", "<u4"), ("gen", "<u4"), ("file_size", "<u8"), ("mtime", "<i8"), ("ctime", "<i8"),
    ("parent", "<u8"), ("mode", "<u4"), ("uid", "<u4"), ("gid", "<u4"), ("nlink", "<u4"), ("rdev", "<u4"),
    ("tag", "<u4"),
]  # fmt: skip
_BODY = EVENT.size + INODE.size
_WORDS = (8 + _BODY) // 8
assert sum(int(kind[2:] if kind[0] == "<" else kind[1:]) for _, kind in _RECORD) == 8 + _BODY, "wire.py differs"

Records: TypeAlias = "npt.NDArray[Any]"


class File(NamedTuple):
    """What the records of a run say of a file, beside its content and times."""

    ident: tuple[int, int, int]
    mode: int
    uid: int
    gid: int


class Run(Struct, frozen=True):
    """Writes to some files, in order. The columns have one length."""

    files: list[File]
    which: Column  # of `files`
    times: Column  # CLOCK_BOOTTIME
    pids: Column
    offsets: Column
    sizes: Column
    mtimes: Column
    ctimes: Column
    places: Column  # where in the span the bytes begin
    span: memoryview

    def __len__(self) -> int:
        return len(self.sizes)

    def part(self, rows: slice | Column) -> Run:
        """Some of the writes, by their numbers."""
        return Run(
            self.files, self.which[rows], self.times[rows], self.pids[rows], self.offsets[rows], self.sizes[rows],
            self.mtimes[rows], self.ctimes[rows], self.places[rows], self.span,
        )  # fmt: skip

    def by_file(self) -> Iterator[tuple[int, Column]]:
        """Number of each file, and the numbers of the writes to it, ascending."""
        order = np.argsort(self.which, kind="stable")
        ends = np.cumsum(np.bincount(self.which, minlength=len(self.files)))
        return enumerate(np.split(order, ends[:-1]))

    def payload(self) -> bytes:
        """The bytes of all writes, one after the other."""
        size, places = int(self.sizes[0]), self.places
        if len(self) > 1 and (self.sizes == size).all():
            step = int(places[1] - places[0])
            if (np.diff(places) == step).all():
                rows = np.frombuffer(self.span, np.uint8)[places[0] : int(places[-1]) + size]
                return np.lib.stride_tricks.as_strided(rows, (len(self), size), (step, 1), writeable=False).tobytes()
        ends = (places + self.sizes).tolist()
        return b"".join([self.span[start:end] for start, end in zip(places.tolist(), ends, strict=True)])


def walk(span: bytes) -> Iterator[Run | tuple[int, int]]:
    """What is in a span, in order: runs, and start and size of all other records. Raises TraceDamagedError."""
    view = memoryview(span)
    heads = _heads(view)
    if len(heads) < LEAST:
        yield from _plainly(view, heads)
        return
    words = np.frombuffer(view, "<u8")
    for at in range(0, len(heads), BATCH):
        yield from _batch(view, words, np.array(heads[at : at + BATCH], np.int64))


def _heads(view: memoryview) -> list[int]:
    """The word of 8 bytes at which each record begins that was not discarded."""
    if len(view) % 8:
        raise damaged("a record header is cut off")
    sizes = view.cast("I")
    heads: list[int] = []
    at, end = 0, len(view) // 8
    while at < end:
        size = sizes[2 * at]
        if not size & RING_DISCARD:
            heads.append(at)
        at += 1 + ((size & 0x3FFFFFFF) + 7 >> 3)
    if at > end:
        raise damaged("a record is longer than its frame")
    return heads


def _plainly(view: memoryview, heads: list[int]) -> Iterator[tuple[int, int]]:
    """What `walk` says where there can be no run: most spans of a program that does much else than write."""
    sizes = view.cast("I")
    for at in heads:
        size = sizes[2 * at] & 0x3FFFFFFF
        if size < EVENT.size:
            raise damaged("a record is shorter than its header")
        yield at * 8 + 8, size


def _batch(view: memoryview, words: npt.NDArray[np.uint64], heads: Column) -> Iterator[Run | tuple[int, int]]:
    sizes = (words[heads] & 0x3FFFFFFF).astype(np.int64)
    if int(sizes.min()) < EVENT.size:
        raise damaged("a record is shorter than its header")
    whole = heads[: np.searchsorted(heads, len(words) - _WORDS, "right")]  # the rest are too short for a write
    records = words[whole[:, None] + np.arange(_WORDS)].view(_RECORD)[:, 0]
    edges = _edges(records, sizes[: len(whole)]).tolist()
    done = 0
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield from _others(heads, sizes, done, start)
        yield _run(view, records[start:stop], heads[start:stop])
        done = stop
    yield from _others(heads, sizes, done, len(heads))


def _others(heads: Column, sizes: Column, start: int, stop: int) -> Iterator[tuple[int, int]]:
    if start < stop:
        yield from zip((heads[start:stop] * 8 + 8).tolist(), sizes[start:stop].tolist(), strict=True)


def _edges(records: Records, sizes: Column) -> Column:
    """Where runs start and stop, in turn."""
    length = records["length"]
    plain = (
        (records["op"] == WireOp.WRITE) & (records["flags"] == 0) & (records["inodes"] == 1)
        & (length == records["bytes"]) & (length > 0) & (length + _BODY <= sizes.astype(np.uint64))
        & (records["offset"] < _LARGE) & (records["time"] < _LARGE)
        & (np.abs(records["mtime"]) < _LARGE) & (np.abs(records["ctime"]) < _LARGE)
    )  # fmt: skip
    steps = np.diff(plain.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    worth = stops - starts >= LEAST
    return np.stack((starts[worth], stops[worth]), 1).ravel()


def _run(view: memoryview, records: Records, heads: Column) -> Run:
    def column(name: str) -> Column:
        return records[name].astype(np.int64)

    files, which = _files(*(records[name] for name in _FILE))
    return Run(
        files, which, column("time"), column("pid"), column("offset"), column("length"), column("mtime"),
        column("ctime"), heads * 8 + 8 + _BODY, view,
    )  # fmt: skip


_FILE = "ino", "dev", "gen", "mode", "uid", "gid"
_MIX = 0x9E3779B97F4A7C15


def _files(*fields: Records) -> tuple[list[File], Column]:
    """The files there are in a run, and which of them each record is about."""
    if all((field == field[0]).all() for field in fields):
        firsts, which = np.zeros(1, np.int64), np.zeros(len(fields[0]), np.int64)
    else:
        mixed = np.zeros(len(fields[0]), np.uint64)
        for field in fields:
            mixed = (mixed ^ field) * np.uint64(_MIX)  # wraps around
            mixed ^= mixed >> np.uint64(29)
        _, firsts, which = np.unique(mixed, return_index=True, return_inverse=True)
        if any((field != field[firsts][which]).any() for field in fields):  # two files, one number: nearly never
            firsts = which = np.arange(len(mixed))
    files = [
        File((dev, ino, gen), mode, uid, gid)
        for ino, dev, gen, mode, uid, gid in zip(*(field[firsts].tolist() for field in fields), strict=True)
    ]
    return files, which
