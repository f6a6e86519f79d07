"""Ways to damage a trace, from flipped bits to lies in the right places.

Owns the damage: each function takes a trace directory and a source of chance, and changes the
trace. `MUTATIONS` names them all.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffkeeper.journal import FRAME, FRAME_HEAD, FRAME_MAGIC, SEGMENT_MAGIC, JournalReader, _check, segment_path
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.tables import Table
from diffkeeper.wire import INODE, WireOp, pieces, records

PAGE = 4096
INTERESTING = [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 255, 256, 4080, 4095, 4096, 65535, 1 << 16, (1 << 31) - 1, 1 << 31,
               (1 << 32) - 1, 1 << 32, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1]  # fmt: skip

Mutation = Callable[[Path, random.Random], None]


def _bytes(data: bytearray, chance: random.Random, start: int = 0, end: int | None = None) -> None:
    """Change a few bytes: bits, words of interesting values, pieces copied from elsewhere."""
    end = len(data) if end is None else end
    if end - start < 16:
        return
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at, kind = chance.randrange(start, end - 8), chance.randrange(4)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            width = chance.choice((1, 2, 4, 8))
            data[at : at + width] = (chance.choice(INTERESTING) & (1 << 8 * width) - 1).to_bytes(width, "little")
        elif kind == 2:
            data[at] = chance.randrange(256)
        else:
            size = chance.randrange(1, min(64, end - at))
            other = chance.randrange(start, end - size)
            data[at : at + size] = data[other : other + size]


def index_bytes(trace: Path, chance: random.Random) -> None:
    """Bytes anywhere in the data file."""
    path = trace / DATA_FILE
    data = bytearray(path.read_bytes())
    _bytes(data, chance)
    path.write_bytes(data)


def index_pages(trace: Path, chance: random.Random) -> None:
    """The headers and node tables of pages, pages in each other's places, the file cut off or longer."""
    path = trace / DATA_FILE
    data = bytearray(path.read_bytes())
    pages = len(data) // PAGE
    for _ in range(chance.choice((1, 1, 2, 4))):
        base, kind = chance.randrange(pages) * PAGE, chance.randrange(8)
        if kind == 0:  # page number
            data[base : base + 8] = struct.pack("<Q", chance.choice([*INTERESTING, chance.randrange(pages)]))
        elif kind == 1:  # flags
            data[base + 10 : base + 12] = struct.pack("<H", chance.choice((1, 2, 4, 8, 0x10, 0x22, 0x42, 0)))
        elif kind == 2:  # lower, upper; or the length of an overflow
            at = base + chance.choice((12, 14))
            data[at : at + 2] = struct.pack("<H", chance.choice(INTERESTING[:16]) & 0xFFFF)
        elif kind == 3:  # a pointer to a node
            at = base + 16 + 2 * chance.randrange(40)
            data[at : at + 2] = struct.pack("<H", chance.randrange(PAGE + 40))
        elif kind == 4:  # a node's header
            pointer = struct.unpack_from("<H", data, base + 16 + 2 * chance.randrange(8))[0]
            at = base + min(pointer, PAGE - 8) + 2 * chance.randrange(4)
            data[at : at + 2] = struct.pack("<H", chance.choice([*INTERESTING[:16], chance.randrange(pages)]) & 0xFFFF)
        elif kind == 5:  # one page in the place of another
            other = chance.randrange(pages) * PAGE
            data[base : base + PAGE] = data[other : other + PAGE]
        elif kind == 6:  # where an overflow value is
            pointer = struct.unpack_from("<H", data, base + 16 + 2 * chance.randrange(8))[0]
            at = min(base + pointer + 8 + chance.randrange(60), len(data) - 8)
            data[at : at + 8] = struct.pack("<Q", chance.choice([*INTERESTING, chance.randrange(pages)]))
        else:
            size = chance.randrange(len(data) + 3 * PAGE)
            data = data[:size] + bytes(max(0, size - len(data)))
            pages = max(1, len(data) // PAGE)
            data += bytes(max(0, PAGE - len(data)))
    path.write_bytes(data)


def index_meta(trace: Path, chance: random.Random) -> None:
    """The two pages that everything hangs on."""
    path = trace / DATA_FILE
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 2, 3))):
        at = chance.choice((0, PAGE)) + 8 * chance.randrange(2 + 17)
        width = chance.choice((2, 4, 8))
        value = chance.choice([*INTERESTING, *range(12)]) & (1 << 8 * width) - 1
        data[at : at + width] = value.to_bytes(width, "little")
    path.write_bytes(data)


def values(trace: Path, chance: random.Random) -> None:
    """Values and keys of the tables, where the pages themselves are sound."""
    database = Database(trace / DATA_FILE, write=True)
    txn = database.begin()
    for table in chance.sample(list(Table), chance.choice((1, 1, 2, 13))):
        entries = list(txn.scan(table))
        for key, value in chance.sample(entries, min(len(entries), chance.choice((1, 3, 1000)))):
            kind = chance.randrange(6)
            changed = bytearray(value)
            if kind == 0:
                txn.delete(table, key)
                continue
            if kind == 1 and len(key) > 8:
                new = bytearray(key)
                new[chance.randrange(len(new))] ^= 1 << chance.randrange(8)
                txn.put(table, bytes(new), value)
            elif kind == 2:
                changed = changed[: chance.randrange(len(changed) + 1)]
            elif kind == 3 and entries:
                changed = bytearray(chance.choice(entries)[1])
            elif len(changed) >= 16:
                _bytes(changed, chance)
            elif changed:
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            txn.replace(table, key, bytes(changed))
    txn.commit()
    database.close()


