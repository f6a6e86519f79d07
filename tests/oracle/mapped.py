"""Operations on files through memory: stored, and made sure of in some way; or kept mapped, and stored into later.

A store that nothing makes sure of counts from the mark that follows each operation. No store is beyond
the end of the file, where it would be a signal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from . import system
from .hands import Args, Hands, pattern

PAGE = system.PAGE


@dataclass
class Mapping:
    """Some pages of a file in memory. `offset` in the file, `length` in bytes, both whole pages; `fd` is our own."""

    fd: int
    address: int
    offset: int
    length: int

    def free(self) -> None:
        system.munmap(self.address, self.length)
        os.close(self.fd)


def _mapped(fd: int, args: Args, protection: int = system.READ_WRITE) -> Mapping:
    offset, length = args["page"] * PAGE, args["pages"] * PAGE
    return Mapping(os.dup(fd), system.map_shared(fd, offset, length, protection), offset, length)


def _store(mapping: Mapping, args: Args) -> None:
    at, data = _fitting(mapping, args)
    system.store(at, data)


def _fitting(mapping: Mapping, args: Args) -> tuple[int, bytes]:
    """(address, bytes): as much of what is to be stored as lies in the file and in the mapping."""
    end = min(mapping.length, os.fstat(mapping.fd).st_size - mapping.offset)
    if end <= 0:
        raise OSError(14, "nothing of the file is mapped")
    at = args["offset"] % end
    data = pattern(args["seed"], args["size"])[: end - at]
    if args["whole"]:
        at, data = 0, data.ljust(end, b"w")[:end]
    return mapping.address + at, data


def map_store(hands: Hands, args: Args) -> None:
    """Map, store, and make sure of it; nothing stays mapped. "how": by what call, or whose end."""
    with hands.file(args) as fd:
        readable = args["how"] == "mprotect"
        mapping = _mapped(fd, args, system.READ if readable else system.READ_WRITE)
    try:
        _HOW[args["how"]](mapping, args)
    finally:
        mapping.free()


def _msync(mapping: Mapping, args: Args) -> None:
    _store(mapping, args)
    system.msync(mapping.address, mapping.length)


def _munmap(mapping: Mapping, args: Args) -> None:
    _store(mapping, args)


def _fsync(mapping: Mapping, args: Args) -> None:
    _store(mapping, args)
    os.fsync(mapping.fd)


def _twice(mapping: Mapping, args: Args) -> None:
    """Written through memory, by a call, and through memory again."""
    _store(mapping, args)
    os.pwrite(mapping.fd, pattern(args["seed"] + 1, args["size"] // 2), mapping.offset + args["offset"] % 500)
    _store(mapping, {**args, "seed": args["seed"] + 2, "offset": args["offset"] + 7})


def _undone(mapping: Mapping, args: Args) -> None:
    """Cut off by a call, made as long as it was, and stored into."""
    _store(mapping, args)
    size = os.fstat(mapping.fd).st_size
    os.ftruncate(mapping.fd, size // 3)
    os.ftruncate(mapping.fd, size)
    _store(mapping, {**args, "offset": args["offset"] + 9})


def _mprotect(mapping: Mapping, args: Args) -> None:
    system.mprotect(mapping.address, mapping.length, system.READ_WRITE)
    _store(mapping, args)


def _mremap(mapping: Mapping, args: Args) -> None:
    """The mapping grows, and moves, and with it goes what may be stored into."""
    _store(mapping, args)
    longer = mapping.length + args["more"] * PAGE
    mapping.address = system.mremap(mapping.address, mapping.length, longer)
    mapping.length = longer
    _store(mapping, {**args, "offset": args["offset"] + 5000})


def _over(mapping: Mapping, args: Args) -> None:
    """Other pages are mapped over those of the file."""
    _store(mapping, args)
    system.map_over(mapping.address, PAGE)


def _forked(mapping: Mapping, args: Args) -> None:
    def act() -> None:
        _store(mapping, args)

    _child(act)


def _killed(mapping: Mapping, args: Args) -> None:
    def act() -> None:
        _store(mapping, args)
        os.kill(os.getpid(), signal.SIGKILL)

    _child(act)


def _executes(mapping: Mapping, args: Args) -> None:
    def act() -> None:
        _store(mapping, args)
        os.execv("/bin/true", ["true"])

    _child(act)


def _pokes(mapping: Mapping, args: Args) -> None:
    """A child writes into its parent's memory."""
    at, data = _fitting(mapping, args)
    parent = os.getpid()

    def act() -> None:
        memory = system.Memory(data)
        system.process_vm_writev(parent, memory.address, len(data), at)

    _child(act)


def _child(act: Callable[[], None]) -> None:
    """Does it in a forked child, and waits for its end."""
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


_HOW = {
    "msync": _msync, "munmap": _munmap, "fsync": _fsync, "twice": _twice, "undone": _undone, "mprotect": _mprotect,
    "mremap": _mremap, "over": _over, "fork": _forked, "kill": _killed, "exec": _executes, "poke": _pokes,
}  # fmt: skip
WAYS = tuple(_HOW)


def map_keep(hands: Hands, args: Args) -> None:
    """Map, and keep it so."""
    with hands.file(args) as fd:
        hands.keep_mapping(args["map"], _mapped(fd, args))


def map_poke(hands: Hands, args: Args) -> None:
    """Store into what was kept. "then": what makes sure of it, or "" for the mark alone."""
    mapping = _kept(hands, args)
    _store(mapping, args)
    if args["then"] == "msync":
        system.msync(mapping.address, mapping.length)
    elif args["then"] == "fsync":
        os.fsync(mapping.fd)
    elif args["then"] == "some":
        system.msync(mapping.address, PAGE)


def map_drop(hands: Hands, args: Args) -> None:
    """Unmapped, after a last store."""
    mapping = _kept(hands, args)
    try:
        _store(mapping, args)
    finally:
        hands.drop_mapping(args["map"])


def _kept(hands: Hands, args: Args) -> Mapping:
    if args["map"] not in hands.mappings:
        raise OSError(9, "nothing mapped there")
    return hands.mappings[args["map"]]
