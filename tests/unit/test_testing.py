"""The conformance kits: each way to break a contract is told in a sentence."""

from __future__ import annotations

import itertools
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from diffkeeper import testing
from diffkeeper.exporting import Exported, Selection, entries, opened
from diffkeeper.model import Event, Op
from diffkeeper.plugins import Differ, EventFilter, Exporter
from diffkeeper.progress import Progress
from diffkeeper.trace import Trace

COUNTER = itertools.count()


class Copies(Differ):
    """A sound one, for the others to spoil."""

    name = "copies/1"

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return b"=" + target

    def apply(self, base: bytes, patch: bytes) -> bytes:
        return patch[1:]


class Nameless(Copies):
    name = "copies"


class Moody(Copies):
    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return bytes([next(COUNTER) % 256]) + target


class Forgetful(Copies):
    def apply(self, base: bytes, patch: bytes) -> bytes:
        return patch[1:-1]


class Idle(Copies):
    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return None


class Touchy(Copies):
    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return super().diff(base, bytes([target[0]]) + target[1:])


class Believing(Copies):
    size = struct.Struct("<Q")

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return self.size.pack(len(target)) + target

    def apply(self, base: bytes, patch: bytes) -> bytes:
        return patch[8 : 8 + int(self.size.unpack_from(patch)[0])]


class Keyed(Copies):
    def __init__(self, key: int = 0) -> None:
        self._key = key

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return b"=" + bytes(byte ^ self._key for byte in target)

    def apply(self, base: bytes, patch: bytes) -> bytes:
        return bytes(byte ^ self._key for byte in patch[1:])


class Needy(Copies):
    def __init__(self, key: int) -> None:
        pass


@pytest.mark.parametrize(
    ("differ", "said"),
    [
        (Nameless(), "the name 'copies' is not NAME/NUMBER"),
        (Moody(), "differs between calls"),
        (Forgetful(), "does not restore the target"),
        (Idle(), "never made a patch"),
        (Touchy(), "diff() must not raise: IndexError"),
        (Believing(), "a damaged patch must raise ValueError, or nothing: error: unpack_from"),
        (Keyed(key=3), "made without options does not restore the target"),
        (Needy(3), "has to be made without options"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_bad_differ_is_caught(differ: Differ, said: str) -> None:
    """What would lose contents, or fail on a damaged trace, does not get past the kit."""
    testing.check_differ(Copies())
    with pytest.raises(AssertionError) as caught:
        testing.check_differ(differ)
    assert said in str(caught.value)


class Once(EventFilter):
    """Keeps what it has not seen."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        new = path not in self._seen
        self._seen.add(path)
        return new


class Vague(EventFilter):
    def keep_path(self, path: bytes, is_dir: bool) -> Any:
        return len(path)


class Ascii(EventFilter):
    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        return path.decode("ascii") != ""


class UntilMark(EventFilter):
    """Its verdict hangs on what it was asked before."""

    _marked = False

    def keep(self, event: Event) -> bool:
        self._marked |= event.op is Op.MARK
        return not self._marked


class Large(EventFilter):
    def keep(self, event: Event) -> bool:
        return event.size > 3  # type: ignore[operator]  # the fault: most events have none


class Numbers(EventFilter):
    def settled(self, given: Mapping[str, str], read: object) -> Any:
        return {"most": 3}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Once(), "has changed its verdict"),
        (Vague(), "returned 0"),
        (Ascii(), "keep_path() must not raise: UnicodeDecodeError"),
        (UntilMark(), "has changed its verdict"),
        (Large(), "keep() must not raise: TypeError"),
        (Numbers(), "settled() returned {'most': 3}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_bad_filter_is_caught(bad: EventFilter, said: str) -> None:
    """One whose verdict hangs on order or chance, is none, or fails on names and events that there are."""
    testing.check_filter(EventFilter())
    with pytest.raises(AssertionError) as caught:
        testing.check_filter(bad)
    assert said in str(caught.value)


class Counts(Exporter):
    """A sound one, for the others to spoil."""

    streams = True

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        count = 0
        with opened(destination) as out:
            for count, _ in enumerate(entries(trace, selection), 1):
                progress.progress("exporting", count, 0)
            out.write(b"%d\n" % count)
            self.spoil(destination, out)
        return Exported(count, 0)

    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        pass


class Litters(Counts):
    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        Path("log").write_text("where I was started")


class Beside(Counts):
    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        if isinstance(destination, Path):
            destination.with_name("index").touch()


class LeavesTemporary(Counts):
    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        os.close(tempfile.mkstemp()[0])


class Chance(Counts):
    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        out.write(b"%d\n" % next(COUNTER))


class Seeks(Counts):
    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        out.seek(0)


class Closes(Counts):
    def spoil(self, destination: Path | BinaryIO, out: BinaryIO) -> None:
        out.close()


class SaysNothing(Counts):
    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Any:
        super().export(trace, selection, destination, progress)


class MakesNothing(Exporter):
    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        return Exported(0, 0)


class Stubborn(Exporter):
    """No progress, so nobody can stop it."""

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        with opened(destination) as out:
            out.write(b"done\n")
        return Exported(0, 0)


class FollowsLinks(Exporter):
    """Makes what is recorded, link or not, by path."""

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        assert isinstance(destination, Path)
        for entry in entries(trace, selection):
            path = destination / os.fsdecode(entry.path)
            if entry.attrs.is_symlink:
                path.symlink_to(os.fsdecode(entry.attrs.target))
            elif entry.attrs.is_dir:
                path.mkdir()
            progress.progress("exporting", 0, 0)
        for link in destination.iterdir():
            if link.is_symlink() and link.is_file():
                link.write_bytes(b"content")
        return Exported(0, 0)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Litters, "changed something outside its destination"),
        (Beside, "has made ['index', 'made'], and not only 'made'"),
        (LeavesTemporary, "changed something outside its destination"),
        (Chance, "two exports of @start differ"),
        (Seeks, "a stream takes writes, in order, and nothing else: UnsupportedOperation: seek"),
        (Closes, "has closed a stream"),
        (SaysNothing, "export() returned NoneType, not Exported"),
        (MakesNothing, "it has made nothing at its destination"),
        (Stubborn, "went on when its progress raised KeyboardInterrupt, or never told of any"),
        (FollowsLinks, "changed something outside its destination"),
    ],
)
def test_a_bad_exporter_is_caught(bad: type[Exporter], said: str, tmp_path: Path) -> None:
    """One that writes elsewhere, is not the same twice, takes a pipe for a file, or cannot be stopped."""
    (tmp_path / "sound").mkdir()
    testing.check_exporter(Counts, tmp_path / "sound")
    (tmp_path / "bad").mkdir()
    with pytest.raises(AssertionError) as caught:
        testing.check_exporter(bad, tmp_path / "bad")
    assert said in str(caught.value)
