"""What calls mean for a file: its content, its size and its attributes, case by case."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.model import Fidelity
from diffkeeper.mounts import Mount, Mounts
from diffkeeper.store.assembly import mark
from diffkeeper.store.reader import open_reader
from diffkeeper.wire import LATEST, TIME_NOW, TIME_OMIT, Flag, WireOp
from tests.builder import STALE, WALL, TraceBuilder
from tests.unit.reading import at, content, events


def test_a_call_in_pieces_is_one_event(builder: TraceBuilder) -> None:
    """The pieces of a large write have one seq, also when other calls come between them."""
    builder.create("a")
    seq = builder.write("a", b"0123456789" * 100, piece=300)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.last_seq == seq == 2
        assert reader.event(2).size == 1000
        assert content(reader, "a", 1) == b""
        assert content(reader, "a", 2) == b"0123456789" * 100
        assert at(reader, "a").version == 2


@pytest.mark.parametrize(("kind", "mode"), [(b"tmpfs", 0o755), (b"xfs", 0o4755)])
def test_an_empty_file_that_is_cut_to_nothing(builder: TraceBuilder, kind: bytes, mode: int) -> None:
    """An ordinary user's truncate(2) takes the set-user-id bit, but XFS leaves a file alone that is empty already."""
    builder.emit(WireOp.MOUNTS, payload=Mounts([Mount(1, b"/", b"/", kind)], []).packed())
    builder.create("empty")
    builder.chmod("empty", 0o4755)
    changed = builder.node("empty").ctime
    base = (builder._inode(builder.node("")),)
    builder.emit(WireOp.TRUNCATE, flags=Flag.PATH, inodes=base, payload=b"empty", offset=0, length=1000)
    builder.end()
    with open_reader(builder.build()) as reader:
        found = at(reader, "empty")
        assert stat.S_IMODE(found.mode) == mode
        assert found.ctime == changed


@pytest.mark.parametrize(("other", "mode"), [(0, 0o2644), (1, 0o644)])
def test_the_set_group_id_where_the_group_may_not_execute(builder: TraceBuilder, other: int, mode: int) -> None:
    """An ordinary user's truncate(2) takes that bit where the user is not in the group; btrfs gives it no stamp."""
    builder.create("empty")
    builder.chmod("empty", 0o6644)
    base, group = (builder._inode(builder.node("")),), builder.node("empty").gid + other
    length = 1000 | group << 32
    builder.emit(WireOp.TRUNCATE, flags=Flag.PATH, inodes=base, payload=b"empty", offset=0, length=length)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert stat.S_IMODE(at(reader, "empty").mode) == mode


@pytest.mark.parametrize(("kind", "kept"), [(b"ext4", False), (b"btrfs", True)])
def test_a_hole_punched_where_there_is_one(builder: TraceBuilder, kind: bytes, kept: bool) -> None:
    """A fallocate takes a capability away, but btrfs leaves a file alone where it has nothing to do."""
    builder.emit(WireOp.MOUNTS, payload=Mounts([Mount(1, b"/", b"/", kind)], []).packed())
    builder.create("file", b"data")
    builder.setxattr("file", b"security.capability", b"held")
    inode = builder._inode(builder.node("file"))
    builder.emit(WireOp.ZERO, inodes=(inode,), offset=1, length=2)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert (b"security.capability" in at(reader, "file").xattrs) is kept


def test_without_stamps_the_arguments_count(tmp_path: Path) -> None:
    """chmod, chown, utime (a time, NOW, OMIT) and new nodes have sensible attributes when no stamp came."""
    builder = TraceBuilder(tmp_path / "trace", stamps=False)
    builder.baseline({"f": {"content": b"x", "mode": 0o4755}})
    builder.begin()
    builder.exec("/bin/sh")
    base = (builder._inode(builder.node("")),)
    builder.chown("f", 5, 6)
    owned = builder.seq
    builder.utime("f", 12345)
    builder.now += 10**9
    builder.emit(WireOp.UTIME, flags=Flag.PATH, inodes=base, payload=b"f", length=TIME_OMIT)
    omitted = builder.seq + 1
    builder.emit(WireOp.UTIME, flags=Flag.PATH, inodes=base, payload=b"f", length=TIME_NOW)
    builder.mkdir("d", 0o750)
    builder.end()
    with open_reader(builder.build()) as reader:
        after = at(reader, "f", owned)
        assert (after.uid, after.gid, stat.S_IMODE(after.mode)) == (5, 6, 0o755)
        assert at(reader, "f", omitted).mtime == 12345
        assert at(reader, "f").mtime == WALL + reader.event(omitted + 1).time
        assert at(reader, "d").uid == 1000
        assert reader.event(owned).detail == "5:6"


