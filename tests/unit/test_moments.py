"""The grammar of moments: every spelling, what it includes, and what it says when it cannot be."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.errors import MomentError
from diffkeeper.model import Event, Mark, Op, Session
from diffkeeper.view import moments

S, MS = 1_000_000_000, 1_000_000
STARTED = 1_795_353_644 * S + 250 * MS  # 2026-11-22T13:20:44.250Z


@dataclass
class Times:
    """A timeline that is nothing but its times and marks."""

    times: list[int]
    named: list[Mark] = field(default_factory=list)
    duration: int | None = None

    @property
    def session(self) -> Session:
        return Session(1, "0", (), b"/", (b"/",), b"/trace", STARTED, duration=self.duration)

    @property
    def last_seq(self) -> int:
        return len(self.times)

    def time_at(self, seq: int) -> int:
        return self.times[seq - 1]

    def event(self, seq: int) -> Event:
        return Event(seq, self.times[seq - 1], Op.WRITE, 1, b"/f")

    def seq_at(self, time_ns: int) -> int:
        return bisect.bisect_right(self.times, time_ns)

    def marks(self) -> list[Mark]:
        return self.named


TIMELINE = Times(
    times=[0, 500 * MS, 2 * S, 2 * S + 900 * MS, 134 * S, 134 * S + 350 * MS + 7, 134 * S + 999 * MS, 3725 * S],
    named=[
        Mark("ready", 2, 500 * MS), Mark("e3", 4, 2900 * MS), Mark("half-way-1", 5, 134 * S), Mark("ready", 3, 2 * S)
    ],
    duration=3730 * S,
)


@pytest.mark.parametrize(
    ("text", "seq"),
    [
        ("start", 0), ("@start", 0), ("end", 8), ("latest", 8), ("exit", 8), ("e0", 0), ("e3", 3), ("e0008", 8),
        ("0s", 2), ("500ms", 2), ("499ms", 1), ("2s", 4), ("2.8s", 3), ("2.9s", 4), ("00m:02s", 4), ("00:02", 4),
        ("2m14s", 7), ("134s", 7), ("2m14.350s", 6), ("2m14.349s", 5), ("0h2m14s", 7), ("2m", 7), ("1m", 4),
        ("1h", 8), ("1h2m5s", 8), ("1h2m4s", 7), ("1:02:05", 8), ("1h:02m:04s", 7), ("134350ms", 6),
        ("2m14s350ms", 6), ("2m14s350ms6ns", 5), ("1.5m", 4), ("2.2m", 7),
        ("ready", 3), ("mark:ready", 3), ("mark:e3", 4), ("half-way-1", 5), ("half-way-1-1", 4), ("ready+1", 4),
        ("end-5", 3), ("end-5s", 8), ("end-6s", 7), ("start+2s", 3), ("e6-1", 5), ("e6-350ms", 5), ("2m14s-1s", 4),
        ("2026-11-22T13:20:44Z", 2), ("2026-11-22T13.20.44Z", 2), ("2026-11-22t13:20:46z", 3),
        ("2026-11-22T13:20:46.25Z", 3), ("2026-11-22T13:20:46.2Z", 3), ("2026-11-22T14:20:47+01:00", 4),
        ("2026-11-22T13:20Z", 4), ("2026-11-22T08.20.47-05.00", 4), ("2026-11-22T13:20:47Z-1s", 3),
    ],
)
def test_spellings(text: str, seq: int) -> None:
    """Each documented spelling means the last event that it includes, with or without its @."""
    assert moments.parse(TIMELINE, text).seq == seq
    assert moments.parse(TIMELINE, "@" + text.removeprefix("@")).seq == seq


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "@@end", "e", "e9", "e-1", "9", "134", "s", "2x", "2s1m", "2s2s", "1.5m2s", "2m14", "3731s", "2h",
        "end+1s", "end+1", "start-1", "start-1s", "end-9", "nobody", "mark:nobody", "1:60", "0:00:61", "2026-11-22",
        "2026-13-22T13:20:44Z",
        "2026-11-22T13:20:44", "2026-11-22T13:20:43Z", "2026-11-22T15:20:44Z", "0000-01-01T00:00:00Z", "e٣", "٣s",
        "0001-01-01T00:00:00+23:59", "2026-11-22T13:20:44+99:99", "end-5s-5s", "e99999999999999999999", "x" * 5000,
        "9" * 5000 + "s", "end\n", "a\nb\0",
    ],
)
def test_no_moment(text: str) -> None:
    """What is misspelt, unknown or out of range is a MomentError of one printable line."""
    with pytest.raises(MomentError) as caught:
        moments.parse(TIMELINE, text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1600


def test_messages_help() -> None:
    """A message shows the recording's range, or the mark that was probably meant."""
    for text, hint in (("e9", "e1 to e8"), ("2h", "1h02m10.000s"), ("redy", "did you mean ready?"), ("zzz", "2m14s")):
        with pytest.raises(MomentError, match=hint):
            moments.parse(TIMELINE, text)


