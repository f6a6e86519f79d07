"""Whatever a program does, the store gives back every moment as it was."""

from __future__ import annotations

import random
import stat
import tempfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffkeeper.errors import TraceMissingError
from diffkeeper.model import ROOT_NODE
from diffkeeper.store import content, indexer
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.reader import Reader, open_reader
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder

ROOT = b"/opt/root"
NAMES = [b"a", b"b", b"c", b"long-name.txt", b"d"]

OPERATIONS = (
    *("create", "write", "write", "append", "pieces", "truncate", "rewrite", "rename", "rename", "exchange", "unlink"),
    *("mkdir", "rmdir", "symlink", "link", "chmod", "chown", "utime", "xattr", "fifo", "unlinked", "tick"),
)

Tree = dict[bytes, tuple[Any, ...]]

steps = st.tuples(
    st.sampled_from(OPERATIONS),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 5_000),
)


def tree_at(reader: Reader, seq: int, top: bytes = ROOT) -> Tree:
    """The tree of a store at a moment, as `TraceBuilder.tree` gives it."""
    node = reader.resolve(top, seq)
    assert node is not None
    return dict(_walk(reader, node, top, seq))


def _walk(reader: Reader, node: int, path: bytes, seq: int) -> list[tuple[bytes, tuple[Any, ...]]]:
    attrs = reader.attrs(node, seq)
    assert attrs is not None
    content = attrs.target if attrs.is_symlink else b"".join(reader.chunks(node, seq, 1000))
    assert not attrs.is_file or len(content) == attrs.size
    result = [(path, (attrs.mode, attrs.uid, attrs.gid, attrs.nlink, attrs.mtime, content))]
    for name, child in reader.children(node, seq):
        result.extend(_walk(reader, child, path + b"/" + name, seq))
    return result


class Script:
    """Turns numbers into valid operations on a builder, and remembers the tree after each event."""

    def __init__(self, builder: TraceBuilder) -> None:
        self.builder, self.root = builder, builder.roots[0]
        self.trees: dict[int, Tree] = {0: builder.tree()}

    def paths(self, *kinds: int) -> list[bytes]:
        return [
            path
            for path, (mode, *_) in self.builder.tree().items()
            if path != self.root and (not kinds or stat.S_IFMT(mode) in kinds)
        ]

    def step(self, op: str, one: int, two: int, three: int) -> None:
        builder = self.builder
        directories = [self.root, *self.paths(stat.S_IFDIR)]
        new = directories[one % len(directories)] + b"/" + NAMES[two % len(NAMES)]
        files, anything = self.paths(stat.S_IFREG), self.paths()
        data = bytes((one + i * two) % 251 for i in range(three))
        if op == "tick":
            builder.now += three * 1000
        elif op in ("create", "mkdir", "symlink", "fifo", "unlinked") and not builder.exists(new):
            self.make(op, new, data)
        elif op == "link" and files and not builder.exists(new):
            builder.link(files[three % len(files)], new)
        elif op in ("rename", "exchange") and anything:
            self.rename(op, anything[three % len(anything)], new)
        elif op == "unlink" and (victims := [path for path in anything if path not in directories]):
            builder.unlink(victims[three % len(victims)])
        elif op == "rmdir" and (empty := [path for path in directories[1:] if not builder.node(path).entries]):
            builder.rmdir(empty[three % len(empty)])
        elif op in ("chmod", "chown", "utime", "xattr") and files:
            self.change(op, files[one % len(files)], two)
        elif op in ("write", "append", "truncate", "rewrite", "pieces") and files:
            self.content(op, files[one % len(files)], two, data)
        self.trees[builder.seq] = builder.tree()

    def make(self, op: str, new: bytes, data: bytes) -> None:
        builder = self.builder
        if op == "mkdir":
            builder.mkdir(new)
        elif op == "symlink":
            builder.symlink(b"../" + new[-3:], new)
        elif op == "fifo":
            builder.mkfifo(new)
        elif op == "create":
            builder.create(new)
            self.trees[builder.seq] = builder.tree()
            if data:
                builder.write(new, data)
        else:  # a file that is written to after its name is gone
            builder.create(new)
            self.trees[builder.seq] = builder.tree()
            file = builder.open(new)
            builder.unlink(new)
            self.trees[builder.seq] = builder.tree()
            file.write(b"nobody sees this")

    def rename(self, op: str, old: bytes, new: bytes) -> None:
        builder = self.builder
        target = builder.node(new) if builder.exists(new) else None
        inside = new.startswith(old + b"/") or old.startswith(new + b"/")
        kinds = target is None or (stat.S_ISDIR(target.mode) == stat.S_ISDIR(builder.node(old).mode))
        if inside or (target is None and op == "exchange") or (op == "rename" and not kinds):
            return
        if op == "exchange":
            builder.rename(old, new, flags=2)
        elif target is None or not target.entries:
            builder.rename(old, new)

    def change(self, op: str, path: bytes, number: int) -> None:
        builder = self.builder
        if op == "chmod":
            builder.chmod(path, number & 0o777)
        elif op == "chown":
            builder.chown(path, number, number + 1)
        elif op == "xattr":
            builder.setxattr(path, b"user.x", b"%d" % number)
        else:
            builder.utime(path, number * 1_000_003)

    def content(self, op: str, path: bytes, number: int, data: bytes) -> None:
        builder = self.builder
        if op == "truncate":
            builder.truncate(path, number % 3000)
        elif op == "rewrite":
            builder.open(path, trunc=True)
            self.trees[builder.seq] = builder.tree()
            if data:
                builder.write(path, data)
        elif data:
            offset = number % 3000 if op == "write" else None
            builder.write(path, data, offset, piece=700 if op == "pieces" else 0)


