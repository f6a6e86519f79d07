"""What reaches the terminal: safe text, readable figures, bars only where they help."""

from __future__ import annotations

import io
import os
import pty
import select
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper import wording
from diffkeeper.cli import ui


@given(st.one_of(st.binary(), st.text(st.characters(codec=None))))
def test_printable_text_is_one_line_that_no_terminal_obeys(text: bytes | str) -> None:
    """Whatever a file is called: no control character, no line break, and it can be encoded."""
    shown = wording.printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")


@given(st.text().filter(str.isprintable))
def test_printable_text_stays_as_it_is(text: str) -> None:
    """Letters of all scripts are shown, not escaped."""
    assert wording.printable(text) == wording.printable(text.encode()) == text


def test_escapes_are_the_usual_ones() -> None:
    """As a shell's `$'...'` would write them."""
    assert wording.printable(b"a\nb\x1b[31m\xff\x7f") == r"a\nb\e[31m\xff\x7f"
    assert wording.printable("\u202e\U000e0001") == r"\u202e\U000e0001"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (102000, "99.6 KiB"), (1 << 20, "1.0 MiB"), (5 << 50, "5.0 PiB")],
)
def test_sizes(count: int, text: str) -> None:
    """Four characters and a unit."""
    assert wording.human_size(count) == text


@given(st.integers(0, 1 << 60))
def test_sizes_are_short(count: int) -> None:
    """Columns can rely on it."""
    assert len(wording.human_size(count)) <= 10


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0ms"), (350_999_999, "350ms"), (12_350_000_000, "12.350s"), (134 * 10**9, "2m14.000s"),
     (3_723 * 10**9, "1h02m03s")],
)  # fmt: skip
def test_durations(ns: int, text: str) -> None:
    """Cut, not rounded."""
    assert wording.human_duration(ns) == text


def test_colour_needs_a_terminal_and_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never in a pipe; on a terminal unless NO_COLOR or a dumb one."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with open(slave, "w") as terminal, open(master, "rb"):
        assert ui.use_colour(terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not ui.use_colour(terminal)
        monkeypatch.setenv("NO_COLOR", "")
        monkeypatch.setenv("TERM", "dumb")
        assert not ui.use_colour(terminal)
    assert not ui.use_colour(io.StringIO())


def test_bars_appear_only_when_work_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick work draws nothing; slow work draws its label; afterwards the line is clean for notes."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with open(slave, "w") as terminal, open(master, "rb"):
        monkeypatch.setattr("sys.stderr", terminal)
        quick = ui.open_ui()
        quick.progress("copying", 1, 2)
        quick.finish()
        slow = ui.open_ui()
        slow.progress("indexing", 0, 10)
        time.sleep(ui.PATIENCE + 0.05)
        slow.progress("indexing", 5, 10)
        slow.finish()
        slow.finish()
        slow.note("all done [really]")
        terminal.flush()
        drawn = ""
        while "really]" not in drawn and select.select([master], [], [], 5)[0]:
            drawn += os.read(master, 1 << 16).decode()
    assert "copying" not in drawn
    assert "indexing" in drawn
    assert "all done [really]" in drawn.splitlines()[-1]


def test_in_a_pipe_only_notes_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log file gets no bars."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    shown = ui.open_ui()
    shown.progress("indexing", 1, 2)
    shown.finish()
    shown.note("a line")
    assert stream.getvalue() == "a line\n"
