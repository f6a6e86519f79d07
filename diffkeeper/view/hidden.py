"""The mount's top directory, and `.diffkeeper/` in it with everything that is ours.

Owns the layout around the moments: which names are listed, the `latest` link, the `timeline` and
`status` files, `outside/` and the way to `history/`. Nothing of this can be seen in a moment.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from diffkeeper.errors import MomentError
from diffkeeper.model import Attrs, Event

from . import moments
from .history import history_top
from .recorded import At, moment_top, outside_top
from .tree import Entry, Handle, Kind, Place, directory_attrs

if TYPE_CHECKING:
    from diffkeeper.trace import Trace

HIDDEN_NAME = b".diffkeeper"
LATEST_NAME = b"latest"
LONGEST_NAME = 255

Status = Callable[[], Iterable[str]]
"""Lines about the mount itself, for the status file."""


class Moments(Place):
    """A directory with a directory for every moment, `@` and any spelling; listed are start, end and marks."""

    __slots__ = ("_top", "_trace")

    def __init__(self, trace: Trace, key: str, top: Callable[[Trace, At], Entry]) -> None:
        super().__init__((Kind.HIDDEN, key))
        self._trace, self._top = trace, top

    def attrs(self) -> Attrs:
        return directory_attrs(self._trace.session.started)

    def lookup(self, name: bytes) -> Entry | None:
        if not name.startswith(b"@"):
            return None
        try:
            moment = self._trace.moment(os.fsdecode(name))
        except MomentError:
            return None
        return self._top(self._trace, At(moment.seq, name))

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        marks = [(name, mark.seq) for name, mark in moments.listed_marks(self._trace.reader)]
        for spelling, seq in [("start", 0), ("end", self._trace.reader.last_seq), *marks]:
            name = b"@" + os.fsencode(spelling)
            if len(name) <= LONGEST_NAME and not {b"/", b"\0"} & {name[i : i + 1] for i in range(len(name))}:
                yield name, self._top(self._trace, At(seq, name))


class Top(Moments):
    """What is mounted: the moments, `latest`, and `.diffkeeper`, which is not listed."""

    __slots__ = ("_status",)

    def __init__(self, trace: Trace, status: Status) -> None:
        super().__init__(trace, "top", moment_top)
        self._status = status

    def lookup(self, name: bytes) -> Entry | None:
        if name == LATEST_NAME:
            return _entry(Latest(self._trace))
        if name == HIDDEN_NAME:
            return _entry(Hidden(self._trace, self._status))
        return super().lookup(name)

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        yield from super().children()
        yield LATEST_NAME, _entry(Latest(self._trace))


class Latest(Place):
    """The symlink to the last moment."""

    __slots__ = ("_trace",)

    def __init__(self, trace: Trace) -> None:
        super().__init__((Kind.HIDDEN, "latest"))
        self._trace = trace

    def attrs(self) -> Attrs:
        time, target = self._trace.session.started, b"@end"
        return Attrs(stat.S_IFLNK | 0o777, os.getuid(), os.getgid(), len(target), time, time, target=target)


class Hidden(Place):
    """`.diffkeeper`."""

    __slots__ = ("_places", "_trace")

    def __init__(self, trace: Trace, status: Status) -> None:
        super().__init__((Kind.HIDDEN, "hidden"))
        self._trace = trace
        self._places: dict[bytes, Place] = {
            b"history": history_top(trace),
            b"outside": Moments(trace, "outside", outside_top),
            b"status": Text(trace, "status", lambda: status_lines(trace, status)),
            b"timeline": Text(trace, "timeline", lambda: timeline_lines(trace)),
        }

    def attrs(self) -> Attrs:
        # For its owner alone: it tells names that recorded modes hide from others.
        return directory_attrs(self._trace.session.started, 4, 0o500)

    def lookup(self, name: bytes) -> Entry | None:
        place = self._places.get(name)
        return _entry(place) if place is not None else None

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        for name, place in self._places.items():
            yield name, _entry(place)


class Text(Place):
    """A file whose lines are made as they are read, for each descriptor anew. Its size is given as 0."""

    __slots__ = ("_lines", "_trace")
    live = True

    def __init__(self, trace: Trace, key: str, lines: Callable[[], Iterable[str]]) -> None:
        super().__init__((Kind.HIDDEN, key))
        self._trace, self._lines = trace, lines

    def attrs(self) -> Attrs:
        time = self._trace.session.started
        return Attrs(stat.S_IFREG | 0o444, os.getuid(), os.getgid(), 0, time, time)

    def open(self) -> Handle:
        spool = tempfile.SpooledTemporaryFile(1 << 20)
        lines = iter(self._lines())

        def read(offset: int, size: int) -> bytes:
            made = spool.seek(0, os.SEEK_END)
            while made < offset + size:
                line = next(lines, None)
                if line is None:
                    break
                made += spool.write(line.encode() + b"\n")
            spool.seek(offset)
            return spool.read(size)

        return Handle(read, spool.close)

    def read(self, offset: int, size: int) -> bytes:
        del offset, size
        self._refuse(errno.EBADF)  # only through open()


def _entry(place: Place) -> Entry:
    return Entry(place, place.attrs())


def timeline_lines(trace: Trace) -> Iterator[str]:
    """Each event in one line: moment, operation, path, and where they apply its new path, size, who did it."""
    return (_timeline_line(trace, event) for event in trace.events())


def _timeline_line(trace: Trace, event: Event) -> str:
    words = [f"{trace.stamp(event):>12}  {event.op.label:<11}"]
    if event.path:
        words.append(_one_line(trace.display(event.path)))
    if event.to is not None:
        words.append(f"-> {_one_line(event.to if event.op.label == 'symlink' else trace.display(event.to))}")
    if event.detail:
        words.append(_one_line(os.fsencode(event.detail)))
    if event.size is not None:
        words.append(f"{event.size} B" if event.offset is None else f"{event.size} B @{event.offset}")
    process = trace.reader.process_at(event.pid, event.seq)
    words.append(f" {_one_line(os.fsencode(process.comm))}[{event.pid}]" if process else f" [{event.pid}]")
    return " ".join(words)


def _one_line(text: bytes) -> str:
    shown = text.decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def status_lines(trace: Trace, status: Status) -> Iterator[str]:
    """What was recorded and how well, a fact a line."""
    session = trace.session
    yield f"trace: {_one_line(os.fsencode(os.path.abspath(trace.path)))}"
    yield f"command: {_one_line(os.fsencode(' '.join(session.command)))}"
    yield from (f"root: {_one_line(root)}" for root in trace.roots)
    yield f"events: {session.events}"
    unknown = "still being recorded when it was mounted" if trace.recording else "cut off"
    yield f"duration: {unknown if session.duration is None else moments.duration_text(session.duration)}"
    yield f"exit code: {'not known' if session.exit_code is None else session.exit_code}"
    yield f"lost: {sum(session.lost.values())}"
    yield from (f"lost to {_one_line(os.fsencode(cause))}: {count}" for cause, count in session.lost.items())
    yield f"mismatches: {'not verified' if session.verified_paths is None else session.mismatches}"
    yield f"changed from outside: {session.others}"
    yield from status()
