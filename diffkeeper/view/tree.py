"""What a mounted trace looks like as a filesystem, without a filesystem.

Owns `Place`, anything that stands in the mount, and `Inodes`, the numbers by which a kernel knows
places. The kinds of places are next door: `recorded` (what a moment holds), `hidden` (the top
directory and what is ours), `history` (the versions of a file). No FUSE here.

Two places are the same inode exactly when their keys are equal. A file's key is its node and
version, so a file that did not change between two moments is one inode in both: its pages are
cached once, and `diff` sees that it need not read. A directory's key holds the moment, because a
kernel knows a directory by one name only and would move it.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from diffkeeper.model import Attrs

TOP = 1
"""The number of the mount's top directory: FUSE says so."""

NUMBERS = (1 << 48) - 1
"""Inode numbers stay below this, so that tools print and compare them well."""


class Kind(enum.IntEnum):
    """What a key begins with. Numbers, not names: their hash is the same in every process."""

    DIRECTORY = 1
    OUTSIDE = 2
    FILE = 3
    WAY = 4
    GONE = 5
    HIDDEN = 6
    HISTORY = 7


class Entry(NamedTuple):
    """A name's place, and what stat() says of it."""

    place: Place
    attrs: Attrs


class Handle(NamedTuple):
    """An open live file: bytes from an offset, at most so many; and what is to be done when it is closed."""

    read: Callable[[int, int], bytes]
    close: Callable[[], None]


class Place(ABC):
    """Something that stands in the mount. What it is not asked for twice, it does not keep."""

    __slots__ = ("key",)
    live = False
    """Made anew for each reader: its size is not known before and its content not to be cached."""

    def __init__(self, key: Hashable) -> None:
        self.key = key

    @abstractmethod
    def attrs(self) -> Attrs:
        """What stat() says of it."""

    def lookup(self, name: bytes) -> Entry | None:
        """What `name` is in this directory, None when there is nothing."""
        del name
        self._refuse(errno.ENOTDIR)

    def children(self) -> Iterator[tuple[bytes, Entry]]:
        """The listed entries of this directory; a name may exist without being listed."""
        self._refuse(errno.ENOTDIR)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, fewer than `size` only at the end."""
        del offset, size
        self._refuse(errno.EISDIR)

    def open(self) -> Handle:
        """For the readers of what is live; all else is just read."""
        self._refuse(errno.EINVAL)

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self.attrs().xattrs

    def _refuse(self, number: int) -> NoReturn:
        raise OSError(number, os.strerror(number))


def directory_attrs(time_ns: int, links: int = 2, mode: int = 0o555) -> Attrs:
    """Attributes of a directory that was not recorded, owned by who mounted it."""
    return Attrs(stat.S_IFDIR | mode, os.getuid(), os.getgid(), 0, time_ns, time_ns, links)


class Inode:
    """An inode that a kernel holds: its place, its directory's number, how often it was told, whether it was opened.

    `answer` is for whoever tells the kernel: what it is told, so that this is put into words once.
    """

    __slots__ = ("answer", "number", "opened", "parent", "place", "told")

    def __init__(self, number: int, place: Place, parent: int) -> None:
        self.number, self.place, self.parent = number, place, parent
        self.told, self.opened = 0, False
        self.answer: Any = None


class Inodes:
    """The places that a kernel knows now, by number. Holds as many as the kernel does, no more.

    A number is made from the key, so a place forgotten and met again has its number again (but
    for the rare case of two places that want the same one: the second then takes the next).
    """

    def __init__(self, top: Place) -> None:
        self._by_key = {top.key: Inode(TOP, top, TOP)}
        self._by_number = {TOP: self._by_key[top.key]}

    def __len__(self) -> int:
        return len(self._by_number)

    def __getitem__(self, number: int) -> Inode:
        return self._by_number[number]

    def tell(self, place: Place, parent: int) -> Inode:
        """That of a place, of which the kernel is now told once more; `parent`: in this directory, if it is new."""
        inode = self._by_key.get(place.key)
        if inode is None:
            number = hash(place.key) & NUMBERS
            while number <= TOP or number in self._by_number:
                number = (number + 1) & NUMBERS
            inode = self._by_key[place.key] = self._by_number[number] = Inode(number, place, parent)
        inode.told += 1
        return inode

    def forget(self, number: int, times: int) -> None:
        """The kernel drops `times` of its references."""
        inode = self._by_number.get(number)
        if inode is None or number == TOP:
            return
        inode.told -= times
        if inode.told <= 0:
            del self._by_number[number]
            del self._by_key[inode.place.key]
