"""What the execution of any operation needs: paths as they are to be spelt, descriptors, bytes.

Owns `Hands`, the state of one actor: where its root is, and the descriptors it keeps open, and
what it keeps mapped, in numbered slots. Paths in operations are relative to the recorded directory, whoever does them.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import system

if TYPE_CHECKING:
    from .mapped import Mapping

Args = dict[str, Any]

FLAGS = {
    "rdwr": os.O_RDWR, "wronly": os.O_WRONLY, "creat": os.O_CREAT, "excl": os.O_EXCL, "trunc": os.O_TRUNC,
    "append": os.O_APPEND, "sync": os.O_SYNC, "direct": os.O_DIRECT, "path": os.O_PATH, "nofollow": os.O_NOFOLLOW,
}  # fmt: skip

MOST_UP = 24
"""So many directories the recorded one lies down, and so many a symlink leads up at most: nothing outside is reached,
wherever the symlink is moved."""
JAIL = "jail"
"""A directory that there is in the recorded one, and not in "/"."""


def pattern(seed: int, size: int) -> bytes:
    """The bytes an operation writes: the same for the same seed; now and then hardly more than zeroes."""
    if seed % 16 == 0:
        return (b"%d" % seed).ljust(size, b"\0")[:size]
    return random.Random(seed).randbytes(size)


def flags_of(words: str) -> int:
    value = os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not make anyone wait
    for word in words.split():
        value |= FLAGS[word]
    return value


class Hands:
    """One actor's. `root`: the recorded directory as this actor spells it."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.slots: dict[int, int] = {}
        self.mappings: dict[int, Mapping] = {}

    def text(self, path: str) -> bytes:
        """A target of a symlink: "{root}" stands for the recorded directory's own path.

        For who is in a chroot, for a directory in there: what stands there must lead nowhere for all others.
        """
        return os.fsencode(path.replace("{root}", os.fsdecode(self.root) or f"/{JAIL}/."))

    @contextlib.contextmanager
    def at(self, path: str, how: str = "cwd") -> Iterator[tuple[int | None, bytes]]:
        """(dirfd or None, path to pass). `how`: "cwd", "abs", or "fd:DIRECTORY" to start from its descriptor."""
        if how == "abs":
            yield None, self.root + b"/" + os.fsencode(path)
        elif how.startswith("fd:"):
            directory = os.fsencode(how[3:])
            fd = os.open(self.root + b"/" + directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield fd, self._from(os.readlink(b"/proc/self/fd/%d" % fd), path)
            finally:
                os.close(fd)
        else:
            yield None, self._from(os.getcwdb(), path)

    def _from(self, here: bytes, path: str) -> bytes:
        """A relative path, unnormalised: `path` may lead through symlinks."""
        up = os.path.relpath(self.root or b"/", here)
        return os.fsencode(path) if up == b"." else up + b"/" + os.fsencode(path)

    @contextlib.contextmanager
    def file(self, args: Args) -> Iterator[int]:
        """The descriptor an operation means: one kept open in "slot", or "path" opened for it with "flags"."""
        if "slot" in args:
            if args["slot"] not in self.slots:
                raise OSError(9, "no such slot")
            yield self.slots[args["slot"]]
            return
        fd = self.open(args)
        try:
            yield fd
        finally:
            os.close(fd)

    def open(self, args: Args) -> int:
        with self.at(args["path"], args.get("at", "cwd")) as (dirfd, path):
            flags, mode = flags_of(args.get("flags", "rdwr")), args.get("mode", 0o644)
            if args.get("openat2"):
                return system.openat2(system.AT_FDCWD if dirfd is None else dirfd, path, flags, mode)
            return os.open(path, flags, mode, dir_fd=dirfd)

    def keep(self, slot: int, fd: int) -> None:
        self.drop(slot)
        self.slots[slot] = fd

    def drop(self, slot: int) -> None:
        if slot in self.slots:
            os.close(self.slots.pop(slot))

    def keep_mapping(self, number: int, mapping: Mapping) -> None:
        self.drop_mapping(number)
        self.mappings[number] = mapping

    def drop_mapping(self, number: int) -> None:
        if number in self.mappings:
            self.mappings.pop(number).free()
