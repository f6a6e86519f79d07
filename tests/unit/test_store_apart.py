"""Calls of processes with mounts of their own: where their names are, by what they touched."""

from __future__ import annotations

import random
import stat
from pathlib import Path
from typing import Any

import pytest

from diffkeeper.mounts import Mount, Mounts
from diffkeeper.store.reader import Reader, open_reader
from diffkeeper.wire import Flag, WireOp, name_tag
from tests.builder import DEVICE, STALE, WALL, TraceBuilder

Tree = dict[bytes, tuple[Any, ...]]

NAMES = ("a", "b", "dir", "sub", "long.name")


def recorded(reader: Reader, path: bytes, seq: int) -> Tree:
    """As `TraceBuilder.tree` has it, without times."""
    node = reader.resolve(path, seq)
    assert node is not None, f"{path!r} is missing after event {seq}"
    attrs = reader.attrs(node, seq)
    assert attrs is not None
    content = attrs.target if stat.S_ISLNK(attrs.mode) else b""
    if stat.S_ISREG(attrs.mode):
        content = b"".join(reader.chunks(node, seq))
    tree = {path: (attrs.mode, attrs.nlink, content)}
    for name, _ in reader.children(node, seq) if stat.S_ISDIR(attrs.mode) else ():
        tree |= recorded(reader, path + b"/" + name, seq)
    return tree


def true(builder: TraceBuilder) -> Tree:
    tree = builder.tree()
    return {path: (mode, nlink, content) for path, (mode, _, _, nlink, _, content) in tree.items()}


@pytest.fixture
def builder(tmp_path: Path) -> TraceBuilder:
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"dir/dir/": None, "dir/a": b"1", "dir/b": {"link": "dir/a"}, "sub/a": b"2", "a": b"3"})
    builder.begin()
    builder.use(b"/", "", "dir", "dir/dir", "sub")
    builder.apart = random.Random(0)
    return builder


def assert_told(builder: TraceBuilder, *, lost: int = 0) -> None:
    """The end of a recording is what is there."""
    seq, tree = builder.seq, true(builder)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert sum(reader.session.lost.values()) == lost
        assert recorded(reader, builder.roots[0], seq) == tree


def test_a_file_moved_into_a_directory_of_its_new_name(builder: TraceBuilder) -> None:
    """`mv a dir/dir`, then `mv dir/dir/a dir/dir/dir`: the directory that has the name as well is not replaced."""
    builder.create("dir/x")
    builder.rename("dir/x", "dir/dir/dir")
    assert_told(builder)


def test_a_link_is_to_what_has_one_name_more(builder: TraceBuilder) -> None:
    """Of several files with several names that a thread touched, the one of which not all names are known."""
    builder.link("a", "sub/c")
    builder.use("dir/a")
    builder.touched_before = ["dir/a"]
    builder.link("a", "dir/long.name")
    assert_told(builder)


def test_a_way_about(builder: TraceBuilder) -> None:
    """A path of hundreds of steps back and forth is as good as any."""
    inodes = [builder.inode(path) for path in (b"/", "dir", "sub")]
    made = inodes[1]._replace(ino=4711, parent=inodes[2].ino, tag=name_tag(b"new"))
    changed = inodes[2]._replace(mtime=WALL + 1, ctime=WALL + 1)
    builder.emit(
        WireOp.MKDIR, flags=Flag.PATH | Flag.APART, inodes=(inodes[0], inodes[1], changed, made),
        payload=b"/elsewhere" + b"/x/.." * 200 + b"/y/../new",
    )  # fmt: skip
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.session.lost == {}
        assert reader.resolve(b"/opt/root/sub/new", 1)


def test_names_that_change_places(builder: TraceBuilder) -> None:
    """An exchange of two files of several names each, in two directories."""
    builder.link("sub/a", "sub/b")
    builder.rename("dir/a", "sub/a", flags=2)
    assert_told(builder)


