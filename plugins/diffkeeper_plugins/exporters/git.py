"""The git exporter: what happened as commits, so that `git log -p`, `blame` and `bisect` work on it.

Owns what becomes a commit. Every commit's tree is the recorded tree at one event, no mixture; the
process is the author, the event's time the date. It writes a `git fast-import` stream; git itself
makes the repository. What git cannot hold (empty directories, owners, times, most mode bits, special
files, names like `.git`) is left out and counted. What names it can hold is `gitnames`, how
git is run, `gitprogram`. What git has at a path is what stood there at the event of the last commit:
the trace is asked, nothing is kept.

There is no event for the close of a file. `per=close` therefore ends a commit where the file is
settled as far as anybody can see: at the last of several changes in a row, by one process, to one
file, before it is cut to nothing or rests for `rest` milliseconds.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, cast

from diffkeeper import happenings
from diffkeeper.errors import DiffKeeperError, PluginError, TraceDamagedError
from diffkeeper.eventlines import FIDELITIES, Names
from diffkeeper.exporting import CHUNK, Exported, Selection
from diffkeeper.happenings import Before, Standing
from diffkeeper.model import Attrs, Event, Fidelity, Op
from diffkeeper.plugins import Exporter
from diffkeeper.wording import human_size, printable
from diffkeeper_plugins.exporters import gitnames, gitprogram

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

BRANCH = b"refs/heads/main"
_REMEMBERED = 10_000  # versions of files whose blob is known; one that is forgotten is sent again, and is the same


class GitExporter(Exporter):
    """A git repository with a commit per change, per close or per mark; as a stream, what git fast-import reads."""

    streams: ClassVar[bool] = True
    of_range: ClassVar[bool] = True
    unit: ClassVar[str] = "commits"

    def __init__(
        self, per: str = "close", rest: float = 1000.0, checkout: bool = True, limit: int = 100 << 20
    ) -> None:
        if per not in happenings.PER:
            raise PluginError(f"the exporter 'git' makes a commit per {', '.join(happenings.PER)}, not per {per!r}")
        self._ends = happenings.Ends(per, round(rest * 1_000_000))
        self._checkout, self._limit = checkout, limit

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        if not isinstance(destination, Path):
            return _Stream(trace, selection, destination, self._limit).write(self._ends, progress)
        if shutil.which("git") is None:
            raise PluginError("the exporter 'git' needs the program git: install it, or take the stream with --out -")
        gitprogram.run(destination.parent, "init", "--quiet", "--template=", "--", destination.name)
        gitprogram.run(destination, "symbolic-ref", "HEAD", BRANCH.decode())
        with gitprogram.importing(destination) as stream:
            result = _Stream(trace, selection, stream, self._limit).write(self._ends, progress)
        # A recorded .gitattributes must not change what is checked out: this file overrules it.
        info = destination / ".git" / "info"
        info.mkdir(exist_ok=True)
        (info / "attributes").write_text("* -text -eol -ident -filter -working-tree-encoding\n")
        if self._checkout:
            careful = "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true"
            gitprogram.run(destination, *careful, "reset", "--quiet", "--hard")
        else:
            gitprogram.stamp(destination, trace.session.started)
        return result


class _Stream:
    """One fast-import stream. `commits` so far; `notes`: what was left out; `damaged`: what cannot be read."""

    def __init__(self, trace: Trace, selection: Selection, out: BinaryIO, limit: int) -> None:
        self._trace, self._selection, self._out, self._limit = trace, selection, out, limit
        self._steps, self._names = happenings.Steps(trace, selection), Names(trace)
        # Node, version -> its mark in the stream, digest
        self._blobs: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()
        self._marks = self._last = 0  # numbers in the stream: given so far, and of the last commit
        self._unreadable: set[tuple[int, int]] = set()  # node, version
        self._at = selection.first - 1
        self.commits = self.size = self.inexact = 0
        self.notes: Counter[str] = Counter()
        self.damaged: list[str] = []

    def write(self, ends: happenings.Ends, progress: Progress) -> Exported:
        self._out.write(b"feature done\n")
        self._begin()
        for event in ends.of(happenings.events(self._trace, self._selection, progress)):
            self._go_on(event, alone=ends.per != "mark")
            if event.op is Op.MARK and (tag := gitnames.tag(event.detail)):
                self._out.write(b"reset %s\nfrom :%d\n\n" % (tag, self._last))
        last = self._selection.moment.seq
        if self._at < last:  # all that is per mark after the last one, and what events that were not chosen have done
            self._go_on(self._trace.reader.event(last), f"Until @{self._selection.moment.name}")
        self._out.write(b"done\n")
        self._out.flush()
        lines = tuple(f"{number} {what}" for what, number in sorted(self.notes.items()))
        if self.inexact:
            lines += (f"{self.inexact} commits hold bytes that are not certain; each says so",)
        return Exported(self.commits, self.size, lines, tuple(self.damaged))

    def _begin(self) -> None:
        """The first commit: what stood there before."""
        session = self._trace.session
        name = self._trace.stamp(self._at)
        author = b"baseline <diffkeeper@%s>" % gitnames.one_line(session.host)
        trailers = {"Moment": name, "Event": str(self._at)}
        with _lines() as lines:
            for entry in self._steps.beginning():
                lines.writelines(self._stand((entry.path, entry.node, entry.attrs), None))
            self._commit(lines, author, 0, f"What stood there at @{name}", trailers)

    def _go_on(self, event: Event, subject: str = "", *, alone: bool = False) -> None:
        """Commit the tree as it was after an event, if git can tell it from the one before.

        `alone`: since the last commit nothing but this event's file has changed.
        """
        step = self._steps.step(self._at, event.seq, event if alone else None)
        before, self._at = self._steps.before(self._at), event.seq
        with _lines() as lines:
            lines.writelines(self._changes(step, before))
            if lines.tell():
                self._commit_event(event, subject, step, lines)

    def _commit_event(self, event: Event, subject: str, step: happenings.Step, lines: BinaryIO) -> None:
        trailers = {"Moment": self._trace.stamp(event), "Event": str(event.seq)}
        trust = max((attrs.fidelity for _, _, attrs in step.there), default=Fidelity.EXACT)
        if trust is not Fidelity.EXACT:
            trailers["Fidelity"] = FIDELITIES[trust]
            self.inexact += 1
        name, host = self._names.comm(event) if event.pid else "recorder", self._trace.session.host
        author = b"%s <%d@%s>" % (gitnames.one_line(name), event.pid, gitnames.one_line(host))
        self._commit(lines, author, event.time, subject or self._subject(event), trailers)

    def _subject(self, event: Event) -> str:
        words = [event.op.label]
        if event.path:
            words.append(printable(self._trace.display(event.path)))
        if event.to is not None:
            words += ["→", printable(event.to if event.op is Op.SYMLINK else self._trace.display(event.to))]
        if event.op is Op.WRITE:
            words.append(f"+{human_size(event.size or 0)} @{event.offset or 0}")
        elif event.size is not None:
            words.append(f"={human_size(event.size)}")
        if event.op is Op.MARK:
            words.append(printable(event.detail))
        return " ".join(words)

    def _commit(self, lines: BinaryIO, author: bytes, time: int, subject: str, trailers: dict[str, str]) -> None:
        message = subject + "\n\n" + "".join(f"{key}: {printable(value)}\n" for key, value in trailers.items())
        text = message.encode("utf-8", "backslashreplace")
        when = max(0, self._trace.session.started + time) // 1_000_000_000
        who = b"%s %d +0000" % (author, when)
        self._marks += 1
        self._last = self._marks
        self._out.write(b"commit %s\nmark :%d\nauthor %s\ncommitter %s\n" % (BRANCH, self._last, who, who))
        self._out.write(b"data %d\n%s\n" % (len(text), text))
        lines.seek(0)
        shutil.copyfileobj(lines, self._out)
        self._out.write(b"\n")
        self.commits += 1

    def _changes(self, step: happenings.Step, before: Before) -> Iterator[bytes]:
        """The lines of a commit for a step; the blobs they need are written at once."""
        gone, moved, there = step.gone, step.moved, iter(step.there)
        if moved and not all(map(gitnames.holds_path, moved)):
            old, new = moved  # git cannot move it: to git it is gone, or new
            gone = [*gone, old]
            if gitnames.holds_path(new):
                there = itertools.chain(self._steps.below(new, self._at), there)
            moved = None
        for path in gone:
            if any(map(self._has, before.below(path))):
                yield b"D %s\n" % gitnames.quoted(path)
            before.drop(path)
        if moved:
            if any(map(self._has, before.below(moved[0]))):
                yield b"R %s %s\n" % tuple(map(gitnames.quoted, moved))
            before.move(*moved)
        told = set()  # what is new in a directory that moved is found twice
        for each in there:
            if each[0] not in told:
                told.add(each[0])
                yield from self._stand(each, before)

    def _stand(self, now: Standing, before: Before | None) -> Iterator[bytes]:
        """The line for something that stands at a path now; where git cannot have it, for what stood there."""
        path, node, attrs = now
        was = before.at(path) if before else None
        had = was if was and self._has(was) else None
        if not gitnames.holds(path, attrs):
            what = "paths" if attrs.is_file or attrs.is_symlink else "special files"
            self.notes[f"{what} left out: git cannot hold them"] += 1
        elif attrs.is_file and attrs.size > self._limit:
            self.notes[f"versions of files left out: larger than limit={self._limit}"] += 1
        else:
            try:
                mark, digest = self._blob(node, attrs)
            except DiffKeeperError as error:
                self.damaged.append(f"{printable(path)} at event {self._at}: {error}")
                self._unreadable.add((node, attrs.version))
            else:
                if not (before and had and self._same(had, before.seq, attrs, digest)):
                    yield b"M %s :%d %s\n" % (gitnames.mode(attrs), mark, gitnames.quoted(path))
                return
        if had:
            yield b"D %s\n" % gitnames.quoted(path)

    def _has(self, was: Standing) -> bool:
        """Whether git has in its tree what stood at a path at the last commit."""
        path, node, attrs = was
        small = not attrs.is_file or attrs.size <= self._limit
        return small and gitnames.holds(path, attrs) and (node, attrs.version) not in self._unreadable

    def _same(self, was: Standing, seq: int, attrs: Attrs, digest: bytes) -> bool:
        """Whether git would see no difference between what stood at a path after event `seq` and what does now."""
        _, node, former = was
        if gitnames.mode(former) != gitnames.mode(attrs) or (attrs.is_file and former.size != attrs.size):
            return False
        known = self._blobs.get((node, former.version))
        return (known[1] if known else self._content(node, former, seq)[0]) == digest

    def _blob(self, node: int, attrs: Attrs) -> tuple[int, bytes]:
        """The mark of a file's or symlink's content, which is sent now unless it was, and its digest."""
        key = node, attrs.version
        if (known := self._blobs.get(key)) is not None:
            self._blobs.move_to_end(key)
            return known
        digest, size, pieces = self._content(node, attrs, self._at)
        self._marks += 1
        self._out.write(b"blob\nmark :%d\ndata %d\n" % (self._marks, size))
        self._out.writelines(pieces)
        self._out.write(b"\n")
        self.size += size
        self._blobs[key] = self._marks, digest
        if len(self._blobs) > _REMEMBERED:
            self._blobs.popitem(last=False)
        return self._blobs[key]

    def _content(self, node: int, attrs: Attrs, seq: int) -> tuple[bytes, int, Iterable[bytes]]:
        """Digest, size and pieces of a file's or symlink's content. All was read: the pieces can be, too."""
        reader, size = self._trace.reader, len(attrs.target) if attrs.is_symlink else attrs.size
        small = [attrs.target if attrs.is_symlink else reader.read(node, seq, 0, CHUNK)] if size <= CHUNK else None
        digest, read = hashlib.blake2b(digest_size=16), 0
        for piece in small or reader.chunks(node, seq, CHUNK):
            digest.update(piece)
            read += len(piece)
        if read != size:
            raise TraceDamagedError(f"damaged trace: node {node} has {read} bytes, not {size}, at event {seq}")
        return digest.digest(), size, small or reader.chunks(node, seq, CHUNK)


def _lines() -> BinaryIO:
    """Where the lines of a commit wait for its blobs, which must come first; what there are many of, on the disk."""
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(1 << 20))
