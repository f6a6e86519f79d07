"""What is written to nodes now, and when it becomes blocks.

Owns the rows and bytes not stored yet, and the choices: how much goes into a block, when a
keyframe is due, which rewrites of a whole file become patches. The layout of a block belongs to
`content`.
"""

from __future__ import annotations

from array import array

from ..arrays import np
from . import assembly, content, differing, packing, patches
from .codec import Column, pack_rows, wrapped
from .content import (
    CUT,
    GROW,
    INLINE,
    INLINE_LIMIT,
    JOIN_BYTES,
    JOIN_ROWS,
    KEYFRAME,
    RESET,
    ROW,
    SORTED,
    WRITE,
    ZERO,
)
from .db import Txn
from .names import U64
from .patches import StoredBlob
from .runs import Run
from .state import NodeState, Pending
from .tables import Table

BLOCK_BYTES = 4 << 20
BLOCK_ROWS = 65536
PENDING_LIMIT = 32 << 20
KEYFRAME_LEAST = 1 << 18
ROW_COST = 64  # bytes of memory of a row; also what replaying one is worth, for keyframes


class ContentWriter:
    """Takes writes in order, node by node. `txn` is the batch of the moment."""

    def __init__(self, choice: differing.Choice) -> None:
        self.txn: Txn
        self.blobs = patches.BlobReader(16 << 20)
        self.reader = assembly.ContentReader(self.blobs)
        self._patcher = patches.Patcher(self.blobs, choice)
        self._waiting: dict[int, NodeState] = {}
        self._held = 0

    def notes(self) -> list[str]:
        """What the user must be told: which differs failed."""
        return self._patcher.notes()

    def write(self, state: NodeState, seq: int, offset: int, data: bytes | memoryview, kind: int = WRITE) -> None:
        """Bytes at an offset. The node's times are already those after the call."""
        size = len(data)
        seq = max(seq, state.version)  # bytes that come late count from the last change on
        pending = self._room(state, size)
        pending.rows.extend((seq, kind, offset, size, state.mtime, wrapped(state.ctime - state.mtime)))
        pending.payload += data
        self._held += size + ROW_COST
        state.since += size if offset == state.size else size + ROW_COST
        state.size = max(state.size, offset + size)
        state.version = seq
        if self._held > PENDING_LIMIT:
            self.flush_all()

    def write_run(self, state: NodeState, seqs: Column, run: Run) -> None:
        """`write` for a run on one file."""
        at = 0
        while at < len(run):
            pending = self._room(state, int(run.sizes[at]))
            most, room = BLOCK_ROWS - len(pending.rows) // ROW, BLOCK_BYTES - len(pending.payload)
            fit = int(np.searchsorted(np.cumsum(run.sizes[at : at + most]), room, "right"))
            rows = slice(at, at + max(fit, 1))  # one that is larger than a block gets its own
            self._part(state, pending, seqs[rows], run.part(rows))
            at = rows.stop
            if self._held > PENDING_LIMIT:
                self.flush_all()

    def _part(self, state: NodeState, pending: Pending, seqs: Column, run: Run) -> None:
        columns = (seqs, WRITE, run.offsets, run.sizes, run.mtimes, run.ctimes - run.mtimes)
        pending.rows.frombytes(pack_rows(len(run), *columns))
        pending.payload += run.payload()
        before = np.maximum.accumulate(np.concatenate(([state.size], run.offsets + run.sizes)))
        size = int(run.sizes.sum())
        self._held += size + len(run) * ROW_COST
        state.since += size + int(np.count_nonzero(run.offsets != before[:-1])) * ROW_COST
        state.size, state.version = int(before[-1]), int(seqs[-1])

    def grow(self, state: NodeState, seq: int, offset: int, length: int) -> None:
        """Bytes changed that nobody saw."""
        if length:
            self._range(state, seq, GROW, offset, length)
        else:  # only times did
            self.cut(state, seq, state.size)

    def zero(self, state: NodeState, seq: int, offset: int, length: int) -> None:
        """Zeroes from now on, whatever was there."""
        self._range(state, seq, ZERO, offset, length)
        state.since += ROW_COST

    def _range(self, state: NodeState, seq: int, kind: int, offset: int, length: int) -> None:
        seq = max(seq, state.version)
        pending = self._room(state)
        pending.rows.extend((seq, kind, offset, length, state.mtime, wrapped(state.ctime - state.mtime)))
        self._held += ROW_COST
        state.size, state.version = max(state.size, offset + length), seq

    def cut(self, state: NodeState, seq: int, size: int) -> None:
        """The size becomes `size`. Cut to nothing, a node starts anew."""
        if size == 0 and (state.size or state.pending or state.block_first >= 0):
            self.flush(state)
            state.prior = state.full or state.prior
            state.full = b""
            state.since = 0
            state.size = 0
            self._begin(state, reset=True)
        pending = self._room(state)
        pending.rows.extend((seq, CUT, size, 0, state.mtime, wrapped(state.ctime - state.mtime)))
        self._held += ROW_COST
        state.size, state.version = size, seq

    def _room(self, state: NodeState, size: int = 0) -> Pending:
        """What is pending on a node, with room for another row and `size` bytes."""
        pending = state.pending
        if pending is None or len(pending.payload) + size > BLOCK_BYTES or len(pending.rows) >= BLOCK_ROWS * ROW:
            return self._begin(state)
        return pending

    def _begin(self, state: NodeState, *, reset: bool = False) -> Pending:
        self.flush(state)
        state.pending = Pending(state.size, reset)
        state.dirty = True
        self._waiting[state.node] = state
        return state.pending

    def flush_all(self) -> None:
        for state in list(self._waiting.values()):
            self.flush(state)

    def flush(self, state: NodeState, base: bytes = b"") -> None:
        """Make a block of what is pending on a node, and a keyframe if one is due.

        `base`: the blob that it is likely a version of, where the node itself had none before.
        """
        pending = self._taken(state)
        if pending is None or not pending.rows:
            return
        rows, payload, before = pending.rows, bytes(pending.payload), pending.before
        flags = RESET if pending.reset else 0
        whole = _is_whole(rows, state.size)
        base = (state.full or state.prior or base) if whole else b""
        if not whole and not flags and len(payload) <= JOIN_BYTES:
            rows, payload, before, flags = self._joined(state, rows, payload, before)
        inline = INLINE_LIMIT if whole else JOIN_BYTES
        digest = self._block(state, rows, flags, (before, state.size), payload, base, inline)
        state.full = digest if whole else b""
        if state.since > 2 * max(state.size, KEYFRAME_LEAST):
            self._keyframe(state, (rows[-2], rows[-1]))

    def _joined(
        self, state: NodeState, rows: array[int], payload: bytes, before: int
    ) -> tuple[array[int], bytes, int, int]:
        """Rows, bytes, size before them and flags, with those of the last blocks where these are no more than twice as
        many: so there are few blocks, however often is committed, and each row is written again a few times.
        """
        flags = 0
        while state.block_first >= 0 and not flags & RESET:
            key = content.block_key(state.node, state.block_first, state.block_part)
            value = self.txn.get(Table.CONTENT, key)
            if value is None:
                break
            ref = content.decode_ref(key, value)
            head, count = ref.head, len(rows) // ROW
            joins = (
                head.flags & INLINE and not head.flags & KEYFRAME and head.rows <= 2 * count
                and head.rows + count <= JOIN_ROWS and head.payload + len(payload) <= JOIN_BYTES
            )  # fmt: skip
            if not joins:
                break
            block = content.decode(ref, value)
            rows, payload = block.table() + rows, block.payload.inline + payload
            before, flags = head.before, head.flags & RESET
            self.txn.delete(Table.CONTENT, key)
            found = self.txn.floor(Table.CONTENT, U64.pack(state.node), key)
            earlier = content.decode_ref(*found) if found is not None else None
            state.block_first, state.block_part = (earlier.first, earlier.part) if earlier else (-1, 0)
        return rows, payload, before, flags

    def adopt(self, state: NodeState, seq: int, blob: StoredBlob) -> None:
        """`write` of all that a file holds, where another store has it as a blob: nobody looks at the bytes."""
        if state.pending is None or state.pending.payload:
            self._begin(state)
        pending = self._taken(state)
        assert pending is not None
        rows, seq = pending.rows, max(seq, state.version)
        rows.extend((seq, WRITE, 0, blob.size, state.mtime, wrapped(state.ctime - state.mtime)))
        state.since += blob.size
        state.size, state.version = max(state.size, blob.size), seq
        patches.adopt(self.txn, blob)
        self._put(state, rows, RESET if pending.reset else 0, (pending.before, state.size), blob.size, [blob.digest])
        state.full = blob.digest if _is_whole(rows, state.size) else b""

    def _taken(self, state: NodeState) -> Pending | None:
        """What is pending on a node, which then is no more."""
        pending, state.pending = state.pending, None
        if pending is not None:
            del self._waiting[state.node]
            self._held -= len(pending.payload) + len(pending.rows) // ROW * ROW_COST
        return pending

    def replaced(self, state: NodeState, by: NodeState) -> None:
        """`by` takes the name of `state`: write-new-and-rename, so the one is likely a version of the other."""
        self.flush(state)
        base = state.full or state.prior
        if by.pending is not None:
            self.flush(by, base)
        elif base and by.full:
            self._patcher.reencode(self.txn, by.full, base)

    def _block(
        self, state: NodeState, rows: array[int], flags: int, sizes: tuple[int, int], payload: bytes, base: bytes = b"",
        inline: int = INLINE_LIMIT,
    ) -> bytes:  # fmt: skip
        """Returns the digest of the payload, if it is one blob. `base`: as of `flush`; only for a whole file.

        `inline`: up to so many bytes lie in the block itself.
        """
        pieces = packing.arranged(rows, payload)
        flags |= SORTED if pieces else 0
        pieces = pieces or [payload]
        where: list[bytes] | bytes
        if len(payload) <= inline:
            where = payload
        elif base:
            where = [self._patcher.put(self.txn, payload, base)]
        else:
            where = [patches.put(self.txn, piece) for piece in pieces]
        self._put(state, rows, flags, sizes, len(payload), where)
        return where[0] if isinstance(where, list) and len(where) == 1 else b""

    def _put(
        self, state: NodeState, rows: array[int], flags: int, sizes: tuple[int, int], size: int,
        where: list[bytes] | bytes,
    ) -> None:  # fmt: skip
        """Store a block, and note which was the last. As of `packing.encode`."""
        first = rows[0]
        state.block_part = state.block_part + 1 if first == state.block_first else 0
        state.block_first = first
        state.dirty = True
        key = content.block_key(state.node, first, state.block_part)
        self.txn.put(Table.CONTENT, key, packing.encode(rows, flags, *sizes, size, where))

    def _keyframe(self, state: NodeState, times: tuple[int, int]) -> None:
        """Say again all that a node holds, so that no read goes back further. `times`: of its last row."""
        self.reader.forget()
        seq, size = state.version, state.size
        before_it = self.reader.state(self.txn, state.node, seq)  # later reads would find the keyframe's own beginning
        rows = array("q", (seq, CUT, size, 0, *times))
        parts: list[bytes] = []
        flags, before, held = RESET | KEYFRAME, 0, 0
        window, begins = b"", 0
        for offset, length in self.reader.extents(self.txn, state.node, seq):
            for start in range(offset, offset + length, BLOCK_BYTES):
                stop = min(start + BLOCK_BYTES, offset + length)
                if not begins <= start <= stop <= begins + len(window):
                    window, begins = self.reader.read(self.txn, state.node, seq, start, BLOCK_BYTES, before_it), start
                data = window[start - begins : stop - begins]
                if held + len(data) > BLOCK_BYTES:
                    self._block(state, rows, flags, (before, size), b"".join(parts))
                    rows, parts, held, flags, before = array("q"), [], 0, KEYFRAME, size
                rows.extend((seq, WRITE, start, len(data), *times))
                parts.append(data)
                held += len(data)
        self._block(state, rows, flags, (before, size), b"".join(parts))
        state.since = 0


def _is_whole(rows: array[int], size: int) -> bool:
    """Whether the payload is all the file holds: writes that follow on each other from its beginning to its end."""
    end = 0
    for at in range(ROW if rows[1] == CUT else 0, len(rows), ROW):
        if rows[at + 1] != WRITE or rows[at + 2] != end:
            return False
        end += rows[at + 3]
    return end == size
