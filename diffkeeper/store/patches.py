"""Blobs: bytes by the digest of what they are, stored whole or as a differ's patch on another blob.

Owns the BLOBS and BASES tables. A patch is made only where it pays, its chain is bounded, and every
blob is checked against its digest before anyone sees it. Which bytes make a blob is decided elsewhere,
which differ is asked in `differing`.
"""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Callable

import blake3
from msgspec import Struct

from .. import plugins
from ..errors import DiffKeeperError, PluginError
from . import differing
from .codec import MAX_BLOB, compress, damaged, decompress, unpack
from .db import Txn
from .tables import Table

DIGEST = 32
PATCH_SIZES = range(512, (8 << 20) + 1)
PATCH_PAYS = 0.70  # of what the blob takes without
PATCH_LEAST = 256  # what compresses to less is not worth a differ's time
SMALL = 128  # part of the target: a patch that is no larger is not worth asking another differ
MAX_DEPTH = 64
"""Of a chain: the `effort` of its patches together. 64 zstd patches of 1 MiB take 38 ms to apply."""
_CHAIN_LIMIT = 256  # a base may itself be made a patch later: chains outgrow the depths noted in them
_RAW, _ZSTD = b"raw", b"zstd"

_HEAD = struct.Struct("<BBI32s")  # length of differ's name, depth (efforts), size of the blob, digest of the base
NO_BASE = bytes(DIGEST)


class Blob(Struct, frozen=True, gc=False):
    differ: bytes
    depth: int
    size: int
    base: bytes
    data: bytes


