"""The walk over a ring buffer's records, on memory that is laid out as the kernel lays it out."""

from __future__ import annotations

import struct
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.record.ring import finished
from diffkeeper.wire import RING_BUSY

RUNS = st.lists(st.tuples(st.sampled_from([8, 16, 17, 40, 136, 200]), st.integers(1, 60)), max_size=6)


@given(RUNS, st.integers(0, 100).map(lambda at: at * 8), st.data())
def test_the_walk_ends_where_the_first_unfinished_record_begins(
    runs: list[tuple[int, int]], start: int, data: st.DataObject
) -> None:
    """Finished records are passed over whole, up to the first unfinished one or the end, however alike they are."""
    lengths = [length for length, times in runs for _ in range(times)]
    begins = list(accumulate((8 + (length + 7 & ~7) for length in lengths), initial=start))
    busy = data.draw(st.integers(0, len(lengths)))
    memory = bytearray(begins[-1] + 8)
    for number, (at, length) in enumerate(zip(begins, lengths, strict=False)):
        struct.pack_into("<I", memory, at, length | (RING_BUSY if number == busy else 0))
    end = data.draw(st.sampled_from(begins))
    assert finished(memoryview(memory).cast("I"), start, end) == min(begins[busy], end)
