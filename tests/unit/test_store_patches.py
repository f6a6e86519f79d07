"""Rewrites of whole files are patches where that pays, and every blob is what its digest says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from diffkeeper import plugins
from diffkeeper.errors import PluginError, TraceDamagedError
from diffkeeper.store import assembly, content, differing, indexer, patches
from diffkeeper.store.codec import compress
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.reader import open_reader
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def blobs(path: Path) -> dict[bytes, patches.Blob]:
    database = Database(path / DATA_FILE)
    with database.reading() as txn:
        found = {digest: patches.load(txn, digest) for digest, _ in txn.scan(Table.BLOBS)}
    database.close()
    return found


def begun(path: Path, **files: bytes) -> TraceBuilder:
    builder = TraceBuilder(path)
    builder.baseline(files)
    builder.begin()
    return builder


def versions_of(size: int, count: int) -> list[bytes]:
    """Versions of a file that no compressor shortens alone, each a little different from the one before."""
    versions = [noise(1, size)]
    for number in range(count - 1):
        last = bytearray(versions[-1])
        last[number * 50 : number * 50 + 8] = noise(number + 2, 8)
        versions.append(bytes(last))
    return versions


def test_a_file_rewritten_in_place_is_a_chain_of_patches(tmp_path: Path) -> None:
    """Truncated and written again 80 times: each version costs little, chains are bounded, all can be read."""
    versions = versions_of(20_000, 80)
    builder = begun(tmp_path / "trace", f=versions[0])
    written = {builder.rewrite("f", version): version for version in versions[1:]}
    builder.end()
    path = builder.build()
    found = blobs(path)
    assert {blob.differ for blob in found.values()} == {b"raw", b"zstd/1"}
    assert sorted(blob.depth for blob in found.values()) == sorted([*range(patches.MAX_DEPTH + 1), *range(15)])
    assert sum(len(blob.data) for blob in found.values()) < 20_000 * 2 + 80 * 100
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/f", 0)
        assert node is not None
        assert reader.read(node, 0, 0, 1 << 20) == versions[0]
        for seq, version in written.items():
            assert reader.read(node, seq, 0, 1 << 20) == version
        assert list(reader.problems()) == []


def test_a_chain_of_what_takes_longer_is_shorter(tmp_path: Path) -> None:
    """What a patch counts grows with the time that applying it takes: no read takes much longer than 64 MiB do."""
    efforts = [differing.effort("zstd", size) for size in (512, 1 << 20, (1 << 20) + 1, 3 << 20, 8 << 20)]
    assert efforts == [1, 1, 2, 3, 4]
    efforts = [differing.effort("bsdiff4/1", size) for size in (512, 1 << 18, (1 << 18) + 1, 1 << 20, 8 << 20)]
    assert efforts == [1, 1, 2, 4, 4]
    versions = versions_of((1 << 20) + 1, 36)
    builder = begun(tmp_path / "trace", f=versions[0])
    for version in versions[1:]:
        builder.rewrite("f", version)
    builder.end()
    depths = [blob.depth for blob in blobs(builder.build()).values()]
    assert sorted(depths) == sorted([*range(0, patches.MAX_DEPTH + 1, 2), 0, 2, 4])


def test_what_becomes_a_patch_is_not_stored_whole_first(tmp_path: Path) -> None:
    """In place or renamed over the old one: the pages that whole contents would have taken are not in the file."""
    versions = versions_of(500_000, 20)
    builder = begun(tmp_path / "trace", f=versions[0])
    for number, version in enumerate(versions[1:]):
        if number % 2:
            builder.rewrite("f", version)
        else:
            builder.create("f.tmp", version)
            builder.rename("f.tmp", "f")
    builder.end()
    path = builder.build()
    assert sum(blob.base == patches.NO_BASE for blob in blobs(path).values()) == 1
    assert (path / DATA_FILE).stat().st_size < 500_000 + (300 << 10)


@pytest.mark.parametrize("cut", [True, False])
def test_a_version_is_a_patch_wherever_a_commit_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Between a file's being cut to nothing and its new content, or where it is overwritten without being cut."""
    monkeypatch.setattr(indexer, "COMMIT_BYTES", 1)
    versions = versions_of(20_000, 10)
    builder = TraceBuilder(tmp_path / "trace", frame=1)
    builder.baseline({"f": versions[0]})
    builder.begin()
    for version in versions[1:]:
        if cut:
            builder.rewrite("f", version)
        else:
            builder.write("f", version, 0)
    builder.end()
    path = builder.build()
    assert sorted(blob.depth for blob in blobs(path).values()) == list(range(10))
    with open_reader(path) as reader:
        assert list(reader.problems()) == []
        node = reader.resolve(b"/opt/root/f", 0)
        assert node is not None
        found = {reader.read(node, seq, 0, 1 << 20) for seq in range(reader.last_seq + 1)}
        assert found - {b""} == set(versions)


