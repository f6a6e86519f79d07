"""Operations that are asked for and done later: io_uring requests of each kind, and Linux AIO. All are waited for.

Owns the library that makes io_uring requests: compiled once from requests.c, for all actors.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import system
from .hands import Args, Hands, flags_of, pattern

SOURCE = Path(__file__).with_name("requests.c")
WAYS = ("plain", "deferred", "poll")
_ASYNC = 16
"""IOSQE_ASYNC: a worker thread of the kernel does it, not the caller."""


@functools.cache
def _ring() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="oracle-lib-") as directory:
        built = Path(directory, "requests.so")
        options = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror")
        subprocess.run(["gcc", *options, "-o", built, SOURCE, "-luring"], check=True)
        return ctypes.CDLL(str(built))


def prepare() -> None:
    """Compile and load: before there are actors, who may not be able to."""
    _ring()


def _ask(name: str, args: Args, *arguments: int | bytes | ctypes.c_longlong | ctypes.c_void_p | None) -> int:
    result = int(getattr(_ring(), name)(WAYS.index(args["way"]), _ASYNC * args["worker"], *arguments))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _fd(dirfd: int | None) -> int:
    return system.AT_FDCWD if dirfd is None else dirfd


def ring_write(hands: Hands, args: Args) -> None:
    """"offset" None: at the position of the file."""
    data = pattern(args["seed"], args["size"])
    offset = ctypes.c_longlong(-1 if args["offset"] is None else args["offset"])
    memory = system.Memory(data)
    try:
        with hands.file(args) as fd:
            if args["seek"] is not None:
                os.lseek(fd, args["seek"], os.SEEK_SET)
            _ask("ring_write", args, _HOW.index(args["how"]), fd, memory.pointer, len(data), offset)
    finally:
        memory.free()


_HOW = ("write", "vectors", "fixed", "linked")


def ring_splice(hands: Hands, args: Args) -> None:
    data = pattern(args["seed"], args["size"])
    hold, put = os.pipe()
    try:
        os.write(put, data)
        with hands.file(args) as fd:
            _ask("ring_splice", args, hold, fd, len(data), ctypes.c_longlong(args["offset"]))
    finally:
        os.close(hold)
        os.close(put)


def ring_fallocate(hands: Hands, args: Args) -> None:
    with hands.file(args) as fd:
        where = ctypes.c_longlong(args["offset"]), ctypes.c_longlong(args["length"])
        _ask("ring_fallocate", args, fd, args["how"], *where)


def ring_ftruncate(hands: Hands, args: Args) -> None:
    with hands.file(args) as fd:
        _ask("ring_ftruncate", args, fd, ctypes.c_longlong(args["size"]))


def ring_open(hands: Hands, args: Args) -> None:
    with hands.at(args["path"], args["at"]) as (dirfd, path):
        os.close(_ask("ring_open", args, _fd(dirfd), path, flags_of(args["flags"]), args["mode"]))


def ring_name(hands: Hands, args: Args) -> None:
    """mkdir, symlink, link, rename or unlink, as "how" says; its "new" is the second path, or the target."""
    how = _NAMING.index(args["how"])
    with contextlib.ExitStack() as stack:
        dirfd, path = stack.enter_context(hands.at(args["path"], args["at"]))
        newdir, other = None, hands.text(args["new"])
        if args["how"] in ("link", "rename"):
            newdir, other = stack.enter_context(hands.at(args["new"], args["at2"]))
        _ask("ring_name", args, how, _fd(dirfd), path, _fd(newdir), other, args["mode"])


def ring_setxattr(hands: Hands, args: Args) -> None:
    value, name = bytes.fromhex(args["value"]), os.fsencode(args["name"])
    rest = name, value, len(value), args["flags"]
    if "path" in args:
        with hands.at(args["path"], args["at"]) as (_, path):
            _ask("ring_setxattr", args, -1, path, *rest)
    else:
        with hands.file(args) as fd:
            _ask("ring_setxattr", args, fd, None, *rest)


_NAMING = ("mkdir", "symlink", "link", "rename", "unlink")


def aio(hands: Hands, args: Args) -> None:
    """Several writes at once, next to each other, every other one of several buffers; all are waited for."""
    data = pattern(args["seed"], args["size"])
    memory, parts = system.Memory(data), args["count"]
    step = max(1, len(data) // parts)
    if args["aligned"]:
        step = max(512, step // 512 * 512)
    try:
        with hands.file(args) as fd:
            writes = [
                (fd, memory.address + at, min(step, len(data) - at), args["offset"] + at, number % 2 == 1)
                for number, at in enumerate(range(0, len(data), step))
            ]
            results = system.submit(writes)
    finally:
        memory.free()
    _complain(results)


def _complain(results: Sequence[int]) -> None:
    if results and max(results) < 0:
        raise OSError(-results[0], os.strerror(-results[0]))