def test_a_stamp_from_before(builder: TraceBuilder) -> None:
    """A stamp of a file that another call of the thread touched does not take back what came since."""
    builder.write("old", b"1")
    before, top = builder.inode("old"), builder.inode("")
    written = builder.write("old", b"2")
    builder.emit(
        WireOp.CHMOD, inodes=(top, builder.inode("dir"), before, *[STALE] * 7), payload=b"dir\0", flags=Flag.PATH,
        offset=0o700,
    )  # fmt: skip
    builder.end()
    with open_reader(builder.build()) as reader:
        assert at(reader, "dir").mode & 0o7777 == 0o755, "the stamp's"
        assert at(reader, "old") == at(reader, "old", written)


def test_stamps_of_an_overlay_and_one_of_another_file_from_before(builder: TraceBuilder) -> None:
    """Two stamps that say the same of a file, both in its very directory, are its own: not a third one that says of no
    directory at all, as that of a file of several names does."""
    builder.use("")
    told = builder.inode("old")._replace(ino=501, mode=stat.S_IFREG | 0o640, uid=7)
    below = told._replace(dev=told.dev + 1)
    before = below._replace(ino=502, nlink=3, parent=0, tag=0, mode=stat.S_IFREG | 0o755, uid=0)
    base = builder.inode("/")._replace(dev=99)  # another filesystem
    builder.emit(WireOp.BIND, inodes=(base,), payload=b"")
    path = builder.absolute("old") + b"\0"
    builder.emit(WireOp.TRUNCATE, flags=Flag.PATH, inodes=(base, told, below, before), payload=path, offset=7)
    builder.end()
    with open_reader(builder.build()) as reader:
        found = at(reader, "old")
        assert (found.mode, found.uid, found.size) == (told.mode, told.uid, 7)


def test_dirty_and_fill(builder: TraceBuilder) -> None:
    """Bytes without a user buffer: the event comes first, the bytes count from it; the flag says how exact."""
    file = builder.open("old")
    file.write(b"x", 0)
    inode = (builder._inode(file.node),)
    for offset, flags in ((1, 0), (2, Flag.INEXACT), (3, None)):
        builder.emit(WireOp.DIRTY, inodes=inode, offset=offset, length=1, tid=5)
        if flags is not None:
            builder.emit(WireOp.FILL, offset=offset, payload=b"F", tid=5, flags=flags)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert [event.fidelity for event in events(reader)[1:]] == [Fidelity.EXACT, Fidelity.REREAD, Fidelity.UNKNOWN]
        assert content(reader, "old", 2)[:5] == b"xF345"
        assert content(reader, "old", 4)[:5] == b"xFF45"
        assert [at(reader, "old", seq).fidelity for seq in (1, 2, 3, 4)] == [
            Fidelity.EXACT,
            Fidelity.EXACT,
            Fidelity.REREAD,
            Fidelity.UNKNOWN,
        ]
        assert reader.session.fidelity == {"exact": 2, "reread": 1, "unknown": 1}


def test_an_inexact_write_is_unknown_until_the_file_starts_anew(builder: TraceBuilder) -> None:
    """Bytes that could not be read are zeroes, and said to be unknown; a truncation forgets them."""
    node = builder.open("old").node
    builder._bind(node, b"/opt/root/old")
    builder._event(
        WireOp.WRITE, inodes=(builder._inode(node),), offset=0, length=3, payload=bytes(3), flags=Flag.INEXACT
    )
    builder.open("old", trunc=True)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.event(1).fidelity is Fidelity.UNKNOWN
        assert at(reader, "old", 1).fidelity is Fidelity.UNKNOWN
        assert at(reader, "old", 2).fidelity is Fidelity.EXACT


def test_versions(builder: TraceBuilder) -> None:
    """Every event that changed content or attributes of a file, and no other."""
    builder.write("old", b"1")
    builder.create("noise", b"2")
    builder.chmod("old", 0o600)
    builder.write("old", b"3")
    builder.end()
    with open_reader(builder.build()) as reader:
        node = reader.resolve(b"/opt/root/old", 0)
        assert node is not None
        assert reader.versions(node) == [0, 1, 4, 5]
        before, after = reader.attrs(node, 2), reader.attrs(node, 4)
        assert before is not None
        assert after is not None
        assert (before.version, before.changed) == (1, 0)
        assert (after.version, after.changed) == (1, 4)


