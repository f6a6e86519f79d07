"""The built-in differ: exact on any content, bounded on any patch."""

from __future__ import annotations

import bz2
import contextlib
import random
import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffkeeper import testing
from diffkeeper_plugins.differs.bsdiff import SIZE_LIMIT, Bsdiff4

chunks = st.lists(st.binary(max_size=60), min_size=1, max_size=12)


def _random(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_conformance() -> None:
    """The built-in differ passes the kit that plugin authors get."""
    testing.check_differ(Bsdiff4())


@given(chunks, st.data())
@settings(max_examples=300, deadline=None)
def test_any_pair_that_is_patched_comes_back(parts: list[bytes], data: st.DataObject) -> None:
    """Shuffled, cut and repeated parts of one content are restored exactly."""
    base = b"".join(parts)
    target = b"".join(data.draw(st.lists(st.sampled_from(parts), max_size=20)))
    patch = Bsdiff4().diff(base, target)
    if patch is not None:
        assert len(patch) < len(target)
        assert Bsdiff4().apply(base, patch) == target


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (_random(5000), _random(5000) + _random(100, 2)),
        (_random(5000), b"x" + _random(5000)),
        (_random(5000), _random(5000)[100:]),
        (_random(5000), _random(5000)[:-100]),
        (_random(5000), _random(5000) * 2),
        (_random(200_000), _random(200_000)[100_000:] + _random(200_000)[:100_000]),
        (bytes(SIZE_LIMIT), bytes(SIZE_LIMIT)),
    ],
)
def test_an_edit_is_a_small_patch(base: bytes, target: bytes) -> None:
    """Appending, prepending, cutting, repeating and moving cost a few hundred bytes."""
    patch = Bsdiff4().diff(base, target)
    assert patch is not None and len(patch) < 700
    assert Bsdiff4().apply(base, patch) == target


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (b"", b"new"),
        (b"old", b""),
        (bytes(SIZE_LIMIT + 1), b"x"),
        (b"x", bytes(SIZE_LIMIT + 1)),
        (_random(9000), _random(9000, 2)),
    ],
)
def test_no_patch_where_it_does_not_pay(base: bytes, target: bytes) -> None:
    """Empty, oversized and unrelated contents give None."""
    assert Bsdiff4().diff(base, target) is None


def test_repetitive_content_is_refused_quickly() -> None:
    """Content on which bsdiff is quadratic is left to the compressor instead of taking minutes."""
    word = _random(16) * (1 << 17)
    begin = time.perf_counter()
    assert Bsdiff4().diff(b"1" + word, b"2" + word[5:] + word + b"4") is None
    assert time.perf_counter() - begin < 5


def _patch(control: bytes, difference: bytes, extra: bytes, size: int) -> bytes:
    parts = [bz2.compress(part) for part in (control, difference, extra)]
    return struct.pack("<8sqqq", b"BSDIFF40", len(parts[0]), len(parts[1]), size) + b"".join(parts)


@pytest.mark.parametrize(
    "patch",
    [
        b"",
        b"BSDIFF40",
        b"x" * 100,
        _patch(struct.pack("<qqq", 10, 0, 0), bytes(10), b"", SIZE_LIMIT + 1),
        _patch(struct.pack("<qqq", 10, 0, 0), bytes(10), b"", -1),
        _patch(struct.pack("<qqq", 10, 0, 0), bytes(11), b"", 10),
        _patch(struct.pack("<qqq", 10, 0, 0)[:-1], bytes(10), b"", 10),
        _patch(bytes(200 << 20), b"", b"", 10),
        _patch(struct.pack("<qqq", 0, 10, 0), b"", bytes(200 << 20), 10),
        _patch(struct.pack("<qqq", 1 << 40, 0, 0), bytes(10), b"", 10),
        _patch(struct.pack("<qqq", 5, 0, 0), bytes(10), b"", 10),
    ],
)
def test_a_hostile_patch_is_a_value_error_in_bounded_memory(patch: bytes) -> None:
    """Patches that claim or unpack to more than they may are refused before memory is taken."""
    tracemalloc.start()
    with pytest.raises(ValueError):
        Bsdiff4().apply(b"base" * 10, patch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < SIZE_LIMIT * 4


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_patch_raises_nothing_but_value_error(seed: int, data: st.DataObject) -> None:
    """Any flipped byte ends in ValueError or in bytes (which the store's digest then refuses)."""
    base = _random(600, seed)
    patch = bytearray(Bsdiff4().diff(base, base[:300] + b"edit" + base[300:]) or b"")
    at = data.draw(st.integers(0, len(patch) - 1))
    patch[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        assert isinstance(Bsdiff4().apply(base, bytes(patch)), bytes)
