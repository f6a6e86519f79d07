"""POSIX ACLs as the kernel keeps them beside the mode: what chmod makes of one, what a new file inherits.

Owns the binary form (linux/posix_acl_xattr.h) and the two rules. A mode's group bits are the ACL's
mask where it has one; the mode that an inode ends up with says the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 1, 4, 16, 32
_HEADER = 4


def _entries(acl: bytes) -> list[tuple[int, int, int]]:
    """(tag, permissions, id) of each entry; none of an ACL that is cut off."""
    body = acl[_HEADER:]
    return [] if len(body) % _ENTRY.size else list(_ENTRY.iter_unpack(body))


def is_only_mode(acl: bytes) -> bool:
    """Whether an ACL says no more than the permission bits do: the kernel sets those and keeps no ACL."""
    return {tag for tag, _, _ in _entries(acl)} == {_USER_OBJ, _GROUP_OBJ, _OTHER}


def permissions(acl: bytes) -> int | None:
    """The nine bits of a mode that an ACL stands for; None of one that the kernel would not take."""
    bits = {tag: may & 7 for tag, may, _ in _entries(acl)}
    if not bits.keys() >= {_USER_OBJ, _GROUP_OBJ, _OTHER}:
        return None
    return bits[_USER_OBJ] << 6 | bits.get(_MASK, bits[_GROUP_OBJ]) << 3 | bits[_OTHER]


def with_mode(acl: bytes, mode: int) -> bytes:
    """An access ACL after its file's mode was set."""
    entries = _entries(acl)
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return acl[:_HEADER] + b"".join(_ENTRY.pack(tag, bits.get(tag, may), whom) for tag, may, whom in entries)


def inherited(directory: Mapping[bytes, bytes], mode: int, *, is_dir: bool) -> dict[bytes, bytes]:
    """The ACLs of what was just made in a directory, from the directory's xattrs. `mode`: of what was made."""
    default = directory.get(DEFAULT)
    if default is None:
        return {}
    acls = {DEFAULT: default} if is_dir else {}
    if not is_only_mode(default):
        acls[ACCESS] = with_mode(default, mode)
    return acls
