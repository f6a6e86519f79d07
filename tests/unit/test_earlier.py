"""Which files are as they were in the recording that is replaced, and what is kept of that recording."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from diffkeeper.model import Fidelity, Op
from diffkeeper.record import earlier, scope
from diffkeeper.store import patches
from diffkeeper.store.db import Database
from diffkeeper.store.earlier import DIRECTORY, MISSING
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.indexer import CUT_OFF, DAMAGED
from diffkeeper.store.reader import open_reader
from diffkeeper.store.session import FACTS_FILE
from diffkeeper.wire import Flag, Inode, WireOp
from tests.builder import TraceBuilder

from .reading import content

LONG_AGO = 10**9


def status(size: int = 5, mtime: int = LONG_AGO, ctime: int = LONG_AGO) -> os.stat_result:
    """What stat() would say of a file with these."""
    return os.stat_result(
        (0o100644, 1, 1, 1, 0, 0, size, 0, 0, 0),
        {"st_mtime_ns": mtime, "st_ctime_ns": ctime},
    )


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> earlier.Earlier:
    """Beside a recording that saw /disk/file and /memory/file, long after they were changed."""
    monkeypatch.setattr(scope, "mounts", lambda: [(1, b"/", "ext4"), (2, b"/memory", "tmpfs")])
    before = earlier.Earlier(tmp_path)
    for path in (b"/disk/file", b"/memory/file"):
        before.remember(path, status(), b"xattrs")
    before.write()
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / earlier.BOOK).rename(tmp_path / DIRECTORY / earlier.BOOK)
    return earlier.Earlier(tmp_path)


def test_a_file_with_the_same_times_and_size_is_as_it_was(known: earlier.Earlier) -> None:
    """What was noted of it comes back, and it is counted."""
    assert known.recall(b"/disk/file", status()) == b"xattrs"
    assert known.same == 1


@pytest.mark.parametrize(
    ("path", "now"),
    [
        (b"/disk/other", status()),
        (b"/disk/file", status(size=6)),
        (b"/disk/file", status(mtime=LONG_AGO + 1)),
        (b"/disk/file", status(ctime=LONG_AGO + 1)),
        (b"/memory/file", status()),
    ],
    ids=["unknown", "size", "mtime", "ctime", "filesystem without times for mapped pages"],
)
def test_a_file_that_may_have_changed_is_read(known: earlier.Earlier, path: bytes, now: os.stat_result) -> None:
    """Any difference will do, and so will a filesystem that does not tell of stores to memory."""
    assert known.recall(path, now) is None
    assert known.same == 0


def test_a_file_that_was_changed_shortly_before_it_was_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of it could still be dirty then, and stores to it leave no trace in its times."""
    monkeypatch.setattr(scope, "mounts", lambda: [(1, b"/", "ext4")])
    recently = status(ctime=time.time_ns() - earlier.longest_dirty() // 2)
    (tmp_path / DIRECTORY).mkdir()
    before = earlier.Earlier(tmp_path)
    before.remember(b"/file", recently, b"")
    before.write()
    (tmp_path / earlier.BOOK).rename(tmp_path / DIRECTORY / earlier.BOOK)
    assert earlier.Earlier(tmp_path).recall(b"/file", recently) is None


@pytest.mark.parametrize("book", [None, b"", b"\xc1", b"\x92\x01\x81\xc4\x01a\x91\x01"], ids=repr)
def test_a_trace_without_a_readable_book_is_not_kept(tmp_path: Path, book: bytes | None) -> None:
    """Then all of it goes, whatever it held."""
    trace = TraceBuilder(tmp_path / "trace")
    trace.begin()
    trace.end()
    trace.build()
    (trace.path / "more").mkdir()
    (trace.path / "link").symlink_to(tmp_path)
    if book is not None:
        (trace.path / earlier.BOOK).write_bytes(book)
    earlier.put_aside(trace.path)
    assert not list(trace.path.iterdir())


def book_of(trace: Path) -> None:
    """As a recorder leaves one that saw a file."""
    noted = earlier.Earlier(trace)
    noted.remember(b"/opt/root/file", status(), b"")
    noted.write()


@pytest.mark.parametrize("lost", [None, CUT_OFF, DAMAGED, MISSING])
def test_a_trace_that_may_lack_content_is_not_kept(tmp_path: Path, lost: bytes | None) -> None:
    """Whose recorder was killed before all was indexed, whose journal was damaged, or that lacks content itself."""
    trace = TraceBuilder(tmp_path / "trace")
    trace.baseline({"file": b"12345"})
    trace.begin()
    if lost:
        trace.gap(1, lost.decode())
        trace.end()
    trace.build()
    book_of(trace.path)
    earlier.put_aside(trace.path)
    assert not list(trace.path.iterdir())


def test_a_whole_trace_is_kept(tmp_path: Path) -> None:
    """Its facts, its index and its book; nothing else."""
    trace = TraceBuilder(tmp_path / "trace")
    trace.baseline({"file": b"12345"})
    trace.begin()
    trace.end()
    trace.build()
    book_of(trace.path)
    earlier.put_aside(trace.path)
    assert [path.name for path in trace.path.iterdir()] == [DIRECTORY]
    assert {path.name for path in (trace.path / DIRECTORY).iterdir()} == {earlier.BOOK, DATA_FILE, FACTS_FILE}


def test_content_that_is_not_there_any_more_is_said_to_be_unknown(tmp_path: Path) -> None:
    """A file whose content the replaced recording was to give, and cannot: its fidelity and a gap say so."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline()
    inode = Inode(ino=7, dev=1, gen=0, size=5, mtime=1, ctime=1, mode=0o100644, uid=0, gid=0, nlink=1, rdev=0)
    builder.emit(WireOp.SNAPSHOT, offset=99, inodes=(inode,), payload=b"/opt/root/file\0\0")
    builder.emit(WireOp.SAME, length=99, payload=b"/opt/root/file")
    builder.begin()
    builder.end()
    with open_reader(builder.build()) as reader:
        node = reader.resolve(b"/opt/root/file", reader.last_seq)
        assert node is not None
        attrs = reader.attrs(node, reader.last_seq)
        assert attrs is not None
        assert attrs.fidelity == Fidelity.UNKNOWN
        assert [event.detail for event in reader.events() if event.op == Op.GAP] == ["content of the recording before"]


def fidelity(trace: Path) -> Fidelity | None:
    """Of the file, before the command."""
    with open_reader(trace) as reader:
        attrs = reader.attrs(reader.resolve(b"/opt/root/file", 0) or 0, 0)
        return attrs.fidelity if attrs else None


def test_content_that_was_not_there_before_either_is_unknown(tmp_path: Path) -> None:
    """What could not be read is unknown, and does not become bytes by being recorded once more."""
    first = TraceBuilder(tmp_path / "trace" / DIRECTORY)
    first.baseline({"file": b"12345", "other": b""})
    first.emit(WireOp.CONTENT, flags=Flag.INEXACT, length=1)
    first.begin()
    first.end()
    (tmp_path / "trace").mkdir()
    assert fidelity(first.build()) == Fidelity.UNKNOWN
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"file": b"12345"})
    builder.emit(WireOp.SAME, length=1, payload=b"/opt/root/file")
    builder.begin()
    builder.end()
    assert fidelity(builder.build()) == Fidelity.UNKNOWN


def test_content_comes_from_the_replaced_recording(tmp_path: Path) -> None:
    """As it was before that recording's command, whatever that did to it; then what was put aside goes."""
    first = TraceBuilder(tmp_path / "trace" / DIRECTORY)
    large = os.urandom(3 << 20)
    first.baseline({"file": b"12345", "large": large})
    first.begin()
    first.write("file", b"changed")
    first.end()
    (tmp_path / "trace").mkdir()
    first.build()
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline()
    for handle, name, size in ((98, b"file", 5), (99, b"large", len(large))):
        inode = Inode(
            ino=handle, dev=1, gen=0, size=size, mtime=1, ctime=1, mode=0o100644, uid=0, gid=0, nlink=1, rdev=0
        )  # fmt: skip
        builder.emit(WireOp.SNAPSHOT, offset=handle, inodes=(inode,), payload=b"/opt/root/" + name + b"\0\0")
        builder.emit(WireOp.SAME, length=handle, payload=b"/opt/root/" + name)
    builder.begin()
    builder.end()
    with open_reader(builder.build()) as reader:
        for name, data in ((b"file", b"12345"), (b"large", large)):
            node = reader.resolve(b"/opt/root/" + name, 0)
            assert node is not None
            assert b"".join(reader.chunks(node, 0)) == data
    assert not (tmp_path / "trace" / DIRECTORY).exists()


def test_whatever_way_it_is_stored_there(tmp_path: Path) -> None:
    """As bytes beside others, as a blob, as a patch on one, as several: all is as it was, and can be written to."""
    noise = os.urandom(50_000)
    files = {
        "inline": b"12345", "noise": noise, "text": b"the same line\n" * 4_000, "twin": noise,
        "patched": noise[:-1] + b"!", "base": noise, "large": os.urandom(5 << 20), "zeroes": bytes(100_000),
    }  # fmt: skip
    first = TraceBuilder(tmp_path / "trace" / DIRECTORY)
    first.baseline(files)
    first.begin()
    first.rename("patched", "base")
    for name in ("noise", "large"):
        first.write(name, b"changed")
    first.end()
    (tmp_path / "trace").mkdir()
    with contextlib.closing(Database(first.build() / DATA_FILE)) as store, store.reading() as txn:
        patch = patches.load(txn, patches.digest_of(files["patched"]))
        assert patch.base == patches.digest_of(noise)

    builder = TraceBuilder(tmp_path / "trace")
    builder.same = True
    builder.baseline(files)
    builder.begin()
    builder.write("noise", b"more", offset=50_000)
    builder.write("text", b"THE", offset=14)
    builder.truncate("patched", 3)
    builder.rename("twin", "zeroes")
    builder.write("large", b"into the middle", offset=1 << 20)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert not reader.session.lost
        for name, data in files.items():
            assert content(reader, name, 0) == data
        for name in files.keys() - {"twin"}:
            assert content(reader, name) == bytes(builder.node(name).data), name
        assert not list(reader.problems())
