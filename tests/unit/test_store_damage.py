"""Traces may come from strangers: whatever is in the store, only TraceDamagedError comes out."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.errors import DiffKeeperError, NotATraceError, PluginError, TraceDamagedError, TraceMissingError
from diffkeeper.model import Attrs, Fidelity
from diffkeeper.store import blocks, codec, content, indexer, names, outcome, session
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE, LOCK_FILE
from diffkeeper.store.reader import Reader, open_reader
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder, packed_attrs

integers = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trace that has something in every table."""
    builder = TraceBuilder(tmp_path_factory.mktemp("damage") / "trace")
    builder.baseline({"a": b"x" * 3000, "b": {"target": "a"}, "x": {"content": b"1", "xattrs": {b"user.a": b"b"}}})
    builder.begin()
    builder.exec("/bin/true")
    builder.mark("m")
    for number in range(30):
        builder.rewrite("a", random.Random(7).randbytes(2000) + b"%d" % number)
        builder.write("x", b"y" * 50, number * 40)
    builder.create("n", b"z" * 1000)
    builder.rename("n", "a")
    builder.end()
    return builder.build()


def _listed(reader: Reader, node: int, seq: int) -> list[tuple[bytes, int]]:
    return list(reader.children(node, seq))


def read_everything(reader: Reader) -> None:
    """Every call of the Reader, each allowed to find damage and nothing else (or a differ that no one has)."""
    calls: list[Callable[[], object]] = [
        lambda: list(reader.events()),
        lambda: reader.seq_at(10**9),
        reader.marks,
        reader.processes,
        lambda: reader.process_at(100, 5),
    ]
    for node in range(8):
        for seq in (0, 7, 40, 1 << 40):
            calls += [
                partial(reader.attrs, node, seq),
                partial(_listed, reader, node, seq),
                partial(reader.read, node, seq, 0, 1 << 16),
                partial(reader.extents, node, seq),
                partial(reader.versions, node),
            ]
    calls.append(lambda: list(reader.problems()))
    for call in calls:
        with contextlib.suppress(TraceDamagedError, PluginError):
            call()


