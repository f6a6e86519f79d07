"""The LMDB environment: how it is opened, and transactions over it.

Owns the only import of lmdb and turns its errors into ours. LMDB believes what is in its file, so a
file is looked at first: by a reader the pages it can get to (`pages`), by a writer everything.
Which tables there are is in `tables`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lmdb
from lmdb import verify
from msgspec import Struct

from ..errors import DiffKeeperError, NotATraceError, TraceDamagedError, TraceMissingError
from . import files, pages, sound
from .tables import FOR_INDEXER, NOT_ALWAYS, Table

with contextlib.suppress(ImportError):  # of lmdb's own, when it opens a file; the indexer may not read modules any more
    importlib.import_module("lmdb._envid")

MAP_SIZES = (1 << 40, 1 << 36, 1 << 33)
"""Address space asked for, in order: the file is as large as its data, whatever the map."""

READERS = 1024
CHECKS = 20  # attempts to look at the pages of a transaction before a writer has gone on to others

END = b"\xff" * 32
"""Sorts after every suffix a key of ours may have."""


def _translated(error: lmdb.Error) -> DiffKeeperError:
    if isinstance(error, lmdb.MapFullError) or error.code in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return DiffKeeperError(f"cannot write the trace: {error}; free some space and open the trace to go on")
    if isinstance(error, lmdb.ReadersFullError):
        return DiffKeeperError("the trace is open in too many places: close some and try again")
    return TraceDamagedError(f"damaged trace: {error}")


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise _translated(error) from error


Around = tuple[bytes, bytes, bytes]
"""Key and value of an entry, and the key of the one after it."""


class Txn:
    """One transaction: a snapshot to read from, or the batch that is being written."""

    def __init__(
        self,
        txn: lmdb.Transaction[bytes],
        tables: dict[Table, lmdb._Database],
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._txn, self._tables, self._committed = txn, tables, committed
        self._cursors: dict[Table, lmdb.Cursor[bytes]] = {}

    def has(self, table: Table) -> bool:
        """Of a table that older traces lack."""
        return table in self._tables

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            return self._txn.get(key, db=self._tables[table])
        except lmdb.Error as error:
            raise _translated(error) from error

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        try:
            self._txn.put(key, value, db=self._tables[table])
        except lmdb.Error as error:
            raise _translated(error) from error

    def put_all(self, table: Table, entries: dict[bytes, bytes]) -> None:
        """`put` for many, in the order of their keys: a page is found once and not for each."""
        if entries:
            with _quick, self._txn.cursor(self._tables[table]) as cursor:
                cursor.putmulti(sorted(entries.items()))

    def replace(self, table: Table, key: bytes, value: bytes) -> None:
        """`put` for what may be there already, and longer: LMDB would keep the longer value's pages."""
        with _quick:
            self._txn.delete(key, db=self._tables[table])
            self._txn.put(key, value, db=self._tables[table])

    def delete(self, table: Table, key: bytes) -> None:
        with _quick:
            self._txn.delete(key, db=self._tables[table])

    def clear(self, table: Table) -> None:
        with _quick:
            self._txn.drop(self._tables[table], delete=False)

    def count(self, table: Table) -> int:
        with _quick:
            return self._txn.stat(self._tables[table])["entries"]

    def floor(self, table: Table, prefix: bytes, key: bytes) -> tuple[bytes, bytes] | None:
        """The last entry at or before `key` whose key begins with `prefix`."""
        try:  # as `_quick`, which costs as much as a seek: a tree asks for many
            cursor = self._cursor(table)
            beyond = cursor.set_range(key)
            found = (cursor.key() == key or cursor.prev()) if beyond else cursor.last()
            return cursor.item() if found and cursor.key().startswith(prefix) else None
        except lmdb.Error as error:
            raise _translated(error) from error

    def around(self, table: Table, limits: Sequence[bytes], prefix: int) -> list[Around]:
        """For each of `limits`: the last entry before it, and the key of the first at or after it.

        Of those whose keys begin with the first `prefix` bytes of the limit; where there is none, empty bytes.
        """
        found = []
        try:  # as `_quick`; many at once, as a directory has them, take half as long as one by one
            cursor = self._cursor(table)
            for limit in limits:
                if cursor.set_range(limit):
                    after = cursor.key()
                    cursor.prev()
                else:
                    after = b""
                    cursor.last()
                key, value = cursor.item()
                begin = limit[:prefix]
                if not key.startswith(begin):
                    key = value = b""
                found.append((key, value, after if after.startswith(begin) else b""))
        except lmdb.Error as error:
            raise _translated(error) from error
        return found

    def _cursor(self, table: Table) -> lmdb.Cursor[bytes]:
        """For one seek after the other: there is one for each table."""
        cursor = self._cursors.get(table)
        if cursor is None:
            cursor = self._cursors[table] = self._txn.cursor(self._tables[table])
        return cursor

    def last(self, table: Table, prefix: bytes = b"") -> tuple[bytes, bytes] | None:
        return self.floor(table, prefix, prefix + END)

    def scan(self, table: Table, prefix: bytes = b"", start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries from `start` (default: the first) on, while the key begins with `prefix`."""
        with _quick, self._txn.cursor(self._tables[table]) as cursor:
            found = cursor.set_range(prefix if start is None else start) if prefix or start else cursor.first()
            last = b""  # no key is empty
            while found:
                key = cursor.key()
                if not key.startswith(prefix):
                    return
                if key <= last:  # as in `names.children`
                    raise TraceDamagedError(f"damaged trace: entries of {table.name.lower()} are out of order")
                last = key
                yield key, cursor.value()
                found = cursor.next()

    def seek(self, table: Table) -> contextlib.AbstractContextManager[lmdb.Cursor[bytes]]:
        """A cursor, for readers that jump about. Use within `Database.reading`, which translates errors."""
        return self._txn.cursor(self._tables[table])

    def commit(self) -> None:
        with _quick:
            self._txn.commit()
            self._committed()

    def abort(self) -> None:
        self._txn.abort()


class _Quick:
    """`_ours` without a generator, for the many small calls."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, lmdb.Error):
            raise _translated(error) from error


_quick = _Quick()


class _Snapshot:
    """A transaction to read from; not a generator either."""

    def __init__(
        self, env: lmdb.Environment, tables: dict[Table, lmdb._Database], notice: Callable[[int], None] | None
    ) -> None:
        self._env, self._tables, self._notice = env, tables, notice

    def __enter__(self) -> Txn:
        with _quick:
            self._txn = self._env.begin()
            if self._notice is not None:
                self._notice(self._txn.id())
        return Txn(self._txn, self._tables)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._txn.abort()
        if isinstance(error, lmdb.Error):
            raise _translated(error) from error


class _Shared(Struct):
    env: lmdb.Environment
    writable: bool
    tables: dict[Table, lmdb._Database]
    users: int = 0


_open: dict[tuple[int, int, int], _Shared] = {}
_open_lock = threading.Lock()


class Database:
    """An open store. LMDB allows an environment once per process, so opens of one file share it."""

    def __init__(self, path: Path, *, write: bool = False, trusted: bool = False) -> None:
        """`path`: of the data file. Without `write` it must be there, and the indexer's own tables cannot be read.
        `trusted`: it was made on this machine just now, and need not be looked at before it is read or written to.

        Raises TraceMissingError (also for one that was killed before its first commit), NotATraceError,
        TraceDamagedError, DiffKeeperError.
        """
        self._path = path
        with _open_lock, _ours(), files.entrance(path.parent):
            shared = _open.get(_key(path))
            if shared is None:
                there = files.is_there(path)
                if not there and not write:
                    what = "an empty index" if path.exists() else "no index"
                    raise TraceMissingError(f"{path.parent} has {what}: nothing was recorded, or it is not a trace")
                if there and write and not trusted and (wrong := _structure(path)):
                    raise TraceDamagedError(f"damaged trace: {path} is not sound: {wrong[0]}; copy the trace again")
                env = _environment(path, write)
                try:
                    if not write and not trusted:
                        _check_pages(path, env)
                    shared = _Shared(env, write, _tables(path, env, write))
                except BaseException:
                    env.close()
                    raise
                _open[_key(path)] = shared
            elif write and not shared.writable:
                raise DiffKeeperError(f"{path.parent} is open for reading in this process: close it before indexing")
            shared.users += 1
            self._shared: _Shared | None = shared
            self._tables = shared.tables

    def reading(self, notice: Callable[[int], None] | None = None) -> contextlib.AbstractContextManager[Txn]:
        """A snapshot. Keep it short: while it lives, pages it can see are not reused.

        `notice` is told its number, which is another after each commit.
        """
        return _Snapshot(self._env, self._tables, notice)

    def begin(self) -> Txn:
        """The batch to write into; ends with its `commit` or `abort`. One at a time."""
        with _ours():
            return Txn(self._env.begin(write=True), self._tables, self._extend)

    def sync(self) -> None:
        """Return when what was committed would survive a power cut."""
        with _ours():
            self._env.sync(True)

    def _extend(self) -> None:
        """Make the file as long as LMDB counts: without free pages at its end it looks as if it were cut off."""
        wanted = _wanted_size(self._env)
        if os.stat(self._path).st_size < wanted:
            os.truncate(self._path, wanted)

    @property
    def _env(self) -> lmdb.Environment:
        if self._shared is None:
            raise DiffKeeperError("this trace is closed")
        return self._shared.env

    def structure(self) -> list[str]:
        """What is wrong with the file's pages, as an offline walk finds it. Nobody may be writing."""
        return _structure(self._path)

    def copy(self, path: Path) -> None:
        """Write all that is in use to a new file, which is then as small as it can be."""
        with _ours():
            self._env.copy(os.fspath(path), compact=True)
        wanted = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(wanted)
        finally:
            os.close(wanted)

    def close(self) -> None:
        with _open_lock:
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.users -= 1
            if shared.users == 0:
                for key in [key for key, value in _open.items() if value is shared]:
                    del _open[key]
                shared.env.close()


def _key(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return os.getpid(), 0, hash(path)
    return os.getpid(), found.st_dev, found.st_ino


def _wanted_size(env: lmdb.Environment) -> int:
    return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def _structure(path: Path) -> list[str]:
    try:
        # The one part of lmdb that has no types.
        return [str(found) for found in verify.verify(os.fspath(path), subdir=False)]  # type: ignore[no-untyped-call]
    except (verify.VerifyError, RecursionError) as error:
        return [str(error)]


def _check_pages(path: Path, env: lmdb.Environment) -> None:
    """Look at the pages of the last transaction while its snapshot keeps them from being written to."""
    names = frozenset(table.value for table in Table if table not in FOR_INDEXER)
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for _ in range(CHECKS):
            with env.begin() as txn:
                status = os.fstat(file)
                seen = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, txn.id()
                if sound.is_known(seen, status.st_uid):
                    return
                if pages.check(file, txn.id(), names):
                    sound.remember(seen, status.st_uid)
                    return
    finally:
        os.close(file)
    raise DiffKeeperError(f"{path} is being written too fast to be read: try again")


def _tables(path: Path, env: lmdb.Environment, write: bool) -> dict[Table, lmdb._Database]:
    found = {}
    for table in Table:
        if write or table not in FOR_INDEXER:
            try:
                found[table] = env.open_db(table.value, create=write)
            except lmdb.NotFoundError as error:
                if table not in NOT_ALWAYS:
                    why = "is no index, or not finished: it lacks a table"
                    raise TraceMissingError(f"damaged trace: {path} {why}") from error
            except lmdb.IncompatibleError as error:
                raise TraceDamagedError(f"damaged trace: {path} is no index: {error}") from error
    return found


def _environment(path: Path, write: bool) -> lmdb.Environment:
    locks = (True,) if write else (True, False)
    if not files.allocate_lock(path, READERS):
        if write:
            raise DiffKeeperError("cannot write the trace: no space left; free some space and open the trace to go on")
        locks = (False,)
    for size, lock in ((size, lock) for size in MAP_SIZES for lock in locks):
        try:
            return lmdb.open(
                os.fspath(path), subdir=False, map_size=size, max_dbs=len(Table), readonly=not write, create=write,
                mode=0o600, lock=lock, max_readers=READERS, readahead=False,
            )  # fmt: skip
        except (lmdb.MemoryError, MemoryError):
            continue  # the address space is limited: a smaller map
        except lmdb.InvalidError as error:
            raise TraceDamagedError(f"damaged trace: {path} is no index: copy the trace again") from error
        except lmdb.VersionMismatchError as error:
            raise NotATraceError(f"{path} was written by another LMDB: {error}") from error
        except lmdb.Error as error:
            # The lock file can be neither written nor made: read without. A writer at work is not expected there.
            if lock and not write and error.code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
                continue
            if error.code in (errno.EBADF, errno.EINVAL, errno.EISDIR):
                raise TraceDamagedError(f"damaged trace: {path} is no index: copy the trace again") from error
            if error.code in (errno.EACCES, errno.EPERM):
                raise DiffKeeperError(f"cannot open {path}: permission denied; open the trace as its owner") from error
            raise
    raise DiffKeeperError(f"cannot map {path} into memory: raise the limit on address space (ulimit -v)")
