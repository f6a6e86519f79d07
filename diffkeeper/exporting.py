"""What is exported, and how an export comes to stand at its destination.

Owns `Selection` (which part of a trace), `entries` (it as a stream of files, the order and the
names that every exporter shares) and `export`, which runs an exporter in a private directory
beside the destination and moves the result there when it is whole. The events of a selection are
`diffkeeper.happenings`; formats are exporters'.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from . import partial
from .errors import DestinationError, DiffKeeperError, PathError, PluginError, TraceDamagedError, UsageError
from .filtering import Filters
from .model import Attrs, Fidelity, Moment
from .partial import remove_tree
from .paths import PathPatterns
from .view.roots import join

if TYPE_CHECKING:
    from .plugins import Exporter
    from .progress import Progress
    from .store.reader import Reader
    from .trace import Trace

CHUNK = 1 << 20
"""Most bytes of content that are in memory at once."""


class Selection(Struct, frozen=True):
    """Which part of a trace: what stands at `moment`, and of that what matches `paths` (all if empty).

    Of a range: the events from number `first` to the moment. `filters`: name and options of filter
    plugins, all of which must keep a path (and an event).
    """

    moment: Moment
    paths: tuple[bytes, ...] = ()
    first: int = 1
    filters: tuple[tuple[str, Mapping[str, str]], ...] = ()


class Entry(Struct, frozen=True):
    """One name in an export, parents before children, siblings sorted by bytes.

    `path` is relative to the destination, safe to join (no empty, `.` or `..` part), and empty for
    the destination itself. `link`: the path of an earlier entry that is the same file.
    """

    path: bytes
    node: int
    attrs: Attrs
    link: bytes | None = None


class Exported(Struct, frozen=True):
    """What an exporter has written. `entries`: how many of its `unit`. `size`: bytes of content.

    `notes`: what is not as recorded, a line each. `damaged`: what had to be left out because it cannot be read,
    a line each that begins with its path.
    """

    entries: int
    size: int
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


class Meter:
    """Adds up what is done and tells a Progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, amount: int) -> None:
        self._done += amount
        self._progress.progress("exporting", self._done, self._total)


def export(
    exporter: Exporter, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress, *,
    resume: bool = False,
) -> Exported:  # fmt: skip
    """Run an exporter; the destination appears only when it is whole.

    With `resume` what was made until an export is stopped is kept beside the destination, and the next one
    that is the same goes on from there.
    Raises DestinationError when the destination exists or cannot be written, PluginError for a bug of the
    exporter, and what else it raises on purpose; nothing is left behind then, except what has gone down a stream.
    """
    if not exporter.of_range and (judges := Filters.of(trace, selection.filters, only_paths=True).only_events()):
        raise UsageError(f"the filter {judges[0]!r} judges events, and this format holds what stood at a moment")
    try:
        if not isinstance(destination, Path):
            if not exporter.streams:
                raise UsageError("this format cannot be written to standard output; give --out a path, or --format tar")
            if resume:
                raise UsageError("what goes to standard output cannot be resumed")
            return _run(exporter, trace, selection, destination, progress)
        if resume and not exporter.resumes:
            raise UsageError("this format cannot be resumed; export it without --resume")
        return _beside(exporter, trace, selection, destination, progress, resume)
    except (DiffKeeperError, OSError):
        raise
    except Exception as error:  # somebody's code, and a bug in it
        name, why = exporter.given[0] or type(exporter).__qualname__, f"{type(error).__name__}: {error}".rstrip(": ")
        raise PluginError(f"the exporter {name!r} failed ({why}); tell those who made it") from error
    finally:
        progress.finish()


def _run(
    exporter: Exporter, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress
) -> Exported:
    """Somebody's code may also forget what it has to do."""
    result = exporter.export(trace, selection, destination, progress)
    if not isinstance(result, Exported):
        raise TypeError(f"export() returned {type(result).__name__}, not Exported")
    if isinstance(destination, Path) and not os.path.lexists(destination):
        raise RuntimeError("it has made nothing at its destination")
    return result


def _beside(
    exporter: Exporter, trace: Trace, selection: Selection, destination: Path, progress: Progress, resume: bool
) -> Exported:
    shown = str(destination)
    if os.path.lexists(destination):
        raise DestinationError(f"{shown} exists already; remove it, or give another --out")
    try:
        if resume:
            private = partial.take_up(destination, partial.identity(exporter, trace, selection))
        else:
            private = Path(tempfile.mkdtemp(prefix=".diffkeeper-export-", dir=destination.parent))
    except OSError as error:
        raise DestinationError(f"cannot write to {destination.parent}: {error.strerror}") from error
    keep = resume
    try:
        (private / partial.MADE).mkdir(exist_ok=True)
        made = private / partial.MADE / destination.name
        result = _run(exporter, trace, selection, made, progress)
        _move(made, destination)
        keep = False
        return result
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DestinationError(f"cannot export to {shown}: {error.strerror or error}") from error
    finally:
        if not keep:
            remove_tree(private)