@pytest.mark.parametrize("table", [table for table in Table if table is not Table.META])
def test_damaged_values(healthy: Path, tmp_path: Path, table: Table) -> None:
    """Values with flipped bits, cut off, emptied or made longer, in each table: damage is what they are called."""
    chance = random.Random(table.name)
    for attempt in range(12):
        path = tmp_path / str(attempt)
        shutil.copytree(healthy, path)
        database = Database(path / DATA_FILE, write=True)
        txn = database.begin()
        for key, value in list(txn.scan(table)):
            damaged = bytearray(value)
            for _ in range(chance.randrange(1, 4)):
                if damaged:
                    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            tail = (damaged, damaged[: len(damaged) // 2], b"", damaged + b"\xff" * 9)[attempt % 4]
            txn.put(table, key, bytes(tail))
        txn.commit()
        database.close()
        with contextlib.suppress(TraceDamagedError), open_reader(path) as reader:
            read_everything(reader)


def test_damaged_facts_of_the_store(healthy: Path, tmp_path: Path) -> None:
    """The session, the cursor and the indexer's memory in META, likewise, also when indexing goes on."""
    chance = random.Random(1)
    for attempt in range(40):
        path = tmp_path / str(attempt)
        shutil.copytree(healthy, path)
        database = Database(path / DATA_FILE, write=True)
        txn = database.begin()
        for key, value in list(txn.scan(Table.META)):
            damaged = bytearray(value)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            txn.put(Table.META, key, bytes(damaged[: chance.choice((3, len(damaged)))]))
        txn.commit()
        database.close()
        with contextlib.suppress(DiffKeeperError), open_reader(path) as reader:
            read_everything(reader)
        with contextlib.suppress(DiffKeeperError):
            indexer.index(path)


@given(st.binary(max_size=300))
def test_decoders_of_anything(data: bytes) -> None:
    """Every decoder of a value, on any bytes: a value or TraceDamagedError."""
    decoders: list[Callable[[bytes], object]] = [
        lambda data: blocks.decode_block(1, data),
        lambda data: content.decode(content.decode_ref(content.block_key(1, 1, 0), data), data),
        lambda data: outcome.after(content.block_key(1, 1, 0), data),
        lambda data: outcome.within(content.decode_ref(content.block_key(1, 1, 0), data), data, 3),
        lambda data: codec.unpack_attrs(data, dict),
        codec.unpack_strings,
        lambda data: codec.unpack_columns(data, 7, 3),
        lambda data: codec.decompress(data, 1000),
        lambda data: codec.unpack_value(data, tuple[int, bytes]),
        lambda data: session._decode(data, "here"),
    ]
    for decode in decoders:
        with contextlib.suppress(TraceDamagedError):
            decode(data)


@given(st.lists(st.lists(integers, min_size=5, max_size=5), max_size=4))
def test_columns_come_back(columns: list[list[int]]) -> None:
    """Any 64-bit numbers, whatever their differences."""
    packed = codec.pack_columns([np.array(column, np.int64) for column in columns])
    found, end = codec.unpack_columns(packed, 5, len(columns))
    assert [column.tolist() for column in found] == columns
    assert end == len(packed)


@given(st.lists(st.binary(max_size=20)), st.binary(max_size=2000))
def test_strings_and_bytes_come_back(strings: list[bytes], data: bytes) -> None:
    assert codec.unpack_strings(codec.pack_strings(strings)) == strings
    assert codec.decompress(codec.compress(data), len(data)) == data


@given(
    st.builds(
        Attrs,
        mode=st.integers(0, 0o177777),
        uid=st.integers(0, (1 << 32) - 1),
        size=st.integers(0, (1 << 63) - 1),
        mtime=integers,
        ctime=integers,
        target=st.binary(max_size=50),
        xattrs=st.dictionaries(st.binary(max_size=9), st.binary(max_size=9), max_size=3),
        version=st.integers(0, (1 << 63) - 1),
        fidelity=st.sampled_from(Fidelity),
    )
)
def test_attributes_come_back(attrs: Attrs) -> None:
    assert codec.unpack_attrs(packed_attrs(attrs), dict) == attrs


def test_a_small_value_cannot_claim_much(tmp_path: Path) -> None:
    """A bomb (a few bytes that decompress to gigabytes) is refused by what it claims and by what it gives."""
    bomb = codec.compress(bytes(1 << 20))
    assert len(bomb) < 200
    with pytest.raises(TraceDamagedError):
        codec.decompress(bomb, 1000)
    with pytest.raises(TraceDamagedError):
        codec.decompress(bomb, 1 << 40)
    with pytest.raises(TraceDamagedError):
        codec.unpack_columns(b"\0" * 100, 1 << 30, 1)


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b", b"n" * 256])
def test_names_that_no_file_has(name: bytes) -> None:
    with pytest.raises(TraceDamagedError):
        names.entry(1, name, 1, 2)


def test_a_store_cut_off(healthy: Path, tmp_path: Path) -> None:
    """A data file that lost its end is damage when it is opened, not a crash when it is read."""
    path = tmp_path / "trace"
    shutil.copytree(healthy, path)
    os.truncate(path / DATA_FILE, os.stat(path / DATA_FILE).st_size // 2 // 4096 * 4096)
    with pytest.raises(TraceDamagedError):
        open_reader(path)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(100_000), b"\xde\xc0\xef\xbe" * 5000])
def test_a_store_that_is_none(healthy: Path, tmp_path: Path, data: bytes) -> None:
    """Anything in the place of the data file is said not to be one."""
    path = tmp_path / "trace"
    shutil.copytree(healthy, path)
    (path / DATA_FILE).write_bytes(data)
    with pytest.raises((NotATraceError, TraceDamagedError) if data else TraceMissingError):
        open_reader(path)
    (path / DATA_FILE).unlink()
    with pytest.raises(TraceMissingError):
        open_reader(path)


def test_problems_finds_what_is_wrong(healthy: Path, tmp_path: Path) -> None:
    """A healthy trace has none; a flipped bit in a blob, a missing event block and a dangling name are told."""
    with open_reader(healthy) as reader:
        assert list(reader.problems()) == []
    path = tmp_path / "trace"
    shutil.copytree(healthy, path)
    database = Database(path / DATA_FILE, write=True)
    txn = database.begin()
    digest, value = next(txn.scan(Table.BLOBS))
    txn.put(Table.BLOBS, digest, value[:60] + bytes((value[60] ^ 1,)) + value[61:])
    txn.put(Table.NAMES, *names.entry(1, b"ghost", 3, 999))
    txn.commit()
    database.close()
    with open_reader(path) as reader:
        found = "\n".join(reader.problems())
    assert digest.hex()[:16] in found
    assert "ghost" in found


def test_a_store_nobody_may_write_to(healthy: Path, tmp_path: Path) -> None:
    """Without a lock file, in a directory that cannot be written, as an ordinary user: it can be read."""
    path = tmp_path / "trace"
    shutil.copytree(healthy, path)
    (path / LOCK_FILE).unlink()
    for name in os.listdir(path):
        if (path / name).is_file():
            os.chmod(path / name, 0o444)
    os.chmod(path, 0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(parent, 0o755)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from diffkeeper import arrays, plugins\n"
        "from diffkeeper.store import indexer, reader\n"
        "arrays.load(), plugins.differ('bsdiff4/1')\n"
        "os.getuid() or os.setuid(65534)\n"
        "trace = reader.open_reader(Path(sys.argv[1]))\n"
        "assert not indexer.unfinished(Path(sys.argv[1]))\n"
        "print(trace.last_seq, len(list(trace.events())), list(trace.problems()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.endswith(" []\n")


def test_one_process_opens_a_store_as_often_as_it_likes(healthy: Path) -> None:
    """Two readers of one trace share what LMDB wants to have once."""
    with open_reader(healthy) as one, open_reader(healthy) as two:
        assert one.last_seq == two.last_seq
        one.close()
        assert two.event(1) is not None
        with pytest.raises(DiffKeeperError, match="closed"):
            one.event(1)


def test_little_address_space(healthy: Path) -> None:
    """Where a map of a terabyte is refused, a smaller one does."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 35, 1 << 35))\n"
        "from pathlib import Path\n"
        "from diffkeeper.store import indexer, reader\n"
        "indexer.index(Path(sys.argv[1]))\n"
        "print(reader.open_reader(Path(sys.argv[1])).last_seq)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, healthy], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) > 60
