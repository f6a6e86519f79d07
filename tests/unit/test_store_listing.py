"""Directories and attributes at any moment: remembered for as long as they hold."""

from __future__ import annotations

import random
from pathlib import Path

from diffkeeper.store.reader import open_reader
from tests.builder import TraceBuilder


def test_a_directory_holds_until_anything_in_it_changes(tmp_path: Path) -> None:
    """Listed at moments in any order, a directory is what it is to who remembers nothing; unchanged, it is not read."""
    chance, there = random.Random(5), {"a", "b"}
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"a": b"0", "b": b"1"})
    builder.begin()
    for number in range(200):
        new = f"{chance.randrange(12)}"  # few names, which come again
        if len(there) > 4:
            gone = chance.choice(sorted(there))
            there.remove(gone)
            builder.unlink(gone)
        elif number % 3 == 0 and new not in there:
            there.add(new)
            builder.create(new)
        elif number % 5 == 0 and there:
            old = chance.choice(sorted(there))
            there = there - {old} | {new}
            builder.rename(old, new)
        elif there:
            builder.write(chance.choice(sorted(there)), bytes(number))
        builder.mark(f"{number}")
    builder.end()
    with open_reader(builder.build()) as reader:
        top = reader.resolve(b"/opt/root", 0)
        assert top is not None
        wanted = []
        for seq in range(reader.last_seq + 1):
            reader.refresh()
            wanted.append(reader.entries(top, seq))
            assert [(name, node) for name, node, _ in wanted[-1]] == list(reader.children(top, seq))
        again = 0
        for seq in chance.choices(range(reader.last_seq + 1), k=3000):
            assert reader.entries(top, seq) == wanted[seq]
            again += reader._listing(top, seq) is reader._listing(top, max(seq - 1, 0))
        assert again > 300, "where nothing changed it is the same object"
        assert {name for name, _, _ in wanted[-1]} == {name.encode() for name in there}
