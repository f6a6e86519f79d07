"""Records: bpf/event.h and Python agree, and any bytes are a record or TraceDamagedError."""

from __future__ import annotations

import contextlib
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper import wire
from diffkeeper.errors import TraceDamagedError
from diffkeeper.wire import Flag, Inode, Record, WireOp, Wrong, encode, kernel_path, records, strings

HEADER = Path(__file__).parents[2] / "bpf" / "event.h"

u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
s64 = st.integers(-(1 << 63), (1 << 63) - 1)
inodes = st.builds(Inode, u64, u32, u32, u64, s64, s64, u64, u32, u32, u32, u32, u32, st.just(0))
encoded = st.fixed_dictionaries({
    "op": st.sampled_from(WireOp),
    "time": u64,
    "pid": u32,
    "tid": u32,
    "flags": st.integers(0, 255),
    "inodes": st.lists(inodes, max_size=8).map(tuple),
    "offset": u64,
    "length": u64,
    "payload": st.binary(max_size=100),
})  # fmt: skip


def test_numbers_are_those_of_the_header() -> None:
    """Every op, flag and what can be wrong of event.h is in wire.py with its number, and no other."""
    text = HEADER.read_text()
    for prefix, enumeration in (("DK_OP_", WireOp), ("DK_F_", Flag), ("DK_W_", Wrong)):
        there = {name: int(number) for name, number in re.findall(rf"^\s*{prefix}(\w+) = (\d+),", text, re.MULTILINE)}
        assert there == {name: member.value for name, member in enumeration.__members__.items()}
    assert f"#define DK_WIRE_VERSION {wire.WIRE_VERSION}\n" in text
    assert f"#define DK_TIME_NOW ({wire.TIME_NOW}LL)" in text
    assert f"#define DK_TIME_OMIT ({wire.TIME_OMIT}LL)" in text


@pytest.mark.parametrize(("name", "layout"), [("dk_inode", wire.INODE), ("dk_event", wire.EVENT)])
def test_structs_are_as_long_as_in_the_header(name: str, layout: struct.Struct) -> None:
    """The members of each struct, laid one after the other, make what struct.Struct packs; nothing is padded."""
    found = re.search(rf"struct {name} {{(.*?)}};", HEADER.read_text(), re.DOTALL)
    assert found is not None
    members = re.findall(r"^\s*([us](?:8|16|32|64)) \w+;", found[1], re.MULTILINE)
    letters = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s64": "q"}
    assert layout.format == "<" + "".join(letters[member] for member in members)
    at = 0
    for member in members:
        size = int(member[1:]) // 8
        assert at % size == 0, "the compiler would pad here"
        at += size
    assert at % 8 == 0


@given(st.lists(encoded, max_size=5))
def test_records_come_back(fields: list[dict[str, Any]]) -> None:
    """What `encode` made, `records` reads, in order."""
    span = b"".join(encode(**one) for one in fields)
    assert len(span) % 8 == 0
    found = [record._replace(payload=bytes(record.payload)) for record in records(span)]
    assert found == [
        Record(*(one[name] for name in ("time", "pid", "tid", "op", "flags", "inodes", "offset", "length", "payload")))
        for one in fields
    ]


@given(st.binary(max_size=400))
def test_any_bytes(span: bytes) -> None:
    with contextlib.suppress(TraceDamagedError):
        list(records(span))


@given(encoded, st.data())
def test_flipped_and_cut(fields: dict[str, Any], data: st.DataObject) -> None:
    """A record with changed or missing bytes decodes to something or is damage."""
    span = bytearray(encode(**fields))
    span[data.draw(st.integers(0, len(span) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(TraceDamagedError):
        list(records(bytes(span[: data.draw(st.integers(0, len(span)))])))


def test_discarded_entries_are_passed_over() -> None:
    """A reservation the kernel program gave up stays in the ring, marked; it is no record."""
    dead = bytearray(encode(WireOp.MARK, payload=b"x"))
    dead[3] |= wire.RING_DISCARD >> 24
    found = list(records(bytes(dead) + encode(WireOp.MARK, payload=b"y")))
    assert [bytes(record.payload) for record in found] == [b"y"]


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda name: not {0, 47} & set(name)), max_size=6))
def test_kernel_paths(parts: list[bytes]) -> None:
    """Names from the leaf up, each closed by a NUL, are the absolute path."""
    assert kernel_path(b"".join(part + b"\0" for part in reversed(parts))) == b"/" + b"/".join(parts)


def test_strings_must_be_closed() -> None:
    assert strings(b"a\0b\0rest\0", 2) == [b"a", b"b", b"rest\0"]
    with pytest.raises(TraceDamagedError):
        strings(b"a\0b", 2)
