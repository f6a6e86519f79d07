"""What a moment is called: the grammar that reads moments, and the one home of how they are printed.

Owns every spelling: `2m14s`, `00m:02s`, `500ms`, `e1234`, `start`, `end`, marks, wall time, and
`end-5s`. A moment includes every event whose stamp, cut to the precision written, is not later;
so what a timeline shows at `2m14s` is in `2m14s`. It asks a `Timeline` (a store's reader is one)
and knows nothing of trees or files.

    moment   = ["@"] (base | base ("+" | "-") (duration | number of events))
    base     = "start" | "end" | "latest" | "exit" | "e" number | duration | clock | wall | mark
    duration = number unit {number unit}    units d h m s ms us ns, descending, ":" allowed between;
                                            the last number may have a fraction
    clock    = [hours ":"] minutes ":" seconds ["." fraction]
    wall     = RFC 3339; "." will do for ":"
    mark     = the mark's name, or "mark:" and its name where that reads like something else
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple, Protocol

from diffkeeper.errors import MomentError
from diffkeeper.model import NO_SEQ, Event, Mark, Moment, Session

NS = {"d": 86_400_000_000_000, "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000,
      "ms": 1_000_000, "us": 1_000, "ns": 1}
SECOND, MILLISECOND = NS["s"], NS["ms"]
MARK_PREFIX = "mark:"
END_NAMES = ("end", "latest", "exit")
LONGEST = 1024
"""Characters; a longer spelling is refused before any pattern looks at it."""

_PART = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?(ms|us|ns|[dhms])", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,9}):)?([0-5]?\d):([0-5]\d)(?:\.(\d{1,9}))?", re.ASCII)
_WALL = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d)[:.](\d\d)(?:[:.](\d\d)(?:[.,](\d{1,9}))?)?(?:([Zz])|([+-])(\d\d)[:.]?(\d\d))",
    re.ASCII,
)
_EVENT = re.compile(r"e(\d{1,19})", re.ASCII)
_OFFSET = re.compile(r"(.+)([+-])([^+-]+)", re.DOTALL)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timeline(Protocol):
    """What the grammar asks of a trace."""

    @property
    def session(self) -> Session: ...
    @property
    def last_seq(self) -> int: ...
    def time_at(self, seq: int) -> int: ...
    def seq_at(self, time_ns: int) -> int: ...
    def marks(self) -> list[Mark]: ...


class Span(NamedTuple):
    """What a spelling covers: events `first`..`last` are written so; `last` is the moment.

    `low` and `high` are times from the start in ns, both included: more than one ns where the
    spelling is coarser. `first` may be `last + 1`: nothing happened just then.
    """

    first: int
    last: int
    low: int
    high: int


def duration_text(time_ns: int, digits: int = 3) -> str:
    """A time in the timeline's own spelling, cut (not rounded) to `digits` decimals of a second.

    `12.350s`, `2m04.350s`, `1h02m04.350s`.
    """
    seconds, rest = divmod(time_ns, SECOND)
    fraction = f".{rest:09d}"[: digits + 1] if digits else ""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m{seconds:02d}{fraction}s"
    return f"{minutes}m{seconds:02d}{fraction}s" if minutes else f"{seconds}{fraction}s"


def stamp(event: Event, last: int) -> str:
    """The spelling a timeline prints beside an event: the moment just after it, and nothing more.

    A time to the millisecond where that includes no later event, else `e1234`; `last` is the last
    event in this one's millisecond.
    """
    return duration_text(event.time) if last == event.seq else f"e{event.seq}"


def parse(timeline: Timeline, text: str) -> Moment:
    """The moment that `text` spells. Raises MomentError, in one line, for anything else."""
    return Moment(span(timeline, text).last, text.removeprefix("@"))


def duration(text: str) -> int | None:
    """Nanoseconds of a span of time as moments spell it (`100ms`, `1m30s`); None when it is none."""
    return found[0] if (found := _interval(text)) else None


def listed_marks(timeline: Timeline) -> list[tuple[str, Mark]]:
    """Each mark with the shortest spelling that means it, the last one of a name only, by time."""
    latest = {mark.name: mark for mark in timeline.marks()}
    marks = sorted(latest.values(), key=lambda mark: mark.seq)
    return [(mark.name if _plain(mark.name) else MARK_PREFIX + mark.name, mark) for mark in marks]


def span(timeline: Timeline, text: str) -> Span:
    """What `text` covers. Raises MomentError when it is misspelt, unknown or out of range."""
    spelling = text.removeprefix("@")
    if len(spelling) > LONGEST:
        raise MomentError(f"a moment has at most {LONGEST} characters, not {len(spelling)}")
    found = _base(timeline, spelling) or _with_offset(timeline, spelling)
    if found is None:
        raise MomentError(f"no moment {_quoted(spelling)}: {_suggestion(timeline, spelling)}")
    return found


def end_time(timeline: Timeline) -> int:
    """When the recording ended, in ns from its start: the command's end or the last event, the later."""
    last = timeline.time_at(timeline.last_seq) if timeline.last_seq else 0
    return max(last, timeline.session.duration or 0)


