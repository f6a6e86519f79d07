"""The events of a selection, for exporters that show what happened and not only what stands.

Owns which events belong to a range, `Ends`: after which of them files are settled, and `Steps`: how the
tree of files changes from one event to another, as paths that are gone and paths where something new
stands, and what stood there before.
Nothing of the tree is kept: the trace is asked. What a moment holds is `diffkeeper.exporting`; what
changed between two moments, `diffkeeper.diffing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct, field

from .diffing import Kind, diff
from .errors import TraceDamagedError
from .exporting import Entry, Meter, Selection, entries
from .filtering import Filters
from .model import Attrs, Event, Moment, Op
from .paths import paths_of
from .view.roots import join

Standing = tuple[bytes, int, Attrs]
"""What stands at a path, relative as `Entry.path`: a file or whatever is no directory."""

if TYPE_CHECKING:
    from .progress import Progress
    from .trace import Trace

ALWAYS = frozenset({Op.MARK, Op.GAP})
"""Events that no choice of paths leaves out: what was named, and what is not known."""

NO_FILES = frozenset({Op.FORK, Op.EXEC, Op.EXIT, Op.MARK, Op.GAP})
"""Events after which every file is as before."""

IN_PLACE = frozenset({
    Op.CREATE, Op.WRITE, Op.TRUNCATE, Op.CHMOD, Op.CHOWN, Op.UTIME, Op.SETXATTR, Op.REMOVEXATTR,
    Op.CHATTR,
})  # fmt: skip
"""Events on a file that change no other, and no name but its own."""


PER = ("change", "close", "mark")
"""After what a stretch of events can end, see `Ends`."""


class Ends(Struct, frozen=True):
    """Where a stretch of events ends: after each change, after the last of several in a row to one file, or at marks.

    `per`: one of PER. `rest`: ns without a change after which a file is settled; there is no event for its close.
    """

    per: str = "close"
    rest: int = 1_000_000_000

    def of(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events after which a stretch ends, and all marks."""
        run: Event | None = None  # the last of several changes to one file
        for event in events:
            if event.op in NO_FILES and event.op is not Op.MARK:
                continue
            if run and (self.per == "change" or not self._goes_on(run, event)):
                yield run
            run = None
            if event.op is Op.MARK:
                yield event
            elif self.per != "mark":
                run = event
        if run:
            yield run

    def _goes_on(self, one: Event, other: Event) -> bool:
        same = (one.pid, one.node, one.path) == (other.pid, other.node, other.path)
        anew = other.op is Op.TRUNCATE and other.size == 0
        settled = anew or other.time - one.time > self.rest
        return same and not settled and one.op in IN_PLACE and other.op in IN_PLACE


def events(trace: Trace, selection: Selection, progress: Progress) -> Iterator[Event]:
    """The events from `selection.first` to its moment that match its paths and filters, in order.

    An event with two paths belongs if either does. Tells `progress` how many events are behind.
    Raises PluginError where a filter cannot be made.
    """
    matches = trace.path_matcher(selection.paths)
    keeps = Filters.of(trace, selection.filters).keeps
    last = selection.moment.seq
    meter = Meter(progress, max(0, last - selection.first + 1))
    for event in trace.reader.events(selection.first, last):
        meter.add(1)
        chosen = not selection.paths or event.op in ALWAYS or any(matches(path) for path in paths_of(event))
        if chosen and keeps(event):
            yield event


def data(trace: Trace, event: Event) -> Iterator[bytes]:
    """The bytes that a WRITE put into its file, as recorded, some at a time."""
    at, end = event.offset or 0, (event.offset or 0) + (event.size or 0)
    while at < end:
        piece = trace.reader.read(event.node, event.seq, at, min(1 << 20, end - at))
        if not piece:
            return  # beyond the end of the file, where fallocate(2) can clear space that is not in it
        yield piece
        at += len(piece)


class Step(Struct, frozen=True):
    """How the files of a selection differ between two events. Paths are relative, as `Entry.path`.

    To be applied in this order. `gone`: nothing of before stands there, nor below. `moved`: one directory
    with all that is in it, from and to. `there`: what stands there now, directories left out.
    """

    gone: list[bytes] = field(default_factory=list)
    moved: tuple[bytes, bytes] | None = None
    there: list[Standing] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.gone or self.moved or self.there)


