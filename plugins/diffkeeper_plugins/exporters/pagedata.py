"""What the html exporter's page shows: events, what stood at each path and when, and the texts.

Owns the data's shape, which `page/model.js` reads, and what is left out where it would be too much.
A file's content is given once as a whole and from then on as what was written to it, as in the
recording, so the page is as large as the writes and not as all versions. That the pieces make what
the recording holds is tried out here for each file before its bytes go in. What is held is what the
page will show: of files to which nothing happened no more than allowed, of the others the trace is asked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffkeeper import happenings
from diffkeeper.errors import DiffKeeperError
from diffkeeper.eventlines import FIDELITIES, LABELS, Names
from diffkeeper.exporting import Selection
from diffkeeper.model import Attrs, Event, Fidelity, Op
from diffkeeper.textdiff import is_text
from diffkeeper.wording import date_of, human_duration, human_size, printable

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.store.reader import Reader
    from diffkeeper.trace import Trace

WHOLE, WRITE, CUT = 0, 1, 2
"""What an entry of a file's content is: all of it, bytes at an offset, a new size."""

_OPS = list(Op)
_TRUST = list(Fidelity)


@dataclass(frozen=True, slots=True)
class Limits:
    """Most events; most files that never change; bytes of content in all, and of one file."""

    events: int
    files: int
    content: int
    file: int