def test_write_new_and_rename_is_a_patch_too(tmp_path: Path) -> None:
    """A new file that takes the name of an old one is stored as a patch on it, and again on the next."""
    versions = versions_of(5000, 3)
    builder = begun(tmp_path / "trace", f=versions[0])
    for version in versions[1:]:
        builder.create("f.tmp", version)
        builder.rename("f.tmp", "f")
    builder.end()
    path = builder.build()
    assert sorted(blob.depth for blob in blobs(path).values()) == [0, 1, 2]
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/f", reader.last_seq)
        assert node is not None
        assert reader.read(node, reader.last_seq, 0, 10_000) == versions[2]


def test_where_it_does_not_pay_blobs_are_whole(tmp_path: Path) -> None:
    """Unrelated, tiny or endless content gets no patch; the same content twice is one blob."""
    builder = begun(tmp_path / "trace", a=noise(1, 4000), b=b"x" * 400, c=noise(3, 4000))
    builder.rewrite("a", noise(2, 4000))
    builder.rewrite("b", b"y" * 400)
    builder.rewrite("c", noise(1, 4000))
    builder.end()
    found = blobs(builder.build())
    assert {blob.differ for blob in found.values()} == {b"raw", b"zstd"}
    assert len(found) == 5


def test_going_back_and_forth_makes_no_ring(tmp_path: Path) -> None:
    """A file that alternates between two contents is two blobs, one on the other, however often."""
    one, two = versions_of(4000, 2)
    builder = begun(tmp_path / "trace", f=one)
    for number in range(10):
        builder.rewrite("f", one if number % 2 else two)
    builder.end()
    path = builder.build()
    assert sorted(blob.depth for blob in blobs(path).values()) == [0, 1]
    with open_reader(path) as reader:
        assert list(reader.problems()) == []


