"""The filters of events: op, process, size and time.

Owns what each keeps. None has a verdict on paths, so none leaves anything out of a moment.
"""

from __future__ import annotations

import bisect
import fnmatch
import re
from typing import TYPE_CHECKING

from diffkeeper.errors import PluginError
from diffkeeper.model import Event, Op, Process
from diffkeeper.plugins import EventFilter
from diffkeeper.view.moments import duration

if TYPE_CHECKING:
    from diffkeeper.trace import Trace

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_ALWAYS = frozenset({Op.GAP, Op.MARK})
"""What nobody did to a file: what was missed, and what was named."""


class OpFilter(EventFilter):
    """Keeps events by what they did: only `include`, or all but `exclude`; operations as in the timeline."""

    def __init__(self, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        if not include and not exclude:
            raise PluginError("the filter 'op' needs include=OP or exclude=OP")
        self._kept = (_ops(include) if include else frozenset(Op)) - _ops(exclude)

    def keep(self, event: Event) -> bool:
        return event.op in self._kept


class ProcessFilter(EventFilter):
    """Keeps what certain processes did: of this `pid`, called `comm`, with a command line like `argv`.

    `comm` and `argv` are globs, `argv` for the words with spaces between; where several are given, all
    must fit. A process is what it was at the event: before its exec it has its parent's name. With
    `descendants` also what comes from such a process. `invert`: keeps all others. Gaps and marks stay.
    """

    def __init__(
        self, comm: str | None = None, argv: str | None = None, pid: int | None = None, descendants: bool = True,
        invert: bool = False,
    ) -> None:  # fmt: skip
        if comm is None and argv is None and pid is None:
            raise PluginError("the filter 'process' needs comm=GLOB, argv=GLOB or pid=N")
        self._comm, self._argv, self._pid = comm, argv, pid
        self._descendants, self._invert = descendants, invert
        self._trace: Trace | None = None
        self._changes: list[int] = []  # events after which a process is another
        self._epoch = -1
        self._known: dict[int, bool] = {}  # pid -> verdict, within the epoch

    def begin(self, trace: Trace) -> None:
        self._trace = trace
        self._changes = [event.seq for event in trace.events(op=(Op.FORK, Op.EXEC))]

    def keep(self, event: Event) -> bool:
        if event.op in _ALWAYS or not event.pid:
            return True
        epoch = bisect.bisect_right(self._changes, event.seq)
        if epoch != self._epoch:
            self._epoch = epoch
            self._known.clear()
        verdict = self._known.get(event.pid)
        if verdict is None:
            verdict = self._known[event.pid] = self._fits(event.pid, event.seq)
        return verdict is not self._invert

    def _fits(self, pid: int, seq: int) -> bool:
        seen: set[int] = set()
        while pid and pid not in seen:  # a pid that was used again may be its own ancestor
            seen.add(pid)
            process = self._trace.reader.process_at(pid, seq) if self._trace else None
            if self._is_meant(pid, process):
                return True
            if process is None or not self._descendants:
                return False
            pid = process.ppid
        return False

    def _is_meant(self, pid: int, process: Process | None) -> bool:
        comm, argv = (process.comm, " ".join(process.argv)) if process else ("", "")
        return (
            (self._pid is None or pid == self._pid)
            and (self._comm is None or fnmatch.fnmatchcase(comm, self._comm))
            and (self._argv is None or fnmatch.fnmatchcase(argv, self._argv))
        )


class SizeFilter(EventFilter):
    """Keeps writes of `min` to `max` bytes, and truncates to such sizes; 4096, 64k, 1.5M. Other events stay."""

    def __init__(self, min: str | None = None, max: str | None = None) -> None:  # noqa: A002 - as it is written
        if min is None and max is None:
            raise PluginError("the filter 'size' needs min=BYTES or max=BYTES")
        self._least = 0 if min is None else _bytes(min)
        self._most = None if max is None else _bytes(max)

    def keep(self, event: Event) -> bool:
        if event.size is None:
            return True
        return self._least <= event.size and (self._most is None or event.size <= self._most)


class TimeFilter(EventFilter):
    """Keeps events from `since` to `until` after the command's start, both included; spelled 2s, 1m30s, 350ms."""

    def __init__(self, since: str | None = None, until: str | None = None) -> None:
        if since is None and until is None:
            raise PluginError("the filter 'time' needs since=TIME or until=TIME")
        self._since = 0 if since is None else _time(since)
        self._until = None if until is None else _time(until)

    def keep(self, event: Event) -> bool:
        return self._since <= event.time and (self._until is None or event.time <= self._until)


def _ops(names: tuple[str, ...]) -> frozenset[Op]:
    labels = {op.label: op for op in Op}
    for name in names:
        if name not in labels:
            raise PluginError(f"the filter 'op': there is no operation {name!r}; there are {', '.join(labels)}")
    return frozenset(labels[name] for name in names)


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise PluginError(f"the filter 'size': {text!r} is no size; write 4096, 64k or 1.5M")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _time(text: str) -> int:
    found = duration(text)
    if found is None:
        raise PluginError(f"the filter 'time': {text!r} is no span of time; write 2s, 1m30s or 350ms")
    return found