def test_holes_are_told_apart(builder: TraceBuilder) -> None:
    """`extents` gives what was written; the rest reads as zeroes; clearing and truncating make holes."""
    builder.create("sparse")
    builder.write("sparse", b"a" * 10, 100)
    builder.write("sparse", b"b" * 10, 110)
    builder.write("sparse", b"c", 1000)
    full = builder.seq
    punched = builder.zero("sparse", 105, 10)
    builder.truncate("sparse", 105)
    builder.truncate("sparse", 5000)
    builder.end()
    with open_reader(builder.build()) as reader:
        node = reader.resolve(b"/opt/root/sparse", full)
        assert node is not None
        assert reader.extents(node, full) == [(100, 20), (1000, 1)]
        assert reader.extents(node, punched) == [(100, 5), (115, 5), (1000, 1)]
        assert reader.read(node, punched, 104, 12) == b"a" + bytes(10) + b"b"
        assert reader.extents(node, reader.last_seq) == [(100, 5)]
        assert at(reader, "sparse").size == 5000
        assert reader.read(node, reader.last_seq, 4998, 10) == b"\0\0"
        assert reader.read(node, reader.last_seq, 5000, 10) == b""


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans())))
def test_marked_ranges_are_those_of_a_map_of_bytes(marks: list[tuple[int, int, bool]]) -> None:
    """Ranges marked as written and as holes are what a byte-by-byte map says: in order, apart, none empty."""
    edges: list[int] = []
    truth = [False] * 41
    for low, high, written in marks:
        mark(edges, low, high, written=written)
        truth[low:high] = [written] * max(high - low, 0)
    assert edges == [at for at in range(41) if truth[at] != (at > 0 and truth[at - 1])]


def test_metadata_of_the_baseline(tmp_path: Path) -> None:
    """Owners, modes, times, links, symlinks, xattrs and devices are as they were found, with odd names too."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({
        "a": {"content": b"x", "mode": 0o4711, "uid": 1, "gid": 2, "mtime": 3, "xattrs": {b"user.k": b"\0v"}},
        "b": {"link": "a"},
        "s": {"target": "nowhere"},
        "tty": {"mode": stat.S_IFCHR | 0o620, "rdev": os.makedev(4, 7)},
    })  # fmt: skip
    builder.begin()
    builder.create(b"\xff\n" + b"n" * 250)
    builder.end()
    with open_reader(builder.build()) as reader:
        attrs = at(reader, "b", 0)
        assert (attrs.uid, attrs.gid, attrs.mtime, attrs.nlink, attrs.xattrs) == (1, 2, 3, 2, {b"user.k": b"\0v"})
        assert at(reader, "s", 0).target == b"nowhere"
        assert at(reader, "tty", 0).rdev == os.makedev(4, 7)
        root = reader.resolve(b"/opt/root", 1)
        assert root is not None
        assert [name for name, _ in reader.children(root, 0)] == [b"a", b"b", b"s", b"tty"]
        assert [name for name, _ in reader.children(root, 1)][-1] == b"\xff\n" + b"n" * 250


@given(
    st.lists(st.tuples(st.integers(-LATEST, LATEST), st.integers(-LATEST, LATEST)), min_size=1, max_size=40),
    st.integers(-LATEST, LATEST), st.integers(1, 40),
)  # fmt: skip
def test_times_of_any_age(times: list[tuple[int, int]], before: int, frame: int) -> None:
    """From 1677 to 2262, the time of what was before and of each write is as it was told, at every moment."""
    with tempfile.TemporaryDirectory() as place:
        builder = TraceBuilder(Path(place) / "trace", frame=frame)
        builder.baseline({"file": {"content": b"before", "mtime": before, "ctime": WALL}})
        builder.begin()
        builder.use("file")
        node = builder.node("file")
        for number, (node.mtime, node.ctime) in enumerate(times):
            inode = builder._inode(node)._replace(size=7 + number)
            builder.emit(WireOp.WRITE, inodes=(inode,), offset=6 + number, length=1, payload=b"x")
        builder.end()
        with open_reader(builder.build()) as reader:
            assert reader.session.lost == {}
            found = [at(reader, "file", seq) for seq in range(reader.last_seq + 1)]
            assert [(each.mtime, each.ctime) for each in found] == [(before, WALL), *times]
            assert content(reader, "file") == b"before" + b"x" * len(times)
