"""The course of the recording: its beginning and end, processes, marks, gaps, and facts told afterwards.

Owns the records that touch no file, and the session they add up to. How processes and marks are
stored belongs to `processes`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import msgspec
from msgspec import structs

from ..filtering import merged
from ..model import Filtered, Mark, Op, Process, Session
from ..wire import Record, WireOp, strings
from . import processes
from .codec import damaged
from .tables import Table
from .timeline import Timeline

MAX_CAUSES, MAX_NOTES, MAX_TEXT, MAX_TRACES = 64, 256, 4096, 4096
"""What of a stranger's journal the session, which is written with every commit, takes in."""


class Course:
    """Applies one record at a time. `session`: facts and totals so far."""

    def __init__(self, timeline: Timeline, session: Session) -> None:
        self._timeline = timeline
        self.session = session
        self.apply: dict[int, Callable[[Record], None]] = {
            WireOp.FORK: self._fork,
            WireOp.EXEC: self._exec,
            WireOp.EXIT: self._exit,
            WireOp.MARK: self._mark,
            WireOp.BEGIN: self._begin,
            WireOp.END: self._end,
            WireOp.GAP: self._gap,
            WireOp.SETTLE: self._settle,
        }

    def _note(self, **facts: object) -> None:
        self.session = structs.replace(self.session, **facts)

    def _begin(self, record: Record) -> None:
        self._timeline.progress.begun, self._timeline.progress.started = record.time, record.offset
        self._note(started=record.offset)
        self._timeline.txn.clear(Table.HANDLES)
        if record.pid and processes.at(self._timeline.txn, record.pid) is None:
            words = self.session.command
            comm = words[0].rpartition("/")[2][:15] if words else ""
            processes.put(self._timeline.txn, Process(record.pid, 0, 0, comm, words), self._timeline.seq)

    def _end(self, record: Record) -> None:
        self._timeline.progress.ended = True
        duration, status = self._timeline.time, record.offset & 0xFFFF
        self._note(duration=duration, status=status)

    def _fork(self, record: Record) -> None:
        child = record.offset & 0xFFFFFFFF
        tops = self._timeline.progress.tops
        if record.pid in tops:
            self._timeline.progress.set_top(child, tops[record.pid])
        seq = self._timeline.event(record, Op.FORK, count=child, detail=b"%d" % child)
        comm = processes.text(record.payload)
        parent = processes.at(self._timeline.txn, record.pid)
        uid = record.length & 0xFFFFFFFF
        argv = parent.argv if parent else ()
        processes.put(self._timeline.txn, Process(child, record.pid, uid, comm, argv, self._timeline.time), seq)

    def _exec(self, record: Record) -> None:
        comm, argv = strings(record.payload, 1)
        words = argv.split(b"\0")
        if words and not words[-1]:
            words.pop()
        seq = self._timeline.event(record, Op.EXEC, detail=b" ".join(words))
        old = processes.at(self._timeline.txn, record.pid) or Process(record.pid, 0, 0, "", start=self._timeline.time)
        new = structs.replace(
            old, uid=record.length & 0xFFFFFFFF, comm=processes.text(comm), argv=tuple(map(processes.text, words))
        )
        processes.put(self._timeline.txn, new, seq)

    def _exit(self, record: Record) -> None:
        status = record.offset & 0xFFFF
        text = b"signal %d" % (status & 0x7F) if status & 0x7F else b"exit %d" % (status >> 8)
        seq = self._timeline.event(record, Op.EXIT, detail=text)
        self._timeline.progress.tops.pop(record.pid, None)
        old = processes.at(self._timeline.txn, record.pid)
        if old is not None:
            processes.put(self._timeline.txn, structs.replace(old, end=self._timeline.time, status=status), seq)

    def _mark(self, record: Record) -> None:
        name = bytes(record.payload).split(b"\0", 1)[0]
        seq = self._timeline.event(record, Op.MARK, detail=name)
        processes.put_mark(self._timeline.txn, Mark(processes.text(name), seq, self._timeline.time))

    def _gap(self, record: Record) -> None:
        self.missed(record, bytes(record.payload), count=record.offset)

    def missed(
        self, record: Record, cause: bytes, *, count: int = 1, path: bytes = b"", to: bytes | None = None
    ) -> None:
        """Something was not recorded, or cannot be told: an event, and one of the losses."""
        self._timeline.event(record, Op.GAP, path, to=to, count=count, detail=cause)
        self._lose(processes.text(cause)[:MAX_TEXT], count)

    def _lose(self, cause: str, count: int) -> None:
        lost = self.session.lost
        if cause not in lost and len(lost) >= MAX_CAUSES:
            cause = "other causes"
        self._note(lost={**lost, cause: lost.get(cause, 0) + max(1, count)})

    def _settle(self, record: Record) -> None:
        key, _, value = processes.text(record.payload).partition("=")
        if key == "note" and len(self.session.notes) < MAX_NOTES:
            self._note(notes=(*self.session.notes, value[:MAX_TEXT]))
        elif key == "verified_paths" and value.isascii() and value.isdigit():
            self._note(verified_paths=int(value))
        elif key == "trace" and value.startswith("/") and len(self.session.traces) < MAX_TRACES:
            self._note(traces=tuple(sorted({*self.session.traces, os.fsencode(value[:MAX_TEXT])})))
        elif key == "filtered" and len(told := unpack_told(value)) == len(self.session.filters):
            self._note(filtered=merged(self.session.filtered, told))


def unpack_told(text: str) -> tuple[Filtered, ...]:
    """What the recorder's own filters counted, of what stood there before the command."""
    try:
        return msgspec.convert(json.loads(text), tuple[Filtered, ...])
    except (ValueError, RecursionError) as error:
        raise damaged("what filters left out cannot be read") from error
