"""NodeState: the indexer's idea of one node at the cursor.

Owns the value of the NODES table. Everything a crash must not lose is in `packed`; rows that wait
to become a block are flushed before it is stored.
"""

from __future__ import annotations

import stat
from array import array
from operator import attrgetter

import msgspec

from ..errors import TraceDamagedError
from ..model import Fidelity
from .codec import damaged, pack_attrs, pack_value, unpack_value

_TYPE, _DIRECTORY, _REGULAR = 0o170000, stat.S_IFDIR, stat.S_IFREG
_FIDELITIES = frozenset(map(int, Fidelity))

Identity = tuple[int, int, int]
"""(dev, ino, gen) as the kernel has them."""


class Pending:
    """Rows of one node that no block has yet."""

    __slots__ = ("before", "payload", "reset", "rows")

    def __init__(self, before: int, reset: bool) -> None:
        self.rows = array("q")
        self.payload = bytearray()
        self.before, self.reset = before, reset


class Saved(msgspec.Struct, array_like=True, eq=False):
    """What of a node is kept between transactions."""

    node: int
    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 0  # files: names in our tree; directories: as the inode says
    rdev: int = 0
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = {}
    version: int = 0
    changed: int = 0
    fidelity: int = Fidelity.EXACT
    implicit: bool = False  # seen only as part of a path, or by its identity: nothing said what it is
    parent: int = 0  # one of its names; the last one when it has none
    name: bytes = b""
    names: int = 0
    ident: Identity | None = None
    since: int = 0  # bytes written since the last RESET or keyframe
    full: bytes = b""  # digest of the blob that is the whole content, when there is one
    prior: bytes = b""  # the same of the content before the last RESET
    block_first: int = -1  # first seq and part of the last block
    block_part: int = 0
    spread: bool = False  # its extended attributes have entries of their own


_saved = attrgetter(*Saved.__struct_fields__)


class NodeState(Saved, eq=False):
    """With what is only in memory."""

    pending: Pending | None = None
    dirty: bool = True
    stored: bool = False  # NODES has it, as it was
    young: bool = False  # made since the tables were last read from: what has a name in it is in memory
    altered: tuple[bytes, ...] = ()  # names of extended attributes that changed since they were stored
    path: bytes = b""  # valid while `path_age` is the tree's age
    path_age: int = -1
    outside: bool = False
    hidden: bool = False  # in the trace's own directory, or in a pseudo filesystem

    @property
    def is_dir(self) -> bool:
        return self.mode & _TYPE == _DIRECTORY

    @property
    def is_file(self) -> bool:
        return self.mode & _TYPE == _REGULAR

    def packed(self) -> bytes:
        return pack_value(_saved(self))

    def set_xattr(self, name: bytes, value: bytes) -> None:
        self.xattrs[name] = value
        self.altered += (name,)

    def drop_xattr(self, name: bytes) -> bool:
        """Whether it was there."""
        if name not in self.xattrs:
            return False
        del self.xattrs[name]
        self.altered += (name,)
        return True

    def packed_attrs(self, xattrs: bytes) -> bytes:
        """What of it is true from now on, as ATTRS has it. `xattrs`: as they are stored there."""
        if self.fidelity not in _FIDELITIES:
            raise damaged("a node has an unknown fidelity")
        kind = self.mode & _TYPE
        return pack_attrs(
            self.mode, self.uid, self.gid, self.nlink if kind == _DIRECTORY else self.names, self.rdev,
            0 if kind == _REGULAR else self.size, self.mtime, self.ctime, self.version, self.changed, self.fidelity,
            self.target, xattrs,
        )  # fmt: skip


def unpack_state(data: bytes) -> NodeState:
    """Raises TraceDamagedError."""
    saved = unpack_value(data, Saved)
    try:
        state = NodeState(*_saved(saved))
    except (TypeError, ValueError) as error:
        raise TraceDamagedError(f"damaged trace: {error}") from error
    state.dirty, state.stored = False, True
    return state
