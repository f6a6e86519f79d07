"""Indexing: exact across crashes, beside a writer, once at a time."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diffkeeper.errors import DiffKeeperError, NotATraceError, TraceDamagedError, TraceMissingError, TraceTooNewError
from diffkeeper.journal import JournalWriter, segment_path, segments
from diffkeeper.model import Event, Fidelity, Op, Session
from diffkeeper.store import indexer
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.reader import open_reader
from diffkeeper.store.session import FORMAT
from diffkeeper.store.tables import Table
from diffkeeper.trace import open_trace
from diffkeeper.wire import WireOp
from tests.builder import TraceBuilder
from tests.unit.test_store_replay import BASELINE, Script, Tree, tree_at


def recording(path: Path, frame: int = 5) -> Script:
    """A few hundred events of all kinds, with calls in pieces that frames cut apart; not indexed yet."""
    builder = TraceBuilder(path, frame=frame)
    builder.baseline(BASELINE)
    builder.begin()
    builder.exec("/bin/true")
    run = Script(builder)
    operations = ("create", "pieces", "mkdir", "rewrite", "rename", "link", "unlink", "append", "chmod", "symlink")
    for number in range(200):
        run.step(operations[number * 7 % len(operations)], number * 31, number * 17, number * 41 % 5000)
    return run


def everything(path: Path, run: Script) -> tuple[list[Event], Session, dict[int, Tree]]:
    with open_reader(path) as reader:
        assert list(reader.problems()) == []
        return list(reader.events()), reader.session, {seq: tree_at(reader, seq) for seq in run.trees}


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", [0, 1, 5, 11])
def test_a_crash_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Indexing that dies between or within transactions and is started anew ends with the same trace."""
    run = recording(tmp_path / "crashed")
    run.builder.end()
    path = run.builder.journal()
    monkeypatch.setattr(indexer, "COMMIT_BYTES", 8_000)
    commits = 0

    def crash(_done: int, _total: int) -> None:
        nonlocal commits
        commits += 1
        if commits > at:
            raise Crash

    with pytest.raises(Crash):
        indexer.index(path, progress=crash)
    assert indexer.unfinished(path)
    indexer.index(path)
    assert not indexer.unfinished(path)
    whole = recording(tmp_path / "whole")
    whole.builder.end()
    whole.builder.build()
    events, session, trees = everything(path, run)
    assert (events, session, trees) == everything(tmp_path / "whole", whole)
    assert trees == run.trees


