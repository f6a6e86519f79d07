"""The perfetto exporter: the recording on the time axis of Perfetto and other viewers of Chrome traces.

Owns what becomes a track, a slice and an instant. A process is a track with a slice for its life;
below it are lanes. A file that a process has at work is a slice on a lane: there is no event for its
close, so the slice goes from the first change to the last before the file rests for `rest` ms, loses
its name, or the process ends. Every change is an instant on the lane of its file. Times are
microseconds from the command's start, with three decimals.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from diffkeeper import happenings
from diffkeeper.errors import PluginError
from diffkeeper.eventlines import FIDELITIES
from diffkeeper.exporting import Exported, Selection, opened
from diffkeeper.model import Event, Fidelity, Op, Process
from diffkeeper.plugins import Exporter
from diffkeeper.wording import printable

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

_ENDS = frozenset({Op.UNLINK, Op.RENAME, Op.EXCHANGE, Op.EXIT})

Record = dict[str, Any]


class PerfettoExporter(Exporter):
    """Chrome trace JSON: a track per process, a slice per file at work, an instant per change."""

    streams: ClassVar[bool] = True
    of_range: ClassVar[bool] = True
    unit: ClassVar[str] = "events"

    def __init__(self, rest: float = 100.0) -> None:
        if not rest > 0:
            raise PluginError(f"the exporter 'perfetto' needs a rest of some milliseconds, not {rest:g}")
        self._rest = round(rest * 1_000_000)

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        tracks = _Tracks(trace, self._rest)
        count = size = 0
        with opened(destination) as file:
            write = _Array(file)
            for process in trace.processes().values():
                write.all(_process(trace, process))
            for event in happenings.events(trace, selection, progress):
                write.all(tracks.event(event))
                count += 1
                size += (event.size or 0) if event.op is Op.WRITE else 0
            write.all(tracks.end())
            session = trace.session
            write.close({
                "displayTimeUnit": "ns",
                "otherData": {
                    "command": printable(" ".join(session.command)), "host": printable(session.host),
                    "started": f"{session.started / 1e9:.9f}", "diffkeeper": session.version,
                },
            })  # fmt: skip
        return Exported(count, size)


class _Array:
    """A JSON object with one long array, written as it comes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._before = file, b'{"traceEvents": [\n'

    def all(self, records: Iterator[Record]) -> None:
        for record in records:
            self._file.write(self._before + json.dumps(record).encode("ascii"))
            self._before = b",\n"

    def close(self, rest: Record) -> None:
        tail = json.dumps(rest)[1:].encode("ascii")
        self._file.write((self._before if self._before[0:1] == b"{" else b"") + b"\n], " + tail + b"\n")


def _us(nanoseconds: int) -> float:
    return nanoseconds / 1000


def _process(trace: Trace, process: Process) -> Iterator[Record]:
    name = printable(process.comm) or "?"
    place = {"pid": process.pid, "tid": process.pid}  # a thread numbered like its process is the main one to viewers
    yield {"ph": "M", "name": "process_name", **place, "args": {"name": name}}
    yield {"ph": "M", "name": "thread_name", **place, "args": {"name": name}}
    until = process.end if process.end is not None else (trace.session.duration or process.start)
    arguments: Record = {"argv": printable(" ".join(process.argv)), "ppid": process.ppid, "uid": process.uid}
    if process.status is not None:
        arguments["status"] = process.status
    yield {
        "ph": "X", "name": name, "cat": "process", **place, "ts": _us(process.start),
        "dur": _us(max(0, until - process.start)), "args": arguments,
    }  # fmt: skip


@dataclass(slots=True)
class _Work:
    """A file that a process has at work, so far."""

    pid: int
    lane: int
    name: str
    start: int
    last: int
    changes: int = 0
    written: int = 0
    fidelity: Fidelity = Fidelity.EXACT


