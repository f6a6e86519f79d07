"""Whether the pages of a data file can be handed to LMDB, which believes what they say.

LMDB reads its file through a memory map: a page that lies (about where a value is, about what kind of page
it is) ends the whole process. A trace may come from a stranger, so the pages that a reader can get to are
looked at first. This module reads the file as bytes, with numpy, and never through LMDB; it costs a pass
over the tree pages, not over the values. That keys are in order, and what a writer relies on besides, is
not looked at here (`lmdb.verify` does that, and takes many times as long).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple, TypeAlias

from ..arrays import np, npt
from ..errors import TraceDamagedError
from .codec import distinct

Pages: TypeAlias = "npt.NDArray[np.int64]"

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = 16  # of each page: number u64, pad u16, flags u16, lower u16, upper u16
BRANCH, LEAF, META = 1, 2, 8
BIG, SUB = 1, 2  # flags of a node in a leaf: its value is in pages of its own; it is a tree
INTEGER_KEY, NO_SUBDIR = 0x08, 0x4000
NO_ROOT = (1 << 64) - 1
MAX_DEPTH = 32
LEAST_KEY, LONGEST_KEY = 1, 511
LONGEST_VALUE = 128 << 20
"""Bytes; a blob is at most half of it, and LMDB hands out values whole."""
BATCH = 256  # pages looked at in one go

_META = struct.Struct("<II8xQ48s48sQQ")  # magic, version, map size, two trees, last page, transaction
_TREE = struct.Struct("<IHHQQQQQ")


class Tree(NamedTuple):
    """struct MDB_db. Of the free list `pad` is the file's page size, and `flags` the environment's."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class Meta(NamedTuple):
    """struct MDB_meta: where everything of one transaction hangs."""

    free: Tree
    main: Tree
    last_page: int
    transaction: int


def damaged(what: str) -> TraceDamagedError:
    return TraceDamagedError(f"damaged trace: the index is not sound: {what}; copy the trace again")


def metas(file: int) -> list[Meta]:
    """The two metas of the open data file, each as LMDB needs it. Raises TraceDamagedError."""
    size = _tree(os.pread(file, HEADER + _META.size, 0)[HEADER + 24 :][: _TREE.size]).pad
    if size not in (4096, 8192, 16384, 32768):
        raise damaged(f"its pages have {size} bytes")
    found = []
    for number in (0, 1):
        raw = os.pread(file, HEADER + _META.size, number * size)
        if len(raw) < HEADER + _META.size or not raw[10] & META:
            raise damaged("it does not begin as one does")
        magic, version, _, free, main, last, transaction = _META.unpack_from(raw, HEADER)
        meta = Meta(_tree(free), _tree(main), last, transaction)
        if magic != MAGIC or version != VERSION:
            raise damaged("it was written by another LMDB, or by something else")
        if meta.free.pad != size or meta.free.flags & ~NO_SUBDIR != INTEGER_KEY or meta.main.flags:
            raise damaged("it is not of the kind that this program writes")
        found.append(meta)
    return found


def check(file: int, transaction: int, tables: frozenset[bytes]) -> bool:
    """Look at all pages of `tables` that a reader of a transaction can get to.

    False: the transaction is not there any more. Raises TraceDamagedError.
    """
    meta = next((meta for meta in metas(file) if meta.transaction == transaction), None)
    if meta is None:
        return False
    walk = _Walk(file, meta)
    for name, raw in walk.tree("the list of tables", meta.main, inner=True):
        tree = _tree(raw)
        if tree.flags:
            raise damaged(f"table {name!r} has flags {tree.flags:#x}")
        if name in tables:
            walk.tree(f"table {name.decode('ascii', 'replace')}", tree)
    return True


