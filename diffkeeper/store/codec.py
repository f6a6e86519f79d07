"""Values to bytes and back: compression, columns of integers, keys, attributes.

Owns zstd and the bounds: a size that comes from the trace is checked against a limit before
anything of that size is made. Whatever the bytes, decoding raises `TraceDamagedError` only.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias, TypeVar

import msgspec
import zstandard

from ..arrays import np, npt
from ..errors import TraceDamagedError
from ..model import Attrs, Fidelity

Column: TypeAlias = "npt.NDArray[np.int64]"
T = TypeVar("T")

MAX_BLOB = 64 << 20
"""Most bytes one blob stands for: no record, and so no payload of a block, is longer."""
MAX_COLUMNS = 64 << 20
MAX_ROWS = 1 << 20
_HALF = 1 << 63

_LEVEL = 3
_KINDS = "BHIQ"
"""Of the numbers in a column, as struct and numpy call them; one of kind n has 1 << n bytes."""
_INT64 = 1 << 63
_ATTRS = struct.Struct("<IIIIIqqqQQBII")
_U32 = struct.Struct("<I")
_FIDELITIES = {fidelity.value: fidelity for fidelity in Fidelity}  # a call of the enumeration takes five times as long
AttrsFields: TypeAlias = tuple[
    int, int, int, int, int, int, int, int, bytes, Mapping[bytes, bytes], int, int, Fidelity
]
"""Of `Attrs`, in its order."""

_encode = msgspec.msgpack.Encoder().encode
_compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=False, write_checksum=False)
_checked = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=False, write_checksum=True)
_numbers = msgspec.msgpack.Decoder(list[int])
_decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)


def distinct(numbers: Column) -> Column:
    """In order, each once: what np.unique is for, but that imports numpy.ma to ask whether they are masked."""
    ordered = np.sort(numbers, axis=None)
    once: Column = ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0]
    return once


def damaged(what: str) -> TraceDamagedError:
    """The one way this package says that bytes make no sense."""
    return TraceDamagedError(f"damaged trace: {what}; run `diffkeeper check` to see how much is affected")


def compress(data: bytes | memoryview, *, check: bool = False) -> bytes:
    """`check`: with a checksum, which `decompress` then looks at; for what has no digest."""
    return (_checked if check else _compressor).compress(data)


def decompress(data: bytes | memoryview, size: int, limit: int = MAX_BLOB) -> bytes:
    """Exactly `size` bytes, or TraceDamagedError."""
    if not 0 <= size <= limit:
        raise damaged(f"a value claims {size} bytes")
    if size == 0:
        return b""
    try:
        # A frame that claims a size of its own is not ours: so much would be made room for.
        if zstandard.frame_content_size(data) not in (-1, size):
            raise damaged("a value claims two sizes")
        result = _decompressor.decompress(data, max_output_size=size)
    except (zstandard.ZstdError, MemoryError, OverflowError, ValueError) as error:
        raise damaged(f"a value does not decompress ({error})") from error
    if len(result) != size:
        raise damaged("a value decompresses to another size than it claims")
    return result


def pack_rows(count: int, *columns: Column | int) -> bytes:
    """`count` rows of int64, one after the other, as an array("q") has them. A number stands for a column of it."""
    table = np.empty((count, len(columns)), np.int64)
    for number, column in enumerate(columns):
        table[:, number] = column
    return table.tobytes()


def pack_columns(columns: Sequence[Column]) -> bytes:
    """Columns of one length: each as differences, zigzag, in the fewest bytes, high bytes apart."""
    parts = []
    for column in columns:
        step = np.diff(column, prepend=np.int64(0))  # wraps around, and so does unpacking
        folded = ((step << 1) ^ (step >> 63)).view(np.uint64)
        top = int(folded.max()) if len(folded) else 0
        kind = next(kind for kind in range(len(_KINDS)) if top < 1 << (8 << kind))
        shuffled = folded.astype("<" + _KINDS[kind]).view(np.uint8).reshape(len(column), -1).T
        parts.append(bytes((kind,)) + shuffled.tobytes())
    return b"".join(parts)


def column_places(data: bytes, rows: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` columns of `rows` begins, and its kind of numbers; last where the rest begins."""
    if not 0 <= rows <= MAX_ROWS:
        raise damaged(f"a block claims {rows} rows")
    found, at = [], 0
    for _ in range(count):
        if at >= len(data) or data[at] >= len(_KINDS):
            raise damaged("a column is missing")
        kind = data[at]
        found.append((at + 1, kind))
        at += 1 + (rows << kind)
        if at > len(data):
            raise damaged("a column is cut off")
    return [*found, (at, 0)]


def unpack_columns(data: bytes, rows: int, count: int) -> tuple[list[Column], int]:
    """`count` columns of `rows` each, and where the rest of `data` begins."""
    *places, (rest, _) = column_places(data, rows, count)
    return [unpack_column(data, rows, place) for place in places], rest


def unpack_column(data: bytes, rows: int, place: tuple[int, int]) -> Column:
    """One column, from its place among `column_places`."""
    at, kind = place
    if not kind:
        return _unfolded()[np.frombuffer(data, np.uint8, rows, at)].cumsum()
    folded = np.frombuffer(_in_turn(data, at, rows, kind), "<" + _KINDS[kind])
    if kind < 3:
        small = folded.astype(np.int64)
        return ((small >> 1) ^ -(small & 1)).cumsum()
    one = np.uint64(1)
    return ((folded >> one).view(np.int64) ^ -(folded & one).view(np.int64)).cumsum()


