"""Directories in which names come and go: listed as if their names were gone through, at every moment."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.errors import TraceDamagedError
from diffkeeper.store import churn, names
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.indexer import index
from diffkeeper.store.names import LATEST, U64
from diffkeeper.store.reader import open_reader
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder

SEQS = st.integers(0, LATEST - 1)


@given(SEQS, SEQS, SEQS)
def test_an_interval_is_where_its_moments_look_for_it(one: int, two: int, seq: int) -> None:
    """At one of some sixty numbers for each moment that it holds; it holds that number itself."""
    first, last = sorted((one, two))
    at = churn.middle(first, last)
    assert first <= at <= last or first == last
    inside = sorted((first, last, seq))[1]
    for moment in (first, last, inside):
        assert at in set(churn.middles(moment))
    assert len(list(churn.middles(seq))) <= 63


def changed(builder: TraceBuilder, chance: random.Random, count: int) -> None:
    """Names come, go, are replaced and swapped, in one directory and another."""
    for _ in range(count):
        here = [name for name in (f"d/{letter}" for letter in "abcdefgh") if builder.exists(name)]
        new = f"d/{chance.choice('abcdefgh')}"
        what = chance.choice(["create", "create", "rename", "unlink", "unlink", "out", "exchange", "link"])
        if what == "create" and new not in here:
            builder.create(new)
        elif what == "rename" and here and (old := chance.choice(here)) != new:
            builder.rename(old, new)
        elif what == "unlink" and here:
            builder.unlink(chance.choice(here))
        elif what == "out" and here:
            builder.rename(chance.choice(here), f"other-{chance.random()}")
        elif what == "exchange" and len(here) > 1:
            one, two = chance.sample(here, 2)
            builder.rename(one, two, flags=2)
        elif what == "link" and here and new not in here:
            builder.link(chance.choice(here), new)


@pytest.mark.parametrize("seed", range(12))
def test_every_moment_is_as_its_names_say(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a directory is taken in, and wherever the indexer begins anew; `check` finds nothing wrong."""
    chance = random.Random(seed)
    monkeypatch.setattr(churn, "MANY", chance.choice([1, 3, 10]))
    monkeypatch.setattr(churn, "TIMES", chance.choice([0, 1, 2]))
    builder = TraceBuilder(tmp_path / "trace", frame=chance.choice([1, 7, 64]))
    builder.baseline({"d/a": b"1", "d/b": b"2"})
    builder.begin()
    for _ in range(3):
        changed(builder, chance, 40)
        builder.build()
    builder.end()
    with open_reader(builder.build()) as reader:
        parent = reader.resolve(b"/opt/root/d", 0)
        assert parent is not None
        with contextlib.closing(Database(builder.path / DATA_FILE)) as database, database.reading() as txn:
            assert churn.is_kept(txn, parent)
            for seq in range(reader.last_seq + 1):
                expected = names.children(txn, parent, seq)
                assert churn.listed(txn, parent, seq) == expected
                assert list(reader.children(parent, seq)) == expected
                assert [entry[:2] for entry in reader.entries(parent, seq)] == expected
        assert not list(reader.problems())


def test_a_directory_with_few_that_have_gone(tmp_path: Path) -> None:
    """Is not in these tables, nor is one of which much is there."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({f"d/there{number}": b"" for number in range(200)})
    builder.begin()
    for number in range(churn.TIMES * 200 - 100):
        builder.create(f"d/new{number}")
        builder.unlink(f"d/new{number}")
    builder.build()
    with contextlib.closing(Database(builder.path / DATA_FILE)) as database, database.reading() as txn:
        assert not list(txn.scan(Table.HERE)) and not list(txn.scan(Table.GONE))
    for number in range(2000):
        builder.create(f"d/new{number}")
        builder.unlink(f"d/new{number}")
    builder.end()
    with open_reader(builder.build()) as reader:
        assert not list(reader.problems())
    with contextlib.closing(Database(builder.path / DATA_FILE)) as database, database.reading() as txn:
        assert len(list(txn.scan(Table.HERE))) == 201


def test_of_millions_that_have_gone_few_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as many names cost a listing no more than a few entries."""
    looked = []
    for count in (1000, 10_000):
        builder = TraceBuilder(tmp_path / f"trace{count}", frame=10_000)
        builder.begin()
        for number in range(count):
            builder.create(f"new{number}")
            if number >= 5:
                builder.unlink(f"new{number - 5}")
        builder.end()
        with open_reader(builder.build()) as reader:
            parent = reader.resolve(b"/opt/root", 0)
            assert parent is not None
            seen: list[int] = []
            unpacked = churn._pair
            monkeypatch.setattr(churn, "_pair", lambda value, seen=seen, real=unpacked: seen.append(1) or real(value))
            found = list(reader.children(parent, reader.last_seq // 2))
            monkeypatch.undo()
            assert 5 <= len(found) <= 6
            looked.append(len(seen))
    assert looked[1] <= looked[0] + 40 < 150


@pytest.mark.parametrize("table", [Table.HERE, Table.GONE])
def test_entries_that_are_damaged(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are found by `check`, and where they cannot be read that is said."""
    monkeypatch.setattr(churn, "MANY", 2)
    builder = TraceBuilder(tmp_path / "trace")
    builder.begin()
    for number in range(50):
        builder.create(f"new{number}")
        builder.unlink(f"new{number}")
    builder.create("last")
    builder.end()
    index(builder.journal())
    with contextlib.closing(Database(builder.path / DATA_FILE, write=True)) as database:
        txn = database.begin()
        key, value = [entry for entry in txn.scan(table) if entry[1]][-1]
        txn.replace(table, key, value[:-1])
        txn.commit()
        with database.reading() as reading, contextlib.suppress(TraceDamagedError):
            for seq in range(200):
                churn.listed(reading, int.from_bytes(key[:8], "big"), seq)
            pytest.fail("nobody noticed")
        txn = database.begin()
        txn.replace(table, key, value[:-8] + U64.pack(3))
        txn.commit()
    with open_reader(builder.path) as reader:
        assert any("came and went" in problem for problem in reader.problems())
