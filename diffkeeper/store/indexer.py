"""The journal to its end: transactions, the cursor, and what is left after a crash.

Owns TRACE/lock (an exclusive flock: one process indexes), the META entries `cursor` and
`progress`, and the deletion of segments that are indexed. One transaction moves the derived data
and the cursor, so whatever kills the process, the next run goes on where the last commit was.

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

from ..errors import DiffKeeperError, TraceDamagedError
from ..journal import Cursor, JournalReader, segment_path, segments
from ..model import Session
from . import session
from .codec import pack_value, unpack_value
from .db import DATA_FILE, Database, Table, Txn
from .replay import Replay
from .timeline import Progress

LOCK = "lock"
JOURNAL = "journal"
COMMIT_BYTES = 64 << 20
COMMIT_SECONDS = 2.0
POLL_SECONDS = 0.1
LOCK_ATTEMPTS = 10
_CURSOR, _PROGRESS = b"cursor", b"progress"


def index(
    trace_dir: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    wait: Callable[[], bool] | None = None,
) -> None:
    """Index the journal of a trace to its end.

    `progress` is told bytes done and bytes there are. `wait` is called at the end of the journal: it sleeps,
    and says whether to look again; False ends after one more look. Raises TraceDamagedError,
    NotATraceError, TraceTooNewError, and DiffKeeperError when another process is indexing.
    """
    facts = session.read_facts(trace_dir)
    with locked(trace_dir), contextlib.closing(Database(trace_dir / DATA_FILE, write=True)) as database:
        _Indexer(trace_dir, database, facts, progress).run(wait)


def unfinished(trace_dir: Path) -> bool:
    """Whether there is something to index and nobody is at it, as after the recorder was killed."""
    try:
        with locked(trace_dir):
            numbers = segments(trace_dir / JOURNAL)
            if not (trace_dir / DATA_FILE).exists():
                return True
            with contextlib.closing(Database(trace_dir / DATA_FILE)) as database, database.reading() as txn:
                cursor = _cursor(txn)
            if not numbers or numbers[-1] < cursor.segment:
                return False
            if numbers[-1] > cursor.segment:
                return True
            return next(JournalReader(trace_dir / JOURNAL, cursor).frames(), None) is not None
    except (DiffKeeperError, OSError):
        return False


@contextlib.contextmanager
def locked(trace_dir: Path) -> Iterator[None]:
    """While this is held nobody else indexes the trace. Raises DiffKeeperError where somebody does."""
    try:
        fd = os.open(trace_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DiffKeeperError(f"cannot index {trace_dir}: {error.strerror}; open it as its owner") from error
    try:
        for _ in range(LOCK_ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(POLL_SECONDS)  # it may be held for a moment only, by `unfinished`
        else:
            raise DiffKeeperError(f"{trace_dir} is being indexed by another process: wait for it to finish")
        yield
    finally:
        os.close(fd)


def _cursor(txn: Txn) -> Cursor:
    data = txn.get(Table.META, _CURSOR)
    return Cursor() if data is None else Cursor(*unpack_value(data, tuple[int, int]))


class _Indexer:
    def __init__(
        self, trace_dir: Path, database: Database, facts: Session, progress: Callable[[int, int], None] | None
    ) -> None:
        self._journal = trace_dir / JOURNAL
        self._database = database
        self._report = progress
        with database.reading() as txn:
            saved = txn.get(Table.META, _PROGRESS)
            state = Progress() if saved is None else unpack_value(saved, Progress)
            self._replay = Replay(session.load(txn) or facts, state)
            self._reader = JournalReader(self._journal, _cursor(txn))
        self._committed = time.monotonic()
        self._since = 0  # bytes of journal since the last commit
        self._done = 0

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
        for payload, _ in self._reader.frames():
            try:
                self._replay.span(payload)
            except (OverflowError, struct.error, UnicodeError) as error:
                raise TraceDamagedError(f"damaged journal: a number does not fit ({error})") from error
            self._since += len(payload)
            self._done += len(payload)
            if self._since >= COMMIT_BYTES or time.monotonic() - self._committed > COMMIT_SECONDS:
                self._commit()

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
        for number in segments(self._journal):
            if number < before:
                with contextlib.suppress(OSError):  # it will be tried again after the next commit
                    segment_path(self._journal, number).unlink()


def main(arguments: list[str]) -> int:
    """Beside a recording: tail the journal. The recorder closes our stdin when it has written all."""
    if len(arguments) != 1:
        print("usage: python -m diffkeeper.store.indexer TRACE", file=sys.stderr)
        return 2

    def wait() -> bool:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        return not (ready and not os.read(0, 4096))

    try:
        index(Path(arguments[0]), wait=wait)
    except DiffKeeperError as error:
        print(f"diffkeeper: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
