"""What calls mean for the tree, the content and the timeline, case by case."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.errors import PathError
from diffkeeper.model import Attrs, Event, Fidelity, Op
from diffkeeper.mounts import Mount, Mounts
from diffkeeper.store.assembly import mark
from diffkeeper.store.reader import Reader, open_reader
from diffkeeper.wire import TIME_NOW, TIME_OMIT, Flag, WireOp
from tests.builder import STALE, WALL, TraceBuilder


@pytest.fixture
def builder(tmp_path: Path) -> TraceBuilder:
    """A recording whose command has begun, on a root with the file `old` (5000 bytes) and the directory `dir`."""
    made = TraceBuilder(tmp_path / "trace")
    made.baseline({"old": b"12345" * 1000, "dir/": None})
    made.begin()
    return made


def at(reader: Reader, path: str, seq: int | None = None) -> Attrs:
    seq = reader.last_seq if seq is None else seq
    node = reader.resolve(b"/opt/root/" + path.encode() if path[:1] != "/" else path.encode(), seq)
    assert node is not None, f"nothing at {path} after event {seq}"
    attrs = reader.attrs(node, seq)
    assert attrs is not None
    return attrs


def content(reader: Reader, path: str, seq: int | None = None) -> bytes:
    seq = reader.last_seq if seq is None else seq
    node = reader.resolve(b"/opt/root/" + path.encode() if path[:1] != "/" else path.encode(), seq)
    assert node is not None, f"nothing at {path} after event {seq}"
    return b"".join(reader.chunks(node, seq))


def events(reader: Reader) -> list[Event]:
    return list(reader.events())


def test_events_are_numbered_and_timed(builder: TraceBuilder) -> None:
    """Events count from 1 in the journal's order; times count from BEGIN and never go back."""
    builder.create("a", at=1.0)
    builder.write("a", b"xyz", at=2.0)
    builder.write("a", b"late", at=1.5)
    builder.end(at=3)
    with open_reader(builder.build()) as reader:
        assert [(event.seq, event.time, event.op) for event in reader.events()] == [
            (1, 10**9, Op.CREATE),
            (2, 2 * 10**9, Op.WRITE),
            (3, 2 * 10**9, Op.WRITE),
        ]
        assert [reader.seq_at(int(t * 1e9)) for t in (0, 0.99, 1, 1.5, 2, 99)] == [0, 0, 1, 1, 3, 3]
        assert reader.event(2).path == b"/opt/root/a"
        assert (reader.event(3).offset, reader.event(3).size) == (3, 4)
        with pytest.raises(PathError):
            reader.event(4)
        assert list(reader.events(2, 2)) == [reader.event(2)]
        assert reader.session.duration == 3 * 10**9
        assert reader.session.started == WALL
        assert reader.session.exit_code == 0


