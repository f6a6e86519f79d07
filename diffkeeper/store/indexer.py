"""The journal to its end: transactions, the cursor, and what is left after a crash.

Owns TRACE/lock (an exclusive flock: one process indexes), the META entries `cursor` and
`progress`, and the deletion of segments that are indexed. One transaction moves the derived data
and the cursor, so whatever kills the process, the next run goes on where the last commit was. What
of the journal cannot be read, or makes no sense, becomes a GAP event in its place.

    python -m diffkeeper.store.indexer TRACE     goes on until the recording ended and stdin is closed
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import structs

from ..errors import DiffKeeperError, PluginError, TraceDamagedError, TraceMissingError
from ..journal import JOURNAL, Cursor, JournalReader, is_written, segment_path, segments
from ..model import Session
from ..wire import WireOp, records, strings
from . import differing, session
from .codec import pack_value, unpack_value
from .db import Database, Txn
from .earlier import Earlier
from .files import DATA_FILE
from .nodes import is_under
from .replay import Replay
from .tables import Table
from .timeline import Progress

LOCK = "lock"
COMMIT_BYTES = 64 << 20
COMMIT_SECONDS = 2.0
POLL_SECONDS = 0.1
PAUSE_SECONDS = 0.02
LOCK_ATTEMPTS = 10
BAD_FRAMES = 64
MANY_ROOTS = 100
CUT_OFF, DAMAGED = b"journal cut off", b"journal damaged"
"""Causes of gaps: frames that were lost, and one that is whole and cannot be."""
_CURSOR, _PROGRESS = b"cursor", b"progress"


def index(
    trace_dir: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    wait: Callable[[], bool] | None = None,
    pause: Callable[[], None] | None = None,
    trusted: bool = False,
) -> None:
    """Index the journal of a trace to its end. `trusted`: this recording made what is indexed already.

    `pause` is called before each frame, and may take its time.

    `progress` is told bytes done and bytes there are. `wait` is called at the end of the journal: it sleeps,
    and says whether to look again; False ends after one more look. Raises TraceDamagedError when the index is
    damaged, NotATraceError, TraceTooNewError, and DiffKeeperError when another process is indexing.
    """
    facts = session.read_facts(trace_dir)
    if (trace_dir / JOURNAL).is_symlink():
        raise TraceDamagedError(f"damaged trace: {trace_dir / JOURNAL} is a link: copy the trace again")
    if session.damage(trace_dir):
        facts = structs.replace(facts, roots=_roots_told(trace_dir / JOURNAL) or facts.roots)
    else:
        with contextlib.suppress(OSError):
            session.sync_facts(trace_dir)  # by us, for whom nobody waits
    if wait is not None:  # nobody waits for us yet; when the first file has been rewritten somebody will
        with contextlib.suppress(PluginError):
            differing.check(differing.Choice(*facts.differ))
    with locked(trace_dir), contextlib.closing(
        Database(trace_dir / DATA_FILE, write=True, trusted=trusted)
    ) as database:
        leave_out, why = None, ""
        for _ in range(BAD_FRAMES):
            try:
                _Indexer(trace_dir, database, facts, progress, leave_out, pause).run(wait)
                return
            except _BadFrame as bad:  # some of it may have been applied: once more from the last commit, without it
                leave_out, why = bad.end, str(bad)
        raise TraceDamagedError(f"damaged journal: {why}; so are {BAD_FRAMES - 1} places before it")


def _roots_told(journal: Path) -> tuple[bytes, ...]:
    """The roots, from what was found under them before the command began: nothing of it is above another."""
    roots: list[bytes] = []
    with contextlib.suppress(TraceDamagedError):
        for payload, _ in JournalReader(journal).frames():
            for record in records(payload):
                if record.op == WireOp.BEGIN or len(roots) == MANY_ROOTS:
                    return tuple(roots)
                if record.op == WireOp.SNAPSHOT:
                    path = strings(record.payload, 1)[0]
                    if path.startswith(b"/") and not any(is_under(path, root) for root in roots):
                        roots.append(path)
    return tuple(roots)


def unfinished(trace_dir: Path, *, attempts: int = LOCK_ATTEMPTS) -> bool:
    """Whether there is something to index and nobody is at it, as after the recorder was killed.

    `attempts`: as of `locked`, where somebody certainly is.
    """
    try:
        with locked(trace_dir, attempts):
            numbers = segments(trace_dir / JOURNAL)
            try:
                with contextlib.closing(Database(trace_dir / DATA_FILE)) as database, database.reading() as txn:
                    cursor, saved = _cursor(txn), txn.get(Table.META, _PROGRESS)
                    if saved is None:
                        return True  # tables, and nothing in them: not even what is known when nothing happened
                    state = unpack_value(saved, Progress)
                    awaits = bool(state.writes or state.fills)
            except TraceMissingError:
                return True
            if not numbers or numbers[-1] < cursor.segment:
                return False
            if numbers[-1] > cursor.segment:
                return True
            reader = JournalReader(trace_dir / JOURNAL, cursor)
            more = next(reader.frames(), None) is not None
            return more or ((awaits or reader.rest() > 0) and not is_written(trace_dir / JOURNAL))
    except (DiffKeeperError, OSError):
        return False


@contextlib.contextmanager
def locked(trace_dir: Path, attempts: int = LOCK_ATTEMPTS) -> Iterator[None]:
    """While this is held nobody else indexes the trace. Raises DiffKeeperError where somebody does.

    `attempts` to get it, a tenth of a second after each.
    """
    try:
        fd = os.open(trace_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DiffKeeperError(f"cannot index {trace_dir}: {error.strerror}; open it as its owner") from error
    try:
        for attempt in range(attempts):
            if attempt:
                time.sleep(POLL_SECONDS)  # it may be held for a moment only, by `unfinished`
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        else:
            raise DiffKeeperError(f"{trace_dir} is being indexed by another process: wait for it to finish")
        yield
    finally:
        os.close(fd)


class _BadFrame(Exception):
    """A frame whose checksum is right and whose records make no sense. `end`: the cursor after it."""

    def __init__(self, end: Cursor, error: Exception) -> None:
        super().__init__(str(error))
        self.end = end


def _cursor(txn: Txn) -> Cursor:
    data = txn.get(Table.META, _CURSOR)
    return Cursor() if data is None else Cursor(*unpack_value(data, tuple[int, int]))


class _Indexer:
    def __init__(
        self,
        trace_dir: Path,
        database: Database,
        facts: Session,
        progress: Callable[[int, int], None] | None,
        leave_out: Cursor | None,
        pause: Callable[[], None] | None,
    ) -> None:
        """`leave_out`: the end of a frame that is not to be looked at."""
        self._leave_out = leave_out
        self._pause = pause
        self._journal = trace_dir / JOURNAL
        self._database = database
        self._report = progress
        with database.reading() as txn:
            saved = txn.get(Table.META, _PROGRESS)
            state = Progress() if saved is None else unpack_value(saved, Progress)
            self._earlier = Earlier(trace_dir)
            self._replay = Replay(session.load(txn) or facts, state, self._earlier)
            self._reader = JournalReader(self._journal, _cursor(txn))
        self._committed = time.monotonic()
        self._since = 0  # bytes of journal since the last commit
        self._done = 0
        self._torn = 0, 0  # what of the reader's losses is told

    def run(self, wait: Callable[[], bool] | None) -> None:
        self._txn = self._database.begin()
        try:
            self._replay.begin(self._txn)
            last = wait is None
            while True:
                self._drain()
                if last:
                    break
                if self._since and time.monotonic() - self._committed > COMMIT_SECONDS:
                    self._commit()
                last = wait is not None and not wait()
            self._finish()
        except BaseException:
            self._txn.abort()
            raise

    def _drain(self) -> None:
        """Index all frames there are by now."""
        for payload, end in self._reader.frames():
            if self._pause is not None:
                self._pause()
            self._tell_losses()
            if end == self._leave_out:
                self._replay.gap(DAMAGED)
            else:
                try:
                    self._replay.span(payload)
                except (TraceDamagedError, OverflowError, struct.error, UnicodeError) as error:
                    raise _BadFrame(end, error) from error
            self._since += len(payload)
            self._done += len(payload)
            if (
                self._since >= COMMIT_BYTES or end == self._leave_out
                or time.monotonic() - self._committed > COMMIT_SECONDS
            ):  # fmt: skip
                self._commit()
        self._tell_losses()

    def _tell_losses(self) -> None:
        losses = self._reader.torn, self._reader.missing
        if losses != self._torn:
            self._torn = losses
            self._replay.gap(CUT_OFF)

    def _commit(self) -> None:
        self._store()
        self._txn.commit()
        self._drop_segments(self._reader.cursor.segment)
        self._txn = self._database.begin()
        self._replay.begin(self._txn)

    def _store(self) -> None:
        totals = self._replay.finish(forget=False)
        session.save(self._txn, totals)
        self._txn.put(Table.META, _CURSOR, pack_value(tuple(self._reader.cursor)))
        self._txn.put(Table.META, _PROGRESS, pack_value(self._replay.progress))
        self._committed, self._since = time.monotonic(), 0
        if self._report is not None:
            self._report(self._done, self._done + self._left())

    def _finish(self) -> None:
        """The last commit. When the recording came to its end, nothing more is written to the journal: it can go."""
        if not is_written(self._journal):
            self._reader.pass_over()
            self._tell_losses()
            self._replay.data.give_up_waiting()
        current = self._reader.cursor.segment
        if self._replay.progress.ended and not self._left() and segment_path(self._journal, current).exists():
            self._reader.cursor = Cursor(current + 1)
        self._store()
        self._txn.commit()
        self._drop_segments(self._reader.cursor.segment)

    def _left(self) -> int:
        """Bytes of journal after the cursor."""
        total = 0
        for number in segments(self._journal):
            if number >= self._reader.cursor.segment:
                with contextlib.suppress(FileNotFoundError):
                    total += segment_path(self._journal, number).stat().st_size
        return max(0, total - self._reader.cursor.offset)

    def _drop_segments(self, before: int) -> None:
        """Those that are indexed; and with the baseline the recording that it took content from."""
        if self._replay.progress.begun and self._earlier.is_there:
            self._database.sync()
            self._earlier.drop()
        done = [number for number in segments(self._journal) if number < before]
        if done:
            self._database.sync()  # a power cut must not keep the deletion and lose the commit
            for number in done:
                path = segment_path(self._journal, number)
                with contextlib.suppress(OSError):  # it will be tried again after the next commit
                    if self._leave_out and self._leave_out.segment == number:
                        path.rename(path.with_suffix(".damaged"))  # somebody may understand it one day
                    else:
                        path.unlink()


def main(arguments: list[str], stands_back: Callable[[], bool] = lambda: False) -> int:
    """Beside a recording: tail the journal. The recorder closes our stdin when it has written all.

    While `stands_back` says so nothing is done: the command needs the processors.
    """
    if len(arguments) != 1:
        print("usage: python -m diffkeeper.store.indexer TRACE", file=sys.stderr)
        return 2

    def wait() -> bool:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        return not (ready and not os.read(0, 4096))

    def pause() -> None:
        while stands_back() and not select.select([0], [], [], PAUSE_SECONDS)[0]:
            continue

    try:
        index(Path(arguments[0]), wait=wait, pause=pause)
    except DiffKeeperError as error:
        print(f"diffkeeper: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
