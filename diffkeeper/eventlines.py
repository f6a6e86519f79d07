"""Events as lines of JSON, the one form in which programs get them: from `timeline --json` and exports.

Owns the keys of the objects and what a line needs to know beside the event: the moment's spelling,
the path as people write it, the name of the process. Columns for people are `diffkeeper.cli.timeline`.
"""

from __future__ import annotations

import itertools
import json.encoder
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .model import Event, Fidelity, Op
from .view.moments import duration_text

if TYPE_CHECKING:
    from .trace import Trace

RENAMING = frozenset((Op.FORK, Op.EXEC, Op.EXIT))
"""Operations after which a pid may stand for another program."""

LABELS = {op: op.label for op in Op}
FIDELITIES = {level: level.label for level in Fidelity}

WITH_CONTENT = frozenset((Op.CREATE, Op.WRITE, Op.TRUNCATE, Op.HEAL))


class Names:
    """Who did what: the names of processes, asked for event by event."""

    def __init__(self, trace: Trace) -> None:
        self._process_at = trace.reader.process_at
        self._comms: dict[int, str] = {}
        self._last = 0

    def comm(self, event: Event) -> str:
        """Name of the process at that event."""
        if event.seq != self._last + 1 or event.op in RENAMING:
            self._comms.clear()  # a process may have become another in between
        self._last = event.seq
        comm = self._comms.get(event.pid)
        if comm is None:
            process = self._process_at(event.pid, event.seq)
            comm = self._comms[event.pid] = process.comm if process else ""
        return comm


class LineForm(Names, ABC):
    """What every form needs to know of an event that it does not hold itself."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.stamp = trace.stamp
        self.display = trace.display

    @abstractmethod
    def line(self, event: Event) -> str:
        """How one event is shown, without a newline."""


class JsonLines(LineForm):
    """One JSON object a line, ASCII only.

    Paths that are not UTF-8 hold lone surrogates, as os.fsdecode makes them: Python's os.fsencode
    gives the bytes back. Written by hand: json.dumps takes three times as long.
    """

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._reader = trace.reader
        self._quoted: dict[bytes, str] = {}

    def line(self, event: Event) -> str:
        quote, op, exact = json.encoder.encode_basestring_ascii, event.op, event.fidelity is Fidelity.EXACT
        line = (
            f'{{"event": {event.seq}, "time": {event.time / 1e9!r}, "at": "{self.stamp(event)}", "op": "{LABELS[op]}", '
            f'"path": {self._path(event.path)}, "pid": {event.pid}, "comm": {quote(self.comm(event))}'
        )
        if event.to is not None:
            target = quote(event.to.decode("utf-8", "surrogateescape")) if op is Op.SYMLINK else self._path(event.to)
            line += f', "to": {target}'
        if event.size is not None:
            line += f', "size": {event.size}'
        if event.offset is not None:
            line += f', "offset": {event.offset}'
        if op in WITH_CONTENT or not exact:
            line += f', "fidelity": "{FIDELITIES[event.fidelity]}"'
        if event.count:
            line += f', "count": {event.count}'
        if event.detail:
            line += f', "detail": {quote(event.detail)}'
        return line + (', "outside": true}\n' if event.outside else "}\n")

    def lines(self, first: int, last: int) -> Iterator[str]:
        """`line` of each event from `first` to `last`. Nearly all are exact writes: those are not made Events."""
        write, exact = int(Op.WRITE), int(Fidelity.EXACT)
        for block in self._reader.event_rows(first, last):
            heads: dict[tuple[int, int], str] = {}  # by path and pid; both are the block's own numbers
            start, stop = max(first - block.first, 0), last - block.first + 1
            seqs = itertools.count(block.first + start)
            rows = zip(seqs, block.rows[start:stop], block.lasts[start:stop], strict=False)
            for seq, (time, op, pid, path, _, _, offset, size, trust, _, _), alone in rows:
                if op != write or trust != exact or offset < 0 or size < 0:
                    event = block.event(seq - block.first)
                    if event.op in RENAMING:
                        heads.clear()
                    yield self.line(event)
                    continue
                head = heads.get((path, pid))
                if head is None:
                    comm = json.encoder.encode_basestring_ascii(self.comm(block.event(seq - block.first)))
                    where = self._path(block.strings[path])
                    head = heads[path, pid] = f'"op": "write", "path": {where}, "pid": {pid}, "comm": {comm}, "size": '
                self._last = seq
                moment = duration_text(time) if alone else f"e{seq}"
                yield (
                    f'{{"event": {seq}, "time": {time / 1e9!r}, "at": "{moment}", {head}{size}, '
                    f'"offset": {offset}, "fidelity": "exact"}}\n'
                )

    def _path(self, path: bytes) -> str:
        quoted = self._quoted.get(path)
        if quoted is None:
            if len(self._quoted) >= 100_000:
                self._quoted.clear()
            shown = self.display(path) if path else path
            quoted = json.encoder.encode_basestring_ascii(shown.decode("utf-8", "surrogateescape"))
            self._quoted[path] = quoted
        return quoted
