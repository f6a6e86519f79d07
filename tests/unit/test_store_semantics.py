"""What calls mean for the tree and the timeline, case by case."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from diffkeeper.errors import PathError
from diffkeeper.model import Fidelity, Op
from diffkeeper.store.reader import open_reader
from diffkeeper.wire import Flag, WireOp, Wrong
from tests.builder import WALL, TraceBuilder
from tests.unit.reading import at, content, events


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


def test_healing_of_times(builder: TraceBuilder) -> None:
    """Where only what stat() says was wrong, a file keeps its content, which is told once."""
    builder.create("file", b"the bytes")
    version = builder.seq
    builder.end()
    builder.heal("file", b"the bytes", Wrong.TIMES, mtime=77)
    with open_reader(builder.build()) as reader:
        found = at(reader, "file")
        assert (found.mtime, found.size, found.version <= version) == (77, 9, True)
        assert content(reader, "file") == b"the bytes"
        assert reader.session.wrong == {"times": 1}


def test_healing(builder: TraceBuilder) -> None:
    """What was found wrong afterwards becomes an event, and the last moment is right."""
    builder.create("wrong", b"bad")
    builder.create("surplus", b"?")
    builder.end()
    builder.heal("wrong", b"good bytes", Wrong.MODE | Wrong.CONTENT, mode=stat.S_IFREG | 0o600)
    builder.heal("surplus")
    builder.heal("dir/missing", b"was not seen")
    builder.settle("verified_paths=17")
    builder.settle("note=no io_uring tracepoint")
    with open_reader(builder.build()) as reader:
        session = reader.session
        assert (session.mismatches, session.verified_paths, session.notes) == (3, 17, ("no io_uring tracepoint",))
        assert session.wrong == {"mode": 1, "content": 1, "name": 2}
        assert [event.detail for event in events(reader)[-3:]] == ["mode, content", "name", "name"]
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
        found = reader.changes()
        assert found[:2] == ({b"/opt/root/new", b"/opt/root/newer"}, {b"/opt/root/newer"})
        assert [number for number in range(-2, 1000) if number in found.nodes] == [node]
