"""Operations on the content of files: written from a buffer, and moved by the kernel without one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource

from . import system
from .hands import Args, Hands, pattern


def write(hands: Hands, args: Args) -> None:
    """One call of the write family. "how" says which, "offset" where (None: at the position)."""
    data = pattern(args["seed"], args["size"])
    with hands.file(args) as fd:
        if args.get("seek") is not None:
            os.lseek(fd, args["seek"], args.get("whence", os.SEEK_SET))
        _HOW[args["how"]](fd, data, args)


def _plain(fd: int, data: bytes, args: Args) -> None:
    os.write(fd, data)


def _pwrite(fd: int, data: bytes, args: Args) -> None:
    os.pwrite(fd, data, args["offset"])


def _parts(data: bytes, count: int) -> list[bytes]:
    step = max(1, -(-len(data) // count))
    return [data[at : at + step] for at in range(0, len(data), step)] + [b""]


def _writev(fd: int, data: bytes, args: Args) -> None:
    os.writev(fd, _parts(data, args["count"]))


def _pwritev(fd: int, data: bytes, args: Args) -> None:
    os.pwritev(fd, _parts(data, args["count"]), args["offset"])


def _pwritev2(fd: int, data: bytes, args: Args) -> None:
    held = ctypes.create_string_buffer(data, len(data) or 1)
    system.pwritev2(fd, [(ctypes.addressof(held), len(data))], args["offset"], args["rwf"])


def _direct(fd: int, data: bytes, args: Args) -> None:
    memory = system.Memory(data)
    try:
        system.write_from(fd, memory.address, len(data), args["offset"])
    finally:
        memory.free()


def _fault(fd: int, data: bytes, args: Args) -> None:
    """The buffer ends in the midst of what is to be written: EFAULT, or less is written."""
    memory = system.Memory(data, guard=2)
    try:
        if args["count"] > 1:
            half = len(data) // 2
            parts = [(memory.address, half), (memory.address + half, len(data) - half + 100)]
            system.pwritev2(fd, parts, args["offset"], 0)
        else:
            system.write_from(fd, memory.address, len(data) + 100, args["offset"])
    finally:
        memory.free()


def _limit(fd: int, data: bytes, args: Args) -> None:
    """RLIMIT_FSIZE ends it early, or fails it: Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (args["offset"] + len(data) // 2, before[1]))
    try:
        os.pwrite(fd, data, args["offset"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


_HOW = {
    "write": _plain, "pwrite": _pwrite, "writev": _writev, "pwritev": _pwritev, "pwritev2": _pwritev2,
    "direct": _direct, "fault": _fault, "limit": _limit,
}  # fmt: skip


def truncate(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (_, path):
        os.truncate(path, args["size"])


def ftruncate(hands: Hands, args: Args) -> None:
    with hands.file(args) as fd:
        os.ftruncate(fd, args["size"])


def fallocate(hands: Hands, args: Args) -> None:
    with hands.file(args) as fd:
        system.fallocate(fd, args["how"], args["offset"], args["length"])


def sendfile(hands: Hands, args: Args) -> None:
    with hands.file(args["source"]) as source, hands.file(args) as fd:
        if args["seek"] is not None:
            os.lseek(fd, args["seek"], os.SEEK_SET)
        os.sendfile(fd, source, args["offset"], args["size"])


def copy_range(hands: Hands, args: Args) -> None:
    with hands.file(args["source"]) as source, hands.file(args) as fd:
        if args["to"] is None and args["seek"] is not None:
            os.lseek(fd, args["seek"], os.SEEK_SET)
        os.copy_file_range(source, fd, args["size"], args["offset"], args["to"])


def splice(hands: Hands, args: Args) -> None:
    """Bytes out of a pipe; they got there by write(2), or as pages of ours by vmsplice(2)."""
    data = pattern(args["seed"], min(args["size"], 60000))
    memory = system.Memory(data)
    hold, put = os.pipe()
    try:
        if args["vmsplice"]:
            system.vmsplice(put, memory.address, len(data))
        else:
            os.write(put, data)
        with hands.file(args) as fd:
            if args["to"] is None and args["seek"] is not None:
                os.lseek(fd, args["seek"], os.SEEK_SET)
            os.splice(hold, fd, args["size"], None, args["to"])
    finally:
        os.close(hold)
        os.close(put)
        memory.free()


def clone(hands: Hands, args: Args) -> None:
    """FICLONE, FICLONERANGE or FIDEDUPERANGE; fails where the filesystem shares no blocks."""
    with hands.file(args["source"]) as source, hands.file(args) as fd:
        if args["how"] == "whole":
            fcntl.ioctl(fd, system.FICLONE, source)
        elif args["how"] == "range":
            system.clone_range(fd, source, args["offset"], args["size"], args["to"])
        else:
            system.dedupe(source, args["offset"], args["size"], fd, args["to"])
