"""The verification finds what was recorded wrong, wherever it has come to by the end; on a real directory."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from diffkeeper.progress import Silent
from diffkeeper.record.verify import Verifier
from diffkeeper.store.reader import open_reader
from diffkeeper.wire import WireOp, Wrong, records
from tests.builder import TraceBuilder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def stand(root: Path, builder: TraceBuilder, *, but: str = "", by: bytes = b"") -> None:
    """Make the directory what the trace will say, but for the content of one file."""
    for path, (mode, uid, gid, _, mtime, content) in sorted(builder.tree().items(), reverse=True):
        place = Path(os.fsdecode(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        if mode & 0o40000:
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(by if str(place.relative_to(root)) == but else content)
        os.chmod(place, mode & 0o7777)
        os.chown(place, uid, gid)
        os.utime(place, ns=(mtime, mtime))
    for path, entry in sorted(builder.tree().items(), reverse=True):
        os.utime(path, ns=(entry[4], entry[4]))


def verified(builder: TraceBuilder) -> tuple[int, list[bytes]]:
    """How many paths were compared, and the records that were made."""
    pieces: list[bytes] = []
    with open_reader(builder.build()) as reader:
        verifier = Verifier(reader, lambda made: pieces.extend(map(bytes, made)), lambda path, is_dir: True, 1)
        verifier.run(Silent())
        return verifier.paths, pieces


def test_nothing_wrong(root: Path, tmp_path: Path) -> None:
    """What is as recorded needs no record; what no event touched is not looked at."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"quiet": b"1", "other/": None, "other/quiet": b"2"})
    builder.begin()
    builder.write("quiet", b"new")
    builder.end()
    stand(root, builder)
    assert verified(builder) == (2, [])  # the file and the root


@pytest.mark.parametrize("further", ["", "there", "there/deep"])
def test_in_a_directory_that_was_moved(root: Path, tmp_path: Path, further: str) -> None:
    """A file is compared where it is at the end, although events name it by where it was when they came."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"one/": None, "one/two/": None, "there/": None, "there/deep/": None})
    builder.begin()
    builder.create("one/two/file", b"recorded")
    builder.rename("one", f"{further}/new".lstrip("/"))
    builder.end()
    wrong = f"{further}/new/two/file".lstrip("/")
    stand(root, builder, but=wrong, by=b"real one")
    _, pieces = verified(builder)
    assert any(wrong.encode() in piece for piece in pieces)


def test_what_no_event_names(root: Path, tmp_path: Path) -> None:
    """Where something had to be healed, what no event touched is looked at as well, by what stat() says of it."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"seen": b"1", "other/": None, "other/quiet": b"2", "other/same": b"3"})
    builder.begin()
    builder.write("seen", b"recorded")
    builder.end()
    stand(root, builder, but="seen", by=b"real one")
    os.chmod(root / "other/quiet", 0o600)
    paths, pieces = verified(builder)
    assert paths == 5
    assert any(b"other/quiet" in piece for piece in pieces)


def test_a_name_that_no_event_has(root: Path, tmp_path: Path) -> None:
    """What is in a directory where something changed, and has no name in the trace, is found."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"dir/": None, "dir/file": b"1"})
    builder.begin()
    builder.write("dir/file", b"new")
    builder.end()
    stand(root, builder)
    status = (root / "dir").stat()
    (root / "dir/found").write_bytes(b"x")
    os.utime(root / "dir", ns=(status.st_mtime_ns, status.st_mtime_ns))
    _, pieces = verified(builder)
    assert any(b"dir/found" in piece for piece in pieces)


def test_what_is_deeper_than_python_nests(root: Path, tmp_path: Path) -> None:
    """A directory in which 1,500 others lie in one another, and of which the trace knows nothing, is healed whole."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"quiet": b"1"})
    builder.begin()
    builder.write("quiet", b"recorded")
    builder.end()
    stand(root, builder)
    here = os.getcwd()
    os.chdir(root)
    for _ in range(1500):
        os.mkdir("deep")
        os.chdir("deep")
    os.chdir(here)
    try:
        paths, pieces = verified(builder)
    finally:
        subprocess.run(["rm", "-r", root / "deep"], check=True)  # pytest itself would fail at it
    assert paths == 3  # the root, the file, and the first of them: what is below goes with it
    assert sum(b"/deep" in piece for piece in pieces) == 1500