def test_a_moment_keeps_its_spelling() -> None:
    """The name of a moment is what was written, without the @, and can be pasted again."""
    assert moments.parse(TIMELINE, "@2m14s").name == "2m14s"


def test_listed_marks() -> None:
    """A repeated mark is listed once, where it was set last; one that reads as a number gets its prefix."""
    assert [(name, mark.seq) for name, mark in moments.listed_marks(TIMELINE)] == [
        ("ready", 3), ("mark:e3", 4), ("half-way-1", 5)
    ]


def test_empty_recording() -> None:
    """A recording without events has its start and its end, both before everything."""
    empty = Times([])
    assert [moments.parse(empty, text).seq for text in ("start", "end", "e0", "0s")] == [0, 0, 0, 0]
    with pytest.raises(MomentError, match="no events"):
        moments.parse(empty, "1s")


def test_span_covers_what_is_written_so() -> None:
    """A span holds the events whose time, cut to the precision written, reads like the spelling."""
    assert moments.span(TIMELINE, "2m14s")[:2] == (5, 7)
    assert moments.span(TIMELINE, "1m")[:2] == (5, 4)
    assert moments.span(TIMELINE, "start")[:2] == (1, 0)
    assert moments.span(TIMELINE, "e3")[:2] == (3, 3)


time = st.integers(0, 10**6).flatmap(lambda n: st.sampled_from([n, n * 997, n * MS, n * 86_399_999]))
times = st.lists(time, min_size=1).map(sorted)


@given(times, st.data())
def test_what_the_timeline_prints_includes_the_event(drawn: list[int], data: st.DataObject) -> None:
    """The stamp printed at an event means the moment just after it: that event and no later one."""
    timeline = Times(drawn)
    event = timeline.event(data.draw(st.integers(1, timeline.last_seq)))
    last = timeline.seq_at((event.time // MS + 1) * MS - 1)
    assert moments.parse(timeline, moments.stamp(event, last)).seq == event.seq


@given(times, st.data(), st.integers(0, 9))
def test_cut_times_include_the_event(drawn: list[int], data: st.DataObject, digits: int) -> None:
    """An event's time, cut to any precision, spells a moment and a span that include the event."""
    timeline = Times(drawn)
    event = timeline.event(data.draw(st.integers(1, timeline.last_seq)))
    found = moments.span(timeline, moments.duration_text(event.time, digits))
    assert found.first <= event.seq <= found.last
    assert all(
        (moments.duration_text(timeline.event(seq).time, digits) == moments.duration_text(event.time, digits))
        == (found.first <= seq <= found.last)
        for seq in range(1, timeline.last_seq + 1)
    )


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789dhmsn.:@+-eTZ"), max_size=40))
def test_only_moment_errors_escape(text: str) -> None:
    """Any text is a moment or a MomentError."""
    try:
        found = moments.parse(TIMELINE, text)
    except MomentError:
        return
    assert 0 <= found.seq <= TIMELINE.last_seq


@given(st.text(min_size=1, max_size=12) | st.sampled_from(["end", "e1", "1s", "@", "@x", "mark:", "mark:x", "a-1"]))
def test_every_mark_can_be_reached(name: str) -> None:
    """Whatever a mark is called, its listed spelling means it."""
    timeline = Times([0, 1, 2], [Mark(name, 2, 1)])
    ((spelling, _),) = moments.listed_marks(timeline)
    assert moments.parse(timeline, "@" + spelling).seq == 2
