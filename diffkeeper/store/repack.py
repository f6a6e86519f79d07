"""Making the patches of a finished trace anew: with another differ, or with none.

Owns the walk over all patches, the search for what else could be one, and the file's compaction.
Patches keep their bases, so chains stay as they are, and new ones are made oldest first, as the
indexer does. Each transaction leaves a whole and true store; stopped in the middle, some patches
are the old ones. At the end a compacted copy takes the place of the file.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct, field

from ..errors import DiffKeeperError
from . import differing, files, indexer
from .codec import compress
from .content import KEYFRAME, RESET, decode, decode_ref
from .db import Database, Txn
from .patches import NO_BASE, Blob, BlobReader, Patcher, load, store_patch, store_whole
from .tables import Table

_BATCH_BYTES = 64 << 20

Report = Callable[[int, int], None]


class Figures(Struct):
    """What the content of a trace costs. `kinds`: stored name of a differ, `raw` or `zstd` -> blobs stored so."""

    kinds: Counter[str] = field(default_factory=Counter)
    stored: int = 0  # bytes that the blobs take
    seconds: float = 0.0  # to read every blob once, in the order of their digests
    file: int = 0  # bytes of the index on disk


def repack(trace_dir: Path, choice: differing.Choice, progress: Report) -> tuple[Figures, Figures, bool]:
    """Figures before and after, and whether the file could be made smaller: not while others have it open.

    `progress` is told how many contents are done, of how many. Raises PluginError for a differ that cannot
    be had, the old ones included; TraceDamagedError; DiffKeeperError while the trace is recorded or indexed.
    """
    differing.check(choice)
    if indexer.unfinished(trace_dir):
        indexer.index(trace_dir)
    with indexer.locked(trace_dir):
        path = trace_dir / files.DATA_FILE
        with contextlib.closing(Database(path, write=True)) as database:
            before = _measure(database, path)
            with database.reading() as txn:
                patched = [digest for digest, _ in txn.scan(Table.BLOBS) if load(txn, digest).base != NO_BASE]
                pairs = [] if choice.name == differing.RAW else list(_pairs(txn))
            _rewrite(database, choice, patched, pairs, progress)
        smaller = _compact(path)
        with contextlib.closing(Database(path)) as database:
            return before, _measure(database, path), smaller


def _measure(database: Database, path: Path) -> Figures:
    """Reads every blob, so it also proves that each is what its digest says."""
    figures, reader = Figures(file=path.stat().st_blocks * 512), BlobReader()
    with database.reading() as txn:
        for digest, _ in txn.scan(Table.BLOBS):
            blob = load(txn, digest)
            figures.kinds[blob.differ.decode("ascii", "replace")] += 1
            figures.stored += len(blob.data)
            begun = time.perf_counter()
            reader.get(txn, digest)
            figures.seconds += time.perf_counter() - begun
    return figures


def _pairs(txn: Txn) -> Iterator[tuple[bytes, bytes]]:
    """Contents that are versions of one file, as (newer, older), by age: what the indexer may have had no time for."""
    wholes: dict[int, list[tuple[int, bytes]]] = {}  # node -> seq and digest, for each time it was written as a whole
    for key, value in txn.scan(Table.CONTENT):
        ref = decode_ref(key, value)
        alone = ref.head.flags & (RESET | KEYFRAME) == RESET or not ref.head.before
        if alone and ref.head.payload == ref.head.after and (digest := decode(ref, value).payload.digest):
            wholes.setdefault(int.from_bytes(key[:8], "big"), []).append((ref.first, digest))
    found = [
        (seq, digest, before[1])
        for versions in wholes.values()
        for before, (seq, digest) in itertools.pairwise(versions)
    ]
    last = b"", 0
    for key, value in txn.scan(Table.NAMES):
        name, seq, node = key[:-8], int.from_bytes(key[-8:], "big"), int.from_bytes(value, "big")
        if last[0] == name and last[1] and node and node != last[1]:  # written anew, and renamed over the old one
            older = [digest for first, digest in wholes.get(last[1], ()) if first <= seq][-1:]
            newer = [digest for first, digest in wholes.get(node, ()) if first <= seq][-1:]
            found += [(seq, newer[0], older[0])] if older and newer else []
        last = name, node or last[1] if last[0] == name else node
    for _, digest, base in sorted(found):
        yield digest, base


def _rewrite(
    database: Database, choice: differing.Choice, patched: list[bytes], pairs: list[tuple[bytes, bytes]], report: Report
) -> None:
    reader, done, total = BlobReader(), 0, len(patched) + len(pairs)
    patcher = Patcher(reader, choice, unhurried=True)
    for txn, digest in _batches(database, patched):
        blob = load(txn, digest)
        base, target = reader.get(txn, blob.base), reader.get(txn, digest)
        patch = patcher.diff(differing.candidates(choice, len(base), len(target), hurried=False), base, target)
        whole = compress(target)
        if patch is not None and len(patch[1]) < min(len(whole), len(target)):
            store_patch(txn, digest, Blob(patch[0], blob.depth, blob.size, blob.base, patch[1]))
        else:
            store_whole(txn, digest, target, whole)
        report(done := done + 1, total)
    _name_what_is_needed(database)
    bases = dict(pairs)
    for txn, digest in _batches(database, list(bases)):
        patcher.reencode(txn, digest, bases[digest])
        report(done := done + 1, total)


def _batches(database: Database, digests: list[bytes]) -> Iterator[tuple[Txn, bytes]]:
    """Each digest, with the transaction of the moment."""
    txn, held = database.begin(), 0
    try:
        for digest in digests:
            yield txn, digest
            held += load(txn, digest).size
            if held > _BATCH_BYTES:
                txn.commit()
                txn, held = database.begin(), 0
        txn.commit()
    except BaseException:
        txn.abort()
        raise


def _name_what_is_needed(database: Database) -> None:
    """The differs and the bases that patches need now."""
    txn = database.begin()
    try:
        needs = {(blob.differ, blob.base) for digest, _ in txn.scan(Table.BLOBS) if (blob := load(txn, digest))}
        needs = {need for need in needs if need[1] != NO_BASE}
        differing.forget(txn)
        for name in {name for name, _ in needs}:
            differing.need(txn, name.decode("ascii"))
        txn.clear(Table.BASES)
        for _, base in needs:
            txn.put(Table.BASES, base, b"")
        txn.commit()
    except BaseException:
        txn.abort()
        raise


def _compact(path: Path) -> bool:
    """Whether the file was replaced by a compacted copy. Others that have it open would go on with the old one."""
    with contextlib.closing(Database(path)) as database:
        copy = path.with_name(path.name + ".new")
        copy.unlink(missing_ok=True)
        try:
            database.copy(copy)
        except DiffKeeperError:
            copy.unlink(missing_ok=True)  # no room for a copy: the trace is as it should be, only not smaller
            return False
    return files.replace(path, copy)
