"""The mount's tree without a mount: what is where, which inodes are shared, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffkeeper
from diffkeeper.model import Attrs
from diffkeeper.trace import Trace
from diffkeeper.view.hidden import Top
from diffkeeper.view.recorded import Gone
from diffkeeper.view.tree import TOP, Entry, Inodes, Place
from tests.builder import TraceBuilder


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    builder = TraceBuilder(tmp_path_factory.mktemp("tree") / "trace")
    builder.baseline({"same": b"1", "log": b"0", "dir/file": b"2", "link": {"target": "same"}})
    builder.begin()
    builder.write("log", b"1", at=1.0)  # e1
    builder.mark("e1", at=1.5)  # e2: reads like an event's number
    builder.rename("dir", "moved", at=2.0)  # e3
    builder.write("moved/file", b"3", at=3.0)  # e4
    builder.link("same", "twin", at=4.0)  # e5
    builder.create("/opt/outside", b"4", at=5.0)  # e6, e7
    builder.unlink("log", at=6.0)  # e8
    builder.create("log", b"new", at=7.0)  # e9, e10
    builder.mark("a/b", at=8.0)  # e11
    builder.end()
    with diffkeeper.open(builder.build()) as opened:
        yield opened


def find(trace: Trace, path: str) -> Entry | None:
    """Walk from the top by lookups, as a kernel does."""
    top = Top(trace, tuple)
    entry: Entry | None = Entry(top, top.attrs())
    for name in path.split("/"):
        assert entry is not None, path
        entry = entry.place.lookup(name.encode())
    return entry


def at(trace: Trace, path: str) -> Entry:
    entry = find(trace, path)
    assert entry is not None, path
    return entry


def names(entry: Entry) -> list[bytes]:
    return [name for name, _ in entry.place.children()]


def content(entry: Entry) -> bytes:
    return entry.place.read(0, 1 << 20)


def test_top(trace: Trace) -> None:
    """Listed are start, end, the marks that a name can hold, and latest; any moment can be looked up."""
    top = Top(trace, tuple)
    assert [name for name, _ in top.children()] == [b"@start", b"@end", b"@mark:e1", b"latest"]
    assert at(trace, "latest").attrs.target == b"@end"
    assert content(at(trace, "@2.5s/moved/file")) == b"2" == content(at(trace, "@e0/dir/file"))
    assert content(at(trace, "@mark:e1/log")) == b"01"
    for name in ("@1h", "@", "@nobody", "2s", "start", "@e12", "@ÿ"):
        assert find(trace, name) is None


def test_listed_entries_can_be_looked_up(trace: Trace) -> None:
    """Everything listed is the same place when looked up, all the way down, hidden directory included."""
    todo = [Entry(Top(trace, tuple), Top(trace, tuple).attrs()), at(trace, ".diffkeeper")]
    seen = 0
    while todo:
        directory = todo.pop()
        for name, entry in directory.place.children():
            found = directory.place.lookup(name)
            assert found is not None and found.place.key == entry.place.key and found.attrs == entry.attrs, name
            assert entry.place.attrs() == entry.attrs
            seen += 1
            if entry.attrs.is_dir:
                todo.append(entry)
    assert seen > 30


def test_unchanged_files_are_one_inode(trace: Trace) -> None:
    """A file version has one key in every moment and by every name; a changed one has another."""
    keys = [at(trace, f"{moment}/same").place.key for moment in ("@start", "@1s", "@3s")]
    assert len(set(keys)) == 1
    assert at(trace, "@4s/same").place.key == at(trace, "@end/twin").place.key != keys[0]
    assert at(trace, "@4s/same").attrs.nlink == 2
    assert at(trace, "@start/link").place.key == at(trace, "@end/link").place.key
    assert at(trace, "@start/log").place.key != at(trace, "@1s/log").place.key
    assert at(trace, "@start/dir/file").place.key == at(trace, "@2s/moved/file").place.key


def test_directories_are_not_shared(trace: Trace) -> None:
    """Each spelling of a moment has its own directories: sharing them, the kernel would move one to the other."""
    assert at(trace, "@start/dir").place.key != at(trace, "@1s/dir").place.key
    spellings = ("@2s", "@e3", "@00m:02s")
    assert len({at(trace, f"{spelling}/moved").place.key for spelling in spellings}) == len(spellings)


def test_outside(trace: Trace) -> None:
    """outside/@T holds what was seen elsewhere, without the root."""
    assert content(at(trace, ".diffkeeper/outside/@end/opt/outside")) == b"4"
    assert find(trace, ".diffkeeper/outside/@start/opt/outside") is None
    assert find(trace, ".diffkeeper/outside/@end/opt/root") is None
    assert find(trace, "@end/opt") is None


def test_history(trace: Trace) -> None:
    """history/PATH holds a file's versions, through a rename above it and a new file of the same name."""
    assert names(at(trace, ".diffkeeper/history/log")) == [b"e00", b"e01", b"e09", b"e10"]
    assert names(at(trace, ".diffkeeper/history/dir/file")) == [b"e00"]
    assert names(at(trace, ".diffkeeper/history/moved/file")) == [b"e03", b"e04"]
    assert content(at(trace, ".diffkeeper/history/moved/file/e3")) == b"2"
    assert at(trace, ".diffkeeper/history/log/e01").place.key == at(trace, "@e1/log").place.key
    assert content(at(trace, ".diffkeeper/history/log/e5")) == b"01"
    for path in ("log/e8", "log/e99999999999999999999", "dir/file/e3", "nothing", "log/x"):
        assert find(trace, f".diffkeeper/history/{path}") is None
    assert set(names(at(trace, ".diffkeeper/history"))) == {b"same", b"log", b"dir", b"moved", b"link", b"twin"}