@functools.cache
def _unfolded() -> Column:
    """What zigzag made a byte of."""
    return np.array([number >> 1 ^ -(number & 1) for number in range(256)], np.int64)


def _in_turn(data: bytes, at: int, rows: int, kind: int) -> bytearray:
    """The bytes of a column number by number; in `data` high bytes are apart."""
    mixed = bytearray(rows << kind)
    for number in range(1 << kind):
        mixed[number :: 1 << kind] = data[at + number * rows : at + (number + 1) * rows]
    return mixed


def unpack_lists(data: bytes, rows: int, count: int) -> tuple[list[list[int]], int]:
    """What `unpack_columns` says, without numpy: ten times slower, and done long before numpy is loaded."""
    columns = []
    *places, (rest, _) = column_places(data, rows, count)
    for at, kind in places:
        folded = struct.unpack(f"<{rows}{_KINDS[kind]}", _in_turn(data, at, rows, kind))
        column = list(accumulate([number >> 1 ^ -(number & 1) for number in folded]))
        if column and (min(column) < -_INT64 or max(column) >= _INT64):
            column = [(number + _INT64) % (2 * _INT64) - _INT64 for number in column]
        columns.append(column)
    return columns, rest


def pack_strings(strings: Sequence[bytes]) -> bytes:
    return _U32.pack(len(strings)) + b"".join(_U32.pack(len(text)) + text for text in strings)


def unpack_strings(data: bytes, at: int = 0) -> list[bytes]:
    """What `pack_strings` packed, from `at` to the end of `data`."""
    strings: list[bytes] = []
    try:
        (count,) = _U32.unpack_from(data, at)
        at += 4
        for _ in range(count):  # each turn consumes at least 4 bytes or raises
            (size,) = _U32.unpack_from(data, at)
            if at + 4 + size > len(data):
                raise damaged("a string is cut off")
            strings.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    except struct.error as error:
        raise damaged("a list of strings is cut off") from error
    if at != len(data):
        raise damaged("a list of strings has a tail")
    return strings


def wrapped(number: int) -> int:
    """In 64 bits, as numpy's sums and differences are: that of two times may need more."""
    return number if -_HALF <= number < _HALF else (number + _HALF) % (2 * _HALF) - _HALF


def pack_value(value: object) -> bytes:
    return _encode(value)


def unpack_value(data: bytes | memoryview, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise damaged(f"a value is not what it should be ({error})") from error


def unpack_numbers(data: bytes | memoryview) -> list[int]:
    """`unpack_value` of a list of integers, with a decoder that is there: one for each file makes a difference."""
    try:
        return _numbers.decode(data)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise damaged(f"a value is not what it should be ({error})") from error


def unpack(layout: struct.Struct, data: bytes | memoryview, at: int = 0) -> tuple[Any, ...]:
    """`Struct.unpack_from`, with TraceDamagedError."""
    try:
        return layout.unpack_from(data, at)
    except struct.error as error:
        raise damaged("a value is cut off") from error


def pack_attrs(
    mode: int, uid: int, gid: int, nlink: int, rdev: int, size: int, mtime: int, ctime: int, version: int,
    changed: int, fidelity: int, target: bytes, xattrs: bytes,
) -> bytes:  # fmt: skip
    """Fields of Attrs. `xattrs`: what `store.xattrs` stores of them here."""
    head = _ATTRS.pack(
        mode, uid, gid, nlink, rdev, size, mtime, ctime, version, changed, fidelity, len(target), len(xattrs)
    )
    return head + target + xattrs


def unpack_attrs(data: bytes, elsewhere: Callable[[], Mapping[bytes, bytes]]) -> Attrs:
    """`elsewhere`: looks for extended attributes where they do not stand here."""
    return Attrs(*attrs_fields(data, elsewhere))


def attrs_fields(data: bytes, elsewhere: Callable[[], Mapping[bytes, bytes]]) -> AttrsFields:
    """The fields of `unpack_attrs`, for whoever knows some of them better."""
    try:  # `unpack` is another call, and listings make many
        fields = _ATTRS.unpack_from(data)
    except struct.error as error:
        raise damaged("attributes are cut off") from error
    mode, uid, gid, nlink, rdev, size, mtime, ctime, version, changed, fidelity, target, xattrs = fields
    at = _ATTRS.size
    if at + target + xattrs != len(data) or size < 0:
        raise damaged("attributes are cut off")
    trust = _FIDELITIES.get(fidelity)
    if trust is None:
        raise damaged("attributes have an unknown fidelity")
    names: Mapping[bytes, bytes] = {}
    if xattrs:
        # To mypy a union is no type that could be handed on.
        here: dict[bytes, bytes] | int = unpack_value(data[at + target :], dict[bytes, bytes] | int)  # type: ignore[arg-type]
        names = elsewhere() if isinstance(here, int) else here
    return mode, uid, gid, size, mtime, ctime, nlink, rdev, data[at : at + target], names, version, changed, trust