def test_names_of_one_file_renamed_to_each_other(builder: TraceBuilder) -> None:
    """That does nothing, whatever the thread touched before."""
    builder.use("dir/a")
    builder.touched_before = ["dir/dir", "sub"]
    builder.rename("dir/a", "dir/b")
    assert_told(builder)


def test_what_nothing_tells_is_a_loss(tmp_path: Path) -> None:
    """One of two names of a file goes away, in either of two directories: nothing says which, and that is told."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"x/same/f": b"1", "y/same/f": {"link": "x/same/f"}})
    builder.begin()
    for path in ("x/same/new", "y/same/new"):
        builder.create(path)
    inodes = [builder.inode(path) for path in (b"/", "x/same", "y/same")]
    file = builder.inode("x/same/f")._replace(nlink=1)
    builder.emit(
        WireOp.UNLINK, flags=Flag.PATH | Flag.APART, inodes=(*inodes, file, STALE), payload=b"/elsewhere/same/f"
    )
    builder.end()
    with open_reader(builder.build()) as reader:
        assert sum(reader.session.lost.values()) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_a_directory_that_nobody_knows_is_a_loss(builder: TraceBuilder, others: int) -> None:
    """A call that touched a directory of which no one has said where it is may have been in that one."""
    table = (Mount(DEVICE, b"/", b"/", b"ext4"),)
    builder.emit(WireOp.MOUNTS, payload=Mounts(table, builder.roots).packed())
    unknown = builder.inode("sub")._replace(ino=4711)
    inodes = (builder.inode(b"/"), unknown, *[builder.inode("dir")] * others)
    builder.emit(
        WireOp.UNLINK, flags=Flag.PATH | Flag.APART, inodes=(*inodes, STALE), payload=b"/elsewhere/x/a"
    )
    builder.end()
    with open_reader(builder.build()) as reader:
        assert sum(reader.session.lost.values()) == 1


@pytest.mark.parametrize("seed", range(40))
def test_any_calls(tmp_path: Path, seed: int) -> None:
    """Random calls on few names in few directories: after each, the tree is what is there."""
    chance = random.Random(seed)
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"dir/dir/": None, "dir/a": b"1", "dir/b": {"link": "dir/a"}, "sub/a": b"2", "a": b"3"})
    builder.begin()
    builder.use(b"/", "", "dir", "dir/dir", "sub")
    builder.apart = random.Random(seed)
    truth: dict[int, Tree] = {}
    for _ in range(120):
        _call(builder, chance)
        truth[builder.seq] = true(builder)
    builder.end()
    with open_reader(builder.build()) as reader:
        assert reader.session.lost == {}
        for seq, tree in truth.items():
            assert recorded(reader, builder.roots[0], seq) == tree, f"after event {seq}"


def _call(builder: TraceBuilder, chance: random.Random) -> None:
    """Some call that succeeds, if the dice find one."""
    top = builder.roots[0]
    tree = [path[len(top) + 1 :] for path in builder.tree() if path != top]
    directories = [b"", *(path for path in tree if stat.S_ISDIR(builder.node(path).mode))]
    old = chance.choice(tree) if tree else b""
    new = (chance.choice(directories) + b"/" + chance.choice(NAMES).encode()).lstrip(b"/")
    call, there = chance.randrange(9), builder.exists(new)
    is_dir = bool(old) and stat.S_ISDIR(builder.node(old).mode)
    nested = (new + b"/").startswith(old + b"/") or (old + b"/").startswith(new + b"/")
    if call == 0 and not there:
        builder.create(new, b"x")
    elif call == 1 and not there:
        builder.mkdir(new)
    elif call == 2 and not there:
        builder.symlink("target", new)
    elif call == 3 and old and not is_dir and not there:
        builder.link(old, new)
    elif call == 4 and old and not is_dir:
        builder.unlink(old)
    elif call == 5 and is_dir and not builder.node(old).entries:
        builder.rmdir(old)
    elif call > 5 and old and not nested:
        if not there or (call == 6 and not is_dir and not stat.S_ISDIR(builder.node(new).mode)):
            builder.rename(old, new)
        elif call == 7:
            builder.rename(old, new, flags=2)
