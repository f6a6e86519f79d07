"""Which recorded names git can hold, and how names are spelt in a fast-import stream.

Owns the rules of `git fsck` for paths: what it would call an attack on whoever checks out is left
out, on any filesystem that git knows of.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffkeeper.model import Attrs

# HFS+ ignores these wherever they stand in a name; given as UTF-8.
_IGNORED = tuple(
    chr(code).encode()
    for code in (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF)
)
_DOT_GIT = re.compile(rb"(\.git|git~1)[. ]*(:.*|\\.*)?", re.IGNORECASE | re.DOTALL)
_SPECIAL = re.compile(
    rb"(\.(gitmodules|gitattributes|gitignore|mailmap)|git(mod|att|ign)~\d|mailma~\d)[. ]*", re.IGNORECASE
)
_QUOTED = {0x0A: b"\\n", 0x22: b'\\"', 0x5C: b"\\\\"}


def holds(path: bytes, attrs: Attrs) -> bool:
    """Whether a git tree can have this: a regular file or symlink, with no part of its path that means `.git`."""
    if stat.S_IFMT(attrs.mode) not in (stat.S_IFREG, stat.S_IFLNK) or not holds_path(path):
        return False
    # As a symlink such a file would let whoever checks out be read from elsewhere.
    return attrs.is_file or not _SPECIAL.fullmatch(_plain(path.rpartition(b"/")[2]))


def holds_path(path: bytes) -> bool:
    return bool(path) and not any(_DOT_GIT.fullmatch(_plain(part)) for part in path.split(b"/"))


def _plain(name: bytes) -> bytes:
    for char in _IGNORED:
        name = name.replace(char, b"")
    return name


def mode(attrs: Attrs) -> bytes:
    """One of the three that git knows."""
    if attrs.is_symlink:
        return b"120000"
    return b"100755" if attrs.mode & 0o111 else b"100644"


def quoted(path: bytes) -> bytes:
    """A path as fast-import reads it: C-style quotes, so that nothing in it can end the line."""
    return b'"' + b"".join(_QUOTED.get(byte) or _byte(byte) for byte in path) + b'"'


def _byte(byte: int) -> bytes:
    return bytes((byte,)) if 0x20 <= byte < 0x7F else b"\\%03o" % byte


def one_line(text: str) -> bytes:
    """A name or address for a commit: no line end, no angle bracket, not empty, as git wants it."""
    kept = "".join(char if char.isprintable() and char not in "<>" else "?" for char in text).strip(" .,:;\"'\\")
    return (kept or "unknown").encode("utf-8", "backslashreplace")


def tag(name: str) -> bytes | None:
    """The tag for a mark; None where git would not take the name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_+=,.-]*(?<![.])", name) or ".." in name or name.endswith(".lock"):
        return None
    return b"refs/tags/" + name.encode("ascii")
