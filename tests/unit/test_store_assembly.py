"""The bytes of files that were written to many times, in any order."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffkeeper.store import content
from diffkeeper.store.content import CHUNK, SORTED
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.layers import visible
from diffkeeper.store.reader import open_reader
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder

extents = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=25)


@given(extents)
def test_the_last_extent_lies_on_top(given: list[tuple[int, int]]) -> None:
    """Of extents one over the other, each place shows the last that covers it, and shows it once."""
    wanted: dict[int, int] = {}
    for number, (start, length) in enumerate(given):
        wanted.update(dict.fromkeys(range(start, start + length), number))
    starts = np.array([start for start, _ in given], np.int64)
    lows, highs, numbers = visible(starts, starts + np.array([length for _, length in given], np.int64))
    found = [
        (place, number)
        for low, high, number in zip(lows.tolist(), highs.tolist(), numbers.tolist(), strict=True)
        for place in range(low, high)
    ]
    assert dict(found) == wanted
    assert [place for place, _ in found] == sorted(wanted)


@pytest.mark.parametrize("region", [100_000, 32 << 20])
def test_writes_that_jump_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, region: int) -> None:
    """A file written to all over, cut, cleared and extended: each moment reads as it was, in whatever pieces."""
    monkeypatch.setattr("diffkeeper.store.assembly.REGION", region)
    chance = random.Random(7)
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"db": chance.randbytes(400_000)})
    builder.begin()
    moments = {}
    for number in range(1, 600):
        if number % 97 == 0:
            builder.truncate("db", chance.randrange(200_000, 600_000))
        elif number % 53 == 0:
            builder.zero("db", chance.randrange(300_000), 5000)
        else:
            builder.write("db", chance.randbytes(chance.randrange(1, 9000)), chance.randrange(500_000))
        if number % 60 == 0 or number > 590:
            moments[builder.seq] = bytes(builder.node("db").data)
    builder.end()
    path = builder.build()
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/db", 0)
        assert node is not None
        for seq, wanted in moments.items():
            assert b"".join(reader.chunks(node, seq)) == wanted
            at = chance.randrange(len(wanted))
            assert reader.read(node, seq, at, 70_000) == wanted[at : at + 70_000]
        assert list(reader.problems()) == []
    database = Database(path / DATA_FILE)
    with database.reading() as txn:
        heads = [content.decode_ref(key, value).head for key, value in txn.scan(Table.CONTENT)]
        sizes = [len(value) for _, value in txn.scan(Table.BLOBS)]
    database.close()
    assert any(head.flags & SORTED for head in heads), "the bytes lie in the order of their places"
    assert len(sizes) > sum(head.payload for head in heads) // (2 * CHUNK), "a read need not take all of a block"


def test_attributes_hold_until_they_change(tmp_path: Path) -> None:
    """What is remembered of a file is true from the event that made it so to the one before the next."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": b"0"})
    builder.begin()
    wanted = {0: (1, 0o644)}
    for number in range(1, 40):
        if number % 5 == 0:
            builder.chmod("f", 0o600 + number % 8)
        elif number % 7 == 0:
            builder.create(f"other{number}")
        else:
            builder.write("f", b"x" * number)
        node = builder.node("f")
        wanted[builder.seq] = node.size, node.mode & 0o777
    builder.end()
    orders = (sorted(wanted), sorted(wanted, reverse=True), random.Random(3).choices(sorted(wanted), k=200))
    with open_reader(builder.build()) as reader:
        file, top = reader.resolve(b"/opt/root/f", 0), reader.resolve(b"/opt/root", 0)
        assert file is not None and top is not None
        for order in orders:
            reader.refresh()
            for seq in order:
                attrs = reader.attrs(file, seq)
                assert attrs is not None
                assert (attrs.size, attrs.mode & 0o777) == wanted[seq]
                listed = {name: found for name, _, found in reader.entries(top, seq)}
                assert listed[b"f"] == attrs


kinds = st.sampled_from(["write", "cut", "zero"])
changes = st.lists(st.tuples(kinds, st.integers(0, 900), st.integers(1, 600)), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), changes, st.booleans())
def test_content_told_by_its_digest(
    tmp_path: Path, there: bool, given: list[tuple[str, int, int]], again: bool
) -> None:
    """What the store says is all of a file is that, and nothing else; written in one go, or in order, it says so."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as top:
        builder = TraceBuilder(Path(top) / "trace")
        builder.baseline({"f": b"before" * 80 if there else b""})
        builder.begin()
        for kind, at, size in given:
            if kind == "write":
                builder.write("f", bytes([at % 251]) * size, at)
            elif kind == "cut":
                builder.truncate("f", at)
            else:
                builder.zero("f", at, size)
        if again:
            builder.truncate("f", 0)
            for number in range(3):
                builder.write("f", b"%d" % number * 200)
        builder.end()
        with open_reader(builder.build()) as reader:
            data = bytes(builder.node("f").data)
            node = reader.resolve(b"/opt/root/f", 0)
            assert node is not None
            assert reader.holds(node, reader.last_seq, data) or not again
            assert not reader.holds(node, reader.last_seq, data + b"0")
            assert not data or not reader.holds(node, reader.last_seq, bytes([data[0] ^ 1]) + data[1:])