class _Walk:
    """The pages of one transaction, and which of them were met."""

    def __init__(self, file: int, meta: Meta) -> None:
        self._file, self._size = file, meta.free.pad
        self._end = min(os.fstat(file).st_size // self._size, meta.last_page + 1)
        self._met = np.zeros(self._end, np.bool_)
        self._buffer = bytearray(BATCH * self._size)

    def tree(self, name: str, tree: Tree, *, inner: bool = False) -> list[tuple[bytes, bytes]]:
        """Look at a tree, level by level. `inner`: its values are trees, which are returned."""
        if tree.root == NO_ROOT:
            return []
        if not 0 < tree.depth <= MAX_DEPTH or tree.root >= self._end:
            raise damaged(f"{name} has its root at page {tree.root}, {tree.depth} levels up")
        level: Pages = np.array([tree.root], np.int64)
        values: list[tuple[bytes, bytes]] = []
        for depth in range(tree.depth):
            if int(level.min()) < 2 or int(level.max()) >= self._end:
                raise damaged(f"{name} leads out of the file")
            if self._met[level].any() or len(distinct(level)) < len(level):
                raise damaged(f"{name} leads to a page twice")
            self._met[level] = True
            below: list[Pages] = []
            for start in range(0, len(level), BATCH):
                batch = _Batch(name, level[start : start + BATCH], self._read(level[start : start + BATCH]), self._size)
                if depth + 1 < tree.depth:
                    below.append(batch.children())
                elif inner:
                    values += batch.trees()
                else:
                    batch.check_values(self._end)
            level = np.concatenate(below) if below else level[:0]
        return values

    def _read(self, numbers: Pages) -> npt.NDArray[np.uint8]:
        """The pages, in a buffer that the next batch is read into."""
        size, view = self._size, memoryview(self._buffer)
        for at, number in enumerate(numbers.tolist()):
            if os.preadv(self._file, [view[at * size : (at + 1) * size]], number * size) != size:
                raise damaged("it is cut off")
        return np.frombuffer(self._buffer, np.uint8, len(numbers) * size).reshape(-1, size)


class _Batch:
    """Some pages of one level, and their nodes as columns. `page`: which of them a node is in."""

    def __init__(self, name: str, numbers: Pages, raw: npt.NDArray[np.uint8], size: int) -> None:
        self._name, self._raw, self._size = name, raw, size
        words = raw.view("<u2")
        lower, upper = words[:, 6].astype(np.int64), words[:, 7].astype(np.int64)
        if (raw.view("<u8")[:, 0] != numbers.astype(np.uint64)).any():
            raise damaged(f"a page of {name} has another number than its place")
        if (lower & 1).any() or (lower < HEADER).any() or (lower > upper).any() or (upper > size).any():
            raise damaged(f"a page of {name} has no sound bounds")
        self._flags = words[:, 5]
        self.counts = (lower - HEADER) >> 1
        self.page = np.repeat(np.arange(len(numbers)), self.counts)
        within = np.arange(len(self.page)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        self.at = words[self.page, HEADER // 2 + within].astype(np.int64)
        if (self.at & 1).any() or (self.at < upper[self.page]).any() or (self.at > size - 8).any():
            raise damaged(f"a page of {name} has a node out of its bounds")
        fields = (words[self.page, self.at // 2 + field].astype(np.int64) for field in range(4))
        low, high, self.flags, self.key = fields
        self.low = low | high << 16
        self.value = self.at + 8 + self.key  # where it begins
        if (self.value > size).any():
            raise damaged(f"a key of {name} is longer than its page")

    def children(self) -> Pages:
        """Of branches."""
        if (self._flags != BRANCH).any() or (self.counts < 2).any():
            raise damaged(f"a page of {self._name} is not the branch that it should be")
        below: Pages = self.low | self.flags << 32
        return below

    def check_values(self, end: int) -> None:
        """Of leaves. `end`: the number of pages there are."""
        self._check_leaves()
        big = self.flags == BIG
        if (self.flags[~big] != 0).any():
            raise damaged(f"a value of {self._name} is of an unknown kind")
        if (self.low > LONGEST_VALUE).any() or (self.value + np.where(big, 8, self.low) > self._size).any():
            raise damaged(f"a value of {self._name} is longer than it can be")
        if big.any():
            bytes_of = self._raw[self.page[big, None], self.value[big, None] + np.arange(8)]
            first = np.ascontiguousarray(bytes_of).view("<u8")[:, 0]
            needed = ((HEADER - 1 + self.low[big]) // self._size + 1).astype(np.uint64)
            if (first < 2).any() or (first >= end).any() or (first + needed > end).any():
                raise damaged(f"a value of {self._name} is out of the file")

    def trees(self) -> list[tuple[bytes, bytes]]:
        """Of leaves whose values are trees."""
        self._check_leaves()
        if (self.flags != SUB).any() or (self.low != _TREE.size).any() or (self.value + _TREE.size > self._size).any():
            raise damaged("the list of tables has something else in it")
        found = []
        for page, start, end in zip(self.page.tolist(), (self.at + 8).tolist(), self.value.tolist(), strict=True):
            row = self._raw[page]
            found.append((row[start:end].tobytes(), row[end : end + _TREE.size].tobytes()))
        return found

    def _check_leaves(self) -> None:
        if (self._flags != LEAF).any() or (self.counts < 1).any():
            raise damaged(f"a page of {self._name} is not the leaf that it should be")
        if (self.key < LEAST_KEY).any() or (self.key > LONGEST_KEY).any():
            raise damaged(f"a key of {self._name} is longer than a key can be")


def _tree(raw: bytes) -> Tree:
    if len(raw) < _TREE.size:
        raise damaged("it is cut off")
    return Tree(*_TREE.unpack(raw))
