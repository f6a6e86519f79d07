"""Conformance kits for plugin authors: what every differ, filter and exporter must do.

Each kit is one function that a plugin's own tests call; it raises AssertionError with a sentence
that says what is wrong. `sample_trace` makes a small trace of awkward files, without a kernel, for
exporters to work on. Kits check the contract of `diffkeeper.plugins`, not whether a plugin is good.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

import diffkeeper

from .exporting import Selection, export
from .journal import JournalWriter
from .model import Event, Op, Session
from .plugins import Differ, EventFilter, Exporter
from .progress import Silent
from .store import indexer
from .store.session import FORMAT, write_facts
from .wire import Flag, Inode, WireOp, encode

SAMPLE_ROOT = b"/sample/root"
STARTED = 1_700_000_000_123_456_789
"""CLOCK_REALTIME of the sample trace's start, in ns."""
_DEVICE = 0x800001


def check_differ(differ: Differ) -> None:
    """A differ must round-trip, be deterministic, and refuse a damaged patch with ValueError or wrong bytes."""
    name = getattr(differ, "name", "")
    assert re.fullmatch(r"[^/\s]+/[0-9]+", name), f"the name {name!r} is not NAME/NUMBER"
    with _no_error("a differ has to be made without options, to read"):
        reader = type(differ)()
    made = 0
    for base, target in _contents():
        with _no_error("diff() must not raise"):
            patch, again = differ.diff(base, target), differ.diff(base, target)
        assert patch is None or isinstance(patch, bytes), f"diff() returned {type(patch).__name__}"
        assert patch == again, "diff() of the same contents differs between calls"
        if patch is None:
            continue
        made += 1
        for who, what in ((differ, "apply()"), (reader, "apply() of a differ that was made without options")):
            with _no_error(f"{what} must not raise for a sound patch"):
                assert who.apply(base, patch) == target, f"{what} does not restore the target"
        for damaged in (b"", patch[: len(patch) // 2], bytes([patch[0] ^ 0xFF]) + patch[1:], patch[:-1] + b"\xff" * 9):
            with _no_error("apply() of a damaged patch must raise ValueError, or nothing"), suppress(ValueError):
                differ.apply(base, damaged)
    assert made, "diff() never made a patch, not even for an edit in the middle of 20 KiB of text"


@contextmanager
def _no_error(what: str) -> Iterator[None]:
    """What is raised inside is told as what is wrong."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def _contents() -> Iterator[tuple[bytes, bytes]]:
    chance = random.Random(7)  # noqa: S311 - the same every time is the point
    text = b"".join(b"line %d of %d\n" % (line, chance.randrange(1000)) for line in range(1000))
    noise = chance.randbytes(20_000)
    yield text, text[:9000] + b"an edit\n" + text[9100:]
    yield noise, noise[10_000:] + noise[:10_000]
    yield noise, bytes(byte ^ (1 if at % 100 == 0 else 0) for at, byte in enumerate(noise))
    yield noise, chance.randbytes(20_000)
    yield text, b""
    yield b"", text
    yield b"\0", b"\1"
    yield bytes(70_000), bytes(70_001)


def check_filter(made: EventFilter) -> None:
    """A filter must give booleans, the same for the same question; about paths in whatever order it is asked.

    It is shown a small trace, as `timeline`, `diff` and `export` do before they ask about events.
    """
    with _no_error("settled() must not raise"):
        options = made.settled({}, lambda _name: [])
    assert all(isinstance(word, str) for item in options.items() for word in item), f"settled() returned {options!r}"
    paths = [b"", b"a", b"a/b.o", b"/abs/olute", b"dir/sub/file.log", b"odd\xff\n name", b"." * 200, b"src/main.c"]
    questions = [(path, is_dir) for path in paths for is_dir in (False, True)]
    with _no_error("keep_path() must not raise"):
        first = {question: made.keep_path(*question) for question in questions}
        for question, verdict in first.items():
            assert isinstance(verdict, bool), f"keep_path{question} returned {verdict!r}"
        for question in reversed(questions):
            assert made.keep_path(*question) is first[question], f"keep_path{question} has changed its verdict"
    events = [
        Event(seq, seq * 1000, op, 100, SAMPLE_ROOT + b"/" + path, size=10, offset=0)
        for seq, (op, path) in enumerate(((op, path) for op in Op for path in paths), 1)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="diffkeeper-check-") as place,
        diffkeeper.open(sample_trace(Path(place) / "trace")) as trace,
    ):
        with _no_error("begin() must not raise"):
            made.begin(trace)
        shown = [*trace.events(), *events]
        with _no_error("keep() must not raise"):
            verdicts = [made.keep(event) for event in shown]
            for event, verdict in zip(shown, verdicts, strict=True):
                assert isinstance(verdict, bool), f"keep({event}) returned {verdict!r}"
                assert made.keep(event) is verdict, f"keep({event}) has changed its verdict"


def check_exporter(make: Callable[[], Exporter], directory: Path) -> None:
    """An exporter must write to its destination and nowhere else, twice the same, and leave nothing when it fails.

    `make` makes a new exporter; `directory` is an empty directory to work in.
    """
    directory = directory.resolve()
    fence = directory / "fence"
    (fence / "out").mkdir(parents=True)
    (fence / "here").mkdir()
    (fence / "victim").write_bytes(b"must stay as it is")
    trace_path = sample_trace(directory / "trace", escape=os.fsencode(fence))
    before = _fingerprint(fence)
    with diffkeeper.open(trace_path) as trace, _at_home(fence / "here"):
        for when in ("start", "end"):
            selection = Selection(trace.moment(when))
            made = [fence / "out" / f"{when}{number}" for number in (1, 2)]
            for path in made:
                with _no_error(f"an export of @{when} must not fail"):
                    export(make(), trace, selection, path, Silent())
            outside = {path: what for path, what in _fingerprint(fence).items() if not path.startswith(b"out/")}
            assert outside == {path: what for path, what in before.items() if path != b"out/"}, (
                "the export has changed something outside its destination"
            )
            one, other = (_fingerprint(path) for path in made)
            assert one == other, f"two exports of @{when} differ"
            if make().streams and made[0].is_file():
                stream = _Stream()
                with _no_error("a stream takes writes, in order, and nothing else"):
                    export(make(), trace, selection, stream, Silent())
                assert not stream.closed, "the exporter has closed a stream that it was given"
                assert stream.getvalue() == made[0].read_bytes(), f"a stream of @{when} gets other bytes than a file"
        beside = fence / "here" / "beside"
        beside.mkdir()
        make().export(trace, Selection(trace.moment("end")), beside / "made", Silent())
        there = sorted(os.listdir(beside))
        assert there == ["made"], f"the exporter has made {there}, and not only 'made'"
        failing = fence / "out" / "failing"
        try:
            export(make(), trace, Selection(trace.moment("end")), failing, _Interrupt())
        except KeyboardInterrupt:
            assert not os.path.lexists(failing), "an export that was interrupted has left a destination"
        else:
            raise AssertionError("an export went on when its progress raised KeyboardInterrupt, or never told of any")
    left = sorted(os.listdir(fence / "out"))
    assert left == ["end1", "end2", "start1", "start2"], f"unexpected names beside the destinations: {left}"


@contextmanager
def _at_home(directory: Path) -> Iterator[None]:
    """With `directory` to work in, and for temporary files: what is left there shows."""
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        with chdir(directory):
            yield
    finally:
        tempfile.tempdir = before


def sample_trace(path: Path, escape: bytes = b"/nowhere") -> Path:
    """Make an indexed trace of awkward names, modes, links and a few changes at `path`, which must not exist.

    Its symlinks lead to `escape`. Returns `path`.
    """
    path.mkdir(mode=0o700)
    roots = (SAMPLE_ROOT,)
    write_facts(path, Session(FORMAT, diffkeeper.__version__, ("sample",), *roots, roots, os.fsencode(path), STARTED))
    writer = JournalWriter(path / "journal")
    writer.append(b"".join(_records(escape)))
    writer.close()
    indexer.index(path)
    return path


def _records(escape: bytes) -> Iterator[bytes]:
    for ino, (name, mode, content) in enumerate(_sample_files(escape), 2):
        where = SAMPLE_ROOT + (b"/" + name if name else b"")
        mtime = STARTED - ino * 1_000_000_001
        inode = Inode(ino, _DEVICE, 1, len(content), mtime, mtime, mode=mode, uid=os.getuid(), gid=os.getgid())
        target = content if stat.S_ISLNK(mode) else b""
        yield encode(WireOp.SNAPSHOT, inodes=(inode,), offset=ino, payload=where + b"\0" + target + b"\0")
        if stat.S_ISREG(mode) and content:
            yield encode(WireOp.CONTENT, length=ino, payload=content)
        if name == b"plain":
            again = where + b"-linked\0" + where + b"\0"
            yield encode(WireOp.SNAPSHOT, flags=Flag.LINK, inodes=(inode,), payload=again)
    root = Inode(2, _DEVICE, 1, mode=stat.S_IFDIR | 0o755)
    yield encode(WireOp.BEGIN, time=10, pid=100, offset=STARTED)
    yield encode(WireOp.BIND, time=10, pid=100, inodes=(root,), payload=b"root\0sample\0")
    yield encode(WireOp.RENAME, time=20, pid=100, flags=Flag.PATH, inodes=(root, root), payload=b"dir\0moved\0")
    yield encode(WireOp.SYMLINK, time=30, pid=100, flags=Flag.PATH, inodes=(root,), payload=b"dir\0" + escape + b"\0")
    yield encode(WireOp.UNLINK, time=40, pid=100, flags=Flag.PATH, inodes=(root,), payload=b"plain")
    yield encode(WireOp.END, time=50, pid=100)


def _sample_files(escape: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(path, mode, content or target), parents first."""
    directory, file, link = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK
    yield b"", directory | 0o755, b""
    yield b"plain", file | 0o640, b"two names\n" * 1000
    yield b"empty", file | 0o644, b""
    yield b"locked", file | 0o000, b"nobody may read this"
    yield b"suid", file | 0o4755, b"#!/bin/true\n"
    for name in (b"-rf", b" ", b"new\nline", b"\xff\xfe not UTF-8", b"*?[a]", b"...", b"n" * 255, b"victim"):
        yield name, file | 0o644, name
    yield b"dir", directory | 0o555, b""
    yield b"dir/inner", directory | 0o300, b""
    yield b"dir/inner/file", file | 0o444, bytes(5000) + b"end"
    yield b"dir/victim", file | 0o644, b"not the one outside"
    yield b"up", link | 0o777, b"../../../victim"
    yield b"out", link | 0o777, escape
    yield b"out-file", link | 0o777, escape + b"/victim"
    yield b"loop", link | 0o777, b"loop"
    yield b"fifo", stat.S_IFIFO | 0o600, b""


class _Stream(io.BytesIO):
    """Like a pipe: takes writes in order, and nothing else."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")

    def truncate(self, *_: object) -> int:
        raise io.UnsupportedOperation("truncate")


class _Interrupt(Silent):
    """A user who gives up in the middle."""

    def __init__(self) -> None:
        self._calls = 0

    def progress(self, label: str, done: int, total: int) -> None:
        del label, done, total
        self._calls += 1
        if self._calls == 3:
            raise KeyboardInterrupt


def _fingerprint(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Path below `top` -> everything that an export has to leave alone, or to make alike."""
    found: dict[bytes, tuple[object, ...]] = {}
    pending = [os.fsencode(top)]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        content: object = None
        if stat.S_ISDIR(status.st_mode):
            pending += [path + b"/" + name for name in os.listdir(path)]
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
        name = path[len(os.fsencode(top)) + 1 :] + (b"/" if stat.S_ISDIR(status.st_mode) else b"")
        mtime = 0 if name in (b"", b"out/") else status.st_mtime_ns  # a single file is as old as the export
        found[name] = (status.st_mode, status.st_uid, status.st_gid, mtime, status.st_nlink, content)
    return found