def _plain(name: str) -> bool:
    """Whether a mark's name, written as it is, means the mark: it reads like nothing else."""
    fixed = name == "start" or name in END_NAMES or name.startswith(("@", MARK_PREFIX)) or _EVENT.fullmatch(name)
    return not (fixed or _interval(name) or _WALL.fullmatch(name))


def _base(timeline: Timeline, text: str) -> Span | None:
    """A spelling without an offset, or None. Fixed words first: a mark cannot take their place."""
    if text == "start":
        return Span(1, NO_SEQ, 0, 0)
    if text in END_NAMES:
        end = end_time(timeline)
        return Span(timeline.last_seq, timeline.last_seq, end, end)
    if match := _EVENT.fullmatch(text):
        return _event(timeline, text, int(match[1]))
    if interval := _interval(text):
        return _times(timeline, text, *interval)
    if match := _WALL.fullmatch(text):
        return _wall(timeline, text, match)
    names = {mark.name: mark for mark in timeline.marks()}
    mark = names.get(text) or names.get(text.removeprefix(MARK_PREFIX))
    return Span(mark.seq, mark.seq, mark.time, mark.time) if mark else None


def _with_offset(timeline: Timeline, text: str) -> Span | None:
    """`base+offset` or `base-offset`; None when it is neither."""
    match = _OFFSET.fullmatch(text)
    base = _base(timeline, match[1]) if match else None
    if match is None or base is None:
        return None
    sign = 1 if match[2] == "+" else -1
    if match[3].isascii() and match[3].isdecimal() and len(match[3]) < 20:
        return _event(timeline, text, base.last + sign * int(match[3]))
    if interval := _interval(match[3]):
        shift = sign * interval[0]
        return _times(timeline, text, base.low + shift, base.high + shift)
    return None


def _interval(text: str) -> tuple[int, int] | None:
    """First and last ns of the time that a duration or clock spells, or None."""
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds, fraction = match.groups()
        whole = int(hours or 0) * NS["h"] + int(minutes) * NS["m"] + int(seconds) * SECOND
        return _cut(whole, fraction, SECOND)
    at, total, smallest, fraction = 0, 0, NS["d"] + 1, None
    while at < len(text):
        if at and text[at] == ":":
            at += 1
        match = _PART.match(text, at)
        if match is None or fraction is not None or NS[match[3]] >= smallest:
            return None
        at, smallest, fraction = match.end(), NS[match[3]], match[2]
        total += int(match[1]) * smallest
    return _cut(total, fraction, smallest) if text else None


def _cut(whole: int, fraction: str | None, unit: int) -> tuple[int, int]:
    """Whole ns plus a decimal fraction of `unit`, and the last ns that is still written so."""
    if fraction is None:
        return whole, whole + unit - 1
    scale = 10 ** len(fraction)
    low = whole + -(-int(fraction) * unit // scale)  # rounded up: the first ns that is cut to this
    return low, max(low, whole + -(-(int(fraction) + 1) * unit // scale) - 1)


def _event(timeline: Timeline, text: str, seq: int) -> Span:
    if not NO_SEQ <= seq <= timeline.last_seq:
        raise MomentError(f"no moment {_quoted(text)}: {_range(timeline)}")
    time = timeline.time_at(seq) if seq else 0
    return Span(max(seq, 1), seq, time, time)


def _times(timeline: Timeline, text: str, low: int, high: int) -> Span:
    if high < 0 or low > end_time(timeline):
        raise MomentError(f"no moment {_quoted(text)}: {_range(timeline)}")
    before = timeline.seq_at(low - 1) if low > 0 else NO_SEQ
    return Span(before + 1, timeline.seq_at(high), max(low, 0), high)


def _wall(timeline: Timeline, text: str, match: re.Match[str]) -> Span:
    year, month, day, hour, minute, second, fraction, _, sign, offset_hours, offset_minutes = match.groups()
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0)) * (-1 if sign == "-" else 1)
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=timezone(offset)
        )
        whole = (moment - _EPOCH) // timedelta(seconds=1) * SECOND
    except (ValueError, OverflowError) as error:
        raise MomentError(f"no moment {_quoted(text)}: not a date and time ({error})") from error
    low, high = _cut(whole, fraction, SECOND if second else NS["m"])
    started = timeline.session.started
    return _times(timeline, text, low - started, high - started)


def _quoted(text: str) -> str:
    return '"@' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + '"'


def _range(timeline: Timeline) -> str:
    last, end = timeline.last_seq, end_time(timeline)
    started = _EPOCH + timedelta(microseconds=timeline.session.started // 1000)
    events = f"events e1 to e{last}" if last else "no events"
    return f"the recording has {events} in {duration_text(end)}, from {started:%Y-%m-%dT%H:%M:%SZ} on"


def _suggestion(timeline: Timeline, text: str) -> str:
    """What to write instead: the marks that look like it, or else how moments are written."""
    names: Sequence[str] = [name for name, _ in listed_marks(timeline)]
    near = difflib.get_close_matches(text, ["start", *END_NAMES, *names], n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    known = f"; marks: {', '.join(map(_printable, names[:5]))}{', …' if len(names) > 5 else ''}" if names else ""
    return f"write it like 2m14s, e12, start, end or end-5s{known}"


def _printable(name: str) -> str:
    return _quoted(name)[2:-1]
