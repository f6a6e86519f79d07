"""The read-only facade over a recorded trace: everything downstream of the store starts here.

Owns opening a trace (a recording that was cut off is indexed to its end first), what the
questions of users are, and nothing else: answers come from the store's reader, the spelling of
moments from `view.moments`, paths at a moment from `view.paths`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import UsageError
from .filtering import Filters, Spec
from .journal import JOURNAL, is_written, segments
from .model import NO_SEQ, Event, Mark, Moment, Op, Process, Session
from .paths import PathPatterns, paths_of
from .store.files import DATA_FILE
from .store.reader import Reader, open_reader
from .view import moments
from .view.paths import MomentPath
from .view.roots import Roots

if TYPE_CHECKING:
    from .diffing import Change

When = str | int | Moment
"""A moment as a caller gives it: a spelling, the number of the last event it includes, or a Moment."""

OpName = str | Op


def open_trace(path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None) -> Trace:
    """Open the trace at `path`. What of its journal is not indexed yet is indexed first, unless
    a recorder is at work on it. `progress` is told bytes done and bytes in all.

    Raises TraceMissingError, NotATraceError, TraceTooNewError, TraceDamagedError.
    """
    directory, recording = Path(path), False
    if _may_be_unfinished(directory):
        from .store import indexer  # a finished trace is opened without

        recording = is_written(directory / JOURNAL, unknown=False)
        if indexer.unfinished(directory, attempts=1 if recording else indexer.LOCK_ATTEMPTS):
            indexer.index(directory, progress=progress)
    return Trace(directory, open_reader(directory), recording=recording)


def _may_be_unfinished(trace_dir: Path) -> bool:
    """A journal that is indexed to its end has no segments."""
    try:
        return bool(segments(trace_dir / JOURNAL)) or not (trace_dir / DATA_FILE).exists()
    except OSError:
        return True


class Trace:
    """An open trace. A context manager; for one thread. `session` says what was recorded, and how well."""

    def __init__(self, path: Path, reader: Reader, *, recording: bool = False) -> None:
        self.path = path
        self.recording = recording
        """Whether a recorder was at work on it when it was opened: it is shown as far as it was indexed then."""
        self.reader = reader
        self.session: Session = reader.session
        self.layout = Roots(self.session.roots)
        self._millisecond = (-1, NO_SEQ)  # the last one asked for, and the last event in it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The recorded directories, absolute."""
        return self.layout.roots

    def marks(self) -> list[Mark]:
        """All marks in the order they were set."""
        return self.reader.marks()

    def processes(self) -> dict[int, Process]:
        """The recorded processes by pid; where a pid was used again, the last one."""
        return self.reader.processes()

    def problems(self) -> Iterator[str]:
        """What is wrong with the trace itself, one line each; nothing when it is healthy. Reads it all."""
        return self.reader.problems()

    def display(self, path: bytes) -> bytes:
        """`path` as people write it: relative to the root if there is one root and it is inside."""
        return self.layout.display(path)

    # -- moments -----------------------------------------------------------------------------

    def moment(self, when: When) -> Moment:
        """The moment meant. Raises MomentError when it is misspelt, unknown or out of range."""
        if isinstance(when, Moment):
            return when
        return moments.parse(self.reader, f"e{when}" if isinstance(when, int) else when)

    def at(self, when: When) -> MomentPath:
        """The top of the tree at a moment: the root itself, or with several roots what holds them all."""
        return MomentPath(self, self.moment(when), self.layout.top)

    def stamp(self, event: Event | int) -> str:
        """A pasteable spelling of the moment just after an event, given as such or by its number."""
        if isinstance(event, int):
            if event == NO_SEQ:
                return "start"
            event = self.reader.event(event)
        millisecond = event.time // moments.MILLISECOND
        if millisecond != self._millisecond[0]:
            self._millisecond = millisecond, self.reader.seq_at((millisecond + 1) * moments.MILLISECOND - 1)
        return moments.stamp(event, self._millisecond[1])

    def covered(self, when: When) -> tuple[int, int]:
        """First and last event that a spelling covers. Raises MomentError."""
        if isinstance(when, str):
            covered = moments.span(self.reader, when)
            return covered.first, covered.last
        seq = self.moment(when).seq
        return max(seq, 1), seq

    # -- events ------------------------------------------------------------------------------

    def events(
        self,
        since: When | None = None,
        until: When | None = None,
        path: str | bytes | None = None,
        op: OpName | Iterable[OpName] | None = None,
        pid: int | None = None,
        filters: Sequence[Spec] = (),
    ) -> Iterator[Event]:
        """The events from `since` to `until`, both included, that match all that is given.

        `path` is a glob as `diffkeeper.paths` has it: `*` also stands for `/`, a pattern without
        `/` means a name at any depth, and what is below a match matches. A renamed or linked file
        matches by either path. `filters`: name and options of filter plugins. Raises MomentError,
        UsageError for an unknown op, and PluginError.
        """
        first = self.covered(since)[0] if since is not None else 1
        last = self.covered(until)[1] if until is not None else self.reader.last_seq
        ops = _ops(op)
        matches = self.path_matcher([os.fsencode(path)]) if path is not None else None
        found = self._events(first, last, ops, pid, matches)
        return filter(Filters.of(self, filters).keeps, found) if filters else found

    def _events(
        self, first: int, last: int, ops: frozenset[Op] | None, pid: int | None,
        matches: Callable[[bytes], bool] | None,
    ) -> Iterator[Event]:  # fmt: skip
        for event in self.reader.events(first, last):
            if ops is not None and event.op not in ops:
                continue
            if pid is not None and event.pid != pid:
                continue
            if matches is not None and not any(matches(path) for path in paths_of(event)):
                continue
            yield event

    def path_matcher(self, patterns: Sequence[bytes]) -> Callable[[bytes], bool]:
        """Whether an absolute path, under a root or outside, matches one of these globs (all, if there are none)."""
        inside, outside = PathPatterns(patterns, self.roots), PathPatterns(patterns, [b"/"])
        known: dict[bytes, bool] = {}

        def matches(path: bytes) -> bool:
            found = known.get(path)
            if found is None:
                if len(known) >= 100_000:
                    known.clear()
                found = known[path] = bool(path) and (inside if self.layout.inside(path) else outside).match(path)
            return found

        return matches

    def diff(
        self, a: When, b: When, paths: Iterable[str | bytes] = (), filters: Sequence[Spec] = ()
    ) -> Iterator[Change]:
        """What changed from moment `a` to moment `b`, at most below `paths`; costs what the change costs.

        `filters`, as in `events`, leave out changes of paths that they reject, and those in which no event
        that they keep had a part. Raises MomentError and PluginError.
        """
        from .diffing import diff  # it needs this module

        return diff(self, self.moment(a), self.moment(b), tuple(paths), filters)


def _ops(given: OpName | Iterable[OpName] | None) -> frozenset[Op] | None:
    if given is None:
        return None
    labels = {op.label: op for op in Op}
    wanted = set()
    for name in [given] if isinstance(given, str | Op) else given:
        op = name if isinstance(name, Op) else labels.get(name.lower())
        if op is None:
            raise UsageError(f"there is no operation {name!r}; there are {', '.join(labels)}")
        wanted.add(op)
    return frozenset(wanted)