def check_everything(builder: TraceBuilder, trees: dict[int, Tree]) -> None:
    path = builder.build()
    with open_reader(path) as reader:
        assert reader.last_seq == builder.seq
        assert [event.seq for event in reader.events()] == list(range(1, builder.seq + 1))
        for seq, tree in trees.items():
            assert tree_at(reader, seq) == tree, f"at event {seq}: {reader.event(seq) if seq else 'baseline'}"
        assert list(reader.problems()) == []


BASELINE: dict[str, Any] = {
    "a": b"what stood here before" * 30,
    "d/": None,
    "d/b": {"content": b"\0" * 5000, "mode": 0o600},
    "d/c": {"target": b"../a"},
    "d/hard": {"link": "d/b"},
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(steps, min_size=1, max_size=60),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from([1, 3, 24]),
    st.sampled_from([0, 9]),
)
def test_every_moment_is_as_it_was(
    script: list[tuple[str, int, int, int]], stamps: bool, overlay: bool, reuse: bool, frame: int, least: int,
    commit: int,
) -> None:  # fmt: skip
    """After any sequence of calls, the tree and the bytes at every event equal a plain model's at that time.

    However often is committed.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("diffkeeper.store.runs.LEAST", least),
        patch("diffkeeper.store.indexer.COMMIT_SECONDS", commit),
    ):
        builder = TraceBuilder(Path(folder) / "trace", stamps=stamps, overlay=overlay, frame=frame)
        builder.reuse_inodes = reuse
        builder.baseline(BASELINE)
        builder.begin()
        builder.exec("/bin/true")
        run = Script(builder)
        for step in script:
            run.step(*step)
        builder.end()
        check_everything(builder, run.trees)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=20, max_size=90), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_reader_goes_along(script: list[tuple[str, int, int, int]], frame: int, chance: random.Random) -> None:
    """One that stays open while blocks are added, and joined with what it had read, is right after every commit."""
    with tempfile.TemporaryDirectory() as folder, patch("diffkeeper.store.indexer.COMMIT_SECONDS", 0):
        builder = TraceBuilder(Path(folder) / "trace", frame=frame)
        builder.baseline(BASELINE)
        builder.begin()
        run = Script(builder)
        for step in script:
            run.step(*step)
        builder.end()
        path = builder.journal()
        with ExitStack() as held:
            readers: list[Reader] = []

            def look() -> None:
                if not readers and (path / DATA_FILE).exists():
                    with suppress(TraceMissingError):
                        readers.append(held.enter_context(open_reader(path)))
                for reader in readers:
                    reader.refresh()
                    assert [event.seq for event in reader.events()] == list(range(1, reader.last_seq + 1))
                    known = [seq for seq in run.trees if 0 < seq < reader.last_seq]  # pieces of the last may be missing
                    for seq in {*known[-1:], *chance.choices(known, k=2)} if known else ():
                        assert tree_at(reader, seq) == run.trees[seq]

            indexer.index(path, pause=look)
            look()
            assert readers[0].last_seq == builder.seq


def test_a_day_of_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each commit brings little, what is stored is joined: as many blocks as if all had come at once, nearly.

    What nobody else has is not kept twice, and all of it is as it was.
    """
    monkeypatch.setattr("diffkeeper.store.indexer.COMMIT_SECONDS", 0)
    builder = TraceBuilder(tmp_path / "trace", frame=3)
    builder.baseline({"log": b"", "db": bytes(20_000)})
    builder.begin()
    run, chance = Script(builder), random.Random(5)
    for number in range(1500):
        builder.write("log", b"%06d nothing happened, as on any other day\n" % number)
        builder.write("db", chance.randbytes(40), chance.randrange(19_000))
        if number % 100 == 0:
            run.trees[builder.seq] = builder.tree()
    builder.end()
    check_everything(builder, run.trees)
    with closing(Database(builder.path / DATA_FILE)) as database, database.reading() as txn:
        assert txn.count(Table.EVENTS) < 14
        heads = [content.decode_ref(key, value).head for key, value in txn.scan(Table.CONTENT)]
        assert len(heads) < 30
        assert max(head.payload for head in heads) <= content.JOIN_BYTES
        assert txn.count(Table.BLOBS) <= 1


