"""Paths at a moment behave like pathlib's on the tree as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffkeeper
from diffkeeper.errors import PathError
from diffkeeper.trace import Trace
from diffkeeper.view.paths import MomentPath
from diffkeeper.view.roots import Roots
from tests.builder import TraceBuilder

LONG = bytes(range(256)) * 3000


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    builder = TraceBuilder(tmp_path_factory.mktemp("paths") / "trace")
    builder.baseline(
        {
            "a/b/deep.txt": b"deep\n", ".dot": b"",
            "a/plain": {"content": b"\xe9\r\n", "mode": 0o600, "uid": 3, "gid": 4, "mtime": 10**18 + 7},
            "here": {"target": "a/plain"}, "up": {"target": "a/b/../plain"}, "absolute": {"target": "/opt/root/a"},
            "away": {"target": "/etc"}, "beyond": {"target": "../../etc/passwd"}, "loop": {"target": "loop"},
            "broken": {"target": "nowhere"}, "out-and-in": {"target": "../root/a/plain"},
        }
    )  # fmt: skip
    builder.begin()
    builder.create("big", LONG, at=1.0)
    builder.unlink("a/plain", at=2.0)
    builder.mkfifo("pipe", at=2.0)
    builder.end()
    return diffkeeper.open(builder.build())


@pytest.fixture
def start(trace: Trace) -> MomentPath:
    return trace.at("start")


def test_content(start: MomentPath) -> None:
    """Bytes and text are what was recorded, line ends included."""
    assert (start / "a" / "plain").read_bytes() == b"\xe9\r\n"
    assert (start / "a/plain").read_text("latin-1") == "é\r\n"
    assert (start / b"./a//b/deep.txt").open().readlines() == ["deep\n"]


def test_moments_differ(trace: Trace) -> None:
    """The same path is there at one moment and gone at the next."""
    assert (trace.at("1s") / "a/plain").exists() and not (trace.at("2s") / "a/plain").exists()
    with pytest.raises(PathError, match=r"a/plain does not exist at @2s"):
        (trace.at("2s") / "a/plain").read_bytes()


def test_names(start: MomentPath) -> None:
    """name, parent, str, equality; the parent of the top is the top."""
    path = start / "a" / "plain"
    assert (path.name, str(path), path.path) == ("plain", "a/plain", b"/opt/root/a/plain")
    assert path.parent == start / "a" and start.parent == start and str(start) == "."
    assert len({path, start / "a/plain", start / "a"}) == 2
    assert start / "/opt/root/a" == start / "a"


def test_stat(start: MomentPath) -> None:
    """stat() is an os.stat_result with nanoseconds."""
    found = (start / "here").stat()
    assert isinstance(found, os.stat_result)
    assert (found.st_mode, found.st_uid, found.st_gid, found.st_size) == (0o100600, 3, 4, 3)
    assert (found.st_mtime_ns, found.st_mtime, found.st_nlink) == (10**18 + 7, 1e9, 1)
    assert (start / "here").lstat().st_size == len("a/plain")


def test_kinds(trace: Trace) -> None:
    """is_dir, is_file and is_symlink are as pathlib's: True for what a link leads to, False when nothing is there."""
    end = trace.at("end")
    kinds = {name: ((end / name).is_dir(), (end / name).is_file(), (end / name).is_symlink()) for name in
             ("a", "big", "here", "absolute", "none", "pipe", "a/b/deep.txt/x")}  # fmt: skip
    assert kinds == {
        "a": (True, False, False), "big": (False, True, False), "here": (False, False, True),
        "absolute": (True, False, True), "none": (False, False, False), "pipe": (False, False, False),
        "a/b/deep.txt/x": (False, False, False),
    }  # fmt: skip


def test_symlinks(start: MomentPath) -> None:
    """Links are followed in the recorded world, and never to the machine we are on."""
    for name in ("here", "up", "out-and-in", "absolute/plain"):
        assert (start / name).read_bytes() == b"\xe9\r\n"
    assert (start / "absolute/b/deep.txt").resolve() == start / "a/b/deep.txt"
    assert (start / "away").readlink() == "/etc"
    for name in ("away", "away/passwd", "beyond", "broken", "../..", "a/../../..", "/etc/passwd"):
        assert not (start / name).exists()
    with pytest.raises(PathError, match="symbolic links"):
        (start / "loop").read_bytes()
    with pytest.raises(PathError, match="is not a symbolic link"):
        (start / "a").readlink()


