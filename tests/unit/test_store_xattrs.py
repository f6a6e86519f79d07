"""Extended attributes: every moment has them all, whatever their sizes, and a long value costs its bytes once."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from diffkeeper.errors import TraceDamagedError
from diffkeeper.model import Attrs
from diffkeeper.store.db import Database, Txn
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.names import U64
from diffkeeper.store.reader import Reader, open_reader
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder, packed_attrs

LONG = 65_536


def attrs_of(reader: Reader, path: bytes, seq: int) -> Attrs:
    node = reader.resolve(b"/opt/root/" + path, seq)
    assert node is not None
    attrs = reader.attrs(node, seq)
    assert attrs is not None
    return attrs


def test_many_long_values(tmp_path: Path) -> None:
    """200 values of 64 KiB, and a chmod between any two: the index holds each value once, and every moment all."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": {"content": b"x", "xattrs": {b"user.before": b"b" * LONG}}})
    builder.begin()
    expected = {b"user.before": b"b" * LONG}
    seen = []
    for number in range(200):
        name, value = b"user.%d" % (number % 50), random.Random(number).randbytes(LONG if number % 3 else number)
        seq = builder.setxattr("f", name, value)
        expected[name] = value
        seen.append((seq, dict(expected)))
        builder.chmod("f", 0o600 + number % 8)
    path = builder.build()
    assert (path / DATA_FILE).stat().st_size < 1.5 * 134 * LONG
    with open_reader(path) as reader:
        assert list(reader.problems()) == []
        assert attrs_of(reader, b"f", 0).xattrs == {b"user.before": b"b" * LONG}
        for seq, values in seen[::7]:
            assert attrs_of(reader, b"f", seq).xattrs == values
            assert attrs_of(reader, b"f", seq + 1).xattrs == values


def test_very_many_values(tmp_path: Path) -> None:
    """3,000 short values of one file, each set twice and some removed: the index grows with the changes."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": b"x"})
    builder.begin()
    expected, middle = dict[bytes, bytes](), dict[bytes, bytes]()
    for number in range(6000):
        expected[b"user.%d" % (number % 3000)] = b"%d" % number
        builder.setxattr("f", b"user.%d" % (number % 3000), b"%d" % number)
        middle = middle or (dict(expected) if number == 4000 else {})
    for number in range(0, 3000, 3):
        del expected[b"user.%d" % number]
        builder.removexattr("f", b"user.%d" % number)
    path = builder.build()
    assert (path / DATA_FILE).stat().st_size < 7000 * 1000
    with open_reader(path) as reader:
        assert list(reader.problems()) == []
        assert attrs_of(reader, b"f", 4001).xattrs == middle
        assert attrs_of(reader, b"f", 7000).xattrs == expected


def test_values_that_are_found_anew(tmp_path: Path) -> None:
    """A file put right after the command has what was found, and nothing that it had before."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": {"content": b"x", "xattrs": {b"user.%d" % number: b"v" * 50 for number in range(50)}}})
    builder.begin()
    builder.setxattr("f", b"user.1", b"new")
    builder.heal("f", b"x", xattrs={b"user.2": b"found"})
    with open_reader(builder.build()) as reader:
        assert len(attrs_of(reader, b"f", 1).xattrs) == 50
        assert attrs_of(reader, b"f", 2).xattrs == {b"user.2": b"found"}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Txn]:
    database = Database(path / DATA_FILE, write=True)
    txn = database.begin()
    yield txn
    txn.commit()
    database.close()


def small(path: Path) -> tuple[Path, int]:
    """A trace of a file with a long value, and the file's node."""
    builder = TraceBuilder(path)
    builder.baseline({"f": {"content": b"x", "xattrs": {b"user.a": b"v" * LONG}}})
    builder.begin()
    builder.chmod("f", 0o600)
    path = builder.build()
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/f", 1)
        assert node is not None and attrs_of(reader, b"f", 1).xattrs == {b"user.a": b"v" * LONG}
    return path, node


def test_attributes_of_the_first_format(tmp_path: Path) -> None:
    """A trace in which all values stand among the attributes, and which lacks a table, reads the same."""
    path, node = small(tmp_path / "trace")
    with open_reader(path) as reader:
        attrs = attrs_of(reader, b"f", 1)
    with writing(path) as txn:
        for seq in (0, 1):
            txn.replace(Table.ATTRS, U64.pack(node) + U64.pack(seq), packed_attrs(attrs))
    with lmdb.open(str(path / DATA_FILE), subdir=False, max_dbs=32) as env:
        table = env.open_db(Table.XATTRS.value)
        with env.begin(write=True) as change:
            change.drop(table)
    with open_reader(path) as reader:
        assert attrs_of(reader, b"f", 1).xattrs == attrs.xattrs and list(reader.problems()) == []


def test_values_that_are_damaged(tmp_path: Path) -> None:
    """A missing blob, an entry that makes no sense, values without end: damage where it is met, and for `check`."""
    for number, damage in enumerate((b"\2" + bytes(32), b"\7", b"")):
        path, node = small(tmp_path / f"trace{number}")
        with writing(path) as txn:
            txn.replace(Table.XATTRS, U64.pack(node) + b"user.a\0" + U64.pack(0), damage)
        with open_reader(path) as reader:
            with pytest.raises(TraceDamagedError):
                attrs_of(reader, b"f", 1)
            assert list(reader.problems())
    path, node = small(tmp_path / "many")
    with writing(path) as txn:
        digest = next(digest for digest, _ in txn.scan(Table.BLOBS))
        for number in range(5000):
            txn.put(Table.XATTRS, U64.pack(node) + b"user.%d\0" % number + U64.pack(0), b"\2" + digest)
    with open_reader(path) as reader, pytest.raises(TraceDamagedError):
        attrs_of(reader, b"f", 1)


@pytest.mark.parametrize("when", ["never", "before", "later"])
def test_whether_there_are_any(tmp_path: Path, when: str) -> None:
    """Is known of the whole trace, also where they come after a commit, and only as long as it is said."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": {"content": b"x", "xattrs": {b"user.a": b"b"} if when == "before" else {}}})
    builder.begin()
    builder.chmod("f", 0o600)
    builder.build()
    if when == "later":
        builder.setxattr("f", b"user.a", b"b")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.has_xattrs() == (when != "never")
        assert not list(reader.problems())
    with contextlib.closing(Database(builder.path / DATA_FILE, write=True)) as database:
        txn = database.begin()
        txn.delete(Table.META, b"xattrs")  # as an older version would have left it
        txn.commit()
    with open_reader(builder.path) as reader:
        assert reader.has_xattrs()
