"""The facade: which events a question gets, how things are named, how a trace opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diffkeeper
from diffkeeper.errors import MomentError, NotATraceError, TraceMissingError, UsageError
from diffkeeper.model import Op
from diffkeeper.trace import Trace
from tests.builder import TraceBuilder


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Ten events in three seconds, the last two outside the root and without a path."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"src/main.c": b"int main;\n"})
    builder.begin()
    builder.exec("/usr/bin/make", "all", at=0.0)  # e1
    builder.create("status.log", b"start\n", at=1.0)  # e2, e3
    builder.write("src/main.c", b"more\n", at=1.5)  # e4
    builder.mark("half", at=1.5005)  # e5
    builder.rename("status.log", "old.log", at=2.0)  # e6
    builder.mkdir("build", at=2.1)  # e7
    builder.create("/opt/outside.log", at=2.2)  # e8
    builder.exit(at=3.0)  # e9
    builder.end()
    return diffkeeper.open(builder.build())


def seqs(trace: Trace, **question: Any) -> list[int]:
    return [event.seq for event in trace.events(**question)]


def test_all_events(trace: Trace) -> None:
    """Without conditions every event comes, in order."""
    assert seqs(trace) == list(range(1, 10))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({"since": "2s"}, [6, 7, 8, 9]),
        ({"since": "half"}, [5, 6, 7, 8, 9]),
        ({"since": "e7", "until": "e8"}, [7, 8]),
        ({"since": 7, "until": "e8"}, [7, 8]),
        ({"until": "1s"}, [1, 2, 3, 4, 5]),
        ({"since": "1.2s", "until": "1.4s"}, []),
        ({"until": "start"}, []),
        ({"since": "start", "until": "0s"}, [1]),
        ({"op": "write"}, [3, 4]),
        ({"op": {Op.MKDIR, "rename"}}, [6, 7]),
        ({"pid": 4242}, []),
        ({"path": "*.log"}, [2, 3, 6, 8]),
        ({"path": "old.log"}, [6]),
        ({"path": "main.c"}, [4]),
        ({"path": "src/*"}, [4]),
        ({"path": "./src/main.?"}, [4]),
        ({"path": b"/opt/root/s*"}, [2, 3, 4, 6]),
        ({"path": "/opt/out*"}, [8]),
        ({"path": "*"}, [2, 3, 4, 6, 7, 8]),
        ({"path": "[!p-s]*", "op": "create"}, [8]),
        ({"path": "*.log", "op": "write", "since": "1s"}, [3]),
    ],
)
def test_questions(trace: Trace, question: dict[str, object], expected: list[int]) -> None:
    """Moments bound the events on both sides, included; path, op and pid choose among them."""
    assert seqs(trace, **question) == expected


def test_wrong_questions(trace: Trace) -> None:
    """A moment or operation that does not exist is an error before the first event."""
    with pytest.raises(MomentError):
        trace.events(since="1h")
    with pytest.raises(UsageError, match="'wrote'"):
        trace.events(op="wrote")


def test_stamps_name_their_event(trace: Trace) -> None:
    """What stamp() prints beside an event is a moment that ends with that event."""
    for event in trace.events():
        assert trace.moment(trace.stamp(event)).seq == event.seq == trace.moment(trace.stamp(event.seq)).seq
    assert trace.stamp(0) == "start" and trace.stamp(6) == "2.000s" and trace.stamp(4) == "e4"


def test_moments(trace: Trace) -> None:
    """A moment is given as a spelling, a number, or a Moment."""
    assert trace.moment("@half").seq == trace.moment(5).seq == trace.moment(trace.moment("e5")).seq == 5
    with pytest.raises(MomentError):
        trace.moment(10)


def test_display(trace: Trace) -> None:
    """Paths below the one root are shown without it."""
    shown = {b"/opt/root/src/x.c": b"src/x.c", b"/opt/root": b".", b"/opt/rootless": b"/opt/rootless", b"": b""}
    assert {path: trace.display(path) for path in shown} == shown


def test_summary(trace: Trace) -> None:
    """Session, roots, marks and processes are the recording's."""
    assert trace.roots == (b"/opt/root",) and trace.session.exit_code == 0
    assert [(mark.name, mark.seq) for mark in trace.marks()] == [("half", 5)]
    assert trace.processes()[100].comm == "make"
    assert list(trace.problems()) == []


def test_open_finishes_the_index(tmp_path: Path) -> None:
    """A recording whose recorder died is indexed when it is opened, and no question notices."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({})
    builder.begin()
    builder.create("a", b"1")
    builder.journal()
    with diffkeeper.open(tmp_path / "trace") as trace:
        assert (trace.at("end") / "a").read_bytes() == b"1" and trace.session.duration is None


def test_open_what_is_no_trace(tmp_path: Path) -> None:
    """A missing path and a directory of something else are told apart."""
    with pytest.raises(TraceMissingError):
        diffkeeper.open(tmp_path / "nothing")
    (tmp_path / "file").touch()
    for other in (tmp_path, tmp_path / "file"):
        with pytest.raises(NotATraceError):
            diffkeeper.open(other)


@pytest.mark.parametrize("name", ["before", "", "a/b", "nul\0", "long" * 5000, "\udcff", chr(0xD800)])
def test_mark_never_raises(name: str) -> None:
    """mark() does nothing, whatever the name, when nothing records."""
    diffkeeper.mark(name)