@dataclass(slots=True)
class _Lanes:
    """The lanes of one process: numbers that are free again, and how many there are."""

    free: list[int] = field(default_factory=list)
    count: int = 0

    def take(self) -> tuple[int, bool]:
        """A lane, and whether it is a new one."""
        if self.free:
            self.free.sort(reverse=True)
            return self.free.pop(), False
        self.count += 1
        return self.count, True


class _Tracks:
    """Events, in order, to records. Holds what is at work now, no more."""

    def __init__(self, trace: Trace, rest: int) -> None:
        self._trace, self._rest = trace, rest
        self._work: OrderedDict[tuple[int, int], _Work] = OrderedDict()  # by pid and node, the longest at rest first
        self._lanes: dict[int, _Lanes] = {}

    def event(self, event: Event) -> Iterator[Record]:
        while self._work and event.time - next(iter(self._work.values())).last > self._rest:
            yield self._finish(next(iter(self._work)))
        if event.op is Op.MARK or event.op is Op.GAP:
            name = printable(event.detail)
            yield {
                "ph": "i", "name": name if event.op is Op.MARK else f"GAP: {name}", "cat": event.op.label, "s": "g",
                "pid": event.pid, "tid": event.pid, "ts": _us(event.time), "args": self._arguments(event),
            }  # fmt: skip
        elif event.op in happenings.NO_FILES or not event.node:
            yield self._instant(event, event.pid)
        else:
            work = self._work.get((event.pid, event.node))
            if work is None:
                lane, new = self._lanes.setdefault(event.pid, _Lanes()).take()
                if new:
                    yield self._named(event.pid, lane)
                name = printable(self._trace.display(event.path))
                work = self._work[event.pid, event.node] = _Work(event.pid, lane, name, event.time, event.time)
            self._work.move_to_end((event.pid, event.node))
            work.last = event.time
            work.changes += 1
            work.written += (event.size or 0) if event.op is Op.WRITE else 0
            work.fidelity = max(work.fidelity, event.fidelity)
            yield self._instant(event, self._tid(event.pid, work.lane))
        if event.op in _ENDS:
            for key in [
                key for key in self._work
                if (key[0] == event.pid if event.op is Op.EXIT else key[1] == event.node)
            ]:  # fmt: skip
                yield self._finish(key)

    def end(self) -> Iterator[Record]:
        while self._work:
            yield self._finish(next(iter(self._work)))

    def _finish(self, key: tuple[int, int]) -> Record:
        work = self._work.pop(key)
        self._lanes[work.pid].free.append(work.lane)
        arguments = {"changes": work.changes, "written": work.written, "fidelity": FIDELITIES[work.fidelity]}
        return {
            "ph": "X", "name": work.name, "cat": "file", "pid": work.pid, "tid": self._tid(work.pid, work.lane),
            "ts": _us(work.start), "dur": _us(work.last - work.start), "args": arguments,
        }  # fmt: skip

    def _instant(self, event: Event, tid: int) -> Record:
        return {
            "ph": "i", "name": event.op.label, "cat": "change", "s": "t", "pid": event.pid, "tid": tid,
            "ts": _us(event.time), "args": self._arguments(event),
        }  # fmt: skip

    def _arguments(self, event: Event) -> Record:
        found: Record = {"event": event.seq, "at": self._trace.stamp(event)}
        if event.path:
            found["path"] = printable(self._trace.display(event.path))
        if event.to is not None:
            found["to"] = printable(event.to if event.op is Op.SYMLINK else self._trace.display(event.to))
        found.update({key: value for key in ("offset", "size") if (value := getattr(event, key)) is not None})
        if event.detail and event.op not in (Op.MARK, Op.GAP):
            found["detail"] = printable(event.detail)
        if event.count:
            found["count"] = event.count
        if event.fidelity is not Fidelity.EXACT:
            found["fidelity"] = FIDELITIES[event.fidelity]
        return found

    def _named(self, pid: int, lane: int) -> Record:
        tid = self._tid(pid, lane)
        return {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": f"files {lane}"}}

    def _tid(self, pid: int, lane: int) -> int:
        """Thread numbers are one space for the whole trace: above all pids there can be."""
        return (1 << 22) * (1 + lane) + pid