def journal_bytes(trace: Path, chance: random.Random) -> None:
    """Bytes of a segment; checksums tell."""
    for path in (trace / "journal").glob("*.seg"):
        data = bytearray(path.read_bytes())
        _bytes(data, chance)
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data) + 1)))])


def journal_records(trace: Path, chance: random.Random) -> None:
    """Lies in records whose checksums are right: fields, inodes, payloads; records twice, left out, in disorder."""
    frames = [payload for payload, _ in JournalReader(trace / "journal").frames()]
    for number in chance.sample(range(len(frames)), min(len(frames), chance.choice((1, 2, 8)))):
        frames[number] = _frame(frames[number], chance)
    if chance.random() < 0.2:
        chance.shuffle(frames)
    out = bytearray(SEGMENT_MAGIC)
    for payload in frames:
        head = FRAME_HEAD.pack(FRAME_MAGIC, len(payload))
        out += FRAME.pack(FRAME_MAGIC, len(payload), _check(head, payload)) + payload
    segment_path(trace / "journal", 1).write_bytes(out)


def _frame(payload: bytes, chance: random.Random) -> bytes:
    found = list(records(payload))
    made = []
    for record in found:
        roll = chance.random()
        if roll < 0.05:
            continue
        fields = record._asdict()
        if roll < 0.5:
            for _ in range(chance.choice((1, 2))):
                name = chance.choice(("time", "pid", "tid", "flags", "offset", "length", "op", "payload", "inodes"))
                if name == "payload":
                    data = bytearray(record.payload)
                    _bytes(data, chance)
                    extra = chance.choice((b"", b"\0", b"/../..", b"a\0b\0c\0", b"x" * 300))
                    fields["payload"] = bytes(data) + extra
                elif name == "inodes":
                    inodes = tuple(_inode(inode, chance) for inode in record.inodes)
                    fields["inodes"] = inodes[: chance.choice((0, 1, 9))]
                elif name == "op":
                    fields["op"] = chance.choice([*WireOp, 0, 99])
                else:
                    width = {"pid": 4, "tid": 4, "flags": 1}.get(name, 8)
                    fields[name] = chance.choice(INTERESTING) & (1 << 8 * width) - 1
        made.append(b"".join(bytes(part) for part in pieces(**fields)))
        if roll > 0.97:
            made.append(made[-1])
    span = bytearray(b"".join(made))
    if chance.random() < 0.2:
        _bytes(span, chance)
    return bytes(span)


def _inode(inode: Any, chance: random.Random) -> object:
    from diffkeeper.wire import Inode

    raw = bytearray(INODE.pack(*inode))
    _bytes(raw, chance)
    return Inode(*INODE.unpack(raw))


def facts(trace: Path, chance: random.Random) -> None:
    """session.json: its bytes, or values of other kinds and sizes in it."""
    path = trace / "session.json"
    if chance.random() < 0.3:
        data = bytearray(path.read_bytes())
        _bytes(data, chance)
        path.write_bytes(data)
        return
    path.write_text(json.dumps(_lie(json.loads(path.read_text()), chance)))


def facts_in_index(trace: Path, chance: random.Random) -> None:
    """The session in META, likewise: what the totals are."""
    database = Database(trace / DATA_FILE, write=True)
    txn = database.begin()
    data = txn.get(Table.META, b"session")
    if data is not None:
        txn.replace(Table.META, b"session", json.dumps(_lie(json.loads(data), chance)).encode())
    txn.commit()
    database.close()


def _lie(session: dict[str, object], chance: random.Random) -> dict[str, object]:
    odd: list[object] = [
        None, True, -1, 0, 1 << 40, 1 << 63, 1 << 200, -(1 << 70), 1e308, "", "\x1b[2J", "\udcff", "a" * 100_000,
        [], ["/"], ["relative"], ["/a/../b"], ["/opt\0"], {}, {"\x1b[31m": 1 << 80}, [[["/"]]], ["/opt", "/opt/root"],
        [["glob", {"exclude": "*"}]], [["nothing", {}]],
    ]  # fmt: skip
    for key in chance.sample(sorted(session), chance.choice((1, 2, 5))):
        session[key] = chance.choice(odd)
    return session


def members(trace: Path, chance: random.Random) -> None:
    """Links, pipes and directories where files should be, and the other way round."""
    name = chance.choice(("session.json", DATA_FILE, DATA_FILE + "-lock", "lock", "journal", "journal/00000001.seg"))
    path = trace / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rename(trace / "away")
    elif path.exists():
        path.unlink()
    kind = chance.randrange(5)
    if kind == 0:
        path.symlink_to(chance.choice(("/etc/passwd", "/dev/zero", "..", "nowhere", "/dev/stdin")))
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.write_bytes(chance.randbytes(chance.choice((0, 10, 8192))))
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 40)


MUTATIONS: dict[str, Mutation] = {
    each.__name__: each
    for each in (
        index_bytes, index_pages, index_meta, values, facts, facts_in_index, members, journal_bytes, journal_records
    )
}  # fmt: skip