class _Table:
    """Values by number, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[Any, int] = {}

    def number(self, value: Any, key: Any = None) -> int:
        key = value if key is None else key
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]

    def known(self, key: Any) -> int:
        """-1 where it has no number."""
        return self._known.get(key, -1)


class Contents:
    """The bytes of files, node by node: `logs` of [seq, kind, offset, text], or in `left` why there are none.

    Text is bytes as characters, one each.
    """

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self._reader, self._limits = reader, limits
        self.logs: dict[int, list[tuple[int, int, int, str]]] = {}
        self.left: dict[int, str] = {}
        self.damaged: dict[int, str] = {}  # node -> what is wrong, of those that are left out for that
        self.size = 0
        self._sizes: dict[int, int] = {}  # of the file, by the entries of its log
        self._spent: Counter[int] = Counter()
        self._last: dict[int, tuple[int, int]] = {}  # version and seq of the last entry

    def follow(self, node: int, attrs: Attrs, seq: int, event: Event | None, before: int) -> None:
        """A file as it is at `seq`. `event` is what changed it, if that is known; `before`: where the page begins."""
        if node in self.left or not attrs.is_file:
            return
        try:
            self._follow(node, attrs, seq, event, before)
        except DiffKeeperError as error:
            self.damaged[node] = str(error)
            self._leave(node, "What is stored of it cannot be read.")

    def _follow(self, node: int, attrs: Attrs, seq: int, event: Event | None, before: int) -> None:
        if attrs.size > self._limits.file:
            self._leave(node, f"Larger than {human_size(self._limits.file)}, so its content is not in this page.")
            return
        if node not in self.logs:
            self.logs[node] = []
            earlier = self._reader.attrs(node, before) if seq > before else None
            if earlier is not None and earlier.size <= self._limits.file:
                self._whole(node, earlier, before)
        if node in self.logs and self._last.get(node, (-1, 0))[0] < attrs.version:
            self._changed(node, attrs, seq, event)

    def _changed(self, node: int, attrs: Attrs, seq: int, event: Event | None) -> None:
        size = self._sizes.get(node)
        mine = event is not None and event.node == node and event.seq == seq == attrs.version and size is not None
        if mine and event and event.op is Op.WRITE and event.offset is not None and event.size is not None:
            if attrs.size == max(size or 0, event.offset + event.size):
                data = self._reader.read(node, seq, event.offset, event.size)
                self._add(node, (seq, WRITE, event.offset, data), attrs)
                return
        elif mine and event and event.op is Op.TRUNCATE and event.size == attrs.size <= (size or 0):
            self._add(node, (seq, CUT, attrs.size, b""), attrs)
            return
        self._whole(node, attrs, seq)

    def _whole(self, node: int, attrs: Attrs, seq: int) -> None:
        self._add(node, (seq, WHOLE, 0, b"".join(self._reader.chunks(node, seq))), attrs)

    def _add(self, node: int, entry: tuple[int, int, int, bytes], attrs: Attrs) -> None:
        seq, kind, offset, data = entry
        if b"\0" in data or not is_text(data):
            self._leave(node, "Not a text, so its content is not in this page.")
        elif self.size + len(data) > self._limits.content:
            self._leave(node, f"The page holds {human_size(self._limits.content)} of content; this came too late.")
        else:
            self.logs[node].append((seq, kind, offset, data.decode("latin-1")))
            self.size += len(data)
            self._spent[node] += len(data)
            self._sizes[node], self._last[node] = attrs.size, (attrs.version, seq)

    def _leave(self, node: int, why: str) -> None:
        self.left[node] = why
        self.logs.pop(node, None)
        self.size -= self._spent.pop(node, 0)

    def verify(self) -> None:
        """Leave out every file whose entries do not make what the recording holds at the last of them."""
        for node, log in list(self.logs.items()):
            made = bytearray()
            for _, kind, offset, text in log:
                data = text.encode("latin-1")
                if kind == WHOLE:
                    made[:] = data
                elif kind == CUT:
                    del made[offset:]
                else:
                    made.extend(bytes(max(0, offset - len(made))))
                    made[offset : offset + len(data)] = data
            if log and bytes(made) != b"".join(self._reader.chunks(node, self._last[node][1])):
                self._leave(node, "What the page could show is not what the recording holds.")


class PageData:
    """All of it. `count` events, `size` bytes of content; `notes` say what is not there."""

    def __init__(self, trace: Trace, selection: Selection, limits: Limits) -> None:
        self._trace, self._selection, self._limits = trace, selection, limits
        self._steps, self._names = happenings.Steps(trace, selection), Names(trace)
        self._contents = Contents(trace.reader, limits)
        self._paths, self._texts, self._who, self._states = _Table(), _Table(), _Table(), _Table()
        self._states.number(None)  # 0: nothing stands there
        self._histories: dict[int, list[int]] = {}
        self._columns: dict[str, list[Any]] = {
            key: [] for key in
            ("seq", "time", "plain", "op", "path", "to", "detail", "who", "size", "offset", "trust", "count")
        }  # fmt: skip
        self._before = selection.first - 1
        self._at = self._before  # the last event whose changes to files are in
        self.count = 0
        self.notes: list[str] = []

    @property
    def size(self) -> int:
        return self._contents.size

    def read(self, progress: Progress) -> None:
        """Take in the selection."""
        for event in happenings.events(self._trace, self._selection, progress):
            if self.count == self._limits.events:
                last, rest = self._last(), self._selection.moment.seq - event.seq + 1
                self.notes.append(f"the page ends at event {last}: {rest} later ones are left out (--opt events=…)")
                break
            missed = event.seq > self._last() + 1  # what is not selected may have changed files, too
            self._event(event)
            if missed or event.op not in happenings.NO_FILES:
                self._step(event)
        self._begin()
        self._contents.verify()
        for why, number in sorted(Counter(self._contents.left.values()).items()):
            self.notes.append(f"{number} {'file' if number == 1 else 'files'}: {why[0].lower()}{why[1:].rstrip('.')}")

    def _step(self, event: Event) -> None:
        step = self._steps.step(self._at, event.seq, event)
        before, self._at = self._steps.before(self._at), event.seq
        for path in step.gone:
            for leaf, _, _ in before.below(path):
                self._note(leaf, 0, event.seq)
            before.drop(path)
        if step.moved:
            old, new = step.moved
            for leaf, node, attrs in before.below(old):
                self._note(leaf, 0, event.seq)
                self._note(new + leaf[len(old) :], self._state(node, attrs), event.seq)
        for path, node, attrs in step.there:
            self._note(path, self._state(node, attrs), event.seq)
            self._contents.follow(node, attrs, event.seq, event, self._before)

    @property
    def damaged(self) -> tuple[str, ...]:
        """What cannot be read, a line each."""
        names: dict[int, str] = {}
        for number, history in self._histories.items():
            for state in filter(None, history[1::2]):
                names.setdefault(self._states.values[state][0], self._paths.values[number])
        return tuple(f"{names.get(node, '?')}: {why}" for node, why in self._contents.damaged.items())

    def _state(self, node: int, attrs: Attrs) -> int:
        target = self._texts.number(printable(attrs.target)) if attrs.is_symlink else -1
        row = [node, attrs.version, attrs.mode, attrs.size, _TRUST.index(attrs.fidelity), target]
        return self._states.number(row, tuple(row))

    def _note(self, path: bytes, state: int, seq: int) -> None:
        history = self._histories.setdefault(self._paths.number(*self._shown(path)), [])
        if history and history[-2] == seq:
            history[-1] = state
        else:
            history += [seq, state]

    def _shown(self, path: bytes) -> tuple[str, bytes]:
        """A path in the tree as events have it, as text and bytes: with several roots it is absolute."""
        shown = path if len(self._trace.roots) == 1 else b"/" + path
        return printable(shown), shown

    def _begin(self) -> None:
        """What stood there before, and the texts that no event has written to, while there is room.

        Comes last: of files to which nothing happened there are no more than allowed.
        """
        room, dropped = self._limits.files, 0
        for entry in self._steps.beginning():
            history = self._histories.get(self._paths.known(self._shown(entry.path)[1]))
            if history is None and not room:
                dropped += 1
                continue
            if history is None:
                room -= 1
                self._note(entry.path, self._state(entry.node, entry.attrs), self._before)
            else:
                history[:0] = self._before, self._state(entry.node, entry.attrs)
            self._contents.follow(entry.node, entry.attrs, self._before, None, self._before)
        if dropped:
            self.notes.append(f"{dropped} files to which nothing happened are left out (--opt files=…)")

    def _event(self, event: Event) -> None:
        trace, columns = self._trace, self._columns
        path = trace.display(event.path) if event.path else None
        to = event.to if event.to is None or event.op is Op.SYMLINK else trace.display(event.to)
        who = event.pid, printable(self._names.comm(event)) if event.pid else ""
        values = {
            "seq": event.seq, "time": event.time, "plain": int(not trace.stamp(event).startswith("e")),
            "op": _OPS.index(event.op),
            "path": -1 if path is None else self._paths.number(printable(path), path),
            "to": -1 if to is None else self._texts.number(printable(to)),
            "detail": self._texts.number(printable(event.detail)) if event.detail else -1,
            "who": self._who.number(list(who), who), "size": event.size, "offset": event.offset,
            "trust": _TRUST.index(event.fidelity), "count": event.count,
        }  # fmt: skip
        for key, value in values.items():
            columns[key].append(value)
        self.count += 1

    def _last(self) -> int:
        """The last event of the page."""
        seqs: list[int] = self._columns["seq"]
        return seqs[-1] if seqs else self._before

    def as_object(self) -> dict[str, Any]:
        """For JSON. Times in ns from the command's start."""
        session, last = self._trace.session, self._last()
        began = date_of(session.started)
        return {
            "command": printable(" ".join(session.command)), "cwd": printable(session.cwd),
            "host": printable(session.host),
            "started": began.isoformat(" ", "milliseconds") if began else "at no date",
            "duration": session.duration or 0, "facts": self._facts(), "notes": self.notes,
            "first": self._selection.first, "start": printable(self._trace.stamp(self._before)),
            "marks": [
                [printable(mark.name), mark.time] for mark in self._trace.marks()
                if self._selection.first <= mark.seq <= last
            ],
            "ops": [LABELS[op] for op in _OPS], "trust": [FIDELITIES[level] for level in _TRUST],
            "events": self._columns, "who": self._who.values, "paths": self._paths.values, "texts": self._texts.values,
            "states": self._states.values, "histories": self._histories, "contents": self._contents.logs,
            "left": self._contents.left,
        }  # fmt: skip

    def _facts(self) -> list[tuple[str, str]]:
        """What the head says, and whether it is good or bad news."""
        session = self._trace.session
        facts = []
        if session.exit_code is not None:
            facts.append((f"exit {session.exit_code}", "bad" if session.exit_code else "good"))
        unknown = ("still being recorded", "") if self._trace.recording else ("cut off", "bad")
        facts.append(unknown if session.duration is None else (human_duration(session.duration), ""))
        facts.append((f"{session.events:,} events", ""))
        lost = sum(session.lost.values())
        facts.append((f"{lost:,} lost", "bad" if lost else "good"))
        inexact = sum(count for label, count in session.fidelity.items() if label != Fidelity.EXACT.label)
        facts.append((f"{inexact:,} not exact", "bad") if inexact else ("all exact", "good"))
        if session.mismatches:
            facts.append((f"{session.mismatches:,} healed", "bad"))
        if session.others:
            facts.append((f"{session.others:,} changed from outside", "bad"))
        return facts
