"""Columns of integers, and blocks of events in them: what was packed comes back, with numpy and without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.errors import TraceDamagedError
from diffkeeper.store import blocks, eventindex
from diffkeeper.store.codec import compress, pack_columns, pack_strings, unpack_columns, unpack_lists
from tests.builder import TraceBuilder
from tests.system import harness

numbers = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-2, 300))
tables = st.integers(1, 40).flatmap(
    lambda rows: st.lists(st.lists(numbers, min_size=rows, max_size=rows), min_size=1, max_size=5)
)


@given(tables, st.binary(max_size=20))
def test_columns_come_back(table: list[list[int]], rest: bytes) -> None:
    """Any columns of int64, and where they end, are the same whichever way they are unpacked."""
    rows, count = len(table[0]), len(table)
    data = pack_columns([np.array(column, np.int64) for column in table])
    columns, end = unpack_columns(data + rest, rows, count)
    assert [column.tolist() for column in columns] == table
    assert unpack_lists(data + rest, rows, count) == (table, end)
    assert end == len(data)


@given(st.binary(max_size=200), st.integers(-1, 30), st.integers(0, 6))
def test_what_are_no_columns(data: bytes, rows: int, count: int) -> None:
    """Both ways say the same of any bytes, or both say that they are damaged."""
    try:
        columns, end = unpack_columns(data, rows, count)
    except TraceDamagedError as error:
        with pytest.raises(TraceDamagedError, match=str(error).split(";", maxsplit=1)[0]):
            unpack_lists(data, rows, count)
    else:
        assert unpack_lists(data, rows, count) == ([column.tolist() for column in columns], end)


small = st.integers(-2, 20)
events = st.lists(st.tuples(*[small] * 11), min_size=1, max_size=6)


@given(events, st.lists(st.binary(max_size=3), min_size=1, max_size=4), st.integers(0, 2))
def test_blocks_that_make_no_sense(rows: list[tuple[int, ...]], strings: list[bytes], late: int) -> None:
    """What is an event and what is not is the same for both: kinds, times in order, texts that are there."""
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    columns[0].sort()
    raw = pack_columns(columns) + pack_strings(strings)
    first, last = int(columns[0][0]), int(columns[0][-1]) + late // 2
    value = blocks.HEAD.pack(len(rows), first, last, len(raw)) + compress(raw)
    try:
        found, texts = blocks.decode(value)
    except TraceDamagedError:
        with pytest.raises(TraceDamagedError):
            blocks.decode_plainly(value)
    else:
        assert blocks.decode_plainly(value) == (found.tolist(), texts)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 2, 3, 5]), small), min_size=1, max_size=9))
def test_blocks_come_back(rows: list[tuple[int, int, int]]) -> None:
    """A block that was packed is understood by both."""
    buffer = blocks.EventBuffer(1)
    for time, op, size in sorted(rows):
        buffer.add(time, op, 7, b"/a", to=b"/b", size=max(size, -1), detail=b"c")
    value = blocks._encode(buffer.rows, list(buffer.strings))
    found, texts = blocks.decode(value)
    assert blocks.decode_plainly(value) == (found.tolist(), texts)


def test_a_block_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of numbers take more memory than arrays: what is larger than any block of ours is left to numpy."""
    monkeypatch.setattr(eventindex, "is_loaded", lambda: False)
    index = eventindex.EventIndex()
    assert index._plainly(eventindex.BlockRef(1, blocks.BLOCK_EVENTS, 0, 0))
    assert not index._plainly(eventindex.BlockRef(1, blocks.BLOCK_EVENTS + 1, 0, 0))


def test_a_short_look_does_without_numpy(tmp_path: Path) -> None:
    """A trace that was looked at before is looked at without it; with it the answers are the same."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.begin()
    for number in range(30):
        builder.create(f"f{number}", b"x")
    builder.mark("here")
    builder.end()
    path = builder.build()
    script = """
import sys, diffkeeper
if len(sys.argv) > 2: import numpy
with diffkeeper.open(sys.argv[1]) as trace:
    print(trace.moment("here"), [repr(event) for event in trace.events()])
    print(trace.moment("@e9"), list(trace.diff("e3", "e5")))
print(len(sys.argv) > 2 or "numpy" not in sys.modules)
"""

    def said(*more: str) -> str:
        words = [sys.executable, "-c", script, str(path), *more]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    harness.wait_for(lambda: said().endswith("True\n"))  # an index must be left alone for a while to be known as sound
    assert said() == said("numpy")