def test_wrong_kind(trace: Trace) -> None:
    """Opening a directory or a FIFO, listing a file: PathErrors, and no other mode than reading."""
    end = trace.at("end")
    for path, what in (("a", "is a directory"), ("pipe", "not a regular file")):
        with pytest.raises(PathError, match=what):
            (end / path).read_bytes()
    with pytest.raises(PathError, match="not a directory"):
        list((end / "big").iterdir())
    with pytest.raises(ValueError, match="read-only"):
        (end / "big").open("w")  # type: ignore[call-overload]  # mypy would not let anybody


def test_directories(start: MomentPath) -> None:
    """iterdir is sorted; walk goes down and can be steered; glob and rglob match as pathlib's."""
    assert [path.name for path in start.iterdir()][:3] == [".dot", "a", "absolute"]
    assert [(str(path), below, rest) for path, below, rest in (start / "a").walk()] == [
        ("a", ["b"], ["plain"]), ("a/b", [], ["deep.txt"])
    ]  # fmt: skip
    for top, below, _ in start.walk():
        assert str(top) in (".", "a")
        below[:] = [name for name in below if name != "b"]
    assert [str(path) for path in start.rglob("*.txt")] == ["a/b/deep.txt"]
    assert [str(path) for path in start.glob("*/b/d*")] == ["a/b/deep.txt", "absolute/b/deep.txt"]
    assert [str(path) for path in start.glob("a/**")] == ["a", "a/b"]
    with pytest.raises(ValueError, match="relative pattern"):
        list(start.glob("/a"))


@given(st.lists(st.tuples(st.integers(0, len(LONG) + 99), st.integers(0, 300_000)), max_size=5))
def test_files_are_seekable(trace: Trace, reads: list[tuple[int, int]]) -> None:
    """open("rb") is a real file: any seek and read gives the bytes there."""
    with (trace.at("end") / "big").open("rb") as file:
        assert file.readable() and file.seekable() and not file.writable()
        for offset, size in reads:
            file.seek(offset)
            assert file.read(size) == LONG[offset : offset + size]
        assert file.seek(-10, os.SEEK_END) == len(LONG) - 10 and file.read() == LONG[-10:]


def test_several_roots(tmp_path: Path) -> None:
    """With several roots the top holds the way to each, and nothing that was not recorded."""
    builder = TraceBuilder(tmp_path / "trace", roots=("/opt/one", "/opt/sub/two"))
    builder.baseline({"x": b"1", "/opt/sub/two/y": b"2"})
    builder.begin()
    builder.create("/opt/outside", b"3")
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        end = trace.at("end")
        assert [str(path) for path in (end / "opt").iterdir()] == ["/opt/one", "/opt/sub"]
        assert [str(found) for found, _, _ in end.walk()] == ["/", "/opt", "/opt/one", "/opt/sub", "/opt/sub/two"]
        assert (end / "opt/sub/two/y").read_bytes() == b"2"
        assert not (end / "opt/outside").exists()


def test_roots() -> None:
    """Which paths belong to a moment follows from the roots alone."""
    one, two, all_ = Roots([b"/a/b"]), Roots([b"/a/b", b"/c"]), Roots([b"/"])
    assert one.top == b"/a/b" and two.top == all_.top == b"/"
    assert [one.seen(path) for path in (b"/a/b", b"/a/b/c", b"/a", b"/a/bc", b"/")] == [True, True, False, False, False]
    assert [two.seen(path) for path in (b"/a/b/x", b"/a", b"/", b"/a/x")] == [True, True, True, False]
    assert all_.seen(b"/anything") and all_.display(b"/anything") == b"anything" and all_.display(b"/") == b"."
    assert two.ways == {b"/": (b"a", b"c"), b"/a": (b"b",)} and two.display(b"/c/x") == b"/c/x"