def test_a_missing_differ_is_named_and_the_rest_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the plugin only what it patched is out of reach; the error names it, and so does `problems`."""
    one, two = versions_of(4000, 2)
    builder = begun(tmp_path / "trace", f=one, other=b"plain" * 100)
    builder.rewrite("f", two)
    builder.end()
    path = builder.build()

    def missing(name: str) -> plugins.Differ:
        raise PluginError(f"no differ {name}")

    monkeypatch.setattr(plugins, "differ", missing)
    with open_reader(path) as reader:
        node, other = reader.resolve(b"/opt/root/f", 0), reader.resolve(b"/opt/root/other", 0)
        assert node is not None
        assert other is not None
        assert reader.read(node, 0, 0, 5000) == one
        assert reader.read(other, reader.last_seq, 0, 5000) == b"plain" * 100
        with pytest.raises(PluginError, match="zstd/1"):
            reader.read(node, reader.last_seq, 0, 5000)
        assert any("zstd/1" in problem for problem in reader.problems())


class Raises(plugins.Differ):
    """Fails in whatever way `how` says."""

    name = "raises/1"
    how = ""

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        if self.how == "diff":
            raise ZeroDivisionError
        return b"p"

    def apply(self, base: bytes, patch: bytes) -> bytes:
        if self.how == "apply":
            raise KeyError
        return b"something else"


@pytest.mark.parametrize("how", ["diff", "apply", "wrong", "missing"])
def test_a_differ_that_fails_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """One that raises, gives wrong bytes or is not there: blobs are stored whole."""
    differ = Raises()
    differ.how = how

    def made(name: str, options: object) -> plugins.Differ:
        if how == "missing":
            raise PluginError("not installed")
        return differ

    monkeypatch.setattr(plugins, "make_differ", made)
    monkeypatch.setattr(plugins, "differ", lambda name: differ)
    one, two = versions_of(4000, 2)
    builder = begun(tmp_path / "trace", f=one)
    builder.rewrite("f", two)
    builder.end()
    path = builder.build()
    assert {blob.differ for blob in blobs(path).values()} == {b"raw"}
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/f", 0)
        assert node is not None
        assert reader.read(node, reader.last_seq, 0, 5000) == two


def test_blobs_that_lie_are_damage(tmp_path: Path) -> None:
    """Other bytes than the digest's, a base that is missing, a ring, a size that is too large: TraceDamagedError."""
    database = Database(tmp_path / DATA_FILE, write=True)
    txn = database.begin()
    digest = patches.put(txn, b"honest" * 100)
    good = patches.load(txn, digest)
    for bad in (
        replace(good, data=compress(b"forged" * 100)),
        replace(good, data=good.data[:-3]),
        replace(good, size=10),
        replace(good, size=1 << 31),
        replace(good, differ=b"bsdiff4/1", base=b"\1" * 32),
        replace(good, differ=b"bsdiff4/1", base=digest),
        replace(good, differ=b"bsdiff4/1", data=b"BSDIFF40" + b"\x7f" * 24),
    ):
        patches._store(txn, digest, bad)
        with pytest.raises(TraceDamagedError):
            patches.BlobReader().get(txn, digest)
    txn.put(Table.BLOBS, digest, b"\xff")
    with pytest.raises(TraceDamagedError):
        patches.BlobReader().get(txn, digest)
    txn.abort()
    database.close()


def test_keyframes_bound_a_read(tmp_path: Path) -> None:
    """A 64 KiB file overwritten 3000 times in place: any read replays no more than a few times its size."""
    builder = begun(tmp_path / "trace", f=bytes(65536))
    for number in range(3000):
        builder.write("f", noise(number, 4096), number % 16 * 4096)
    builder.end()
    path = builder.build()
    database = Database(path / DATA_FILE)
    with database.reading() as txn, open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/f", 0)
        assert node is not None
        blocks = assembly.ContentReader(patches.BlobReader())
        for seq in (3000, 2999, 2000, 1000):
            state = blocks.state(txn, node, seq)
            assert state is not None
            plan = blocks.plan(txn, node, state.last)
            assert sum(ref.head.payload for ref in plan) < 8 << 20
            wanted = b"".join(noise(last, 4096) for last in range(seq - 16, seq))
            turn = seq % 16 * 4096
            wanted = wanted[-turn:] + wanted[:-turn] if turn else wanted
            assert reader.read(node, seq, 0, 1 << 20) == wanted
        heads = [content.decode_ref(key, value).head for key, value in txn.scan(Table.CONTENT)]
        assert any(head.flags & content.KEYFRAME for head in heads)
        assert len(reader.versions(node)) == 3001
        assert list(reader.problems()) == []
    database.close()


def test_a_keyframe_in_many_parts(tmp_path: Path) -> None:
    """A file of 9 MiB with a hole, overwritten until a keyframe is due, reads the same before and after."""
    builder = begun(tmp_path / "trace")
    builder.create("big")
    builder.write("big", noise(1, 1 << 20), 8 << 20)
    for number in range(24):
        builder.write("big", noise(number + 2, 1 << 20), number % 3 << 21)
    builder.end()
    path = builder.build()
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/big", 1)
        assert node is not None
        data = b"".join(reader.chunks(node, reader.last_seq))
        assert data == bytes(builder.node("big").data)
        assert reader.extents(node, reader.last_seq)[-1] == (8 << 20, 1 << 20)
        assert reader.extents(node, reader.last_seq)[0] == (0, 1 << 20)
        assert list(reader.problems()) == []
