"""Marks, and the processes of the recorded tree at any moment.

Owns the tables MARKS and PROCESSES: a process is an entry per fork, exec and exit.
"""

from __future__ import annotations

import os
import struct

import msgspec

from ..model import Mark, Process
from .codec import damaged, pack_value, unpack_value
from .db import Txn
from .names import LATEST, U64
from .tables import Table

_PID = struct.Struct(">I")


class _Row(msgspec.Struct, array_like=True):
    ppid: int
    uid: int
    comm: bytes
    argv: list[bytes]
    start: int
    end: int | None
    status: int | None


def put(txn: Txn, process: Process, seq: int) -> None:
    argv = [os.fsencode(text) for text in process.argv]
    row = _Row(
        process.ppid, process.uid, os.fsencode(process.comm), argv, process.start, process.end, process.status
    )
    txn.put(Table.PROCESSES, _PID.pack(process.pid) + U64.pack(seq), pack_value(row))


def at(txn: Txn, pid: int, seq: int = LATEST) -> Process | None:
    """What was known of a process by `seq`."""
    if not 0 <= pid < 1 << 32:
        return None
    prefix = _PID.pack(pid)
    found = txn.floor(Table.PROCESSES, prefix, prefix + U64.pack(seq))
    return _decode(*found) if found else None


def everyone(txn: Txn) -> dict[int, Process]:
    """By pid; the last one, where a pid was used again."""
    return {process.pid: process for process in (_decode(*item) for item in txn.scan(Table.PROCESSES))}


def _decode(key: bytes, value: bytes) -> Process:
    if len(key) != 12:
        raise damaged("a process has no number")
    row = unpack_value(value, _Row)
    argv = tuple(os.fsdecode(text) for text in row.argv)
    pid = int.from_bytes(key[:4], "big")
    return Process(pid, row.ppid, row.uid, os.fsdecode(row.comm), argv, row.start, row.end, row.status)


def put_mark(txn: Txn, mark: Mark) -> None:
    txn.put(Table.MARKS, U64.pack(mark.seq), pack_value((mark.time, os.fsencode(mark.name))))


def marks(txn: Txn) -> list[Mark]:
    """All marks, in order; of a name that was used again, each."""
    result = []
    for key, value in txn.scan(Table.MARKS):
        time, name = unpack_value(value, tuple[int, bytes])
        result.append(Mark(os.fsdecode(name), int.from_bytes(key, "big"), time))
    return result


def text(data: bytes | memoryview) -> str:
    """Bytes of a program as text; what is not UTF-8 stands as surrogate escapes."""
    return os.fsdecode(bytes(data))