def test_seek_by_time_over_many_blocks(builder: TraceBuilder) -> None:
    """The last event at or before a time is found whatever block it is in."""
    builder.create("a", at=0.001)
    for number in range(1, 10_000):
        builder.write("a", b"x", at=(number // 3) / 100)
    builder.end()
    with open_reader(builder.build()) as reader:
        times = [event.time for event in reader.events()]
        for moment in [0, 1, 10**6, 13_650_000_000, 13_653_333_333, 20 * 10**9, times[-1], times[-1] + 1]:
            assert reader.seq_at(moment) == sum(time <= moment for time in times)


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


def test_unlinked_but_open(builder: TraceBuilder) -> None:
    """A file without a name goes on to be recorded, under its last path, and is in no directory."""
    file = builder.open("old")
    file.write(b"A", 0)
    builder.unlink("old")
    seq = file.write(b"B", 1)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.resolve(b"/opt/root/old", seq) is None
        assert reader.event(seq).path == b"/opt/root/old"
        node = reader.event(seq).node
        assert reader.read(node, seq, 0, 3) == b"AB3"
        attrs = reader.attrs(node, seq)
        assert attrs is not None
        assert attrs.nlink == 0


def test_a_new_file_on_an_old_name(builder: TraceBuilder) -> None:
    """unlink and create again: another node, though the kernel may use the inode number again."""
    builder.reuse_inodes = True
    builder.write("old", b"x")
    first = builder.unlink("old")
    builder.create("old", b"new")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert content(reader, "old", first - 1) == b"12345" * 1000 + b"x"
        assert content(reader, "old") == b"new"
        assert reader.resolve(b"/opt/root/old", 0) != reader.resolve(b"/opt/root/old", reader.last_seq)


def test_an_inode_number_used_again_for_a_directory(tmp_path: Path) -> None:
    """A directory made on the number of a file that is gone is a new node, with attributes of its own."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({})
    builder.begin()
    builder.mkdir("one")
    builder.create("one/x")
    number, generation = builder.node("one").ino, builder.node("one").gen
    builder.unlink("one/x")
    builder.rmdir("one")
    builder._next_ino = number
    builder.mkdir("two", 0o700)
    assert (builder.node("two").ino, builder.node("two").gen) == (number, generation)
    builder.create("two/y", b"1")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert stat.S_IMODE(at(reader, "two").mode) == 0o700
        assert content(reader, "two/y") == b"1"


def test_directory_rename_moves_what_is_in_it(builder: TraceBuilder) -> None:
    """One event; paths of later events and of resolution follow, also for files known before."""
    builder.create("dir/f", b"1")
    seq = builder.rename("dir", "moved")
    later = builder.write("moved/f", b"2")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.event(seq).to == b"/opt/root/moved"
        assert reader.event(later).path == b"/opt/root/moved/f"
        assert reader.resolve(b"/opt/root/dir/f", seq - 1) == reader.resolve(b"/opt/root/moved/f", seq)
        assert reader.resolve(b"/opt/root/dir", seq) is None


def test_exchange_swaps(builder: TraceBuilder) -> None:
    """RENAME_EXCHANGE: both names stay, each with the other's file."""
    builder.create("new", b"n")
    before = builder.seq
    seq = builder.rename("new", "old", flags=2)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.event(seq).op is Op.EXCHANGE
        assert content(reader, "old", seq) == content(reader, "new", before) == b"n"
        assert content(reader, "new", seq) == content(reader, "old", before)


def test_hard_links_are_one_file(builder: TraceBuilder) -> None:
    """A write through one name shows under the other; nlink counts the names at the moment."""
    seq = builder.link("old", "dir/also")
    builder.write("dir/also", b"!", 0)
    builder.unlink("old")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert at(reader, "old", seq - 1).nlink == 1
        assert at(reader, "old", seq).nlink == 2
        assert content(reader, "old", seq + 1)[:5] == b"!2345"
        assert at(reader, "dir/also").nlink == 1


def test_renaming_one_hard_link_onto_the_other_does_nothing(builder: TraceBuilder) -> None:
    """rename(2) of two names of one file leaves both, and makes no event."""
    seq = builder.link("old", "other")
    assert builder.rename("old", "other") == seq
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.last_seq == seq
        assert at(reader, "old").nlink == at(reader, "other").nlink == 2


def test_paths_are_walked_as_the_kernel_does(builder: TraceBuilder) -> None:
    """".", "..", doubled slashes and symlinks in the middle lead where they led the call."""
    builder.symlink("dir", "way")
    builder.emit(
        WireOp.MKDIR, flags=Flag.PATH, inodes=(builder._inode(builder.node("")),), payload=b"./way//../dir/./new",
        offset=0o755,
    )  # fmt: skip
    builder.emit(
        WireOp.CHMOD, flags=Flag.PATH | Flag.NOFOLLOW, inodes=(builder._inode(builder.node("")),), payload=b"way/new",
        offset=0o700,
    )  # fmt: skip
    builder.end()
    with open_reader(builder.build()) as reader:
        assert [event.path for event in reader.events()] == [
            b"/opt/root/way",
            b"/opt/root/dir/new",
            b"/opt/root/dir/new",
        ]
        assert stat.S_IMODE(at(reader, "dir/new").mode) == 0o700


def test_paths_that_lead_elsewhere_later(builder: TraceBuilder) -> None:
    """One path text leads to another directory once a directory or a symlink on its way is another one."""
    base = (builder._inode(builder.node("")),)

    def make(path: bytes) -> None:
        builder.emit(WireOp.MKDIR, flags=Flag.PATH, inodes=base, payload=path, offset=0o755)

    builder.mkdir("one")
    builder.mkdir("one/in")
    builder.mkdir("two")
    builder.symlink("one/in", "way")
    make(b"one/in/1")
    make(b"way/2")
    make(b"way/../3")
    builder.unlink("way")
    builder.symlink("two", "way")
    make(b"way/4")
    make(b"way/../5")
    builder.rename("one", "old one")
    builder.mkdir("one")
    builder.mkdir("one/in")
    make(b"one/in/6")
    make(b"old one/in/7")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert [event.path for event in reader.events() if event.path[-1:].isdigit()] == [
            b"/opt/root/" + path
            for path in (b"one/in/1", b"one/in/2", b"one/3", b"two/4", b"5", b"one/in/6", b"old one/in/7")
        ]
        assert reader.resolve(b"/opt/root/old one/in/2", reader.last_seq) is not None
        assert reader.resolve(b"/opt/root/old one/in/6", reader.last_seq) is None


def test_symlink_in_the_last_place(builder: TraceBuilder) -> None:
    """chmod follows it, unlink does not; a ring of symlinks does not hang the walk."""
    builder.symlink("old", "link")
    builder.symlink("ring", "ring")
    base = (builder._inode(builder.node("")),)
    builder.emit(WireOp.CHMOD, flags=Flag.PATH, inodes=base, payload=b"link", offset=0o640)
    builder.emit(WireOp.TRUNCATE, flags=Flag.PATH, inodes=base, payload=b"link", offset=3)
    builder.emit(WireOp.CHMOD, flags=Flag.PATH, inodes=base, payload=b"ring/x", offset=0o640)
    builder.emit(WireOp.UNLINK, flags=Flag.PATH, inodes=base, payload=b"link")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert stat.S_IMODE(at(reader, "old").mode) == 0o640
        assert content(reader, "old") == b"123"
        assert reader.resolve(b"/opt/root/link", reader.last_seq) is None
        assert reader.resolve(b"/opt/root/old", reader.last_seq) is not None


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


def test_stamps_bind_identities(builder: TraceBuilder) -> None:
    """A node that only a stamp told of is known by its identity from then on, without a BIND."""
    builder.mkdir("fresh")
    builder._bound.add(builder.node("fresh"))
    builder.create("fresh/f", b"1")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert content(reader, "fresh/f") == b"1"


def test_an_identity_never_bound_is_a_file_without_a_name(builder: TraceBuilder) -> None:
    """Its writes are events, and its bytes can be read; nothing crashes, nothing in the tree changes."""
    node = builder._new(stat.S_IFREG | 0o644)
    seq = builder.write_node(node, b"who am I")
    builder.end()
    with open_reader(builder.build()) as reader:
        event = reader.event(seq)
        assert (event.path, event.outside) == (b"", True)
        assert reader.read(event.node, seq, 0, 100) == b"who am I"
        attrs = reader.attrs(event.node, seq)
        assert attrs is not None
        assert attrs.fidelity is Fidelity.UNKNOWN


def test_unnamed_temporary_file_gets_a_name(builder: TraceBuilder) -> None:
    """O_TMPFILE, writes, then linkat(/proc/self/fd/N): the file stands at its name with its bytes."""
    node = builder._new(stat.S_IFREG | 0o600)
    inodes = (builder._inode(node), builder._inode(builder.node("dir")))
    builder._bind(builder.node("dir"), b"/opt/root/dir")
    builder._event(WireOp.OPEN, flags=Flag.CREATED, inodes=inodes)
    builder._bound.add(node)
    builder.write_node(node, b"hidden")
    base = builder._inode(builder.node(""))
    builder._bind(builder.node(""), b"/opt/root")
    builder._event(
        WireOp.LINK, flags=Flag.PATH, inodes=(base, base, builder._inode(node)), offset=0x400,
        payload=b"/proc/self/fd/3\0dir/shown\0",
    )  # fmt: skip
    builder.end()
    with open_reader(builder.build()) as reader:
        assert content(reader, "dir/shown") == b"hidden"
        assert reader.event(3).to == b"/opt/root/dir/shown"
        assert reader.resolve(b"/proc", reader.last_seq) is None


def test_outside_the_roots(builder: TraceBuilder) -> None:
    """What is done elsewhere is recorded and marked; old content that nobody saw is PARTIAL zeroes."""
    where = builder._directory(b"/var/log")
    builder._attach(where, b"syslog", node := builder._new(stat.S_IFREG | 0o644))
    node.data[:] = b"?" * 100
    seq = builder.write("/var/log/syslog", b"line")
    builder.create("/var/log/new", b"mine")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.event(seq).outside
        assert at(reader, "/var/log/syslog", seq).fidelity is Fidelity.PARTIAL
        assert at(reader, "/var/log/syslog", seq).size == 104
        assert content(reader, "/var/log/syslog") == bytes(100) + b"line"
        assert at(reader, "/var/log/new").fidelity is Fidelity.EXACT
        assert content(reader, "/var/log/new") == b"mine"


def test_what_comes_in_from_outside(builder: TraceBuilder) -> None:
    """A file that was never seen and is moved into a root stands there, PARTIAL, with its attributes."""
    builder._attach(builder._directory(b"/tmp"), b"x", node := builder._new(stat.S_IFREG | 0o640))
    node.data[:] = b"12345"
    builder.rename("/tmp/x", "came")
    builder.end()
    with open_reader(builder.build()) as reader:
        attrs = at(reader, "came")
        assert (attrs.size, stat.S_IMODE(attrs.mode), attrs.fidelity) == (5, 0o640, Fidelity.PARTIAL)


@pytest.mark.parametrize("place", [b"/opt/trace/journal/x", b"/proc/self/comm", b"/sys/kernel/x", b"/dev/null2"])
def test_no_concern_of_ours(builder: TraceBuilder, place: bytes) -> None:
    """The trace's own directory and pseudo filesystems make no events, by name or by descriptor."""
    builder._directory(place.rpartition(b"/")[0])
    builder.create(place, b"1")
    builder.chmod(place, 0o600)
    builder.rewrite(place, b"2")
    builder.unlink(place)
    builder.mark("end")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert [event.op for event in reader.events()] == [Op.MARK]


def test_shared_memory_is_a_place_for_files(builder: TraceBuilder) -> None:
    """/dev/shm is outside, but recorded."""
    builder._directory(b"/dev/shm")
    builder.create("/dev/shm/x", b"1")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert content(reader, "/dev/shm/x") == b"1"


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


def test_healing(builder: TraceBuilder) -> None:
    """What was found wrong afterwards becomes an event, and the last moment is right."""
    builder.create("wrong", b"bad")
    builder.create("surplus", b"?")
    builder.end()
    builder.heal("wrong", b"good bytes", mode=stat.S_IFREG | 0o600)
    builder.heal("surplus")
    builder.heal("dir/missing", b"was not seen")
    builder.settle("verified_paths=17")
    builder.settle("note=no io_uring tracepoint")
    with open_reader(builder.build()) as reader:
        session = reader.session
        assert (session.mismatches, session.verified_paths, session.notes) == (3, 17, ("no io_uring tracepoint",))
        assert [event.op for event in events(reader)[-3:]] == [Op.HEAL] * 3
        assert content(reader, "wrong") == b"good bytes"
        assert content(reader, "wrong", 4) == b"bad"
        assert stat.S_IMODE(at(reader, "wrong").mode) == 0o600
        assert reader.resolve(b"/opt/root/surplus", reader.last_seq) is None
        assert content(reader, "dir/missing") == b"was not seen"
        assert list(reader.problems()) == []


def test_gaps_are_counted_by_cause(builder: TraceBuilder) -> None:
    """A gap is an event; `lost` adds them up, one at least for a gap of unknown size."""
    builder.gap(5, "ring full")
    builder.gap(0, "disk full")
    builder.gap(2, "ring full")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.session.lost == {"ring full": 7, "disk full": 1}
        first = reader.event(1)
        assert (first.op, first.count, first.detail) == (Op.GAP, 5, "ring full")


def test_processes_and_marks(builder: TraceBuilder) -> None:
    """The table of processes at any moment; a mark that was set twice is there twice."""
    builder.exec("/bin/sh", "-c", "make", at=0.1)
    builder.fork(101, at=0.2)
    builder.pid = 101
    forked = builder.exec("/usr/bin/make", "-j", "2", at=0.3)
    builder.mark("built", at=0.4)
    builder.exit(9, at=0.5)
    builder.mark("built", at=0.6)
    builder.pid = 100
    builder.fork(101, at=0.7)
    builder.end()
    with open_reader(builder.build()) as reader:
        process = reader.process_at(101, forked)
        assert process is not None
        assert (process.comm, process.argv) == ("make", ("/usr/bin/make", "-j", "2"))
        assert (process.ppid, process.end) == (100, None)
        ended = reader.process_at(101, forked + 2)
        assert ended is not None
        assert (ended.status, ended.end) == (9, 500_000_000)
        again = reader.processes()[101]
        assert (again.start, again.end, again.comm) == (700_000_000, None, "sh")
        assert reader.process_at(101, 1) is None
        assert [(mark.name, mark.time) for mark in reader.marks()] == [("built", 400_000_000), ("built", 600_000_000)]
        assert reader.event(forked).detail == "/usr/bin/make -j 2"
        assert reader.event(forked + 2).detail == "signal 9"


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


def test_a_file_that_is_in_no_directory(builder: TraceBuilder) -> None:
    """A file whose kernel path is "/", as of memory that is shared without a name: nothing is lost, "/" stays."""
    inode = builder.inode("old")._replace(ino=4711)
    builder.emit(WireOp.BIND, inodes=(inode,))
    builder.emit(WireOp.BIND, inodes=(inode._replace(ino=4712),), flags=Flag.APART)
    builder.emit(WireOp.CHMOD, inodes=(inode,), offset=0o600)
    builder.write("old", b"more")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.session.lost == {}
        assert content(reader, "old")[-4:] == b"more"


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


def test_a_recording_cut_off(builder: TraceBuilder) -> None:
    """Without END the trace is whole up to its last record, and says that it was cut off."""
    builder.create("a", b"1")
    with open_reader(builder.build()) as reader:
        assert reader.session.duration is None
        assert reader.session.status is None
        assert content(reader, "a") == b"1"


@pytest.mark.parametrize("op", [WireOp.WRITE, WireOp.OPEN, WireOp.RENAME, WireOp.MKDIR, WireOp.BIND, WireOp.SNAPSHOT])
def test_records_that_make_no_sense_are_a_gap(builder: TraceBuilder, op: WireOp) -> None:
    """A record without the inodes it needs is no crash: its frame is left out, and that is told."""
    builder.emit(op, flags=Flag.PATH | Flag.CREATED, length=1, payload=b"a\0b\0c\0")
    with open_reader(builder.build()) as reader:
        assert reader.session.lost == {"journal damaged": 1}
        assert list(reader.problems()) == []


def test_changes(builder: TraceBuilder) -> None:
    """Each path that an event changed something at, old and new names alike; nothing of processes and marks."""
    builder.exec("/usr/bin/make")
    builder.create("new", b"1")
    builder.rename("new", "newer")
    builder.mark("half")
    builder.end()
    with open_reader(builder.build()) as reader:
        node = reader.resolve(b"/opt/root/newer", reader.last_seq)
        assert reader.changes() == ({b"/opt/root/new", b"/opt/root/newer"}, {b"/opt/root/newer"}, {node})
