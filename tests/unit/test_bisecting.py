"""Halving moments: the search for the first that is bad, whatever cannot be told."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import diffkeeper
from diffkeeper.bisecting import Found, Verdict, culprits, moments, search
from diffkeeper.exporting import Selection
from diffkeeper.happenings import Ends
from diffkeeper.progress import Silent
from tests.builder import TraceBuilder


def trier(bad_from: int, unknown: frozenset[int], tried: list[int]) -> Callable[[int, int], Verdict]:
    def try_at(seq: int, left: int) -> Verdict:
        assert left >= 0
        tried.append(seq)
        if seq in unknown:
            return Verdict.UNKNOWN
        return Verdict.BAD if seq >= bad_from else Verdict.GOOD

    return try_at


@given(st.integers(2, 500), st.data())
def test_the_first_bad_one_is_found(count: int, data: st.DataObject) -> None:
    """In as many steps as halving takes, none tried twice, and neither of the two that are known."""
    bad_from = data.draw(st.integers(1, count - 1))
    tried: list[int] = []
    assert search(range(count), trier(bad_from, frozenset(), tried)) == Found(bad_from - 1, bad_from)
    assert len(tried) == len(set(tried)) <= math.ceil(math.log2(count))
    assert not {0, count - 1} & set(tried)


@given(st.integers(2, 60), st.data())
def test_what_cannot_be_told(count: int, data: st.DataObject) -> None:
    """Is passed over: the answer is the narrowest span with something known at both ends."""
    bad_from = data.draw(st.integers(1, count - 1))
    unknown = frozenset(data.draw(st.sets(st.integers(1, count - 2)))) if count > 2 else frozenset()
    tried: list[int] = []
    found = search(range(count), trier(bad_from, unknown, tried))
    known = [seq for seq in range(count) if seq not in unknown]
    assert found.good == max(seq for seq in known if seq < bad_from)
    assert found.bad == min(seq for seq in known if seq >= bad_from)
    assert found.unknown == found.bad - found.good - 1
    assert len(tried) == len(set(tried))


def test_which_moments_come_into_question(tmp_path: Path) -> None:
    """Those at which files are settled, or all, or marks; of the paths that are asked for; and both ends."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"status": b"old"})
    builder.begin()
    builder.open("status", trunc=True)  # 1
    builder.write("status", b"ne")  # 2
    builder.write("status", b"w", offset=2)  # 3
    builder.mark("here")  # 4
    builder.create("other", b"text")  # 5, 6
    builder.write("status", b"x")  # 7
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        def found(per: str, good: int = 0, paths: tuple[bytes, ...] = ()) -> list[int]:
            return moments(trace, good, Selection(trace.moment("end"), paths, good + 1), Ends(per), Silent())

        end = trace.moment("end").seq
        assert found("close") == [0, 3, 6, end]
        assert found("change") == [0, 1, 2, 3, 5, 6, end]
        assert found("mark") == [0, 4, end]
        assert found("change", 2, (b"status",)) == [2, 3, end]
        assert [event.seq for event in culprits(trace, Found(3, 6))] == [5, 6]