def test_small_blocks_and_keyframes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often blocks end and keyframes are due, every moment of a much rewritten file is right."""
    monkeypatch.setattr("diffkeeper.store.writer.BLOCK_BYTES", 3000)
    monkeypatch.setattr("diffkeeper.store.writer.KEYFRAME_LEAST", 1000)
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"db": bytes(4000)})
    builder.begin()
    run = Script(builder)
    for number in range(400):
        data = bytes((number * 7 + i) % 256 for i in range(number % 900 + 1))
        if number % 50 == 49:
            builder.truncate("db", number * 31 % 9000)
        elif number % 17 == 16:
            builder.zero("db", number * 7919 % 8000, number)
        else:
            builder.write("db", data, number * 7919 % 8000)
        run.trees[builder.seq] = builder.tree()
    builder.end()
    check_everything(builder, run.trees)


@pytest.mark.parametrize("block", [3000, 4 << 20])
def test_runs_of_writes_are_as_the_writes_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Writes of several files and sizes in a row, indexed together, are the same events and the same moments."""
    monkeypatch.setattr("diffkeeper.store.writer.BLOCK_BYTES", block)
    monkeypatch.setattr("diffkeeper.store.blocks.BLOCK_EVENTS", 100)
    monkeypatch.setattr("diffkeeper.store.timeline.BLOCK_EVENTS", 100)
    found = []
    for least in (10**9, 5):
        monkeypatch.setattr("diffkeeper.store.runs.LEAST", least)
        builder = TraceBuilder(tmp_path / str(least), frame=300)
        builder.baseline({"log": b"", "db": bytes(5000), "outside": {"mode": 0o4755}})
        builder.begin()
        run = Script(builder)
        for number in range(900):
            path = ("log", "log", "log", "db", "outside")[number * number % 5]
            size = 40 if number < 300 else number * 7 % 90 + 1
            builder.write(path, bytes([number % 251]) * size, None if path == "log" else number * 61 % 6000)
            if number % 60 == 0:
                builder.chmod("db", 0o600 + number // 60 % 8)
            if number % 47 == 0:
                run.trees[builder.seq] = builder.tree()
        run.trees[builder.seq] = builder.tree()
        builder.end()
        check_everything(builder, run.trees)
        with open_reader(builder.path) as reader:
            found.append((list(reader.events()), reader.session.fidelity))
    assert found[0] == found[1]


def test_the_top_is_always_there(tmp_path: Path) -> None:
    """A trace in which nothing happened has a root, an empty timeline and no problems."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({})
    builder.begin()
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.last_seq == 0
        assert reader.attrs(ROOT_NODE, 0) is not None
        assert list(reader.events()) == []
        assert list(reader.problems()) == []