def _move(made: Path, destination: Path) -> None:
    """Give what was made its name, never in place of something else."""
    try:
        status = os.lstat(made)
        if not stat.S_ISDIR(status.st_mode):
            os.link(made, destination, follow_symlinks=False)
            return
        # Moving a directory changes its "..", for which an owner who is not root must be able to write to it.
        os.chmod(made, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        os.rename(made, destination)  # fails unless there is nothing, or an empty directory
        os.chmod(destination, stat.S_IMODE(status.st_mode))
    except FileExistsError as error:
        raise DestinationError(f"{destination} has appeared meanwhile; give another --out") from error


@contextmanager
def opened(destination: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The destination of a format that is one file, to write to: made, or the stream that was given."""
    if isinstance(destination, Path):
        with open(destination, "xb") as file:
            yield file
    else:
        yield destination


def weight(trace: Trace, selection: Selection) -> int:
    """The work an export is, in the units of `cost`."""
    return sum(cost(entry) for entry in entries(trace, selection))


def cost(entry: Entry) -> int:
    """Bytes of content, and something for the name."""
    return 4096 + (entry.attrs.size if entry.attrs.is_file and entry.link is None else 0)


def fidelity_note(inexact: int) -> tuple[str, ...]:
    """The note for that many files whose recorded bytes are not certain."""
    return (f"{inexact} files may differ from what stood there (see 'diffkeeper info')",) if inexact else ()


def is_exact(entry: Entry) -> bool:
    return entry.attrs.is_dir or entry.attrs.fidelity is Fidelity.EXACT


def entries(trace: Trace, selection: Selection, *, may_be_empty: bool = False) -> Iterator[Entry]:
    """Everything selected, streaming. One root: its content is the destination's; several: each at its absolute path.

    A directory above something selected is there too. Raises PathError when nothing is selected, unless that may be.
    """
    nothing = not may_be_empty
    for entry in _Walk(trace, selection).entries():
        nothing = False
        yield entry
    if nothing:
        what = b" ".join(selection.paths or trace.roots).decode("utf-8", "backslashreplace")
        raise PathError(f"there is nothing at {what} at the moment @{selection.moment.name}")


def content(reader: Reader, entry: Entry, seq: int) -> Iterator[tuple[int, bytes]]:
    """The data of a regular file as (offset, bytes), ascending; what lies between is zeroes."""
    for start, length in reader.extents(entry.node, seq):
        end = min(start + length, entry.attrs.size)
        for at in range(start, end, CHUNK):
            data = reader.read(entry.node, seq, at, min(CHUNK, end - at))
            if len(data) != min(CHUNK, end - at):
                raise TraceDamagedError(f"damaged trace: {entry.path!r} ends at byte {at + len(data)}, before its size")
            yield at, data


class _Open(Struct):
    """A directory that the walk is in. `inside`: all in it is selected. `given`: its entry was yielded."""

    path: bytes
    entry: Entry
    children: Iterator[tuple[bytes, int]]
    inside: bool
    given: bool


class _Walk:
    """One walk over the roots; remembers the first path of each file with several names."""

    def __init__(self, trace: Trace, selection: Selection) -> None:
        self._reader, self._seq = trace.reader, selection.moment.seq
        self._layout = trace.layout
        self._patterns = PathPatterns(selection.paths, trace.roots)
        self._keeps = Filters.of(trace, selection.filters, only_paths=True).keeps_path
        self._first: dict[int, bytes] = {}
        self._directories: set[int] = set()

    def entries(self) -> Iterator[Entry]:
        stack: list[_Open] = []
        node = self._reader.resolve(self._layout.top, self._seq)
        found = [(self._layout.top, node)] if node is not None else []
        while found or stack:
            if not found:
                try:
                    name, node = next(stack[-1].children)
                except StopIteration:
                    stack.pop()
                    continue
                found = [(_below(stack[-1].path, name), node)]
            path, node = found.pop()
            entry = self._entry(path, node)
            if stack and not self._keeps(path, entry.attrs.is_dir):
                continue
            inside = bool(stack and stack[-1].inside) or self._is_selected(path)
            if inside:
                for above in stack:
                    if not above.given:
                        above.given = True
                        yield above.entry
                if not entry.attrs.is_dir and entry.attrs.nlink > 1:
                    self._first.setdefault(node, entry.path)
                yield entry
            if entry.attrs.is_dir:
                if node in self._directories:
                    raise TraceDamagedError(f"damaged trace: the directory {path!r} is in two places at once")
                self._directories.add(node)
                stack.append(_Open(path, entry, self._children(path, node), inside, inside))
            elif not stack:
                raise PathError(f"{path!r} is not a directory at this moment")

    def _is_selected(self, path: bytes) -> bool:
        if path in self._layout.ways:
            return False
        return self._patterns.match(path) if path in self._layout.roots else self._patterns.match_itself(path)

    def _children(self, path: bytes, node: int) -> Iterator[tuple[bytes, int]]:
        if path in self._layout.ways:
            for name in self._layout.ways[path]:
                child = self._reader.lookup(node, name, self._seq)
                if child is not None:
                    yield name, child
            return
        yield from self._reader.children(node, self._seq)

    def _entry(self, path: bytes, node: int) -> Entry:
        name = path.rpartition(b"/")[2]
        if name in (b".", b"..") or b"\0" in name:
            raise TraceDamagedError(f"damaged trace: the impossible name {path!r}; run 'diffkeeper check'")
        attrs = self._reader.attrs(node, self._seq)
        if attrs is None:
            raise TraceDamagedError(f"damaged trace: {path!r} has no attributes; run 'diffkeeper check'")
        inner = path[len(self._layout.top) :].lstrip(b"/")
        return Entry(inner, node, attrs, self._first.get(node))


def _below(directory: bytes, name: bytes) -> bytes:
    if not name or b"/" in name:
        raise TraceDamagedError(f"damaged trace: {directory!r} holds the impossible name {name!r}")
    return join(directory, name)