def test_kill_nine(tmp_path: Path) -> None:
    """An indexer killed while it tails leaves a store that the next one finishes."""
    run = recording(tmp_path / "trace")
    path = run.builder.journal()
    tailing = subprocess.Popen([sys.executable, "-m", "diffkeeper.store.indexer", path], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while not (path / "index.lmdb").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not indexer.unfinished(path), "somebody is at it"
    finally:
        tailing.send_signal(signal.SIGKILL)
        tailing.communicate()
    indexer.index(path)
    assert everything(path, run)[2] == run.trees


def test_tailing_beside_a_writer(tmp_path: Path) -> None:
    """`wait` keeps it at the end of a growing journal; a reader sees what is committed; the rest follows."""
    run = recording(tmp_path / "trace")
    path = run.builder.journal()
    rest = TraceBuilder(tmp_path / "unused")
    rest.now, rest.pid = run.builder.now, run.builder.pid
    rest.mark("later")
    rest.end()
    turns = 0

    def wait() -> bool:
        nonlocal turns
        turns += 1
        if turns == 1:
            writer = JournalWriter(path / "journal")
            writer.append(b"".join(rest._records))
            writer.close()
        return turns < 3

    indexer.index(path, wait=wait)
    with open_reader(path) as reader:
        assert reader.last_seq == run.builder.seq + 1
        assert reader.marks()[0].name == "later"
        assert reader.session.duration is not None
    assert segments(path / "journal") == []


def test_readers_beside_an_indexer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is open while transactions go by sees whole states, and more after `refresh`."""
    monkeypatch.setattr(indexer, "COMMIT_BYTES", 1)
    run = recording(tmp_path / "trace", frame=20)
    run.builder.end()
    path = run.builder.journal()
    half_way, go_on = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        if done > total // 2:
            half_way.set()
            go_on.wait(30)

    thread = threading.Thread(target=indexer.index, args=(path,), kwargs={"progress": progress})
    thread.start()
    assert half_way.wait(30)
    with open_reader(path) as reader:
        known = reader.last_seq
        assert 0 < known < run.builder.seq
        seq = max(seq for seq in run.trees if seq <= known)
        assert tree_at(reader, seq) == run.trees[seq]
        go_on.set()
        thread.join(30)
        assert reader.last_seq == known
        reader.refresh()
        assert reader.last_seq == run.builder.seq


def test_only_one_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is a flock on TRACE/lock: while another holds it, indexing is refused and nothing is unfinished."""
    monkeypatch.setattr(indexer, "POLL_SECONDS", 0.001)
    path = recording(tmp_path / "trace").builder.journal()
    with open(path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DiffKeeperError, match="another process"):
            indexer.index(path)
        assert not indexer.unfinished(path)
    assert indexer.unfinished(path)


def test_segments_go_once_they_are_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that ended keeps no journal; one that was cut off keeps the last segment."""
    monkeypatch.setattr("diffkeeper.journal.SEGMENT_LIMIT", 10_000)
    run = recording(tmp_path / "cut")
    path = run.builder.journal()
    last = segments(path / "journal")[-1]
    assert last > 3
    indexer.index(path)
    assert segments(path / "journal") == [last]
    assert not indexer.unfinished(path)


def test_a_torn_tail_is_the_end(tmp_path: Path) -> None:
    """What the recorder was writing when it died is cut off; all before is there, and the loss is told."""
    run = recording(tmp_path / "trace")
    path = run.builder.journal()
    segment = segment_path(path / "journal", 1)
    with open(segment, "ab") as file:
        file.write(b"DKFR\xff\xff")
    indexer.index(path)
    assert everything(path, run)[2] == run.trees
    assert everything(path, run)[1].lost == {"journal cut off": 1}


def test_a_call_whose_pieces_never_came(tmp_path: Path) -> None:
    """Indexed beside its writer, a journal may end between two pieces: no writer, and what came is UNKNOWN."""
    builder = TraceBuilder(tmp_path / "trace", frame=1)
    builder.begin()
    builder.create("f")
    builder.write("f", b"0123456789" * 100, piece=300)
    del builder._records[-2:]
    path = builder.journal()
    with open(segment_path(path / "journal", 1), "rb") as segment:
        fcntl.flock(segment, fcntl.LOCK_EX)  # as a recorder does that found no room for more
        indexer.index(path)
        assert not indexer.unfinished(path)
    assert indexer.unfinished(path)
    for _ in range(2):
        with open_trace(path) as opened:
            assert [event.fidelity for event in opened.events() if event.op is Op.WRITE] == [Fidelity.UNKNOWN]
        assert not indexer.unfinished(path)


def test_private_files(tmp_path: Path) -> None:
    """Everything in a trace is for its owner alone."""
    run = recording(tmp_path / "trace")
    path = run.builder.build()
    assert [name for name in os.listdir(path) if (path / name).stat().st_mode & 0o77] == []


@pytest.mark.parametrize("fields", [{"op": 99}, {"op": WireOp.TRUNCATE, "offset": 1 << 63}])
def test_a_record_that_makes_no_sense(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A frame with a record nobody knows, or numbers no kernel gives, is left out as a whole, and a GAP says so."""
    builder = TraceBuilder(tmp_path / "trace", frame=1)
    builder.baseline({"f": b"1"})
    builder.begin()
    builder.create("g")
    builder.emit(**{"inodes": (builder._inode(builder.node("g")),), **fields})
    builder.create("h")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert [event.op for event in reader.events()] == [Op.CREATE, Op.GAP, Op.CREATE]
        assert reader.session.lost == {"journal damaged": 1}
        assert reader.session.duration is not None
        assert list(reader.problems()) == []
    assert not indexer.unfinished(builder.path)
    assert len(list((builder.path / "journal").glob("*.damaged"))) == 1


def test_nothing_but_nonsense(tmp_path: Path) -> None:
    """A journal of which nothing makes sense is damage, and indexing it comes to an end."""
    builder = TraceBuilder(tmp_path / "trace", frame=1)
    builder.begin()
    for _ in range(200):
        builder.emit(99)  # type: ignore[arg-type]  # no op there is
    with pytest.raises(TraceDamagedError):
        builder.build()


def torn_apart(path: Path, run: Script, at: int) -> None:
    """Write the rest of a recording into a second segment, and cut the first one off at a byte."""
    with open(segment_path(path / "journal", 1), "r+b") as file:
        file.truncate(at)
    builder = TraceBuilder(path)
    builder._records, builder.seq = [], run.builder.seq
    builder.mark("after")
    builder.end()
    writer = JournalWriter(path / "journal")
    writer.append(b"".join(builder._records))
    writer.close()


def test_a_tear_between_segments_is_a_gap(tmp_path: Path) -> None:
    """What was lost there is told in its place, in the timeline and in the session, and all else is there."""
    run = recording(tmp_path / "trace")
    path = run.builder.journal()
    torn_apart(path, run, segment_path(path / "journal", 1).stat().st_size - 7)
    indexer.index(path)
    with open_reader(path) as reader:
        last = list(reader.events())[-2:]
        assert [(event.op, event.detail) for event in last] == [(Op.GAP, "journal cut off"), (Op.MARK, "after")]
        assert reader.session.lost == {"journal cut off": 1}
        assert list(reader.problems()) == []


def test_a_torn_end_is_told_when_nobody_writes(tmp_path: Path) -> None:
    """While the recorder lives its last frame may still grow; once it is dead, the GAP is told, once."""
    run = recording(tmp_path / "trace")
    path = run.builder.journal()
    writer = JournalWriter(path / "journal")
    try:
        with open(segment_path(path / "journal", 2), "ab") as file:
            file.write(b"DKFR\xff\xff")
        indexer.index(path)
        assert everything(path, run)[1].lost == {}
        assert not indexer.unfinished(path)
    finally:
        writer.close()
    for first in (True, False):
        assert indexer.unfinished(path) == first
        indexer.index(path)
        assert everything(path, run)[1].lost == {"journal cut off": 1}


@pytest.mark.parametrize("then", ["nothing", "another", "end"])
def test_a_write_of_which_a_part_is_missing(tmp_path: Path, then: str) -> None:
    """Where a piece of a call never came, its event does not claim to be exact; complete ones still do."""
    builder = TraceBuilder(tmp_path / "trace", frame=1)
    builder.baseline({})
    builder.begin()
    builder.create("f", b"whole")
    builder.write("f", b"x" * 300, piece=100)
    builder._records.pop()
    if then == "another":
        builder.create("g", b"y" * 300)
    if then != "nothing":
        builder.end()
    path = builder.build()
    with open_reader(path) as reader:
        writes = [event.fidelity for event in reader.events() if event.op is Op.WRITE]
        assert writes == [Fidelity.EXACT, Fidelity.UNKNOWN, Fidelity.EXACT][: 3 if then == "another" else 2]
        node = reader.resolve(b"/opt/root/f", reader.last_seq)
        assert node is not None
        attrs = reader.attrs(node, reader.last_seq)
        assert attrs is not None and attrs.fidelity is Fidelity.UNKNOWN
        assert reader.session.fidelity == {"exact": len(writes) - 1, "unknown": 1}


def test_what_is_not_a_trace(tmp_path: Path) -> None:
    """Each kind of wrong directory has its own error."""
    with pytest.raises(TraceMissingError):
        indexer.index(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotATraceError):
        indexer.index(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotATraceError):
        open_reader(tmp_path / "empty")
    facts = recording(tmp_path / "newer").builder.journal() / "session.json"
    facts.write_text(facts.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    with pytest.raises(TraceTooNewError):
        indexer.index(tmp_path / "newer")


@pytest.mark.parametrize("damage", ["", "{" * 5000, "[]", '{"format": 0}', '{"format": 1, "cwd": 5}', "null", "\udcff"])
@pytest.mark.parametrize("indexed", [True, False])
def test_damaged_session_facts(tmp_path: Path, damage: str, indexed: bool) -> None:
    """What session.json alone says is not known any more; every moment is there, and the damage is told."""
    builder = TraceBuilder(tmp_path / "trace", roots=(b"/opt/one", b"/opt/two"))
    builder.baseline({"/opt/one/f": b"1", "/opt/two/d/g": b"2"})
    builder.begin()
    builder.create("/opt/one/new", b"3")
    builder.end()
    path = builder.build() if indexed else builder.journal()
    (path / "session.json").write_bytes(os.fsencode(damage))
    indexer.index(path)
    with open_reader(path) as reader:
        assert reader.session.roots == (b"/opt/one", b"/opt/two")
        assert reader.session.command == (("sh", "-c", "test") if indexed else ())
        assert [note for note in reader.session.notes if "session.json" in note]
        assert len([problem for problem in reader.problems() if "session.json" in problem]) == 1
        node = reader.resolve(b"/opt/one/new", reader.last_seq)
        assert node is not None and reader.read(node, reader.last_seq, 0, 10) == b"3"


def test_an_index_that_was_only_begun(tmp_path: Path) -> None:
    """Tables without a commit, and a journal that no disk has: a trace in which nothing happened."""
    path = TraceBuilder(tmp_path / "trace").journal()
    segment_path(path / "journal", 1).write_bytes(b"")
    Database(path / DATA_FILE, write=True).close()
    with open_trace(path) as trace:
        assert list(trace.events()) == [] and list(trace.problems()) == []
        assert trace.session.roots == (b"/opt/root",)


def test_damaged_session_in_the_index(tmp_path: Path) -> None:
    """Without the totals, what session.json says counts, and every moment is there."""
    built = recording(tmp_path / "trace").builder.build()
    with open_reader(built) as reader:
        events = list(reader.events())
    database = Database(built / DATA_FILE, write=True)
    txn = database.begin()
    txn.put(Table.META, b"session", b"{}")
    txn.commit()
    database.close()
    with open_reader(built) as reader:
        assert reader.session.events == len(events) and list(reader.events()) == events
        assert any("its session" in note for note in reader.session.notes)
        assert list(reader.problems())


def test_facts_keep_odd_bytes(tmp_path: Path) -> None:
    """A root or an argument that is not UTF-8 survives session.json and the store."""
    builder = TraceBuilder(tmp_path / "trace", roots=(b"/opt/\xff\xfe",))
    builder.baseline({"f": b"1"})
    builder.begin()
    builder.exec("/bin/\udcff", "\udcfe")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.session.roots == (b"/opt/\xff\xfe",)
        assert reader.resolve(b"/opt/\xff\xfe/f", 0) is not None
        assert reader.event(1).detail == "/bin/\udcff \udcfe"