def digest_of(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def load(txn: Txn, digest: bytes) -> Blob:
    value = txn.get(Table.BLOBS, digest)
    if value is None:
        raise damaged(f"blob {digest.hex()[:16]} is missing")
    length, depth, size, base = unpack(_HEAD, value)
    if size > MAX_BLOB or len(value) < _HEAD.size + length:
        raise damaged(f"blob {digest.hex()[:16]} makes no sense")
    at = _HEAD.size
    return Blob(value[at : at + length], depth, size, base, value[at + length :])


def _store(txn: Txn, digest: bytes, blob: Blob) -> None:
    head = _HEAD.pack(len(blob.differ), blob.depth, blob.size, blob.base)
    txn.replace(Table.BLOBS, digest, head + blob.differ + blob.data)


def store_patch(txn: Txn, digest: bytes, blob: Blob) -> None:
    """Store a blob as a patch, in place of what there is."""
    _store(txn, digest, blob)
    differing.need(txn, blob.differ.decode("ascii"))


class StoredBlob(Struct, frozen=True, gc=False):
    """A blob that needs no other, as a store has it: `value` in BLOBS. `size`: of what it stands for."""

    digest: bytes
    size: int
    value: bytes


def stored(txn: Txn, digest: bytes) -> StoredBlob | None:
    """None: it is a patch, or not there."""
    value = txn.get(Table.BLOBS, digest)
    if value is None:
        return None
    _, _, size, base = unpack(_HEAD, value)
    return StoredBlob(digest, size, value) if base == NO_BASE else None


def adopt(txn: Txn, blob: StoredBlob) -> None:
    """Store a blob of another store, unless it is there already."""
    if txn.get(Table.BLOBS, blob.digest) is None:
        txn.put(Table.BLOBS, blob.digest, blob.value)


def put(txn: Txn, data: bytes) -> bytes:
    """Store bytes unless they are there already; returns their digest."""
    digest = digest_of(data)
    if txn.get(Table.BLOBS, digest) is None:
        store_whole(txn, digest, data, compress(data))
    return digest


def store_whole(txn: Txn, digest: bytes, data: bytes, packed: bytes) -> None:
    """Store bytes by themselves. `packed`: the same compressed, for where that is shorter."""
    differ, packed = (_ZSTD, packed) if len(packed) < len(data) else (_RAW, data)
    _store(txn, digest, Blob(differ, 0, len(data), NO_BASE, packed))


class BlobReader:
    """Materialises blobs, and keeps the last few."""

    def __init__(self, limit: int = 24 << 20) -> None:
        self._limit, self._held = limit, 0
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._checked: set[bytes] = set()  # of these in the cache

    def get(self, txn: Txn, digest: bytes) -> bytes:
        """The bytes. Raises TraceDamagedError, or PluginError where the differ that made the patch is missing."""
        data = self._made(txn, digest)
        if digest not in self._checked:  # only what is handed out: a base that is not right makes nothing that is
            if digest_of(data) != digest:
                raise damaged(f"blob {digest.hex()[:16]} is not what its digest says")
            self._checked.add(digest)
        return data

    def keep(self, digest: bytes, data: bytes) -> None:
        """Bytes whose digest this is."""
        self._keep(digest, data)
        self._checked.add(digest)

    def _made(self, txn: Txn, digest: bytes) -> bytes:
        if (known := self._cache.get(digest)) is not None:
            self._cache.move_to_end(digest)
            return known
        blob = load(txn, digest)
        chain = [digest]  # not the blobs: a stranger's chain of large ones would fill the memory
        base = b""
        while blob.base != NO_BASE:
            if (known := self._cache.get(blob.base)) is not None:
                base = known
                break
            chain.append(blob.base)
            if len(chain) > _CHAIN_LIMIT:
                raise damaged(f"blob {digest.hex()[:16]} needs too many others")
            blob = load(txn, blob.base)
        for name in reversed(chain):
            blob = blob if name == chain[-1] else load(txn, name)
            try:
                base = _materialise(name, blob, base)
            except PluginError as error:
                raise differing.missing(txn, error, blob.differ.decode("ascii", "replace")) from error
            self._keep(name, base)
        return base

    def _keep(self, digest: bytes, data: bytes) -> None:
        self._held += len(data) - len(self._cache.pop(digest, b""))
        self._cache[digest] = data
        while self._held > self._limit and len(self._cache) > 1:
            oldest, gone = self._cache.popitem(last=False)
            self._held -= len(gone)
            self._checked.discard(oldest)


def _materialise(digest: bytes, blob: Blob, base: bytes) -> bytes:
    """What a blob stands for, if all below it is as it should be."""
    if blob.differ == _ZSTD:
        data = decompress(blob.data, blob.size)
    elif blob.differ == _RAW:
        data = blob.data
    else:
        data = _apply(digest, blob, base)
    if len(data) != blob.size:
        raise damaged(f"blob {digest.hex()[:16]} is not what its digest says")
    return data


def _apply(digest: bytes, blob: Blob, base: bytes) -> bytes:
    differ = plugins.differ(blob.differ.decode("ascii", "replace"))
    try:
        return differ.apply(base, blob.data)
    except DiffKeeperError:
        raise
    except Exception as error:  # somebody's code on somebody's bytes: whatever it raises, the patch is bad
        why = f"{type(error).__name__}: {error}"
        raise damaged(f"blob {digest.hex()[:16]} cannot be made by {differ.name} ({why})") from error


class Patcher:
    """Turns stored blobs into patches where that pays, within a share of the indexer's time."""

    SHARE, MOST, HEAD_START = 0.5, 0.75, 2.0
    """Of the time: after SHARE only quick differs are asked, after MOST none. Seconds that do not count."""

    def __init__(self, reader: BlobReader, choice: differing.Choice, *, unhurried: bool = False) -> None:
        self._reader, self._choice, self._unhurried = reader, choice, unhurried
        self._made: dict[str, plugins.Differ | None] = {}  # None: cannot be had
        self._failed: dict[str, str] = {}
        self._started, self._spent = time.monotonic(), 0.0

    def put(self, txn: Txn, data: bytes, base: bytes) -> bytes:
        """Store bytes unless they are there already, as a patch on `base` where that pays; returns their digest."""
        digest = digest_of(data)
        if txn.get(Table.BLOBS, digest) is not None:
            self.reencode(txn, digest, base)
            return digest
        packed = compress(data)
        # Not stored whole first: LMDB would keep those pages, and the file would be as much longer.
        if not self._patched(txn, digest, base, len(data), min(len(packed), len(data)), lambda: data):
            store_whole(txn, digest, data, packed)
        self._reader.keep(digest, data)  # the next version's base
        return digest

    def reencode(self, txn: Txn, digest: bytes, base: bytes) -> bool:
        """Store blob `digest` as a patch on blob `base`, if both sizes fit and it pays; says whether it did."""
        if digest == base or txn.get(Table.BASES, digest) is not None:
            return False  # what others need stays as it is: no chain can close into a ring
        blob = load(txn, digest)
        if blob.base != NO_BASE:
            return False
        return self._patched(txn, digest, base, blob.size, len(blob.data), lambda: self._reader.get(txn, digest))

    def _patched(
        self, txn: Txn, digest: bytes, base: bytes, size: int, stored: int, target: Callable[[], bytes]
    ) -> bool:
        """`stored`: bytes that the blob takes without. `target`: gives what it stands for."""
        below = load(txn, base)
        if stored < PATCH_LEAST or size not in PATCH_SIZES or below.size not in PATCH_SIZES:
            return False
        begun = time.monotonic()
        over = 0.0 if self._unhurried else self._spent - self.HEAD_START
        if over > self.MOST * (begun - self._started):
            return False
        names = differing.candidates(self._choice, below.size, size, over > self.SHARE * (begun - self._started))
        names = tuple(name for name in names if below.depth + differing.effort(name, size) <= MAX_DEPTH)
        if not names:
            return False
        patch = self.diff(names, self._reader.get(txn, base), target())
        self._spent += time.monotonic() - begun
        if patch is None or len(patch[1]) >= PATCH_PAYS * stored:
            return False
        depth = below.depth + differing.effort(patch[0].decode("ascii"), size)
        store_patch(txn, digest, Blob(patch[0], depth, size, base, patch[1]))
        txn.put(Table.BASES, base, b"")
        return True

    def diff(self, names: tuple[str, ...], base: bytes, target: bytes) -> tuple[bytes, bytes] | None:
        """The smallest patch, and the stored name of the differ that made it; None where none works.

        The differs are asked in turn, until one has a patch that is small.
        """
        best = None
        for name in names:
            found = self._patch(name, base, target)
            if found is not None and (best is None or len(found[1]) < len(best[1])):
                best = found
            if best is not None and len(best[1]) * SMALL <= len(target):
                break
        return best

    def _patch(self, name: str, base: bytes, target: bytes) -> tuple[bytes, bytes] | None:
        try:
            differ = self._differ(name)
            patch = differ.diff(base, target) if differ else None
            if differ and patch is not None:
                # By the one that readers will have, which is made without options.
                if plugins.differ(differ.name).apply(base, patch) == target:
                    return differ.name.encode("ascii"), patch
                self._fails(name, "what it makes of its patch is something else")
        except Exception as error:  # noqa: BLE001  somebody's code: the blob stays stored whole, nothing is lost
            self._fails(name, f"{type(error).__name__}: {error}")
        return None

    def notes(self) -> list[str]:
        """For each differ that failed, how it did the first time."""
        return [
            f"the differ {name!r} failed, and what it could not patch is stored whole: {why}"
            for name, why in self._failed.items()
        ]

    def _fails(self, name: str, why: str) -> None:
        if name not in self._failed:
            self._failed[name] = why
            plugins.warn("%s", self.notes()[-1])

    def _differ(self, name: str) -> plugins.Differ | None:
        if name not in self._made:
            self._made[name] = None
            options = self._choice.options if name == self._choice.name else {}
            self._made[name] = plugins.make_differ(name, options)
        return self._made[name]