class Steps:
    """The tree of a selection as it was before its first event, and how it goes on from there."""

    def __init__(self, trace: Trace, selection: Selection) -> None:
        self._trace, self._selection = trace, selection
        self._whole = not selection.paths and not selection.filters
        self._matches = trace.path_matcher(selection.paths)
        self._keeps = Filters.of(trace, selection.filters, only_paths=True).keeps_path
        self._former: tuple[int, Standing] | None = None  # what `at` will be asked next: the event, and the answer

    def beginning(self) -> Iterator[Entry]:
        """What stood there before the first event, directories left out."""
        before = Selection(
            Moment(self._selection.first - 1, "start"), self._selection.paths, filters=self._selection.filters
        )
        return (entry for entry in entries(self._trace, before, may_be_empty=True) if not entry.attrs.is_dir)

    def step(self, after: int, until: int, only: Event | None = None) -> Step:
        """From the tree after event `after` to the tree after event `until`.

        `only`: of all events in between it is the one that changed files, or the others changed the same
        file by the same name. That saves looking for what else may have changed.
        """
        if only is not None and self._whole and (quick := self._one_file(only, after, until)) is not None:
            return quick
        step = Step()
        moves: list[tuple[bytes, bytes, int]] = []
        for change in diff(self._trace, Moment(after, ""), Moment(until, "")):
            if change.kind is Kind.REMOVED or change.kind is Kind.TYPE:
                step.gone.append(self._relative(change.path))
            elif change.kind is Kind.RENAMED:
                assert change.renamed_from is not None
                if change.after is not None and change.after.is_dir:
                    moves.append((change.renamed_from, change.path, change.after_node))
                    continue
                step.gone.append(self._relative(change.renamed_from))
            if change.after is not None and not change.after.is_dir and self._chosen(change.path):
                step.there.append((self._relative(change.path), change.after_node, change.after))
        if self._whole and len(moves) == 1:
            old, new, _ = moves[0]
            return Step(step.gone, (self._relative(old), self._relative(new)), step.there)
        for old, new, node in moves:
            step.gone.append(self._relative(old))
            step.there.extend(self._below(node, new, until))
        return step

    def _one_file(self, event: Event, after: int, seq: int) -> Step | None:
        """The step of an event on one file with one name; None where it may be more."""
        if event.op not in IN_PLACE or not event.path or not self._trace.layout.inside(event.path):
            return Step() if event.op in IN_PLACE and event.outside else None
        reader = self._trace.reader
        former = reader.attrs(event.node, after)  # first, as the reader remembers it from the last step
        attrs = reader.attrs(event.node, seq)
        if attrs is None or attrs.is_dir or attrs.nlink != 1 or reader.resolve(event.path, seq) != event.node:
            return None
        path = self._relative(event.path)
        if former is not None:  # such events give no names, so it was there before as well
            self._former = after, (path, event.node, former)
        return Step(there=[(path, event.node, attrs)])

    def before(self, seq: int) -> Before:
        """The tree after event `seq`, from which a step is about to be taken."""
        return Before(self, seq)

    def at(self, path: bytes, seq: int) -> Standing | None:
        """What of the selection stands at a path, given as paths are here, after an event. A directory is nothing."""
        if self._former and (self._former[0], self._former[1][0]) == (seq, path):
            return self._former[1]
        found = self._node(path, seq)
        if found is None or found[1].is_dir or not self._chosen(join(self._trace.layout.top, path)):
            return None
        return path, *found

    def below(self, path: bytes, seq: int) -> Iterator[Standing]:
        """The same, for a path and all paths below it."""
        found = self._node(path, seq)
        if found is None:
            return
        where = join(self._trace.layout.top, path)
        if found[1].is_dir:
            yield from self._below(found[0], where, seq)
        elif self._chosen(where):
            yield path, *found

    def _node(self, path: bytes, seq: int) -> tuple[int, Attrs] | None:
        reader = self._trace.reader
        node = reader.resolve(join(self._trace.layout.top, path), seq)
        attrs = reader.attrs(node, seq) if node is not None else None
        return None if node is None or attrs is None else (node, attrs)

    def _below(self, directory: int, path: bytes, seq: int) -> Iterator[Standing]:
        reader = self._trace.reader
        pending = [(directory, path)]
        while pending:
            above, where = pending.pop()
            for name, node in reader.children(above, seq):
                inner = join(where, name)
                attrs = reader.attrs(node, seq)
                if attrs is None:
                    raise TraceDamagedError(f"damaged trace: {inner!r} has no attributes; run 'diffkeeper check'")
                if attrs.is_dir:
                    pending.append((node, inner))
                elif self._chosen(inner):
                    yield self._relative(inner), node, attrs

    def _chosen(self, path: bytes) -> bool:
        return self._whole or (self._matches(path) and self._keeps(path, False))

    def _relative(self, path: bytes) -> bytes:
        return path[len(self._trace.layout.top) :].lstrip(b"/")


class Before:
    """The tree before a step, while the step is taken: what of it is still there. It is told what goes and moves."""

    def __init__(self, steps: Steps, seq: int) -> None:
        self._steps, self.seq = steps, seq
        self._gone: set[bytes] = set()
        self._moved: tuple[bytes, bytes] | None = None

    def below(self, path: bytes) -> Iterator[Standing]:
        """What is still at a path and below it. To be asked before anything has moved."""
        if not self._is_gone(path):
            found = self._steps.below(path, self.seq)
            yield from (each for each in found if not self._is_gone(each[0])) if self._gone else found

    def at(self, path: bytes) -> Standing | None:
        """What is still at a path, with the path where it was before anything moved."""
        if self._moved:
            old, new = self._moved
            if _is_at(path, new):
                path = old + path[len(new) :]
            elif _is_at(path, old):
                return None
        return None if self._is_gone(path) else self._steps.at(path, self.seq)

    def drop(self, path: bytes) -> None:
        """Nothing of before is at a path any more, nor below."""
        self._gone.add(path)

    def move(self, old: bytes, new: bytes) -> None:
        """What was at `old` and below is at `new`. Once, and last."""
        self._moved = old, new

    def _is_gone(self, path: bytes) -> bool:
        while self._gone and path not in self._gone:
            if not path:
                return False
            path = path.rpartition(b"/")[0]
        return bool(self._gone)


def _is_at(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above + b"/")