def test_live_files(trace: Trace) -> None:
    """timeline has a line an event that begins with its stamp; a reader may go back."""
    read, close = at(trace, ".diffkeeper/timeline").place.open()
    lines = read(0, 1 << 20).decode().splitlines()
    assert [line.split()[0] for line in lines] == [trace.stamp(event) for event in trace.events()]
    assert read(0, 10) == lines[0][:10].encode() and read(1 << 20, 10) == b""
    close()
    read, close = at(trace, ".diffkeeper/status").place.open()
    status = read(0, 4096).decode()
    close()
    assert "root: /opt/root\n" in status and "events: 11\n" in status


def test_errors(trace: Trace) -> None:
    """What a file cannot do is the errno a file has for it."""
    with pytest.raises(NotADirectoryError):
        at(trace, "@end/same").place.lookup(b"x")
    with pytest.raises(NotADirectoryError):
        at(trace, "@end/same").place.children()
    with pytest.raises(IsADirectoryError):
        at(trace, "@end").place.read(0, 1)


def test_several_roots_and_a_root_that_goes(tmp_path: Path) -> None:
    """With several roots a moment has each at its absolute path; a root that is gone is not there."""
    builder = TraceBuilder(tmp_path / "trace", roots=("/opt/one", "/opt/two"))
    builder.baseline({"x": b"1"})
    builder.begin()
    builder.create("/opt/stray", b"", at=1.0)
    builder.rmdir("/opt/two", at=2.0)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        assert names(at(trace, "@start")) == [b"opt"]
        assert names(at(trace, "@1s/opt")) == [b"one", b"two"] and names(at(trace, "@2s/opt")) == [b"one"]
        assert find(trace, "@1s/opt/stray") is None
        assert content(at(trace, "@start/opt/one/x")) == b"1"
        assert names(at(trace, ".diffkeeper/history/opt")) == [b"one", b"two"]


def test_the_root_is_deleted(tmp_path: Path) -> None:
    """A moment after the root was deleted is an empty directory, as no entry can be missing there."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({})
    builder.begin()
    builder.rmdir("/opt/root", at=1.0)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        assert isinstance(at(trace, "@end").place, Gone) and names(at(trace, "@end")) == []
        assert not isinstance(at(trace, "@start").place, Gone)


class Named(Place):
    """Nothing but a key."""

    def attrs(self) -> Attrs:
        return Attrs(0o40755)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3))))
def test_inodes_are_counted(steps: list[tuple[int, int]]) -> None:
    """An inode lives exactly while the kernel holds references to it, and has one number meanwhile."""
    inodes, told = Inodes(Named("top")), dict.fromkeys(range(6), 0)
    for key, forgets in steps:
        inode = inodes.tell(Named(key), TOP)
        told[key] += 1
        assert inodes[inode.number] is inode and inode.place.key == key and inode.parent == TOP < inode.number
        inodes.forget(inode.number, min(forgets, told[key]))
        told[key] -= min(forgets, told[key])
        assert len(inodes) == 1 + sum(1 for count in told.values() if count)
    inodes.forget(TOP, 99)
    assert inodes[TOP].place.key == "top"


def test_numbers_that_collide() -> None:
    """Two places whose keys have one hash get two numbers."""
    inodes = Inodes(Named("top"))
    keys = ((1 << 61) - 1, 0, 1, 1 << 61, 2)  # hash() is modulo 2**61 - 1
    numbers = {inodes.tell(Named(key), TOP).number for key in keys}
    assert len(numbers) == 5 and min(numbers) > TOP
