"""The default differ: BSDIFF40 patches of small and middle-sized files. The only importer of bsdiff4.

Owns what bsdiff costs: when it is not worth trying, and how much memory a patch may claim.
"""

from __future__ import annotations

import bz2
import io
import struct
import zlib
from typing import ClassVar

import bsdiff4.core
import bsdiff4.format

from diffkeeper.plugins import Differ

SIZE_LIMIT = 8 << 20
"""Longest base and target, in bytes. Making a patch takes about 17 times the base in memory."""

_HEADER = struct.Struct("<8sqqq")
_STEP_SIZE = 24
_CONTEXT = 64 << 10
"""How much of a common head and tail bsdiff may copy from for the part between them."""
_CHUNK = 16 << 10
_FLAT_RATIO = 40
_FLAT_LIMIT = 64 << 10
_PROBES = 64
_PROBE_SIZE = 8


class Bsdiff4(Differ):
    """bsdiff 4 patches: small for source, text and programs that were built again."""

    name: ClassVar[str] = "bsdiff4/1"

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        if not base or not target or len(base) > SIZE_LIMIT or len(target) > SIZE_LIMIT:
            return None
        head = _common_head(base, target)
        tail = _common_head(base[head:][::-1], target[head:][::-1])
        start, end = max(0, head - _CONTEXT), min(len(base), len(base) - tail + _CONTEXT)
        old, new = base[start:end], target[head : len(target) - tail]
        if _flat(old) or not (head or tail or _related(old, new)):
            return None
        control, difference, extra = bsdiff4.core.diff(old, new) if new else (_step(0, 0, 0), b"", b"")
        control = _framed(control, head, tail, start, len(base) - tail)
        if len(control) > _control_limit(len(target)):
            return None
        patch = _pack(len(target), control, bytes(head) + difference + bytes(tail), extra)
        return patch if len(patch) < len(target) else None

    def apply(self, base: bytes, patch: bytes) -> bytes:
        if len(patch) < _HEADER.size:
            raise ValueError("the patch is cut off")
        magic, control_size, difference_size, size = _HEADER.unpack_from(patch)
        if magic != bsdiff4.format.MAGIC:
            raise ValueError("this is not a bsdiff4 patch")
        body = len(patch) - _HEADER.size
        if control_size < 0 or difference_size < 0 or control_size + difference_size > body:
            raise ValueError("the patch's parts are longer than the patch")
        if not 0 <= size <= SIZE_LIMIT:
            raise ValueError(f"the patch claims to make {size} bytes; more than {SIZE_LIMIT} is refused")
        difference_at = _HEADER.size + control_size
        extra_at = difference_at + difference_size
        control = _decompress(patch[_HEADER.size : difference_at], _control_limit(size))
        difference = _decompress(patch[difference_at:extra_at], size)
        extra = _decompress(patch[extra_at:], size - len(difference))
        if len(control) % _STEP_SIZE:
            raise ValueError("the patch's control block is cut off")
        return bytes(bsdiff4.core.patch(base, size, control, difference, extra))


def _common_head(one: bytes, other: bytes) -> int:
    """How many bytes two strings begin with in common, found by comparing halves."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _related(old: bytes, new: bytes) -> bool:
    """Whether a few samples of `new` stand in `old`: between strangers bsdiff takes longest and gains nothing."""
    if min(len(old), len(new)) < _PROBES * _PROBE_SIZE:
        return True
    samples = (new[at : at + _PROBE_SIZE] for at in range(0, len(new) - _PROBE_SIZE, len(new) // _PROBES))
    return any(sample in old for sample in samples)


def _flat(old: bytes) -> bool:
    """Whether much of `old` repeats itself at short distance.

    bsdiff takes quadratic time there (23 s for 256 KiB of one repeated word), and such content
    compresses to next to nothing by itself.
    """
    flat = 0
    for at in range(0, len(old), _CHUNK):
        chunk = old[at : at + _CHUNK]
        if len(zlib.compress(chunk, 1)) * _FLAT_RATIO < len(chunk):
            flat += len(chunk)
            if flat > _FLAT_LIMIT:
                return True
    return False


def _control_limit(size: int) -> int:
    """bsdiff starts a new step only where it gains more than 8 bytes by it."""
    return _STEP_SIZE * (size // 8 + 64)


def _step(add: int, insert: int, seek: int) -> bytes:
    """Add `add` bytes of the difference to the base, insert `insert` extra bytes, move `seek` in the base."""
    return b"".join(map(bsdiff4.core.encode_int64, (add, insert, seek)))


def _framed(control: bytes, head: int, tail: int, start: int, resume: int) -> bytes:
    """Steps of the middle part, whose base begins at `start`, put between a common head and tail.

    The tail begins at `resume` in the base.
    """
    numbers = [bsdiff4.core.decode_int64(control[at : at + 8]) for at in range(0, len(control), 8)]
    add, insert, seek = numbers[-3:]
    position = start + sum(numbers[0::3]) + sum(numbers[2::3])
    return b"".join(
        (
            _step(head, 0, start - head) if head else b"",
            control[:-_STEP_SIZE],
            _step(add, insert, seek + resume - position),
            _step(tail, 0, 0) if tail else b"",
        )
    )


def _pack(size: int, control: bytes, difference: bytes, extra: bytes) -> bytes:
    file = io.BytesIO()
    bsdiff4.format.write_patch(file, size, control, difference, extra)
    return file.getvalue()


def _decompress(data: bytes, limit: int) -> bytes:
    """The content of one bz2 stream that must not be longer than `limit`."""
    decompressor = bz2.BZ2Decompressor()
    try:
        content = decompressor.decompress(data, max_length=limit + 1)
    except OSError as error:
        raise ValueError(f"a part of the patch is damaged: {error}") from error
    if len(content) > limit or not decompressor.eof or decompressor.unused_data:
        raise ValueError("a part of the patch is cut off, or longer than it says")
    return content