@pytest.mark.parametrize(
    ("change", "told", "with_content"),
    [
        (lambda path: None, Wrong(0), False),
        (lambda path: path.chmod(0o600), Wrong.MODE, False),
        (lambda path: os.chown(path, 7, 7), Wrong.OWNER, False),
        (lambda path: os.utime(path, (1, 1)), Wrong.TIMES, False),
        (lambda path: os.setxattr(path, "user.x", b"1"), Wrong.XATTRS, False),
        (lambda path: rewrite(path, b"other!"), Wrong.CONTENT, True),
        (lambda path: rewrite(path, b"longer than it was"), Wrong.CONTENT, True),
        (lambda path: path.write_bytes(b"other!"), Wrong.CONTENT | Wrong.TIMES, True),
        (lambda path: (path.unlink(), path.symlink_to("x")), Wrong.KIND, False),
        (lambda path: path.unlink(), Wrong.NAME, False),
    ],
)
def test_in_what_it_was_wrong(
    root: Path, tmp_path: Path, change: Callable[[Path], object], told: Wrong, with_content: bool
) -> None:
    """What is healed says in what it was wrong. The bytes of a file are told anew only where it is in these."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"file": b"1"})
    builder.begin()
    builder.write("file", b"wrote!")
    builder.end()
    stand(root, builder)
    status = root.stat()
    change(root / "file")
    os.utime(root, ns=(status.st_mtime_ns, status.st_mtime_ns))
    made = list(records(b"".join(verified(builder)[1])))
    assert [(record.op, Wrong(record.length)) for record in made if record.op != WireOp.CONTENT] == [
        (WireOp.HEAL, told) for _ in range(bool(told))
    ]
    assert any(record.op == WireOp.CONTENT for record in made) is with_content


def rewrite(path: Path, content: bytes) -> None:
    """Without another time."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def test_what_went_with_its_directory(root: Path, tmp_path: Path) -> None:
    """What the trace has in a directory that is gone went with it: no record of its own would make that anew."""
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"dir/": None, "dir/file": b"1"})
    builder.begin()
    builder.chmod("dir", 0o700)
    builder.end()
    stand(root, builder)
    subprocess.run(["rm", "-r", root / "dir"], check=True)
    _, pieces = verified(builder)
    assert [b"/dir" in piece for piece in pieces].count(True) == 1


def many_changes(builder: TraceBuilder, chance: random.Random) -> None:
    """Files and directories that come, change, move and go again."""
    names = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "f/a", "f/b"]
    for _ in range(80):
        one, two = chance.choice(names), chance.choice(names)
        above = two.rpartition("/")[0]
        if above and not builder.exists(above):
            for at, letter in enumerate(f"{above}/"):
                if letter == "/" and not builder.exists(above[:at]):
                    builder.mkdir(above[:at])
        there = builder.exists(one)
        what = chance.choice(["create", "write", "rename", "unlink", "move"])
        if what == "create" and not builder.exists(two):
            builder.create(two, b"new")
        elif what == "write" and there:
            builder.write(one, b"more")
        elif what == "rename" and there and one != two:
            builder.rename(one, two)
        elif what == "unlink" and there:
            builder.unlink(one)
        elif what == "move" and builder.exists("d") and not builder.exists("f"):
            builder.rename("d", "f")


@pytest.mark.parametrize("seed", range(20))
def test_of_many_paths_only_those_that_last_are_kept(
    root: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong at the end is found as if all that ever were had been kept."""
    chance = random.Random(seed)
    for module in ("blocks", "timeline"):
        monkeypatch.setattr(f"diffkeeper.store.{module}.BLOCK_EVENTS", 5)
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.baseline({"quiet": b"1", "d/": None, "d/quiet": b"2"})
    builder.begin()
    many_changes(builder, chance)
    builder.end()
    stand(root, builder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for path in chance.sample(files, len(files) // 3):
        changes: list[Callable[[], object]] = [path.touch, path.unlink, partial(path.chmod, 0o611)]
        chance.choice(changes)()
    (chance.choice([path for path in [root, *root.rglob("*")] if path.is_dir()]) / "found").touch()
    found = []
    for most in (1000, 3):
        monkeypatch.setattr("diffkeeper.store.blocks.MANY_PATHS", most)
        paths, pieces = verified(builder)
        told = records(b"".join(pieces))
        found.append((paths, sorted((each.op, each.length, bytes(each.payload)) for each in told if each.length)))
    assert found[0][1] == found[1][1] != []
    assert found[0][0] >= found[1][0] > 0


def test_what_has_gone_is_not_kept(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of temporary files, in directories that went as well, one set of a few is compared."""
    for module in ("blocks", "timeline"):
        monkeypatch.setattr(f"diffkeeper.store.{module}.BLOCK_EVENTS", 10)
    monkeypatch.setattr("diffkeeper.store.blocks.MANY_PATHS", 20)
    builder = TraceBuilder(tmp_path / "trace", (str(root),))
    builder.begin()
    for number in range(300):
        builder.mkdir(f"d{number}")
        builder.create(f"d{number}/new", b"x")
        builder.rename(f"d{number}/new", f"d{number}/file")
        builder.unlink(f"d{number}/file")
        builder.rmdir(f"d{number}")
    builder.create("last")
    builder.end()
    stand(root, builder)
    paths, pieces = verified(builder)
    assert not pieces
    assert paths < 50
